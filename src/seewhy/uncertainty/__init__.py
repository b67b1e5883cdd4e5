"""How sure a network is of what it says. A folder is a protocol, a file in it is one estimate."""

from __future__ import annotations

import importlib
from typing import Any

_PLACES = {"EpistemicUncertainty": "epistemic_uncertainty", "Uncertainty": "epistemic_uncertainty"}


def __getattr__(name: str) -> Any:
    if (place := _PLACES.get(name)) is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{place}"), name)


def __dir__() -> list[str]:
    return sorted(_PLACES)
