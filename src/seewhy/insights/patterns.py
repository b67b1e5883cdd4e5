"""What a network uses in some images of a class and not in the others, found by itself.

For each class that the network says, its images are looked at through several views: what middle layers see where the
map points, and the place of the map. A pattern is a small dense cluster of a view beside one that holds nearly
everything, seen in two views at least. With the network, a pattern is tried out: its evidence is taken away, and put
into other images. Only then a suspicion becomes a finding.

Source: clustering of maps, SpRAy (Lapuschkin et al. 2019). The middle layers, the rule for clusters and the
intervention are seewhy's own; what they are worth is measured in docs/insights.md.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from seewhy.checks import check_count, check_seed
from seewhy.datasets import open_data
from seewhy.errors import InvalidInput
from seewhy.inputs import placed, prepare
from seewhy.insights.clusters import SMALLEST, apart
from seewhy.insights.intervening import Effect, evidence, put_in, taken_away
from seewhy.insights.places import GRID, share, spread
from seewhy.insights.properties import Value, metadata, of_metadata, wrong
from seewhy.insights.slices import associated
from seewhy.models.loading import load
from seewhy.plain import for_json
from seewhy.runs.folder.insights import keep_insight
from seewhy.runs.folder.store import Store
from seewhy.runs.query.records import SampleRecord
from seewhy.runs.query.run import Run
from seewhy.types import AS_THEY_ARE, Activation, activation, as_they_are

__all__ = ["Pattern", "Patterns", "patterns"]

MOST = 2000  # images of a class that are looked at
TRIED = 32  # images that are changed, of the pattern and of others
AGREE = 2  # views that a pattern is seen in at least; the map's place alone varies on clean data, too
COMMON = 0.3  # share of images (of both together) that clusters of one pattern have in common
OTHERWISE = 0.05  # difference from the numbers of the run (as a share of those above 1) that is another network
MOVES = 0.05  # change of a probability from which on evidence matters
EDGE = 3  # of GRID places, which are the border
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Pattern:
    """What some images of a class have in common, and what it does.

    Attributes:
        class_index: what the network says of them.
        class_name: its name.
        samples: keys of the images, the most typical first.
        positions: where they stand in the data, in the same order.
        of: how many images of the class were looked at.
        views: in which it was seen: names of layers, and "place".
        errors: share of wrong answers among its images; NaN where the truth is not known.
        elsewhere: the same of the other images of the class.
        border: share of the maps' positive mass at the border of what the network saw.
        off_object: share off the true boxes; NaN without boxes.
        goes_with: values of metadata that its images have more often than the others of the class, in words.
        place: (28, 28) mean of the maps' positive parts, each of sum 1.
        removal: what taking the evidence away does; None where the network was not asked.
        insertion: what putting it into other images does; likewise.
        grade: "shown", "misleads", "on the object", "suspicion" or "not shown".
        why: the grade in words.
    """

    class_index: int
    class_name: str
    samples: tuple[str, ...]
    positions: tuple[int, ...]
    of: int
    views: tuple[str, ...]
    errors: float
    elsewhere: float
    border: float
    off_object: float
    place: list[list[float]] = field(repr=False)
    goes_with: tuple[str, ...] = ()
    removal: Effect | None = None
    insertion: Effect | None = None
    grade: str = "suspicion"
    why: str = ""

    def __str__(self) -> str:
        lines = [f"{self.class_name}: {len(self.samples)} of {self.of} images, seen in {', '.join(self.views)}"]
        lines += [f"  {self.grade}: {self.why}"]
        lines += [f"  taken away: {self.removal}"] if self.removal else []
        lines += [f"  put into others: {self.insertion}"] if self.insertion else []
        lines += [f"  wrong {self.errors:.1%}, elsewhere {self.elsewhere:.1%}"] if not math.isnan(self.errors) else []
        lines += [f"  {self.border:.0%} of the maps at the border"]
        lines += [f"  goes with {'; '.join(self.goes_with)}"] if self.goes_with else []
        lines += [f"  {self.off_object:.0%} off the object"] if not math.isnan(self.off_object) else []
        return "\n".join([*lines, f"  {', '.join(self.samples[:6])}"])


@dataclass(frozen=True, kw_only=True)
class Patterns:
    """What stands out, the strongest finding first.

    Attributes:
        run: address of the run.
        explainer: whose maps were looked at.
        images: how many.
        classes: of how many classes.
        found: the patterns.

    Example:
        >>> seewhy.patterns(run).found  # four images: too few to tell anything
        ()
    """

    run: str
    explainer: str
    images: int
    classes: int
    found: tuple[Pattern, ...]

    @property
    def shown(self) -> tuple[Pattern, ...]:
        """Those whose evidence was tried out, and moves the score."""
        return tuple(one for one in self.found if one.grade == "shown")

    def as_dict(self) -> dict[str, Any]:
        """Returns everything as plain values, ready for JSON: numbers that are not known are null."""
        found: dict[str, Any] = for_json(asdict(self))
        return found

    def __str__(self) -> str:
        head = f"{self.run}: {self.images} images of {self.classes} classes, by {self.explainer}"
        return "\n".join([head, *map(str, self.found)]) if self.found else f"{head}; nothing stands out"


def patterns(
    run: Run | str | os.PathLike[str], model: Any = None, data: Any = None, *,
    table: str | os.PathLike[str] | None = None, smallest: int = SMALLEST, most: int = MOST, seed: int = 0,
    keep: bool = True,
) -> Patterns:  # fmt: skip
    """Finds what a network uses in some images of a class and not in the others.

    Args:
        run: a run that keeps features and maps (``seewhy run --explainers grad_cam --features``), or its folder.
        model: the network, as `seewhy.load` takes it; without it patterns stay suspicions.
        data: the run's data, as `seewhy.datasets.open_data` takes them; wanted with the network.
        table: a CSV file of metadata with a column "sample", "name" or "image"; what goes with a pattern is told.
        smallest: images that a pattern has at least.
        most: images of a class that are looked at; of more, so many are drawn.
        seed: of all that is drawn at random.
        keep: writes what was found into the run folder (insights/patterns.json), where pages read it.

    Raises:
        InvalidInput: the run keeps no maps' features, a model came without data, the model or the data are not those
            of the run, the run has an activation of its own, or the table cannot be read.
        UnknownName: the run keeps no features.
        MissingDependency: scikit-learn is not installed.

    Example:
        >>> seewhy.patterns(run).images
        4
    """
    check_count("smallest", smallest)
    check_count("most", most)
    check_seed(seed)
    opened = run if isinstance(run, Run) else Run(run)
    if (model is None) != (data is None):
        raise InvalidInput("To try patterns out, pass both: seewhy.patterns(run, model=..., data=...).")
    asked = opened.settings.get("features")
    explainer = asked["parameters"].get("explainer") if asked else None
    vectors = opened.weighted_vectors()
    if not vectors or explainer is None:
        raise InvalidInput(
            f"The run in {opened.address!r} keeps no features under maps. Add an explainer and features to it: "
            "seewhy run ... --explainers grad_cam --features."
        )
    known = metadata(table) if table is not None else {}
    records = {record.sample: record for record in opened.records()}
    views = {
        kept.layer: {(s, label): v for s, label, v in zip(kept.samples, kept.labels or (), kept.values, strict=True)}
        for kept in vectors
    }
    groups = _groups(opened, records, views, most, seed)
    ask = None if model is None else _Asking(load(model), open_data(data), records, seed)
    found = [
        one for label, keys in groups.items()
        for one in _of_class(opened, records, views, _Group(label, keys), explainer, smallest, seed)
    ]  # fmt: skip
    found = [replace(one, goes_with=_company(one, groups, records, known)) for one in found] if known else found
    if ask is not None:
        found = [_tried(opened, one, groups, explainer, ask) for one in found]
    made = Patterns(
        run=opened.address, explainer=explainer, images=sum(map(len, groups.values())), classes=len(groups),
        found=tuple(sorted(found, key=_rank)),
    )  # fmt: skip
    if keep:
        keep_insight(Store(opened.address), "patterns", made.as_dict())
    return made


Key = tuple[str, int]  # sample, label


@dataclass(frozen=True)
class _Group:
    """Images of which the network says a class."""

    label: int
    keys: list[Key]


def _groups(
    run: Run, records: Mapping[str, SampleRecord], views: Mapping[str, Mapping[Key, Any]], most: int, seed: int
) -> dict[int, list[Key]]:
    """Class -> the (sample, label) whose map is of the class that the network says."""
    rng = np.random.default_rng(seed)
    there = set.intersection(*(set(view) for view in views.values()))
    groups: dict[int, list[Key]] = {}
    for sample, label in sorted(there, key=lambda key: (records[key[0]].position, key)):
        record = records[sample]
        if run.detects or label == record.predicted:
            groups.setdefault(record.class_of(label), []).append((sample, label))
    for label, keys in groups.items():
        if len(keys) > most:
            groups[label] = [keys[i] for i in sorted(rng.choice(len(keys), most, replace=False))]
    return groups


def _of_class(
    run: Run, records: Mapping[str, SampleRecord], views: Mapping[str, Mapping[Key, Any]], group: _Group,
    explainer: str, smallest: int, seed: int,
) -> list[Pattern]:  # fmt: skip
    maps = [_map(run, records[sample], label, explainer) for sample, label in group.keys]
    seen = {name: np.stack([view[key] for key in group.keys]) for name, view in views.items()}
    seen["place"] = np.stack([one.reshape(GRID // 4, 4, GRID // 4, 4).sum((1, 3)).ravel() for one in maps])
    clusters = [(name, found) for name, values in seen.items() for found in apart(values, smallest, seed)]
    bad = np.array([_wrong(run, records[sample]) for sample, _ in group.keys])
    made = []
    for names, members in _joined(clusters):
        inside = np.zeros(len(group.keys), dtype=bool)
        inside[members] = True
        first = seen[names[0]][members]
        order = np.argsort(np.linalg.norm((first - first.mean(0)) / (first.std(0) + 1e-9), axis=1), kind="stable")
        mean = np.mean([maps[i] for i in members], axis=0)
        made.append(
            Pattern(
                class_index=group.label, class_name=run.class_name(group.label), of=len(group.keys), views=names,
                samples=(own := tuple(group.keys[members[i]][0] for i in order)),
                positions=tuple(records[sample].position for sample in own), errors=_mean(bad[inside]),
                elsewhere=_mean(bad[~inside]), border=1 - float(mean[EDGE:-EDGE, EDGE:-EDGE].sum() / mean.sum()),
                off_object=_mean(np.array([_off(records[group.keys[i][0]], maps[i]) for i in members])),
                place=mean.tolist(), why="the network was not asked: pass model and data to try it out.",
            )
        )  # fmt: skip
    return made


def _company(
    one: Pattern, groups: Mapping[int, list[Key]], records: Mapping[str, SampleRecord],
    known: Mapping[str, Mapping[str, Value]],
) -> tuple[str, ...]:  # fmt: skip
    """Returns the metadata that go with a pattern, among the images of its class."""
    members = set(one.samples)
    samples = [sample for sample, _ in groups[one.class_index]]
    rows = [dict(of_metadata(known, records[sample])) for sample in samples]
    return associated(rows, np.array([sample in members for sample in samples]))


def _map(run: Run, record: SampleRecord, label: int, explainer: str) -> Floats:
    """(GRID, GRID) the positive part of a map, of sum 1."""
    raw = run.map(record.sample, label, explainer)
    box = record.box
    assert raw is not None
    assert box is not None
    even = np.maximum(spread(raw, box, box), 0)
    total = float(even.sum())
    return even / total if total > 0 else np.full((GRID, GRID), GRID**-2)


def _joined(clusters: Sequence[tuple[str, NDArray[np.int64]]]) -> list[tuple[tuple[str, ...], NDArray[np.int64]]]:
    """Returns clusters of several views that have most images in common as one: all images that at least half have."""
    parts: list[list[tuple[str, set[int]]]] = []
    for name, found in sorted(clusters, key=lambda one: -len(one[1])):
        own = set(found.tolist())
        home = next((p for p in parts if any(len(own & m) >= COMMON * len(own | m) for _, m in p)), None)
        if home is None:
            parts.append([(name, own)])
        else:
            home.append((name, own))
    made = []
    for some in parts:
        votes = Counter(m for _, members in some for m in members)
        members = sorted(m for m, count in votes.items() if 2 * count >= len(some))
        names = tuple(dict.fromkeys(name for name, _ in some))
        if len(names) >= AGREE:
            made.append((names, np.array(members)))
    return made


def _wrong(run: Run, record: SampleRecord) -> float:
    bad = wrong(run, record)
    return float("nan") if bad is None else float(bad)


def _mean(values: NDArray[Any]) -> float:
    known = values[~np.isnan(values)] if len(values) else values
    return float(known.mean()) if len(known) else float("nan")


def _off(record: SampleRecord, even: Floats) -> float:
    boxes = [(x0, y0, x1, y1) for _, x0, y0, x1, y1 in record.boxes]
    return 1 - share(even, boxes, record.box) if boxes and record.box is not None else float("nan")


# ------------------------------------------------------------------------------------------------- trying it out


@dataclass(frozen=True)
class _Asking:
    """The network and its data."""

    model: Any
    data: Any
    records: Mapping[str, SampleRecord]
    seed: int

    def inputs(self, samples: Sequence[str], size: tuple[int, int] | None = None) -> tuple[list[str], torch.Tensor]:
        """Returns the samples whose inputs have a size, or the one that most have, and these inputs (N, C, H, W).

        Raises:
            InvalidInput: the data have another image where the run has this one.
        """
        made = {name: prepare(self.model, self._image(name)).inputs.cpu() for name in samples}
        sizes = Counter((one.shape[2], one.shape[3]) for one in made.values())
        size = size or max(sizes, key=lambda one: sizes[one])
        fit = [name for name, one in made.items() if (one.shape[2], one.shape[3]) == size]
        return fit, torch.cat([made[name] for name in fit]) if fit else torch.zeros(0, 3, *size)

    def _image(self, name: str) -> Any:
        place = self.records[name].position
        there = self.data.key(place) if place < len(self.data) else None
        if there != name:
            raise InvalidInput(
                f"In place {place} the run has the image {name!r}, and the data have {there or 'nothing'!r}. Pass the "
                "data of the run."
            )
        return self.data[place].image

    def scores(self, run: Run, label: int) -> Callable[[torch.Tensor], Floats]:
        """Images -> the number of a class, as the run has it."""
        function = _activation(run)

        def of(images: torch.Tensor) -> Floats:
            with self.model.opened():
                found = [
                    self.model(placed(self.model, some)).activate(function).classes.double()[:, label]
                    for some in images.split(32)
                ]
            return np.asarray(torch.cat(found).cpu().numpy())

        return of


def _activation(run: Run) -> Activation | None:
    """Returns what the run puts on scores.

    Raises:
        InvalidInput: a function that is not known by its name.
    """
    name = run.settings.get("activation")
    if name == AS_THEY_ARE:
        return as_they_are
    if name not in (None, "softmax", "sigmoid"):
        raise InvalidInput(
            f"The run in {run.address!r} has an activation of its own, {name!r}, which cannot be put on scores again. "
            "Look for patterns without model and data, or make the run with 'softmax', 'sigmoid' or none."
        )
    return activation(name)


def _same(run: Run, one: Pattern, told: Mapping[str, float], ask: _Asking) -> None:
    """Raises InvalidInput unless the network says of most images what the run says of them."""
    rows = {name: ask.records[name].labels.get(one.class_index) for name in told}
    pairs = np.array([(told[name], row.probability) for name, row in rows.items() if row is not None], dtype=float)
    pairs = pairs[np.isfinite(pairs).all(1)] if len(pairs) else np.zeros((0, 2))
    if not len(pairs):
        return
    said, was = np.median(pairs, axis=0)
    if np.median(np.abs(pairs[:, 0] - pairs[:, 1])) > OTHERWISE * max(1.0, abs(was)):
        raise InvalidInput(
            f"Of {len(pairs)} images of {one.class_name!r} the network says {said:.3f} (median), and the run in "
            f"{run.address!r} has {was:.3f}. Pass the network of the run, with its weights and preprocessing."
        )


def _tried(
    run: Run, one: Pattern, groups: Mapping[int, list[Key]], explainer: str, ask: _Asking
) -> Pattern:  # fmt: skip
    """Returns the pattern with what its evidence does."""
    if run.detects:
        return _graded(one, None, None)
    rng = np.random.default_rng(ask.seed)
    drawn = list(rng.permutation(np.array(one.samples))[:TRIED])
    pool = [sample for label, keys in groups.items() if label != one.class_index for sample, _ in keys]
    others = [pool[i] for i in sorted(rng.choice(len(pool), min(TRIED, len(pool)), replace=False))] if pool else []
    members, images = ask.inputs([str(name) for name in drawn])
    size = (images.shape[2], images.shape[3])
    raws = [run.map(sample, one.class_index, explainer) for sample in members]
    where = [np.zeros(size, dtype=bool) if raw is None else evidence(raw, size) for raw in raws]
    scores = ask.scores(run, one.class_index)
    _same(run, one, dict(zip(members, scores(images).tolist(), strict=True)), ask)
    removal = taken_away(scores, images, where, ask.seed)
    without = ask.inputs(others, size)[1] if others else images[:0]
    insertion = put_in(scores, images, where, without, ask.seed) if len(without) else None
    return _graded(one, removal, insertion)


def _graded(one: Pattern, removal: Effect | None, insertion: Effect | None) -> Pattern:
    moved = [
        (word, effect)
        for word, effect in (("taken away", removal), ("put into other images", insertion))
        if effect is not None and effect.low > MOVES
    ]
    if removal is None and insertion is None:
        grade, why = "suspicion", "a box's evidence is not tried out."
    elif not moved:
        grade, why = "not shown", "neither taking its evidence away nor putting it into other images moves the score."
    elif one.off_object < 0.5:  # false of NaN
        grade, why = "on the object", "its evidence moves the score, and lies on the object: it may be an honest cue."
    elif one.errors > 0.5 and one.errors > 2 * one.elsewhere:
        grade, why = "misleads", "its evidence moves the score, and most of these answers are wrong."
    else:
        grade = "shown"
        why = "; ".join(f"{word}, its evidence moves the score by {effect.change:+.3f}" for word, effect in moved) + "."
    return replace(one, removal=removal, insertion=insertion, grade=grade, why=why)


_ORDER = ("shown", "misleads", "on the object", "suspicion", "not shown")


def _rank(one: Pattern) -> tuple[int, float, float]:
    """What was shown first, then what is seen in most views, then what moves the score most."""
    effect = max((e.change for e in (one.removal, one.insertion) if e is not None), default=0.0)
    return _ORDER.index(one.grade), -len(one.views), -effect
