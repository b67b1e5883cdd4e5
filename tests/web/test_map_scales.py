"""How the pages draw maps with both signs, maps that show nothing, and maps whose values mean the same everywhere."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from seewhy.draw.scale import white
from seewhy.plain import NOTHING
from seewhy.runs.folder.rows import NoteRow
from seewhy.runs.query.explanations import explanation
from seewhy.runs.query.run import Run
from seewhy.web.notebook import show
from support.run_folders import Folder, picture, settings
from support.web_pages import client, key, photograph

WHY = "the strongest value of its map is a change of the probability by 4e-06"
SLOPE = np.linspace(-1, 2, 64).reshape(8, 8).astype(np.float32)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """One explainer has values for and against, another sees something of the first class only."""
    about = settings(classes=("cat", "dog"))
    about["explainers"]["one"]["values"], about["explainers"]["two"]["values"] = "part", "change"
    made = Folder(tmp_path / "run", about)
    notes = [NoteRow(NOTHING, WHY, 1), NoteRow("remark", "of no matter", 0)]
    made.add(
        "a" * 8,
        picture(
            labels={0: (0.9, True), 1: (0.6, False)}, size=(80, 120), box=(0.0, 0.0, 120.0, 80.0), small=photograph(),
            maps={(label, name): SLOPE if name == "one" else abs(SLOPE) * (4e-6 if label else 1)
                  for label in (0, 1) for name in ("one", "two")},
            costs=[("two", 1.0, 0.0, 0.1, None, [], notes)],
        ),
    )  # fmt: skip
    return tmp_path / "run"


def cards(asking: Any, **query: Any) -> dict[tuple[int, str], Any]:
    page = asking.get(f"/api/runs/{key(asking)}/saliency", params={"every": "true", **query}).json()
    return {(one["label"], card["explainer"]): card for one in page["samples"][0]["labels"] for card in one["maps"]}


def grey(asking: Any, card: Any) -> np.ndarray:
    url = card["url"].replace("&fine=true", "")
    return np.asarray(Image.open(io.BytesIO(asking.get(f"/runs/{key(asking)}/{url}").content)))


def test_a_clear_negative_part_gets_both_signs_by_itself(place: Path) -> None:
    with client(place) as asking:
        card = cards(asking)[0, "one"]
        assert card["scale"] == [-2.0, 2.0, True, False]
        assert np.array_equal(grey(asking, card), np.rint((SLOPE + 2) * 63.75))
        text = asking.get(f"/runs/{key(asking)}/saliency").text
        every = cards(asking, colours="signed")
    assert 'filter="url(#diverging)"' in text
    assert "against -2" in text
    assert "2 for" in text
    assert all(card["scale"][2] for card in every.values())


def test_a_map_that_shows_nothing_is_faint_with_the_sentence_why(place: Path) -> None:
    with client(place) as asking:
        found = cards(asking)
        text = asking.get(f"/runs/{key(asking)}/saliency", params={"every": "true"}).text
        drawn = {one: grey(asking, card).max() for one, card in found.items()}
    assert [card["nothing"] for card in found.values()].count("") == 3
    assert found[1, "two"]["nothing"] == WHY[0].upper() + WHY[1:]
    assert (drawn[0, "two"], drawn[1, "two"]) == (255, 64)
    assert text.count('<p class="nothing-seen">Faint: The strongest value') == 1
    assert found[1, "two"]["scale"][1] == pytest.approx(4 * 8e-6, rel=1e-2)


def test_the_picture_the_file_and_the_notebook_are_faint_too(place: Path) -> None:
    with client(place) as asking:
        of = f"/runs/{key(asking)}/saliency"
        sheets = [
            np.asarray(Image.open(io.BytesIO(asking.get(f"{of}.png", params=asked).content)), dtype=int)
            for asked in ({"on": "0.0", "opacity": 100}, {"on": "0.1", "opacity": 100})
        ]
        table = list(csv.DictReader(io.StringIO(asking.get(f"{of}.csv", params={"every": "true"}).text)))
    strong, faint = (np.ptp(one[42:122, 436:556], axis=2).mean() for one in sheets)
    assert strong > 2.5 * faint
    assert [line["note"] for line in table].count("") == 3
    assert WHY[1:] in show(place, "s0", view="every=true").page


def test_an_explanation_of_the_run_is_drawn_the_same_way(place: Path) -> None:
    run = Run(place)
    both, seen, nothing = (explanation(run, "s0", name, label) for name, label in (("one", 0), ("two", 0), ("two", 1)))
    assert both.scale_of() == (-2, 2, True, False)
    assert (seen.shows_nothing(), nothing.shows_nothing()) == (False, True)
    assert [f"Image 0, class 1: {WHY}"] == [text for text in nothing.warnings if "strongest" in text]
    colours = [np.ptp(np.asarray(one.overlay(opacity=1), dtype=int), axis=2).mean() for one in (seen, nothing)]
    assert colours[0] > 2.5 * colours[1]
    ends = np.asarray(both.heatmap(), dtype=int)
    assert ends[0, 0, 2] > ends[0, 0, 0]  # blue is against
    assert ends[-1, -1, 0] > ends[-1, -1, 2]  # red is for


def test_runs_of_earlier_versions_are_shown_from_their_lowest_value(tmp_path: Path) -> None:
    made = Folder(tmp_path / "run", settings())
    made.add("a" * 8, picture(labels={0: (0.9, True)}, maps={(0, "one"): SLOPE}, small=photograph()))
    with client(tmp_path / "run") as asking:
        assert cards(asking)[0, "one"]["scale"] == [-1.0, 2.0, False, False]


def test_what_means_the_same_everywhere_is_shown_from_0_to_1(tmp_path: Path) -> None:
    about = settings()
    about["explainers"]["one"]["values"] = "score"
    values = np.linspace(0, 0.5, 40 * 40).reshape(40, 40).astype(np.float32)  # kept as a grey picture of 0 to 0.5
    made = Folder(tmp_path / "run", about)
    made.add("a" * 8, picture(labels={0: (0.9, True)}, maps={(0, "one"): values}, small=photograph()))
    with client(tmp_path / "run") as asking:
        card = cards(asking)[0, "one"]
        assert card["scale"] == [0.0, 1.0, False, False]
        assert grey(asking, card).max() == 128
    assert white(values, "score") is not None  # and yet it is not used
