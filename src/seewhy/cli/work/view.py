"""Serves the review pages, or writes one of them."""

from __future__ import annotations

import sys
import time
import warnings
from pathlib import Path

from seewhy.cli.flags import emit, say
from seewhy.cli.view import View
from seewhy.errors import InvalidInput, MissingDependency, SeewhyError

try:
    from seewhy.web.serving import export, serve
except ModuleNotFoundError as error:
    raise MissingDependency(f"The pages need {error.name}. Install it: pip install 'seewhy[web]'.") from error

__all__ = ["follow", "run"]

_LOOK = 0.1  # seconds between two looks whether there is a run


def run(command: View) -> int:
    """Serves until it is interrupted, or writes the page, and gives the exit code."""
    if not 0 <= command.port <= 65535:
        raise InvalidInput(f"--port must be from 0 to 65535, got {command.port}.")
    if command.export is not None:
        emit(str(export(command.folder, command.export, run=command.run_name, view=command.view)))
        return 0
    # What Pillow remarks about originals is of no use to who serves; set once, for filters belong to all threads.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    serve(
        command.folder, host=command.host, port=command.port, browser=command.browser, root_path=command.root_path,
        allow_hosts=command.allow_host, reviewer=command.review, say=say,
    )  # fmt: skip
    return 0


def follow(folder: Path, port: int, browser: bool) -> None:
    """Waits until there is a run in a folder, serves it until Ctrl-C and ends the process; for a process of its own."""
    try:
        while not (folder / "run.json").exists():
            time.sleep(_LOOK)
        sys.exit(run(View(folder=str(folder), port=port, browser=browser)))
    except KeyboardInterrupt:
        sys.exit(0)
    except SeewhyError as error:
        say(f"seewhy: {error}")
        sys.exit(2)
