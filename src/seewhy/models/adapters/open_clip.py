"""Objects of open_clip: networks of images and texts."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from seewhy.models import Model
from seewhy.models.torch.model import TorchModel
from seewhy.models.torch.towers import Towers

__all__ = ["OpenCLIP"]


class OpenCLIP:
    """``open_clip.CLIP``, ``CustomTextCLIP`` and others with ``encode_image`` and ``encode_text``."""

    def __call__(self, network: Any) -> Model | None:
        """See `seewhy.models.adapters.Adapter`."""
        both = hasattr(network, "encode_image") and hasattr(network, "encode_text")
        return TorchModel(_Towers(network), title=type(network).__name__) if both and _is_module(network) else None


class _Towers(Towers):
    def image(self, images: Tensor) -> Tensor:
        """See `Towers`."""
        network: Any = self.whole
        found: Tensor = network.encode_image(images)
        return found

    def text(self, texts: list[str]) -> Tensor:
        """See `Towers`."""
        network: Any = self.whole
        found: Tensor = network.encode_text(self.tokenizer(texts).to(self.scale.device))
        return found


def _is_module(network: Any) -> bool:
    return isinstance(network, nn.Module)
