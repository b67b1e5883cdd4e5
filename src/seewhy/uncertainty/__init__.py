"""How sure a network is of what it says. A folder is a protocol, a file in it is one estimate."""

from __future__ import annotations

from typing import Any

from seewhy.registry import loaded

_PLACES = {"EpistemicUncertainty": "epistemic_uncertainty", "Uncertainty": "epistemic_uncertainty"}


def __getattr__(name: str) -> Any:
    return loaded(__name__, _PLACES, name)


def __dir__() -> list[str]:
    return sorted(_PLACES)
