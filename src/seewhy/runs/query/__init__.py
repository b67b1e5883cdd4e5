"""Reads a run folder, also while it is written; nothing here runs a network."""

from __future__ import annotations

from typing import Any

from seewhy.registry import loaded

_PLACES = {"Run": "run"}


def __getattr__(name: str) -> Any:
    return loaded(__name__, _PLACES, name)


def __dir__() -> list[str]:
    return sorted(_PLACES)
