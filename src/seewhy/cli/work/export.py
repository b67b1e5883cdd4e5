"""Writes a run folder in another form."""

from __future__ import annotations

import dataclasses

from seewhy import registry
from seewhy.cli.flags import emit, parameter
from seewhy.cli.runs import Export
from seewhy.errors import UnknownParameter, nearest
from seewhy.runs.query.run import Run

__all__ = ["run"]


def run(command: Export) -> int:
    """Writes it, and gives the exit code."""
    exporter = registry.load("exports", command.to)
    known = [f.name for f in dataclasses.fields(exporter)]
    parameters = dict(parameter(text) for text in command.set)
    for name in parameters:
        if name not in known:
            raise UnknownParameter(f"The format {command.to!r} has no parameter {name!r}. {nearest(name, known)}")
    for path in exporter(**parameters)(Run(command.folder), command.out):
        emit(str(path))
    return 0
