"""Names of tasks; a task is one thing to be done for one sample.

A task is named by what it is, so that resuming a run, adding an explainer to an old one and sharing work are one
mechanism: "predict", "explain:ID", "score:ID:ID" (explainer, metric), "uncertainty:ID", "counterfactual:ID",
"features:ID", with the identities that stand in run.json. A failure names the kind of its task, or "read" where the
image could not be read.
"""

from __future__ import annotations

from collections.abc import Collection

__all__ = [
    "COUNTERFACTUAL", "EXPLAIN", "FEATURES", "PREDICT", "READ", "SCORE", "UNCERTAINTY", "explain", "score", "single",
    "succeeded",
]  # fmt: skip

READ, PREDICT, EXPLAIN, SCORE = "read", "predict", "explain", "score"
UNCERTAINTY, COUNTERFACTUAL, FEATURES = "uncertainty", "counterfactual", "features"


def explain(explainer: str) -> str:
    """Returns the name of the task that makes an explainer's maps, from the explainer's identity."""
    return f"{EXPLAIN}:{explainer}"


def score(explainer: str, metric: str) -> str:
    """Returns the name of the task in which a metric scores an explainer's maps, from their identities."""
    return f"{SCORE}:{explainer}:{metric}"


def single(kind: str, identity: str) -> str:
    """Returns the name of a task of which a run has at most one: uncertainty, counterfactual or features."""
    return f"{kind}:{identity}"


def succeeded(task: str, done: Collection[str], failed: Collection[str]) -> bool:
    """Says whether a task was done and did not fail: ``done`` names failed tasks, too."""
    return task in done and task not in failed
