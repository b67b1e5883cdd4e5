"""Says what a run folder has."""

from __future__ import annotations

import json

from seewhy.cli.flags import emit
from seewhy.cli.runs import Status
from seewhy.runs.query.status import status

__all__ = ["run"]


def run(command: Status) -> int:
    """Says it, and gives the exit code."""
    found = status(command.folder, failures=command.failures)
    emit(json.dumps(found.as_dict(), indent=2, ensure_ascii=False) if command.json else str(found))
    return 0
