"""OpenVINO."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from seewhy.models import Model
from seewhy.models.exported.openvino import OpenVINOModel

__all__ = ["OpenVINO"]


class OpenVINO:
    """Runs its own format (.xml), .tflite and .onnx files."""

    title: ClassVar[str] = "OpenVINO"
    suffixes: ClassVar[tuple[str, ...]] = (".xml", ".tflite", ".onnx")

    def installed(self) -> bool:
        """Whether its library is there."""
        return find_spec("openvino") is not None

    def holds(self, path: Path) -> bool:
        """Always."""
        return True

    def open(self, path: Path, forward_kwargs: Mapping[str, Any], trust: bool) -> Model:
        """See `seewhy.models.backends.Backend`."""
        return OpenVINOModel(path, forward_kwargs=forward_kwargs)
