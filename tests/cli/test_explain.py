"""The command line, run as people run it: exit codes, one line a picture, files, and the wording of errors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from seewhy import cli
from seewhy.runs.query.run import Run
from support.command_line import at, flags, noise

pytestmark = pytest.mark.slow

MODEL = "nets_for_cli:red"
GIVEN = flags(MODEL)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for folder, name in [(".", "one.png"), (".", "two words ß.jpg"), ("deep/er", "one.png")]:
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        noise(tmp_path / folder / name)
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    with at(tmp_path, monkeypatch, MODEL, "cat\ntiger cat\ndog, hound\n"):
        yield tmp_path


def run(*arguments: str) -> int:
    return cli.main(["explain", *arguments, *GIVEN])


def test_one_line_a_picture_and_its_files(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = run(
        "one.png",
        "two words ß.jpg",
        "--method",
        "grad_cam",
        "--targets",
        '1,"dog, hound"',
        "--labels",
        "names.txt",
        "--dump",
    )
    out, err = capsys.readouterr()
    assert code == 0
    lines = out.splitlines()
    assert [line.split("\t")[0] for line in lines] == ["one.png", "two words ß.jpg"]
    assert "explained tiger cat 0." in lines[0]
    assert "; dog, hound 0." in lines[0]
    assert "32x32 RGB" in err
    names = sorted(p.name for p in (place / "seewhy-out").iterdir())
    assert names == [
        "one-grad_cam-1.png", "one-grad_cam-2.png", "one-grad_cam.json", "one-grad_cam.npz",
        "two_words_ß-grad_cam-1.png", "two_words_ß-grad_cam-2.png", "two_words_ß-grad_cam.json",
        "two_words_ß-grad_cam.npz",
    ]  # fmt: skip
    told = json.loads((place / "seewhy-out/one-grad_cam.json").read_text())
    assert [t["label"] for t in told["images"][0]["targets"]] == ["tiger cat", "dog, hound"]


def test_how_far_each_map_can_be_trusted(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("one.png", "--method", "grad_cam", "--targets", "1,2", "--trust-grade", "--quiet") == 0
    _, *lines = capsys.readouterr().out.splitlines()
    assert [line.split("\t")[:2] for line in lines] == [["one.png", "class 1"], ["one.png", "class 2"]]
    told = json.loads((place / "seewhy-out/one-grad_cam.json").read_text())["images"][0]["targets"]
    assert [t["trust"]["line"] for t in told] == [line.split("\t")[2] for line in lines]
    assert all(t["trust"]["word"] in ("none", "low", "fair", "high") for t in told)


def test_without_dump_no_values(place: Path) -> None:
    assert run("one.png", "--method", "gradient", "--out", "elsewhere") == 0
    assert sorted(p.suffix for p in (place / "elsewhere").iterdir()) == [".json", ".png"]


def test_a_broken_picture_is_reported_and_the_others_are_done(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("broken.png", "one.png", "--method", "gradient", "--quiet") == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 1
    assert "broken.png" in err
    assert "seewhy: 1 of 2 pictures could not be explained." in err
    assert run("broken.png", "one.png", "--method", "gradient", "--strict") == 1
    assert run("broken.png", "missing.png", "--method", "gradient") == 1


def test_a_folder_and_pictures_of_one_name(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "broken.png").unlink()
    assert run("--data-root", ".", "--method", "gradient", "--out", "all", "--quiet") == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert len(list((place / "all").glob("*.png"))) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "gradient"], "There is no picture to explain. Name picture files, or a folder with --data-root."),
        (["one.png", "--method", "gradcam"], "There is no explainer 'gradcam'. Did you mean 'grad_cam'"),
        (
            ["one.png", "--method", "rise", "--set", "nmasks=3"],
            "RISE has no parameter 'nmasks'. Did you mean 'num_masks'?",
        ),
        (["one.png", "--method", "rise", "--set", "grid"], "--set takes NAME=VALUE, got 'grid'."),
        (["one.png", "--set", "grid=3"], "--set needs --method: 'auto' chooses the method itself."),
        (["--data-root", "none"], "--data-root must be a folder, 'none' is not one."),
        (["one.png", "deep/er/one.png", "--targets", "99"], "Target 99 is out of range: the network has"),
        (["one.png", "two words ß.jpg", "--targets", "do"], "The model has no class"),
        (["one.png", "--labels", "none.txt"], "There is no file of class names 'none.txt'."),
        (["one.png", "--checkpoint", "none.pth"], "There is no checkpoint 'none.pth'."),
    ],
)
def test_wrong_commands_exit_with_2(
    place: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert run(*arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert f"seewhy: {message}" in err


def test_preprocessing_that_nobody_knows(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["explain", "one.png", "--model", "nets_for_cli:red", "--size", "32", "32"]) == 2
    assert "The preprocessing of nets_for_cli:red is not known: mean, std must be given too." in capsys.readouterr().err


def test_parameters_reach_the_method(place: Path) -> None:
    given = ["--set", "num_masks=12", "--set", "estimator=plain", "--set", "grid=(3, 4)", "--activation", "sigmoid"]
    assert run("one.png", "--method", "rise", *given) == 0
    told = json.loads((place / "seewhy-out/one-rise.json").read_text())
    assert told["parameters"]["num_masks"] == 12
    assert told["parameters"]["grid"] == [3, 4]
    assert (told["parameters"]["estimator"], told["parameters"]["activation_fn"]) == ("plain", "sigmoid")
    assert told["forward_passes"] == 13


def test_list_names_every_explainer_and_metric_with_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list"]) == 0
    out = capsys.readouterr().out
    assert (
        f"  {'grad_cam':<26} Feature maps of a layer, weighted by their mean gradient for the class (Selvaraju 2017)."
        in out
    )
    assert f"  {'relevance_mass':<26} Share of the positive relevance that lies on the object (Arras 2022)" in out
    assert "num_masks='auto'" in out


def test_a_reader_that_stops_reading_is_no_error() -> None:
    program = subprocess.Popen(
        [sys.executable, "-m", "seewhy", "list"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert program.stdout is not None
    assert program.stderr is not None
    assert program.stdout.readline() == "explainers:\n"
    program.stdout.close()
    assert program.stderr.read() == ""
    assert program.wait() == 1


def test_as_a_program_from_the_users_folder(place: Path) -> None:
    program = [sys.executable, "-m", "seewhy", "explain", "one.png", "--method", "recipro_cam", *GIVEN]
    done = subprocess.run(program, capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"}, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("one.png\tpredicted class ")
    done = subprocess.run([*program, "--metod", "rise"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--method" in done.stderr


def test_demo_on_one_photograph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("skimage")
    from seewhy import demo

    monkeypatch.setattr(demo, "_PHOTOGRAPHS", {"cup": ("skimage", "data/coffee.png")})
    assert cli.main(["demo", "--out", str(tmp_path), "--no-view", "--masks", "8"]) == 0
    assert "cup: espresso 0.9" in capsys.readouterr().out
    assert Image.open(tmp_path / "contact-sheet.png").width > 1500
    found = Run(tmp_path / "run")
    counts = found.counts()
    assert (counts.samples, counts.failed, len(found.drawn), len(found.metrics)) == (1, 0, 8, 4)
    assert found.drawn[6:] == ("occlusion", "rise")
    assert found.explainers[8:] == ("centre", "random")
    record = next(found.records())
    assert set(record.labels) == {967}
    assert record.labels[967].flag == "TP"
    assert record.uncertainty
    assert found.tree(record.sample, 967) is not None
