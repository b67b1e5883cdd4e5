"""No table has a cell that a spreadsheet runs: one rule for the export, the pages and the comparison."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from seewhy.csv_cells import guarded
from seewhy.exports.csv import Csv
from seewhy.runs.query.run import Run
from support.run_folders import Folder, picture, settings
from support.web_pages import client, key

TEXTS = (
    "=1+1",
    "+1",
    "-x",
    "@SUM(A1)",
    "\tx",
    "\rx",
    "\n=1",
    "'x",
    "\uff1d1",
    "\uff20x",
    "  =1",
    "\u00a0-1",
    "plain",
    "",
)


@pytest.mark.parametrize("text", TEXTS)
def test_one_sign_in_front_and_nothing_lost(text: str) -> None:
    made = guarded(text)
    assert made.removeprefix("'") == text if made != text else text in ("plain", "")
    assert not made.lstrip().startswith(("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20"))


def test_numbers_stay_numbers() -> None:
    assert [guarded(one) for one in (-1, -1.5, None, True)] == [-1, -1.5, None, True]


def test_the_export_and_the_page_write_the_same_cells(tmp_path: Path) -> None:
    made = Folder(tmp_path / "run", settings(explainers=("=one",), metrics=("+up",), classes=TEXTS))
    for number, text in enumerate(TEXTS):
        made.add(f"{number:08d}", picture(f"{text}{number}", number, name=text, labels={number: (0.5, True)}))
    (path,) = Csv()(Run(tmp_path / "run"), tmp_path / "x.csv")
    ours = list(csv.DictReader(io.StringIO(path.read_bytes().decode(), newline="")))
    with client(tmp_path / "run") as asking:
        text = asking.get(f"/runs/{key(asking)}/saliency.csv", params={"limit": 96}).text
    theirs = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [line["class"] for line in ours] == [guarded(text) for text in TEXTS]
    for name in ("sample", "name", "class"):
        assert [line[name] for line in ours] == [line[name] for line in theirs]
    assert theirs[0]["explainer"] == "'=one"
