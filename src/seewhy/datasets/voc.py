"""Pascal VOC: images with boxes, one XML file an image (Everingham et al., 2010, doi:10.1007/s11263-009-0275-4).

    ROOT/JPEGImages/NAME.jpg   ROOT/Annotations/NAME.xml   ROOT/ImageSets/Main/SET.txt (optional)

VOC counts pixels from 1 and includes the last: xmin, ymin, xmax, ymax cover xmin - 1 to xmax and ymin - 1 to ymax.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NoReturn, Self
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from seewhy.datasets._files import existing_folder, key, scan, stamp, unique
from seewhy.datasets._labels import Box, Labelled
from seewhy.datasets._rows import corners
from seewhy.errors import InvalidInput
from seewhy.types import Sample

__all__ = ["VOC"]

_PICTURES, _ANNOTATIONS = "JPEGImages", "Annotations"


@dataclass(frozen=True, kw_only=True)
class _Thing:
    name: str
    difficult: bool
    box: tuple[float, float, float, float] | None


@dataclass(frozen=True, kw_only=True, eq=False)
class VOC(Labelled):
    """Images with boxes in the layout of Pascal VOC.

    An image without an XML file has no known labels; one that the set names and that does not exist is a sample that
    cannot be read.

    Attributes:
        root: absolute path.
        files: images, relative to JPEGImages.
        keys: one an image.
        set: the list that was chosen, or None for every image.
        difficult: whether objects marked as difficult are kept: they are there, but need not be found.
    """

    root: str
    files: tuple[str, ...]
    keys: tuple[str, ...]
    set: str | None = None
    difficult: bool = True

    word: ClassVar[str] = "voc"

    @staticmethod
    def recognises(path: str) -> bool:
        """Says whether the path is a folder with VOC's two parts."""
        return all(os.path.isdir(os.path.join(path, part)) for part in (_PICTURES, _ANNOTATIONS))

    @classmethod
    def open(
        cls, root: str | os.PathLike[str], *, set: str | None = None,  # noqa: A002 (its name in VOC)
        difficult: bool = True, classes: Sequence[str] | None = None, unmatched: Literal["error", "ignore"] = "error",
    ) -> Self:  # fmt: skip
        """Lists the images, and reads every XML file once for the class names, unless ``classes`` gives them.

        Raises:
            InvalidInput: not the layout of VOC, or a set that does not exist.
        """
        path = existing_folder(root)
        if not os.path.isdir(os.path.join(path, _PICTURES)):
            raise InvalidInput(f"Expected a folder with {_PICTURES} and {_ANNOTATIONS}, {os.fspath(root)!r} has not.")
        found, _, _ = scan(os.path.join(path, _PICTURES))
        files = found if set is None else _chosen(path, set, found)
        if not files:
            raise InvalidInput(f"There is no picture in {os.path.join(os.fspath(root), _PICTURES)!r}.")
        names = tuple(classes) if classes is not None else _class_names(path, files)
        return cls(
            name=os.path.basename(path) + (f" {set}" if set else ""),
            classes=names,
            unmatched=unmatched,
            root=path,
            files=tuple(files),
            keys=unique(f"{_PICTURES}/{key(file)}" for file in files),
            set=set,
            difficult=difficult,
        )

    def __len__(self) -> int:
        return len(self.files)

    def key(self, index: int) -> str:
        """Returns the image's path below the root."""
        return self.keys[index]

    def stamp(self, index: int) -> str:
        """Size and time of change of the image and its XML file."""
        return stamp(self.source(index), _annotation(self.root, self.files[index]))

    def source(self, index: int) -> str:
        """Returns the image's absolute path."""
        return os.path.join(self.root, _PICTURES, self.files[index])

    def __getitem__(self, index: int) -> Sample:
        path = _annotation(self.root, self.files[index])
        sample = Sample(image=Path(self.source(index)), name=self.keys[index])
        if self.binding.unknown or not os.path.lexists(path):
            return sample
        things = [thing for thing in _things(path) if self.difficult or not thing.difficult]
        try:
            labels = self.binding.labels([thing.name for thing in things])
            kept = list(self._boxes(things))
        except InvalidInput as error:
            raise _bad(path, str(error)) from error
        hard = tuple(n for n, (thing, _) in enumerate(kept) if thing.difficult)
        boxes = tuple(box for _, box in kept)
        return Sample(image=sample.image, name=sample.name, labels=labels, boxes=boxes, difficult=hard)

    def _boxes(self, things: Iterable[_Thing]) -> Iterable[tuple[_Thing, Box]]:
        for thing in things:
            label = self.binding.of(thing.name)
            if label is not None and thing.box is not None:
                yield thing, (label, *thing.box)

    def describe(self) -> dict[str, Any]:
        """What opens the same data again."""
        classes = list(self.classes or ())
        chosen = {"set": self.set, "difficult": self.difficult, "classes": classes, "unmatched": self.unmatched}
        return {"kind": "voc", "root": self.root, "options": chosen, "length": len(self)}


def _annotation(root: str, file: str) -> str:
    return os.path.join(root, _ANNOTATIONS, os.path.splitext(file)[0] + ".xml")


def _chosen(root: str, chosen: str, found: Sequence[str]) -> list[str]:
    """Returns the images that a set names, in its order."""
    path = Path(root, "ImageSets", "Main", f"{chosen}.txt")
    try:
        lines = path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except (OSError, ValueError) as error:
        known = sorted(p.stem for p in path.parent.glob("*.txt"))
        raise InvalidInput(f"There is no set {chosen!r} in {str(path.parent)!r}. Known: {known}.") from error
    by_stem = {os.path.splitext(file)[0]: file for file in found}
    stems = [line.split()[0] for line in lines if line.strip()]  # "NAME" or "NAME 1", a class's own list
    return [by_stem.get(stem, f"{stem}.jpg") for stem in dict.fromkeys(stems)]


def _class_names(root: str, files: Iterable[str]) -> tuple[str, ...]:
    """Returns the class names in all readable XML files; the others are reported when their sample is asked for."""
    names = set[str]()
    for file in files:
        try:
            names.update(thing.name for thing in _things(_annotation(root, file)))
        except InvalidInput:
            continue
    return tuple(sorted(names))


def _things(path: str) -> list[_Thing]:
    try:
        root = _parse(Path(path).read_bytes())
        return [_thing(element) for element in root.findall("object")]
    except OSError as error:
        raise _bad(path, error.strerror or str(error)) from error
    except expat.ExpatError as error:
        raise _bad(path, f"it is not XML, {error}") from error
    except ValueError as error:
        raise _bad(path, str(error)) from error


def _bad(path: str, reason: str) -> InvalidInput:
    return InvalidInput(f"Cannot use the annotation {path!r}: {reason.rstrip('.')}.")


def _parse(data: bytes) -> Element:
    """XML without a document type: entities could be made to fill the memory or to read other files."""
    builder, parser = TreeBuilder(), expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = builder.start, builder.end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = _refuse
    parser.Parse(data, True)
    root: Element = builder.close()
    return root


def _refuse(*_: Any) -> NoReturn:
    raise ValueError("it has a DOCTYPE, which annotations do not need and which is refused for safety")


def _thing(element: Element) -> _Thing:
    name = (element.findtext("name") or "").strip()
    if not name:
        raise ValueError("an object has no name")
    box = element.find("bndbox")
    return _Thing(
        name=key(name),
        difficult=(element.findtext("difficult") or "0").strip() == "1",
        box=None if box is None else _box(name, box),
    )


def _box(name: str, element: Element) -> tuple[float, float, float, float] | None:
    texts = [element.findtext(side) for side in ("xmin", "ymin", "xmax", "ymax")]
    try:
        x0, y0, x1, y1 = (float(text or "") for text in texts)
    except ValueError as error:
        raise ValueError(f"the box of {name!r} must have four numbers, got {texts}") from error
    # Tools that count from 0 write xmin 0.
    return corners((max(x0 - 1, 0), max(y0 - 1, 0), x1, y1), "xyxy")
