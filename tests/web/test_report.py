"""A run in one file: its numbers are those of the run, and nothing in it is fetched, run or taken for markup."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from seewhy import cli
from seewhy.errors import InvalidInput
from seewhy.insights.slices import slices
from seewhy.runs.query.run import Run
from seewhy.web.report import report
from support.run_jobs import images, network, run
from support.web_pages import folder, one


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("report") / "run"
    x = images(72)
    truth = network()(x).argmax(1).numpy()
    truth[::3] = (truth[::3] + 1) % 5
    run(place, 72, data=(x, truth), explainers=["grad_cam"], metrics=["sparseness"], baselines=True)
    return place


def test_its_numbers_are_those_of_the_run(place: Path, tmp_path: Path) -> None:
    text = report(place, tmp_path / "r.html", samples=3).read_text(encoding="utf-8")
    assert f"{100 * 48 / 72:.1f} %" in text
    assert "of 72 images whose truth is known" in text
    assert "24 of 24</td>" in text  # the slice of the true class that is never said
    (mean,) = [m for m in Run(place).judged().means if (m.explainer, m.metric) == ("grad_cam", "sparseness")]
    assert f"{mean.mean:.4g}"[:5] in text
    assert text.count('<div class="sample">') == 6
    assert text.count("data:image/jpeg") == 12
    assert Run(place).settings["model"]["digest"] in text
    assert len(slices(place).found) > 0


def test_nothing_is_fetched_or_run(place: Path, tmp_path: Path) -> None:
    text = report(place, tmp_path / "r.html").read_text(encoding="utf-8")
    assert "<script" not in text
    assert not re.search(r"(?:src|href)=\"(?!data:)", text)
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in text


def test_hostile_names_are_text(tmp_path: Path) -> None:
    made = folder(tmp_path / "run", 2)
    made.add("c" * 8, one(7, name="<script>alert(1)</script>\u202e.png"))
    text = report(tmp_path / "run", tmp_path / "r.html").read_text(encoding="utf-8")
    assert "<script>" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;\ufffd.png" in text


def test_without_truth_it_says_so(tmp_path: Path) -> None:
    run(tmp_path / "run", 3, data=(images(3),), explainers=["grad_cam"], metrics=[])
    text = report(tmp_path / "run", tmp_path / "r.html").read_text(encoding="utf-8")
    assert "What is truly on the images is not known" in text
    assert "No metric judged the maps of this run." in text
    assert "The first images" in text


def test_the_command(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "mine.html"
    assert cli.main(["report", str(place), "--out", str(out), "--samples", "0"]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    assert "data:image" not in out.read_text(encoding="utf-8")
    assert cli.main(["report", str(place), "--out", str(tmp_path / "no" / "r.html")]) == 2
    with pytest.raises(InvalidInput, match="samples must"):
        report(place, out, samples=-1)
    with pytest.raises(InvalidInput, match="cannot be read"):
        report(place, out, table=tmp_path / "none.csv")
