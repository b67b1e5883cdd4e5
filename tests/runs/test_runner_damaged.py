"""A run over hundreds of damaged pictures ends, with a map or a reason for each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from seewhy.datasets._files import key
from seewhy.runs.query.run import Run
from support.damaged import write_damaged
from support.run_jobs import rows, run

pytestmark = pytest.mark.slow


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning")
def test_every_picture_has_a_map_or_a_reason(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    expected = {key(name): fate for name, fate in write_damaged(folder).items() if fate.kind != "absent"}
    options = {"changes": {"size": (32, 32), "mean": (0.5,) * 3, "std": (0.5,) * 3}}
    about: dict[str, Any] = {
        "data": str(folder),
        "model_options": options,
        "explainers": ["gradient"],
        "metrics": ["sparseness"],
    }
    found = run(tmp_path / "out", **about, chunk=32, batch=16)
    assert found.left == 0
    assert len(expected) >= 200
    seen = {row["sample"]: row for row in rows(tmp_path / "out")}
    assert set(seen) == set(expected)
    wrong = {}
    for name, row in seen.items():
        reasons, fate = [one["reason"] for one in row["failures"]], expected[name]
        if not (reasons or row["maps"]) or (reasons and row["maps"]):
            wrong[name] = "neither a map nor a reason, or both"
        elif fate.kind == "right" and reasons:
            wrong[name] = reasons[0]
        elif fate.kind == "failure" and not (reasons and fate.reason in reasons[0]):
            wrong[name] = f"should have failed with {fate.reason!r}, has {reasons}"
    assert wrong == {}
    read = Run(tmp_path / "out")
    assert read.counts().failed == found.failed > 80
    assert all(read.thumbnail(name) for name, row in seen.items() if row["maps"])
    assert run(tmp_path / "out", **about).forward == 0
