"""What a run says about the network, map by map aside: how often it is right, and what it confuses.

Where of the classes exactly one is meant, a picture is right where the likeliest class is truly there. Where several
may be there at once, and of detectors, each label is a hit (TP), a miss (FN) or a mistake (FP), and a picture is right
where there is neither a miss nor a mistake.

    calibration error    sum over bins of (pictures in the bin / all) |mean confidence - share of right ones|
    average precision    sum over hits of precision / (hits + misses); of detectors the precision at a hit is the
                         highest from there on. Labels below the run's threshold are not in the run folder, so that
                         the true value can only be higher.

Source: Naeini, Cooper and Hauskrecht, "Obtaining Well Calibrated Probabilities Using Bayesian Binning", 2015;
Everingham et al., "The Pascal Visual Object Classes Challenge: A Retrospective", 2015 (average precision).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from seewhy.runs.query.choosing import Plan
from seewhy.runs.query.snapshot import Moment
from seewhy.statistics import Interval, interval

__all__ = ["Bin", "ClassAnswer", "Confusion", "FailureCount", "Overview", "Step", "overview"]

BINS = 20  # of the histogram
STEPS = 10  # of the reliability diagram


class Bin(NamedTuple):
    """Answers of one range of confidence: [low, high), the last one with its upper end.

    ``unknown``: those of which the truth is not known.
    """

    low: float
    high: float
    right: int
    wrong: int
    unknown: int


class Step(NamedTuple):
    """Answers of one range of confidence, whose truth is known: their mean confidence, and how many are right."""

    low: float
    high: float
    answers: int
    confidence: float
    right: Interval


class Confusion(NamedTuple):
    """How many pictures truly have one class while the network says another; the same class: where it is right.

    Where several classes may be there at once: where it misses the one and is mistaken about the other.
    """

    true: int
    said: int
    pictures: int


class FailureCount(NamedTuple):
    """How many failures of a task there are, and in how many pictures."""

    task: str
    explainer: str | None
    metric: str | None
    pictures: int
    failures: int


@dataclass(frozen=True, kw_only=True)
class ClassAnswer:
    """How the network does on a class.

    Attributes:
        label: class index.
        there: pictures that have it (of several classes at once: labels, of detectors: boxes).
        right: of these, how many it is right about, as a share with its interval.
        missed: the others.
        mistaken: how often it says this class and it is not there.
        precision: average precision, where several classes may be there; else None.
    """

    label: int
    there: int
    right: Interval
    missed: int
    mistaken: int
    precision: float | None


@dataclass(frozen=True, kw_only=True)
class Overview:
    """A whole run.

    Attributes:
        exclusive: whether of the classes exactly one is meant.
        pictures: of the run.
        known: of these, those whose truth and prediction are known.
        right: of these, how many the network is right about, as a share with its interval.
        hits: of the pictures with a known truth those that it is right about.
        mean_precision: the mean of the classes' average precision; None where exactly one class is meant.
        flags: "TP", "FN", "FP", "TN" -> labels.
        bins: a histogram of the confidence; () where nothing is predicted.
        steps: the reliability diagram; () where the numbers are no probabilities or the truth is not known.
        calibration_error: what it comes to, or None.
        classes: those that are truly there or were said, the worst first.
        confusions: of all pairs that occur, the most frequent first.
        failures: by task, the most frequent first.
    """

    exclusive: bool
    pictures: int
    known: int
    right: Interval
    hits: int
    mean_precision: float | None
    flags: dict[str, int]
    bins: tuple[Bin, ...]
    steps: tuple[Step, ...]
    calibration_error: float | None
    classes: tuple[ClassAnswer, ...]
    confusions: tuple[Confusion, ...]
    failures: tuple[FailureCount, ...]

    @property
    def mistakes(self) -> tuple[Confusion, ...]:
        """The confusions of different classes; of several classes at once all."""
        return tuple(one for one in self.confusions if one.true != one.said or not self.exclusive)


def overview(now: Moment, flags: dict[str, int]) -> Overview:
    """Looks at all answers.

    Args:
        now: a moment of the run.
        flags: how many labels have each.
    """
    plan, quantity = now.state.plan, now.state.settings.get("quantity", "probability")
    pictures, known, hits = now.fetch('SELECT count(*), count("right"), count(*) FILTER ("right") FROM pictures')[0]
    classes = _single(now) if plan.exclusive else _several(now)
    sure = [one.precision for one in classes if one.precision is not None]
    steps = _steps(now, plan) if quantity == "probability" else ()
    return Overview(
        exclusive=plan.exclusive, pictures=pictures, known=known, right=_share(hits, known), hits=hits,
        mean_precision=math.fsum(sure) / len(sure) if sure else None, flags=flags,
        bins=_bins(now, plan, quantity), steps=steps, calibration_error=_error(steps),
        classes=tuple(sorted(classes, key=_worst)), confusions=_confusions(now, plan), failures=_failures(now),
    )  # fmt: skip


def _share(hits: int, n: int) -> Interval:
    return interval(np.repeat([1.0, 0.0], [hits, n - hits]), ends=(0.0, 1.0))


def _worst(one: ClassAnswer) -> tuple[bool, float, int, int]:
    """Classes that occur too seldom to tell come after the others, and those that are nowhere truly there last."""
    share = one.right.mean if one.precision is None else one.precision
    few = math.isnan(one.right.low)
    return few, math.inf if math.isnan(share) else share, -one.missed - one.mistaken, one.label


# ------------------------------------------------------------------------------------------------------- confidence


def _answers(plan: Plan) -> str:
    """The network's answers: how sure it is (p), and whether it is right (r)."""
    if plan.exclusive:
        return 'SELECT probability::DOUBLE AS p, "right" AS r FROM pictures WHERE probability IS NOT NULL'
    return "SELECT probability::DOUBLE AS p, flag = 'TP' AS r FROM labels WHERE flag IS NULL OR flag IN ('TP', 'FP')"


def _bins(now: Moment, plan: Plan, quantity: str) -> tuple[Bin, ...]:
    answers = _answers(plan)
    low, high = 0.0, 1.0
    if quantity != "probability":
        ends = now.fetch(f"SELECT min(p), max(p) FROM ({answers}) WHERE isfinite(p)")[0]
        if ends[0] is None:
            return ()
        low, high = ends[0], ends[1] if ends[1] > ends[0] else ends[0] + 1
    lines = now.fetch(
        f"SELECT least(greatest(floor((p - ?) / ?), 0), ?)::INTEGER AS b, count(*) FILTER (r), "
        f"count(*) FILTER (NOT r), count(*) FILTER (r IS NULL) FROM ({answers}) WHERE isfinite(p) GROUP BY b",
        [low, (high - low) / BINS, BINS - 1],
    )
    found = {b: counts for b, *counts in lines}
    edges = np.linspace(low, high, BINS + 1).tolist()
    made = [Bin(edges[b], edges[b + 1], *found.get(b, (0, 0, 0))) for b in range(BINS)]
    return tuple(made) if lines else ()


def _steps(now: Moment, plan: Plan) -> tuple[Step, ...]:
    lines = now.fetch(
        f"SELECT least(greatest(floor(p * {STEPS}), 0), {STEPS - 1})::INTEGER AS b, count(*), favg(p), "
        f"count(*) FILTER (r) FROM ({_answers(plan)}) WHERE isfinite(p) AND r IS NOT NULL GROUP BY b ORDER BY b"
    )
    return tuple(Step(b / STEPS, (b + 1) / STEPS, n, mean, _share(hits, n)) for b, n, mean, hits in lines)


def _error(steps: Sequence[Step]) -> float | None:
    total = sum(one.answers for one in steps)
    return math.fsum(one.answers / total * abs(one.confidence - one.right.mean) for one in steps) if total else None


# ---------------------------------------------------------------------------------------------------------- classes


def _single(now: Moment) -> list[ClassAnswer]:
    there = now.fetch(
        'SELECT c, count(*), count(*) FILTER ("right") FROM (SELECT unnest(list_distinct(truth)) AS c, "right" '
        'FROM pictures WHERE "right" IS NOT NULL) GROUP BY c'
    )
    mistaken = dict(now.fetch('SELECT predicted, count(*) FROM pictures WHERE NOT "right" GROUP BY predicted'))
    found = {c: (n, hits) for c, n, hits in there}
    return [_answer(label, *found.get(label, (0, 0)), mistaken.get(label, 0), None) for label in {*found, *mistaken}]


def _answer(label: int, there: int, hits: int, mistaken: int, precision: float | None) -> ClassAnswer:
    return ClassAnswer(
        label=label, there=there, right=_share(hits, there), missed=there - hits, mistaken=mistaken,
        precision=precision,
    )  # fmt: skip


def _several(now: Moment) -> list[ClassAnswer]:
    detects = bool(now.state.settings.get("detection"))
    counts = now.fetch(
        "SELECT class_index, count(*) FILTER (flag = 'TP'), count(*) FILTER (flag = 'FN'), "
        "count(*) FILTER (flag = 'FP') FROM labels WHERE flag IN ('TP', 'FN', 'FP') GROUP BY class_index"
    )
    lines = now.cursor.execute(
        "SELECT class_index AS c, probability AS p, flag = 'TP' AS hit FROM labels WHERE flag IN ('TP', 'FP') "
        "ORDER BY c, p DESC"
    ).fetchnumpy()
    starts = dict(zip(*np.unique(np.asarray(lines["c"]), return_index=True), strict=True))
    found = []
    for label, hits, missed, mistaken in counts:
        first, many = int(starts.get(label, 0)), hits + mistaken
        own = slice(first, first + many)
        precise = None
        if hits + missed:
            precise = average_precision(
                np.asarray(lines["p"][own]), np.asarray(lines["hit"][own], bool), hits + missed, highest=detects
            )
        found.append(_answer(label, hits + missed, hits, mistaken, precise))
    return found


def average_precision(
    scores: NDArray[Any], hits: NDArray[np.bool_], there: int, *, highest: bool
) -> float:  # fmt: skip
    """The area below precision over recall.

    Args:
        scores: (n,) from high to low; equal ones count at once.
        hits: (n,) which of them are right.
        there: how many there truly are.
        highest: whether the precision at a recall is the highest from there on, as detection has it.
    """
    if not len(scores):
        return 0.0
    last = np.flatnonzero(np.append(scores[1:] != scores[:-1], True))
    found = np.cumsum(hits)[last]
    precision = found / (last + 1)
    if highest:
        precision = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(found, prepend=0) * precision).sum() / there)


def _confusions(now: Moment, plan: Plan) -> tuple[Confusion, ...]:
    if plan.exclusive:
        pairs = (
            'SELECT unnest(list_distinct(truth)) AS t, predicted AS p, "right" AS r FROM pictures '
            'WHERE "right" IS NOT NULL'
        )
        lines = f"SELECT t, p, count(*) AS n FROM ({pairs}) WHERE NOT r OR t = p GROUP BY t, p"
    else:
        of = "SELECT DISTINCT s, class_index AS {} FROM labels WHERE flag = '{}'"
        pairs = f"({of.format('t', 'FN')}) JOIN ({of.format('p', 'FP')}) USING (s)"
        lines = f"SELECT t, p, count(*) AS n FROM {pairs} GROUP BY t, p"
    return tuple(Confusion(*line) for line in now.fetch(f"{lines} ORDER BY n DESC, t, p"))


def _failures(now: Moment) -> tuple[FailureCount, ...]:
    lines: Iterable[Any] = now.fetch(
        "SELECT task, explainer, metric, count(DISTINCT s) AS p, count(*) FROM failures "
        "GROUP BY task, explainer, metric ORDER BY p DESC, task, explainer, metric"
    )
    return tuple(FailureCount(*line) for line in lines)
