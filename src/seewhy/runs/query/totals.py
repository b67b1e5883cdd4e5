"""Counts and means over a whole run."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seewhy.errors import UnknownName, nearest
from seewhy.runs.folder.rows import FLAGS
from seewhy.runs.query.judged import judged
from seewhy.runs.query.queues import queues
from seewhy.runs.query.records import Counts, ExplainerCost, LabelScore, NoteCount, QueueCount, Score, WarningCount
from seewhy.runs.query.snapshot import Moment

__all__ = ["costs", "counts", "label_counts", "label_scores", "notes", "queue_counts", "scores", "warnings"]


def counts(now: Moment) -> Counts:
    """Counts the pictures, labels, maps and failures of a run."""
    state = now.state
    pictures, failed, failures = now.fetch("SELECT count(*), count(*) FILTER (failed), sum(failures) FROM pictures")[0]
    maps = " + ".join(f"x{number}::INTEGER" for number in range(len(state.plan.explainers))) or "0"
    labels, trees, mapped = now.fetch(f"SELECT count(*), count(*) FILTER (tree), sum({maps}) FROM labels")[0]
    flags = dict(now.fetch("SELECT flag, count(*) FROM labels GROUP BY flag"))
    return Counts(
        total=(state.settings.get("data") or {}).get("length"), samples=pictures, failed=failed,
        failures=int(failures or 0), labels=labels, maps=int(mapped or 0), trees=trees,
        flags={flag: flags.get(flag, 0) for flag in FLAGS}, parts=len(state.parts) - state.foreign,
        foreign=state.foreign, unread=len(state.damaged),
    )  # fmt: skip


def scores(now: Moment) -> list[Score]:
    """Returns the mean score of each explainer by each metric; a picture's value is the mean over its labels."""
    plan = now.state.plan
    by_label, table = _by_label(now, range(len(plan.score))), judged(now)
    overall = {(one.explainer, one.metric): one for one in table.means}
    stds = _deviations(table.values)
    empty = dict(now.fetch("SELECT m, count(*) FROM nodata GROUP BY m"))
    found = []
    for number, (explainer, metric) in enumerate(plan.score):
        about = now.state.settings["metrics"][metric]
        means = [mean for _, mean in (of[number] for of in by_label.values()) if mean is not None]
        one = overall[explainer, metric]
        found.append(
            Score(
                explainer=explainer, metric=metric, mean=_known(one.mean), low=_known(one.low), high=_known(one.high),
                why=one.why, std=stds[number], pictures=one.n, count=sum(of[number][0] for of in by_label.values()),
                macro=math.fsum(means) / len(means) if means else None, no_data=empty.get(number, 0),
                better=about.get("better", "higher"), range=tuple(about.get("range") or (None, None)),
            )
        )  # fmt: skip
    return found


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _deviations(values: NDArray[np.float64]) -> list[float | None]:
    """(explainers, metrics, pictures) -> one for each explainer x metric."""
    flat = [row[~np.isnan(row)] for of_metrics in values for row in of_metrics]
    return [float(row.std(ddof=1)) if len(row) > 1 else None for row in flat]


def label_scores(now: Moment, explainer: str | None, metric: str | None) -> list[LabelScore]:
    """Returns the same label by label, of one explainer, one metric, or both."""
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
    """Returns what each explainer's maps cost for a picture, on average."""
    lines = now.fetch("SELECT e, count(*), favg(forward), favg(backward), favg(seconds) FROM costs GROUP BY e")
    found = {e: tuple(values) for e, *values in lines}
    names = now.state.plan.explainers
    return [ExplainerCost(name, *found.get(e, (0, None, None, None))) for e, name in enumerate(names)]


def label_counts(now: Moment) -> dict[int, int]:
    """Returns class index -> number of pictures with a label of this class."""
    counts = "SELECT class_index, count(DISTINCT s) FROM labels GROUP BY class_index ORDER BY class_index"
    return dict(now.fetch(counts))


def queue_counts(now: Moment) -> dict[str, QueueCount]:
    """Returns for each queue, by its name, the numbers of its labels and pictures."""
    each = queues(now.state.plan)
    asked = "SELECT count(*), count(DISTINCT s) FROM labels WHERE "
    limits = {name: [now.known(queue.limit)] if queue.limit else [] for name, queue in each.items()}
    return {name: QueueCount(*now.fetch(asked + queue.where, limits[name])[0]) for name, queue in each.items()}


def notes(now: Moment) -> list[NoteCount]:
    """Returns how many pictures have notes, by explainer and kind, most frequent first."""
    lines = now.fetch(
        "SELECT e, kind, count(DISTINCT s) AS p, count(*) FROM notes GROUP BY e, kind ORDER BY p DESC, e, kind"
    )
    return [NoteCount(now.state.plan.explainers[e], *values) for e, *values in lines]


def warnings(now: Moment) -> list[WarningCount]:
    """Returns how many pictures have warnings, by kind, most frequent first."""
    lines = now.fetch("SELECT kind, count(DISTINCT s) AS p FROM warnings GROUP BY kind ORDER BY p DESC, kind")
    return [WarningCount(*line) for line in lines]
