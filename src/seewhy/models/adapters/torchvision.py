"""Objects of torchvision: detectors with all their candidates, networks for semantic segmentation and key points.

Its classifiers are torch modules like any other.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from seewhy.models import Model
from seewhy.models.dense_readers import Segmentation
from seewhy.models.torch.detectors import adapted
from seewhy.models.torch.model import TorchModel

__all__ = ["TorchVision"]


class TorchVision:
    """Networks of ``torchvision.models.detection`` and ``torchvision.models.segmentation``."""

    def __call__(self, network: Any) -> Model | None:
        """See `seewhy.models.adapters.Adapter`."""
        if not isinstance(network, nn.Module):
            return None
        if any(cls.__module__.startswith("torchvision.models.segmentation") for cls in type(network).__mro__):
            return TorchModel(network, output=Segmentation(scores="out"))
        found = adapted(network)
        return None if found is network else TorchModel(found)
