"""Which rows count: the planner, which asks what is left, and the readers, which show what is there, say the same."""

from __future__ import annotations

import itertools
from typing import Any

import pyarrow as pa
import pytest

from seewhy.runs.folder import tasks
from seewhy.runs.folder.counting import standing
from seewhy.runs.folder.rows import SCHEMA
from seewhy.runs.query.choosing import Plan, Words, choose, packed
from seewhy.runs.work import plan as planning

RISE, CAM = tasks.explain("aaaa"), tasks.explain("bbbb")
SETTINGS = {"explainers": {"rise": {"id": "aaaa"}, "grad_cam": {"id": "bbbb"}}}


def row(part: str, stamp: str, written: float, done: list[str], failed: list[str] | None = None) -> dict[str, Any]:
    lists: dict[str, Any] = {
        name: [] for name in ("labels", "uncertainty", "maps", "costs", "scores", "trees", "failures")
    }
    about = {"sample": "cat.png", "position": 0, "part": part, "stamp": stamp, "written": written}
    return {**lists, **about, "done": done, "failed": failed or []}


def table(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=pa.schema([*SCHEMA, pa.field("part", pa.string())]))


CASES: dict[str, tuple[list[dict[str, Any]], set[str], set[str]]] = {
    # rows, what is done, what of it failed
    "one row": ([row("p1", "a", 1, ["predict", RISE])], {"predict", RISE}, set()),
    "an explainer that was added": (
        [row("p1", "a", 1, ["predict", RISE]), row("p2", "a", 2, [CAM])], {"predict", RISE, CAM}, set(),
    ),
    "a picture that was changed": (
        [row("p1", "a", 1, ["predict", RISE]), row("p2", "b", 2, ["predict"])], {"predict"}, set(),
    ),
    "a picture that was changed, and changed back": (
        [row("p1", "a", 1, ["predict"]), row("p2", "b", 2, ["predict", CAM]), row("p3", "a", 3, [RISE])],
        {"predict", RISE}, set(),
    ),
    "a newer row in a part whose name comes first": (
        [row("p2", "a", 1, ["predict", RISE]), row("p1", "b", 2, ["predict"])], {"predict"}, set(),
    ),
    "two that were written at one moment": (
        [row("p1", "a", 1, ["predict", RISE]), row("p2", "b", 1, ["predict"])], {"predict"}, set(),
    ),
    "a failure that was tried again": (
        [row("p1", "a", 1, ["predict", RISE], [RISE]), row("p2", "a", 2, [RISE])], {"predict", RISE}, set(),
    ),
    "a failure after a success": (
        [row("p1", "a", 1, ["predict", RISE]), row("p2", "a", 2, [RISE], [RISE])], {"predict", RISE}, set(),
    ),
    "a failure": ([row("p1", "a", 1, ["predict", RISE], [RISE])], {"predict", RISE}, {RISE}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_planner_and_readers_agree_in_every_order_of_reading(case: str) -> None:
    rows, done, failed = CASES[case]
    for order in itertools.permutations(rows):
        known = planning._known(table(list(order)))["cat.png"]
        assert (set(known.done), set(known.failed)) == (done, failed)
        plan, words = Plan.of(SETTINGS), Words()
        choice = choose(packed(table(list(order)), words, 0), plan, words)
        shown = {task for task, number in plan.tasks.items() if choice.chosen[number, 0] >= 0}
        good = {task for task, number in plan.tasks.items() if choice.good[number, 0]}
        assert (shown, shown - good) == (done, failed)


def test_no_rows_are_no_pictures() -> None:
    found = standing(table([]))
    assert len(found.names) == len(found.current) == len(found.newest) == 0
    assert planning._known(table([])) == {}


def test_names_of_tasks() -> None:
    assert tasks.score("aaaa", "cccc") == "score:aaaa:cccc"
    assert tasks.single(tasks.UNCERTAINTY, "dddd") == "uncertainty:dddd"
    assert tasks.succeeded(RISE, [RISE, CAM], [CAM])
    assert not tasks.succeeded(CAM, [RISE, CAM], [CAM])
    assert not tasks.succeeded("predict", [RISE], [])
