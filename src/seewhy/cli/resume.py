"""``seewhy resume``: goes on with a run by the command that run.json keeps, and by no more than that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from seewhy.cli.flags import PixelFlags
from seewhy.cli.runs import How

__all__ = ["Resume"]


@dataclass(frozen=True, kw_only=True)
class Resume(How, PixelFlags):
    """Go on with a run that was interrupted. The command of a folder that somebody else made is shown and asked for."""

    work = "resume"
    examples = (
        "seewhy resume runs/first",
        "seewhy resume runs/first --retry --workers 4",
    )

    folder: Annotated[str, tyro.conf.Positional]
    """The run folder."""
    trust: bool = False
    """Read a checkpoint that runs code. Only for files from people you trust."""
    yes: bool = False
    """Does not ask before the command of a folder that was not made by you on this machine."""
    quiet: bool = False
    """No progress bar and no notes."""
