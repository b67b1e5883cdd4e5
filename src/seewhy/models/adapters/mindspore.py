"""Objects of MindSpore: cells."""

from __future__ import annotations

from typing import Any

from seewhy.foreign import is_cell
from seewhy.models import Model
from seewhy.models.mindspore.model import MindSporeModel

__all__ = ["MindSpore"]


class MindSpore:
    """``mindspore.nn.Cell``."""

    def __call__(self, network: Any) -> Model | None:
        """See `seewhy.models.adapters.Adapter`."""
        return MindSporeModel(network) if is_cell(network) else None
