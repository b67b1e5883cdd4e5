"""Writes what a run found into one file."""

from __future__ import annotations

from seewhy.cli.flags import emit
from seewhy.cli.insights import Report
from seewhy.errors import MissingDependency

try:
    from seewhy.web.report import report
except ModuleNotFoundError as error:
    raise MissingDependency(f"A report needs {error.name}. Install it: pip install 'seewhy[web]'.") from error

__all__ = ["run"]


def run(command: Report) -> int:
    """Writes it, and gives the exit code."""
    emit(str(report(command.folder, command.out, table=command.table, samples=command.samples)))
    return 0
