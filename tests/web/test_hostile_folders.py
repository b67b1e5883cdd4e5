"""A little of benchmarks/hostile_runs.py, with other seeds: no answer is a 500, nothing is silently another value."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from support.scripts import benchmark

pytestmark = pytest.mark.slow


def bad(found: Counter[str]) -> list[str]:
    return [kind for kind in found if kind.startswith(("500", "503", "crash", "silent"))]


def test_requests(tmp_path: Path) -> None:
    found = benchmark("hostile_runs").requests(tmp_path, 200, random.Random(21))
    assert found.total() == 200
    assert len(found) >= 4  # good and bad ones of several kinds
    assert not bad(found)


@pytest.mark.parametrize("seed", [22, 23])
def test_folders(tmp_path: Path, seed: int) -> None:
    """Every page, twin, download and command of folders with one hostile value."""
    found = benchmark("hostile_runs").folders(tmp_path, 2, random.Random(seed))
    assert found["asked"] == 2
    assert found["200"] > 30
    assert found["exit 0"] + found["exit 2"] == 2 * 5
    assert not bad(found)


def test_flipped_bits(tmp_path: Path) -> None:
    found = benchmark("hostile_runs").flips(tmp_path, 16, random.Random(24))
    assert found["noticed"] + found["as it was"] == 16
    assert found["noticed"] > 4
    assert not bad(found)
