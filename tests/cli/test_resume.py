"""A run folder that somebody else made runs nothing unless it is asked for."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from seewhy import cli
from seewhy.runs.folder.store import Store
from seewhy.runs.query.run import Run

pytestmark = pytest.mark.slow

FACTORY = """
import pathlib
import torch
from torch import nn

pathlib.Path(__file__).with_name("imported").write_text("yes")

def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
"""
FLAGS = ["--size", "16", "16", "--mean", ".5", ".5", ".5", "--std", ".5", ".5", ".5", "--data", "photos"]
FLAGS += ["--explainers", "gradient", "--chunk", "1"]


def seewhy(*arguments: str) -> int:
    return cli.main(list(arguments))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    home = tmp_path / "home"
    (home / "photos").mkdir(parents=True)
    (home / "foreign_nets.py").write_text(FACTORY)
    for number in range(3):
        Image.new("RGB", (20, 20), (number * 80, 40, 0)).save(home / "photos" / f"{number}.png")
    monkeypatch.chdir(home)
    before = list(sys.path)
    yield home
    sys.path[:] = before
    sys.modules.pop("foreign_nets", None)


@pytest.fixture
def half(place: Path) -> Path:
    """A run of which one picture of three is there; made by this user, here."""
    assert seewhy("run", "--model", "foreign_nets:small", *FLAGS, "--shard", "1/3", "--out", "out", "--quiet") == 0
    _forget(place)
    return place / "out"


def _forget(place: Path) -> None:
    (place / "imported").unlink(missing_ok=True)
    sys.modules.pop("foreign_nets", None)
    while str(place) in sys.path:
        sys.path.remove(str(place))


def command_of(folder: Path, **changes: Any) -> None:
    """Writes another command into run.json."""
    known = json.loads((folder / "run.json").read_text())
    known["command"] = {**known["command"], **changes}
    (folder / "run.json").write_text(json.dumps(known))


def test_ones_own_run_goes_on_from_anywhere(half: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (half.parent / "elsewhere").mkdir()
    monkeypatch.chdir(half.parent / "elsewhere")
    assert seewhy("resume", "../out", "--quiet") == 0
    assert Run(half).counts().samples == 3
    assert Path.cwd() == half.parent / "elsewhere"


def test_a_folder_of_somebody_else_is_asked_for(half: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(half.parent.parent / "state")
    assert seewhy("resume", "out", "--quiet") == 2
    said = capsys.readouterr().err
    assert "seewhy run --model foreign_nets:small" in said
    assert f"  which imports and runs the Python module foreign_nets, also from {half.parent}\n" in said
    assert said.endswith("seewhy: Nothing was run. If this is what you want: seewhy resume --yes.\n")
    assert not (half.parent / "imported").exists()
    assert Run(half).counts().samples == 1
    assert seewhy("resume", "out", "--yes", "--quiet") == 0
    assert Run(half).counts().samples == 3


def test_a_copy_and_a_changed_command_are_of_somebody_else(half: Path) -> None:
    shutil.copytree(half, half.parent / "copy")
    assert seewhy("resume", "copy", "--quiet") == 2
    command_of(half, explainers="gradient,occlusion(window=8)")
    assert seewhy("resume", "out", "--quiet") == 2
    assert not (half.parent / "imported").exists()


def test_a_module_beside_run_json_is_not_imported(
    half: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(half.parent / "foreign_nets.py", half)
    command_of(half, cwd=str(half))
    monkeypatch.chdir(half)
    assert seewhy("resume", ".", "--quiet") == 2
    assert seewhy("status", ".") == 0
    assert not (half / "imported").exists()
    assert str(half) not in sys.path


@pytest.mark.parametrize(
    ("changes", "flags", "said"),
    [
        ({"trust": True}, ["--yes"], "which a folder cannot give itself."),
        ({"model": "code:interact"}, ["--yes"], "'code:interact' is part of Python's own library"),
        ({"model": "os.path:join"}, ["--yes"], "is part of Python's own library"),
        ({"data": "--trust"}, ["--yes"], " has no usable 'data'."),
        ({"mean": [0.5, "--trust"]}, ["--yes"], " has no usable 'mean'."),
        ({"engine": "ray"}, ["--yes"], " has 'engine', which cannot be resumed."),
        ({"config": "x.toml"}, ["--yes"], " has 'config', which cannot be resumed."),
        ({"chunk": "many"}, ["--yes"], " cannot be used: "),
        ({"cwd": 7}, ["--yes"], "does not say in which folder it was typed."),
        ({"cwd": "."}, ["--yes"], "does not say in which folder it was typed."),
        ({"explainers": "gradient\x1b[2J\n"}, [], "gradient\ufffd[2J\ufffd"),
    ],
)  # fmt: skip
def test_what_a_folder_cannot_ask_for(
    half: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], flags: list[str], said: str
) -> None:
    command_of(half, **changes)
    assert seewhy("resume", "out", "--quiet", *flags) == 2
    assert said in capsys.readouterr().err
    assert not (half.parent / "imported").exists()
    assert Run(half).counts().samples == 1


def test_the_working_directory_is_no_place_for_modules(place: Path) -> None:
    assert seewhy("status", "nowhere") == 2
    assert seewhy("run", "--model", "timm:nothing", *FLAGS, "--out", "x", "--quiet") == 2
    assert str(place) not in sys.path
    assert not Store(place / "x").exists()


def test_the_limit_of_pixels_is_that_of_the_call(half: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert seewhy("resume", str(half), "--quiet", "--max-pixels", "399") == 1
    failures = [one.reason for one in Run(half).failures().items]
    assert len(failures) == 2
    assert all("it has 20 x 20 pixels, more than the 399 that are opened" in reason for reason in failures)
    assert seewhy("resume", str(half), "--quiet", "--retry", "--max-pixels", "400") == 0
    assert Run(half).failures().total == 0
    for command in (
        ["view", str(half), "--export", "page.html"],
        ["export", str(half), "--to", "csv", "--out", "x.csv"],
    ):
        assert seewhy(*command, "--max-pixels", "0") == 2
        assert "The limit of pixels must be a whole number above 0, got 0." in capsys.readouterr().err
