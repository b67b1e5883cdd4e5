"""GradCAM: a layer's channels, weighted by how much each speaks for the class.

    map = ReLU( sum_k  mean_ij( d logit_c / d A_k(i, j) ) * A_k )

Only the part above the layer is differentiated; below it no graph is made. Where that part is a mean over h x w
positions and a linear layer W, the gradient is W_ck / (h w) and nothing is differentiated at all.

Source: Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization", 2017
(arXiv 1610.02391).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from seewhy.explainers._cam import GradientCAM
from seewhy.maps import places
from seewhy.plain import Meaning

__all__ = ["GradCAM"]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class GradCAM(GradientCAM):
    """Feature maps of a layer, weighted by their mean gradient for the class (Selvaraju 2017).

    Example:
        >>> GradCAM(network)(inputs).shape  # of the class that the network predicts
        torch.Size([2, 1, 32, 32])
        >>> GradCAM(network, layer="act1").attribute(inputs, [[0, 3], [1, 4]], native=True).shape  # raw, as made
        torch.Size([2, 2, 16, 16])
    """

    values: ClassVar[Meaning] = "part"
    offered: ClassVar[int] = 1

    @staticmethod
    def _weigh(gradients: Tensor, maps: Tensor) -> Tensor:
        return gradients.mean(places(maps)[1:], keepdim=True)
