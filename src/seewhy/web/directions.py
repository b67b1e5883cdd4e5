"""Which way a list is sorted where the address does not say it: worst first, because that is what is looked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["falls"]

_UNSURE = ("uncertainty", "entropy", "mutual_information")


def falls(settings: Mapping[str, Any], sort: str, asked: bool | None, metric: str | None = None) -> bool:
    """Says whether the largest value comes first.

    Args:
        settings: of the run.
        sort: "score:EXPLAINER:METRIC", "disagreement:METRIC", "uncertainty", ...
        asked: what the address says, or None.
        metric: that is sorted by, where ``sort`` does not name it.
    """
    if asked is not None:
        return asked
    if sort in _UNSURE or sort.startswith("disagreement:"):
        return True
    metrics = settings.get("metrics") or {}
    if metric is None and sort.startswith("score:"):
        metric = next((name for name in metrics if sort.endswith(f":{name}")), None)
    return bool(metrics.get(metric, {}).get("better") == "lower")
