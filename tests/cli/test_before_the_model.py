"""A typo never waits for a model: what is wrong in a command is told before the network is made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from seewhy import cli
from support import factories
from support.command_line import noise

MODEL = [
    "--model",
    "support.factories:recorded",
    "--size",
    "8",
    "8",
    "--mean",
    ".5",
    ".5",
    ".5",
    "--std",
    "1",
    "1",
    "1",
]
RUN = ["run", *MODEL, "--data", "photos", "--out", "out", "--explainers", "rise(num_masks=4)"]
COMPARE = ["compare", "one.png", *MODEL, "--explainers", "rise(num_masks=4)", "--metrics", "sparseness"]


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(factories, "made", found := list[str]())
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for path in (tmp_path / "one.png", tmp_path / "photos" / "one.png"):
        noise(path, rng)
    (tmp_path / "taken").write_text("a file")
    return found


WRONG = {
    "explain: a method": (["explain", "one.png", *MODEL, "--method", "rize"], 2, "Did you mean 'rise'"),
    "explain: a parameter": (
        ["explain", "one.png", *MODEL, "--method", "rise", "--set", "num_mask=4"], 2, "Did you mean 'num_masks'",
    ),
    "explain: a value": (["explain", "one.png", *MODEL, "--method", "rise", "--set", "p=3"], 2, "p must lie between"),
    "explain: pictures": (["explain", "two.png", "three.png", *MODEL, "--method", "rise"], 1, "three.png"),
    "explain: a folder": (["explain", "one.png", *MODEL, "--out", "taken"], 2, "'taken' cannot be written"),
    "explain: a threshold": (["explain", "one.png", *MODEL, "--score-threshold", "3"], 2, "score_threshold must be"),
    "explain: names": (["explain", "one.png", *MODEL, "--labels", "no.txt"], 2, "There is no file of class names"),
    "explain: weights": (["explain", "one.png", *MODEL, "--checkpoint", "no.pth"], 2, "There is no checkpoint"),
    "compare: an explainer": ([*COMPARE, "--explainers", "rize"], 2, "Did you mean 'rise'"),
    "compare: a metric": ([*COMPARE, "--metrics", "sparsness"], 2, "Did you mean 'sparseness'"),
    "compare: confidence": ([*COMPARE, "--confidence", "2"], 2, "confidence must lie between"),
    "compare: pictures": ([COMPARE[0], "two.png", *COMPARE[2:]], 2, "None of the pictures is there, such as 'two.png'"),
    "compare: a folder": ([*COMPARE, "--out", "taken"], 2, "'taken' cannot be written"),
    "run: an explainer": ([*RUN, "--explainers", "rize"], 2, "Did you mean 'rise'"),
    "run: a value": ([*RUN, "--explainers", "rise(grid=0)"], 2, "grid must be a positive integer or a pair"),
    "run: a metric": ([*RUN, "--metrics", "sparsness"], 2, "Did you mean 'sparseness'"),
    "run: data": ([*RUN, "--data", "nowhere"], 2, "nowhere"),
    "run: a folder": ([*RUN, "--out", "taken"], 2, "cannot be"),
    "run: an engine": ([*RUN, "--engine", "lokal"], 2, "Did you mean 'local'"),
    "run: a shard": ([*RUN, "--shard", "3/2"], 2, "--shard is i/n"),
    "run: a device": ([*RUN, "--device", "gpu"], 2, "device 'gpu' cannot be used"),
    "run: threads": ([*RUN, "--threads", "0"], 2, "threads must be a positive integer or None"),
    "run: names": ([*RUN, "--labels", "no.txt"], 2, "There is no file of class names"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_in_a_command_does_not_wait_for_the_model(
    what: str, made: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, code, text = WRONG[what]
    assert cli.main(arguments) == code
    assert text in capsys.readouterr().err
    assert made == []


def test_right_commands_make_the_model_once(made: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["explain", "two.png", "one.png", *MODEL, "--method", "rise", "--set", "num_masks=4"]) == 0
    out, err = capsys.readouterr()
    assert "two.png" in err
    assert "loading support.factories:recorded ..." in err
    assert "seewhy: 1 of 2 pictures could not be explained." in err
    assert len(out.splitlines()) == 1
    assert made == ["recorded"]
    assert cli.main(RUN) == 0
    assert made == ["recorded", "recorded"]
