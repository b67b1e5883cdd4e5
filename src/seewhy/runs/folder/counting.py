"""Which rows of a run folder count.

An image may have rows in several parts: an explainer was added later, a task was tried again, two workers had the same
chunk, the image was changed. Only those of its rows count that have the stamp of its newest row. Where two rows were
written at the same moment, the row whose part comes later by name is newer: the order of reading changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

__all__ = ["COLUMNS", "Standing", "Whole", "one", "standing"]

Whole = NDArray[np.int64]
COLUMNS = ("sample", "part", "written", "stamp")


@dataclass(frozen=True, kw_only=True, eq=False)
class Standing:
    """S images and their R rows.

    Attributes:
        names: (S,) keys of the images.
        picture: (R,) the image that each row is about, as its place in ``names``.
        newest: (S,) the newest row of each image, which says how the image is now.
        current: (R,) whether the row is about the image as it is now.
        order: (R,) the rows sorted by image and part.
        starts: (S,) where an image's rows begin in ``order``.
    """

    names: pa.Array
    picture: Whole
    newest: Whole
    current: NDArray[np.bool_]
    order: Whole
    starts: Whole


def standing(rows: pa.Table) -> Standing:
    """Finds out which rows count.

    Args:
        rows: with the columns `COLUMNS`.
    """
    picture, names = _numbered(rows["sample"])
    part, part_names = _numbered(rows["part"])
    part = np.argsort(pc.sort_indices(part_names).to_numpy()).astype(np.int64)[part] if len(part) else part
    written = pc.fill_null(rows["written"], 0.0).to_numpy()
    stamp, _ = _numbered(pc.fill_null(rows["stamp"], ""))
    order = np.lexsort((part, picture))
    starts = np.searchsorted(picture[order], np.arange(len(names)))
    ends = np.append(starts, len(order))[1:] - 1
    newest = np.lexsort((part, written, picture))[ends]
    return Standing(
        names=names, picture=picture, newest=newest, current=stamp == stamp[newest][picture], order=order, starts=starts
    )


def _numbered(texts: pa.ChunkedArray) -> tuple[Whole, pa.Array]:
    """Returns a number for each text, and the texts that the numbers stand for."""
    coded = one(texts).dictionary_encode()
    return coded.indices.to_numpy().astype(np.int64), coded.dictionary


def one(column: pa.ChunkedArray) -> pa.Array:
    """Returns a column in one piece."""
    return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
