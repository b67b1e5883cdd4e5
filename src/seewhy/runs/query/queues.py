"""Queues: labels that are worth a look, for a reason that can be said in a sentence; each is a condition and an order.

    wrong                  wrong, and as sure as at least half of the right answers are
    elsewhere:EXPLAINER    right, but most of the map lies off the object, its peak does, or it lies at the border
    disagree:METRIC        the explainers' maps get very different values: the tenth where they differ most
    interval               the network says something that lies outside of its own 95 % interval
    trust:EXPLAINER        maps that can hardly be trusted: grade 0 or 1

A queue that a run has no data for is not there; `missing` says what it would need.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from seewhy.runs.query.choosing import Plan

__all__ = ["KINDS", "Queue", "missing", "queues", "spread"]

KINDS = ("wrong", "elsewhere", "disagree", "interval", "trust")
INSIDE = ("energy_pointing_game", "relevance_mass")  # shares of a map that lie in the object
PEAK = "pointing_game"  # 1 where the largest value lies in it
GRADE = "trust_grade"
BORDER = "border only"  # a kind of note
TENTH = 0.9


@dataclass(frozen=True, kw_only=True)
class Queue:
    """A queue.

    Attributes:
        name: "wrong", "elsewhere:rise", ...
        kind: of `KINDS`.
        about: the explainer or the metric that it is about, or "".
        where: the condition on the table "labels"; no names stand in it, but numbers of columns.
        limit: what the parameter in it, if there is one, is to be: SQL for a number of the whole run.
        key: what is sorted by, in terms of that table.
        descending: whether the largest comes first.
    """

    name: str
    kind: str
    about: str = ""
    where: str
    limit: str = ""
    key: str
    descending: bool


def queues(plan: Plan) -> dict[str, Queue]:
    """Name -> queue, those of each kind together, in the order of `KINDS`."""
    found = [_wrong(plan), *_elsewhere(plan), *_disagree(plan), *_interval(plan), *_trust(plan)]
    return {one.name: one for one in found}


def missing(plan: Plan) -> dict[str, str]:
    """Kind of queue that is not there -> what has to be added to the run for it."""
    kinds = {one.kind for one in queues(plan).values()}
    needs = {
        "elsewhere": "--metrics relevance_mass", "disagree": "--explainers",
        "interval": "--uncertainty", "trust": "--metrics trust_grade",
    }  # fmt: skip
    return {kind: need for kind, need in needs.items() if kind not in kinds}


def _wrong(plan: Plan) -> Queue:
    wrong = "best AND truth = false" if plan.exclusive else "flag = 'FP'"
    right = "best AND truth = true" if plan.exclusive else "flag = 'TP'"
    sure = f"SELECT coalesce(median(probability), '-inf'::DOUBLE) FROM labels WHERE {right}"
    where = f"{wrong} AND probability >= ?"
    return Queue(name="wrong", kind="wrong", where=where, limit=sure, key="probability", descending=True)


def _judging(plan: Plan) -> list[tuple[int, str]]:
    """Number and label of the explainers that look at the network."""
    return [(number, name) for number, name in enumerate(plan.explainers) if name not in plan.of_chance]


def _columns(plan: Plan, explainer: str, *names: str) -> Iterator[str]:
    """The columns of the metrics that are registered by these names."""
    numbers = {pair: f"m{number}" for number, pair in enumerate(plan.score)}
    for name in names:
        yield from (numbers[explainer, metric] for metric, known in plan.named.items() if known == name)


def _elsewhere(plan: Plan) -> Iterator[Queue]:
    right = "best AND truth = true" if plan.exclusive else "flag = 'TP'"
    for number, name in _judging(plan):
        inside, peak = [*_columns(plan, name, *INSIDE)], [*_columns(plan, name, PEAK)]
        if not (inside or peak):
            continue
        border = f"FROM notes WHERE e = {number} AND kind = '{BORDER}' AND label IS"
        off = [f"{column} < 0.5" for column in inside[:1] or peak]
        off += [f"s IN (SELECT s {border} NULL)", f"(s, label) IN (SELECT (s, label) {border} NOT NULL)"]
        yield Queue(
            name=f"elsewhere:{name}", kind="elsewhere", about=name, key=(inside or peak)[0], descending=False,
            where=f"{right} AND ({' OR '.join(off)})",
        )  # fmt: skip


def spread(columns: Sequence[str]) -> str:
    """The largest minus the smallest of some columns, where at least two have a value."""
    several = " + ".join(f"({column} IS NOT NULL)::INTEGER" for column in columns)
    return f"CASE WHEN {several} >= 2 THEN greatest({', '.join(columns)}) - least({', '.join(columns)}) END"


def _disagree(plan: Plan) -> Iterator[Queue]:
    numbers = {pair: f"m{number}" for number, pair in enumerate(plan.score)}
    for metric in plan.metrics:
        columns = [numbers[name, metric] for _, name in _judging(plan)]
        if metric in plan.concise or plan.named[metric] == GRADE or len(columns) < 2:
            continue
        key = spread(columns)
        most = f"SELECT quantile_cont({key}, {TENTH}) FROM labels"
        yield Queue(
            name=f"disagree:{metric}", kind="disagree", about=metric, key=key, descending=True,
            where=f"({key}) > 0 AND ({key}) >= ?", limit=most,
        )  # fmt: skip


def _interval(plan: Plan) -> Iterator[Queue]:
    if plan.uncertainty >= 0:
        out = "greatest(low - probability, probability - high)"
        yield Queue(name="interval", kind="interval", where=f"{out} > 0", key=out, descending=True)


def _trust(plan: Plan) -> Iterator[Queue]:
    for _, name in _judging(plan):
        for column in [*_columns(plan, name, GRADE)][:1]:
            yield Queue(
                name=f"trust:{name}", kind="trust", about=name, where=f"{column} <= 1", key=column, descending=False
            )
