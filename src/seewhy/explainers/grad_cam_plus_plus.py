"""GradCAM++: GradCAM with weights that count every place where a channel speaks for the class, large or small.

    alpha_k(i, j) = g^2 / (2 g^2 + g^3 sum_ab A_k(a, b))   with g = d logit_c / d A_k(i, j)
    map = ReLU( sum_k  sum_ij( alpha_k(i, j) ReLU(g) ) * A_k )

The paper explains exp(logit), whose derivatives put the same positive factor on all weights of a map. It is left out:
it would overflow and changes no image. The paper takes A to come from a ReLU; where a channel sums to less than 0
the sum is taken as 0, because else alpha may be infinite or negative, and a warning says so.

Source: Chattopadhay et al., "Grad-CAM++: Improved Visual Explanations for Deep Convolutional Networks", 2018 (arXiv
1710.11063), equations 5, 7 and 19.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from seewhy.explainers._cam import GradientCAM
from seewhy.maps import places
from seewhy.models import Gradients
from seewhy.plain import Meaning
from seewhy.types import Note

__all__ = ["GradCAMPlusPlus"]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class GradCAMPlusPlus(GradientCAM):
    """Feature maps of a layer, weighted by their positive gradients of all sizes alike (Chattopadhay 2018).

    Example:
        >>> GradCAMPlusPlus(network)(inputs, 1).shape
        torch.Size([2, 1, 32, 32])
    """

    values: ClassVar[Meaning] = "size"

    @staticmethod
    def _weigh(gradients: Tensor, maps: Tensor) -> Tensor:
        axes = places(maps)[1:]
        positive, positions = gradients.relu(), maps.shape[3:].numel()
        total = maps.sum(axes, keepdim=True).relu()
        return (positive / (2 + positive * total)).mean(axes, keepdim=True) * positions  # g^2 divided out

    def _remarks(self, found: Gradients) -> list[Note]:
        count, total = int((found.maps.float().sum(places(found.maps)) < 0).any(0).sum()), found.maps.shape[1]
        if count == 0:
            return []
        text = (
            f"{count} of {total} channels of layer {found.layer!r} sum to less than 0. GradCAM++ is defined for a "
            "layer after a ReLU; their sums were taken as 0."
        )
        return [Note(text=text, kind="negative channels")]
