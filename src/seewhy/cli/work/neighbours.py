"""Says which images look the same to the network, and which labels their neighbours contradict."""

from __future__ import annotations

import json

from seewhy.cli.flags import emit
from seewhy.cli.insights import NeighboursCommand
from seewhy.insights.neighbours import neighbours

__all__ = ["run"]


def run(command: NeighboursCommand) -> int:
    """Says it, and gives the exit code."""
    found = neighbours(
        command.folder, count=command.count, alike=command.alike, table=command.table, across=command.across
    )
    if command.sample is not None:
        near = found.of(command.sample, command.count)
        lines = [{"sample": key, "likeness": likeness} for key, likeness in near]
        emit(json.dumps(lines, indent=1) if command.json else "\n".join(f"{key}  {c:.3f}" for key, c in near))
        return 0
    emit(json.dumps(found.as_dict(), indent=1, ensure_ascii=False) if command.json else str(found))
    return 0
