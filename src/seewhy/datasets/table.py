"""A CSV file of images and what is on them.

    image,labels,boxes,mask
    a.png,dog;cat,10 20 30 40;50 60 20 20,a-mask.png

`image` is needed, the others may be missing. Labels are names or indices, boxes one a label, both separated by ";";
an empty cell means that nothing is known, -1 that there is nothing. `target`, the class to be explained, is taken as
the label where there is no column `labels`. Paths are relative to the CSV file.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from seewhy.checks import check_choice
from seewhy.datasets._files import digest, key, stamp, unique
from seewhy.datasets._labels import Label, Labelled
from seewhy.datasets._rows import corners
from seewhy.errors import InvalidInput
from seewhy.types import Sample

__all__ = ["Table"]

_COLUMNS = ("image", "target", "labels", "mask", "boxes")


@dataclass(frozen=True, kw_only=True, eq=False)
class Table(Labelled):
    """The rows of a CSV file.

    Attributes:
        path: absolute path of the file.
        rows: column -> text.
        lines: the line on which each row ends.
        keys: one a row.
        box_format: "xywh" or "xyxy".
    """

    path: str
    rows: tuple[Mapping[str, str], ...]
    lines: tuple[int, ...]
    keys: tuple[str, ...]
    box_format: Literal["xywh", "xyxy"] = "xywh"

    word: ClassVar[str] = "csv"

    @staticmethod
    def recognises(path: str) -> bool:
        """Says whether the path is a .csv file."""
        return not os.path.isdir(path) and path.lower().endswith(".csv")

    @classmethod
    def open(
        cls, root: str | os.PathLike[str], *, box_format: Literal["xywh", "xyxy"] = "xywh",
        unmatched: Literal["error", "ignore"] = "error",
    ) -> Self:  # fmt: skip
        """Reads the file.

        Raises:
            InvalidInput: not a CSV file with a column `image` and a row an image.
        """
        check_choice("box_format", box_format, ("xywh", "xyxy"))
        path = os.path.abspath(root)
        rows, lines = _read(path)
        names = {label for row in rows for label in _labels(row) or () if isinstance(label, str)}
        return cls(
            name=os.path.basename(path),
            classes=tuple(sorted(names)) if names else None,
            unmatched=unmatched,
            path=path,
            rows=tuple(rows),
            lines=tuple(lines),
            keys=unique(key(row["image"]) for row in rows),
            box_format=box_format,
        )

    def __len__(self) -> int:
        return len(self.rows)

    def key(self, index: int) -> str:
        """Returns the image as the file names it."""
        return self.keys[index]

    def stamp(self, index: int) -> str:
        """Size and time of change of the image and its mask, and a digest of the row."""
        row = self.rows[index]
        files = [self._file(row[name]) for name in ("image", "mask") if row.get(name)]
        return f"{stamp(*files)}+{digest(repr(sorted(row.items())).encode('ascii', 'backslashreplace'))}"

    def source(self, index: int) -> str:
        """Returns the image's absolute path."""
        return self._file(self.rows[index]["image"])

    def _file(self, name: str) -> str:
        return os.path.join(os.path.dirname(self.path), name)

    def __getitem__(self, index: int) -> Sample:
        row = self.rows[index]
        try:
            if not row["image"]:
                raise ValueError("the column 'image' is empty")
            return self._sample(row, index)
        except ValueError as error:
            where = f"Line {self.lines[index]} of {self.path!r}"
            raise InvalidInput(f"{where}: {str(error).rstrip('.')}.") from error

    def _sample(self, row: Mapping[str, str], index: int) -> Sample:
        given = _labels(row)
        indices = [self._index(label) for label in given or ()]
        mask = Path(self._file(row["mask"])) if row.get("mask") else None
        known = {i for i in indices if i is not None}
        return Sample(
            image=Path(self.source(index)),
            target=row.get("target") or None,
            mask=mask,
            name=self.keys[index],
            labels=tuple(dict.fromkeys(i for i in indices if i is not None)) if known or given == [] else None,
            boxes=tuple(self._boxes(row, indices)),
            masks=dict.fromkeys(known, mask) if mask is not None and len(known) == 1 else {},
        )

    def _index(self, label: Label) -> int | None:
        return self.binding.of(label) if isinstance(label, str) else self.binding.checked(label)

    def _boxes(
        self, row: Mapping[str, str], labels: Sequence[int | None]
    ) -> list[tuple[int, float, float, float, float]]:
        texts = _parts(row.get("boxes", ""))
        if texts and len(texts) != len(labels):
            raise ValueError(f"expected one box a label, got {len(texts)} boxes and {len(labels)} labels")
        found = []
        for label, text in zip(labels, texts, strict=False):
            box = corners(text.replace(",", " ").split(), self.box_format)
            if label is not None and box is not None:
                found.append((label, *box))
        return found

    def describe(self) -> dict[str, Any]:
        """What opens the same data again."""
        chosen = {"box_format": self.box_format, "unmatched": self.unmatched}
        return {"kind": "csv", "root": self.path, "options": chosen, "length": len(self)}


def _read(path: str) -> tuple[list[dict[str, str]], list[int]]:
    rows, lines = list[dict[str, str]](), list[int]()
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            reader = csv.DictReader(file)
            columns = {name: name.strip().casefold() for name in reader.fieldnames or ()}
            for row in reader:
                rows.append({columns[n]: (text or "").strip() for n, text in row.items() if n in columns})
                lines.append(reader.line_num)
    except OSError as error:
        raise InvalidInput(f"Cannot read {path!r}: {error.strerror}.") from error
    except csv.Error as error:
        raise InvalidInput(f"Cannot read {path!r} as CSV: {error}.") from error
    if "image" not in columns.values() or not rows:
        known = ", ".join(_COLUMNS)
        raise InvalidInput(f"{path!r} must be a CSV file with a row a picture and the column 'image' (of {known}).")
    return rows, lines


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(";") if part.strip()]


def _labels(row: Mapping[str, str]) -> list[Label] | None:
    text = row.get("labels") if "labels" in row else row.get("target")
    if not text:
        return None
    return [int(part) if part.isdecimal() else part for part in _parts(text) if part != "-1"]
