"""WebDataset shards: .tar files in which the parts of a sample stand side by side and have one name.

    train-000.tar: a/0001.jpg, a/0001.cls, a/0001.mask.png, a/0002.jpg, a/0002.json, ...

What stands before the first dot of a file's name is the sample, what stands behind it says what the part is: an
image's ending, ``cls`` or ``label`` (an index), ``txt`` or ``text`` (a class name), ``json`` (an object with labels,
boxes), ``mask.png``. Archives are not unpacked: where each part lies is noted once, and read when it is asked for.
"""

from __future__ import annotations

import glob
import io
import json
import os
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple, Self

import numpy as np

from seewhy.datasets._files import key, stamp, unique
from seewhy.datasets._labels import Labelled
from seewhy.datasets._rows import Reading, to_sample
from seewhy.errors import InvalidInput
from seewhy.images.decoding import header
from seewhy.types import Sample

__all__ = ["Shards"]

_PICTURES = ("jpg", "jpeg", "png", "webp", "ppm", "bmp", "tif", "tiff", "avif", "gif", "jxl")
_INDEX, _NAME = ("cls", "label", "index"), ("txt", "text", "class")
_MOST = 2**28  # bytes of one part that are read; an image of so many is none


class _Part(NamedTuple):
    """Where a part lies: in which archive, from which byte on, how many."""

    shard: int
    start: int
    size: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Shards(Labelled):
    """The samples of .tar files.

    Attributes:
        root: what was asked for: a file, a folder of .tar files, or a pattern ("train-*.tar").
        paths: of the archives, absolute.
        samples: what each sample consists of: ending -> where it lies.
        keys: one a sample.
        reading: how labels and boxes are understood.
    """

    root: str
    paths: tuple[str, ...]
    samples: tuple[Mapping[str, _Part], ...]
    keys: tuple[str, ...]
    reading: Reading = field(default=Reading())

    word: ClassVar[str] = "tar"

    @staticmethod
    def recognises(path: str) -> bool:
        """Says whether the path is a .tar file."""
        return path.lower().endswith(".tar") and os.path.isfile(path)

    @classmethod
    def open(
        cls, root: str | os.PathLike[str], *, classes: Sequence[str] | None = None,
        label_format: Literal["auto", "index", "multi_hot"] = "auto",
        box_format: Literal["xywh", "xyxy"] | None = None, unmatched: Literal["error", "ignore"] = "error",
    ) -> Self:  # fmt: skip
        """Looks where everything lies in the archives.

        Args:
            root: a .tar file, a folder of them, or a pattern ("train-*.tar").
            classes: the names of the classes that indices count; else class names that stand in the shards.
            label_format: see `Reading`.
            box_format: see `Reading`.
            unmatched: see `Labelled`.

        Raises:
            InvalidInput: no such file, one that is no plain .tar archive, or no image in them.
        """
        paths = _archives(os.fspath(root))
        found: dict[tuple[int, str], dict[str, _Part]] = {}
        for shard, path in enumerate(paths):
            for name, ending, part in _members(path, shard):
                found.setdefault((shard, name), {})[ending] = part
        kept = {place: parts for place, parts in found.items() if _picture(parts)}
        if not kept:
            raise InvalidInput(f"There is no picture in {os.fspath(root)!r}: no part ends in {', '.join(_PICTURES)}.")
        own = tuple(classes) if classes is not None else _names(paths, kept.values())
        others = len(found) - len(kept)
        return cls(
            name=os.path.basename(os.fspath(root).rstrip("/")),
            classes=own,
            unmatched=unmatched,
            decided=(f"{others} samples of the shards have no picture and are left out.",) if others else (),
            root=os.path.abspath(root),
            paths=tuple(paths),
            samples=tuple(kept.values()),
            keys=unique(key(name) for _, name in kept),
            reading=Reading(label_format=label_format, box_format=box_format),
        )

    def __len__(self) -> int:
        return len(self.samples)

    def key(self, index: int) -> str:
        """Returns the sample's name in its archive."""
        return self.keys[index]

    def stamp(self, index: int) -> str:
        """Size and time of change of the archive, and where the image lies in it."""
        part = self.samples[index][_picture(self.samples[index])]
        return f"{stamp(self.paths[part.shard])}+{part.start}:{part.size}"

    def source(self, index: int) -> None:
        """Returns None: an image in an archive is no file of its own."""
        return

    def __getitem__(self, index: int) -> Sample:
        parts, name = self.samples[index], self.keys[index]
        row: dict[str, Any] = {"image": _read(self.paths, parts[_picture(parts)])}
        if (told := next((e for e in _NAME + _INDEX if e in parts), None)) is not None:
            text = _read(self.paths, parts[told]).decode("utf-8", "replace").strip()
            row["label"] = int(text) if text.isdecimal() else text
        if "json" in parts:
            row |= {k: v for k, v in _object(self.paths, parts["json"], name).items() if k != "image"}
        if (mask := next((e for e in parts if e.rpartition(".")[0] in ("mask", "seg")), None)) is not None:
            row["mask"] = _mask(_read(self.paths, parts[mask]), name)
        return to_sample(row, name, self.reading, self.binding)

    def describe(self) -> dict[str, Any]:
        """What opens the same data again."""
        chosen = {"label_format": self.reading.label_format, "box_format": self.reading.box_format}
        given = {"classes": None if self.classes is None else list(self.classes), "unmatched": self.unmatched}
        return {"kind": "tar", "root": self.root, "options": {**chosen, **given}, "length": len(self)}


def _archives(root: str) -> list[str]:
    """Returns the absolute paths, sorted."""
    pattern = os.path.join(glob.escape(root), "*.tar") if os.path.isdir(root) else root
    found = [root] if os.path.isfile(root) else sorted(glob.glob(pattern))
    if not found:
        raise InvalidInput(f"There is no shard {root!r}. Expected a .tar file, a folder of them, or a pattern.")
    return [os.path.abspath(path) for path in found]


def _members(path: str, shard: int) -> Iterator[tuple[str, str, _Part]]:
    """Returns the files of an archive: name before the first dot, what stands behind it, place."""
    try:
        size = os.path.getsize(path)
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                folder, _, file = member.name.rpartition("/")
                name, dot, ending = file.partition(".")
                inside = member.offset_data + member.size <= size
                if member.isreg() and not member.issparse() and dot and name and inside:
                    whole = f"{folder}/{name}" if folder else name
                    yield whole, ending.lower(), _Part(shard, member.offset_data, member.size)
    except (OSError, tarfile.TarError) as error:
        raise InvalidInput(
            f"Cannot read {path!r} as a .tar archive: {str(error).rstrip('.')}. Compressed archives must be unpacked "
            "first."
        ) from error


def _picture(parts: Mapping[str, _Part]) -> str:
    """Returns the ending of a sample's image; "" where it has none."""
    return next((ending for ending in _PICTURES if ending in parts), "")


def _read(paths: Sequence[str], part: _Part) -> bytes:
    path = paths[part.shard]
    if part.size > _MOST:
        raise InvalidInput(f"A part of {path!r} has {part.size} bytes; at most {_MOST} are read.")
    try:
        with open(path, "rb") as file:
            file.seek(part.start)
            found = file.read(part.size)
    except OSError as error:
        raise InvalidInput(f"Cannot read {path!r}: {error.strerror}.") from error
    if len(found) < part.size:
        raise InvalidInput(f"{path!r} is shorter than it was when it was opened. Open the data again.")
    return found


def _object(paths: Sequence[str], part: _Part, name: str) -> dict[str, Any]:
    try:
        found = json.loads(_read(paths, part))
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"Sample {name!r}: its json part is none: {error}.") from error
    return found if isinstance(found, dict) else {"label": found}


def _mask(data: bytes, name: str) -> Any:
    try:
        return np.asarray(header(io.BytesIO(data)).convert("L")) > 0
    except Exception as error:  # of any kind, as for files
        raise InvalidInput(f"Sample {name!r}: its mask is no picture: {str(error).rstrip('.')}.") from error


def _names(paths: Sequence[str], samples: Any) -> tuple[str, ...] | None:
    """Class names, where labels are written as such."""
    found = set()
    for parts in samples:
        if (told := next((e for e in _NAME if e in parts), None)) is not None:
            text = _read(paths, parts[told]).decode("utf-8", "replace").strip()
            found |= set() if text.isdecimal() or not text else {text}
    return tuple(sorted(found)) or None
