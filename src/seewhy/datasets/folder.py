"""A folder of images, or a list of image files; sub-folders may be their classes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from seewhy.checks import check_choice
from seewhy.datasets._files import existing_folder, key, scan, stamp, unique
from seewhy.datasets._labels import Labelled, match
from seewhy.errors import InvalidInput
from seewhy.types import Sample

__all__ = ["Folder"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Folder(Labelled):
    """Every image below a folder, sorted by path.

    Broken links, empty and unreadable files that have an image's ending are samples too: they fail when they are read.

    Attributes:
        root: absolute path; files are relative to it.
        files: with "/" between folders.
        keys: one a file, see `seewhy.datasets.Data.key`.
        classes_from_folders: True, False or "auto": when every image lies in a sub-folder, exactly one level deep.
        numbers: what sub-folders called by numbers mean: "index", their place in "sorted" order, or "auto", which is an
            error where the two differ.
        listed: the files were given one by one, not found.
    """

    root: str
    files: tuple[str, ...]
    keys: tuple[str, ...]
    classes_from_folders: bool | Literal["auto"] = "auto"
    numbers: Literal["auto", "index", "sorted"] = "auto"
    listed: bool = False

    word: ClassVar[str] = "folder"

    @staticmethod
    def recognises(path: str) -> bool:
        """Never: a folder is one of images where no other kind knows it."""
        return False

    @classmethod
    def open(
        cls, root: str | os.PathLike[str], *, classes_from_folders: bool | Literal["auto"] = "auto",
        numbers: Literal["auto", "index", "sorted"] = "auto", unmatched: Literal["error", "ignore"] = "error",
    ) -> Self:  # fmt: skip
        """Lists the images below a folder.

        Raises:
            InvalidInput: not a folder, or no image in it.
        """
        check_choice("classes_from_folders", classes_from_folders, (True, False, "auto"))
        check_choice("numbers", numbers, ("auto", "index", "sorted"))
        path = existing_folder(root)
        files, folders, unread = scan(path)
        if not files:
            raise InvalidInput(f"There is no picture below {os.fspath(root)!r}.{_unread(unread)}")
        chosen = classes_from_folders
        if chosen == "auto":
            chosen = all(file.count("/") == 1 for file in files)
        return cls(
            name=os.path.basename(path) or path,
            classes=tuple(map(key, folders)) if chosen else None,
            unmatched=unmatched,
            decided=_decided(files, folders, unread, bool(chosen)),
            root=path,
            files=tuple(files),
            keys=tuple(map(key, files)),
            classes_from_folders=classes_from_folders,
            numbers=numbers,
        )

    @classmethod
    def of_files(cls, paths: Sequence[str | os.PathLike[str]], root: str | None = None) -> Self:
        """The image files that are named, in this order, relative to ``root`` (by default the working directory).

        Raises:
            InvalidInput: there is none.
        """
        if not paths:
            raise InvalidInput("There is no picture: the list is empty.")
        files = tuple(os.fsdecode(path) for path in paths)
        keys = unique(key(file.replace(os.sep, "/")) for file in files)
        return cls(name=f"{len(files)} files", root=root or os.getcwd(), files=files, keys=keys, listed=True)

    def bind(self, classes: Sequence[str] | None, num_classes: int | None) -> Self:
        """See `Labelled.bind`."""
        found = match(self.classes, classes, num_classes, unmatched=self.unmatched, numbers=self.numbers)
        return replace(self, binding=found)

    def __len__(self) -> int:
        return len(self.files)

    def key(self, index: int) -> str:
        """Returns the path below the root."""
        return self.keys[index]

    def stamp(self, index: int) -> str:
        """Size and time of change."""
        return stamp(self.source(index))

    def source(self, index: int) -> str:
        """Returns the image's absolute path."""
        return os.path.join(self.root, self.files[index])

    def __getitem__(self, index: int) -> Sample:
        return Sample(image=Path(self.source(index)), name=self.keys[index], labels=self._labels(index))

    def _labels(self, index: int) -> tuple[int, ...] | None:
        folder, slash, _ = self.keys[index].partition("/")
        return self.binding.labels([folder]) if self.classes is not None and slash else None

    def describe(self) -> dict[str, Any]:
        """What opens the same data again."""
        if self.listed:
            return {"kind": "files", "root": self.root, "options": {"files": list(self.files)}, "length": len(self)}
        chosen = {name: getattr(self, name) for name in ("classes_from_folders", "numbers", "unmatched")}
        return {"kind": "folder", "root": self.root, "options": chosen, "length": len(self)}


def _decided(files: Sequence[str], folders: Sequence[str], unread: Sequence[str], chosen: bool) -> tuple[str, ...]:
    notes = []
    if chosen:
        notes.append(f"The {len(folders)} sub-folders are taken as classes, in sorted order.")
        if outside := sum("/" not in file for file in files):
            notes.append(f"{outside} pictures lie in no sub-folder: their class is not known.")
    if unread:
        notes.append(_unread(unread).strip())
    return tuple(notes)


def _unread(folders: Sequence[str]) -> str:
    shown = ", ".join(repr(folder or ".") for folder in folders[:3])
    return f" {len(folders)} folders could not be read: {shown}." if folders else ""
