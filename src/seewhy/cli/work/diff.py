"""Says what changed from one run to another."""

from __future__ import annotations

import json

from seewhy.cli.flags import emit
from seewhy.cli.insights import Diff
from seewhy.errors import InvalidInput
from seewhy.insights.diff import diff

__all__ = ["run"]


def run(command: Diff) -> int:
    """Says it, writes the file that was asked for, and gives the exit code."""
    out = command.out
    if out is not None and out.suffix.lower() not in (".csv", ".json"):
        raise InvalidInput(f"--out must end with .csv or .json, got {str(out)!r}.")
    found = diff(command.first, command.second, explainers=_pairs(command), most=command.most)
    if out is not None:
        (found.to_csv if out.suffix.lower() == ".csv" else found.to_json)(out)
    emit(json.dumps(found.as_dict(), indent=1, ensure_ascii=False) if command.json else str(found))
    return 0


def _pairs(command: Diff) -> list[tuple[str, str]] | None:
    first, second = command.explainer, command.against or command.explainer
    if len(first) != len(second):
        raise InvalidInput(f"--against must be given once for each --explainer ({len(first)}), got {len(second)}.")
    return list(zip(first, second, strict=True)) or None
