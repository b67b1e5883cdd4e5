"""The torch side of the models: a module as a model, and what can be found out about it."""

from __future__ import annotations

from typing import Any

from seewhy.registry import loaded

_PLACES = {"TorchModel": "model"}


def __getattr__(name: str) -> Any:
    return loaded(__name__, _PLACES, name)


def __dir__() -> list[str]:
    return sorted(_PLACES)
