"""Rows that can only be read in order, read by number: the last few are kept, those before them are gone."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from seewhy.errors import InvalidInput, InvalidType

__all__ = ["InOrder", "unbatched"]


class InOrder:
    """The rows of an iterable by number.

    Several threads may ask. Sent to another process, an iterable that can be started anew is; an iterator cannot be.

    Args:
        source: what is iterated over.
        batched: each of its items is a batch of rows.
        length: how many rows it is said to have.
        window: how many of the last rows are kept.
    """

    def __init__(self, source: Iterable[Any], *, batched: bool, length: int, window: int) -> None:
        self.source, self.batched, self.length, self.window = source, batched, length, window
        self._rows: Iterator[Any] | None = None
        self._next = 0
        self._kept: OrderedDict[int, Any] = OrderedDict()
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        if isinstance(self.source, Iterator):
            raise InvalidType("An iterator cannot be sent to other processes. Pass a data set or a list.")
        return {name: getattr(self, name) for name in ("source", "batched", "length", "window")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]  # of this very class: it is made again from its arguments

    def __getitem__(self, index: int) -> Any:
        """Returns one row.

        Raises:
            InvalidInput: it has gone by, or the rows ended before it.
        """
        with self._lock:
            if index < self._next and index not in self._kept:
                raise InvalidInput(
                    f"Row {index} has gone by: these data can only be read in order, and the last {self.window} rows "
                    "are kept. Pass a data set with __getitem__, or a list."
                )
            while self._next <= index:
                self._read()
            return self._kept[index]

    def _read(self) -> None:
        if self._rows is None:
            self._rows = unbatched(self.source) if self.batched else iter(self.source)
        row = next(self._rows, _END)
        if row is _END:
            raise InvalidInput(f"The data ended after {self._next} rows, {self.length} were expected.")
        self._kept[self._next] = row
        self._next += 1
        if len(self._kept) > self.window:
            self._kept.popitem(last=False)


_END = object()


def unbatched(batches: Iterable[Any]) -> Iterator[Any]:
    """The rows of batches: tensors, arrays and sequences are cut along the first dimension, mappings key by key.

    Raises:
        InvalidInput: the parts of a batch are not of one length.
    """
    for batch in batches:
        for i in range(_rows(batch)):
            yield _row(batch, i)


def _rows(batch: Any) -> int:
    if isinstance(batch, Mapping):
        lengths = {_rows(part) if isinstance(part, Mapping) else len(part) for part in batch.values()}
    elif isinstance(batch, tuple | list):
        lengths = {_rows(part) if isinstance(part, Mapping) else len(part) for part in batch}
    elif isinstance(batch, Tensor | np.ndarray):
        lengths = {len(batch)}
    else:
        raise InvalidInput(f"A batch must be a tensor, a tuple or a mapping of them, got {type(batch).__name__}.")
    if len(lengths) != 1:
        raise InvalidInput(f"The parts of a batch must be of one length, got {sorted(lengths)}.")
    return lengths.pop()


def _row(batch: Any, i: int) -> Any:
    if isinstance(batch, Mapping):
        return {name: _part(part, i) for name, part in batch.items()}
    if isinstance(batch, tuple | list):
        return tuple(_part(part, i) for part in batch)
    return batch[i]


def _part(part: Mapping[str, Any] | Sequence[Any] | Tensor, i: int) -> Any:
    return {name: _part(inner, i) for name, inner in part.items()} if isinstance(part, Mapping) else part[i]
