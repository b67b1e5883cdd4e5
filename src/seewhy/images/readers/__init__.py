"""Readers: pictures that Pillow does not open. A file is one reader; it says which files are its own.

Each gives one plane of values as they are meant, and which of them are black and white. Packages outside add theirs
under the entry point group ``seewhy.readers``; they are asked about files only that nothing here can read.

The rules of docs/security.md hold for all: a reader compares the number of values with the limit before it decodes
them, hands nothing to another program, and reads one plane at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Protocol

from numpy.typing import NDArray

from seewhy import registry
from seewhy.images.pages import Page

__all__ = ["Plane", "Reader", "reader_of", "suffixes"]

HEAD = 4096  # bytes by which a file is recognised


@dataclass(frozen=True, kw_only=True, eq=False)
class Plane:
    """One picture of a file.

    Attributes:
        values: (H, W) or (H, W, C), whole or floating numbers.
        low: the value that is black.
        top: the value that is white.
        inverted: the other way round.
        note: what is to be said where nobody chooses which values are black and white.
    """

    values: NDArray[Any]
    low: float
    top: float
    inverted: bool = False
    note: str = ""


class Reader(Protocol):
    """Reads one kind of file.

    Attributes:
        suffixes: endings of its files, with the dot and in lower case: what is taken for a picture in a folder.
    """

    suffixes: ClassVar[tuple[str, ...]]

    def recognises(self, path: Path, head: bytes) -> bool:
        """Says whether a file is its own, by its name and its first `HEAD` bytes."""
        ...

    def open(self, path: Path, page: Page, most: int) -> Plane:
        """One picture of the file.

        Args:
            path: the file, which is there.
            page: which of several, see `seewhy.images.pages.several`; () where none is chosen.
            most: pixels times channels that are decoded at most.

        Raises:
            MissingDependency: its library is not installed.
            Exception: whatever is wrong with the file; the message becomes that of `seewhy.errors.UnreadableImage`.
        """
        ...


def suffixes() -> tuple[str, ...]:
    """Returns the endings of the files of all readers, in lower case."""
    return _suffixes(tuple(registry.names("readers")))


@cache
def _suffixes(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted({ending for name in names for ending in registry.load("readers", name).suffixes}))


def reader_of(path: Path, *, outside: bool = False) -> Reader | None:
    """Returns the reader whose file it is; None for files that Pillow is to open.

    Args:
        path: the file, which is there.
        outside: asks the readers of other packages, and not those here.
    """
    with open(path, "rb") as file:
        head = file.read(HEAD)
    for name in registry.outside("readers") if outside else registry.files("readers"):
        reader: Reader = registry.load("readers", name)()
        if reader.recognises(path, head):
            return reader
    return None
