"""LayerCAM: a layer's channels, weighted at each position by the part of the gradient that is above 0.

    map(i, j) = ReLU( sum_k  ReLU( d logit_c / d A_k(i, j) ) * A_k(i, j) )

Because the weights keep their place it is made for early layers too, whose maps are fine.

Source: Jiang et al., "LayerCAM: Exploring Hierarchical Class Activation Maps for Localization", 2021 (IEEE Transactions
on Image Processing 30).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from seewhy.explainers._cam import GradientCAM
from seewhy.plain import Meaning

__all__ = ["LayerCAM"]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class LayerCAM(GradientCAM):
    """Feature maps of a layer, weighted position by position by their positive gradient (Jiang 2021).

    Example:
        >>> LayerCAM(network, layer="act1")(inputs, 1).shape
        torch.Size([2, 1, 32, 32])
    """

    values: ClassVar[Meaning] = "part"

    @staticmethod
    def _weigh(gradients: Tensor, maps: Tensor) -> Tensor:
        return gradients.relu()
