"""``seewhy run``, ``resume``, ``status`` and ``export``, run as people run them."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from seewhy import cli
from seewhy.runs.query.run import Run
from support.command_line import at, flags, noise

pytestmark = pytest.mark.slow

MODEL = flags("nets_of_runs:small")
TASK = ["--data", "photos", "--explainers", "gradient,occlusion(window=8, stride=8)", "--metrics", "sparseness"]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    rng = np.random.default_rng(0)
    for kind in ("ant", "bee", "cat"):
        (tmp_path / "photos" / kind).mkdir(parents=True)
        for i in range(4):
            noise(tmp_path / "photos" / kind / f"{i}.png", rng)
    with at(tmp_path, monkeypatch, "nets_of_runs:small", "ant\nbee\ncat\n"):
        yield tmp_path


def seewhy(*arguments: str) -> int:
    return cli.main(list(arguments))


def test_run_resume_status_export(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert seewhy("run", *MODEL, *TASK, "--labels", "names.txt", "--out", "out", "--chunk", "5") == 0
    said = capsys.readouterr().out
    assert "12 pictures computed in" in said
    assert "gradient: sparseness 0." in said
    run = Run(place / "out")
    assert run.classes == ["ant", "bee", "cat"]
    assert {one.truth for one in run.records()} == {(0,), (1,), (2,)}
    assert seewhy("resume", "out") == 0
    assert "0 pictures computed in" in capsys.readouterr().out
    assert seewhy("status", "out") == 0
    said = capsys.readouterr().out
    assert "12 of 12 pictures" in said
    assert "nets_of_runs:small" in said
    assert seewhy("status", "out", "--json") == 0
    assert json.loads(capsys.readouterr().out)["counts"]["samples"] == 12
    assert seewhy("export", "out", "--to", "csv", "--out", "labels.csv") == 0
    with (place / "labels.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == run.counts().labels
    scores = {(line["sample"], line["label"]): line["gradient/sparseness"] for line in lines}
    record = next(run.records())
    label = next(iter(record.labels))
    assert float(scores[record.sample, str(label)]) == pytest.approx(record.scores[label, "gradient", "sparseness"])


def test_features_are_kept_by_a_flag(place: Path) -> None:
    assert seewhy("run", *MODEL, "--data", "photos", "--features", "--out", "out") == 0
    assert len(Run(place / "out").vectors().samples) == 12


def test_trust_grades_are_asked_for_by_a_flag(place: Path) -> None:
    assert seewhy("run", *MODEL, *TASK, "--trust-grade", "--out", "out") == 0
    run = Run(place / "out")
    assert run.metrics[-1] == "trust_grade"
    record = next(run.records())
    assert {key[2] for key in record.said} == {"trust_grade"}


def test_resume_from_another_folder(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert seewhy("run", *MODEL, *TASK, "--out", "out", "--shard", "1/2", "--chunk", "4") == 0
    assert "4 left" in capsys.readouterr().out
    (place / "elsewhere").mkdir()
    monkeypatch.chdir(place / "elsewhere")
    assert seewhy("resume", "../out") == 0
    assert "4 pictures computed in" in capsys.readouterr().out


def test_a_run_folder_behind_an_address(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    address = f"memory://{place.name}/out"
    assert seewhy("run", *MODEL, *TASK, "--out", address) == 0
    assert seewhy("resume", address) == 0
    assert "0 pictures computed in" in capsys.readouterr().out
    run = Run(address)
    record = next(run.records())
    made = run.map(record.sample, next(iter(record.labels)), "gradient")
    assert made is not None
    assert made.shape == (32, 32)
    assert not (place / "memory:").exists()


@pytest.mark.parametrize("kind", ["toml", "yaml"])
def test_config_files(place: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    toml = """
model = "nets_of_runs:small"
size = [32, 32]
mean = [0.5, 0.5, 0.5]
std = [0.5, 0.5, 0.5]
data = "photos"
explainers = ["gradient", "rise(num_masks=4)"]
metrics = "sparseness,complexity"
uncertainty = true
threshold = 0.4
out = "from-file"
[data-set]
classes_from_folders = false
"""
    yaml = """
model: nets_of_runs:small
size: [32, 32]
mean: [0.5, 0.5, 0.5]
std: [0.5, 0.5, 0.5]
data: photos
explainers: [gradient, "rise(num_masks=4)"]
metrics: sparseness,complexity
uncertainty: true
threshold: 0.4
out: from-file
data_set: {classes_from_folders: false}
"""
    (place / f"job.{kind}").write_text({"toml": toml, "yaml": yaml}[kind])
    assert seewhy("run", "--config", f"job.{kind}", "--out", "mine") == 0
    run = Run(place / "mine")
    assert not (place / "from-file").exists()
    assert list(run.explainers) == ["gradient", "rise(num_masks=4)", "random", "centre"]
    assert run.settings["threshold"] == 0.4
    assert run.settings["uncertainty"] is not None
    assert next(run.records()).truth is None
    capsys.readouterr()
    assert seewhy("resume", "mine") == 0
    assert "0 pictures computed in" in capsys.readouterr().out


def test_exit_codes(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "photos" / "ant" / "0.png").write_bytes(b"no picture")
    assert seewhy("run", *MODEL, *TASK, "--out", "some") == 0
    assert "1 failures, 1 pictures of which nothing could be done" in capsys.readouterr().out
    assert seewhy("run", *MODEL, *TASK, "--out", "strict", "--strict") == 1
    for path in (place / "photos").rglob("*.png"):
        path.write_bytes(b"no picture")
    assert seewhy("run", *MODEL, *TASK, "--out", "none") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", *MODEL, "--data", "photos", "--out", "o"],
         "seewhy: There is nothing to do: name --explainers, or ask for --uncertainty, --counterfactual or "
         "--features.\n"),
        (["run", *MODEL, *TASK, "--out", "o", "--shard", "3/2"],
         "seewhy: --shard is i/n with i from 1 to n, got '3/2'.\n"),
        (["run", *MODEL, "--data", "nowhere", "--explainers", "rise", "--out", "o"], "'nowhere' does not exist."),
        (["run", *MODEL, "--data", "photos", "--explainers", "ryse", "--out", "o"],
         "seewhy: There is no explainer 'ryse'. Did you mean 'rise'"),
        (["run", "--config", "none.toml"], "seewhy: The configuration 'none.toml' cannot be read: "),
        (["run", "--config", "bad.yaml"], "'bad.yaml': seewhy run has no 'explainer'. Did you mean 'explainers'"),
        (["run", "--config", "names.txt"],
         "seewhy: The configuration 'names.txt' must have names and values, as in: data = \"photos\".\n"),
        (["resume", "photos"], "is not a run folder: it has no run.json.\n"),
        (["status", "photos"], "is not a run folder: it has no run.json.\n"),
        (["export", "photos", "--to", "cvs", "--out", "x"], "seewhy: There is no export 'cvs'. Did you mean 'csv'"),
        (["status", "photos", "--failures", "-1"], "seewhy: failures must not be negative, got -1.\n"),
    ],
)  # fmt: skip
def test_errors(place: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str) -> None:
    (place / "bad.yaml").write_text("explainer: gradient\n")
    assert seewhy(*arguments) == 2
    assert said in capsys.readouterr().err


def test_a_run_of_objects_cannot_be_resumed_here(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from support import run_jobs

    run_jobs.run(place / "out", metrics=())
    assert seewhy("resume", "out") == 2
    assert "was started from Python with objects that no file holds." in capsys.readouterr().err


def test_an_unknown_parameter_of_a_format(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert seewhy("run", *MODEL, *TASK, "--out", "out") == 0
    assert seewhy("export", "out", "--to", "coco", "--out", "x", "--set", "treshold=0.4") == 2
    assert "The format 'coco' has no parameter 'treshold'. Did you mean 'threshold'?" in capsys.readouterr().err


def test_ctrl_c_in_a_real_process(place: Path) -> None:
    slow = [*MODEL, "--data", "photos", "--explainers", "rise(num_masks=4000)", "--chunk", "1", "--out", "out"]
    environment = os.environ | {"PYTHONPATH": str(Path(cli.__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "seewhy", "run", *slow], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environment,
    )  # fmt: skip
    for _ in range(600):
        if list((place / "out" / "parts").glob("*.parquet")):
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Interrupted. Nothing is lost; go on with: seewhy resume" in out
    done = Run(place / "out").counts().samples
    assert 0 < done < 12
