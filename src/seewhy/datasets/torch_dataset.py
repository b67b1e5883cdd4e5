"""Data sets and loaders of torch, Hugging Face data sets, lists, and anything that can be iterated over.

What has ``__getitem__`` and ``__len__`` is read by number; the rest is read in order. A row's forms are those of
`seewhy.datasets._rows`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    default_collate,
)

from seewhy.datasets._files import stamp
from seewhy.datasets._labels import Labelled
from seewhy.datasets._rows import Reading, to_sample
from seewhy.datasets._stream import InOrder
from seewhy.datasets.folder import Folder
from seewhy.errors import FAILURES, InvalidInput, InvalidType, TimedOut
from seewhy.types import Sample

__all__ = ["TorchDataset"]


@dataclass(frozen=True, kw_only=True, eq=False)
class TorchDataset(Labelled):
    """Rows of a data set in memory: by number, or in order where that is all there is.

    Attributes:
        rows: what is asked for a row by number.
        numbers: the numbers of the rows that are samples.
        reading: how labels and boxes are understood.
        in_order: rows can be read once, in order.
    """

    rows: Any
    numbers: Sequence[int]
    reading: Reading = field(default=Reading())
    in_order: bool = False

    @classmethod
    def of(
        cls, data: Any, *, length: int | None = None, window: int = 64, classes: Sequence[str] | None = None,
        label_format: Literal["auto", "index", "multi_hot"] = "auto",
        box_format: Literal["xywh", "xyxy"] | None = None, unmatched: Literal["error", "ignore"] = "error",
    ) -> Self | Folder:  # fmt: skip
        """Returns the data of an object.

        Args:
            data: a Dataset, DataLoader, Hugging Face data set, list, or any iterable of rows.
            length: how many rows an iterable without ``__len__`` gives.
            window: how many of the last rows are kept where rows are read in order.
            classes: the names of the classes that labels count; the data's own by default.
            label_format: see `Reading`.
            box_format: see `Reading`.
            unmatched: see `Labelled`.

        Raises:
            InvalidType: not such an object.
            InvalidInput: empty, or the length is not known.
        """
        if isinstance(data, Mapping):
            raise InvalidType(
                f"Expected one data set, got a mapping of {sorted(map(str, data))[:5]}. Pass one of them."
            )
        if not isinstance(data, Iterable) and not _by_number(data):
            raise InvalidType(f"Expected a data set, a loader or an iterable of rows, got {type(data).__name__}.")
        if length is None and isinstance(data, Iterable) and (paths := _paths(data)) is not None:
            return Folder.of_files(paths)
        rows, numbers, decided = _rows(data, length, window)
        if not len(numbers):
            raise InvalidInput("There is no sample: the data are empty.")
        own = classes if classes is not None else _class_names(data)
        return cls(
            name=type(getattr(data, "dataset", data)).__name__,
            classes=tuple(own) if own is not None else None,
            unmatched=unmatched,
            decided=decided,
            rows=rows,
            numbers=numbers,
            reading=Reading(label_format=label_format, box_format=box_format),
            in_order=isinstance(rows, InOrder),
        )

    def __len__(self) -> int:
        return len(self.numbers)

    def key(self, index: int) -> str:
        """Returns the number of the row."""
        return f"{self.numbers[index]:06d}"

    def stamp(self, index: int) -> str:
        """Size and time of change of a listed file; "" for anything that has to be read."""
        image = self._listed(index)
        return stamp(image) if isinstance(image, str | os.PathLike) else ""

    def source(self, index: int) -> str | None:
        """Returns the absolute path of a listed file."""
        image = self._listed(index)
        return os.path.abspath(os.fsdecode(image)) if isinstance(image, str | os.PathLike) else None

    def _listed(self, index: int) -> Any:
        """Returns the image of a row of a list, which can be looked at without asking anybody's code."""
        row = self.rows[self.numbers[index]] if isinstance(self.rows, list | tuple) else None
        if isinstance(row, Mapping):
            return row.get("image")
        return row[0] if isinstance(row, tuple | list) and row else getattr(row, "image", row)

    def __getitem__(self, index: int) -> Sample:
        number, name = self.numbers[index], self.key(index)
        try:
            row = self.rows[number]
        except (InvalidInput, MemoryError, TimedOut):
            raise
        except FAILURES as error:  # the data set is the caller's code: one bad row must not end a run
            raise InvalidInput(f"Sample {name!r}: the data set raised {type(error).__name__}: {error}.") from error
        return to_sample(row, name, self.reading, self.binding)

    def describe(self) -> dict[str, Any]:
        """What the data are; they cannot be opened again from this."""
        chosen = {"label_format": self.reading.label_format, "box_format": self.reading.box_format}
        return {"kind": "object", "root": None, "options": {**chosen, "type": self.name}, "length": len(self)}


def _rows(data: Any, length: int | None, window: int) -> tuple[Any, Sequence[int], tuple[str, ...]]:
    """Where rows come from, which of them are samples, and what was decided."""
    if isinstance(data, DataLoader):
        return _of_loader(data, length, window)
    if _by_number(data):
        count = len(data) if length is None else min(length, len(data))
        return data, range(count), ()
    if length is None:
        length = _length(data)
    if length is None:
        raise InvalidInput(
            f"How many samples {type(data).__name__} gives is not known. Pass length=, or a list of its rows."
        )
    note = f"The rows of {type(data).__name__} are read in order."
    return InOrder(data, batched=False, length=length, window=window), range(length), (note,)


def _of_loader(loader: DataLoader[Any], length: int | None, window: int) -> tuple[Any, Sequence[int], tuple[str, ...]]:
    data: Any = loader.dataset
    plain = loader.collate_fn is default_collate and type(loader.batch_sampler) is BatchSampler
    if plain and _by_number(data):
        if type(loader.sampler) in (SequentialSampler, RandomSampler):
            return data, range(len(data)), ("The loader's data set is read by number, in its own order.",)
        chosen = sorted({int(i) for i in loader.sampler})
        note = f"The loader's sampler chooses {len(chosen)} of {len(data)} samples; they are read by number."
        return data, chosen, (note,)
    length = _length(data) if length is None else length
    if length is None:
        raise InvalidInput("How many samples the loader gives is not known. Pass length=.")
    batched = loader.batch_size is not None or loader.batch_sampler is not None
    note = "The loader's batches are read in order and taken apart."
    return InOrder(loader, batched=batched, length=length, window=window), range(length), (note,)


def _by_number(data: Any) -> bool:
    random = hasattr(type(data), "__getitem__") and not isinstance(data, IterableDataset | set | DataLoader)
    return random and _length(data) is not None


def _length(data: Any) -> int | None:
    """What ``len`` says; None where a data set says that it does not know, in whatever way."""
    try:
        return len(data)
    except (TypeError, NotImplementedError):
        return None


def _paths(data: Iterable[Any]) -> list[str | os.PathLike[str]] | None:
    """All items when they are paths. Of an iterator the first item decides, for it can be read only once."""
    if isinstance(data, list | tuple):
        return list(data) if data and all(isinstance(one, str | os.PathLike) for one in data) else None
    if not isinstance(data, Iterator):
        return None
    found = list[str | os.PathLike[str]]()
    for one in data:
        if not isinstance(one, str | os.PathLike):
            raise InvalidInput("How many samples the iterator gives is not known. Pass length=, or a list of its rows.")
        found.append(one)
    return found


def _class_names(data: Any) -> Sequence[str] | None:
    """`classes` of torchvision's data sets, also of one inside a Subset or a loader; `names` of Hugging Face's."""
    for _ in range(8):
        own = getattr(data, "classes", None)
        if isinstance(own, list | tuple) and own and all(isinstance(name, str) for name in own):
            return own
        features = getattr(data, "features", None)
        if isinstance(features, Mapping) and (names := _feature_names(features)) is not None:
            return names
        if (data := getattr(data, "dataset", None)) is None:
            return None
    return None


def _feature_names(features: Any) -> Sequence[str] | None:
    wanted = ("label", "labels", "target", "objects", "category")
    inner = features if isinstance(features, Mapping) else getattr(features, "feature", None)
    if names := getattr(features, "names", None):
        return list(names)
    if not isinstance(inner, Mapping):
        return _feature_names(inner) if inner is not None else None
    found = (_feature_names(inner[name]) for name in wanted if name in inner)
    return next((names for names in found if names is not None), None)
