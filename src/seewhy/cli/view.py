"""``seewhy view``: the review pages."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from seewhy.cli.flags import PixelFlags

__all__ = ["View"]


@dataclass(frozen=True, kw_only=True)
class View(PixelFlags):
    """Show a run folder, or a folder of runs, in the browser; it follows a run that is still being written."""

    work = "view"
    examples = (
        "seewhy view runs",
        "seewhy view runs/first --review anna",
        'seewhy view runs/first --export wrong.html --view "flags=FN&sort=probability"',
    )

    folder: Annotated[str, tyro.conf.Positional]
    """A run folder, or a folder with run folders."""
    host: str = "127.0.0.1"
    """What to listen to. Any other than this machine needs the token that is printed."""
    port: int = 8484
    """0 for any that is free."""
    browser: Annotated[bool, tyro.conf.arg(help_behavior_hint="(without it, it is opened)")] = True
    """The browser is not opened."""
    root_path: str = ""
    """What a proxy takes away from the front of every path: /why."""
    allow_host: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """A name by which the server may be called, beside its address. May be repeated."""
    review: str | None = None
    """Your name, under which verdicts and notes are kept in the run folder. Without it nothing can be written."""
    export: Path | None = None
    """Writes the saliency page into this one HTML file instead, for a mail or a report."""
    run_name: str | None = None
    """Which run is exported, where the folder has several."""
    view: str = ""
    """What is exported: the part of the page's address after the question mark."""
