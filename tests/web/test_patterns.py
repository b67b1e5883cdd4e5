"""The page of patterns: what was kept is shown with links to its images, and what cannot be used is an error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seewhy.insights.patterns import patterns
from seewhy.runs.query.run import Run
from support.run_jobs import run
from support.web_pages import client, key


@pytest.fixture
def place(tmp_path: Path) -> Path:
    run(tmp_path / "run", 12, features={})
    return tmp_path / "run"


def found(**changes: Any) -> dict[str, Any]:
    """One pattern of the first three images."""
    one = {
        "class_index": 0, "class_name": "<b>ant</b>", "samples": ["000000", "000001", "000002"], "positions": [0, 1, 2],
        "of": 40, "views": ["body.1", "place"], "errors": 0.25, "elsewhere": 0.0, "border": 0.75, "off_object": None,
        "place": np.eye(28).tolist(), "goes_with": ["clinic = north: 3 of 3, of the others 0 of 37"],
        "removal": {"change": 0.5, "low": 0.4, "high": 0.6, "images": 3, "alone": 0.5}, "insertion": None,
        "grade": "shown", "why": "taken away, its evidence moves the score by +0.500.",
    }  # fmt: skip
    return {"run": "x", "explainer": "grad_cam", "images": 120, "classes": 3, "found": [one | changes]}


def keep(place: Path, content: Any) -> None:
    (place / "insights").mkdir(exist_ok=True)
    (place / "insights" / "patterns.json").write_text(json.dumps(content), encoding="utf-8")


def test_where_nobody_looked_and_where_nothing_stands_out(place: Path) -> None:
    with client(place) as asking:
        address = f"/runs/{key(asking)}/patterns"
        assert "Nobody has looked for patterns yet" in asking.get(address).text
        patterns(place)  # 12 images: too few to tell anything
        assert Run(place).insight("patterns")["found"] == []
        said = asking.get(address).text
        assert "Nothing stands out in" in said
        assert asking.get(f"/api{address}").json()["looked"] is True


def test_a_pattern_is_shown_with_its_images(place: Path) -> None:
    keep(place, found())
    with client(place) as asking:
        here = f"/runs/{key(asking)}/"
        page = asking.get(f"{here}patterns").text
        assert "&lt;b&gt;ant&lt;/b&gt;" in page
        assert "<b>ant</b>" not in page
        for words in (
            "3 of 40",
            "shown",
            "moves the score by +0.500",
            "95 % interval 0.4 to 0.6",
            "75.0 %",
            "clinic = north",
        ):
            assert words in page
        assert page.count('class="tile"') == 3
        card = asking.get(f"/api{here}patterns").json()["found"][0]
        assert [tile["sample"]["position"] for tile in card["tiles"]] == [0, 1, 2]
        many = asking.get(f"/api{here}{card['link']}").json()
        assert many["total"] == 3
        assert max(max(row) for row in card["place"]) == 1


@pytest.mark.parametrize(
    "content",
    [
        [], {"found": 1}, found(grade="sure"), found(place=[["x"]]), found(positions=[-1]), found(border=float("nan")),
        found(samples=[1]), found(removal={"change": "much"}), found(place=[[0.0] * 65]),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_used_is_an_error(place: Path, content: Any) -> None:
    keep(place, content)
    with client(place) as asking:
        here = f"/runs/{key(asking)}/"
        answer = asking.get(f"{here}patterns")
        assert answer.status_code == 400
        assert "insights/patterns.json" in answer.text
        assert asking.get(f"{here}overview").status_code == 200


def test_no_json_is_an_error_too(place: Path) -> None:
    (place / "insights").mkdir()
    for text in ("{", "[" * 100_000):
        (place / "insights" / "patterns.json").write_text(text, encoding="utf-8")
        with client(place) as asking:
            assert asking.get(f"/runs/{key(asking)}/patterns").status_code == 400
