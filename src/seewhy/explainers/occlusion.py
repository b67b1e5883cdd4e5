"""Occlusion: how much the class's probability falls when a window of the image is covered.

    map(i, j) = mean over the windows that cover (i, j) of  p_c(x) - p_c(x with the window covered)

Source: Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", 2013 (arXiv 1311.2901).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from seewhy import baseline as baselines
from seewhy.attribution import Attribution
from seewhy.checks import sides
from seewhy.errors import InvalidInput
from seewhy.explainers import Explainer
from seewhy.explainers._checks import unmoved
from seewhy.maps import full_precision
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
        window: side in pixels, or (height, width); by default 1/7 of the short side.
        stride: step in pixels, or (down, right); by default half the window. The last window ends at the border.
        baseline: what covers the window: a number, "mean", "blur" or a tensor that broadcasts to the inputs.

    Example:
        >>> Occlusion(network, window=8, stride=4)(inputs, 1).shape
        torch.Size([2, 1, 32, 32])
    """

    activation_fn: str | Activation | None = "auto"
    perturbation_per_eval: int | str = 32
    window: int | tuple[int, int] | None = None
    stride: int | tuple[int, int] | None = None
    baseline: float | str | Tensor = 0.0

    values: ClassVar[Meaning] = "change"
    offered: ClassVar[int] = 4

    def __post_init__(self) -> None:
        check_activation(self.activation_fn)
        batch_size(self.perturbation_per_eval)
        baselines.check(self.baseline)
        for field in ("window", "stride"):
            _pair(field, getattr(self, field))

    def _explain(self, model: Model, inputs: Tensor, request: Request) -> Attribution:
        rows, columns = (_inside(*sides, inputs.device) for sides in self._windows(inputs.shape[2], inputs.shape[3]))
        cover = baselines.make(self.baseline, inputs)
        outputs = model(inputs)
        settled = settle(model, inputs, outputs, self.activation_fn)
        activate = settled.put
        targets = request.resolve(outputs)

        def perturb(images: Tensor, windows: Tensor) -> Tensor:
            inside = rows[windows // len(columns)].unsqueeze(2) & columns[windows % len(columns)].unsqueeze(1)
            return torch.where(inside.unsqueeze(1), cover[images], inputs[images])

        after = perturbed_scores(
            model, inputs, perturb, len(rows) * len(columns), targets=targets, activate=activate,
            per_eval=self.perturbation_per_eval,
        )  # fmt: skip
        before = targets.values(probabilities(outputs, targets, activate))
        drops = (before.unsqueeze(1) - after).transpose(1, 2).unflatten(2, (len(rows), len(columns)))
        raw = _mean_over_windows(drops, rows.float(), columns.float())
        notes = (*settled.notes, *unmoved(drops.flatten(2), "window"))
        return Attribution(raw=raw, outputs=outputs, targets=targets, notes=notes, quantity=settled.quantity)

    def _windows(self, height: int, width: int) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
        """(side of the image, window, step) down and right.

        Raises:
            InvalidInput: the window is larger than the image, or a step larger than the window leaves gaps.
        """
        side = max(1, round(min(height, width) / 7))
        window = _pair("window", self.window) or (side, side)
        stride = _pair("stride", self.stride) or (max(1, window[0] // 2), max(1, window[1] // 2))
        if window[0] > height or window[1] > width:
            raise InvalidInput(f"window {window} is larger than the picture, {(height, width)}.")
        if stride[0] > window[0] or stride[1] > window[1]:
            raise InvalidInput(f"stride {stride} is larger than window {window}: some pixels would never be covered.")
        return (height, window[0], stride[0]), (width, window[1], stride[1])


def _inside(length: int, window: int, step: int, device: torch.device) -> Tensor:
    """(windows, length) bool: which pixels of one axis each window covers; the last window ends at the border."""
    starts = list(range(0, length - window + 1, step))
    if starts[-1] != length - window:
        starts.append(length - window)
    first = torch.tensor(starts, device=device).unsqueeze(1)
    pixels = torch.arange(length, device=device)
    return (pixels >= first) & (pixels < first + window)


def _mean_over_windows(drops: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """(N, T, rows, columns) -> (N, T, H, W): two matrix products instead of a sum of masks at the image's size."""
    covered = rows.sum(0).unsqueeze(1) * columns.sum(0)
    with full_precision(drops):
        return rows.T @ drops @ columns / covered


def _pair(name: str, value: Any) -> tuple[int, int] | None:
    return None if value is None else sides(name, value, "(height, width)")
