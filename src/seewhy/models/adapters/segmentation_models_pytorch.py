"""Objects of segmentation_models_pytorch: networks for semantic segmentation."""

from __future__ import annotations

from typing import Any

from torch import nn

from seewhy.models import Model
from seewhy.models.dense_readers import Segmentation
from seewhy.models.torch.model import TorchModel

__all__ = ["SegmentationModelsPyTorch"]


class SegmentationModelsPyTorch:
    """Unet, FPN, DeepLabV3Plus and others; a second answer of theirs, a class for the whole picture, is not read."""

    def __call__(self, network: Any) -> Model | None:
        """See `seewhy.models.adapters.Adapter`."""
        known = isinstance(network, nn.Module) and hasattr(network, "segmentation_head")
        return TorchModel(network, output=Segmentation()) if known else None
