"""Says what a network uses in some images of a class and not in the others."""

from __future__ import annotations

import json

from seewhy.cli.flags import emit, parameter
from seewhy.cli.insights import PatternsCommand
from seewhy.cli.work.inputs import network
from seewhy.datasets import open_data
from seewhy.errors import InvalidInput
from seewhy.insights.patterns import patterns

__all__ = ["run"]


def run(command: PatternsCommand) -> int:
    """Says it, and gives the exit code."""
    named = command.model is not None or command.checkpoint is not None
    if named != (command.data is not None):
        raise InvalidInput("To try patterns out on the network, name both: --model and --data.")
    data = None if command.data is None else open_data(command.data, **dict(map(parameter, command.data_set)))
    found = patterns(
        command.folder, network(command) if named else None, data, table=command.table, smallest=command.smallest,
        most=command.most, seed=command.seed,
    )  # fmt: skip
    emit(json.dumps(found.as_dict(), indent=1, ensure_ascii=False) if command.json else str(found))
    return 0
