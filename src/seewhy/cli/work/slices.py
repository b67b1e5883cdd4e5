"""Says where the network is worse than elsewhere."""

from __future__ import annotations

import json

from seewhy.cli.flags import emit
from seewhy.cli.insights import SlicesCommand
from seewhy.insights.slices import slices

__all__ = ["run"]


def run(command: SlicesCommand) -> int:
    """Says it, and gives the exit code."""
    found = slices(
        command.folder, table=command.table, explainer=command.explainer, least=command.least, level=command.level
    )
    emit(json.dumps(found.as_dict(), indent=1, ensure_ascii=False) if command.json else str(found))
    return 0
