"""Comma-separated values, for spreadsheets and everything else: one line for each image and label.

A text that a spreadsheet would run as a formula gets one ``'`` in front (`seewhy.csv_cells`). UTF-8; lines end with CR
LF, and a line break in a name stands inside quotes (RFC 4180).
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seewhy.csv_cells import guarded
from seewhy.exports._tables import FAILURES, failure_lines, failures_beside, label_batches, schema
from seewhy.runs.query.run import Run

__all__ = ["Csv"]


@dataclass(frozen=True, kw_only=True)
class Csv:
    """Comma-separated values: one line for each image and label, failures in a second file."""

    def __call__(self, run: Run, out: Path) -> list[Path]:
        """Writes ``out``, and NAME-failures.csv where something failed.

        Columns: sample, name, source, position, label (class index), class (its name), truth, flag (TP, FN, FP, TN),
        probability (or logit or value, where the run's numbers are that), predicted, predicted_class, mean, std, low
        and high of the probability, entropy and mutual_information where uncertainty ran, warnings (what is to be
        known of the image, and EXPLAINER: KIND of its maps, "; " between), then EXPLAINER/METRIC; a cell is empty
        where there are no data.
        Of a detector one line is one box, and at the end stand its number, x0, y0, x1, y1 in pixels of the image and
        its overlap with the truth.
        """
        lines = (line for batch in label_batches(run) for line in zip(*map(_plain, batch.columns), strict=True))
        written = [_write(Path(out), schema(run).names, lines)]
        if run.counts().failures:
            written.append(_write(failures_beside(Path(out)), FAILURES, failure_lines(run)))
        return written


def _plain(column: Any) -> list[Any]:
    """Values with as many digits as they have: a float32 of 0.1 is 0.1."""
    if str(column.type) == "float":
        return [None if value != value else float(str(value)) for value in column.to_numpy(zero_copy_only=False)]
    return list(column.to_pylist())


def _write(path: Path, names: Iterable[str], lines: Iterable[Iterable[Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(map(guarded, names))
        writer.writerows(map(guarded, line) for line in lines)
    return path
