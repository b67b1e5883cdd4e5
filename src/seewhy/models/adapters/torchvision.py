"""Objects of torchvision: detectors with all their candidates. Its classifiers are torch modules like any other."""

from __future__ import annotations

from typing import Any

from torch import nn

from seewhy.models import Model
from seewhy.models.torch.detectors import adapted
from seewhy.models.torch.model import TorchModel

__all__ = ["TorchVision"]


class TorchVision:
    """Detectors of ``torchvision.models.detection``."""

    def __call__(self, network: Any) -> Model | None:
        """See `seewhy.models.adapters.Adapter`."""
        if not isinstance(network, nn.Module):
            return None
        found = adapted(network)
        return None if found is network else TorchModel(found)
