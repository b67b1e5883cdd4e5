"""`seewhy compare` on the command line: the table, the files, exit codes and the wording of errors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seewhy import cli
from seewhy.images.reading import read_mask
from support.command_line import at, flags, noise

pytestmark = pytest.mark.slow

MODEL = "nets_for_compare:red"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    mask = np.zeros((40, 60), np.uint8)
    mask[10:30, 20:40] = 255
    for name in ("one.png", "two.png"):
        noise(tmp_path / name)
    Image.fromarray(mask).save(tmp_path / "mask.png")
    (tmp_path / "samples.csv").write_text('image,target,mask\none.png,1,mask.png\ntwo.png,"dog, hound",\n')
    with at(tmp_path, monkeypatch, MODEL, "cat\ntiger cat\ndog, hound\n"):
        yield tmp_path


def run(*arguments: str) -> int:
    return cli.main(["compare", *arguments, *flags(MODEL)])


def test_samples_from_a_table(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    methods = "gradient,rise(num_masks=8, grid=(3, 4)),occlusion"
    code = run(
        "--samples", "samples.csv", "--explainers", methods, "--metrics", "relevance_mass", "--labels", "names.txt"
    )
    out, err = capsys.readouterr()
    assert code == 0, err
    assert "wrote seewhy-compare/comparison.csv" in err
    told = json.loads((place / "seewhy-compare/comparison.json").read_text())
    assert told["explainers"] == ["gradient", "rise(num_masks=8, grid=(3, 4))", "occlusion", "random", "centre"]
    assert told["pictures"] == ["one.png", "two.png"]
    assert told["failures"] == []
    assert all(m["n"] == 1 for m in told["means"])  # the second picture has no mask
    assert all(line in out for line in ("gradient ", "random ", "centre "))


def test_pictures_and_no_baselines(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--explainers", "occlusion", "--metrics", "relevance_mass", "--no-baselines", "--out", "x"]
    assert run("one.png", *given) == 1  # nothing could be judged: there is no mask
    assert json.loads((place / "x/comparison.json").read_text())["explainers"] == ["occlusion"]
    assert "no data" in capsys.readouterr().out


def test_strict_fails_when_anything_failed(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "broken.csv").write_text("image,target,mask\none.png,1,mask.png\nnowhere.png,1,\n")
    given = ["--samples", "broken.csv", "--explainers", "occlusion", "--metrics", "relevance_mass"]
    assert run(*given) == 0
    assert "nowhere.png" in capsys.readouterr().out
    assert run(*given, "--strict") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--samples", "none.csv"], "none.csv': No such file or directory."),
        (["--samples", "names.txt"],
         "names.txt' must be a CSV file with a row a picture and the column 'image' (of image, target, labels, mask, "
         "boxes)."),
        ([], "seewhy: There is no picture to explain. Name picture files, or a folder with --data-root."),
        (["one.png", "--metrics", "no_such"], "seewhy: There is no metric 'no_such'. "),
    ],
)  # fmt: skip
def test_errors(place: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str) -> None:
    defaults = [] if "--metrics" in arguments else ["--metrics", "relevance_mass"]
    assert run(*arguments, "--explainers", "occlusion", *defaults) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGB", "RGBA", "I;16"])
def test_masks_of_every_kind_are_read(tmp_path: Path, mode: str) -> None:
    want = np.zeros((5, 7), dtype=bool)
    want[1:3, 2:6] = True
    if mode == "P":
        made = Image.fromarray(want.astype(np.uint8))
        made.putpalette([9, 9, 9, 0, 0, 0])  # the colours of a palette say nothing
    elif mode == "I;16":
        made = Image.fromarray(want.astype(np.uint16) * 300)
    elif mode == "RGBA":
        made = Image.fromarray(np.dstack([np.full((5, 7, 3), 200, np.uint8), want.astype(np.uint8) * 255]))
    else:
        made = Image.fromarray(want.astype(np.uint8) * 255).convert(mode)
    made.save(tmp_path / "mask.png")
    assert np.array_equal(read_mask(tmp_path / "mask.png"), want)


def test_a_table_is_made_again_from_its_own_file_to_the_last_bit(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "broken.csv").write_text("image,target,mask\none.png,1,mask.png\nnowhere.png,1,\ntwo.png,2,mask.png\n")
    methods, metrics = (
        "hierarchical_perturbation(grid=2),rise(num_masks=8, grid=(3, 4))",
        "relevance_mass,complexity,deletion_auc(steps=4)",
    )
    assert run("--samples", "broken.csv", "--explainers", methods, "--metrics", metrics, "--out", "first") == 0
    table = capsys.readouterr().out
    again = ["compare", "--again", "first/comparison.json", "--out", "second", "--how"]
    assert cli.main(again) == 0
    out = capsys.readouterr().out
    assert out.startswith(table.rstrip("\n"))
    for name in ("comparison.csv", "comparison.json", "comparison.txt", "comparison.png"):
        assert (place / "first" / name).read_bytes() == (place / "second" / name).read_bytes()
    assert "metric deletion_auc(steps=4): DeletionAUC(" in out
    assert "steps=4" in out.split("metric deletion_auc(steps=4):")[1]
    assert "explainer rise(num_masks=8, grid=(3, 4)): RISE(" in out
    differs = "the authors' program of hierarchical_perturbation(grid=2): grid=6, smallest_cell=2, baseline='mean'\n"
    assert differs in out
    assert out.count("the authors' program") == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{}", "holds no comparison with each picture's numbers, as seewhy compare writes it to comparison.json "),
        ("[1", "holds no comparison"),
        (None, "'table.json' cannot be read: No such file or directory."),
    ],
)
def test_what_is_no_table_is_refused(
    place: Path, capsys: pytest.CaptureFixture[str], text: str | None, said: str
) -> None:
    if text is not None:
        (place / "table.json").write_text(text)
    assert cli.main(["compare", "--again", "table.json"]) == 2
    assert said in capsys.readouterr().err
    assert cli.main(["compare", "one.png", "--explainers", "gradient"]) == 2
    assert "Name --metrics, or a table that is to be made again with --again." in capsys.readouterr().err
