"""``seewhy list`` and ``seewhy demo``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from seewhy.cli.flags import Command

__all__ = ["Demo", "List"]


@dataclass(frozen=True, kw_only=True)
class List(Command):
    """List the explainers and metrics, with one sentence and the parameters of each."""

    work = "list_"
    examples = ("seewhy list",)


@dataclass(frozen=True, kw_only=True)
class Demo(Command):
    """Explain real photographs with a real ImageNet classifier, and show the results on the review pages."""

    work = "demo"
    examples = (
        "seewhy demo",
        "seewhy demo --out demo-out --no-view",
    )

    out: Path = Path("demo-out")
    """Where the results are written."""
    view: Annotated[bool, tyro.conf.arg(help_behavior_hint="(without it, they are until Ctrl-C)")] = True
    """The review pages are not served."""
    port: int = 8484
    """Of the pages."""
    browser: Annotated[bool, tyro.conf.arg(help_behavior_hint="(without it, it is opened)")] = True
    """The browser is not opened."""
    masks: int | None = None
    """Masks of RISE. Default: as many as each map needs."""
