"""What is yet to be done: everything that was asked for, without what the run folder has.

A picture is known by its key and its stamp; a task by the identity of what is computed. A picture whose stamp changed
but whose content is the same is not done again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seewhy.errors import InvalidInput
from seewhy.runs.folder.codec import lossless
from seewhy.runs.folder.counting import COLUMNS, standing
from seewhy.runs.folder.identity import identity
from seewhy.runs.folder.originals import same_bytes_long
from seewhy.runs.folder.rows import DetectionRow, MapRow
from seewhy.runs.folder.tasks import FEATURES, PREDICT, succeeded
from seewhy.runs.work.job import Tools
from seewhy.runs.work.reading import digest

__all__ = ["Chunk", "Chunks", "Item", "Plan", "check_shard", "plan"]

_SCAN = [*(name for name in COLUMNS if name != "part"), "done", "failed"]  # each row says its part
_CHECKED = 3  # pictures without a stamp that are looked at before a run is continued


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """One picture, and what is to be done for it.

    Attributes:
        index: its position in the data.
        key: unique in the data.
        stamp: cheap sign that it is the same as before.
        tasks: identities of what is to be done.
        labels: classes to be explained (or numbers of a detector's boxes), where they are known from before.
        detections: of a detector, the boxes that these numbers stand for.
        maps: maps that are there already and will be judged: (part, where it lies).
        digest: digest of the picture that these maps are of, where it is known.
    """

    index: int
    key: str
    stamp: str
    tasks: tuple[str, ...]
    labels: tuple[int, ...] | None = None
    detections: tuple[DetectionRow, ...] = ()
    maps: tuple[tuple[str, MapRow], ...] = ()
    digest: str | None = None


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Pictures that are computed and committed together.

    Attributes:
        name: says what is in it: two attempts at the same work have the same name.
        items: the pictures.
    """

    name: str
    items: tuple[Item, ...]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What there is to do.

    Attributes:
        chunks: in the order of the data.
        total: pictures in the data.
        done: pictures for which nothing is left to do.
        foreign: parts of another model, activation or threshold in the folder.
    """

    chunks: Chunks
    total: int
    done: int
    foreign: int = 0


class Chunks(Sequence[Chunk]):
    """Chunks that are made when they are asked for, so that a run over many pictures needs no memory for all of them.

    Of a picture of which nothing is known only its position is kept, and a sign of the stamp that it had.

    Args:
        tools: the job.
        era: part of the chunks' names.
        blocks: the pictures of each chunk.
    """

    def __init__(self, tools: Tools, era: float, blocks: list[_Block]) -> None:
        self._tools, self._era, self._blocks = tools, era, blocks

    def __len__(self) -> int:
        return len(self._blocks)

    @overload
    def __getitem__(self, at: int) -> Chunk: ...

    @overload
    def __getitem__(self, at: slice) -> list[Chunk]: ...

    def __getitem__(self, at: int | slice) -> Chunk | list[Chunk]:
        if isinstance(at, slice):
            return [self._chunk(block) for block in self._blocks[at]]
        return self._chunk(self._blocks[at])

    @property
    def pictures(self) -> int:
        """How many pictures there are in all chunks together."""
        return sum(map(len, self._blocks))

    def clear(self) -> None:
        """Drops all chunks, so that they take no memory."""
        self._blocks.clear()

    def _chunk(self, block: _Block) -> Chunk:
        items = block.items or tuple(self._fresh(block, int(i), int(s)) for i, s in block.fresh)
        about = [(item.key, item.stamp, item.tasks) for item in items]
        return Chunk(name=identity(self._tools.run, self._era, about), items=items)

    def _fresh(self, block: _Block, index: int, sign: int) -> Item:
        data = self._tools.data
        stamp = data.stamp(index)
        if hash(stamp) != sign:
            stamp = f"{stamp} (before: {sign:x})"  # whoever reads the picture will see that it is another one
        return Item(index=index, key=data.key(index), stamp=stamp, tasks=block.tasks)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Block:
    """The pictures of a chunk.

    Attributes:
        tasks: what is missing for each of them.
        fresh: (P, 2) their positions and the signs of their stamps, where nothing more is known.
        items: the pictures of which more is known.
    """

    tasks: tuple[str, ...]
    fresh: Any = ()
    items: tuple[Item, ...] = ()

    def __len__(self) -> int:
        return len(self.items) or len(self.fresh)


_NONE: frozenset[str] = frozenset()


@dataclass(slots=True)
class _Known:
    """What the folder has of one picture.

    Attributes:
        stamp: the stamp in its newest row.
        written: when its newest row was written.
        done: tasks that were tried.
        failed: tasks that have only ever failed.
    """

    stamp: str = ""
    written: float = -1.0
    done: frozenset[str] = _NONE
    failed: frozenset[str] = _NONE


def plan(tools: Tools, *, retry: bool = False, shard: tuple[int, int] = (1, 1)) -> Plan:
    """Compares what was asked for with what the folder has.

    Args:
        tools: the job.
        retry: does again what failed.
        shard: (i, n): the i-th of n parts of the work, counted from 1; every chunk belongs to one of them.

    Raises:
        InvalidInput: the data are not those of the run.
    """
    check_shard(shard)
    part, parts = shard
    found, foreign = tools.store.rows(tools.run, _SCAN)
    known = _known(found)
    fresh, known_too = defaultdict(list), defaultdict(list)
    total, left = len(tools.data), 0
    # A chunk that is tried again needs another name: of parts with one name readers take one.
    era = max((one.written for one in known.values()), default=0.0) if retry else 0.0
    look = _Look(tools, known)
    for index in range(total):
        if missing := look.missing(index, retry):
            left += 1
            where = index // tools.job.chunk, missing
            if where[0] % parts != part - 1:
                continue
            if PREDICT in missing:
                fresh[where].append((index, hash(look.stamp)))
            else:
                known_too[where].append(Item(index=index, key=look.key, stamp=look.stamp, tasks=missing))
    look.check()
    items = _informed(tools, [item for group in known_too.values() for item in group])
    blocks = {where: _Block(tasks=where[1], fresh=np.array(group)) for where, group in fresh.items()}
    blocks |= {
        where: _Block(tasks=where[1], items=tuple(items[item.index] for item in group))
        for where, group in known_too.items()
    }
    chunks = Chunks(tools, era, [blocks[where] for where in sorted(blocks)])
    return Plan(chunks=chunks, total=total, done=total - left, foreign=foreign)


def check_shard(shard: tuple[int, int]) -> None:
    """Raises InvalidInput unless the shard is (i, n) with i from 1 to n."""
    part, parts = shard
    if not 1 <= part <= parts:
        raise InvalidInput(f"A shard is i/n with i from 1 to n, got {part}/{parts}.")


class _Look:
    """Goes through the data and says what is missing for each picture."""

    def __init__(self, tools: Tools, known: Mapping[str, _Known]) -> None:
        self.tools, self.known, self.tasks = tools, known, tools.tasks()
        self.key = self.stamp = ""
        self._digests: dict[str, str | None] | None = None
        self._unsure: list[int] = []

    def missing(self, index: int, retry: bool) -> tuple[str, ...]:
        """Returns the tasks of a picture that are not done."""
        data = self.tools.data
        self.key, self.stamp = data.key(index), data.stamp(index)
        one = self.known.get(self.key)
        if one is None or (one.stamp != self.stamp and not self._same(index, one.stamp)):
            return self.tasks
        done = one.done - one.failed if retry else one.done
        if PREDICT in done:
            self.stamp = one.stamp  # what is added belongs to what is there
        if not self.stamp:
            self._unsure.append(index)
        return () if done.issuperset(self.tasks) else tuple(task for task in self.tasks if task not in done)

    def check(self) -> None:
        """Looks at a few pictures whose sameness cannot be seen from outside.

        Raises:
            InvalidInput: one of them is another picture than before.
        """
        for index in self._unsure[:: max(1, len(self._unsure) // _CHECKED)][:_CHECKED]:
            key = self.tools.data.key(index)
            if (before := self._before(key)) is not None and digest(self.tools.data, index) != before:
                raise InvalidInput(
                    f"Picture {key} is not the one that {self.tools.store.address!r} has under this name. Is the data "
                    "set another one, shuffled or augmented at random? Use the same data, or another folder."
                )

    def _same(self, index: int, stamp: str) -> bool:
        """Says whether a picture with a new stamp has the same content: a file that was copied has a new time."""
        if not same_bytes_long(self.stamp, stamp):
            return False
        before = self._before(self.key)
        return before is not None and digest(self.tools.data, index) == before

    def _before(self, key: str) -> str | None:
        if self._digests is None:
            found, _ = self.tools.store.rows(self.tools.run, ["sample", "digest"])
            self._digests = dict(zip(found["sample"].to_pylist(), found["digest"].to_pylist(), strict=True))
        return self._digests.get(key)


def _known(found: pa.Table) -> dict[str, _Known]:
    """Returns what is known of each picture, by its key, from the rows that count."""
    rows = standing(found)
    stamps, names = found["stamp"].take(pa.array(rows.newest)).to_pylist(), rows.names.to_pylist()
    written = pc.fill_null(found["written"], 0.0).to_pylist()
    known = {name: _Known(stamp=stamp) for name, stamp in zip(names, stamps, strict=True)}
    done, failed = _sets(found["done"]), _sets(found["failed"])
    for row in np.flatnonzero(rows.current).tolist():
        one, has, lost = known[names[rows.picture[row]]], done[row], failed[row]
        one.written = max(one.written, written[row])
        if not one.done:
            one.done, one.failed = has, has & lost if lost else _NONE
            continue
        succeeded = one.done - one.failed | (has - lost)
        one.done = one.done | has
        one.failed = one.done - succeeded
    return known


def _sets(column: pa.ChunkedArray) -> list[frozenset[str]]:
    """Returns a set for each list of tasks; equal lists share one set, because many rows have the same list."""
    joined = pc.binary_join(column, "\n").combine_chunks().dictionary_encode()
    sets = [frozenset(text.split("\n") if text else ()) for text in joined.dictionary.to_pylist()]
    return [sets[i] for i in joined.indices.to_pylist()]


def _informed(tools: Tools, items: list[Item]) -> dict[int, Item]:
    """Returns the items with what is known of them: classes that were explained before, maps that will be judged."""
    again = {item.key: item for item in items if PREDICT not in item.tasks}
    if not again:
        return {item.index: item for item in items}
    wanted = {task for item in again.values() for task in item.tasks}
    judged = {e for e in tools.explainers for m in tools.metrics if tools.score_task(e, m) in wanted}
    if tools.features is not None and tools.single_task(FEATURES) in wanted:
        judged |= {e for e in tools.explainers if e == tools.features.explainer}
    columns = [*_SCAN, "digest", "labels", "detections", *(["maps"] if judged else [])]
    found, _ = tools.store.rows(tools.run, columns)
    wanted_too = pc.is_in(found["sample"], pa.array(list(again)))
    rows = found.filter(pc.and_(wanted_too, pa.array(standing(found).current))).to_pylist()
    spoken, maps = _spoken(rows), _maps(rows, tools, judged)
    return {
        item.index: item if item.key not in again else Item(
            index=item.index, key=item.key, stamp=item.stamp, tasks=item.tasks, maps=tuple(maps[item.key]),
            **_known_labels(spoken.get(item.key)),
        )
        for item in items
    }  # fmt: skip


def _spoken(rows: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Returns the rows that have a prediction of the network."""
    found: dict[str, dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: row["part"]):
        if succeeded(PREDICT, row["done"], row["failed"]):
            found.setdefault(row["sample"], row)
    return found


def _known_labels(row: Mapping[str, Any] | None) -> dict[str, Any]:
    if row is None:
        return {}
    detections = tuple(DetectionRow(**fields) for fields in row["detections"] or ())
    labels = tuple(one["label"] for one in row["labels"])
    return {"labels": labels, "detections": detections, "digest": row["digest"]}


def _maps(rows: Iterable[dict[str, Any]], tools: Tools, judged: set[str]) -> dict[str, list[tuple[str, MapRow]]]:
    """Returns the stored maps that can be judged as they are; a map that lost precision when kept is made again."""
    found: dict[str, list[tuple[str, MapRow]]] = defaultdict(list)
    for row in rows if judged else ():
        for one in (MapRow(**fields) for fields in row["maps"]):
            if one.explainer in judged and tools.explain_task(one.explainer) in row["done"] and lossless(one.encoding):
                found[row["sample"]].append((row["part"], one))
    return found
