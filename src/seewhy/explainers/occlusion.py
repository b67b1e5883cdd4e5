"""Occlusion: how much the class's probability falls when a window of the image is covered.

    map(i, j) = mean over the windows that cover (i, j) of  p_c(x) - p_c(x with the window covered)

Source: Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", 2013 (arXiv 1311.2901).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import reduce
from typing import Any, ClassVar

import torch
from torch import Tensor

from seewhy import baseline as baselines
from seewhy.attribution import Attribution
from seewhy.checks import sides_of
from seewhy.errors import InvalidInput
from seewhy.explainers import Explainer
from seewhy.explainers._checks import unmoved
from seewhy.maps import across, full_precision, size_of
from seewhy.models import Model
from seewhy.perturbation import batch_size, perturbed_scores, probabilities, settle
from seewhy.plain import Meaning
from seewhy.targets import Request
from seewhy.types import Activation, check_activation

__all__ = ["Occlusion"]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Occlusion(Explainer):
    """Fall of the class's probability when a sliding window is covered (Zeiler and Fergus 2013).

    Attributes:
        activation_fn: scores -> probabilities: "auto", "softmax", "sigmoid", None or a callable; see `seewhy.explain`.
        perturbation_per_eval: covered copies a forward pass, or "auto".
        window: side in pixels, or (height, width); by default 1/7 of the short side. Of volumes and clips
            (depth, height, width), where the depth is 1/7 of theirs.
        stride: step in pixels, or (down, right), (deep, down, right); by default half the window. The last window ends
            at the border.
        baseline: what covers the window: a number, "mean", "blur" or a tensor that broadcasts to the inputs.

    Example:
        >>> Occlusion(network, window=8, stride=4)(inputs, 1).shape
        torch.Size([2, 1, 32, 32])
    """

    activation_fn: str | Activation | None = "auto"
    perturbation_per_eval: int | str = 32
    window: int | tuple[int, ...] | None = None
    stride: int | tuple[int, ...] | None = None
    baseline: float | str | Tensor = 0.0

    values: ClassVar[Meaning] = "change"
    volumes: ClassVar[bool] = True
    offered: ClassVar[int] = 4

    def __post_init__(self) -> None:
        check_activation(self.activation_fn)
        batch_size(self.perturbation_per_eval)
        baselines.check(self.baseline)
        for field in ("window", "stride"):
            _sides(field, getattr(self, field), 0)

    def _explain(self, model: Model, inputs: Tensor, request: Request) -> Attribution:
        axes = [_inside(*sides, inputs.device) for sides in self._windows(size_of(inputs))]
        counts = [len(one) for one in axes]
        cover = baselines.make(self.baseline, inputs)
        outputs = model(inputs)
        settled = settle(model, inputs, outputs, self.activation_fn)
        activate = settled.put
        targets = request.resolve(outputs)

        def perturb(images: Tensor, windows: Tensor) -> Tensor:
            places = torch.unravel_index(windows, counts)
            inside = reduce(_and, (one[place] for one, place in zip(axes, places, strict=True)))
            return torch.where(inside.unsqueeze(1), cover[images], inputs[images])

        after = perturbed_scores(
            model, inputs, perturb, math.prod(counts), targets=targets, activate=activate,
            per_eval=self.perturbation_per_eval,
        )  # fmt: skip
        before = targets.values(probabilities(outputs, targets, activate))
        drops = (before.unsqueeze(1) - after).transpose(1, 2).unflatten(2, counts)
        raw = _mean_over_windows(drops, [one.float() for one in axes])
        notes = (*settled.notes, *unmoved(drops.flatten(2), "window"))
        return Attribution(raw=raw, outputs=outputs, targets=targets, notes=notes, quantity=settled.quantity)

    def _windows(self, size: tuple[int, ...]) -> list[tuple[int, int, int]]:
        """(side of the image, window, step) of each axis.

        Raises:
            InvalidInput: the window is larger than the image, or a step larger than the window leaves gaps.
        """
        side, axes = max(1, round(min(size[-2:]) / 7)), len(size)
        window = _sides("window", self.window, axes) or (*(max(1, round(d / 7)) for d in size[:-2]), side, side)
        stride = _sides("stride", self.stride, axes) or tuple(max(1, one // 2) for one in window)
        if any(one > whole for one, whole in zip(window, size, strict=True)):
            what = "picture" if axes == 2 else "volume"
            raise InvalidInput(f"window {window} is larger than the {what}, {size}.")
        if any(step > one for step, one in zip(stride, window, strict=True)):
            raise InvalidInput(f"stride {stride} is larger than window {window}: some pixels would never be covered.")
        return list(zip(size, window, stride, strict=True))


def _inside(length: int, window: int, step: int, device: torch.device) -> Tensor:
    """(windows, length) bool: which pixels of one axis each window covers; the last window ends at the border."""
    starts = list(range(0, length - window + 1, step))
    if starts[-1] != length - window:
        starts.append(length - window)
    first = torch.tensor(starts, device=device).unsqueeze(1)
    pixels = torch.arange(length, device=device)
    return (pixels >= first) & (pixels < first + window)


def _and(known: Tensor, axis: Tensor) -> Tensor:
    """(B, ...) and (B, L) -> (B, ..., L)."""
    return known.unsqueeze(-1) & axis.view(len(axis), *[1] * (known.ndim - 1), -1)


def _mean_over_windows(drops: Tensor, axes: list[Tensor]) -> Tensor:
    """(N, T, rows, columns) -> (N, T, H, W): two matrix products instead of a sum of masks at the image's size."""
    covered = reduce(lambda known, one: known.unsqueeze(-1) * one, (one.sum(0) for one in axes))
    with full_precision(drops):
        return across(drops, [one.T for one in axes]) / covered


def _sides(name: str, value: Any, axes: int) -> tuple[int, ...] | None:
    return None if value is None else sides_of(name, value, axes, "(height, width)")
