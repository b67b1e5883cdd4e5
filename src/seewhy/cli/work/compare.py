"""Compares explainers, and writes the table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from seewhy.checks import check_folder
from seewhy.cli.compare import Compare
from seewhy.cli.flags import activation, emit, say, split
from seewhy.cli.work.inputs import network, pictures
from seewhy.comparing import check, compare
from seewhy.comparison import Comparison
from seewhy.datasets import open_data
from seewhy.errors import InvalidInput
from seewhy.gates import Bar, bars, missed
from seewhy.images.pages import chosen
from seewhy.types import Sample

__all__ = ["run"]


def run(command: Compare) -> int:
    """Compares, or takes a table that is there, writes it and gives the exit code."""
    found, asked = _compared(command) if command.again is None else _again(command, command.again)
    emit("\n".join([str(found), *(["", *found.how] if command.how else [])]))
    for path in found.save(command.out):
        say(f"wrote {path}")
    judged = any(m.n for m in found.means)
    below = missed(asked, _scores(found), dict(zip(found.metrics, found.better, strict=True)))
    for sentence in below:
        say(sentence)
    return 0 if judged and not below and not (command.strict and found.failures) else 1


def _scores(found: Comparison) -> dict[str, dict[str, float | None]]:
    """Returns the scores of the explainers that are judged; baselines need not reach a bar."""
    return {
        explainer: {metric: found.mean(explainer, metric).mean for metric in found.metrics}
        for explainer in found.explainers
        if explainer not in found.baselines
    }


def _again(command: Compare, table: Path) -> tuple[Comparison, list[Bar]]:
    found = Comparison.from_json(table)
    return found, bars(command.fail_under, found.metrics)


def _compared(command: Compare) -> tuple[Comparison, list[Bar]]:
    if missing := [f"--{name}" for name in ("explainers", "metrics") if not getattr(command, name)]:
        raise InvalidInput(f"Name {' and '.join(missing)}, or a table that is to be made again with --again.")
    asked: dict[str, Any] = {
        "explainers": split(command.explainers), "metrics": split(command.metrics), "seed": command.seed,
        "activation_fn": activation(command), "baselines": command.baselines, "confidence": command.confidence,
        "progress": not command.quiet,
    }  # fmt: skip
    judges = check(**asked)[2]
    floors = bars(command.fail_under, list(judges))
    check_folder(command.out)
    samples = _samples(command)
    if not any(_there(one.image) for one in samples):
        raise InvalidInput(f"None of the pictures is there, such as {str(samples[0].image)!r}.")
    return compare(network(command), samples, accelerate="auto" if command.accelerate else None, **asked), floors


def _there(image: Any) -> bool:
    return not isinstance(image, str | Path) or chosen(image)[0].is_file()


def _samples(command: Compare) -> list[Any]:
    named = command.samples is None or command.pictures or command.data_root is not None
    found = [Sample(image=p, name=p.name) for p in pictures(command)] if named else []
    if command.samples is None:
        return found
    table = open_data(f"csv:{command.samples}")
    return found + [table[i] for i in range(len(table))]
