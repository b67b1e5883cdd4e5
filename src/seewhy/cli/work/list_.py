"""Lists explainers, metrics and exports."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

from seewhy import registry
from seewhy.cli.flags import emit
from seewhy.cli.list_ import List

__all__ = ["run"]


def run(command: List) -> int:
    """Lists them, and gives the exit code."""
    for kind in ("explainers", "metrics", "exports"):
        emit(f"{kind}:")
        for name in registry.names(kind):
            emit(_described(name, registry.load(kind, name)))
    return 0


def _described(name: str, kind: Any) -> str:
    sentence = (inspect.getdoc(kind) or "").splitlines()[0]
    own = [f for f in dataclasses.fields(kind) if f.name != "network" and f.init]
    shown = ", ".join(f.name if f.default is dataclasses.MISSING else f"{f.name}={f.default!r}" for f in own)
    return f"  {name:<26} {sentence}" + (f"\n  {'':<26}   {shown}" if shown else "")
