"""The state of a run folder, as text and as JSON; also while the run is being written."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from seewhy.errors import InvalidInput
from seewhy.runs.folder.rows import told
from seewhy.runs.query.records import Counts, Failure, NoteCount, Score, WarningCount
from seewhy.runs.query.run import Run

__all__ = ["Status", "status"]

_SHOWN = 20  # damaged parts that are listed


@dataclass(frozen=True, kw_only=True)
class Status:
    """The state of a run folder at one moment.

    Attributes:
        place: the folder.
        settings: what stands in run.json.
        counts: of pictures, labels, maps, failures.
        scores: of each explainer by each metric.
        notes: how many pictures have notes about their maps, by explainer and kind.
        warnings: how many pictures have warnings, by kind.
        failures: some of them.
        damaged: parts that could not be read -> why.
    """

    place: str
    settings: dict[str, Any]
    counts: Counts
    scores: list[Score]
    notes: list[NoteCount]
    warnings: list[WarningCount]
    failures: list[Failure]
    damaged: dict[str, str]

    def as_dict(self) -> dict[str, Any]:
        """Returns the status as plain values, ready for JSON."""
        return {
            "place": self.place, "settings": self.settings, "counts": asdict(self.counts),
            "scores": [asdict(one) for one in self.scores], "notes": [one._asdict() for one in self.notes],
            "warnings": [one._asdict() for one in self.warnings],
            "failures": [one._asdict() for one in self.failures],
            "damaged": self.damaged,
        }  # fmt: skip

    def __str__(self) -> str:
        made, counts = self.settings, self.counts
        of = "" if counts.total is None else f" of {counts.total}"
        lines = [
            f"{self.place}: {counts.samples}{of} pictures, {counts.labels} labels, {counts.maps} maps",
            f"  model {made['model']['name']}, activation {made['activation']}, "
            f"threshold {made['threshold']:g}{_of(made)}; "
            f"data {made['data'].get('root') or made['data'].get('kind')}; begun {made['created']}",
        ]
        if any(counts.flags.values()):
            lines.append("  " + ", ".join(f"{number} {flag}" for flag, number in counts.flags.items()))
        lines += [f"  {line}" for line in _table(self.scores)]
        lines += [f"  {one.pictures} of {counts.samples} pictures: {one.kind}" for one in self.warnings]
        lines += [
            f"  {one.explainer}: {one.pictures} of {counts.samples} pictures have the note {one.kind!r}"
            for one in self.notes
        ]
        if counts.foreign or counts.unread:
            lines.append(f"  not read: {counts.foreign} parts of other settings, {counts.unread} damaged ones")
            lines += [f"    {part}: {why}" for part, why in list(self.damaged.items())[:_SHOWN]]
        if counts.failures:
            lines.append(f"  {counts.failures} failures; of {counts.failed} pictures nothing is known:")
            lines += [f"    {one.name}: {told(one)}" for one in self.failures]
            rest = counts.failures - len(self.failures)
            lines += [f"    ... and {rest} more"] if rest > 0 else []
        return "\n".join(lines)


def status(place: str | os.PathLike[str], failures: int = 20) -> Status:
    """Reads a run folder.

    Args:
        place: its path or address.
        failures: how many are listed.

    Raises:
        InvalidInput: the place is no run folder.
    """
    if failures < 0:
        raise InvalidInput(f"failures must not be negative, got {failures}.")
    run = Run(place)
    listed = run.failures(limit=failures).items if failures else []
    return Status(
        place=run.address,
        settings=run.settings,
        counts=run.counts(),
        scores=run.scores(),
        notes=run.notes(),
        warnings=run.warnings(),
        failures=list(listed),
        damaged=run.damaged,
    )


def _of(settings: Mapping[str, Any]) -> str:
    """Returns the words that say what the threshold applies to; "" where that is a probability."""
    quantity = settings.get("quantity", "probability")
    return "" if quantity == "probability" else f" of the {quantity}"


def _table(scores: list[Score]) -> list[str]:
    """Returns a table of means, intervals and numbers of pictures: a row an explainer, a column a metric."""
    explainers, metrics = (
        list(dict.fromkeys(getattr(one, kind) for one in scores)) for kind in ("explainer", "metric")
    )
    cells = {(one.explainer, one.metric): _cell(one) for one in scores}
    rows = [["", *metrics], *([e, *(cells.get((e, m), "") for m in metrics)] for e in explainers)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(metrics) + 1)]
    lined = ("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return list(lined) if scores else []


def _cell(score: Score) -> str:
    if score.mean is None:
        return "no data"
    interval = "" if score.low is None else f" [{score.low:.3f}, {score.high:.3f}]"
    return f"{score.mean:.3f}{interval} (n {score.pictures})"
