"""COCO instances (Lin et al., 2014, arXiv:1405.0312): images with boxes and masks, one JSON file for all.

Category ids have gaps: sorted by id, they are counted from 0. A box x, y, width, height becomes x0, y0, x1, y1.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from seewhy.datasets._files import digest, key, stamp, unique
from seewhy.datasets._labels import Box, Labelled
from seewhy.datasets._masks import Lazily
from seewhy.datasets._rows import corners
from seewhy.errors import InvalidInput
from seewhy.types import Sample

__all__ = ["COCO"]


@dataclass(frozen=True, kw_only=True, eq=False)
class COCO(Labelled):
    """Images with boxes and masks in the form of COCO's instances.

    Attributes:
        path: absolute path of the JSON file.
        images: absolute path of the folder with the images.
        entries: the JSON's "images", sorted by file name.
        keys: one an image.
        objects: image id -> the JSON's "annotations" of it.
        categories: category id -> index in `classes`.
    """

    path: str
    images: str
    entries: tuple[Mapping[str, Any], ...]
    keys: tuple[str, ...]
    objects: Mapping[Any, list[Any]] = field(repr=False)
    categories: Mapping[Any, int]

    word: ClassVar[str] = "coco"

    @staticmethod
    def recognises(path: str) -> bool:
        """Says whether the path is a .json file."""
        return not os.path.isdir(path) and path.lower().endswith(".json")

    @classmethod
    def open(
        cls, root: str | os.PathLike[str], *, images: str | os.PathLike[str] | None = None,
        unmatched: Literal["error", "ignore"] = "error",
    ) -> Self:  # fmt: skip
        """Reads the JSON file.

        Args:
            root: the JSON file.
            images: the folder with the images; found beside the file, or where COCO has it, when not given.
            unmatched: see `Labelled`.

        Raises:
            InvalidInput: not such a file, or the images are not found.
        """
        path = os.path.abspath(root)
        content = _content(path)
        entries = tuple(sorted(content["images"], key=lambda entry: str(entry["file_name"])))
        objects: dict[Any, list[Any]] = {entry["id"]: [] for entry in entries}
        strays = 0
        for one in content.get("annotations", ()):
            of = objects.get(_id(one, "image_id"))
            strays += of is None
            if of is not None:
                of.append(one)
        categories = sorted(content["categories"], key=lambda c: (isinstance(c["id"], str), c["id"]))
        return cls(
            name=os.path.splitext(os.path.basename(path))[0],
            classes=tuple(str(c["name"]) for c in categories),
            unmatched=unmatched,
            decided=(f"{strays} annotations belong to no picture of the file.",) if strays else (),
            path=path,
            images=_images_folder(path, entries, images),
            entries=entries,
            keys=unique(key(entry["file_name"]) for entry in entries),
            objects=objects,
            categories={c["id"]: i for i, c in enumerate(categories)},
        )

    def __len__(self) -> int:
        return len(self.entries)

    def key(self, index: int) -> str:
        """Returns the JSON's file name."""
        return self.keys[index]

    def stamp(self, index: int) -> str:
        """Size and time of change of the image, and a digest of what the JSON says about it."""
        said = [self.entries[index], *self.objects[self.entries[index]["id"]]]
        return f"{stamp(self.source(index))}+{digest(json.dumps(said, sort_keys=True).encode())}"

    def source(self, index: int) -> str:
        """Returns the image's absolute path."""
        return os.path.join(self.images, self.entries[index]["file_name"])

    def __getitem__(self, index: int) -> Sample:
        image, name = Path(self.source(index)), self.keys[index]
        if self.binding.unknown:
            return Sample(image=image, name=name)
        objects = self.objects[self.entries[index]["id"]]
        try:
            found = self.binding.labels(self._category(one) for one in objects)
            kept = list(self._boxes(objects))
            masks = self._masks(index, objects)
        except ValueError as error:
            raise InvalidInput(f"Cannot use the annotations of {name!r} in {self.path!r}: {error}") from error
        crowds = tuple(n for n, (one, _) in enumerate(kept) if one.get("iscrowd"))
        boxes = tuple(box for _, box in kept)
        return Sample(image=image, name=name, labels=found, boxes=boxes, masks=masks, crowds=crowds)

    def _category(self, one: Mapping[str, Any]) -> int:
        if (given := _id(one, "category_id")) not in self.categories:
            raise ValueError(f"there is no category {one.get('category_id')!r}.")
        return self.categories[given]

    def _boxes(self, objects: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Mapping[str, Any], Box]]:
        """Returns the objects that have a box and are of a class that the network has."""
        for one in objects:
            box = corners(one["bbox"], "xywh") if one.get("bbox") else None
            label = self.binding.of(self._category(one))
            if label is not None and box is not None:
                yield one, (label, *box)

    def _masks(self, index: int, objects: Sequence[Mapping[str, Any]]) -> Mapping[int, Any]:
        """Returns masks of the labels whose objects all have one: else the others would be called background."""
        parts: dict[int, list[Any]] = {}
        for one in objects:
            if (label := self.binding.of(self._category(one))) is not None:
                parts.setdefault(label, []).append(one.get("segmentation"))
        complete = {label: found for label, found in parts.items() if all(found)}
        if not complete:
            return {}
        size = tuple(self.entries[index].get(side) for side in ("height", "width"))
        if not all(isinstance(side, int) and side > 0 for side in size):
            raise ValueError(f"masks need the picture's height and width, got {size}.")
        return Lazily(complete, (int(size[0] or 0), int(size[1] or 0)), f"{self.keys[index]!r} in {self.path!r}")

    def describe(self) -> dict[str, Any]:
        """What opens the same data again."""
        chosen = {"images": self.images, "unmatched": self.unmatched}
        return {"kind": "coco", "root": self.path, "options": chosen, "length": len(self)}


def _id(one: Any, name: str) -> int | str | None:
    given = one.get(name) if isinstance(one, Mapping) else None
    return given if isinstance(given, int | str) else None


def _content(path: str) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8-sig") as file:
            content: dict[str, Any] = json.load(file)
    except OSError as error:
        raise InvalidInput(f"Cannot read {path!r}: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"Cannot read {path!r}: it is not JSON, {error}.") from error
    wanted = {"images": ("id", "file_name"), "categories": ("id", "name")}
    for part, names in wanted.items():
        rows = content.get(part) if isinstance(content, dict) else None
        if not isinstance(rows, list) or not all(isinstance(row, dict) and row.keys() >= set(names) for row in rows):
            raise InvalidInput(f"{path!r} is not COCO instances: {part!r} must be a list of objects with {names}.")
        if not all(isinstance(row["id"], int | str) for row in rows) or len({row["id"] for row in rows}) < len(rows):
            raise InvalidInput(f"{path!r} is not COCO instances: the ids of {part!r} must be numbers, each once.")
    if not content["images"] or not all(isinstance(row["file_name"], str) for row in content["images"]):
        raise InvalidInput(f"{path!r} is not COCO instances: it names no pictures.")
    if not isinstance(content.get("annotations", []), list):
        raise InvalidInput(f"{path!r} is not COCO instances: 'annotations' must be a list.")
    return content


def _images_folder(path: str, entries: Sequence[Mapping[str, Any]], given: str | os.PathLike[str] | None) -> str:
    """Returns the folder that is given, or the first of the usual ones that has one of the first images."""
    beside, stem = os.path.dirname(path), os.path.splitext(os.path.basename(path))[0]
    split = stem.rpartition("_")[2]  # instances_val2017 -> val2017
    usual = [os.path.join(base, *sub) for base in (beside, os.path.dirname(beside)) for sub in (
        (), (split,), ("images", split), ("images",), (stem,))]  # fmt: skip
    places = [os.path.abspath(given)] if given is not None else list(dict.fromkeys(usual))
    for place in places:
        if any(os.path.lexists(os.path.join(place, entry["file_name"])) for entry in islice(entries, 50)):
            return place
    if given is not None and os.path.isdir(places[0]):
        return places[0]
    raise InvalidInput(f"The pictures of {path!r} are not in {', '.join(map(repr, places))}. Pass images=FOLDER.")
