"""TensorFlow.js graph models as torch modules."""

from __future__ import annotations

from typing import Any

from seewhy.registry import loaded

_PLACES = {"TFJSGraph": "graph", "read": "graph"}


def __getattr__(name: str) -> Any:
    return loaded(__name__, _PLACES, name)


def __dir__() -> list[str]:
    return sorted(_PLACES)
