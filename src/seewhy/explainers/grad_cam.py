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

import torch
from torch import Tensor

from seewhy.explainers import Explainer
from seewhy.explainers._checks import name
from seewhy.explainers._pixel_gradient import pick
from seewhy.maps import full_precision
from seewhy.models import GradientModel, Gradients
from seewhy.targets import Request, TargetSet
from seewhy.types import Attribution

__all__ = ["GradCAM"]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class GradCAM(Explainer):
    """Feature maps of a layer, weighted by their mean gradient for the class (Selvaraju 2017).

    Attributes:
        layer: a module's name, "auto" for the last layer with a spatial map, "" for the input itself.
    """

    layer: str = "auto"

    needs: ClassVar[type] = GradientModel

    def _explain(self, model: GradientModel, inputs: Tensor, request: Request) -> Attribution:
        chosen: list[TargetSet] = []
        found = model.gradients(inputs, pick(request, chosen), self.layer)
        weights = channel_weights(found, chosen[0])
        with full_precision(weights):
            cam = torch.einsum("ntc,nchw->nthw", weights, found.maps.float())
        result = Attribution(raw=cam.relu(), outputs=found.outputs, targets=chosen[0].classes, layer=found.layer)
        negative = (cam.amax((2, 3)) <= 0) & (cam.amin((2, 3)) < 0)
        said = [
            f"{name(result, i, t).capitalize()}: its CAM is negative everywhere at layer {found.layer!r}, so the map "
            "is empty."
            for i, t in negative.nonzero().tolist()[:8]
        ]
        return Attribution(
            raw=result.raw,
            outputs=found.outputs,
            targets=result.targets,
            layer=found.layer,
            warnings=(*found.warnings, *said),
        )


def channel_weights(found: Gradients, targets: TargetSet) -> Tensor:
    """(N, T, C): each target's gradient, averaged over the positions."""
    if found.linear is not None and targets.classes is not None:
        return found.linear.weight.float()[targets.classes] / (found.maps.shape[2] * found.maps.shape[3])
    return torch.stack([found.of(t).mean((2, 3)) for t in range(targets.count)], 1)
