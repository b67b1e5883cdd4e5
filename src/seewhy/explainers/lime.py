"""LIME: a linear model of the network near one image, in terms of "this part is shown or covered".

Parts (superpixels) are covered at random, each with probability 1/2; z_j is 1 where part j is shown, f(z) the class's
probability. The map shows, at every pixel of part j, the weight beta_j of the ridge regression

    minimise over beta, b   sum_z pi(z) (f(z) - b - z beta)^2 + alpha |beta|^2
    pi(z) = exp(-D(z)^2 / (2 width^2)),   D(z) = 1 - cos(z, 1) = 1 - sqrt(s / M)   with s of M parts shown

The image itself is one of the samples (z = 1). When ``num_masks`` allows it every coalition of parts is taken once
instead of a random choice. Coverings, cosine, width 0.25 and alpha 1 are those of the authors' program for images
(the paper writes the kernel without the 2, which only names the width otherwise). A map's own resolution is the
image's.

Source: Ribeiro, Singh and Guestrin, ""Why Should I Trust You?": Explaining the Predictions of Any Classifier", 2016
(arXiv 1602.04938).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from seewhy.checks import check_number
from seewhy.explainers._superpixels import OverSuperpixels, Plan, all_coalitions

__all__ = ["LIME"]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class LIME(OverSuperpixels):
    """Weights of a local linear model over superpixels (Ribeiro 2016).

    Attributes:
        activation_fn: scores -> probabilities: "auto", "softmax", "sigmoid", None or a callable; see `seewhy.explain`.
        perturbation_per_eval: partly covered copies a forward pass, or "auto".
        num_masks: partly covered copies an image, at most; all targets share them.
        segments: "grid" for square cells, "slic" for superpixels that follow the image (needs scikit-image), or an
            integer tensor (H, W) or (N, H, W) with a number for each part.
        grid: cells along the short side, or (down, across); "slic" aims at as many superpixels.
        baseline: what covers a part: a number, "mean", "blur" or a tensor that broadcasts to the inputs.
        seed: of the coalitions; the global random state is neither read nor changed.
        width: of the kernel: how far from the whole image samples still count.
        alpha: strength of the ridge penalty.

    Example:
        >>> LIME(network, grid=4, num_masks=200)(inputs, 1).shape
        torch.Size([2, 1, 32, 32])
    """

    width: float = 0.25
    alpha: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value in (("width", self.width), ("alpha", self.alpha)):
            check_number(name, value)

    def _plan(self, parts: int) -> Plan:
        if 2**parts - 1 <= self.num_masks:
            shown = all_coalitions(parts)[:-1]
        else:
            generator = torch.Generator("cpu").manual_seed(self.seed)
            shown = torch.rand((self.num_masks, parts), generator=generator, dtype=torch.float64, device="cpu") < 0.5
        distance = 1 - shown.double().mean(1).sqrt()
        return Plan(shown=shown, weights=torch.exp(-distance.square() / (2 * self.width**2)))

    def _values(self, plan: Plan, scores: Tensor, whole: Tensor) -> Tensor:
        shown = torch.cat([plan.shown, torch.ones_like(plan.shown[:1])]).double()
        moved = torch.cat([scores - whole, torch.zeros_like(whole).unsqueeze(0)])
        weights = torch.cat([plan.weights, plan.weights.new_ones(1)]).unsqueeze(1)
        centred = shown - (weights * shown).sum(0) / weights.sum()
        design = (weights * centred).T
        penalty = self.alpha * torch.eye(shown.shape[1], dtype=torch.float64, device="cpu")
        values: Tensor = torch.linalg.solve(design @ centred + penalty, design @ moved)
        return values.T
