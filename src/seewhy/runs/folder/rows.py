"""What a run keeps of a picture: one row, and beside it a pack of bytes with its maps and its thumbnail.

The columns are documented in docs/run-folder.md. A list is empty where there is nothing; a number is null where there
are no data, never 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple, Protocol

import pyarrow as pa

__all__ = [
    "FLAGS",
    "SCHEMA",
    "SELDOM",
    "CostRow",
    "DetectionRow",
    "FailureRow",
    "Findings",
    "LabelRow",
    "MapRow",
    "NoteRow",
    "Row",
    "SaidRow",
    "ScoreRow",
    "ThumbnailRow",
    "TreeRow",
    "UncertaintyRow",
    "VectorRow",
    "table",
    "told",
]


FLAGS = ("TP", "FN", "FP", "TN")
SELDOM = (
    "detections",
    "crowds",
    "difficult",
    "content",
    "said",
    "vectors",
)  # columns that a part has only where some row has an entry


class LabelRow(NamedTuple):
    """A class that was explained, or truly is there.

    Attributes:
        label: class index.
        probability: what the network says.
        truth: whether it is there; None when that is not known.
        flag: "TP", "FN", "FP", "TN", or None without truth.
    """

    label: int
    probability: float
    truth: bool | None
    flag: str | None


class DetectionRow(NamedTuple):
    """A box that a detector found, or a true box that it did not find.

    In a run over a detector, ``label`` in all other lists is the number of one of these.

    Attributes:
        number: from 0, what was found first, the best before the others.
        class_index: class of the box.
        x0: left, in pixels of the original, as are the other three.
        y0: top.
        x1: right.
        y1: bottom.
        overlap: intersection over union with the best true box of its class; None where the truth is not known.
        match: number in ``boxes`` of the true box that it matches, or None.
    """

    number: int
    class_index: int
    x0: float
    y0: float
    x1: float
    y1: float
    overlap: float | None
    match: int | None

    @property
    def box(self) -> tuple[float, float, float, float]:
        """x0, y0, x1, y1 in pixels of the original."""
        return self.x0, self.y0, self.x1, self.y1


class UncertaintyRow(NamedTuple):
    """How sure the network is of a class: Monte-Carlo mean, standard deviation, ends of the 95 % interval."""

    label: int
    mean: float
    std: float
    low: float
    high: float


class MapRow(NamedTuple):
    """The place of a map in the pack, and how it is read.

    Attributes:
        label: class index.
        explainer: its label in run.json.
        offset: of its first byte in the pack.
        size: in bytes.
        encoding: "f4" and "f2": rows of little-endian numbers; "png": 8 bits, 0 is low and 255 is high.
        height: cells.
        width: cells.
        low: the map's smallest value.
        high: the map's largest value.
        top: where a pixel's detail leaves few values far above all others, the value (where the map is for and
            against, its size) from which on the strongest colour is used: `seewhy.draw.scale.white`; else None.
        checksum: of its bytes (CRC-32); None where an earlier version wrote it.
    """

    label: int
    explainer: str
    offset: int
    size: int
    encoding: str
    height: int
    width: int
    low: float
    high: float
    top: float | None = None
    checksum: int | None = None


class NoteRow(NamedTuple):
    """Something that the reader of a map should know; see `seewhy.types.Note`.

    Attributes:
        kind: by which notes of one kind are counted.
        text: what is said, without naming the class.
        label: the class or box that it is about, or None where it is about the whole picture.
    """

    kind: str
    text: str
    label: int | None = None


class CostRow(NamedTuple):
    """What the maps of one explainer cost for this picture: its share of the batch.

    Attributes:
        explainer: its label in run.json.
        forward: images that went forward through the network; also where another explainer had made the pass.
        backward: images that went backward.
        seconds: wall clock, without the passes that another explainer had made.
        layer: the layer that was explained, or None.
        warnings: what the reader of the maps should know, as sentences: written by earlier versions.
        notes: the same as data.
    """

    explainer: str
    forward: float
    backward: float
    seconds: float
    layer: str | None
    warnings: Sequence[str] = ()
    notes: Sequence[NoteRow] = ()

    def sentences(self, name: Callable[[int], str]) -> list[str]:
        """Returns what a reader of the maps should know, as sentences.

        Args:
            name: label -> how the class or box is called.
        """
        own = [
            one.text[:1].upper() + one.text[1:] if one.label is None else f"{name(one.label)}: {one.text}"
            for one in self.notes
        ]
        return [*self.warnings, *own]


class ScoreRow(NamedTuple):
    """The score that a metric gives a map; ``value`` is None where there was nothing to judge."""

    label: int
    explainer: str
    metric: str
    value: float | None


class SaidRow(NamedTuple):
    """One line that a metric says about a map beside its value."""

    label: int
    explainer: str
    metric: str
    text: str


class TreeRow(NamedTuple):
    """A hierarchical occlusion: `EditTree.as_dict` as JSON."""

    label: int
    tree: str


class FailureRow(NamedTuple):
    """What could not be done, and why.

    Attributes:
        task: "read", "predict", "explain", "score", "uncertainty", "counterfactual" or "features".
        explainer: label of the explainer whose map or score it is, or None.
        metric: label of the metric whose score it is, or None.
        label: class index, or None where it concerns all.
        reason: the error's message.
    """

    task: str
    explainer: str | None
    metric: str | None
    label: int | None
    reason: str


class VectorRow(NamedTuple):
    """The place of a vector of features in the pack: little-endian float16 numbers, times ``scale``.

    Attributes:
        label: whose map was the weights of the mean over places; None for the plain mean.
        layer: name of the layer that gave the features.
        offset: of its first byte in the pack.
        size: in bytes.
        scale: the largest absolute value, or 1.
        checksum: of its bytes (CRC-32).
    """

    label: int | None
    layer: str
    offset: int
    size: int
    scale: float
    checksum: int


class ThumbnailRow(NamedTuple):
    """Where the small picture lies in the pack, its format ("png" or "jpeg"), size in pixels and checksum (CRC-32)."""

    offset: int
    size: int
    format: str
    height: int
    width: int
    checksum: int | None = None


@dataclass(kw_only=True)
class Findings:
    """What was found out about one picture, as it grows while the picture is worked on and as it is kept.

    Attributes:
        entropy: in nats, where uncertainty was asked for.
        mutual_information: in nats.
        said: what metrics say of maps beside their values.
    """

    entropy: float | None = None
    mutual_information: float | None = None
    uncertainty: list[UncertaintyRow] = field(default_factory=list)
    costs: list[CostRow] = field(default_factory=list)
    scores: list[ScoreRow] = field(default_factory=list)
    said: list[SaidRow] = field(default_factory=list)
    trees: list[TreeRow] = field(default_factory=list)
    failures: list[FailureRow] = field(default_factory=list)

    def findings(self) -> dict[str, Any]:
        """Returns the findings as a dict: name of the column -> its value."""
        return {one.name: getattr(self, one.name) for one in fields(Findings)}


@dataclass(kw_only=True)
class Row(Findings):
    """What one part knows of one picture; a later part may know more (another explainer).

    Attributes:
        sample: the key, unique in the data.
        position: where it stands in the data.
        name: for people.
        source: path of the original, or None.
        stamp: cheap sign that the picture is the same as before.
        digest: digest of the picture's pixels and annotations as they were read; None when it could not be read.
        content: sign of the bytes of the original's file alone; None where there is no file.
        size: (height, width) of the original in pixels.
        input: (height, width) of the network's input.
        box: x0, y0, x1, y1: which part of the original the input covers, in its pixels.
        truth: classes that are truly there, or None.
        boxes: (label, x0, y0, x1, y1) in pixels of the original.
        crowds: which of the boxes are around many objects, by their place.
        difficult: which of the boxes need not be found, by their place.
        detections: of a detector: what it found, and what it did not find of the truth.
        predicted: the likeliest class.
        probability: the likeliest class's probability.
        thumbnail: in the pack.
        done: names of the tasks that are done, failed ones too; see `seewhy.runs.folder.tasks`.
        failed: names of the tasks in ``done`` that failed.
        written: when, in seconds since 1970 (UTC).
    """

    sample: str
    position: int
    name: str
    source: str | None = None
    stamp: str = ""
    digest: str | None = None
    size: tuple[int, int] | None = None
    input: tuple[int, int] | None = None
    box: tuple[float, float, float, float] | None = None
    truth: tuple[int, ...] | None = None
    boxes: tuple[tuple[int, float, float, float, float], ...] = ()
    crowds: tuple[int, ...] = ()
    difficult: tuple[int, ...] = ()
    predicted: int | None = None
    probability: float | None = None
    thumbnail: ThumbnailRow | None = None
    detections: list[DetectionRow] = field(default_factory=list)
    labels: list[LabelRow] = field(default_factory=list)
    maps: list[MapRow] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    written: float = 0.0
    content: str | None = None
    vectors: list[VectorRow] = field(default_factory=list)


def _record(**columns: pa.DataType) -> pa.DataType:
    return pa.struct([pa.field(name, kind) for name, kind in columns.items()])


_TEXT, _WHOLE, _REAL, _EXACT = pa.string(), pa.int32(), pa.float32(), pa.float64()
_LABEL = {"label": _WHOLE}

SCHEMA = pa.schema(
    [
        pa.field("sample", _TEXT, nullable=False),
        pa.field("position", pa.int64(), nullable=False),
        pa.field("name", _TEXT),
        pa.field("source", _TEXT),
        pa.field("stamp", _TEXT),
        pa.field("digest", _TEXT),
        pa.field("size", pa.list_(_WHOLE)),
        pa.field("input", pa.list_(_WHOLE)),
        pa.field("box", pa.list_(pa.float64())),
        pa.field("truth", pa.list_(_WHOLE)),
        pa.field("boxes", pa.list_(_record(**_LABEL, x0=_REAL, y0=_REAL, x1=_REAL, y1=_REAL))),
        pa.field("predicted", _WHOLE),
        pa.field("probability", _REAL),
        pa.field("entropy", _REAL),
        pa.field("mutual_information", _REAL),
        pa.field(
            "thumbnail",
            _record(
                offset=pa.int64(), size=_WHOLE, format=_TEXT, height=_WHOLE, width=_WHOLE, checksum=pa.int64()
            ),
        ),
        pa.field("labels", pa.list_(_record(**_LABEL, probability=_REAL, truth=pa.bool_(), flag=_TEXT))),
        pa.field("uncertainty", pa.list_(_record(**_LABEL, mean=_REAL, std=_REAL, low=_REAL, high=_REAL))),
        pa.field(
            "maps",
            pa.list_(
                _record(
                    **_LABEL, explainer=_TEXT, offset=pa.int64(), size=_WHOLE, encoding=_TEXT, height=_WHOLE,
                    width=_WHOLE, low=_REAL, high=_REAL, top=_REAL, checksum=pa.int64(),
                )
            ),
        ),
        pa.field(
            "costs",
            pa.list_(
                _record(
                    explainer=_TEXT, forward=_REAL, backward=_REAL, seconds=_REAL, layer=_TEXT,
                    warnings=pa.list_(_TEXT), notes=pa.list_(_record(kind=_TEXT, text=_TEXT, label=_WHOLE)),
                )
            ),
        ),
        pa.field("scores", pa.list_(_record(**_LABEL, explainer=_TEXT, metric=_TEXT, value=pa.float64()))),
        pa.field("trees", pa.list_(_record(**_LABEL, tree=_TEXT))),
        pa.field(
            "failures", pa.list_(_record(task=_TEXT, explainer=_TEXT, metric=_TEXT, label=_WHOLE, reason=_TEXT))
        ),
        pa.field("warnings", pa.list_(_TEXT)),
        pa.field("done", pa.list_(_TEXT)),
        pa.field("failed", pa.list_(_TEXT)),
        pa.field("written", pa.float64()),
        pa.field(
            "detections",
            pa.list_(
                _record(
                    number=_WHOLE, class_index=_WHOLE, x0=_EXACT, y0=_EXACT, x1=_EXACT, y1=_EXACT, overlap=_REAL,
                    match=_WHOLE,
                )
            ),
        ),
        pa.field("crowds", pa.list_(_WHOLE)),
        pa.field("difficult", pa.list_(_WHOLE)),
        pa.field("content", _TEXT),
        pa.field("said", pa.list_(_record(**_LABEL, explainer=_TEXT, metric=_TEXT, text=_TEXT))),
        pa.field(
            "vectors",
            pa.list_(_record(**_LABEL, layer=_TEXT, offset=pa.int64(), size=_WHOLE, scale=_REAL, checksum=pa.int64())),
        ),
    ]
)  # fmt: skip


class _Told(Protocol):
    """What is known of a failure, whether it comes from a row or from an image in work."""

    @property
    def explainer(self) -> str | None: ...
    @property
    def metric(self) -> str | None: ...
    @property
    def label(self) -> int | None: ...
    @property
    def reason(self) -> str: ...


def told(failure: _Told) -> str:
    """Returns one line that says which map or score failed, and why."""
    parts = [failure.explainer, failure.metric, None if failure.label is None else f"class {failure.label}"]
    return ": ".join([*filter(None, [", ".join(filter(None, parts))]), failure.reason])


def table(rows: list[Row]) -> pa.Table:
    """Returns the rows in the columns of the run folder; those that are `SELDOM` only where some row has an entry."""
    made = pa.Table.from_pylist([_plain(row) for row in rows], schema=SCHEMA)
    empty = [name for name in SELDOM if not any(getattr(row, name) for row in rows)]
    return made.drop_columns(empty)


def _plain(row: Row) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for one in fields(row):
        value = getattr(row, one.name)
        if one.name == "boxes":
            value = [dict(zip(("label", "x0", "y0", "x1", "y1"), box, strict=True)) for box in value]
        found[one.name] = _as_columns(value)
    return found


def _as_columns(value: Any) -> Any:
    """Returns records as dictionaries, also those inside of other records."""
    if hasattr(value, "_asdict"):
        return {name: _as_columns(inner) for name, inner in value._asdict().items()}
    return [_as_columns(inner) for inner in value] if isinstance(value, list) else value
