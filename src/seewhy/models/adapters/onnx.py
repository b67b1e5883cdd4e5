"""Objects of onnx: graphs in memory."""

from __future__ import annotations

from typing import Any

from seewhy.models import Model
from seewhy.models.exported.onnx import ONNXModel

__all__ = ["ONNX"]


class ONNX:
    """``onnx.ModelProto``."""

    def __call__(self, network: Any) -> Model | None:
        """See `seewhy.models.adapters.Adapter`."""
        return ONNXModel(network) if type(network).__name__ == "ModelProto" else None
