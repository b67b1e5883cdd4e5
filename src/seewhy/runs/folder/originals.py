"""The original of a stored map: where it is, and whether it still is the picture that the run has seen.

A run folder may come from anybody, so what it names is not simply opened. One guard holds for pages, notebook and
exports:

- An absolute path on this machine counts while the file's bytes are those that the run noted (`content`). A run that
  noted none is older: it is believed while size and time of change are the noted ones, and a sentence says that the
  bytes could not be compared. A symbolic link is followed: the same holds for the file behind it.
- ``originals/NAME`` is a copy inside of the run folder, also behind an address of fsspec. A symbolic link there counts
  for nothing.
- Relative paths and addresses elsewhere count for nothing.
- It must be a picture in a format that seewhy opens, of the size that the run noted.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, Protocol

from seewhy.errors import SeewhyError
from seewhy.images.decoding import opened, orientation
from seewhy.images.pages import chosen
from seewhy.images.readers import reader_of
from seewhy.runs.folder.filesystem import Files, LocalFiles

__all__ = ["Noted", "Original", "content", "original", "remark", "same_bytes_long"]

_COPIED = re.compile(r"originals/[0-9a-z]+\.[0-9a-z]+\Z")
_FILE = re.compile(r"\d+:\d+\Z")
_SETTLED = 2_000_000_000  # nanoseconds after which a file that changes again has another time of change
_INSTEAD = "The stored thumbnail is shown instead."


class Noted(Protocol):
    """What a run noted of a picture."""

    @property
    def source(self) -> str | None:
        """Path of the original, or None."""
        ...

    @property
    def stamp(self) -> str:
        """Size and time of change, where it was a file."""
        ...

    @property
    def content(self) -> str | None:
        """Sign of the file's bytes, or None."""
        ...

    @property
    def size(self) -> tuple[int, int] | None:
        """(height, width) in pixels, or None."""
        ...


@dataclass(frozen=True, kw_only=True)
class Original:
    """The original of a stored map, or why there is none.

    Attributes:
        data: its bytes; None where there is no original that can be believed.
        path: where it lies on this machine; None where it is not there, or behind an address.
        changed: a sentence where the file is there but differs from what the run noted; else "".
        missing: a sentence where the original cannot be read; else "".
        unchecked: a sentence where the file is believed although the run noted no sign of its bytes; else "".
    """

    data: bytes | None = None
    path: str | None = None
    changed: str = ""
    missing: str = ""
    unchecked: str = ""

    @property
    def note(self) -> str:
        """What a reader should know: why the thumbnail is shown instead, or that the original could not be checked."""
        return self.why or self.unchecked

    @property
    def why(self) -> str:
        """Why the thumbnail is shown instead; "" where the original is there or where none was ever noted."""
        return self.changed or self.missing


class _Read(NamedTuple):
    data: bytes
    stamp: str


def content(data: bytes) -> str:
    """Returns a sign of a file's bytes: 16 bytes of BLAKE2b, in hexadecimal digits."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def same_bytes_long(one: str, other: str) -> bool:
    """Says whether two stamps are of files of equal size; False where one is of no file."""
    return ":" in one and one.partition(":")[0] == other.partition(":")[0]


def original(files: Files, noted: Noted, most: int | None = None) -> Original:
    """Looks for the original of a picture of a run.

    Args:
        files: the run folder.
        noted: what the run noted of the picture.
        most: the largest file that is read, in bytes; None for any size. A larger file counts as missing.
    """
    source = noted.source
    if source is None:
        return Original()
    copied = bool(_COPIED.match(source))
    if not copied and not os.path.isabs(source):
        return Original(missing=f"The original {source!r} is not a file of this machine. {_INSTEAD}")
    try:
        path = _place(files, source) if copied else str(chosen(source)[0])
        read = _Read(files.get(source), "") if path is None else _read(path, most)
    except (OSError, ValueError, SeewhyError) as error:
        return Original(missing=f"The original {source!r} cannot be read ({error}). {_INSTEAD}")
    same = _same(read, noted, copied)
    if same and not copied and (chosen(source)[1] or _is_for_a_reader(source)):
        return Original(missing=f"The original {source!r} is of a kind that browsers do not show. {_INSTEAD}")
    if not (same and _fits(read.data, noted.size)):
        return Original(changed=f"The original {source!r} was changed since the map was made. {_INSTEAD}")
    return Original(
        data=read.data, path=path, unchecked="" if copied or noted.content is not None else _unchecked(source)
    )


def _unchecked(source: str) -> str:
    return (
        f"The original {source!r} has the size and time of change that the run noted. This run is older and noted no "
        "sign of its bytes, so that it could not be checked whether it still is the picture of the map."
    )


class _Wanted(NamedTuple):
    """What a run noted, as a key."""

    source: str | None
    stamp: str
    content: str | None
    size: tuple[int, int] | None


def remark(files: Files, noted: Noted, most: int | None = None) -> str:
    """Returns the sentence that a page shows beside an image: its original was changed or could not be checked; or "".

    A file's bytes are compared once, and again only when its size, place or times have changed: a page has many images.

    Args:
        files: the run folder.
        noted: what the run noted of the picture.
        most: as for `original`.
    """
    wanted = _Wanted(noted.source, noted.stamp, noted.content, noted.size)
    if isinstance(files, LocalFiles) and (sign := _sign(files, wanted.source)) is not None:
        return _remembered(files, wanted, most, sign)
    return _remark(files, wanted, most)


def _remark(files: Files, noted: _Wanted, most: int | None) -> str:
    found = original(files, noted, most)
    return found.changed or found.unchecked


@lru_cache(maxsize=8192)
def _remembered(files: LocalFiles, noted: _Wanted, most: int | None, sign: tuple[int, ...]) -> str:
    return _remark(files, noted, most)


def _sign(files: LocalFiles, source: str | None) -> tuple[int, ...] | None:
    """Returns values that differ when a file was changed; None where there is no file, or it was changed just now."""
    if source is None:
        return None
    try:
        status = os.stat(chosen(os.path.join(files.root, source))[0])  # an absolute path stays what it is
    except (OSError, ValueError):
        return None
    if abs(time.time_ns() - status.st_ctime_ns) < _SETTLED:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _place(files: Files, source: str) -> str | None:
    """Returns the path of a copied original; None where the run folder is behind an address.

    Raises:
        ValueError: a symbolic link leads elsewhere.
    """
    if not isinstance(files, LocalFiles):
        return None
    path = os.path.join(os.path.realpath(files.root), *source.split("/"))
    if os.path.realpath(path) != path:
        raise ValueError("it is a symbolic link")
    return path


def _read(path: str, most: int | None) -> _Read:
    if not os.path.isfile(path):
        raise ValueError("there is no such file")
    with open(path, "rb") as file:
        status = os.fstat(file.fileno())
        if most is not None and status.st_size > most:
            raise ValueError(f"it has more than {most} bytes")
        return _Read(file.read(status.st_size), f"{status.st_size}:{status.st_mtime_ns}")


def _same(read: _Read, noted: Noted, copied: bool) -> bool:
    """Says whether the content is as noted; where none was noted, compares size and time, and believes any copy."""
    if noted.content is not None:
        return content(read.data) == noted.content
    first = noted.stamp.partition("+")[0]  # where annotations are files of their own, the picture's path comes first
    return copied or (bool(_FILE.match(first)) and read.stamp == first)


def _is_for_a_reader(source: str) -> bool:
    try:
        return reader_of(Path(source)) is not None
    except OSError:  # the file was removed meanwhile
        return False


def _fits(data: bytes, size: tuple[int, int] | None) -> bool:
    """Says whether the bytes are a picture that has this (height, width) when it is shown."""
    try:
        with opened(io.BytesIO(data)) as image:
            turned = orientation(image) >= 5
            return size in (None, (image.width, image.height) if turned else (image.height, image.width))
    except Exception:  # whatever Pillow raises for bytes that are no picture
        return False
