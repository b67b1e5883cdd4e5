"""Two runs on the same images, side by side: another model, checkpoint, explainer, backend or preprocessing.

Images are paired by their key; where a run knows the bytes of the files, a file that is another one now is not paired,
and an image with another key but the same bytes is. Of each pair: what either network says and whether that is right,
how the numbers of the classes changed that both runs explain, and how like their maps are (Spearman's correlation over
the part of the original that both networks saw, how far the middle of the positive mass moved, and how much of it lies
on the true boxes). Metrics that both runs have are compared image by image, as everywhere (`seewhy.statistics`).
"""

from __future__ import annotations

import csv
import json
import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from seewhy.checks import check_count
from seewhy.csv_cells import guarded
from seewhy.errors import InvalidInput, UnknownName, nearest
from seewhy.insights.places import centre, common, likeness, share, spread
from seewhy.plain import for_json
from seewhy.runs.query.records import SampleRecord
from seewhy.runs.query.run import Run
from seewhy.statistics import Interval, Judged, interval

__all__ = ["Changed", "Looks", "RunDiff", "diff"]

KINDS = ("broken", "fixed", "other answer", "same answer", "no answer")


@dataclass(frozen=True, kw_only=True)
class Looks:
    """How an explainer's maps of one image differ; means over the labels that both runs have.

    Attributes:
        explainer: its label in the first run.
        correlation: of Spearman; NaN where a map is flat.
        moved: how far the middle of the positive mass moved, as a share of the diagonal; NaN without mass.
        on_object: share of the positive mass on the true boxes of the label, in each run; None without boxes.
    """

    explainer: str
    correlation: float
    moved: float
    on_object: tuple[float, float] | None


@dataclass(frozen=True, kw_only=True)
class Changed:
    """An image that both runs have.

    Attributes:
        sample: its key in the first run.
        name: for people.
        truth: names of the classes that are truly there; None where it is not known.
        predicted: what either network says, None where nothing is known.
        right: whether that is right; None where the truth is not known.
        kind: "broken" (right, then wrong), "fixed", "other answer", "same answer" or "no answer" (one run has none).
        numbers: class name -> the number (probability or logit) in the first and in the second run.
        looks: of each explainer that both runs have.
    """

    sample: str
    name: str
    truth: tuple[str, ...] | None
    predicted: tuple[str | None, str | None]
    right: tuple[bool, bool] | None
    kind: str
    numbers: dict[str, tuple[float, float]]
    looks: tuple[Looks, ...] = ()

    @property
    def shift(self) -> float:
        """The largest change of a number, second minus first; NaN where there is no class that both have."""
        changes = [second - first for first, second in self.numbers.values()]
        return max(changes, key=abs) if changes else math.nan

    @property
    def correlation(self) -> float:
        """The least like of the maps; NaN where none could be compared."""
        known = [one.correlation for one in self.looks if not math.isnan(one.correlation)]
        return min(known, default=math.nan)

    @property
    def rank(self) -> tuple[Any, ...]:
        """Orders images: what changed most comes first."""
        shift = self.shift
        return (
            KINDS.index(self.kind) if self.kind != "no answer" else 2.5,
            0.0 if math.isnan(shift) else -abs(shift),
            1.0 if math.isnan(self.correlation) else self.correlation,
            self.name,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class RunDiff:
    """What changed from one run to another.

    Attributes:
        first: address of the first run.
        second: of the second.
        settings: name of a setting -> its value in each run, for those that differ.
        images: those that both have, what changed most first.
        only_first: how many images only the first run has.
        only_second: the same of the second.
        replaced: images of which the file is another one in the second run; they are not compared.
        judged: "first" and "second" under EXPLAINER/METRIC, image by image, for pairs that both have; None without.
        explainers: (label in the first run, label in the second) of maps that were compared.

    Example:
        >>> seewhy.diff(run, run).counts["same answer"]  # a run and itself: nothing changes
        4
    """

    first: str
    second: str
    settings: dict[str, tuple[Any, Any]]
    images: tuple[Changed, ...]
    only_first: int
    only_second: int
    replaced: int
    judged: Judged | None
    explainers: tuple[tuple[str, str], ...]

    @cached_property
    def counts(self) -> dict[str, int]:
        """Kind of change -> how many images."""
        found = Counter(one.kind for one in self.images)
        return {kind: found[kind] for kind in KINDS}

    @property
    def accuracy(self) -> tuple[Interval, Interval] | None:
        """The share of right answers in each run, on the images of both; None where no truth is known."""
        known = [one.right for one in self.images if one.right is not None]
        if not known:
            return None
        first, second = (np.array([float(right[i]) for right in known]) for i in range(2))
        return interval(first, ends=(0, 1)), interval(second, ends=(0, 1))

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain values for JSON; NaN is null."""
        found = {
            "first": self.first, "second": self.second, "settings": self.settings, "counts": self.counts,
            "only_first": self.only_first, "only_second": self.only_second, "replaced": self.replaced,
            "accuracy": None if self.accuracy is None else [one._asdict() for one in self.accuracy],
            "metrics": [] if self.judged is None else [asdict(one) for one in self.judged.differences],
            "images": [asdict(one) | {"shift": one.shift} for one in self.images],
        }  # fmt: skip
        return dict(for_json(found))

    def to_json(self, path: str | os.PathLike[str]) -> Path:
        """Writes `as_dict` to a JSON file."""
        Path(path).write_text(json.dumps(self.as_dict(), indent=1, ensure_ascii=False), encoding="utf-8")
        return Path(path)

    def to_csv(self, path: str | os.PathLike[str]) -> Path:
        """Writes one line an image, what changed most first."""
        names = [first for first, _ in self.explainers]
        head = ["sample", "name", "truth", "kind", "first", "second", "shift"]
        head += [
            f"{e}/{what}" for e in names for what in ("correlation", "moved", "on_object_first", "on_object_second")
        ]
        with Path(path).open("w", encoding="utf-8", newline="") as file:
            lines = csv.writer(file)
            lines.writerow(map(guarded, head))
            for one in self.images:
                truth = None if one.truth is None else "; ".join(one.truth)
                cells = [one.sample, one.name, truth, one.kind, *one.predicted, _number(one.shift)]
                looks = {look.explainer: look for look in one.looks}
                for name in names:
                    look = looks.get(name)
                    on = (None, None) if look is None or look.on_object is None else look.on_object
                    own = [None, None] if look is None else [look.correlation, look.moved]
                    cells += [_number(value) for value in (*own, *on)]
                lines.writerow(map(guarded, cells))
        return Path(path)

    def __str__(self) -> str:
        return "\n".join(_lines(self, 12))


def diff(
    first: Run | str | os.PathLike[str], second: Run | str | os.PathLike[str], *,
    explainers: Sequence[str | tuple[str, str]] | None = None, most: int | None = None,
) -> RunDiff:  # fmt: skip
    """Compares two runs on the same images.

    Args:
        first: a run, or its folder.
        second: the other one.
        explainers: whose maps are compared: labels that both runs have, or pairs of a label of the first and one of
            the second run; None for all labels of both, [] for none.
        most: compares this many images, the first ones of the first run; None for all.

    Raises:
        InvalidInput: no folder of a run, or two runs without an image in common.
        UnknownName: an explainer that a run does not have.

    Example:
        >>> found = seewhy.diff(run, run, explainers=["grad_cam"])
        >>> found.counts["broken"], found.images[0].looks[0].correlation > 0.999
        (0, True)
    """
    if most is not None:
        check_count("most", most)
    one, two = _opened(first), _opened(second)
    pairs = _explainers(one, two, explainers)
    matched = _Matched(one, two, most)
    images, scores = [], _Scores(one, two)
    for before, after in matched:
        images.append(_changed(one, two, before, after, pairs))
        scores.add(before, after)
    if not images:
        raise InvalidInput(
            f"The runs {one.address!r} and {two.address!r} have no image in common: {matched.only_first} are only in "
            f"the first, {matched.only_second} only in the second. Expected two runs over the same data."
        )
    return RunDiff(
        first=one.address, second=two.address, settings=_settings(one, two),
        images=tuple(sorted(images, key=lambda image: image.rank)), only_first=matched.only_first,
        only_second=matched.only_second, replaced=matched.replaced, judged=scores.table(), explainers=tuple(pairs),
    )  # fmt: skip


def _opened(run: Run | str | os.PathLike[str]) -> Run:
    return run if isinstance(run, Run) else Run(run)


def _explainers(one: Run, two: Run, asked: Sequence[str | tuple[str, str]] | None) -> list[tuple[str, str]]:
    if asked is None:
        return [(label, label) for label in one.explainers if label in two.explainers]
    pairs = [(label, label) if isinstance(label, str) else label for label in asked]
    for run, labels in ((one, [p[0] for p in pairs]), (two, [p[1] for p in pairs])):
        for label in labels:
            if label not in run.explainers:
                raise UnknownName(
                    f"The run {run.address!r} has no explainer {label!r}. {nearest(label, run.explainers)}"
                )
    return pairs


def _settings(one: Run, two: Run) -> dict[str, tuple[Any, Any]]:
    def of(run: Run) -> dict[str, Any]:
        made = run.settings
        return {
            "model": made["model"]["name"], "weights": made["model"]["digest"],
            "preprocessing": made["model"].get("preprocessing"), "activation": made["activation"],
            "quantity": run.quantity, "threshold": made["threshold"], "explainers": list(run.explainers),
            "metrics": list(run.metrics), "seewhy": made.get("seewhy"), "torch": made.get("torch"),
        }  # fmt: skip

    first, second = of(one), of(two)
    return {name: (first[name], second[name]) for name in first if first[name] != second[name]}


# --------------------------------------------------------------------------------------------------------- images


class _Matched:
    """Pairs of records of one image, in the order of the first run; counts what has no partner."""

    def __init__(self, one: Run, two: Run, most: int | None) -> None:
        self.one, self.two, self.most = one, two, most
        self.only_first = self.only_second = self.replaced = 0

    def __iter__(self) -> Iterator[tuple[SampleRecord, SampleRecord]]:
        keys = {record.sample: record.content for record in self.two.records()}
        by_content = {content: key for key, content in keys.items() if content is not None}
        total, left = len(keys), set(keys)
        for number, record in enumerate(self.one.records()):
            if self.most is not None and number >= self.most:
                return
            key = record.sample if record.sample in keys else by_content.get(record.content or "")
            if key is None:
                self.only_first += 1
            elif (other := self.two.sample(key)) is not None:
                left.discard(key)
                if record.content and other.content and record.content != other.content:
                    self.replaced += 1
                else:
                    yield record, other
            self.only_second = len(left) if self.most is None else max(0, total - number - 1)


def _changed(one: Run, two: Run, before: SampleRecord, after: SampleRecord, pairs: list[tuple[str, str]]) -> Changed:
    predicted = tuple(
        None if r.predicted is None else run.class_name(r.predicted) for run, r in ((one, before), (two, after))
    )
    truth = None if before.truth is None else tuple(one.class_name(label) for label in before.truth)
    answered = None not in predicted
    right = (predicted[0] in truth, predicted[1] in truth) if truth and answered else None
    numbers = {}
    if not (one.detects or two.detects):
        mine = {two.class_name(label): row for label, row in after.labels.items()}
        for label, row in before.labels.items():
            if (name := one.class_name(label)) in mine:
                numbers[name] = (row.probability, mine[name].probability)
    looks = [_looks(one, two, before, after, pair) for pair in pairs]
    return Changed(
        sample=before.sample, name=before.name, truth=truth, predicted=(predicted[0], predicted[1]), right=right,
        kind=_kind(predicted, right), numbers=numbers, looks=tuple(look for look in looks if look is not None),
    )  # fmt: skip


def _kind(predicted: tuple[str | None, ...], right: tuple[bool, bool] | None) -> str:
    if None in predicted:
        return "no answer"
    if predicted[0] == predicted[1]:
        return "same answer"
    return {(True, False): "broken", (False, True): "fixed"}.get(right or (False, False), "other answer")


def _looks(one: Run, two: Run, before: SampleRecord, after: SampleRecord, pair: tuple[str, str]) -> Looks | None:
    part = common(before.box, after.box) if before.box and after.box and not (one.detects or two.detects) else None
    if part is None or before.box is None or after.box is None:
        return None
    theirs = {two.class_name(label): label for label, explainer in after.maps if explainer == pair[1]}
    found = []
    for label, explainer in before.maps:
        if explainer != pair[0] or (other := theirs.get(one.class_name(label))) is None:
            continue
        maps = one.map(before.sample, label, pair[0]), two.map(after.sample, other, pair[1])
        if maps[0] is None or maps[1] is None:
            continue
        a, b = spread(maps[0], before.box, part), spread(maps[1], after.box, part)
        middles, boxes = (centre(a), centre(b)), [box[1:] for box in before.boxes if box[0] == label]
        moved = math.nan if None in middles else math.dist(*middles) / math.sqrt(2)  # type: ignore[arg-type]
        on = (share(a, boxes, part), share(b, boxes, part)) if boxes else (math.nan, math.nan)
        found.append((likeness(a, b), moved, *on))
    if not found:
        return None
    means = [_mean([row[i] for row in found]) for i in range(4)]
    known = not (math.isnan(means[2]) or math.isnan(means[3]))
    return Looks(
        explainer=pair[0], correlation=means[0], moved=means[1], on_object=(means[2], means[3]) if known else None
    )


def _mean(values: list[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else math.nan


class _Scores:
    """The numbers of both runs, image by image, for the pairs of explainer and metric that both have."""

    def __init__(self, one: Run, two: Run) -> None:
        self.pairs = [(e, m) for e in one.explainers if e in two.explainers for m in one.metrics if m in two.metrics]
        self.about = one.settings["metrics"]
        self.rows: list[list[tuple[float, float]]] = [[] for _ in self.pairs]

    def add(self, before: SampleRecord, after: SampleRecord) -> None:
        """An image's means over its labels."""
        for row, pair in zip(self.rows, self.pairs, strict=True):
            row.append((_score(before, pair), _score(after, pair)))

    def table(self) -> Judged | None:
        """Both runs under every pair, tested together; None where there is no pair."""
        if not self.pairs:
            return None
        made = [self.about[m] for _, m in self.pairs]
        return Judged(
            explainers=("first", "second"), metrics=tuple(f"{e}/{m}" for e, m in self.pairs),
            better=tuple(one["better"] for one in made), ends=tuple(_ends(one.get("range")) for one in made),
            values=np.array(self.rows, dtype=np.float64).transpose(2, 0, 1),
        )  # fmt: skip


def _score(record: SampleRecord, pair: tuple[str, str]) -> float:
    values = [v for (_, e, m), v in record.scores.items() if (e, m) == pair and v is not None]
    return _mean(values)


def _ends(known: Any) -> tuple[float, float]:
    low, high = known if known else (None, None)
    return (-math.inf if low is None else float(low), math.inf if high is None else float(high))


# ----------------------------------------------------------------------------------------------------------- words


def _number(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value


def _lines(found: RunDiff, most: int) -> Iterator[str]:
    yield f"{found.first} -> {found.second}: {len(found.images)} images in both runs"
    for name, (first, second) in found.settings.items():
        yield f"  {name}: {first} -> {second}"
    alone = (("only in the first", found.only_first), ("only in the second", found.only_second),
             ("with another file now", found.replaced))  # fmt: skip
    if said := ", ".join(f"{count} {what}" for what, count in alone if count):
        yield f"  not compared: {said}"
    yield "  " + ", ".join(f"{count} {kind}" for kind, count in found.counts.items() if count)
    if found.accuracy is not None:
        yield f"  right answers: {_said(found.accuracy[0])} -> {_said(found.accuracy[1])}"
    for name, _ in found.explainers:
        looks = [look for one in found.images for look in one.looks if look.explainer == name]
        if looks:
            yield f"  maps of {name}: {_about(looks)}"
    if found.judged is not None:
        yield from _judged(found.judged)
    changed = [one for one in found.images if one.kind != "same answer"]
    for one in changed[:most]:
        shift = "" if math.isnan(one.shift) else f", {one.shift:+.3f}"
        yield f"  {one.kind}: {one.name}: {one.predicted[0]} -> {one.predicted[1]}{shift}"
    if len(changed) > most:
        yield f"  and {len(changed) - most} more"


def _judged(table: Judged) -> Iterator[str]:
    means = {(one.explainer, one.metric): one.mean for one in table.means}
    for one in table.differences:
        low, high = (one.low, one.high) if one.better == "second" else (-one.high, -one.low)
        span = "" if math.isnan(low) else f", difference {low:+.3f} to {high:+.3f}"
        yield (
            f"  {one.metric}: {means['first', one.metric]:.3f} -> {means['second', one.metric]:.3f}{span} "
            f"({one.verdict}, n = {one.n})"
        )


def _about(looks: list[Looks]) -> str:
    said = [f"correlation {_mean([look.correlation for look in looks]):.2f}"]
    said.append(f"moved by {_mean([look.moved for look in looks]):.1%} of the diagonal")
    known = [look.on_object for look in looks if look.on_object is not None]
    if known:
        said.append(f"on the object {_mean([a for a, _ in known]):.2f} -> {_mean([b for _, b in known]):.2f}")
    return ", ".join(said)


def _said(one: Interval) -> str:
    return f"{one.mean:.3f}" + ("" if one.why else f" [{one.low:.3f}, {one.high:.3f}]") + f" (n = {one.n})"
