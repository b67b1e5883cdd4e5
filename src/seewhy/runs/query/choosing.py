"""Chooses from which row of a run folder the result of each task is taken.

Of the rows of a picture that count (`seewhy.runs.folder.counting`), each task (the prediction, one explainer, one
metric of one explainer, ...) is taken from the first row by part name that did it, or else from the first that failed
at it; so nothing is there twice, and another order of reading changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from seewhy.runs.folder import tasks as named
from seewhy.runs.folder.counting import Standing, Whole, one, standing

__all__ = [
    "WORDED",
    "Choice",
    "Plan",
    "Words",
    "chance",
    "choose",
    "concise",
    "entries",
    "exclusive",
    "packed",
]


class Words:
    """A table of strings that occur many times, each with a number that stands for it."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.numbers: dict[str, int] = {}

    def number(self, text: str) -> int:
        """Returns the number of a string, a new one where it has none."""
        if text not in self.numbers:
            self.numbers[text] = len(self.texts)
            self.texts.append(text)
        return self.numbers[text]

    def encode(self, texts: pa.Array) -> pa.Array:
        """Returns the numbers (int32) of strings; null stays null."""
        coded = texts.dictionary_encode()
        known = pa.array([self.number(text) for text in coded.dictionary.to_pylist()], pa.int32())
        return known.take(coded.indices)


BASELINES = ("random_map", "centre_map")  # of run folders that do not say it
CONCISION = ("sparseness", "complexity")


def chance(about: Mapping[str, Any]) -> bool:
    """Says whether an explainer of run.json is a baseline that does not look at the network."""
    return bool(about.get("chance", about.get("name") in BASELINES))


def concise(about: Mapping[str, Any]) -> bool:
    """Says whether a metric of run.json measures how concise a map is, not how right."""
    return bool(about.get("concision", about.get("name") in CONCISION))


def exclusive(settings: Mapping[str, Any]) -> bool:
    """Says whether exactly one class is meant (softmax), so that the likeliest class is the prediction."""
    softmax = settings.get("activation") == "softmax"  # is all that runs of earlier versions say
    return bool(settings.get("exclusive", softmax)) and not settings.get("detection")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What run.json asks for.

    Attributes:
        explainers: labels, in order.
        metrics: labels, in order.
        tasks: identity -> number; 0 is the prediction.
        explain: for each explainer its task.
        score: for each (explainer, metric) its task.
        uncertainty: its task, or -1.
        counterfactual: its task, or -1.
        features: its task, or -1.
        exclusive: whether exactly one class is meant, so that the likeliest class is the prediction.
        of_chance: the explainers that do not look at the network.
        concise: the metrics that say how concise a map is, not how right.
        named: metric -> the name that it is registered by.
        ends: metric -> its lowest and highest value; None where it has no end.
        lower: the metrics of which lower is better.
    """

    explainers: tuple[str, ...]
    metrics: tuple[str, ...]
    tasks: dict[str, int]
    explain: dict[str, int]
    score: dict[tuple[str, str], int]
    uncertainty: int
    counterfactual: int
    features: int
    exclusive: bool
    of_chance: frozenset[str]
    concise: frozenset[str]
    named: dict[str, str]
    ends: dict[str, tuple[float | None, float | None]]
    lower: frozenset[str]

    @classmethod
    def of(cls, settings: dict[str, Any]) -> Plan:
        """Returns the plan in run.json."""
        explainers, metrics = settings.get("explainers") or {}, settings.get("metrics") or {}
        tasks = {named.PREDICT: 0}

        def number(task: str) -> int:
            return tasks.setdefault(task, len(tasks))

        def single(kind: str) -> int:
            return number(named.single(kind, settings[kind]["id"])) if settings.get(kind) else -1

        return cls(
            explainers=tuple(explainers), metrics=tuple(metrics), tasks=tasks,
            explain={e: number(named.explain(about["id"])) for e, about in explainers.items()},
            score={
                (e, m): number(named.score(explainers[e]["id"], metrics[m]["id"]))
                for e in explainers
                for m in metrics
            },
            uncertainty=single(named.UNCERTAINTY), counterfactual=single(named.COUNTERFACTUAL),
            features=single(named.FEATURES),
            exclusive=exclusive(settings),
            of_chance=frozenset(name for name, about in explainers.items() if chance(about)),
            concise=frozenset(name for name, about in metrics.items() if concise(about)),
            named={name: str(about.get("name", "")) for name, about in metrics.items()},
            ends={name: tuple(about.get("range") or (None, None)) for name, about in metrics.items()},
            lower=frozenset(name for name, about in metrics.items() if about.get("better") == "lower"),
        )  # fmt: skip

    def task_of(self, kind: str, explainer: str | None, metric: str | None) -> int | None:
        """Returns the task that a failure row is about; None where it is about all that its row tried."""
        if kind == named.EXPLAIN and explainer is not None:
            return self.explain.get(explainer, -1)
        if kind == named.SCORE and explainer is not None and metric is not None:
            return self.score.get((explainer, metric), -1)
        single = {named.UNCERTAINTY: self.uncertainty, named.COUNTERFACTUAL: self.counterfactual}
        return (single | {named.FEATURES: self.features}).get(kind)


# ------------------------------------------------------------------------------------------------------------ rows

WORDED = {"maps": ("explainer", "encoding"), "scores": ("explainer", "metric"), "costs": ("explainer", "layer")}


def packed(rows: pa.Table, words: Words, first: int) -> pa.Table:
    """Rows as they are kept in memory: repeated strings as numbers, of trees only whether something was found.

    Args:
        rows: of new parts.
        words: what the numbers mean; grows.
        first: the number of the first row, among all rows that were ever read.
    """
    for name, columns in WORDED.items():
        rows = _replaced(rows, name, lambda values, columns=columns: _coded(values, columns, words))
    for name in ("done", "failed"):
        rows = _replaced(rows, name, words.encode)
    rows = _replaced(rows, "trees", _found)
    return rows.append_column("rid", pa.array(np.arange(first, first + len(rows))))


def _replaced(rows: pa.Table, name: str, change: Any) -> pa.Table:
    """Returns the same with the entries of a list column changed."""
    chunks = [
        pa.ListArray.from_arrays(_offsets(chunk), change(chunk.flatten())) for chunk in rows[name].chunks if len(chunk)
    ]
    if not chunks:
        empty = rows.schema.field(name).type.value_type
        chunks = [pa.ListArray.from_arrays(pa.array([0], pa.int32()), change(pa.array([], empty)))]
    return rows.set_column(rows.schema.get_field_index(name), name, pa.chunked_array(chunks))


def _offsets(lists: pa.ListArray) -> pa.Array:
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    return pa.array(np.concatenate([[0], lengths.cumsum()]), pa.int32())


def _coded(values: pa.StructArray, columns: Iterable[str], words: Words) -> pa.StructArray:
    fields = {kind.name: values.field(kind.name) for kind in values.type}
    fields |= {name: words.encode(fields[name]) for name in columns}
    return pa.StructArray.from_arrays(list(fields.values()), list(fields))


def _found(trees: pa.StructArray) -> pa.StructArray:
    found = pc.match_substring_regex(trees.field("tree"), r'"found"\s*:\s*true')
    return pa.StructArray.from_arrays([trees.field("label"), found], ["label", "found"])


@dataclass(frozen=True, kw_only=True, eq=False)
class Choice(Standing):
    """Which row each picture's tasks are taken from.

    Attributes:
        chosen: (T, S) for each task and picture the row, or -1.
        good: (T, S) whether the task was done there and did not fail.
        base: (S,) the row of the picture's own columns and labels.
    """

    chosen: Whole
    good: NDArray[np.bool_]
    base: Whole


def choose(rows: pa.Table, plan: Plan, words: Words) -> Choice:
    """Chooses the row of each task of each picture; see the module's docstring."""
    found = standing(rows)
    order, starts, current = found.order, found.starts, found.current
    states = _states(rows, plan, words)
    chosen = np.full((len(states), len(found.names)), -1)
    good = np.zeros(chosen.shape, dtype=bool)
    for task, state in enumerate(states):
        chosen[task], good[task] = _first(order, starts, current & (state == _DONE), current & (state == _FAILED))
    anything, _ = _first(order, starts, current, current)
    base = np.where(chosen[0] >= 0, chosen[0], anything)
    return Choice(**vars(found), chosen=chosen, good=good, base=base)


_DONE, _FAILED = 2, 1


def _states(rows: pa.Table, plan: Plan, words: Words) -> NDArray[np.uint8]:
    """Returns a table (T, R): 0, _FAILED or _DONE for each task and row."""
    states = np.zeros((len(plan.tasks), len(rows)), dtype=np.uint8)
    task_of = np.array([plan.tasks.get(text, -1) for text in words.texts], dtype=np.int64)
    for name, state in (("done", _DONE), ("failed", _FAILED)):
        row, word = entries(rows, name)
        task = task_of[word.to_numpy()] if len(word) else np.empty(0, np.int64)
        known = task >= 0
        states[task[known], row[known]] = state
    return states


def _first(
    order: Whole, starts: Whole, better: NDArray[np.bool_], worse: NDArray[np.bool_]
) -> tuple[Whole, NDArray[np.bool_]]:
    """Returns for each image the first row in ``order`` that is better, else the first that is worse, else -1."""
    if not len(order):
        return np.empty(0, np.int64), np.empty(0, bool)
    rows = len(order)
    place = np.arange(rows)
    rank = np.where(better[order], place, np.where(worse[order], rows + place, 2 * rows))
    best = np.minimum.reduceat(rank, starts)
    return np.where(best < 2 * rows, order[best % rows], -1), best < rows


def entries(rows: pa.Table, name: str) -> tuple[Whole, pa.Array]:
    """Returns all entries of a list column, and the row of each entry."""
    lists = one(rows[name])
    return pc.list_parent_indices(lists).to_numpy().astype(np.int64), lists.flatten()
