"""The page of a sample in Chromium: zoom in step, keys through a queue, and verdicts that are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from seewhy.runs.query.run import Run
from seewhy.web.security import Rules
from support.web_pages import client, key, needs_chromium, query, server, settled
from web.test_overview import softmax

pytestmark = needs_chromium


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return softmax(tmp_path / "run")


@pytest.fixture
def page(browser: Any, place: Path) -> Any:
    with client(place) as found:
        run = key(found)
    with server(place, Rules(reviewer="Anna")) as address:
        tab = browser.new_page(viewport={"width": 1440, "height": 900})
        wrong: list[str] = []
        tab.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        tab.there = f"{address}/runs/{run}"
        yield tab
        tab.close()
        assert not wrong


def boxes(tab: Any) -> list[str]:
    found: list[str] = tab.evaluate(
        "[...document.querySelectorAll('[data-stage]')].map((v) => v.getAttribute('viewBox'))"
    )
    return found


def test_the_first_picture_stands_within_200_pixels(page: Any) -> None:
    page.goto(f"{page.there}/sample?queue=wrong")
    assert page.locator(".stage-view").first.bounding_box()["y"] < 200


def test_all_pictures_are_enlarged_and_moved_in_step(page: Any) -> None:
    page.goto(f"{page.there}/sample")
    assert set(boxes(page)) == {"0 0 120 80"}
    page.keyboard.press("+")
    assert len(boxes(page)) == 3
    assert len(set(boxes(page))) == 1
    assert boxes(page)[0].split()[2:] == ["80", str(80 / 1.5)]
    at = page.locator(".stage-view").nth(1).bounding_box()
    x, y = at["x"] + at["width"] / 2, at["y"] + at["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x - 50, y, steps=3)
    page.mouse.up()
    assert len(set(boxes(page))) == 1
    left = float(boxes(page)[0].split()[0])
    assert left == pytest.approx(20 + 50 * 80 / at["width"], abs=1)
    address, before = page.url, boxes(page)
    page.goto(address)
    assert [round(float(one), 1) for one in boxes(page)[2].split()] == [
        round(float(one), 1) for one in before[0].split()
    ]
    page.keyboard.press("0")
    assert set(boxes(page)) == {"0 0 120 80"}
    assert "zoom" not in query(page)


def test_keys_go_through_a_queue(page: Any) -> None:
    page.goto(f"{page.there}/grid?queue=wrong")
    page.locator(".tile a").nth(1).click()
    page.wait_for_url("**/sample?*")
    assert query(page)["page"] == ["2"]
    page.keyboard.press("ArrowRight")
    settled(page, "location.search.includes('page=3')")
    page.keyboard.press("ArrowLeft")
    settled(page, "location.search.includes('page=2')")
    page.keyboard.press("2")
    settled(page, "document.querySelector('[data-nth=\"2\"]').closest('.active')")


def test_a_verdict_by_a_key_is_kept_and_stays_on_the_sample(page: Any, place: Path) -> None:
    page.goto(f"{page.there}/sample?queue=wrong&page=2")
    page.locator("#review-text").fill("it is a dog")
    page.locator("h1").click()
    with page.expect_navigation():
        page.keyboard.press("b")
    assert query(page) == {"queue": ["wrong"], "page": ["2"]}
    assert page.locator(".said-by").inner_text().startswith("Anna bad label it is a dog")
    said = [one.line for reviews in Run(place).reviews.values() for one in reviews]
    assert said == ["Anna: bad label, it is a dog"]


def test_chosen_samples_of_the_grid_get_a_verdict(page: Any, place: Path) -> None:
    page.goto(f"{page.there}/grid")
    for number in (0, 1):
        page.locator(".pick-one input").nth(number).check()
    page.get_by_role("button", name="look again").click()
    settled(page, "document.querySelectorAll('.reviewed').length === 2")
    assert {key: [one.verdict for one in said] for key, said in Run(place).reviews.items()} == {
        "s000": ["look again"], "s001": ["look again"],
    }  # fmt: skip


def test_what_is_being_written_is_not_lost_when_the_run_grows(page: Any, place: Path) -> None:
    page.goto(f"{page.there}/sample")
    page.locator("#review-text").fill("not sent yet")
    page.locator("h1").click()
    Run(place).review("s003", "Ben", "look again")
    page.get_by_role("button", name="There are new results").wait_for()
    assert page.locator("#review-text").input_value() == "not sent yet"


def test_original_scores_and_labels_are_on_the_first_screen(page: Any) -> None:
    page.goto(f"{page.there}/sample")
    assert page.locator(".stage-view").count() == 3
    for name in ("Labels", "Scores of the maps"):
        assert page.get_by_role("heading", name=name).bounding_box()["y"] < 900
    heads = page.locator(".sample-scores tbody th")
    for number in range(heads.count()):
        assert heads.nth(number).evaluate("one => one.scrollWidth <= one.clientWidth")
