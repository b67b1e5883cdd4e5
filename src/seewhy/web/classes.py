"""The scores label by label: one explainer by several metrics, or one metric for several explainers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from seewhy.errors import InvalidInput, UnknownName, nearest
from seewhy.runs.query.run import LabelScore
from seewhy.web.directions import falls
from seewhy.web.library import Opened
from seewhy.web.queries import ClassesQuery

Levels = dict[tuple[int, str], list[tuple[str, float]]]
"""(label, metric) -> what each baseline gets there."""

__all__ = ["Bar", "ClassRow", "ClassesPage", "Column", "classes"]


@dataclass(frozen=True, kw_only=True)
class Column:
    """What stands in a column: a metric or an explainer, and the ends of its bars; ``baseline``: chance itself."""

    name: str
    low: float
    high: float
    better: str
    baseline: bool


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A mean with its place between the ends of the column, 0..1; None where there are no data.

    ``chance``: (baseline, place) of what the baselines get on the same class.
    """

    mean: float | None
    count: int
    place: float | None
    chance: list[tuple[str, float]]


@dataclass(frozen=True, kw_only=True)
class ClassRow:
    """A label with one bar a column."""

    label: int
    name: str
    bars: list[Bar]


@dataclass(frozen=True, kw_only=True)
class ClassesPage:
    """Labels with their scores.

    Attributes:
        run: the run's key.
        version: grows when there is more to be read.
        by: "explainer" or "metric": what is fixed.
        name: of it.
        names: that could be fixed instead.
        columns: of the other kind.
        total: labels that meet the search.
        page: of them, from 1.
        pages: how many there are.
        rows: of this page.
        falls: whether the largest value comes first.
        worst: whether it does so where nobody asks: worst first.
    """

    run: str
    version: int
    by: str
    name: str
    names: list[str]
    columns: list[Column]
    total: int
    page: int
    pages: int
    rows: list[ClassRow]
    falls: bool
    worst: bool


def classes(opened: Opened, query: ClassesQuery) -> ClassesPage:
    """Returns the page that an address asks for.

    Raises:
        UnknownName: an explainer, metric or order that the run does not have.
    """
    run, version = opened.run, opened.version
    fixed, other = (run.explainers, run.metrics) if query.by == "explainer" else (run.metrics, run.explainers)
    name = query.name or (fixed[0] if fixed else "")
    if not fixed or not other:
        raise InvalidInput("This run has no scores: it has no explainer or no metric.")
    if name not in fixed:
        raise UnknownName(f"There is no {query.by} {name!r}. {nearest(name, fixed)}")
    found = opened.once(f"classes:{query.by}:{name}", lambda: run.label_scores(**{query.by: name}))
    baselines = list(opened.once("judged", run.judged).baselines)
    chance = [
        one
        for baseline in baselines
        for one in opened.once(f"classes:explainer:{baseline}", lambda of=baseline: run.label_scores(explainer=of))
    ]
    other = tuple(sorted(other, key=lambda one: one in baselines))
    columns = [_column(opened, query.by, name, one, [*found, *chance], baselines) for one in other]
    levels: Levels = {}
    for one in chance:
        if one.mean is not None:
            levels.setdefault((one.label, one.metric), []).append((one.explainer, one.mean))
    rows = [row for row in _rows(opened, query.by, columns, found, levels) if _has(row, query.text)]
    metric = name if query.by == "metric" else query.sort
    worst = falls(run.settings, query.sort, None, metric if query.sort in other else None)
    down = worst if query.descending is None else query.descending
    rows.sort(key=_order(query, other, down))
    start = (query.page - 1) * query.limit
    return ClassesPage(
        run=opened.place.key, version=version, by=query.by, name=name, names=list(fixed), columns=columns,
        total=len(rows), page=query.page, pages=max(1, -(-len(rows) // query.limit)),
        rows=rows[start : start + query.limit], falls=down, worst=worst,
    )  # fmt: skip


def _column(opened: Opened, by: str, fixed: str, name: str, found: list[LabelScore], baselines: list[str]) -> Column:
    """Its ends: those of the metric, and of values beyond them; where the metric has none those of the values and 0."""
    metric = name if by == "explainer" else fixed
    about = (opened.run.settings.get("metrics") or {}).get(metric, {})
    low, high = about.get("range") or (None, None)
    means = [one.mean for one in found if one.mean is not None and one.metric == metric]
    low = min([0.0 if low is None else low, *means])
    high = max([0.0 if high is None else high, *means])
    return Column(name=name, low=low, high=high if high > low else low + 1.0, better=about.get("better", "higher"),
                  baseline=name in baselines)  # fmt: skip


def _rows(opened: Opened, by: str, columns: list[Column], found: list[LabelScore], levels: Levels) -> list[ClassRow]:
    known: dict[int, dict[str, LabelScore]] = {}
    for one in found:
        known.setdefault(one.label, {})[one.metric if by == "explainer" else one.explainer] = one
    return [
        ClassRow(
            label=label, name=opened.run.class_name(label), bars=[_bar(of.get(c.name), c, levels) for c in columns]
        )
        for label, of in known.items()
    ]


def _bar(score: LabelScore | None, column: Column, levels: Levels) -> Bar:
    if score is None or score.mean is None:
        return Bar(mean=None, count=0, place=None, chance=[])
    chance = [(name, _place(mean, column)) for name, mean in levels.get((score.label, score.metric), [])]
    return Bar(mean=score.mean, count=score.count, place=_place(score.mean, column), chance=chance)


def _place(mean: float, column: Column) -> float:
    return min(1.0, max(0.0, (mean - column.low) / (column.high - column.low)))


def _has(row: ClassRow, text: str) -> bool:
    return not text or text.casefold() in row.name.casefold() or text == str(row.label)


def _order(query: ClassesQuery, other: tuple[str, ...], down: bool) -> Callable[[ClassRow], Any]:
    """Sorts by class number, by name, or by a column; classes without a value come last either way."""
    sign = -1 if down else 1
    if query.sort == "class":
        return lambda row: sign * row.label
    if query.sort == "name":
        return lambda row: ([sign * ord(letter) for letter in row.name.casefold()], row.label)
    if query.sort not in other:
        raise UnknownName(f"There is no order {query.sort!r}. {nearest(query.sort, ['class', 'name', *other])}")
    at = other.index(query.sort)

    def key(row: ClassRow) -> Any:
        mean = row.bars[at].mean
        return (mean is None, 0.0 if mean is None else sign * mean, row.label)

    return key
