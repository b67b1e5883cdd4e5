"""``seewhy compare``: a table of explainers and metrics."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seewhy.cli.flags import PictureFlags, activation, emit, network, pictures, say, split
from seewhy.datasets import open_data
from seewhy.errors import InvalidInput
from seewhy.types import Sample

__all__ = ["Compare"]


@dataclass(frozen=True, kw_only=True)
class Compare(PictureFlags):
    """Judge explainers by metrics on the same pictures: a table with intervals, and which differences are real."""

    explainers: str = ""
    """Names separated by commas, with parameters if wanted: "recipro_cam,rise(num_masks=500)"."""
    metrics: str = ""
    """Names separated by commas, with parameters if wanted: "deletion_auc,pointing_game(tolerance=0)"."""
    samples: Path | None = None
    """A CSV file with the columns image, target and mask (the last two optional; paths are relative to the file)."""
    baselines: bool = True
    """Adds a random map and a map of the centre as rows."""
    confidence: float = 0.95
    """Of the intervals; 1 - confidence is the level at which a difference is called real."""
    seed: int = 0
    """Of the test."""
    out: Path = Path("seewhy-compare")
    """Where comparison.csv, .json, .png and .txt are written."""
    again: Path | None = None
    """A comparison.json: makes its table, files and picture again, the same to the last bit, without any network."""
    how: bool = False
    """Prints what every number was made with: all parameters of each explainer and metric."""
    strict: bool = False
    """Exit with 1 when anything failed, not only when everything did."""

    def run(self) -> int:
        """The exit code."""
        return _compare(self)


def _compare(command: Compare) -> int:
    from seewhy.comparison import Comparison

    found = _compared(command) if command.again is None else Comparison.from_json(command.again)
    emit("\n".join([str(found), *(["", *found.how] if command.how else [])]))
    for path in found.save(command.out):
        say(f"wrote {path}")
    judged = any(m.n for m in found.means)
    return 0 if judged and not (command.strict and found.failures) else 1


def _compared(command: Compare) -> Any:
    from seewhy.comparing import compare

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
