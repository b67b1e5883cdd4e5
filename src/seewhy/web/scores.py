"""The scores page: what each metric gives each explainer, a weighted score of all, and how sure the best is.

A metric with a lower and an upper end is brought to 0..1, 1 the better end. The weighted score of an explainer is the
mean of these over the metrics, weighted; a metric without both ends cannot be part of it. Intervals are mean +- 1.96
std / sqrt(count), the normal approximation, of the values of single maps, taken as independent of each other. The
weighted score's deviation takes the metrics as independent, too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

from seewhy.errors import InvalidInput
from seewhy.runs.query.run import ExplainerCost, Score
from seewhy.web.library import Opened
from seewhy.web.queries import ScoresQuery

__all__ = ["Best", "Cell", "MetricRow", "ScoresPage", "Weighted", "scores"]

_Z = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What a metric gives an explainer; every number is None where there are no data for it.

    Attributes:
        mean: over all maps.
        low: lower end of its 95 % interval.
        high: upper end.
        std: deviation of single maps.
        count: maps that were judged.
        no_data: maps for which the metric found nothing to judge.
        unit: the mean in 0..1, 1 the better end; None where the metric has no such ends.
        best: whether it is the best of the metric.
    """

    explainer: str
    mean: float | None
    low: float | None
    high: float | None
    std: float | None
    count: int
    no_data: int
    unit: float | None
    best: bool


@dataclass(frozen=True, kw_only=True)
class MetricRow:
    """A metric.

    Attributes:
        metric: its label.
        better: "higher" or "lower".
        range: lowest and highest value, None where there is no end.
        weight: as asked for.
        share: of all weights; 0 where it cannot be weighted.
        weighable: whether it has two ends.
        cells: one an explainer.
    """

    metric: str
    better: str
    range: tuple[float | None, float | None]
    weight: float
    share: float
    weighable: bool
    cells: list[Cell]


@dataclass(frozen=True, kw_only=True)
class Weighted:
    """An explainer's weighted score.

    Attributes:
        explainer: its label.
        score: in 0..1; None where a weighted metric has no data for it.
        error: standard error of it.
        missing: metrics with a weight and without data.
    """

    explainer: str
    score: float | None
    error: float | None
    missing: list[str]


@dataclass(frozen=True, kw_only=True)
class Best:
    """The explainer with the highest weighted score.

    Attributes:
        explainer: its label.
        second: the next one, or None.
        ahead: by how much.
        sure: probability that it is truly ahead of the second, in the normal approximation; None where unknown.
    """

    explainer: str
    second: str | None
    ahead: float | None
    sure: float | None


@dataclass(frozen=True, kw_only=True)
class ScoresPage:
    """All scores of a run."""

    run: str
    version: int
    explainers: list[str]
    metrics: list[MetricRow]
    weighted: list[Weighted]
    best: Best | None
    costs: list[ExplainerCost]


def scores(opened: Opened, query: ScoresQuery) -> ScoresPage:
    """The page that an address asks for.

    Raises:
        InvalidInput: weights that are no numbers, are negative, or are not one a metric.
    """
    run, version = opened.run, opened.version
    known = {(one.explainer, one.metric): one for one in opened.once("scores", run.scores)}
    weights = _weights(query.weights, run.metrics)
    total = sum(w for m, w in zip(run.metrics, weights, strict=True) if _weighable(known, run.explainers, m))
    rows = [
        _row(known, run.explainers, metric, weight, total) for metric, weight in zip(run.metrics, weights, strict=True)
    ]
    weighted = [_weighted(rows, number, name) for number, name in enumerate(run.explainers)]
    return ScoresPage(
        run=opened.place.key, version=version, explainers=list(run.explainers), metrics=rows, weighted=weighted,
        best=_best(weighted), costs=opened.once("costs", run.costs),
    )  # fmt: skip


def _weights(text: str, metrics: tuple[str, ...]) -> list[float]:
    if not text:
        return [1.0] * len(metrics)
    try:
        found = [float(one) for one in text.split(",")]
    except ValueError as error:
        raise InvalidInput(f"weights must be numbers separated by commas, got {text!r}.") from error
    if len(found) != len(metrics):
        raise InvalidInput(f"weights must be one a metric, {len(metrics)}, got {len(found)}.")
    if not all(0 <= one <= 1e6 for one in found):
        raise InvalidInput(f"weights must be from 0 to 1000000, got {text!r}.")
    return found


def _weighable(known: dict[tuple[str, str], Score], explainers: tuple[str, ...], metric: str) -> bool:
    return bool(explainers) and None not in known[explainers[0], metric].range


def _row(
    known: dict[tuple[str, str], Score], explainers: tuple[str, ...], metric: str, weight: float, total: float
) -> MetricRow:
    found = [known[name, metric] for name in explainers]
    first, weighable = found[0], _weighable(known, explainers, metric)
    means = [one.mean for one in found if one.mean is not None]
    top = (max(means) if first.better == "higher" else min(means)) if len(means) > 1 else None
    return MetricRow(
        metric=metric, better=first.better, range=first.range, weight=weight, weighable=weighable,
        share=weight / total if weighable and total > 0 else 0.0, cells=[_cell(one, top) for one in found],
    )  # fmt: skip


def _interval(score: Score, error: float | None) -> tuple[float | None, float | None]:
    """The interval, which ends where the metric does."""
    if score.mean is None or error is None:
        return None, None
    low, high = score.mean - _Z * error, score.mean + _Z * error
    least, most = score.range
    return low if least is None else max(low, least), high if most is None else min(high, most)


def _cell(score: Score, top: float | None) -> Cell:
    error = _error(score.std, score.count)
    ends = _interval(score, error)
    return Cell(
        explainer=score.explainer, mean=score.mean, low=ends[0], high=ends[1], std=score.std, count=score.count,
        no_data=score.no_data, unit=_unit(score), best=score.mean is not None and score.mean == top,
    )  # fmt: skip


def _error(std: float | None, count: int) -> float | None:
    return None if std is None or count < 2 else std / math.sqrt(count)


def _unit(score: Score) -> float | None:
    low, high = score.range
    if score.mean is None or low is None or high is None or not high > low:
        return None
    place = min(1.0, max(0.0, (score.mean - low) / (high - low)))
    return place if score.better == "higher" else 1 - place


def _weighted(rows: list[MetricRow], number: int, name: str) -> Weighted:
    parts = [(row, row.cells[number]) for row in rows if row.share > 0]
    missing = [row.metric for row, cell in parts if cell.unit is None]
    if missing or not parts:
        return Weighted(explainer=name, score=None, error=None, missing=missing)
    variances = [_variance(row, cell) for row, cell in parts]
    known = [one for one in variances if one is not None]
    return Weighted(
        explainer=name, score=math.fsum(row.share * (cell.unit or 0.0) for row, cell in parts), missing=[],
        error=math.sqrt(math.fsum(known)) if len(known) == len(parts) else None,
    )  # fmt: skip


def _variance(row: MetricRow, cell: Cell) -> float | None:
    error = _error(cell.std, cell.count)
    low, high = row.range
    return None if error is None or low is None or high is None else (row.share * error / (high - low)) ** 2


def _best(weighted: list[Weighted]) -> Best | None:
    ranked = sorted((one for one in weighted if one.score is not None), key=lambda one: -(one.score or 0.0))
    if not ranked:
        return None
    if len(ranked) == 1:
        return Best(explainer=ranked[0].explainer, second=None, ahead=None, sure=None)
    first, second = ranked[:2]
    ahead = (first.score or 0.0) - (second.score or 0.0)
    return Best(explainer=first.explainer, second=second.explainer, ahead=ahead, sure=_sure(ahead, first, second))


def _sure(ahead: float, first: Weighted, second: Weighted) -> float | None:
    if first.error is None or second.error is None:
        return None
    spread = math.hypot(first.error, second.error)
    return NormalDist().cdf(ahead / spread) if spread > 0 else (1.0 if ahead > 0 else 0.5)
