"""The pages of a run over a detector: boxes as labels, drawn over the picture and its maps; also in a real browser."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from support.detection_runs import OCCLUSION, run
from support.web_pages import client, key, needs_chromium, query, server, settled

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("runs")
    run(made / "boxes", explainers=[OCCLUSION, "gradient"])
    return made


@pytest.fixture(scope="module")
def served(place: Path) -> Iterator[tuple[str, dict[str, str]]]:
    with client(place) as asking:
        name = key(asking)
    with server(place) as address:
        yield address, {"boxes": f"{address}/runs/{name}"}


@pytest.fixture
def asking(place: Path) -> Iterator[Any]:
    with client(place) as found:
        found.run = key(found)
        yield found


def page(asking: Any, asked: str = "") -> Any:
    answer = asking.get(f"/api/runs/{asking.run}/saliency{asked}")
    assert answer.status_code == 200, answer.text
    return answer.json()


# -------------------------------------------------------------------------------------------------------- the twin


def test_the_twin_tells_each_box(asking: Any) -> None:
    found = page(asking)
    assert found["detects"] is True
    labels = found["samples"][0]["labels"]
    assert [(one["number"], one["index"], one["name"], one["flag"]) for one in labels] == [
        (1, 0, "red", "TP"), (2, 1, "green", "FP"), (3, 0, "red", "FP"), (4, 1, "green", "FN"),
    ]  # fmt: skip
    assert labels[2]["detected"] == [48, 32, 96, 64]
    assert [one["overlap"] for one in labels] == [1, 0.375, 0, 1]
    assert [one["active"] for one in labels] == [True, False, False, False]
    assert [len(sample["labels"]) for sample in found["samples"]] == [4, 0, 1, 0]
    assert "Nothing is found with a score above 0.5." in found["samples"][1]["notes"]


@pytest.mark.parametrize(
    ("asked", "meeting"),
    [
        ("?labels=0", {"000000": [1, 3]}),
        ("?labels=1", {"000000": [2, 4], "000002": [1]}),
        ("?flags=FN", {"000000": [4]}),
        ("?labels=0&flags=FP", {"000000": [3]}),
        ("?least=0.65", {"000000": [1, 2], "000002": [1]}),
    ],
)
def test_filters(asking: Any, asked: str, meeting: dict[str, list[int]]) -> None:
    found = {
        s["sample"]: [one["number"] for one in s["labels"] if one["meets"]] for s in page(asking, asked)["samples"]
    }
    assert found == meeting


def test_a_chosen_box_has_its_own_maps(asking: Any) -> None:
    (sample,) = page(asking, "?on=0.2&flags=TP")["samples"]
    (active,) = [one for one in sample["labels"] if one["active"]]
    assert (active["number"], active["label"]) == (3, 2)
    first = page(asking, "?flags=TP")["samples"][0]["labels"][0]
    assert active["maps"][0]["url"] != first["maps"][0]["url"]
    answer = asking.get(f"/runs/{asking.run}/{active['maps'][0]['url']}")
    grey = np.asarray(Image.open(io.BytesIO(answer.content)))
    down, across = np.unravel_index(grey.argmax(), grey.shape)
    assert down >= grey.shape[0] / 2
    assert across >= grey.shape[1] / 2


def test_scores_by_class(asking: Any) -> None:
    found = asking.get(f"/api/runs/{asking.run}/classes").json()
    assert [line["name"] for line in found["rows"]] == ["red", "green"]


# ------------------------------------------------------------------------------------------------------- downloads


def test_a_table_of_boxes(asking: Any) -> None:
    answer = asking.get(f"/runs/{asking.run}/saliency.csv?explainers=gradient")
    lines = list(csv.DictReader(io.StringIO(answer.text)))
    assert [(one["label"], one["class"], one["box"], one["x1"]) for one in lines if one["sample"] == "000000"] == [
        ("0", "red", "1", "48.0"), ("1", "green", "2", "96.0"), ("0", "red", "3", "96.0"), ("1", "green", "4", "66.0"),
    ]  # fmt: skip


def test_a_picture_with_boxes(asking: Any) -> None:
    def cell(asked: str) -> Any:
        answer = asking.get(f"/runs/{asking.run}/saliency.png?limit=1&explainers=gradient{asked}")
        pixels = np.asarray(Image.open(io.BytesIO(answer.content)).convert("RGB"))
        return pixels[42 : 42 + 64, 12 : 12 + 96].astype(int)

    plain, true, third = cell(""), cell("&boxes=true"), cell("&on=0.2")
    assert (plain[1, 5:40] == 255).all()  # strong: white between dark lines
    assert (plain[0, 5:40] < 60).all()
    assert (plain[32, 52:90] == 255).all()  # thin
    assert (third[33, 52:90] == 255).all()
    assert (third[32, 52:90] < 60).all()
    assert set(true[0, 4:44].reshape(-1).tolist()) == {34, 255}  # dashed


def test_a_page_that_needs_no_server(asking: Any) -> None:
    answer = asking.get(f"/runs/{asking.run}/saliency.html?boxes=true")
    assert 'data-boxes="true"' in answer.text
    assert answer.text.count('data-box="3"') == 3  # over the picture and over both maps
    assert 'id="boxes" checked' in answer.text


# --------------------------------------------------------------------------------------------------------- browser


def visible(tab: Any, what: str) -> int:
    return sum(one.is_visible() for one in tab.locator(what).all())


@needs_chromium
def test_boxes_are_drawn_and_chosen(tab: Any, served: Any) -> None:
    tab.goto(f"{served[1]['boxes']}/saliency")
    card = tab.locator("#sample-0")
    assert card.locator(".labels .nth").all_inner_texts() == ["1", "2", "3", "4"]
    assert card.locator(".labels .flag").all_inner_texts() == ["TP", "FP", "FP", "FN"]
    for drawing in (".original", ".cell >> nth=0", ".cell >> nth=1"):
        assert card.locator(drawing).locator(".box").count() == 4
        assert card.locator(drawing).locator(".box.strong").get_attribute("data-box") == "1"
    frame = card.locator(".original svg.view").bounding_box()
    corner = card.locator('.original .box[data-box="3"] .over').bounding_box()
    assert corner["x"] == pytest.approx(frame["x"] + frame["width"] / 2, abs=3)
    assert corner["y"] == pytest.approx(frame["y"] + frame["height"] / 2, abs=3)
    assert card.locator(".original text").all_text_contents() == ["4", "3", "2", "1"]
    card.locator('[data-label-of][data-label="2"]').click()
    settled(tab, "document.querySelector('#sample-0 .original .box.strong').dataset.box === '3'")
    assert query(tab)["on"] == ["0.2"]
    assert card.locator(".maps").get_attribute("data-name") == "red (box 3)"
    assert tab.locator("#sample-1 .labels").inner_text() == "No box: nothing was found."
    tab.keyboard.press("Escape")
    card.focus()
    tab.keyboard.press("4")
    settled(tab, "document.querySelector('#sample-0 .original .box.strong').dataset.box === '4'")
    assert "missed" in card.locator(".original .box.strong").get_attribute("class")


@needs_chromium
def test_true_boxes_stand_in_the_address(tab: Any, served: Any) -> None:
    tab.goto(f"{served[1]['boxes']}/saliency?on=0.1")
    assert visible(tab, "#sample-0 .truth") == 0
    tab.get_by_label("True boxes").check()
    settled(tab, "location.search.includes('boxes=true')")
    assert visible(tab, "#sample-0 .truth") == 3  # of this class: over the picture and over both maps
    tab.reload()
    assert tab.get_by_label("True boxes").is_checked()
    assert visible(tab, "#sample-0 .truth") == 3
    tab.locator("#sample-0 a.open").first.click()
    tab.locator("#viewer .box.strong").wait_for()
    assert visible(tab, "#viewer .truth") == 1
    tab.keyboard.press("Escape")
    tab.get_by_label("True boxes").uncheck()
    settled(tab, "!location.search.includes('boxes')")
    assert visible(tab, "#sample-0 .truth") == 0


@needs_chromium
def test_boxes_side_by_side(tab: Any, served: Any) -> None:
    tab.goto(f"{served[1]['boxes']}/saliency?limit=12")
    tab.get_by_label("All boxes side by side").check()
    settled(tab, "document.querySelectorAll('#sample-0 .rows h3').length === 4")
    rows = tab.locator("#sample-0 .maps")
    assert [row.locator(".cell >> nth=0").locator(".box.strong").get_attribute("data-box") for row in rows.all()] == [
        "1", "2", "3", "4",
    ]  # fmt: skip
    assert tab.locator("#sample-0 .original .box.strong").count() == 0
    assert "found means a score above 0.5" in tab.locator(".summary").inner_text()
