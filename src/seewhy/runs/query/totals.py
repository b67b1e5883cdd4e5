"""Counts and means over a whole run."""

from __future__ import annotations

import math
from typing import Any

from seewhy.errors import UnknownName, nearest
from seewhy.runs.query.filters import FLAGS
from seewhy.runs.query.records import Counts, ExplainerCost, LabelScore, Score
from seewhy.runs.query.snapshot import Moment

__all__ = ["costs", "counts", "label_scores", "scores"]


def counts(now: Moment) -> Counts:
    """How much there is."""
    state = now.state
    pictures, failed, failures = now.fetch("SELECT count(*), count(*) FILTER (failed), sum(failures) FROM pictures")[0]
    maps = " + ".join(f"x{number}::INTEGER" for number in range(len(state.plan.explainers))) or "0"
    labels, trees, mapped = now.fetch(f"SELECT count(*), count(*) FILTER (tree), sum({maps}) FROM labels")[0]
    flags = dict(now.fetch("SELECT flag, count(*) FROM labels GROUP BY flag"))
    return Counts(
        total=(state.settings.get("data") or {}).get("length"), samples=pictures, failed=failed,
        failures=int(failures or 0), labels=labels, maps=int(mapped or 0), trees=trees,
        flags={flag: flags.get(flag, 0) for flag in FLAGS}, parts=len(state.parts) - state.others,
        foreign=state.foreign, unread=state.unread,
    )  # fmt: skip


def scores(now: Moment) -> list[Score]:
    """Every explainer x metric, over all pictures and labels."""
    plan = now.state.plan
    by_label = _by_label(now, range(len(plan.score)))
    each = [f"count(m{n}), favg(m{n}), stddev_samp(m{n})" for n in range(len(plan.score))]
    overall = now.fetch(f"SELECT {', '.join(each)} FROM labels")[0] if each else ()
    empty = dict(now.fetch("SELECT m, count(*) FROM nodata GROUP BY m"))
    found = []
    for number, (explainer, metric) in enumerate(plan.score):
        about = now.state.settings["metrics"][metric]
        means = [mean for _, mean in (of[number] for of in by_label.values()) if mean is not None]
        count, mean, std = overall[3 * number : 3 * number + 3]
        found.append(
            Score(
                explainer=explainer, metric=metric, mean=mean, std=std, count=count,
                macro=math.fsum(means) / len(means) if means else None, no_data=empty.get(number, 0),
                better=about.get("better", "higher"), range=tuple(about.get("range") or (None, None)),
            )
        )  # fmt: skip
    return found


def label_scores(now: Moment, explainer: str | None, metric: str | None) -> list[LabelScore]:
    """The same label by label, of one explainer, one metric, or both."""
    plan = now.state.plan
    for name, known, what in ((explainer, plan.explainers, "explainer"), (metric, plan.metrics, "metric")):
        if name is not None and name not in known:
            raise UnknownName(f"There is no {what} {name!r}. {nearest(name, known)}")
    wanted = {
        number: (e, m)
        for number, (e, m) in enumerate(plan.score)
        if explainer in (None, e) and metric in (None, m)
    }  # fmt: skip
    return [
        LabelScore(explainer=e, metric=m, label=label, mean=means[number][1], count=means[number][0])
        for label, means in _by_label(now, wanted).items()
        for number, (e, m) in wanted.items()
    ]


def _by_label(now: Moment, numbers: Any) -> dict[int, dict[int, tuple[int, float | None]]]:
    """Label -> number of explainer x metric -> count and mean."""
    numbers = list(numbers)
    each = "".join(f", count(m{n}), favg(m{n})" for n in numbers)
    lines = now.fetch(f"SELECT class_index{each} FROM labels GROUP BY class_index ORDER BY class_index")
    return {
        label: {n: (values[2 * at], values[2 * at + 1]) for at, n in enumerate(numbers)} for label, *values in lines
    }


def costs(now: Moment) -> list[ExplainerCost]:
    """What each explainer's maps cost a picture."""
    lines = now.fetch("SELECT e, count(*), favg(forward), favg(backward), favg(seconds) FROM costs GROUP BY e")
    found = {e: tuple(values) for e, *values in lines}
    names = now.state.plan.explainers
    return [ExplainerCost(name, *found.get(e, (0, None, None, None))) for e, name in enumerate(names)]
