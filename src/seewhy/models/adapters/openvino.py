"""Objects of OpenVINO: graphs in memory, and graphs that are compiled already."""

from __future__ import annotations

from typing import Any

from seewhy.models import Model
from seewhy.models.exported.openvino import OpenVINOModel, compiled

__all__ = ["OpenVINO"]


class OpenVINO:
    """``openvino.Model`` and ``openvino.CompiledModel``."""

    def __call__(self, network: Any) -> Model | None:
        """See `seewhy.models.adapters.Adapter`."""
        if type(network).__name__ == "CompiledModel":
            return compiled(network)
        return OpenVINOModel(network) if type(network).__name__ == "Model" else None
