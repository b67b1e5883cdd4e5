"""ActivationMap: where a layer is active, whatever the class.

    map = mean over channels of the layer's output

Source: documented as the activation-map algorithm of OpenVINO Training Extensions (2022); the mean of activations as
a saliency map goes back to Zhou et al., "Learning Deep Features for Discriminative Localization", 2015.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from seewhy.attribution import Attribution, about_all
from seewhy.explainers import Explainer
from seewhy.explainers._cam import active_layer
from seewhy.models import FeatureModel
from seewhy.targets import Request

__all__ = ["ActivationMap"]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class ActivationMap(Explainer):
    """Mean activation of a layer at each position, the same for every class (OTX 2022).

    Attributes:
        layer: a module's name, "auto" for the last layer with a spatial map or tokens (before a LayerNorm), "" for the
            input itself.
    """

    layer: str = "auto"

    needs: ClassVar[type] = FeatureModel
    class_agnostic: ClassVar[bool] = True

    def _explain(self, model: FeatureModel, inputs: Tensor, request: Request) -> Attribution:
        found = model.features(inputs, active_layer(model, inputs, self.layer))
        targets = request.resolve(found.outputs)
        one = found.maps.float().mean(1, keepdim=True)
        return Attribution(
            raw=one.expand(-1, targets.count, -1, -1).contiguous(),
            outputs=found.outputs,
            targets=targets,
            layer=found.layer,
            notes=tuple(about_all(found.warnings)),
        )
