"""The counterfactual page: which few regions of a picture are enough for a label, or whose loss costs it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from seewhy.errors import InvalidInput
from seewhy.images.view import View
from seewhy.plain import Box
from seewhy.runs.query.run import Hit, SampleRecord
from seewhy.web.directions import falls
from seewhy.web.library import Opened
from seewhy.web.queries import CounterfactualQuery
from seewhy.web.saliency import Choice, frame, picture_urls
from seewhy.web.trees import checked

__all__ = ["Chosen", "CounterfactualPage", "Layer", "Small", "Step", "TreeLabel", "counterfactual"]


@dataclass(frozen=True, kw_only=True)
class Small:
    """A picture of the list; ``found`` counts its labels with a tree."""

    sample: str
    position: int
    name: str
    picture: str
    found: int
    chosen: bool


@dataclass(frozen=True, kw_only=True)
class TreeLabel:
    """A label for which a search was made, and whether it found something."""

    label: int
    name: str
    flag: str | None
    probability: float
    found: bool
    chosen: bool


@dataclass(frozen=True, kw_only=True)
class Step:
    """A window that was shown or hidden.

    Attributes:
        box: x, y, width, height in pixels of the original.
        layer: from 1.
        depth: in the tree, for the reader.
        probability: after the step, in the search that made it.
        gain: how much the step brought.
    """

    box: Box
    layer: int
    depth: int
    probability: float
    gain: float


@dataclass(frozen=True, kw_only=True)
class Layer:
    """The picture after a layer: its windows in pixels of the original, and the label's probability."""

    number: int
    boxes: list[Box]
    probability: float | None
    area: float
    chosen: bool


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """The picture that is shown.

    Attributes:
        size: (height, width) in pixels.
        seen: x, y, width, height: what the network saw of it.
        mode: "show": the windows suffice; "hide": the label is lost without them; None where nothing was searched.
        threshold: that the probability had to reach, or fall below.
        probability: of the untouched picture.
        reason: why nothing was found, or "".
        cut_off: probabilities of deeper layers that missed the threshold.
        layers: from coarse to fine.
        steps: of the tree, each followed by those inside its window.
    """

    sample: str
    position: int
    name: str
    size: tuple[int, int] | None
    seen: Box | None
    picture: str
    large: str
    labels: list[TreeLabel]
    label: TreeLabel | None
    mode: str | None
    threshold: float | None
    probability: float | None
    reason: str
    cut_off: list[float]
    layers: list[Layer]
    steps: list[Step]


@dataclass(frozen=True, kw_only=True)
class CounterfactualPage:
    """A list of pictures, and one of them with what was found.

    ``falls``: whether the largest value comes first; ``worst``: whether it does so where nobody asks.
    """

    run: str
    version: int
    asked: bool
    total: int
    page: int
    pages: int
    uncertain: bool
    chosen_labels: list[Choice]
    samples: list[Small]
    chosen: Chosen | None
    falls: bool
    worst: bool


def counterfactual(opened: Opened, query: CounterfactualQuery) -> CounterfactualPage:
    """Returns the page that an address asks for.

    Raises:
        InvalidInput: a filter that cannot be used.
    """
    run, version = opened.run, opened.version
    down = falls(run.settings, query.sort, query.descending)
    found = run.samples(
        labels=query.labels or None, flags=query.flags or None, text=query.text or None, sort=query.sort,
        descending=down, counterfactual=None if query.empty else True,
        offset=(query.page - 1) * query.limit, limit=query.limit,
    )  # fmt: skip
    hit = next((one for one in found if str(one.record.position) == query.sample), None)
    hit = hit or next(iter(found), None)
    return CounterfactualPage(
        run=opened.place.key, version=version, asked=bool(run.settings.get("counterfactual")), total=found.total,
        page=query.page, pages=max(1, -(-found.total // query.limit)), uncertain=bool(run.settings.get("uncertainty")),
        chosen_labels=[Choice(value=str(label), name=run.class_name(label)) for label in query.labels],
        samples=[_small(one.record, chosen=one is hit) for one in found],
        chosen=_chosen(opened, query, hit) if hit else None,
        falls=down, worst=falls(run.settings, query.sort, None),
    )  # fmt: skip


def _small(record: SampleRecord, *, chosen: bool) -> Small:
    return Small(
        sample=record.sample, position=record.position, name=record.name, picture=picture_urls(record)[0],
        found=sum(tree.found for tree in record.trees.values()), chosen=chosen,
    )  # fmt: skip


def _chosen(opened: Opened, query: CounterfactualQuery, hit: Hit) -> Chosen:
    record = hit.record
    order = sorted(record.trees, key=lambda one: (not record.trees[one].found, one not in hit.labels, -_p(record, one)))
    label = query.label if query.label in record.trees else next(iter(order), None)
    labels = [_tree_label(opened, record, one, chosen=one == label) for one in order]
    tree, damaged = _stored(opened, record, label)
    small, large = picture_urls(record)
    size, view = frame(record), _view(record)
    return Chosen(
        sample=record.sample, position=record.position, name=record.name, size=size,
        seen=_beside(view.box) if view else None, picture=small, large=large, labels=labels,
        label=next((one for one in labels if one.chosen), None),
        **(_told(tree, view, query.layer) | ({"reason": damaged} if damaged else {})),
    )  # fmt: skip


def _stored(opened: Opened, record: SampleRecord, label: int | None) -> tuple[dict[str, Any] | None, str]:
    """Returns the tree of a label, or why it cannot be drawn."""
    try:
        tree = opened.run.tree(record.sample, label) if label is not None else None
        return (None if tree is None else checked(tree)), ""
    except InvalidInput as error:
        return None, str(error)


def _p(record: SampleRecord, label: int) -> float:
    return record.labels[label].probability if label in record.labels else 0.0


def _tree_label(opened: Opened, record: SampleRecord, label: int, *, chosen: bool) -> TreeLabel:
    own = record.labels.get(label)
    return TreeLabel(
        label=label, name=opened.run.class_name(label), flag=own.flag if own else None,
        probability=_p(record, label), found=record.trees[label].found, chosen=chosen,
    )  # fmt: skip


def _view(record: SampleRecord) -> View | None:
    """Where the network's input lies in the picture; None where nothing is known of the picture."""
    size = frame(record)
    if size is None:
        return None
    return View.identity(*size) if record.box is None else View(original=size, box=record.box)


def _beside(corners: Box) -> Box:
    """Returns a box x0, y0, x1, y1 as x, y, width, height."""
    x0, y0, x1, y1 = corners
    return (x0, y0, x1 - x0, y1 - y0)


def _told(tree: dict[str, Any] | None, view: View | None, layer: int) -> dict[str, Any]:
    """What a stored tree says, in pixels of the original."""
    if tree is None or view is None:
        nothing: dict[str, Any] = {"mode": None, "threshold": None, "probability": None, "reason": "", "cut_off": []}
        return nothing | {"layers": [], "steps": []}
    about = {name: tree.get(name) for name in ("mode", "threshold", "probability")}
    about |= {"reason": str(tree.get("reason") or ""), "cut_off": list(tree.get("cut_off") or [])}
    root = tree.get("root")
    return about | {"layers": _layers(tree, root, view, layer), "steps": list(_steps(root, tree["size"], view))}


def _layers(tree: dict[str, Any], root: dict[str, Any] | None, view: View, layer: int) -> list[Layer]:
    probabilities = tree.get("layer_probabilities") or []
    chosen = layer if 1 <= layer <= len(probabilities) else len(probabilities)
    found = []
    for number, probability in enumerate(probabilities, 1):
        windows = [node["box"] for node in _frontier(root, number - 1)]
        boxes = [_placed(box, tree["size"], view) for box in windows]
        area = _covered(windows, tree["size"])
        found.append(Layer(number=number, boxes=boxes, probability=probability, area=area, chosen=number == chosen))
    return found


def _covered(windows: list[list[int]], size: list[int]) -> float:
    """Returns the share of the input that windows cover; they may overlap."""
    covered = np.zeros(size, dtype=bool)
    for x, y, width, height in windows:
        covered[y : y + height, x : x + width] = True
    return float(covered.mean())


def _frontier(node: dict[str, Any] | None, layer: int) -> Iterator[dict[str, Any]]:
    """What a layer consists of: its own windows, and earlier ones inside which nothing was found."""
    for child in node["children"] if node else ():
        if child["layer"] == layer or not child["children"]:
            yield child
        else:
            yield from _frontier(child, layer)


def _steps(node: dict[str, Any] | None, size: list[int], view: View, depth: int = 0) -> Iterator[Step]:
    for child in node["children"] if node else ():
        yield Step(
            box=_placed(child["box"], size, view), layer=child["layer"] + 1, depth=depth,
            probability=child["probability"], gain=child["gain"],
        )  # fmt: skip
        yield from _steps(child, size, view, depth + 1)


def _placed(box: list[float], size: list[int], view: View) -> Box:
    """Returns a window of the network's input, in pixels of the original."""
    x, y, width, height = box
    return _beside(view.box_to_original((x, y, x + width, y + height), (size[0], size[1])))
