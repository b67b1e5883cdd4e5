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

from seewhy.attribution import Attribution
from seewhy.explainers import Explainer
from seewhy.explainers._cam import differentiate, gradient_cam, rectified
from seewhy.models import GradientModel
from seewhy.targets import Request

__all__ = ["LayerCAM"]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class LayerCAM(Explainer):
    """Feature maps of a layer, weighted position by position by their positive gradient (Jiang 2021).

    Attributes:
        layer: a module's name, "auto" for the last layer with a spatial map (or tokens that matter to the scores), ""
            for the input itself.
    """

    layer: str = "auto"

    needs: ClassVar[type] = GradientModel

    def _explain(self, model: GradientModel, inputs: Tensor, request: Request) -> Attribution:
        found, targets = differentiate(model, inputs, request, self.layer)
        return rectified(gradient_cam(found, targets, _positive), found, targets)


def _positive(gradients: Tensor, _maps: Tensor) -> Tensor:
    return gradients.relu()
