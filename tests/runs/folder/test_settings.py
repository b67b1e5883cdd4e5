"""run.json and what is added to it: nothing is lost when several add at once, and nothing hostile comes through."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path
from typing import Any

import pytest

from seewhy.errors import InvalidInput
from seewhy.runs.folder.store import Store
from seewhy.runs.query.run import Run
from seewhy.runs.query.status import status
from support import run_jobs
from support.run_folders import Folder, overwrite, picture, settings
from support.web_pages import client


def _add(place: str, number: int, gate: Any) -> None:
    gate.wait()
    explainer = f"occlusion(window={6 + number}, stride=4)"
    run_jobs.run(Path(place), 2, explainers={"mine": explainer, f"own {number}": "gradient"}, metrics=())


@pytest.mark.parametrize("attempt", range(2))
def test_three_processes_that_add_at_once_lose_nothing(tmp_path: Path, attempt: int) -> None:
    """All want the label "mine" for different things, and each one of its own for the same thing."""
    run_jobs.run(tmp_path, 2, explainers=["grad_cam"], metrics=())
    context = multiprocessing.get_context("spawn")
    gate = context.Barrier(3)
    workers = [context.Process(target=_add, args=(str(tmp_path), number, gate)) for number in range(3)]
    for one in workers:
        one.start()
    for one in workers:
        one.join(120)
    assert [one.exitcode for one in workers] == [0, 0, 0]
    run = Run(tmp_path)
    made = {about["parameters"].get("window") for about in run.settings["explainers"].values()}
    assert made >= {6, 7, 8}
    assert all(
        (label, name) in record.maps for record in run.records() for label in record.labels for name in run.explainers
    )
    assert "mine" in run.explainers


def test_old_folders_have_run_json_alone_and_it_is_never_changed(tmp_path: Path) -> None:
    run_jobs.run(tmp_path, 2, explainers=["grad_cam"], metrics=())
    before = (tmp_path / "run.json").read_bytes()
    assert not (tmp_path / "settings").exists()
    run_jobs.run(tmp_path, 3, explainers=["gradient"], metrics=["sparseness"])
    assert (tmp_path / "run.json").read_bytes() == before
    known = Store(tmp_path).settings()
    assert (list(known["explainers"]), list(known["metrics"])) == (["grad_cam", "gradient"], ["sparseness"])
    assert known["data"]["length"] == 3
    again = sorted((tmp_path / "settings").iterdir())
    run_jobs.run(tmp_path, 3, explainers=["gradient"], metrics=["sparseness"])
    assert sorted((tmp_path / "settings").iterdir()) == again


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


BAD = [
    ({"threshold": "half"}, "'threshold' must be a number from 0 to 1, got 'half'."),
    ({"threshold": float("nan")}, "'threshold' must be a number from 0 to 1, got nan."),
    ({"explainers": ["rise"]}, "'explainers' must be labels with class, name, parameters and id each"),
    ({"explainers": {"a/b": {"id": "x", "name": "x", "parameters": {}}}}, "'explainers' must be labels"),
    ({"explainers": {"a": None}}, "'explainers' must be labels"),
    ({"metrics": {"m": {"id": "x", "name": "m", "parameters": {}, "better": "sideways"}}}, "'metrics' must be labels"),
    ({"metrics": {"m": {"id": "x", "name": "m", "parameters": {}, "better": "lower", "range": [0]}}}, "'metrics' must"),
    ({"classes": "cat"}, "'classes' must be a list of names or null, got 'cat'."),
    ({"classes": ["x" * 10_001]}, "'classes' must be a list of names or null"),
    ({"model": "net"}, "'model' must be an object with name and digest"),
    ({"data": {"kind": "folder", "length": -1}}, "'data' must be an object with kind and length"),
    ({"id": 7}, "'id' must be a text, got 7."),
    ({"chunk": True}, "'chunk' must be a whole number, got True."),
    ({"detection": {"score_threshold": 2}}, "'detection' must be thresholds, or null"),
    ({"command": "rm"}, "'command' must be an object or null, got 'rm'."),
    ({"classes": ["\ud800"]}, "it has text that is not valid Unicode."),
    ({"command": {"x": nested(60)}}, "it is nested more than 24 deep."),
    ({"command": {"x": nested(900)}}, "it is nested"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "said"), BAD)
def test_a_bad_run_json_is_a_clear_error_and_the_good_runs_are_shown(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    good, bad = Folder(tmp_path / "good"), Folder(tmp_path / "bad")
    good.add("a", picture("a", labels={0: (0.9, True)}))
    overwrite(bad, settings() | change)
    with pytest.raises(InvalidInput, match=r"^run\.json in ") as error:
        status(tmp_path / "bad")
    assert said in str(error.value)
    with client(tmp_path) as asking:
        assert asking.get("/").status_code == 200
        cards = {card["name"]: card for card in asking.get("/api/runs").json()["runs"]}
    assert (cards["good"]["samples"], cards["good"]["reason"]) == (1, "")
    assert said in cards["bad"]["reason"]


@pytest.mark.parametrize("text", ["[]", "{", '{"explainers": 7}', '{"written": "x"}', "\xff", '{"data": {}}'])
def test_a_bad_addition_is_a_clear_error(tmp_path: Path, text: str) -> None:
    Folder(tmp_path).store.files.put("settings/x.json", [text.encode("latin-1")])
    with pytest.raises(InvalidInput, match=r"^settings/x\.json in "):
        Run(tmp_path)


def test_of_data_and_command_the_newest_count(tmp_path: Path) -> None:
    store = Folder(tmp_path).store
    store.tell(data={"kind": "folder", "length": 5})
    store.tell(data={"kind": "folder", "length": 9}, command={"cwd": "/"})
    assert (store.settings()["data"]["length"], store.settings()["command"]) == (9, {"cwd": "/"})
    assert json.loads((tmp_path / "run.json").read_text())["data"]["length"] == 3
