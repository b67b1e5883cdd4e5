"""Hands the scores of a run to `statistics`: one value for each picture, explainer and metric."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from seewhy.runs.query.snapshot import Moment
from seewhy.statistics import Judged

__all__ = ["judged"]


def judged(now: Moment) -> Judged:
    """Returns the scores of all explainers by all metrics; a picture's value is the mean over its labels."""
    plan, settings = now.state.plan, now.state.settings
    about = [settings["metrics"][metric] for metric in plan.metrics]
    return Judged(
        explainers=plan.explainers, metrics=plan.metrics, values=_values(now),
        better=tuple(one.get("better", "higher") for one in about), ends=tuple(_ends(one) for one in about),
        baselines=tuple(name for name in plan.explainers if name in plan.of_chance),
    )  # fmt: skip


def _values(now: Moment) -> Any:
    """Returns the values (explainers, metrics, pictures) as float64, pictures in the order of the data."""
    plan = now.state.plan
    shape = (len(plan.explainers), len(plan.metrics))
    if not plan.score:
        return np.empty((*shape, 0))
    each = ", ".join(f"favg(m{number}) AS m{number}" for number in range(len(plan.score)))
    found = now.cursor.execute(f"SELECT {each} FROM labels GROUP BY position, sample ORDER BY position, sample")
    columns = found.fetchnumpy()
    values = [np.ma.filled(np.ma.asarray(columns[f"m{n}"], np.float64), np.nan) for n in range(len(plan.score))]
    return np.stack(values).reshape(*shape, -1)


def _ends(about: Mapping[str, Any]) -> tuple[float, float]:
    low, high = about.get("range") or (None, None)
    return -math.inf if low is None else low, math.inf if high is None else high
