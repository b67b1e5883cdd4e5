"""The scores page: what each metric gives each explainer, a weighted score of all, and what may be called best.

Every number is that of `seewhy.statistics`; the page shows it. A metric with a lower and an upper end has a place in
0..1, 1 the better end. The weighted score of a picture is the mean of its places, weighted; a metric without both ends
cannot be part of it, and one that says how concise a map is has no weight unless the address gives it one.

Baselines, which look at nothing, stand apart: what they get is the level of chance, beside every metric.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from seewhy.errors import InvalidInput, UnknownName, nearest
from seewhy.runs.query.run import ExplainerCost, Score
from seewhy.statistics import Best, Difference, Judged
from seewhy.web.library import Opened
from seewhy.web.queries import ScoresQuery

__all__ = ["Cell", "Head", "MetricRow", "ScoresPage", "Verdict", "Weighted", "scores"]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What a metric gives an explainer; every number is None where there are no data for it.

    Attributes:
        mean: over the pictures.
        low: lower end of its 95 % interval.
        high: upper end.
        why: why there is no interval; "" where there is one.
        std: deviation of single pictures.
        pictures: with data.
        count: maps that were judged.
        no_data: maps for which the metric found nothing to judge.
        unit: the mean in 0..1, 1 the better end; None where the metric has no such ends.
        best: whether it may be called the best of the metric.
        beats: explainers that it is really better than.
        baseline: whether it is chance itself.
        above: whether it is really better than every baseline; None where there is none, or no mean to compare.
        decimals: behind the point that the interval, or the number of pictures, lets count.
    """

    explainer: str
    mean: float | None
    low: float | None
    high: float | None
    why: str
    std: float | None
    pictures: int
    count: int
    no_data: int
    unit: float | None
    best: bool
    beats: list[str]
    baseline: bool
    above: bool | None
    decimals: int


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The explainer with the best mean, and whether that is more than chance.

    Attributes:
        explainer: its label; None where nothing may be called best.
        leader: the label of the best mean.
        second: the next one, or None.
        ahead: by how much, on the pictures that both have; None where there is no second.
        low: lower end of the interval of that, adjusted for all pairs; None where it cannot be told.
        high: upper end.
        p: adjusted for all pairs.
        verdict: "real", "may be chance" or "cannot be told"; "" where there is no second.
        why: what stands against a verdict, or against calling it best; "" where nothing does.
        untold: why it cannot be told whether the difference to the second is chance; "" where it can.
    """

    explainer: str | None
    leader: str
    second: str | None
    ahead: float | None
    low: float | None
    high: float | None
    p: float | None
    verdict: str
    why: str
    untold: str = ""


@dataclass(frozen=True, kw_only=True)
class MetricRow:
    """What the scores page shows of one metric.

    Attributes:
        metric: its label.
        better: "higher" or "lower".
        range: lowest and highest value, None where there is no end.
        weight: as asked for.
        usual: the weight that it has where none is asked for.
        share: of all weights; 0 where it cannot be weighted.
        weighable: whether it has two ends.
        cells: one an explainer.
        verdict: which is best; None without data.
    """

    metric: str
    better: str
    range: tuple[float | None, float | None]
    weight: float
    usual: float
    share: float
    weighable: bool
    cells: list[Cell]
    verdict: Verdict | None


@dataclass(frozen=True, kw_only=True)
class Weighted:
    """An explainer's weighted score.

    Attributes:
        explainer: its label.
        score: in 0..1; None where no picture has all weighted metrics.
        low: lower end of its 95 % interval.
        high: upper end.
        pictures: that have all weighted metrics.
        missing: metrics with a weight and without any data.
        baseline: whether it is chance itself.
        decimals: behind the point that count.
    """

    explainer: str
    score: float | None
    low: float | None
    high: float | None
    pictures: int
    missing: list[str]
    baseline: bool
    decimals: int


@dataclass(frozen=True, kw_only=True)
class Head:
    """The head of an explainer's column.

    Attributes:
        explainer: its label.
        number: in the run.
        style: of its lines in all charts: "hue-N", or "chance-N" of a baseline.
        baseline: whether it looks at nothing and shows what chance gives.
        cautions: what is to be known of its maps whatever the numbers say.
    """

    explainer: str
    number: int
    style: str
    baseline: bool
    cautions: list[str]


@dataclass(frozen=True, kw_only=True)
class ScoresPage:
    """All scores of a run.

    Attributes:
        explainers: their labels in the order that was asked for, baselines last.
        heads: the same with what is to be known of each.
        baselines: explainers that look at nothing and show what chance gives.
        sorts: orders that can be asked for: (value, words).
        how: what each explainer and metric was made with, a line each.
    """

    run: str
    version: int
    explainers: list[str]
    heads: list[Head]
    baselines: list[str]
    sorts: list[tuple[str, str]]
    metrics: list[MetricRow]
    weighted: list[Weighted]
    best: Verdict | None
    costs: list[ExplainerCost]
    how: list[str]


def scores(opened: Opened, query: ScoresQuery) -> ScoresPage:
    """Returns the page that an address asks for.

    Raises:
        InvalidInput: weights that are no numbers, are negative, or are not one a metric.
        UnknownName: an order that there is not.
    """
    run, version = opened.run, opened.version
    table: Judged = opened.once("judged", run.judged)
    known = {(one.explainer, one.metric): one for one in opened.once("scores", run.scores)}
    usual = [0.0 if run.concise(metric) else 1.0 for metric in run.metrics]
    weights = _weights(query.weights, usual)
    rows = [_row(table, known, number, weights, usual) for number in range(len(run.metrics))]
    whole = _whole(table, [row.share for row in rows])
    weighted = [_weighted(rows, whole, table, number) for number in range(len(run.explainers))]
    order = _order(query.sort, table, rows, weighted)
    heads = _heads(opened, table)
    return ScoresPage(
        run=opened.place.key, version=version, explainers=[run.explainers[at] for at in order],
        heads=[heads[at] for at in order], baselines=list(table.baselines), sorts=_sorts(rows),
        metrics=[replace(row, cells=[row.cells[at] for at in order]) for row in rows],
        weighted=[weighted[at] for at in order],
        best=None if whole is None else _verdict(whole.best(whole.metrics[0])), costs=opened.once("costs", run.costs),
        how=_how(run.settings),
    )  # fmt: skip


def _sorts(rows: list[MetricRow]) -> list[tuple[str, str]]:
    named = [("", "Order of the run"), ("name", "Name"), ("weighted", "Weighted score, best first")]
    return [*named, *((f"metric:{row.metric}", f"{row.metric}, best first") for row in rows)]


def _order(sort: str, table: Judged, rows: list[MetricRow], weighted: list[Weighted]) -> list[int]:
    """Returns the numbers of the explainers as they are shown: baselines last, and what has no data after what has."""
    names = table.explainers
    if sort not in (known := [value for value, _ in _sorts(rows)]):
        raise UnknownName(f"There is no order {sort!r}. {nearest(sort, known)}")
    values: list[float | None] = [0.0] * len(names)
    if sort == "weighted":
        values = [None if one.score is None else -one.score for one in weighted]
    elif sort.startswith("metric:"):
        row = next(row for row in rows if f"metric:{row.metric}" == sort)
        sign = -1 if row.better == "higher" else 1
        values = [None if cell.mean is None else sign * cell.mean for cell in row.cells]

    def key(at: int) -> tuple[bool, bool, float, str, int]:
        value = values[at]
        return names[at] in table.baselines, value is None, value or 0.0, names[at] if sort == "name" else "", at

    return sorted(range(len(names)), key=key)


STYLES = 10  # that can be told apart
STANDING = ("same for every picture", "equal weights")  # kinds of notes that are about a method on a network


def _heads(opened: Opened, table: Judged) -> list[Head]:
    """Every explainer with what its class says of all of its maps, and what was noted on most pictures."""
    run, pictures = opened.run, opened.counts().samples
    noted = [one for one in opened.once("notes", run.notes) if one.kind in STANDING and 2 * one.pictures > pictures]
    found: list[Head] = []
    for number, name in enumerate(run.explainers):
        about, baseline = run.settings["explainers"][name], name in table.baselines
        own = [str(about["caution"])] if about.get("caution") else []
        if about.get("class_agnostic") and not baseline:
            own.append("The same map for every class.")
        own += [
            f"{one.kind[:1].upper()}{one.kind[1:]}: noted on {one.pictures} of {pictures} pictures."
            for one in noted if one.explainer == name
        ]  # fmt: skip
        alike = sum(head.baseline == baseline for head in found)
        style = f"chance-{alike % 2}" if baseline else f"hue-{alike % STYLES}"
        found.append(Head(explainer=name, number=number, style=style, baseline=baseline, cautions=own))
    return found


def _how(settings: Mapping[str, Any]) -> list[str]:
    """Activation and threshold, and all parameters of each explainer and metric."""
    lines = [f"activation {settings.get('activation')}, threshold {settings.get('threshold')}"]
    for kind in ("explainers", "metrics"):
        for label, about in (settings.get(kind) or {}).items():
            values = ", ".join(f"{name}={value!r}" for name, value in (about.get("parameters") or {}).items())
            lines.append(f"{label}: {about.get('class')}({values})")
            if about.get("published"):
                lines.append(f"the authors' program of {label}: {about['published']}")
    return lines


def _weights(text: str, usual: list[float]) -> list[float]:
    if not text:
        return usual
    try:
        found = [float(one) for one in text.split(",")]
    except ValueError as error:
        raise InvalidInput(f"weights must be numbers separated by commas, got {text!r}.") from error
    if len(found) != len(usual):
        raise InvalidInput(f"weights must be one a metric, {len(usual)}, got {len(found)}.")
    if not all(0 <= one <= 1e6 for one in found):
        raise InvalidInput(f"weights must be from 0 to 1000000, got {text!r}.")
    return found


def _weighable(table: Judged, number: int) -> bool:
    low, high = table.range_of(number)
    return bool(table.explainers) and math.isfinite(low) and math.isfinite(high) and high > low


def _row(
    table: Judged, known: dict[tuple[str, str], Score], number: int, weights: list[float], usual: list[float]
) -> MetricRow:
    metric, (low, high) = table.metrics[number], table.range_of(number)
    total = sum(weight for at, weight in enumerate(weights) if _weighable(table, at))
    best, weighable = table.best(metric), _weighable(table, number)
    return MetricRow(
        metric=metric, better=table.better[number], weight=weights[number], usual=usual[number], weighable=weighable,
        range=(low if math.isfinite(low) else None, high if math.isfinite(high) else None),
        share=weights[number] / total if weighable and total > 0 else 0.0, verdict=_verdict(best),
        cells=[_cell(known[name, metric], table, number, best) for name in table.explainers],
    )  # fmt: skip


def _cell(score: Score, table: Judged, number: int, best: Best) -> Cell:
    alone, name, metric = best.against is None, score.explainer, score.metric
    chance = [m.explainer for m in table.means if m.metric == metric and m.n and m.explainer in table.baselines]
    beats = table.beaten(name, metric)
    known = score.mean is not None and bool(chance) and name not in table.baselines
    unit = None if score.mean is None or not _weighable(table, number) else float(table.place(number, score.mean))
    return Cell(
        explainer=name, mean=score.mean, low=score.low, high=score.high, why=score.why, std=score.std,
        pictures=score.pictures, count=score.count, no_data=score.no_data, beats=beats, unit=unit,
        best=name == best.explainer and not alone, baseline=name in table.baselines,
        above=set(chance) <= set(beats) if known else None, decimals=_decimals(score.mean, score.low, score.high),
    )  # fmt: skip


def _decimals(mean: float | None, low: float | None, high: float | None) -> int:
    """So many that two digits of the interval's half count; without an interval so that three of the mean do."""
    size = abs(mean or 0.0) if low is None or high is None else (high - low) / 2
    digits = 3 if low is None or high is None else 2
    return 2 if size <= 0 else min(12, max(0, digits - 1 - math.floor(math.log10(size))))


def _verdict(best: Best) -> Verdict | None:
    if best.leader is None:
        return None
    one = best.against
    if one is None:
        return Verdict(
            explainer=best.explainer, leader=best.leader, second=None, ahead=None, low=None, high=None, p=None,
            verdict="", why=best.why,
        )  # fmt: skip
    ahead, low, high = _ahead(one, best.leader)
    return Verdict(
        explainer=best.explainer, leader=best.leader, second=one.worse if one.better == best.leader else one.better,
        ahead=ahead, low=low, high=high, p=_number(one.p), verdict=one.verdict, why=best.why or one.why,
        untold=one.why,
    )  # fmt: skip


def _ahead(one: Difference, leader: str) -> tuple[float | None, float | None, float | None]:
    """Returns the difference as the leader's; on the pictures that both have, the other may be ahead."""
    if one.better == leader:
        return one.difference, _number(one.low), _number(one.high)
    return -one.difference, _number(-one.high), _number(-one.low)


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _whole(table: Judged, shares: list[float]) -> Judged | None:
    return table.weighted(shares) if sum(shares) > 0 and table.explainers else None


def _weighted(rows: list[MetricRow], whole: Judged | None, table: Judged, number: int) -> Weighted:
    name = table.explainers[number]
    missing = [row.metric for row in rows if row.share > 0 and row.cells[number].mean is None]
    one = None if whole is None else whole.means[number]
    score, low, high = (None, None, None) if one is None else map(_number, (one.mean, one.low, one.high))
    return Weighted(
        explainer=name, score=score, low=low, high=high, pictures=0 if one is None else one.n, missing=missing,
        baseline=name in table.baselines, decimals=_decimals(score, low, high),
    )  # fmt: skip
