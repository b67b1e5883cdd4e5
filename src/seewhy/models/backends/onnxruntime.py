"""ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from seewhy.models import Model
from seewhy.models.exported.onnx import make

__all__ = ["ONNXRuntime"]


class ONNXRuntime:
    """Runs .onnx files; the onnx package cuts them, where it is installed."""

    title: ClassVar[str] = "ONNX Runtime"
    suffixes: ClassVar[tuple[str, ...]] = (".onnx",)

    def installed(self) -> bool:
        """Says whether its library is there."""
        return find_spec("onnxruntime") is not None

    def holds(self, path: Path) -> bool:
        """Returns True: every such file holds a network."""
        return True

    def open(self, path: Path, forward_kwargs: Mapping[str, Any], trust: bool) -> Model:
        """See `seewhy.models.backends.Backend`."""
        return make(path, forward_kwargs=forward_kwargs)
