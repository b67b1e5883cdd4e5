"""Objects of torch: modules and scripts."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.jit import ScriptModule

from seewhy.models import Model
from seewhy.models.torch.model import TorchModel
from seewhy.models.torch.script import ScriptModel

__all__ = ["Torch"]


class Torch:
    """``torch.nn.Module`` and ``torch.jit.ScriptModule``."""

    def __call__(self, network: Any) -> Model | None:
        """See `seewhy.models.adapters.Adapter`."""
        if isinstance(network, ScriptModule):
            return ScriptModel(network)
        return TorchModel(network) if isinstance(network, nn.Module) else None
