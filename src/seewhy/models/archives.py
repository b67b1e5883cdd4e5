"""Archives of torch (.pt2, TorchScript, checkpoints), looked into by torch's own reader before torch loads them.

What an archive would run is found here and in the two files that know its kind; `needs_trust` is what they all raise.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from seewhy.errors import CheckpointError, one_line

__all__ = ["check_archive", "check_pickle", "names", "needs_trust", "reading", "records", "said"]

_FIRST = b"PK\x03\x04"
_TIMES, _SPARE = 20, 2**28  # an archive may be so many times its file, and 256 MB more


def needs_trust(path: Path, what: str) -> CheckpointError:
    """Returns the error for a file that would run code: ``what`` continues "'net.pt2' has ..."."""
    return CheckpointError(
        f"{str(path)!r} has {what.rstrip('.')}. Reading it would run code from the file. If you trust where it comes "
        "from, pass trust=True (--trust)."
    )


def names(path: Path) -> list[str]:
    """Returns the names of an archive's parts; none where the file is no archive.

    Raises:
        CheckpointError: it is a damaged one.
    """
    with _read(path) as archive:
        return [] if archive is None else archive.namelist()


def check_archive(path: Path, trust: bool = False) -> None:
    """Raises CheckpointError for an archive that is damaged, or would fill the memory.

    torch does not compare the checksums of the parts: with one bit changed the weights would be those of another
    network. Where torch wrote none (``set_crc32_options(False)``), nothing can be compared.

    Args:
        path: any file; one that is no archive passes.
        trust: takes archives whose parts are far larger than the file.
    """
    with _read(path) as archive:
        if archive is None:
            return
        whole, size = sum(part.file_size for part in archive.infolist()), path.stat().st_size
        if not trust and whole > _TIMES * size + _SPARE:
            raise CheckpointError(
                f"{str(path)!r} has {size} bytes and would unpack to {whole}, more than {_TIMES} times as many. Save "
                "it again without compression."
            )
        summed = any(part.CRC for part in archive.infolist())
        if summed and (bad := archive.testzip()) is not None:
            raise CheckpointError(
                f"{str(path)!r} is damaged: the bytes of its part {bad!r} are not those that were written. Fetch or "
                "save it again."
            )


@contextmanager
def _read(path: Path) -> Iterator[zipfile.ZipFile | None]:
    """The archive in a file; None where that begins like no archive and ends like none."""
    with path.open("rb") as file:
        begins = file.read(4) == _FIRST
    if not begins and not zipfile.is_zipfile(path):
        yield None
        return
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except CheckpointError:
        raise
    except Exception as error:  # zipfile meets damaged archives with errors of many kinds
        raise CheckpointError(f"{str(path)!r} is a damaged archive: {said(error)}.") from error


def records(path: Path) -> Mapping[str, bytes] | None:
    """The parts of an archive as torch's reader sees them, read when asked for; None where that cannot read it."""
    try:
        return _Records(torch._C.PyTorchFileReader(str(path)))
    except RuntimeError:
        return None


class _Records(Mapping[str, bytes]):
    """Name -> content of an archive's parts."""

    def __init__(self, reader: Any) -> None:
        self.reader, self.names = reader, list(reader.get_all_records())

    def __getitem__(self, name: str) -> bytes:
        return bytes(self.reader.get_record(name))

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def __iter__(self) -> Any:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def check_pickle(path: Path, name: str, data: bytes) -> None:
    """Raises CheckpointError unless a part of an archive holds tensors and plain values alone."""
    try:
        torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise needs_trust(path, f"more than tensors in its part {name!r}: {said(error)}") from error
    except Exception as error:  # torch raises many types on damaged parts
        raise CheckpointError(f"{str(path)!r} has a damaged part {name!r}: {said(error)}.") from error


@contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """Says that the file is not ``what`` it should be, whatever torch raises of one that is damaged.

    Raises:
        CheckpointError: from what was raised.
    """
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:  # a damaged archive ends in errors of many kinds
        raise CheckpointError(f"{str(path)!r} is not {what}: {one_line(error)}") from error


def said(error: Exception) -> str:
    """Which of torch's many lines says what is wrong."""
    text = str(error).strip() or type(error).__name__
    marks = ("Unsupported global", "Trying to load unsupported", "WeightsUnpickler error")
    place = next((at for mark in marks if (at := text.find(mark)) >= 0), 0)
    return text[place:].splitlines()[0].partition(". ")[0].rstrip(". ")
