"""The first page of a run: how often the network is right, how sure, what it confuses, and where to look first."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from seewhy.runs.query.overview import Bin, ClassAnswer, Confusion, FailureCount, Overview, Step
from seewhy.runs.query.records import ExplainerCost, NoteCount, QueueCount, WarningCount
from seewhy.statistics import Interval
from seewhy.web.library import Opened
from seewhy.web.queries import OverviewQuery

__all__ = ["ClassLine", "Matrix", "OverviewPage", "Pair", "QueueLine", "overview", "queue_lines"]

WORST = 20  # classes and confusions that are named
SIDE = 30  # classes of the matrix that stand side by side


@dataclass(frozen=True, kw_only=True)
class ClassLine:
    """How the network does on a class."""

    name: str
    about: ClassAnswer


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two classes that are confused."""

    true: str
    said: str
    about: Confusion


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """A part of the confusion matrix; the classes with the most errors come first.

    Attributes:
        rows: (class index, name) of what is truly there.
        columns: (class index, name) of what the network says.
        counts: row by row, 0 where it never happened.
        largest: of the errors in the whole matrix.
        row: which part of the rows, from 1.
        column: which part of the columns.
        pages: how many parts there are either way.
        classes: in the whole matrix.
    """

    rows: list[tuple[int, str]]
    columns: list[tuple[int, str]]
    counts: list[list[int]]
    largest: int
    row: int
    column: int
    pages: int
    classes: int


@dataclass(frozen=True, kw_only=True)
class QueueLine:
    """A queue, and how much is in it.

    Attributes:
        name: in addresses.
        kind: "wrong", "elsewhere", "disagree", "interval" or "trust".
        about: the explainer or metric, or "".
        count: labels, and their pictures.
        descending: whether the largest comes first.
    """

    name: str
    kind: str
    about: str
    count: QueueCount
    descending: bool


@dataclass(frozen=True, kw_only=True)
class OverviewPage:
    """The overview of a run.

    Attributes:
        run: the run's key.
        version: grows when there is more to be read.
        exclusive: whether of the classes exactly one is meant.
        detects: whether the labels are boxes of a detector.
        quantity: what the network's numbers are.
        threshold: above which something counts as found.
        pictures: of the run.
        known: whose truth and prediction are known.
        hits: of these, those that the network is right about.
        right: the same as a share.
        mean_precision: mean average precision, where several classes may be there.
        flags: "TP", "FN", "FP", "TN" -> labels.
        bins: the histogram of the confidence.
        tallest: of its bins.
        steps: the reliability diagram.
        calibration_error: what it comes to.
        classes: the worst ones.
        of_classes: how many classes occur.
        confusions: the most frequent ones.
        of_confusions: how many different ones there are.
        matrix: a part of the whole; None where nothing is known of the truth.
        failures: by task.
        warnings: by kind.
        notes: about maps, by explainer and kind.
        costs: of the explainers.
        queues: of labels that are worth a look.
        verdicts: verdict -> pictures with it.
    """

    run: str
    version: int
    exclusive: bool
    detects: bool
    quantity: str
    threshold: float | None
    pictures: int
    known: int
    hits: int
    right: Interval
    mean_precision: float | None
    flags: dict[str, int]
    bins: list[Bin]
    tallest: int
    steps: list[Step]
    calibration_error: float | None
    classes: list[ClassLine]
    of_classes: int
    confusions: list[Pair]
    of_confusions: int
    matrix: Matrix | None
    failures: list[FailureCount]
    warnings: list[WarningCount]
    notes: list[NoteCount]
    costs: list[ExplainerCost]
    queues: list[QueueLine]
    verdicts: dict[str, int]


def overview(opened: Opened, query: OverviewQuery) -> OverviewPage:
    """Returns the page that an address asks for."""
    run, version = opened.run, opened.version
    found: Overview = opened.once("overview", run.overview)
    name = run.class_name
    said = Counter(one for reviews in run.reviews.values() for one in {r.verdict for r in reviews if r.verdict})
    return OverviewPage(
        run=opened.place.key, version=version, exclusive=found.exclusive, detects=run.detects, quantity=run.quantity,
        threshold=run.settings.get("threshold"), pictures=found.pictures, known=found.known, hits=found.hits,
        right=found.right, mean_precision=found.mean_precision, flags=found.flags, bins=list(found.bins),
        tallest=max((one.right + one.wrong + one.unknown for one in found.bins), default=0),
        steps=list(found.steps), calibration_error=found.calibration_error,
        classes=[ClassLine(name=name(one.label), about=one) for one in found.classes[:WORST]],
        of_classes=len(found.classes),
        confusions=[Pair(true=name(o.true), said=name(o.said), about=o) for o in found.mistakes[:WORST]],
        of_confusions=len(found.mistakes), matrix=_matrix(opened, found, query), failures=list(found.failures),
        warnings=opened.once("warnings", run.warnings), notes=opened.once("notes", run.notes),
        costs=opened.once("costs", run.costs), queues=queue_lines(opened), verdicts=dict(said.most_common()),
    )  # fmt: skip


def queue_lines(opened: Opened) -> list[QueueLine]:
    """Returns all queues of a run with what is in them."""
    counts = opened.once("queue counts", opened.run.queue_counts)
    return [
        QueueLine(
            name=name, kind=one.kind, about=one.about, count=counts.get(name, QueueCount(0, 0)),
            descending=one.descending,
        )
        for name, one in opened.run.queues.items()
    ]  # fmt: skip


def _matrix(opened: Opened, found: Overview, query: OverviewQuery) -> Matrix | None:
    if not found.confusions:
        return None
    errors = Counter[int]()
    for one in found.confusions:
        errors.update({one.true: 0, one.said: 0})
        if one.true != one.said or not found.exclusive:
            errors.update({one.true: one.pictures, one.said: one.pictures})
    order = [label for label, _ in sorted(errors.items(), key=lambda pair: (-pair[1], pair[0]))]
    pages = -(-len(order) // SIDE)
    row, column = min(query.rows, pages), min(query.columns, pages)
    counts = {(one.true, one.said): one.pictures for one in found.confusions}
    rows, columns = (order[(at - 1) * SIDE : at * SIDE] for at in (row, column))
    name = opened.run.class_name
    return Matrix(
        rows=[(label, name(label)) for label in rows], columns=[(label, name(label)) for label in columns],
        counts=[[counts.get((true, said), 0) for said in columns] for true in rows],
        largest=max((one.pictures for one in found.mistakes), default=0), row=row, column=column, pages=pages,
        classes=len(order),
    )  # fmt: skip
