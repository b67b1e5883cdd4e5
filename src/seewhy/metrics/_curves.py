"""What metrics share that change pixels in the order of a map and look at the score.

A map cuts the image into slabs of pixels, by falling saliency. Equal pixels come in a random order drawn from a seed;
a map that is flat but for rounding has equal pixels only. Together the slabs hold every pixel.

    deletion     score after the first k slabs were replaced, k = 0 .. S
    insertion    score when only the first k slabs are shown, k = 0 .. S
    single       score when slab k alone is replaced, k = 1 .. S, and of the untouched image (k = 0)

Areas are trapezoids over the share of pixels, from 0 to 1. All S + 1 images of a curve go through in common batches.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from seewhy import baseline as baselines
from seewhy.checks import check_count, check_seed
from seewhy.maps import FLAT, scale
from seewhy.metrics import Case, Cost, Metric, scores
from seewhy.metrics._answers import copies
from seewhy.metrics._correlation import pearson
from seewhy.perturbation import batch_size
from seewhy.types import Activation, check_activation

__all__ = [
    "PerturbationMetric", "RiseMetric", "StepMetric", "area", "background", "cells",
    "correlation", "deletion_auc", "edges", "insertion_auc", "means", "naive_faithfulness", "named", "places",
    "relevance", "replaced", "slabs",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False)
class PerturbationMetric(Metric):
    """A metric that scores changed copies of the image.

    Attributes:
        activation_fn: scores -> probabilities: "auto", "softmax", "sigmoid", None or a callable; see `seewhy.explain`.
        perturbation_per_eval: changed copies a forward pass, or "auto".
    """

    activation_fn: str | Activation | None = "auto"
    perturbation_per_eval: int | str = 32

    def __post_init__(self) -> None:
        check_activation(self.activation_fn)
        batch_size(self.perturbation_per_eval)


@dataclass(frozen=True, kw_only=True, eq=False)
class StepMetric(PerturbationMetric):
    """A metric whose slabs are equal shares of the pixels.

    Attributes:
        baseline: what replaces pixels: a number, "mean", "blur" or a tensor that broadcasts to (1, C, H, W).
        steps: slabs; as many as there are pixels where that is less.
        seed: of the order of equal pixels.
    """

    baseline: float | str | Tensor = 0.0
    steps: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        baselines.check(self.baseline)
        check_count("steps", self.steps, 2)
        check_seed(self.seed)

    def cost(self, height: int, width: int) -> Cost:
        """One pass for each slab and one for the image as it is."""
        return Cost(forward=min(self.steps, height * width) + 1)


@dataclass(frozen=True, kw_only=True, eq=False)
class RiseMetric(PerturbationMetric):
    """A metric of the RISE protocol: a fixed number of pixels a step.

    Attributes:
        pixels_per_step: pixels that change from one image to the next; the last step takes what is left.
        seed: of the order of equal pixels.
    """

    pixels_per_step: int = 224
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("pixels_per_step", self.pixels_per_step)
        check_seed(self.seed)

    def cost(self, height: int, width: int) -> Cost:
        """One pass for each step and one for the image it starts from."""
        return Cost(forward=-(-height * width // self.pixels_per_step) + 1)

    def _area(self, case: Case, start: Tensor, end: Tensor) -> float:
        last = case.saliency.numel()
        bounds = torch.tensor([*range(0, last, self.pixels_per_step), last], device="cpu")
        return area(bounds, replaced(self, case, slabs(case, bounds, self.seed), start, end))

    def _protocol(self, substrate: str) -> str:
        name = type(self).__name__
        return f"{name}: {substrate}, {self.pixels_per_step} pixels a step, {_scored(self.activation_fn)}, trapezoid"


def naive_faithfulness(how: StepMetric, case: Case) -> float:
    """(r + 1) / 2 with r the correlation of the slabs' mean saliency with the drops when each alone is replaced."""
    group = slabs(case, edges(case.saliency.numel(), how.steps), how.seed)
    found = replaced(how, case, group, case.image, background(how.baseline, case), together=False)
    return (correlation(means(relevance(case), group), found[0] - found[1:], float(found.abs().max())) + 1) / 2


def deletion_auc(how: StepMetric, case: Case) -> float:
    """1 - area under the share of the score that is left while slabs are replaced; NaN where there was no score."""
    bounds = edges(case.saliency.numel(), how.steps)
    base = background(how.baseline, case)
    found = replaced(how, case, slabs(case, bounds, how.seed), case.image, base)
    return 1 - area(bounds, _share(found, found[0]))


def insertion_auc(how: StepMetric, case: Case) -> float:
    """Area under the share of the score that is reached while slabs are shown; NaN where there is no score."""
    bounds = edges(case.saliency.numel(), how.steps)
    base = background(how.baseline, case)
    found = replaced(how, case, slabs(case, bounds, how.seed), base, case.image)
    return area(bounds, _share(found, found[-1]))


def replaced(
    how: PerturbationMetric, case: Case, group: Tensor, start: Tensor, end: Tensor, together: bool = True
) -> Tensor:
    """(S + 1,) float64 on the host: the scores while ``start`` turns into ``end``, slab by slab.

    Args:
        how: activation and batch size.
        case: whose target is scored.
        group: (H, W) the slab of each pixel, 1 to S.
        start: (C, H, W) the image before.
        end: (C, H, W) the image after.
        together: slabs 1 to k are changed in image k; otherwise slab k alone.
    """
    here = group.to(case.image.device)

    def change(index: Tensor) -> Tensor:
        k = index.view(-1, 1, 1, 1)
        return torch.where(here <= k if together else here == k, end, start)

    count = int(group.max()) + 1
    name = copies(start, end, group, together)
    found = scores(case, change, count, activation_fn=how.activation_fn, per_eval=how.perturbation_per_eval, name=name)
    return found.cpu().double()


def relevance(case: Case) -> Tensor:
    """(H, W) float64 on the host, where every device's order is the same; zeros where the map is flat but for rounding.

    Sums of float32 numbers are exact in it, so that equal parts of a map stay equal.
    """
    raw = case.saliency.detach().cpu().double()
    return raw if bool(scale(raw).any()) else torch.zeros_like(raw)


def places(values: Tensor, seed: int) -> Tensor:
    """The place of each value in falling order, 0 for the largest; equal values in an order drawn from ``seed``."""
    flat = values.flatten()
    mixed = torch.randperm(len(flat), generator=torch.Generator("cpu").manual_seed(seed), device="cpu")
    order = mixed[flat[mixed].argsort(descending=True, stable=True)]
    found = torch.empty_like(order)
    found[order] = torch.arange(len(order), device="cpu")
    return found.view(values.shape)


def edges(count: int, parts: int) -> Tensor:
    """(S + 1,) bounds of S = min(count, parts) slabs as equal as can be: from 0 to ``count``, none empty."""
    parts = min(count, parts)
    return torch.arange(parts + 1, device="cpu") * count // parts


def slabs(case: Case, bounds: Tensor, seed: int) -> Tensor:
    """(H, W) the slab of each pixel, 1 for the most salient ones."""
    return torch.searchsorted(bounds, places(relevance(case), seed), right=True)


def cells(height: int, width: int, rows: int, columns: int) -> Tensor:
    """(H, W) the cell of each pixel, 1 to rows * columns, in a regular grid of cells as equal as can be."""
    down = torch.arange(height, device="cpu") * rows // height
    across = torch.arange(width, device="cpu") * columns // width
    return down.unsqueeze(1) * columns + across + 1


def background(baseline: float | str | Tensor, case: Case) -> Tensor:
    """(C, H, W) what is shown in place of the image."""
    return baselines.make(baseline, case.image.unsqueeze(0))[0]


def area(x: Tensor, y: Tensor) -> float:
    """Returns the area under y(x) by the trapezoid rule, x stretched to end at 1."""
    return float(torch.trapezoid(y, x.double() / x[-1]))


def correlation(x: Tensor, y: Tensor, size: float) -> float:
    """Pearson's r; 0 where x or y is constant but for rounding.

    Args:
        x: (S,) float64.
        y: (S,) float64, differences of float32 numbers ...
        size: ... as large as this.
    """
    r = pearson(x, y) if float(y.max() - y.min()) > FLAT * size else float("nan")
    return r if r == r else 0.0


def named(baseline: float | str | Tensor) -> str:
    """How a baseline is called in a report."""
    if isinstance(baseline, Tensor):
        return f"a given tensor {tuple(baseline.shape)}"
    known = {"mean": "the image's mean colour", "blur": "the image blurred"}
    return known[baseline] if isinstance(baseline, str) else f"{baseline} in network space"


def _scored(function: str | Activation | None) -> str:
    if isinstance(function, str):
        return "probability" if function == "auto" else f"{function} probability"
    return "logit" if function is None else f"score after {getattr(function, '__name__', type(function).__name__)}"


def means(values: Tensor, group: Tensor) -> Tensor:
    """(S,) the mean of the values of each slab."""
    flat = group.flatten()
    return flat.bincount(values.flatten())[1:] / flat.bincount()[1:]


def _share(found: Tensor, whole: Tensor) -> Tensor:
    """Returns the scores as shares of the untouched image's, cut to 0 .. 1; NaN where that is not positive."""
    return (found / whole.where(whole > 0, whole.new_tensor(float("nan")))).clamp(0, 1)
