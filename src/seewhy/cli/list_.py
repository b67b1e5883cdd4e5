"""``seewhy list`` and ``seewhy demo``."""

from __future__ import annotations

import dataclasses
import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seewhy import registry
from seewhy.cli.flags import emit
from seewhy.cli.view import View

__all__ = ["Demo", "List"]


@dataclass(frozen=True, kw_only=True)
class List:
    """List the explainers and metrics, with one sentence and the parameters of each."""

    def run(self) -> int:
        """The exit code."""
        return _list()


@dataclass(frozen=True, kw_only=True)
class Demo:
    """Explain real photographs with a real ImageNet classifier, and show the results on the review pages."""

    out: Path = Path("demo-out")
    """Where the results are written."""
    view: bool = True
    """The review pages are served when it is done, until Ctrl-C; --no-view leaves that out."""
    port: int = 8484
    """Of the pages."""
    masks: int = 600
    """Masks of RISE."""

    def run(self) -> int:
        """The exit code."""
        return _demo(self)


def _list() -> int:
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


def _demo(command: Demo) -> int:
    from seewhy.demo import run

    run(command.out, masks=command.masks, say=emit)
    return View(folder=str(command.out / "run"), port=command.port).run() if command.view else 0
