"""The torch side of the models: a module as a model, and what can be found out about it."""

from __future__ import annotations

import importlib
from typing import Any

_PLACES = {"TorchModel": "model"}


def __getattr__(name: str) -> Any:
    if (place := _PLACES.get(name)) is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{place}"), name)


def __dir__() -> list[str]:
    return sorted(_PLACES)
