"""Archives of torch (.pt2, TorchScript, checkpoints), looked into by torch's own reader before torch loads them.

What an archive would run is found here and in the two files that know its kind; `needs_trust` is what they all raise.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from seewhy.errors import CheckpointError

__all__ = ["check_expansion", "check_pickle", "needs_trust", "records", "said"]

_TIMES, _SPARE = 20, 2**28  # an archive may be so many times its file, and 256 MB more


def needs_trust(path: Path, what: str) -> CheckpointError:
    """The error for a file that would run code: ``what`` continues "'net.pt2' has ..."."""
    return CheckpointError(
        f"{str(path)!r} has {what.rstrip('.')}. Reading it would run code from the file. If you trust where it comes "
        "from, pass trust=True (--trust)."
    )


def check_expansion(path: Path) -> None:
    """Raises CheckpointError for an archive whose parts are far larger than the file: it would fill the memory."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        whole = sum(part.file_size for part in archive.infolist())
    if whole > _TIMES * (size := path.stat().st_size) + _SPARE:
        raise CheckpointError(
            f"{str(path)!r} has {size} bytes and would unpack to {whole}, more than {_TIMES} times as many. Save it "
            "again without compression."
        )


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


def said(error: Exception) -> str:
    """Which of torch's many lines says what is wrong."""
    text = str(error).strip() or type(error).__name__
    marks = ("Unsupported global", "Trying to load unsupported", "WeightsUnpickler error")
    place = next((at for mark in marks if (at := text.find(mark)) >= 0), 0)
    return text[place:].splitlines()[0].partition(". ")[0].rstrip(". ")
