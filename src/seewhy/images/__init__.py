"""Images: reading, preprocessing, where an input lies in them, and what their values look like."""

from __future__ import annotations

import importlib
from typing import Any

_PLACES = {"Preprocessing": "images", "read": "reading", "read_mask": "reading", "View": "view"}


def __getattr__(name: str) -> Any:
    if (place := _PLACES.get(name)) is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{place}"), name)


def __dir__() -> list[str]:
    return sorted(_PLACES)
