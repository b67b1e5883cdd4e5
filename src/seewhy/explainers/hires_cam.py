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

from seewhy.attribution import Attribution
from seewhy.explainers import Explainer
from seewhy.explainers._cam import attribution, differentiate, gradient_cam
from seewhy.models import GradientModel
from seewhy.targets import Request

__all__ = ["HiResCAM"]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class HiResCAM(Explainer):
    """Feature maps of a layer times their gradient, position by position (Draelos 2020).

    Attributes:
        layer: a module's name, "auto" for the last layer with a spatial map (or tokens that matter to the scores), ""
            for the input itself.
    """

    layer: str = "auto"

    needs: ClassVar[type] = GradientModel

    def _explain(self, model: GradientModel, inputs: Tensor, request: Request) -> Attribution:
        found, targets = differentiate(model, inputs, request, self.layer)
        return attribution(gradient_cam(found, targets, _itself), found, targets)


def _itself(gradients: Tensor, _maps: Tensor) -> Tensor:
    return gradients
