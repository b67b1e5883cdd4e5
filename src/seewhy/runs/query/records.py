"""What is handed out: one picture with everything that is known of it, and pages of pictures, labels and failures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

import pyarrow as pa

from seewhy.plain import NOTHING
from seewhy.runs.folder.reviews import Review
from seewhy.runs.folder.rows import (
    CostRow,
    DetectionRow,
    FailureRow,
    LabelRow,
    MapRow,
    NoteRow,
    ThumbnailRow,
    UncertaintyRow,
)
from seewhy.runs.query.choosing import WORDED, Choice, Plan, Words, choose
from seewhy.runs.query.tables import shown_failures

__all__ = [
    "Counts",
    "ExplainerCost",
    "Failure",
    "Hit",
    "LabelScore",
    "Page",
    "QueueCount",
    "SampleRecord",
    "Score",
    "StoredMap",
    "StoredTree",
    "records",
]

Item = TypeVar("Item")


class StoredMap(NamedTuple):
    """Where a map lies: the part, and the place in its pack."""

    part: str
    row: MapRow


class StoredTree(NamedTuple):
    """The part that has a hierarchical occlusion, and whether it found something."""

    part: str
    found: bool


@dataclass(frozen=True, kw_only=True)
class SampleRecord:
    """One picture, put together from all rows that count.

    Attributes:
        sample: the key, unique in the data.
        position: where it stands in the data.
        name: for people.
        source: path of the original, or None.
        stamp: sign that the picture is the same as before.
        digest: of its pixels and annotations, or None.
        content: sign of the bytes of the original's file, or None.
        size: (height, width) of the original in pixels, or None.
        input: (height, width) of the network's input, or None.
        box: x0, y0, x1, y1: which part of the original the input covers, in its pixels, or None.
        truth: classes that are truly there, or None.
        boxes: (label, x0, y0, x1, y1) in pixels of the original.
        crowds: which of the boxes are around many objects, by their place.
        difficult: which of the boxes need not be found, by their place.
        predicted: the likeliest class, or None.
        probability: of it.
        entropy: in nats, or None.
        mutual_information: in nats, or None.
        detections: number -> what a detector found, or did not find; {} for a classifier. In a run over a detector
            these numbers stand for labels in everything that follows.
        labels: label -> what the network and the truth say.
        uncertainty: label -> mean, deviation, interval.
        maps: (label, explainer) -> where the map lies.
        scores: (label, explainer, metric) -> value; None where it was judged and there are no data.
        said: the same -> what the metric says beside its value, where it says anything.
        costs: explainer -> what its maps cost.
        trees: label -> where its hierarchical occlusion is; `Run.tree` reads it.
        failures: what could not be done.
        warnings: what the reader of the results should know.
        thumbnail: its part and place, or None.
        parts: the parts that tell of the picture.
        reviews: what reviewers say of it, in the order of time.
    """

    sample: str
    position: int
    name: str
    source: str | None
    stamp: str
    digest: str | None
    size: tuple[int, int] | None
    input: tuple[int, int] | None
    box: tuple[float, float, float, float] | None
    truth: tuple[int, ...] | None
    boxes: tuple[tuple[int, float, float, float, float], ...]
    predicted: int | None
    probability: float | None
    entropy: float | None
    mutual_information: float | None
    detections: dict[int, DetectionRow] = field(default_factory=dict)
    crowds: tuple[int, ...] = ()
    difficult: tuple[int, ...] = ()
    labels: dict[int, LabelRow] = field(default_factory=dict)
    uncertainty: dict[int, UncertaintyRow] = field(default_factory=dict)
    maps: dict[tuple[int, str], StoredMap] = field(default_factory=dict)
    scores: dict[tuple[int, str, str], float | None] = field(default_factory=dict)
    said: dict[tuple[int, str, str], str] = field(default_factory=dict)
    costs: dict[str, CostRow] = field(default_factory=dict)
    trees: dict[int, StoredTree] = field(default_factory=dict)
    failures: tuple[FailureRow, ...] = ()
    warnings: tuple[str, ...] = ()
    thumbnail: tuple[str, ThumbnailRow] | None = None
    parts: tuple[str, ...] = ()
    content: str | None = None
    reviews: tuple[Review, ...] = ()

    @property
    def right(self) -> bool | None:
        """Whether the likeliest class is one that is truly there; None where nobody knows, and for detectors."""
        if self.truth is None or self.predicted is None or self.detections:
            return None
        return self.predicted in self.truth

    def class_of(self, label: int) -> int:
        """Returns the class index that a label means: itself, or the class of the detector's box of this number."""
        return self.detections[label].class_index if label in self.detections else label

    def nothing(self, label: int, explainer: str) -> str:
        """Returns the reason, noted when the map was made, why it shows nothing; "" where it shows something."""
        notes = self.costs[explainer].notes if explainer in self.costs else ()
        found = next((one.text for one in notes if one.kind == NOTHING and one.label in (None, label)), "")
        return found[:1].upper() + found[1:]


@dataclass(frozen=True, kw_only=True)
class Hit:
    """A picture that meets the filters.

    Attributes:
        record: the picture.
        labels: its labels that meet them, in the order asked for; () where no filter was set and it has none.
    """

    record: SampleRecord
    labels: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Page(Generic[Item]):
    """A page: some of many entries, and how many there are.

    Attributes:
        items: those of this page.
        total: how many there are on all pages.
        offset: how many come before.
    """

    items: list[Item]
    total: int
    offset: int

    def __iter__(self) -> Iterator[Item]:
        """Iterates over the items of this page."""
        return iter(self.items)

    def __len__(self) -> int:
        """Returns how many items there are on this page."""
        return len(self.items)


@dataclass(frozen=True, kw_only=True)
class Counts:
    """The numbers of pictures, labels, maps and failures of a run.

    Attributes:
        total: pictures that the data have, or None where that is not known.
        samples: pictures that the run knows of.
        failed: pictures that could not be read or predicted.
        failures: rows of failures of all kinds.
        labels: labels of all pictures.
        maps: maps of them.
        trees: hierarchical occlusions that found something.
        flags: "TP", "FN", "FP", "TN" -> labels.
        parts: parts that were read.
        foreign: parts of another run, which are not read.
        unread: parts that could not be read.
    """

    total: int | None
    samples: int
    failed: int
    failures: int
    labels: int
    maps: int
    trees: int
    flags: dict[str, int]
    parts: int
    foreign: int
    unread: int


@dataclass(frozen=True, kw_only=True)
class Score:
    """The mean score that a metric gives an explainer over a whole run.

    Attributes:
        explainer: label.
        metric: label.
        mean: over the pictures, each with the mean of its maps; None without any.
        low: lower end of the mean's 95 % interval, see `statistics`; None where it cannot be told.
        high: upper end.
        why: why there is no interval; "" where there is one.
        std: standard deviation of the pictures' values (n - 1), or None below two.
        pictures: how many have a value.
        count: maps that have a value.
        macro: the mean of the labels' means, each label counting once.
        no_data: maps that were judged without there being anything to judge.
        better: "higher" or "lower".
        range: the metric's lowest and highest value; None where it has no end.
    """

    explainer: str
    metric: str
    mean: float | None
    low: float | None
    high: float | None
    why: str
    std: float | None
    pictures: int
    count: int
    macro: float | None
    no_data: int
    better: str
    range: tuple[float | None, float | None]


@dataclass(frozen=True, kw_only=True)
class LabelScore:
    """The mean score of an explainer by a metric on one label (None without values), and the number of values."""

    explainer: str
    metric: str
    label: int
    mean: float | None
    count: int


class ExplainerCost(NamedTuple):
    """What an explainer's maps cost a picture, on average: images forward and backward, seconds."""

    explainer: str
    samples: int
    forward: float | None
    backward: float | None
    seconds: float | None


class NoteCount(NamedTuple):
    """How many pictures have a note of a kind about the maps of an explainer, and about how many maps it is."""

    explainer: str
    kind: str
    pictures: int
    notes: int


class WarningCount(NamedTuple):
    """How many pictures have a warning of a kind."""

    kind: str
    pictures: int


class QueueCount(NamedTuple):
    """How many labels are in a queue, and of how many pictures they are."""

    labels: int
    pictures: int


class Failure(NamedTuple):
    """A task that failed, and the picture that it was about."""

    sample: str
    position: int
    name: str
    source: str | None
    task: str
    explainer: str | None
    metric: str | None
    label: int | None
    reason: str


# --------------------------------------------------------------------------------------------------------- making


def records(rows: pa.Table, plan: Plan, words: Words) -> dict[str, SampleRecord]:
    """Returns the pictures that the rows are about.

    Args:
        rows: all rows of these pictures, as `packed` makes them.
        plan: what run.json asks for.
        words: of the rows.
    """
    choice = choose(rows, plan, words)
    plain = [_worded(row, words) for row in rows.to_pylist()]
    failures: dict[int, list[FailureRow]] = defaultdict(list)
    for picture, failure in shown_failures(rows, plan, words, choice):
        failures[picture].append(FailureRow(**failure))
    return {
        name: _record(plain, plan, choice, picture, tuple(failures[picture]))
        for picture, name in enumerate(choice.names.to_pylist())
    }


def _worded(row: dict[str, Any], words: Words) -> dict[str, Any]:
    """Returns the row with strings in place of their numbers."""

    def text(number: int | None) -> str | None:
        return None if number is None else words.texts[number]

    for name, columns in WORDED.items():
        row[name] = [{**entry, **{column: text(entry[column]) for column in columns}} for entry in row[name]]
    return row


def _record(
    rows: list[dict[str, Any]], plan: Plan, choice: Choice, picture: int, failures: tuple[FailureRow, ...]
) -> SampleRecord:
    def of(task: int) -> dict[str, Any]:
        number = choice.chosen[task, picture] if task >= 0 else -1
        return rows[number] if number >= 0 else _NOTHING

    end = choice.starts[picture + 1] if picture + 1 < len(choice.starts) else len(choice.order)
    mine = [rows[n] for n in choice.order[choice.starts[picture] : end] if choice.current[n]]
    base, unsure = rows[choice.base[picture]], of(plan.uncertainty)
    return SampleRecord(
        **{name: base[name] for name in ("sample", "position", "name", "source", "stamp", "digest", "content")},
        **{name: _pair(base[name]) for name in ("size", "input", "box", "truth")},
        boxes=tuple(tuple(box.values()) for box in base["boxes"]),
        crowds=tuple(base["crowds"] or ()), difficult=tuple(base["difficult"] or ()),
        predicted=base["predicted"], probability=base["probability"],
        entropy=unsure["entropy"], mutual_information=unsure["mutual_information"],
        detections={entry["number"]: DetectionRow(**entry) for entry in base["detections"] or ()},
        labels=_by_label(LabelRow, base["labels"]), uncertainty=_by_label(UncertaintyRow, unsure["uncertainty"]),
        maps=_maps(plan, of), scores=_scores(plan, of), said=_said(plan, of), costs=_costs(plan, of),
        trees=_trees(of(plan.counterfactual)),
        failures=failures, warnings=tuple(dict.fromkeys(text for row in mine for text in row["warnings"])),
        thumbnail=_thumbnail([base, *mine]), parts=tuple(row["part"] for row in mine),
    )  # fmt: skip


_NOTHING: dict[str, Any] = {
    "entropy": None, "mutual_information": None, "uncertainty": (), "maps": (), "scores": (), "said": (),
    "costs": (), "trees": (),
}  # fmt: skip


def _pair(values: list[Any] | None) -> Any:
    return None if values is None else tuple(values)


def _by_label(kind: Any, entries: Any) -> Any:
    """Returns label -> entry; where two entries have the same label, the first one."""
    found: dict[int, Any] = {}
    for entry in entries:
        found.setdefault(entry["label"], kind(**entry))
    return dict(sorted(found.items()))


def _maps(plan: Plan, of: Any) -> dict[tuple[int, str], StoredMap]:
    found: dict[tuple[int, str], StoredMap] = {}
    for name, task in plan.explain.items():
        row = of(task)
        for entry in row["maps"]:
            if entry["explainer"] == name:
                found.setdefault((entry["label"], name), StoredMap(row["part"], MapRow(**entry)))
    return found


def _scores(plan: Plan, of: Any) -> dict[tuple[int, str, str], float | None]:
    found: dict[tuple[int, str, str], float | None] = {}
    for (explainer, metric), task in plan.score.items():
        for entry in of(task)["scores"]:
            if (entry["explainer"], entry["metric"]) == (explainer, metric):
                value = entry["value"]
                found.setdefault((entry["label"], explainer, metric), value if value == value else None)
    return found


def _said(plan: Plan, of: Any) -> dict[tuple[int, str, str], str]:
    found: dict[tuple[int, str, str], str] = {}
    for (explainer, metric), task in plan.score.items():
        for entry in of(task)["said"] or ():
            if (entry["explainer"], entry["metric"]) == (explainer, metric):
                found.setdefault((entry["label"], explainer, metric), entry["text"])
    return found


def _trees(row: dict[str, Any]) -> dict[int, StoredTree]:
    found: dict[int, StoredTree] = {}
    for entry in row["trees"]:
        found.setdefault(entry["label"], StoredTree(row["part"], bool(entry["found"])))
    return dict(sorted(found.items()))


def _costs(plan: Plan, of: Any) -> dict[str, CostRow]:
    found: dict[str, CostRow] = {}
    for name, task in plan.explain.items():
        for entry in of(task)["costs"]:
            if entry["explainer"] == name:
                notes = [NoteRow(**note) for note in entry["notes"] or ()]
                found.setdefault(name, CostRow(**{**entry, "warnings": entry["warnings"] or [], "notes": notes}))
    return found


def _thumbnail(rows: list[dict[str, Any]]) -> tuple[str, ThumbnailRow] | None:
    return next(((row["part"], ThumbnailRow(**row["thumbnail"])) for row in rows if row["thumbnail"]), None)
