"""``seewhy list`` and ``seewhy demo``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from seewhy.cli.flags import Command

__all__ = ["Demo", "List"]


@dataclass(frozen=True, kw_only=True)
class List(Command):
    """List the explainers and metrics, with one sentence and the parameters of each."""

    work = "list_"


@dataclass(frozen=True, kw_only=True)
class Demo(Command):
    """Explain real photographs with a real ImageNet classifier, and show the results on the review pages."""

    work = "demo"

    out: Path = Path("demo-out")
    """Where the results are written."""
    view: bool = True
    """The review pages are served from the beginning, until Ctrl-C; --no-view leaves that out."""
    port: int = 8484
    """Of the pages."""
    browser: bool = True
    """The browser is opened, as soon as there is something to see; --no-browser leaves it."""
    masks: int | None = None
    """Masks of RISE. Default: as many as each map needs."""
