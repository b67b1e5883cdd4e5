"""How familiar an image is to a classifier."""

from __future__ import annotations

from typing import Any

from seewhy.registry import loaded

_PLACES = {"OoDNet": "ood_net"}


def __getattr__(name: str) -> Any:
    return loaded(__name__, _PLACES, name)


def __dir__() -> list[str]:
    return sorted(_PLACES)
