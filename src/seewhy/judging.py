"""One image's maps, made and judged: what `compare` and runs have in common.

A sample, an explainer and metrics become rows: a map with what it cost, then one `Judgement` for each metric. Whatever
an explainer or a metric raises is a row with its reason, and the others go on.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from seewhy import registry
from seewhy.attribution import Attribution
from seewhy.boxes import box_mask
from seewhy.errors import FAILURES, SeewhyError, UnknownName, nearest
from seewhy.explainers import Explainer
from seewhy.images.reading import read_mask
from seewhy.images.view import View
from seewhy.maps import upsample
from seewhy.metrics import Case, Metric, Said, explaining, remembering, resampling
from seewhy.models import Model
from seewhy.models.quickest import PASSES
from seewhy.plain import readable
from seewhy.types import Sample

__all__ = [
    "BASELINES",
    "Judgement",
    "baselines",
    "case",
    "explain",
    "judge",
    "passes",
    "quickly",
    "reason",
    "remembering",
    "truth",
    "truth_of_boxes",
    "truth_of_target",
]


_SIDE = 224  # of an image, for estimates
BASELINES = {"random": "random_map", "centre": "centre_map"}


def baselines(
    model: Model | None, methods: Mapping[str, Explainer], wanted: bool | Iterable[str]
) -> dict[str, Explainer]:
    """The explainers that look at nothing and show what chance gives, those left out that are among the methods.

    Args:
        model: what is explained; None to see whether the names are right.
        methods: label -> explainer.
        wanted: all, none, or the labels of those that are wanted.

    Raises:
        UnknownName: there is no such baseline.
    """
    names = ([*BASELINES] if wanted else []) if isinstance(wanted, bool) else list(wanted)
    if wrong := [name for name in names if name not in BASELINES]:
        raise UnknownName(f"There is no baseline {wrong[0]!r}. {nearest(wrong[0], BASELINES)}")
    made = {name: registry.load("explainers", BASELINES[name])(model) for name in names}
    return {name: one for name, one in made.items() if name not in methods and one not in methods.values()}


class Judgement(NamedTuple):
    """What a metric made of one map.

    Attributes:
        metric: its label.
        value: NaN where there was nothing to judge, and where it failed.
        forward: images that went through the network for it.
        error: what stood against it; None where nothing did.
        said: what the metric says beside its value; "" where it says nothing.
    """

    metric: str
    value: float
    forward: float
    error: BaseException | None = None
    said: str = ""


def reason(error: BaseException) -> str:
    """How a failure is told: our own messages as they are, others with their kind; always valid Unicode."""
    text = str(error).strip() or "no message"
    told = text if isinstance(error, SeewhyError) else f"{type(error).__name__}: {text}"
    return readable(told)


def quickly(explainer: Explainer, quick: Model | None) -> Explainer:
    """Returns the explainer with a quicker form of the model, where it asks for scores alone; else as it is."""
    return explainer if quick is None or explainer.needs is not Model else replace(explainer, network=quick)


def passes(explainers: Sequence[Explainer], metrics: Iterable[Metric]) -> int:
    """Returns about how many passes a picture will take that a quicker form of the model can make."""
    each = [one for one in explainers if one.needs is Model and not one.chance]
    asking = [one for one in metrics if not one.needs_explainer]
    judged = sum(one.cost(_SIDE, _SIDE).forward for one in asking)
    return PASSES * len(each) + judged * len(explainers)


def explain(explainer: Explainer, inputs: Tensor, targets: Any) -> tuple[Attribution, float]:
    """Returns the maps of ``inputs`` (N, C, H, W), and the seconds that they took."""
    began = time.perf_counter()
    found = explainer.run(inputs, targets)
    return found, time.perf_counter() - began


def case(
    model: Model, explainer: Explainer, inputs: Tensor, target: Any, raw: Tensor, find: Callable[[], Tensor | None]
) -> Case | BaseException:
    """One map with what metrics need, or what stands against it.

    Args:
        model: what was explained.
        explainer: what made the map, for metrics that have other images explained.
        inputs: (1, C, H, W).
        target: a class index or a `Target`.
        raw: (h, w) in the explainer's own resolution.
        find: gives (H, W) bool, where the object is, or None where that is not known.
    """
    try:
        found, size = find(), (inputs.shape[2], inputs.shape[3])
        return Case(
            model=model, image=inputs[0], target=target, saliency=upsample(raw[None, None], size)[0, 0],
            truth=None if found is None else found.to(inputs.device), explain=explaining(explainer, model),
            resample=resampling(explainer, model),
        )  # fmt: skip
    except FAILURES as error:
        return error


def judge(
    about: Case | BaseException, metrics: Mapping[str, Metric],
    limit: Callable[[], AbstractContextManager[Any]] = nullcontext, quick: Model | None = None,
) -> Iterator[Judgement]:  # fmt: skip
    """Each metric's number of a map; without truth, metrics that need it have nothing to judge.

    Args:
        about: as `case` gives it.
        metrics: label -> metric.
        limit: wraps the work of each.
        quick: a quicker form of the model, for metrics that ask it for scores alone.
    """
    for label, metric in metrics.items():
        if isinstance(about, BaseException):
            yield Judgement(label, float("nan"), 0, about)
            continue
        before, found, failed = replace(about.model.passes), Said(float("nan")), None
        try:
            if about.truth is not None or not metric.needs_truth:
                with limit():
                    own = about if quick is None or metric.needs_explainer else replace(about, model=quick)
                    found = metric.said(own)
        except FAILURES as error:  # the other metrics' results are not lost
            failed = error
        yield Judgement(label, found.value, about.model.passes.since(before).forward, failed, found.text)


# --------------------------------------------------------------------------------------------- where the object is


def truth_of_target(sample: Sample, view: View, target: Any, size: tuple[int, int]) -> Tensor | None:
    """(H, W) bool: where the one object of a sample is: its mask, else what `truth` knows of its class."""
    if sample.mask is not None:
        return _of_mask(sample.mask, view, size)
    return truth(sample, view, target, size) if isinstance(target, int) else None


def truth(sample: Sample, view: View, label: int, size: tuple[int, int]) -> Tensor | None:
    """(H, W) bool: where a class is, as the network's input sees it; None where that is not known.

    Args:
        sample: with masks or boxes.
        view: which part of the image the input covers.
        label: the class.
        size: height and width of the input.
    """
    if label in sample.masks:
        return _of_mask(sample.masks[label], view, size)
    boxes = [box[1:] for box in sample.boxes if box[0] == label]
    if boxes:
        return truth_of_boxes(boxes, view, size)
    only = sample.labels is not None and set(sample.labels) == {label}
    return _of_mask(sample.mask, view, size) if sample.mask is not None and only else None


def _of_mask(mask: Any, view: View, size: tuple[int, int]) -> Tensor:
    found = read_mask(mask) if isinstance(mask, str | os.PathLike) else mask
    return torch.from_numpy(view.to_input(found, size))


def truth_of_boxes(boxes: Sequence[Sequence[float]], view: View, size: tuple[int, int]) -> Tensor:
    """(H, W) bool: pixels of the input that lie in a box (x0, y0, x1, y1 in the image's pixels)."""
    return box_mask([view.box_to_input(box, size) for box in boxes], size)
