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

from seewhy.attribution import Attribution
from seewhy.explainers import Explainer
from seewhy.explainers._cam import differentiate, gradient_cam, rectified
from seewhy.models import GradientModel
from seewhy.targets import Request

__all__ = ["GradCAM"]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class GradCAM(Explainer):
    """Feature maps of a layer, weighted by their mean gradient for the class (Selvaraju 2017).

    Attributes:
        layer: a module's name, "auto" for the last layer with a spatial map (or tokens that matter to the scores), ""
            for the input itself.
    """

    layer: str = "auto"

    needs: ClassVar[type] = GradientModel

    def _explain(self, model: GradientModel, inputs: Tensor, request: Request) -> Attribution:
        found, targets = differentiate(model, inputs, request, self.layer)
        return rectified(gradient_cam(found, targets, _mean), found, targets)


def _mean(gradients: Tensor, _maps: Tensor) -> Tensor:
    return gradients.mean((3, 4), keepdim=True)
