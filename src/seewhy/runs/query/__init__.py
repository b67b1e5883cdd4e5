"""What reads a run folder, also while it is written. Nothing here computes."""

from __future__ import annotations

import importlib
from typing import Any

_PLACES = {"Run": "run"}


def __getattr__(name: str) -> Any:
    if (place := _PLACES.get(name)) is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{place}"), name)


def __dir__() -> list[str]:
    return sorted(_PLACES)
