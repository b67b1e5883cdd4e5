"""ActivationMap: where a layer is active, whatever the class.

    map = mean over channels of the layer's output

Source: documented as the activation-map algorithm of OpenVINO Training Extensions (2022); the mean of activations as
a saliency map goes back to Zhou et al., "Learning Deep Features for Discriminative Localization", 2015.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from seewhy.explainers._cam import ActivationsAlone
from seewhy.types import Note

__all__ = ["ActivationMap"]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class ActivationMap(ActivationsAlone):
    """Mean activation of a layer at each position, the same for every class (OTX 2022).

    Example:
        >>> ActivationMap(network, layer="act2").attribute(inputs, native=True).shape
        torch.Size([2, 1, 8, 8])
    """

    @staticmethod
    def _map(maps: Tensor) -> tuple[Tensor, list[Note]]:
        return maps.float().mean(1), []
