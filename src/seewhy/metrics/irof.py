"""IROF: how soon does the score go when whole segments of the image are removed by falling saliency?

Segments go by their mean saliency, the most salient first. With p_l the class's probability after l of L segments were
replaced by the image's mean colour:

    1 - area under p_l / p_0 over l / L;  a negative p_l counts as 0

Source: Rieger and Hansen, "IROF: a low resource evaluation metric for explanation methods", 2020 (arXiv 2003.08747).
The paper's segments are SLIC superpixels (``method="slic"``, needs scikit-image). The default is a regular grid of as
many cells: it needs no library, is the same for every image and every device, and its cost is known beforehand.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from seewhy import baseline as baselines
from seewhy.checks import check_choice, check_count, check_seed
from seewhy.errors import MissingDependency
from seewhy.metrics import Case, Cost
from seewhy.metrics._curves import (
    PerturbationMetric,
    area,
    background,
    cells,
    means,
    places,
    relevance,
    replaced,
)

__all__ = ["IROF"]


@dataclass(frozen=True, kw_only=True, eq=False)
class IROF(PerturbationMetric):
    """Share of the score that is lost, on average, while segments are removed by falling saliency (Rieger 2020).

    Attributes:
        activation_fn: scores -> probabilities: "auto", "softmax", "sigmoid", None or a callable; see `seewhy.explain`.
        perturbation_per_eval: changed copies a forward pass, or "auto".
        segments: about how many segments an image has.
        method: "grid", cells as square as can be, or "slic", the paper's superpixels.
        baseline: what replaces segments: a number, "mean", "blur" or a tensor that broadcasts to (1, C, H, W).
        seed: of the order of equal segments.

    Example:
        >>> IROF().evaluate(seewhy.GradCAM(network), inputs, 1).shape
        torch.Size([2])
    """

    range: ClassVar[tuple[float, float]] = (float("-inf"), 1.0)

    segments: int = 300
    method: Literal["grid", "slic"] = "grid"
    baseline: float | str | Tensor = "mean"
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("segments", self.segments, 2)
        check_choice("method", self.method, ("grid", "slic"))
        baselines.check(self.baseline)
        check_seed(self.seed)

    def cost(self, height: int, width: int) -> Cost:
        """One pass for each segment and one for the image; with "slic" for as many segments as a grid has."""
        rows, columns = self._grid(height, width)
        return Cost(forward=rows * columns + 1)

    def _judge(self, case: Case) -> float:
        segment = self._segments(case.image)
        order = places(means(relevance(case), segment), self.seed) + 1
        found = replaced(self, case, order[segment - 1], case.image, background(self.baseline, case)).clamp_min(0)
        # Where the untouched image has no score the first share is 0 / 0, and so the result is NaN.
        return 1 - area(torch.arange(len(found), device="cpu"), found / found[0])

    def _segments(self, image: Tensor) -> Tensor:
        """(H, W) the segment of each pixel, counted from 1 without gaps."""
        if self.method == "slic":
            return _superpixels(image, self.segments)
        height, width = image.shape[1:]
        return cells(height, width, *self._grid(height, width))

    def _grid(self, height: int, width: int) -> tuple[int, int]:
        rows = min(height, max(1, round((self.segments * height / width) ** 0.5)))
        return rows, min(width, max(1, round(self.segments / rows)))


def _superpixels(image: Tensor, count: int) -> Tensor:
    """(C, H, W) -> (H, W) superpixels, counted from 1 without gaps.

    Raises:
        MissingDependency: scikit-image is not installed.
    """
    try:
        from skimage.segmentation import slic
    except ImportError as error:
        raise MissingDependency(
            "IROF(method='slic') needs scikit-image. Install it: pip install scikit-image. Or use method='grid'."
        ) from error
    # scikit-image stretches the image to [0, 1] and turns three channels into Lab, a hundred times as large.
    compactness = 10.0 if len(image) == 3 else 0.1
    picture = image.detach().cpu().double().permute(1, 2, 0).numpy()
    found = torch.from_numpy(slic(picture, n_segments=count, compactness=compactness, channel_axis=-1))
    _, numbered = torch.unique(found, return_inverse=True)
    return torch.as_tensor(numbered) + 1
