"""The mean of each metric over a whole run folder, with memory for a few thousand pictures."""

from __future__ import annotations

import math
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from seewhy.runs.folder.counting import Whole
from seewhy.runs.folder.store import Store
from seewhy.runs.query.choosing import Plan, Words, packed
from seewhy.runs.query.tables import flat_tables

__all__ = ["Totals", "means", "summed"]

_BLOCK = 2048  # pictures that are looked at together


class Totals(NamedTuple):
    """The means over a whole run folder, and the remarks about its pictures.

    Attributes:
        scores: as `means` gives them.
        remarks: in how many of how many pictures something is to be known, the most frequent first, in words.
    """

    scores: dict[str, dict[str, float | None]]
    remarks: tuple[str, ...]


def means(store: Store) -> dict[str, dict[str, float | None]]:
    """Returns explainer -> metric -> mean over all pictures, as in `Run.scores`; None where there are no data.

    A picture's value is the mean over its labels.
    """
    return summed(store).scores


def summed(store: Store) -> Totals:
    """Returns the means of all metrics, and what is said of pictures and maps, in one walk through the rows."""
    settings = store.settings()
    plan, run = Plan.of(settings), settings["id"]
    sums: list[list[float]] = [[] for _ in plan.score]
    counts = [0] * len(plan.score)
    said, pictures = Counter[tuple[str, str]](), 0
    for rows in _pictures(store, run):
        words = Words()
        tables = flat_tables(packed(rows, words, 0), plan, words, 0)
        labels, pictures = tables["labels"], pictures + len(tables["pictures"])
        said.update(_remarked(tables, plan))
        for number in range(len(plan.score)):
            values = _of_pictures(labels, f"m{number}")
            sums[number].append(math.fsum(values))
            counts[number] += len(values)
        pa.default_memory_pool().release_unused()  # the pool would else keep as much memory as a block ever took
    found: dict[str, dict[str, float | None]] = {explainer: {} for explainer, _ in plan.score}
    for (explainer, metric), parts, count in zip(plan.score, sums, counts, strict=True):
        found[explainer][metric] = math.fsum(parts) / count if count else None
    order = sorted(said.items(), key=lambda one: (-one[1], one[0]))
    return Totals(found, tuple(f"{who}{count} of {pictures} pictures: {kind}" for (who, kind), count in order))


def _remarked(tables: Mapping[str, pa.Table], plan: Plan) -> Iterator[tuple[str, str]]:
    """Returns (explainer or "", kind of remark) once for each picture that the remark is about."""
    warned, noted = tables["warnings"].select(["s", "kind"]), tables["notes"].select(["s", "e", "kind"])
    yield from (("", one["kind"]) for one in warned.group_by(["s", "kind"]).aggregate([]).to_pylist())
    lines = noted.group_by(["s", "e", "kind"]).aggregate([]).to_pylist()
    yield from ((f"{plan.explainers[one['e']]}: ", one["kind"]) for one in lines)


def _of_pictures(labels: pa.Table, column: str) -> NDArray[np.float64]:
    """Returns the value of each picture that has one."""
    known = labels.select(["s", column]).drop_null()
    _, picture = np.unique(known["s"].to_numpy(), return_inverse=True)
    totals = np.bincount(picture, known[column].to_numpy())
    return np.asarray(totals / np.maximum(np.bincount(picture), 1), dtype=np.float64)


def _pictures(store: Store, run: str) -> Iterator[pa.Table]:
    """Yields all rows, some thousand pictures at a time; the rows of one picture are always together."""
    signs = [_signs(block) for block in store.blocks(run, ["sample"])]
    every = np.concatenate(signs) if signs else np.empty(0, np.int64)
    once = np.unique(every)
    if len(once) == len(every):  # no picture has two rows
        yield from _cut(store.blocks(run))
        return
    groups = -(-len(once) // _BLOCK)
    for group in range(groups):
        own = [block.filter(pa.array(_signs(block) % groups == group)) for block in store.blocks(run)]
        yield pa.concat_tables(own)


def _cut(blocks: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Puts small blocks of rows together and cuts large blocks into pieces."""
    waiting: list[pa.Table] = []
    for block in blocks:
        waiting += [block.slice(at, _BLOCK) for at in range(0, len(block), _BLOCK)]
        if sum(map(len, waiting)) >= _BLOCK:
            yield pa.concat_tables(waiting)
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting)


def _signs(block: pa.Table) -> Whole:
    """A number for each row's picture; two pictures that share one are looked at together, which does no harm."""
    return np.array([zlib.crc32(name.encode()) for name in block["sample"].to_pylist()], dtype=np.int64)
