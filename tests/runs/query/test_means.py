"""The means that a run sums up block by block are those of its pages; chunks are made when they are asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seewhy.runs.folder import store as stores
from seewhy.runs.folder.store import Store
from seewhy.runs.query import means as module
from seewhy.runs.query.means import means
from seewhy.runs.query.run import Run
from seewhy.runs.work.job import Tools
from seewhy.runs.work.plan import plan
from support.run_jobs import images, job, rows, run


def by_pages(place: Path) -> dict[str, dict[str, float | None]]:
    found: dict[str, dict[str, float | None]] = {}
    for one in Run(place).scores():
        found.setdefault(one.explainer, {})[one.metric] = one.mean
    return found


def close(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(one[name] == pytest.approx(other[name], nan_ok=True) for name in one)


@pytest.mark.parametrize("block", [2, 5, 4096])
def test_block_by_block_as_the_pages_say(block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BLOCK", block)
    place = tmp_path / "a"
    first = run(place, explainers=["recipro_cam"], metrics=("sparseness", "pointing_game(tolerance=0)"))
    assert close(dict(first.scores), by_pages(place))
    run(
        place, explainers=["recipro_cam", "centre_map"], metrics=("sparseness", "complexity")
    )  # every picture has two rows
    changed = images(12)
    changed[3] = -changed[3]
    labels = np.arange(12) % 5
    last = run(place, data=(changed, labels), explainers=["recipro_cam"], metrics=("sparseness",))  # one has three
    assert last.computed == 12
    assert len(rows(place)) > 24
    assert close(dict(last.scores), by_pages(place))
    Store(place).compact(everything=True)
    assert close(means(Store(place)), by_pages(place))


def test_no_data_is_none(tmp_path: Path) -> None:
    found = run(tmp_path / "a", data=images(3), explainers=["recipro_cam"], metrics=("pointing_game",), n=3)
    assert found.scores == {"recipro_cam": {"pointing_game": None}}


def test_index_files_stay_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "LOOSE", 2)
    monkeypatch.setattr(stores, "MOST", 12)
    run(tmp_path / "a", 40, chunk=1, explainers=["recipro_cam"], metrics=())
    store = Store(tmp_path / "a")
    for _ in range(8):  # as a run does, again and again
        store.compact()
    sizes = [one.rows for one in store._known()]
    assert sum(sizes) == 40
    assert max(sizes) <= 12
    assert len(sizes) <= 40 / 6 + stores.INDEXES
    assert len(rows(tmp_path / "a")) == 40


def test_chunks_are_made_when_they_are_asked_for(tmp_path: Path) -> None:
    tools = Tools.of(job(tmp_path / "a", chunk=5))
    todo = plan(tools).chunks
    assert (len(todo), todo.pictures) == (3, 12)
    assert todo[1] is not todo[1]
    assert todo[1] == todo[1]
    assert [one.name for one in todo] == [one.name for one in plan(tools).chunks]
    assert [item.index for item in todo[-1].items] == [10, 11]
    assert todo[1:] == [todo[1], todo[2]]
