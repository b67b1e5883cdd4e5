"""Reads a run folder, also while it is written: filters, orders, pages, means, and the maps themselves.

    run = Run("out")
    for hit in run.labels(flags=["FN"], sort="score:rise:insertion_auc", descending=True, limit=48):
        run.map(hit.record.sample, hit.labels[0], "rise")
    run.refresh()                                     # what was written since

The rows of all parts are read once and kept in memory (Arrow); flat tables of them (DuckDB, in memory, with neither
files nor network) do the filtering. A `Run` may be used by several threads while another one refreshes it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, Unpack

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from seewhy.checks import check_count
from seewhy.draw.scale import Scale
from seewhy.errors import InvalidInput, UnknownName, nearest
from seewhy.plain import class_name
from seewhy.runs.folder.codec import check, check_thumbnail, decode
from seewhy.runs.folder.insights import insight
from seewhy.runs.folder.originals import Original, original, remark
from seewhy.runs.folder.rows import MapRow
from seewhy.runs.folder.settings import parsed
from seewhy.runs.query import judged as judging
from seewhy.runs.query import totals
from seewhy.runs.query.blocks import batches
from seewhy.runs.query.desk import Desk
from seewhy.runs.query.filters import Asked, Query, sorts
from seewhy.runs.query.records import (
    Counts,
    ExplainerCost,
    Failure,
    Hit,
    LabelScore,
    NoteCount,
    Page,
    SampleRecord,
    Score,
    StoredMap,
    StoredTree,
    WarningCount,
)
from seewhy.runs.query.snapshot import Base, Moment
from seewhy.runs.query.vectors import Stored, Vectors, stored
from seewhy.statistics import Judged

__all__ = [
    "Counts",
    "ExplainerCost",
    "Failure",
    "Hit",
    "LabelScore",
    "Page",
    "Run",
    "SampleRecord",
    "Score",
    "StoredMap",
    "StoredTree",
]


class Run(Desk):
    """A run folder to be read.

    Args:
        place: a path, or an address that fsspec knows.
        threads: how many the database may use for one question.

    Raises:
        InvalidInput: there is no run, or it cannot be read.
    """

    def __init__(self, place: str | os.PathLike[str], *, threads: int = 2) -> None:
        check_count("threads", threads)
        self._base = Base(place, threads)

    def refresh(self) -> int:
        """Reads what was written since, and run.json if it changed; says how many parts are new.

        Parts that cannot be read are counted and tried again the next time.

        Raises:
            InvalidInput: run.json is gone or cannot be read.
        """
        return self._base.refresh()

    # ------------------------------------------------------------------------------------------------- run.json

    @property
    def address(self) -> str:
        """The path or address of the run."""
        return self._base.store.address

    @property
    def settings(self) -> dict[str, Any]:
        """The content of run.json."""
        return self._base.state.settings

    @property
    def damaged(self) -> dict[str, str]:
        """The parts that could not be read at the last refresh, and why."""
        return self._base.state.damaged

    @property
    def explainers(self) -> tuple[str, ...]:
        """Their labels, in order."""
        return self._base.state.plan.explainers

    @property
    def exclusive(self) -> bool:
        """Whether exactly one class is meant (softmax), so that the likeliest class is the prediction."""
        return self._base.state.plan.exclusive

    @property
    def quantity(self) -> str:
        """The kind of number that the network gives each class: "probability", "logit" or "value"."""
        return str(self.settings.get("quantity", "probability"))  # of earlier versions nothing else is known

    @property
    def drawn(self) -> tuple[str, ...]:
        """The explainers whose maps are kept; those of baselines that a run adds are judged and dropped."""
        about = self.settings["explainers"]
        return tuple(name for name in self.explainers if about[name].get("maps", True))

    @property
    def metrics(self) -> tuple[str, ...]:
        """Their labels, in order."""
        return self._base.state.plan.metrics

    @property
    def classes(self) -> list[str] | None:
        """The names of the classes, if they are known."""
        found: list[str] | None = self.settings.get("classes")
        return found

    @property
    def detects(self) -> bool:
        """Whether its labels are the boxes of a detector."""
        return bool(self.settings.get("detection"))

    @property
    def sorts(self) -> list[str]:
        """The orders that `labels` and `samples` know."""
        return list(sorts(self._base.state.plan))

    def class_name(self, label: int) -> str:
        """Returns the name of a class, "class 7" where it has none."""
        return class_name(label, self.classes)

    # ---------------------------------------------------------------------------------------------------- pages

    def labels(self, **asked: Unpack[Asked]) -> Page[Hit]:
        """Returns a page with one entry for each label of each picture that meets the filters.

        Args:
            asked: filters, order and page: see `Query`.

        Raises:
            InvalidInput: a filter that cannot be used.
            UnknownName: an explainer or an order that the run does not have.
        """
        query = Query.of(asked)
        with self._base.moment() as now:
            where, values = query.where(now.state.plan, now.known)
            order = f"{query.key(now.state.plan)} {query.direction}, position, sample, label"
            total = now.number(f"SELECT count(*) FROM labels WHERE {where}", values)
            lines = now.fetch(
                f"SELECT s, label FROM labels WHERE {where} ORDER BY {order} LIMIT ? OFFSET ?",
                [*values, query.limit, query.offset],
            )
            made = now.records(s for s, _ in lines)
        hits = [Hit(record=made[s], labels=(label,)) for s, label in lines]
        return Page(items=hits, total=total, offset=query.offset)

    def samples(self, **asked: Unpack[Asked]) -> Page[Hit]:
        """Returns a page with one entry for each picture that has a label that meets all filters.

        Pictures are in the order of the best of the labels that meet the filters. Without a filter on labels there
        are those without any label, too.

        Args:
            asked: filters, order and page: see `Query`.

        Raises:
            InvalidInput: a filter that cannot be used.
            UnknownName: an explainer or an order that the run does not have.
        """
        query = Query.of(asked)
        with self._base.moment() as now:
            total, pictures = _pictures(now, query)
            made, found = now.records(pictures), _meeting(now, query, pictures)
        hits = [Hit(record=made[s], labels=tuple(found.get(s, ()))) for s in pictures]
        return Page(items=hits, total=total, offset=query.offset)

    def failures(self, offset: int = 0, limit: int = 12) -> Page[Failure]:
        """Returns a page of the failures, picture by picture.

        Raises:
            InvalidInput: offset or limit that cannot be used.
        """
        query = Query(offset=offset, limit=limit)
        with self._base.moment() as now:
            total = now.number("SELECT count(*) FROM failures")
            lines = now.fetch(
                "SELECT sample, position, name, source, task, explainer, metric, label, reason "
                "FROM failures JOIN pictures USING (s) "
                "ORDER BY position, sample, task, explainer, metric, label, reason LIMIT ? OFFSET ?",
                [query.limit, query.offset],
            )
        return Page(items=[Failure(*line) for line in lines], total=total, offset=query.offset)

    def records(self) -> Iterator[SampleRecord]:
        """Yields all pictures in the order of the data, as they are at the moment of the first one."""
        with self._base.moment() as now:
            order = [s for (s,) in now.fetch("SELECT s FROM pictures ORDER BY position, sample")]
            for start in range(0, len(order), 256):
                block = order[start : start + 256]
                made = now.records(block)
                yield from (made[s] for s in block)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """All labels as a flat table, in the order of the data, block by block.

        Columns: sample, name, source, position, label (class index), truth, flag, probability (or what else the
        numbers are, see `quantity`), predicted, mean, std, low, high, entropy, mutual_information, warnings (what is
        to be known of the image and of its maps, "; " between), then "EXPLAINER/METRIC" for every pair, null where
        there is no value.
        Of a detector also "detection", the number of the box, which `SampleRecord.detections` has. Where reviewers
        said something also "reviews": what they say of the image, "; " between.
        """
        with self._base.moment() as now:
            yield from batches(now, self.quantity, detects=self.detects)

    # ---------------------------------------------------------------------------------------------- one picture

    def sample(self, key: str) -> SampleRecord | None:
        """Returns everything that is known of a picture; None where the run has no such picture."""
        return self._base.record(key)

    def map_bytes(self, sample: str, label: int, explainer: str) -> tuple[bytes, MapRow] | None:
        """Returns a map as it is kept, and how it is read; None where there is none.

        Raises:
            InvalidInput: its pack is damaged, or it is no map of the size that its row says.
        """
        record = self.sample(sample)
        stored = record.maps.get((label, explainer)) if record else None
        if stored is None:
            return None
        row = stored.row
        data = self._base.store.read(stored.part, row.offset, row.size, row.checksum)
        check(data, row.encoding, (row.height, row.width))
        return data, row

    def map(self, sample: str, label: int, explainer: str) -> NDArray[np.float32] | None:
        """Returns a map (h, w) in its own resolution, raw and signed; None where there is none.

        Raises:
            InvalidInput: its pack is damaged, or it was written by a later version.
        """
        found = self.map_bytes(sample, label, explainer)
        if found is None:
            return None
        data, row = found
        return decode(data, row.encoding, (row.height, row.width), row.low, row.high)

    def thumbnail(self, sample: str) -> tuple[bytes, str] | None:
        """Returns the small picture and its format ("png" or "jpeg"); None where there is none.

        Raises:
            InvalidInput: its pack is damaged.
        """
        record = self.sample(sample)
        if record is None or record.thumbnail is None:
            return None
        part, place = record.thumbnail
        data = self._base.store.read(part, place.offset, place.size, place.checksum)
        check_thumbnail(data, place.format, (place.height, place.width))
        return data, place.format

    def original(self, record: SampleRecord, most: int | None = None) -> Original:
        """Returns the original of a picture, if it still is what it was, or a sentence that says why there is none.

        Args:
            record: the picture.
            most: bytes that are read of a file; a larger one is taken for missing.
        """
        return original(self._base.store.files, record, most)

    def remark(self, record: SampleRecord, most: int | None = None) -> str:
        """Returns a sentence where a picture's original was changed or could not be checked; else "".

        Args:
            record: the picture.
            most: bytes of a file that are compared.
        """
        return remark(self._base.store.files, record, most)

    def tree(self, sample: str, label: int) -> dict[str, Any] | None:
        """Returns a hierarchical occlusion (`EditTree.as_dict`); None where there is none.

        Raises:
            InvalidInput: the stored bytes are no hierarchical occlusion.
        """
        record = self.sample(sample)
        stored = record.trees.get(label) if record else None
        if stored is None:
            return None
        rows = self._base.store.rows_of(stored.part, ["sample", "trees"]).to_pylist()
        own = [tree for row in rows if row["sample"] == sample for tree in row["trees"]]
        texts = [tree["tree"] for tree in own if tree["label"] == label]
        if not texts:
            return None
        found = parsed(texts[0].encode(), f"The hierarchical occlusion of {sample!r}, class {label},", depth=200)
        if not isinstance(found, dict):
            raise InvalidInput(f"The hierarchical occlusion of {sample!r}, class {label}, is none.")
        return found

    # ---------------------------------------------------------------------------------------------- all of them

    def counts(self) -> Counts:
        """Returns the numbers of pictures, labels, maps and failures."""
        with self._base.moment() as now:
            return totals.counts(now)

    def insight(self, name: str) -> Any:
        """Returns what was found about the whole run and kept beside it ("patterns"); None where nothing was.

        Raises:
            InvalidInput: it cannot be read.
        """
        return insight(self._base.store, name)

    def feature_layers(self) -> list[str]:
        """Returns the middle layers whose features, weighted by maps, the run keeps; none where it was not asked."""
        with self._base.moment() as now:
            return stored(now).layers

    def vectors(self, layer: str | None = None) -> Vectors:
        """Returns features that the run keeps.

        Args:
            layer: one of `feature_layers`, for a vector each map; None for one each image, the mean over all places of
                the automatic layer.

        Raises:
            InvalidInput: a pack is damaged.
            UnknownName: the run keeps nothing of this layer, or no features at all.
        """
        found = self._stored()
        if layer is not None and layer not in found.layers:
            raise UnknownName(f"The run keeps no features of layer {layer!r}. {nearest(layer, found.layers)}")
        return found.read(self._base.store, layer)

    def weighted_vectors(self) -> list[Vectors]:
        """Returns the features of every middle layer, weighted by maps; [] where the run keeps plain means alone.

        Raises:
            InvalidInput: a pack is damaged.
            UnknownName: the run keeps no features at all.
        """
        found = self._stored()
        return [found.read(self._base.store, layer) for layer in found.layers]

    def _stored(self) -> Stored:
        with self._base.moment() as now:
            found = stored(now)
        if not found.entries:
            raise UnknownName(
                f"The run in {self.address!r} keeps no features. Add them: seewhy run ... --features, or "
                "register_features()."
            )
        return found

    def scores(self) -> list[Score]:
        """Returns the mean score of each explainer by each metric, over all pictures."""
        with self._base.moment() as now:
            return totals.scores(now)

    def judged(self) -> Judged:
        """Returns the same numbers picture by picture, for intervals, differences and what may be called best."""
        with self._base.moment() as now:
            return judging.judged(now)

    def scale(self, row: MapRow, *, signed: bool | None = None, faint: bool = False) -> Scale:
        """Returns the scale on which a stored map is drawn.

        Args:
            row: of the map.
            signed: whether both signs are shown, or None for what the map itself asks for.
            faint: whether it shows nothing; see `SampleRecord.nothing`.
        """
        about = self.settings["explainers"].get(row.explainer, {})
        values = about.get("values", "size")  # runs of earlier versions do not say it
        return Scale.of(row.low, row.high, row.top, meaning=values, faint=faint, signed=signed)

    def concise(self, metric: str) -> bool:
        """Says whether a metric measures how concise a map is, not how right; it has no weight unless one is given."""
        return metric in self._base.state.plan.concise

    def label_scores(self, *, explainer: str | None = None, metric: str | None = None) -> list[LabelScore]:
        """Returns the same for each label, of one explainer, one metric, or both; mean None where there are no data.

        Raises:
            UnknownName: the run has no such explainer or metric.
        """
        with self._base.moment() as now:
            return totals.label_scores(now, explainer, metric)

    def label_counts(self) -> dict[int, int]:
        """Returns class index -> number of pictures with a label of this class; other classes are left out."""
        with self._base.moment() as now:
            return totals.label_counts(now)

    def costs(self) -> list[ExplainerCost]:
        """Returns what each explainer's maps cost for a picture, on average."""
        with self._base.moment() as now:
            return totals.costs(now)

    def notes(self) -> list[NoteCount]:
        """Returns how many pictures have notes about their maps, by explainer and kind, most frequent first."""
        with self._base.moment() as now:
            return totals.notes(now)

    def warnings(self) -> list[WarningCount]:
        """Returns how many pictures have warnings, by kind, most frequent first."""
        with self._base.moment() as now:
            return totals.warnings(now)


def _pictures(now: Moment, query: Query) -> tuple[int, list[int]]:
    """Returns how many pictures meet the filters, and the numbers of the pictures on the page."""
    where, values = query.where(now.state.plan, now.known)
    best = f"{'max' if query.descending else 'min'}({query.key(now.state.plan)})"
    there = "true"
    of_labels = query.of_labels(now.state.plan)
    if of_labels:
        total = now.number(f"SELECT count(DISTINCT s) FROM labels WHERE {where}", values)
        join = "JOIN"
    else:
        there, values = query.pictures(now.state.plan)
        total = now.number(f"SELECT count(*) FROM pictures WHERE {there}", values)
        join, where = "LEFT JOIN", "true"
    if query.sort == "position" and not of_labels:
        source, key = "pictures", "position"
    else:
        source = f"pictures {join} (SELECT s, {best} AS k FROM labels WHERE {where} GROUP BY s) USING (s)"
        key = "k"
    lines = now.fetch(
        f"SELECT s FROM {source} WHERE {there} ORDER BY {key} {query.direction}, position, sample LIMIT ? OFFSET ?",
        [*values, query.limit, query.offset],
    )
    return total, [s for (s,) in lines]


def _meeting(now: Moment, query: Query, pictures: list[int]) -> dict[int, list[int]]:
    """Returns of each image the labels that meet the filters, in the order asked for."""
    where, values = query.where(now.state.plan, now.known)
    lines = now.fetch(
        f"SELECT s, label FROM labels WHERE s IN (SELECT unnest(?::BIGINT[])) AND {where} "
        f"ORDER BY {query.key(now.state.plan)} {query.direction}, label",
        [pictures, *values],
    )
    found: dict[int, list[int]] = {}
    for s, label in lines:
        found.setdefault(s, []).append(label)
    return found
