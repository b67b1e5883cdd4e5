"""The grid in Chromium: pictures at once, choosing, orders and looks stand in the address."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from support.web_pages import client, key, needs_chromium, query, server, settled
from web.test_overview import softmax

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Any:
    place = softmax(tmp_path_factory.mktemp("runs") / "run")
    with client(place) as found:
        run = key(found)
    with server(place) as there:
        yield f"{there}/runs/{run}"


@pytest.fixture
def page(browser: Any) -> Any:
    tab = browser.new_page(viewport={"width": 1440, "height": 900})
    wrong: list[str] = []
    tab.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    yield tab
    tab.close()
    assert not wrong


def test_the_first_picture_stands_within_200_pixels(page: Any, address: str) -> None:
    page.goto(f"{address}/grid")
    assert page.locator(".tile svg").first.bounding_box()["y"] < 200
    page.goto(f"{address}/grid?queue=wrong")
    assert page.locator(".tile svg").first.bounding_box()["y"] < 200


def test_controls_change_the_address_and_what_is_shown(page: Any, address: str) -> None:
    page.goto(f"{address}/grid")
    page.locator("#explainer").select_option("two")
    settled(page, "document.querySelector('.tile .map')?.getAttribute('href').includes('explainer=two')")
    page.locator("#limit").select_option("24")
    settled(page, "document.querySelectorAll('.tile').length === 24")
    page.locator("#size").select_option("small")
    settled(page, "document.querySelector('.tiles.small')")
    page.locator("#queue").select_option("wrong")
    settled(page, "document.querySelector('.summary').innerText.includes('Confident and wrong')")
    assert query(page) == {"explainer": ["two"], "limit": ["24"], "size": ["small"], "queue": ["wrong"]}
    sure = [float(one) for one in page.locator(".tile .p").all_text_contents()]
    assert sure == sorted(sure, reverse=True)
    assert sure


def test_numbers_of_the_overview_open_the_grid(page: Any, address: str) -> None:
    page.goto(f"{address}/overview")
    page.get_by_role("link", name="26", exact=True).first.click()
    page.wait_for_url("**/grid?right=true")
    assert page.locator(".summary b").first.inner_text() == "26"
    page.get_by_label("Leave out: right").click()
    settled(page, "document.querySelector('.summary b').innerText === '40'")


def test_chosen_samples_make_a_page_that_can_be_sent(page: Any, address: str) -> None:
    page.goto(f"{address}/grid")
    assert not page.get_by_role("button", name="Show the chosen").is_visible()
    for number in (2, 5):
        page.locator(".pick-one input").nth(number).check()
    page.get_by_role("button", name="Show the chosen").click()
    settled(page, "document.querySelectorAll('.tile').length === 2")
    assert query(page) == {"picks": ["2", "5"]}


def test_colours_and_opacity_ask_nothing_of_the_server(page: Any, address: str) -> None:
    page.goto(f"{address}/grid")
    page.get_by_text("Colours", exact=True).first.click()
    asked: list[str] = []
    page.on("request", lambda sent: asked.append(sent.url))
    page.locator("#opacity").fill("30")
    page.locator("#opacity").dispatch_event("change")
    page.locator("#colours").select_option("viridis")
    settled(page, "location.search.includes('colours=viridis')")
    assert query(page) == {"opacity": ["30"], "colours": ["viridis"]}
    assert [url for url in asked if "/api/" not in url and "icon.svg" not in url] == []


def test_pictures_of_a_long_grid_come_when_they_are_near(page: Any, tmp_path: Path) -> None:
    place = softmax(tmp_path / "run", 120)
    with client(place) as found:
        run = key(found)
    with server(place) as there:
        page.goto(f"{there}/runs/{run}/grid?limit=200&size=large")
        assert page.locator(".tile").count() == 120
        waiting = page.locator(".tile [data-href]")
        assert waiting.count() > 0
        page.locator(".tile").last.scroll_into_view_if_needed()
        settled(page, "!document.querySelector('.tile:last-child [data-href]')")
        assert page.locator(".tile").last.locator(".map").get_attribute("href")
        page.wait_for_load_state("networkidle")
        page.goto("about:blank")  # nothing is asked any more when the server goes
