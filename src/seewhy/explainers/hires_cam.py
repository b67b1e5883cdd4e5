"""HiResCAM: what each position of a layer contributes to the class, to first order.

    map(i, j) = sum_k  d logit_c / d A_k(i, j) * A_k(i, j)

Where the rest of the network is linear the map adds up to the logit without its bias; for a mean over positions and a
linear layer the part above 0 is GradCAM's map. It is signed: no ReLU is put on it.

Source: Draelos and Carin, "Use HiResCAM instead of Grad-CAM for faithful explanations of convolutional neural
networks", 2020 (arXiv 2011.08891).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from seewhy.explainers._cam import GradientCAM
from seewhy.plain import Meaning

__all__ = ["HiResCAM"]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class HiResCAM(GradientCAM):
    """Feature maps of a layer times their gradient, position by position (Draelos 2020).

    Example:
        >>> HiResCAM(network, layer="act2")(inputs, 1).shape
        torch.Size([2, 1, 32, 32])
    """

    positive: ClassVar[bool] = False
    values: ClassVar[Meaning] = "part"

    @staticmethod
    def _weigh(gradients: Tensor, maps: Tensor) -> Tensor:
        return gradients
