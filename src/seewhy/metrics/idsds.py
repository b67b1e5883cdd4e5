"""IDSDS, the single-deletion score: do the patches that a map calls important matter most when each is deleted alone?

The image is cut in a grid of patches. With a_k the saliency of patch k and d_k the fall of the class's logit when that
patch alone is replaced:

    Spearman's rank correlation of a and d, in [-1, 1];  0 where either is constant

Source: Hesse, Schaub-Meyer and Roth, "Benchmarking the Attribution Quality of Vision Models", 2024 (arXiv 2407.11910).
The score is "in-domain", and so comparable between networks, for a network that was fine-tuned on images with deleted
patches; for any other it is their plain single-deletion score. The mean is taken of each patch, not the sum, so that
patches of an image that cannot be cut evenly count alike; where it can, the ranks are the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from seewhy import baseline as baselines
from seewhy.checks import sides
from seewhy.errors import InvalidInput
from seewhy.maps import FLAT
from seewhy.metrics import Case, Cost
from seewhy.metrics._correlation import spearman
from seewhy.metrics._curves import PerturbationMetric, background, cells, means, relevance, replaced
from seewhy.types import Activation

__all__ = ["IDSDS"]


@dataclass(frozen=True, kw_only=True, eq=False)
class IDSDS(PerturbationMetric):
    """Rank correlation of the saliency of patches with the drop when each alone is deleted (Hesse 2024).

    Attributes:
        activation_fn: None (logits, as published), "softmax", "sigmoid" or a callable.
        perturbation_per_eval: changed copies a forward pass, or "auto".
        grid: patches along each side, or (down, across).
        baseline: what replaces a patch: a number, "mean", "blur" or a tensor that broadcasts to (1, C, H, W).

    Example:
        >>> IDSDS().evaluate(seewhy.GradCAM(network), inputs, 1).shape
        torch.Size([2])
    """

    range: ClassVar[tuple[float, float]] = (-1.0, 1.0)

    activation_fn: str | Activation | None = None
    grid: int | tuple[int, int] = 4
    baseline: float | str | Tensor = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        sides("grid", self.grid)
        baselines.check(self.baseline)

    def cost(self, height: int, width: int) -> Cost:
        """One pass for each patch and one for the image as it is."""
        rows, columns = sides("grid", self.grid)
        return Cost(forward=rows * columns + 1)

    def _judge(self, case: Case) -> float:
        rows, columns = sides("grid", self.grid)
        height, width = case.saliency.shape
        if rows > height or columns > width:
            raise InvalidInput(f"grid {(rows, columns)} has more patches than the picture, {(height, width)}, pixels.")
        patches = cells(height, width, rows, columns)
        found = replaced(self, case, patches, case.image, background(self.baseline, case), together=False)
        rounding = FLAT * float(found.abs().max()) or 1.0
        drops = ((found[0] - found[1:]) / rounding).round()  # drops that differ by rounding only share a rank
        alike = spearman(means(relevance(case), patches), drops)
        return alike if alike == alike else 0.0
