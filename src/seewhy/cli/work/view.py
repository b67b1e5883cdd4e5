"""Serves the review pages, or writes one of them."""

from __future__ import annotations

import warnings

from seewhy.cli.flags import emit, say
from seewhy.cli.view import View
from seewhy.errors import InvalidInput, MissingDependency

try:
    from seewhy.web.serving import export, serve
except ModuleNotFoundError as error:
    raise MissingDependency(f"The pages need {error.name}. Install it: pip install 'seewhy[web]'.") from error

__all__ = ["run"]


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
        allow_hosts=command.allow_host, say=say,
    )  # fmt: skip
    return 0
