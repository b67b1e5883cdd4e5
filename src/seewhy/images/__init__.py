"""Images: reading, preprocessing, where an input lies in them, and what their values look like."""

from __future__ import annotations

from typing import Any

from seewhy.registry import loaded

_PLACES = {"Preprocessing": "preprocessing", "read": "reading", "read_mask": "reading", "View": "view"}


def __getattr__(name: str) -> Any:
    return loaded(__name__, _PLACES, name)


def __dir__() -> list[str]:
    return sorted(_PLACES)
