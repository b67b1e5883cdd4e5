"""Bars for checks that run by themselves: the command line, the assertion, the pytest plug-in."""

from __future__ import annotations

import math
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import seewhy
from seewhy import cli
from seewhy.errors import InvalidInput
from seewhy.gates import Bar, assert_looks_at, bars, missed

SCENE = np.zeros((24, 32, 3), np.uint8)
SCENE[4:12, 4:12, 0] = 255
MASK = np.zeros((24, 32), bool)
MASK[4:12, 4:12] = True


class Red(nn.Module):
    """How much red and how much blue there is."""

    def forward(self, x: Tensor) -> Tensor:
        return 9 * x[:, [0, 2]].mean((2, 3))


def small() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)).eval()


def red() -> Any:
    known = seewhy.Preprocessing(size=(24, 32), mean=(0.0,) * 3, std=(1.0,) * 3)
    return seewhy.load(Red(), preprocessing=known)


SAMPLES = [(Image.fromarray(SCENE), 0, MASK)]


@pytest.mark.parametrize(
    ("mean", "better", "why"),
    [
        (0.8, "higher", ""), (0.79, "higher", "m is 0.790, expected at least 0.8"), (0.79, "lower", ""),
        (0.81, "lower", "m is 0.810, expected at most 0.8"),
        (None, "higher", "no m could be measured, expected at least 0.8"),
        (math.nan, "lower", "no m could be measured, expected at most 0.8"),
    ],
)  # fmt: skip
def test_a_bar_has_a_right_side(mean: float | None, better: str, why: str) -> None:
    assert Bar("m", 0.8).misses(mean, better) == why
    told = missed([Bar("m", 0.8)], {"cam": {"m": mean}}, {"m": better})
    assert told == ([f"cam: {why}."] if why else [])


def test_bars_from_texts() -> None:
    labels = ["pointing_game", "pointing_game(tolerance=0)"]
    assert bars(["pointing_game(tolerance=0)=0.5"], labels) == [Bar("pointing_game(tolerance=0)", 0.5)]
    for text in ("pointing_game", "=1", "pointing_game=high", "pointing_game=nan"):
        with pytest.raises(InvalidInput, match=r"--fail-under"):
            bars([text], labels)
    with pytest.raises(InvalidInput, match=r"--fail-under: 'pointing_gme' is not measured\. .*pointing_game"):
        bars(["pointing_gme=1"], labels)


def test_the_assertion() -> None:
    assert_looks_at(red(), SAMPLES, metric="relevance_mass", at_least=0.9, explainer="occlusion(window=4, stride=4)")
    elsewhere = [(Image.fromarray(SCENE), 0, MASK[:, ::-1])]
    with pytest.raises(AssertionError, match=r"over 1 of 1 images: relevance_mass is 0\.\d+, expected at least 0\.9"):
        assert_looks_at(
            red(), elsewhere, metric="relevance_mass", at_least=0.9, explainer="occlusion(window=4, stride=4)"
        )
    with pytest.raises(AssertionError, match="no relevance_mass could be measured"):
        assert_looks_at(red(), [(Image.fromarray(SCENE), 0)], metric="relevance_mass", explainer="gradient")
    with pytest.raises(InvalidInput, match="There is no sample to look at: the list is empty"):
        assert_looks_at(red(), [])


def test_the_automatic_explainer_is_that_of_explain() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    ).eval()
    known = seewhy.load(network, preprocessing=red().preprocessing)
    with pytest.raises(AssertionError, match=r"^recipro_cam over 1 of 1 images: pointing_game is"):
        assert_looks_at(known, SAMPLES, at_least=1.1)


def test_pytest_finds_the_fixture(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import pytest\nfrom seewhy.errors import InvalidInput\n"
        "def test_it(assert_looks_at):\n"
        "    with pytest.raises(InvalidInput, match='no sample'):\n"
        "        assert_looks_at(lambda x: x.mean((2, 3)), [])\n"
    )
    installed = "seewhy.pytest_plugin" in [one.value for one in entry_points(group="pytest11")]  # then pytest finds it
    named = [] if installed else ["-p", "seewhy.pytest_plugin"]
    command = [sys.executable, "-m", "pytest", "-q", *named, "-p", "no:cacheprovider", "."]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "photos" / "red").mkdir(parents=True)
    (tmp_path / "photos" / "blue").mkdir()
    Image.fromarray(SCENE).save(tmp_path / "photos" / "red" / "one.png")
    Image.fromarray(SCENE[:, :, ::-1].copy()).save(tmp_path / "photos" / "blue" / "two.png")
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    ).eval()
    torch.jit.trace(network, torch.rand(1, 3, 24, 32)).save(tmp_path / "network.pt")
    monkeypatch.chdir(tmp_path)
    model = ["--model", "network.pt", "--size", "24", "32", "--mean", *["0"] * 3, "--std", *["1"] * 3]
    asked = ["--explainers", "occlusion(window=8, stride=8)", "--metrics", "sparseness", "--quiet"]
    runs = {
        "compare": ["photos/red/one.png", "--no-baselines"],
        "run": ["--data", "photos", "--out", "out", "--no-baselines"],
    }
    for command, others in runs.items():
        given = [command, *others, *model, *asked]
        assert cli.main([*given, "--fail-under", "sparseness=0.0"]) == 0, capsys.readouterr().err
        assert cli.main([*given, "--fail-under", "sparseness=0.0", "--fail-under", "sparseness=1.5"]) == 1
        err = capsys.readouterr().err
        assert "occlusion(window=8, stride=8): sparseness is 0." in err
        assert err.count("expected at least 1.5.") == 1
        assert cli.main([*given, "--fail-under", "pointing_game=1"]) == 2
        assert "'pointing_game' is not measured" in capsys.readouterr().err
