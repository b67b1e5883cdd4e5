"""The flat tables of a run, one line a picture, or a picture and label, for filtering and sorting.

    pictures    s, the picture's own columns, which rows tell of it, how much failed; "right": whether the network is,
                null where that is not known (of several classes at once, or boxes: neither one too many nor missed)
    labels      s, label, class_index (another number only for a detector's boxes), probability, flag, uncertainty;
                best: whether it is the network's answer, where that is one class; m0, m1, ...: a value for each
                explainer and metric, null where there is none; x0, x1, ...: whether there is a map of each explainer;
                tree: whether one was found
    nodata      the lines of labels where a metric found nothing to judge
    costs       s, explainer, what its maps cost
    notes       s, explainer, the kind of something that is to be known of its maps, and of which label's (null: all)
    warnings    s, what is to be known of the picture, and the kind of it: without what differs from one to the next
    failures    s, what could not be done

``s`` numbers the pictures.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seewhy.runs.folder.counting import Whole, one
from seewhy.runs.query.choosing import Choice, Plan, Words, choose, entries

__all__ = ["flat_tables", "shown_failures"]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Sources:
    """What the flat tables are made of; ``first`` is the number of the first picture."""

    rows: pa.Table
    plan: Plan
    words: Words
    choice: Choice
    first: int
    keys: Whole = field(default_factory=lambda: np.empty(0, np.int64))

    def entries(self, name: str, task: int | None = None) -> tuple[Whole, pa.StructArray]:
        """Returns a list column's entries and the picture of each; with a task only entries of its chosen rows."""
        row, values = entries(self.rows, name)
        picture = self.choice.picture[row]
        if task is None:
            return row, values
        source = self.choice.base if task == 0 else self.choice.chosen[task]
        keep = np.flatnonzero(source[picture] == row)
        return picture[keep], values.take(pa.array(keep))

    def place(self, picture: Whole, label: Any) -> tuple[Whole, Whole]:
        """Returns which entries have a line in the table of labels, and which line; of equal entries only the first."""
        wanted = _key(picture, label)
        wanted, first = np.unique(wanted, return_index=True)
        line = np.searchsorted(self.keys, wanted)
        line[line == len(self.keys)] = 0
        known = self.keys[line] == wanted if len(self.keys) else np.zeros(len(wanted), bool)
        return first[known], line[known]

    def numbers(self, known: Iterable[str]) -> Whole:
        """Returns for each word its place in ``known``, or -1."""
        places = {text: place for place, text in enumerate(known)}
        return np.array([places.get(text, -1) for text in self.words.texts] or [-1], dtype=np.int64)


_LOW, _SIGN = (1 << 32) - 1, 1 << 31  # a line's key: the picture above, the label below


def flat_tables(rows: pa.Table, plan: Plan, words: Words, first: int) -> dict[str, pa.Table]:
    """Returns the tables "pictures", "labels", "nodata", "costs", "notes", "warnings" and "failures" of some pictures.

    Args:
        rows: all rows of these pictures.
        plan: what run.json asks for.
        words: of the rows.
        first: the number that the first picture gets.
    """
    choice = choose(rows, plan, words)
    sources = _Sources(rows=rows, plan=plan, words=words, choice=choice, first=first)
    picture, values = sources.entries("labels", 0)
    keys, lines = np.unique(_key(picture, values.field("label")), return_index=True)
    sources = _Sources(rows=rows, plan=plan, words=words, choice=choice, first=first, keys=keys)
    failures = _failures(sources)
    scores, nodata = _scores(sources)
    labels = _labels(sources, picture[lines], values.take(pa.array(lines)), scores)
    return {
        "pictures": _pictures(sources, failures), "labels": labels, "nodata": nodata, **_costs(sources),
        "warnings": _warnings(sources), "failures": failures,
    }  # fmt: skip


def _key(picture: Whole, label: pa.Array) -> Whole:
    return (picture << 32) | (_whole(label) + _SIGN)


def _whole(values: pa.Array) -> Whole:
    return np.asarray(pc.fill_null(values, -1).to_numpy(zero_copy_only=False), dtype=np.int64)


def _pictures(sources: _Sources, failures: pa.Table) -> pa.Table:
    choice, rows = sources.choice, sources.rows
    columns = ["sample", "position", "name", "source", "predicted", "probability", "truth"]
    own = rows.select(columns).take(pa.array(choice.base))
    bounds = pa.array(np.append(choice.starts, len(choice.order)), pa.int32())
    rids = one(rows["rid"]).take(pa.array(choice.order))
    reasons = np.bincount(failures["s"].to_numpy() - sources.first, minlength=len(choice.names))
    unsure = {name: _of_task(sources, name) for name in ("entropy", "mutual_information")}
    return pa.table(
        {
            "s": sources.first + np.arange(len(choice.names)),
            **{name: own[name] for name in own.column_names},
            **unsure,
            "right": _right(sources, own),
            "failed": pa.array((choice.chosen[0] >= 0) & ~choice.good[0]),
            "failures": pa.array(reasons, pa.int32()),
            "rows": pa.ListArray.from_arrays(bounds, rids),
        }
    )


def _right(sources: _Sources, own: pa.Table) -> pa.Array:
    """Says of each picture whether the network is right; null without truth or without a prediction."""
    lines = len(own)
    known = own["truth"].is_valid().to_numpy(zero_copy_only=False)
    if sources.plan.exclusive:
        predicted, truth = _whole(one(own["predicted"])), one(own["truth"])
        parent = np.asarray(pc.list_parent_indices(truth), dtype=np.int64)
        hits = _whole(truth.flatten()) == predicted[parent]
        right = np.bincount(parent[hits], minlength=lines) > 0
        return pa.array(right, mask=~(known & (predicted >= 0)))
    picture, values = sources.entries("labels", 0)
    wrong = pc.is_in(values.field("flag"), pa.array(["FP", "FN"])).to_numpy(zero_copy_only=False)
    some = np.bincount(picture[wrong], minlength=lines) > 0
    done = sources.choice.good[0] if lines else np.empty(0, bool)
    return pa.array(~some, mask=~(known & done))


def _of_task(sources: _Sources, name: str) -> pa.Array:
    """Returns a column of the pictures that belongs to the uncertainty."""
    column = one(sources.rows[name])
    if sources.plan.uncertainty < 0:
        return pa.nulls(len(sources.choice.names), column.type)
    row = sources.choice.chosen[sources.plan.uncertainty]
    return column.take(pa.array(np.where(row < 0, 0, row), mask=row < 0))


def _labels(sources: _Sources, picture: Whole, values: pa.StructArray, scores: dict[str, pa.Array]) -> pa.Table:
    base = sources.choice.base[picture]
    own = sources.rows.select(["sample", "position"]).take(pa.array(base))
    unsure = {name: _of_task(sources, name).take(pa.array(picture)) for name in ("entropy", "mutual_information")}
    predicted = _whole(one(sources.rows["predicted"]).take(pa.array(base)))
    answer = sources.plan.exclusive & (predicted == _whole(values.field("label")))
    return pa.table(
        {
            "best": answer,
            "s": picture + sources.first, "sample": own["sample"], "position": own["position"],
            **{name: values.field(name) for name in ("label", "probability", "truth", "flag")},
            "class_index": _classes(sources, values.field("label")),
            **unsure, **_uncertainty(sources), **scores, **_mapped(sources), "tree": _trees(sources),
        }
    )  # fmt: skip


def _classes(sources: _Sources, label: pa.Array) -> pa.Array:
    """Returns the class of each line: the label itself, or that of the detector's box whose number it is."""
    picture, values = sources.entries("detections", 0)
    if not len(values):
        return label
    entry, place = sources.place(picture, values.field("number"))
    return _spread(len(sources.keys), place, values.field("class_index").take(pa.array(entry)))


def _spread(lines: int, place: Whole, values: pa.Array) -> pa.Array:
    """Returns a column with the values at their lines, null elsewhere."""
    where = np.zeros(lines, dtype=np.int64)
    missing = np.ones(lines, dtype=bool)
    where[place], missing[place] = np.arange(len(place)), False
    return values.take(pa.array(where, mask=missing))


def _uncertainty(sources: _Sources) -> dict[str, pa.Array]:
    lines, task = len(sources.keys), sources.plan.uncertainty
    names = ("mean", "std", "low", "high")
    if task < 0:
        return {name: pa.nulls(lines, pa.float32()) for name in names}
    picture, values = sources.entries("uncertainty", task)
    entry, place = sources.place(picture, values.field("label"))
    values = values.take(pa.array(entry))
    return {name: _spread(lines, place, values.field(name)) for name in names}


def _trees(sources: _Sources) -> pa.Array:
    if sources.plan.counterfactual < 0:
        return pa.nulls(len(sources.keys), pa.bool_())
    picture, values = sources.entries("trees", sources.plan.counterfactual)
    entry, place = sources.place(picture, values.field("label"))
    return _spread(len(sources.keys), place, values.field("found").take(pa.array(entry)))


def _mapped(sources: _Sources) -> dict[str, pa.Array]:
    """Columns "x0", "x1", ...: whether there is a map of that explainer."""
    row, values = sources.entries("maps")
    explainer = sources.numbers(sources.plan.explainers)[_whole(values.field("explainer"))]
    label, found = values.field("label"), {}
    for number, name in enumerate(sources.plan.explainers):
        source = sources.choice.chosen[sources.plan.explain[name]]
        mine = np.flatnonzero((explainer == number) & (source[sources.choice.picture[row]] == row))
        _, place = sources.place(sources.choice.picture[row[mine]], label.take(pa.array(mine)))
        has = np.zeros(len(sources.keys), dtype=bool)
        has[place] = True
        found[f"x{number}"] = pa.array(has)
    return found


def _scores(sources: _Sources) -> tuple[dict[str, pa.Array], pa.Table]:
    """Columns "m0", "m1", ...: values of explainer x metric; and a table of the lines judged without data."""
    row, values = sources.entries("scores")
    picture, label = sources.choice.picture[row], values.field("label")
    numbers = np.asarray(values.field("value").to_numpy(zero_copy_only=False), dtype=np.float64)
    column = _score_columns(sources, values)
    by_column = np.argsort(column, kind="stable")
    bounds = np.searchsorted(column[by_column], np.arange(len(sources.plan.score) + 1))
    found, none = {}, []
    for number, task in enumerate(sources.plan.score.values()):
        mine = by_column[bounds[number] : bounds[number + 1]]
        mine = mine[sources.choice.chosen[task][picture[mine]] == row[mine]]
        entry, place = sources.place(picture[mine], label.take(pa.array(mine)))
        judged = np.full(len(sources.keys), np.nan)
        judged[place] = numbers[mine[entry]]
        found[f"m{number}"] = pa.array(judged, mask=np.isnan(judged))
        lines = sources.keys[place[np.isnan(judged[place])]]
        none.append(np.stack([sources.first + (lines >> 32), (lines & _LOW) - _SIGN, np.full(len(lines), number)]))
    empty = np.concatenate(none, axis=1) if none else np.empty((3, 0), np.int64)
    return found, pa.table(dict(zip(("s", "label", "m"), empty, strict=True)))


def _score_columns(sources: _Sources, values: pa.StructArray) -> Whole:
    """Returns for each score its number in the plan, or -1."""
    explainer = sources.numbers(sources.plan.explainers)[_whole(values.field("explainer"))]
    metric = sources.numbers(sources.plan.metrics)[_whole(values.field("metric"))]
    return np.where((explainer >= 0) & (metric >= 0), explainer * len(sources.plan.metrics) + metric, -1)


def _costs(sources: _Sources) -> dict[str, pa.Table]:
    """Returns the tables "costs" and "notes"."""
    row, values = sources.entries("costs")
    picture = sources.choice.picture[row]
    explainer = sources.numbers(sources.plan.explainers)[_whole(values.field("explainer"))]
    tasks = np.array([*sources.plan.explain.values(), -1])[explainer]
    mine = np.flatnonzero((explainer >= 0) & (sources.choice.chosen[tasks, picture] == row))
    _, first = np.unique(picture[mine] * max(1, len(sources.plan.explainers)) + explainer[mine], return_index=True)
    mine = mine[first]
    kept = values.take(pa.array(mine))
    amounts = {name: kept.field(name) for name in ("forward", "backward", "seconds")}
    places = {"s": picture[mine] + sources.first, "e": explainer[mine].astype(np.int16)}
    notes = kept.field("notes")
    parent, said = _whole(pc.list_parent_indices(notes)), notes.flatten()
    about = {name: np.asarray(column)[parent] for name, column in places.items()}
    return {
        "costs": pa.table({**places, **amounts}),
        "notes": pa.table({**about, "kind": said.field("kind").cast(pa.string()), "label": said.field("label")}),
    }


def _warnings(sources: _Sources) -> pa.Table:
    row, values = sources.entries("warnings")
    texts = values.cast(pa.string()).to_pylist()
    names = sources.rows["name"].take(pa.array(row)).to_pylist()
    kinds = [_kind(text, str(name)) for text, name in zip(texts, names, strict=True)]
    found = {"s": sources.choice.picture[row] + sources.first, "text": texts, "kind": kinds}
    return pa.table(found, schema=pa.schema({"s": pa.int64(), "text": pa.string(), "kind": pa.string()}))


def _kind(text: str, name: str) -> str:
    """Returns a sentence about a picture without its name and numbers: what stands before its colon."""
    return text.removeprefix(f"{name}: ").split(": ")[0].split(" (picture ")[0].rstrip(".")


def _failures(sources: _Sources) -> pa.Table:
    found = shown_failures(sources.rows, sources.plan, sources.words, sources.choice)
    lines = [(picture + sources.first, *failure.values()) for picture, failure in found]
    own = sources.rows.schema.field("failures").type.value_type
    kinds = {"s": pa.int64(), **{kind.name: kind.type for kind in own}}
    columns = list(zip(*lines, strict=True)) or [() for _ in kinds]
    return pa.table({name: pa.array(column, kind) for (name, kind), column in zip(kinds.items(), columns, strict=True)})


def shown_failures(rows: pa.Table, plan: Plan, words: Words, choice: Choice) -> list[tuple[int, dict[str, Any]]]:
    """Returns the failures of the rows that the tasks are taken from, each once: (picture, columns)."""
    row, values = entries(rows, "failures")
    tried = _tried(rows, plan, words, set(row.tolist()))
    kept: dict[tuple[Any, ...], tuple[int, dict[str, Any]]] = {}
    for number, failure in zip(row.tolist(), values.to_pylist(), strict=True):
        picture = int(choice.picture[number])
        task = plan.task_of(failure["task"], failure["explainer"], failure["metric"])
        tasks = tried[number] if task is None else (task,)
        if any(t >= 0 and choice.chosen[t, picture] == number for t in tasks):
            kept.setdefault((picture, *failure.values()), (picture, failure))
    return list(kept.values())


def _tried(rows: pa.Table, plan: Plan, words: Words, numbers: set[int]) -> dict[int, list[int]]:
    """Returns for rows with failures the tasks that failed, or the prediction where none is named."""
    tried: dict[int, list[int]] = {number: [] for number in numbers}
    if tried:
        row, word = entries(rows, "failed")
        for number, text in zip(row.tolist(), word.to_pylist(), strict=True):
            if number in tried and (task := plan.tasks.get(words.texts[text])) is not None:
                tried[number].append(task)
    return {number: tasks or [0] for number, tasks in tried.items()}
