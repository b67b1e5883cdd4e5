"""Insertion: the area under the score while pixels are shown by falling saliency, by the protocol of RISE.

    area under p_k over the share of pixels shown;  224 pixels a step, on the image blurred with 11 x 11 pixels, sigma 5

The blur is that of the authors' evaluation: a Gaussian of sigma 5 reflected at the edges of a window of 11 pixels,
zeros around the image. Steps are weighted by their pixels, which matters for the last one only.

Source: Petsiuk, Das and Saenko, "RISE: Randomized Input Sampling for Explanation of Black-box Models", 2018 (arXiv
1806.07421).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from seewhy import baseline as baselines
from seewhy.maps import full_precision
from seewhy.metrics import Case
from seewhy.metrics._curves import RiseMetric, background, named

__all__ = ["Insertion"]

WINDOW, SIGMA = 11, 5


@dataclass(frozen=True, kw_only=True, eq=False)
class Insertion(RiseMetric):
    """Area under the score while pixels are shown by falling saliency, as RISE is judged (Petsiuk 2018).

    Within 0 and 1 for probabilities; anywhere for logits.

    Attributes:
        activation_fn: scores -> probabilities: "auto", "softmax", "sigmoid", None or a callable; see `seewhy.explain`.
        perturbation_per_eval: changed copies a forward pass, or "auto".
        pixels_per_step: pixels shown from one image to the next.
        seed: of the order of equal pixels.
        baseline: what pixels are shown on: a number, "mean", "blur" or a tensor that broadcasts to (1, C, H, W); None
            is the published blur of 11 x 11 pixels.

    Example:
        >>> Insertion().evaluate(seewhy.GradCAM(network), inputs, 1).shape
        torch.Size([2])
    """

    range: ClassVar[tuple[float, float]] = (float("-inf"), float("inf"))

    baseline: float | str | Tensor | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.baseline is not None:
            baselines.check(self.baseline)

    def describe(self) -> str:
        """Returns the protocol in words, to be printed with every number."""
        blurred = f"the image blurred with {WINDOW} x {WINDOW} pixels, sigma {SIGMA}"
        return self._protocol(f"pixels shown on {blurred if self.baseline is None else named(self.baseline)}")

    def _judge(self, case: Case) -> float:
        start = _published_blur(case.image) if self.baseline is None else background(self.baseline, case)
        return self._area(case, start, case.image)


def _published_blur(image: Tensor) -> Tensor:
    """(C, H, W) -> the same, blurred."""
    taps = torch.arange(-4 * SIGMA, 4 * SIGMA + 1, device="cpu")
    gauss = torch.exp(-0.5 * (taps.double() / SIGMA) ** 2)
    turned = (taps + WINDOW // 2) % (2 * WINDOW)
    row = torch.minimum(turned, 2 * WINDOW - 1 - turned).bincount(gauss / gauss.sum()).float().to(image.device)
    with full_precision(image):
        flat = image.float().unsqueeze(1)
        across = F.conv2d(flat, row.view(1, 1, 1, -1), padding=(0, WINDOW // 2))
        return F.conv2d(across, row.view(1, 1, -1, 1), padding=(WINDOW // 2, 0))[:, 0].to(image.dtype)
