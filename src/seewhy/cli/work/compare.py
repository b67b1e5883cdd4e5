"""Compares explainers, and writes the table."""

from __future__ import annotations

from typing import Any

from seewhy.cli.compare import Compare
from seewhy.cli.flags import activation, emit, say, split
from seewhy.cli.work.inputs import network, pictures
from seewhy.comparing import compare
from seewhy.comparison import Comparison
from seewhy.datasets import open_data
from seewhy.errors import InvalidInput
from seewhy.types import Sample

__all__ = ["run"]


def run(command: Compare) -> int:
    """Compares, or takes a table that is there, writes it and gives the exit code."""
    found = _compared(command) if command.again is None else Comparison.from_json(command.again)
    emit("\n".join([str(found), *(["", *found.how] if command.how else [])]))
    for path in found.save(command.out):
        say(f"wrote {path}")
    judged = any(m.n for m in found.means)
    return 0 if judged and not (command.strict and found.failures) else 1


def _compared(command: Compare) -> Comparison:
    if missing := [f"--{name}" for name in ("explainers", "metrics") if not getattr(command, name)]:
        raise InvalidInput(f"Name {' and '.join(missing)}, or a table that is to be made again with --again.")
    samples = _samples(command)
    model = network(command)
    return compare(
        model, samples, split(command.explainers), split(command.metrics), activation_fn=activation(command),
        baselines=command.baselines, confidence=command.confidence, seed=command.seed, progress=not command.quiet,
    )  # fmt: skip


def _samples(command: Compare) -> list[Any]:
    named = command.samples is None or command.pictures or command.data_root is not None
    found = [Sample(image=p, name=p.name) for p in pictures(command)] if named else []
    if command.samples is None:
        return found
    table = open_data(f"csv:{command.samples}")
    return found + [table[i] for i in range(len(table))]
