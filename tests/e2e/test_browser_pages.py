"""The other pages in a real browser: scores, classes, counterfactuals, failures, runs; and a run that still grows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from seewhy.runs.query.run import Run
from support.run_folders import Folder, picture, settings
from support.typed import present
from support.web_pages import HOSTILE, folder, names, needs_chromium, one, query, server, settled, tree

pytestmark = [needs_chromium, pytest.mark.slow]


def test_weights_stand_in_the_address(tab: Any, served: Any, place: Path) -> None:
    run = Run(place / "real")
    tab.goto(f"{served[1]['real']}/scores")
    means = {(score.explainer, score.metric): score.mean for score in run.scores()}
    for row, metric in zip(tab.locator(".scores tbody tr").all(), run.metrics, strict=True):
        cells = row.locator("td.num")
        for cell, name in zip(cells.all(), run.explainers, strict=True):
            mean = means[name, metric]
            text = cell.locator(".mean, .missing").first.inner_text()
            assert (
                text == "no data"
                if mean is None
                else float(text) == pytest.approx(mean, abs=0.51 * 0.1 ** len(text.partition(".")[2]))
            )
    weights = tab.locator("input[type=number][data-weight]")
    before = tab.locator("tfoot").inner_text()
    weights.first.fill("5")
    weights.first.press("Tab")
    settled(tab, "location.search.startsWith('?weights=5')")
    settled(tab, f"document.querySelector('tfoot').innerText !== {before!r}")
    after = tab.locator("tfoot").inner_text()
    tab.reload()
    assert tab.locator("tfoot").inner_text() == after


def test_scores_by_class(tab: Any, served: Any, place: Path) -> None:
    run = Run(place / "hostile")
    tab.goto(f"{served[1]['hostile']}/classes")
    tab.locator('input[value="metric"]').check()
    settled(
        tab,
        "location.search === '?by=metric' && document.querySelector('thead th:nth-child(2) bdi').innerText === 'one'",
    )
    tab.select_option("#sort", "one")
    tab.select_option("#descending", "true")
    settled(tab, "location.search.includes('sort=one') && location.search.includes('descending=true')")
    scores = {one.label: present(one.mean) for one in run.label_scores(explainer="one", metric="up")}
    expected = sorted(scores, key=lambda label: -scores[label])
    settled(tab, f"document.querySelector('tbody th .muted').innerText === '{expected[0]}'")
    assert tab.locator("tbody th .muted").all_inner_texts() == [str(label) for label in expected]
    shown = [float(text) for text in tab.locator("tbody td:nth-child(2) .value").all_inner_texts()]
    assert shown == pytest.approx([scores[label] for label in expected], rel=1e-3)
    tab.locator("#text").fill("snow")
    settled(tab, "document.querySelectorAll('tbody tr').length === 1")
    assert tab.locator("tbody th bdi").inner_text() == HOSTILE[3]
    tab.select_option("#name", "down")
    settled(tab, "document.querySelector('.missing')")
    assert tab.locator("tbody td").first.inner_text() == "no data"


def test_counterfactuals(tab: Any, served: Any) -> None:
    tab.goto(f"{served[1]['hostile']}/counterfactual")
    assert tab.locator(".thumbs a").count() == 1
    assert tab.locator("#layer-title").inner_text() == "After layer 2 of 2"
    assert tab.locator(".pair .big b").inner_text() == "0.700"
    assert tab.locator(".steps tbody tr").count() == 3
    assert tab.locator(".pair .window").count() == 2
    tab.locator('a[data-layer="1"]').click()
    settled(tab, "document.querySelector('#layer-title').innerText === 'After layer 1 of 2'")
    assert query(tab) == {"sample": ["40"], "label": ["5"], "layer": ["1"]}
    tab.locator("#play").click()
    settled(tab, "document.querySelector('#layer-title').innerText === 'After layer 2 of 2'")
    settled(tab, "document.querySelector('#play').innerText.includes('Play')")
    tab.locator(".pick").nth(1).click()
    settled(tab, "document.querySelector('#results .told')?.innerText === 'It is not enough.'")
    tab.locator('[name="empty"]').check()
    settled(tab, "document.querySelectorAll('.thumbs a').length > 20")


def test_what_a_label_cannot_do_without_is_masked_inside_of_the_windows(browser: Any, tmp_path: Path) -> None:
    folder(tmp_path / "run", 1).add("c" * 8, one(40, trees={5: tree(mode="hide")}))
    with server(tmp_path) as address:
        found = browser.new_page()
        found.goto(address)
        found.locator(".run h2 a").click()
        found.locator(".tabs a[href$='/counterfactual']").click()
        panel = found.locator("section[aria-labelledby='layer-title']")
        assert "of the picture is hidden, and the probability falls below 0.5." in panel.inner_text()
        whole, windows = panel.locator("svg > image"), panel.locator("g > image")
        looks = [one.evaluate("one => getComputedStyle(one).filter") for one in (whole, windows)]
        assert looks == ["none", "grayscale(1) brightness(0.38)"]
        assert found.locator("a[data-layer] span").first.inner_text().endswith("hidden")
        found.close()


def test_the_command_that_tries_again_is_copied(browser: Any, tmp_path: Path) -> None:
    folder(tmp_path / "run", 1, command={"model": "m"})
    with server(tmp_path) as address:
        context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
        found = context.new_page()
        found.goto(address)
        found.locator(".run h2 a").click()
        found.locator(".tabs a[href$='/failures']").click()
        found.locator("[data-copy]").click()
        settled(found, "document.querySelector('[data-copy]').textContent === 'Copied'")
        command = f"seewhy resume --retry {tmp_path / 'run'}"
        assert found.locator("#command").inner_text() == command
        assert found.evaluate("navigator.clipboard.readText()") == command
        context.close()


def test_a_thousand_classes_scroll_to_the_last(browser: Any, tmp_path: Path) -> None:
    made = Folder(tmp_path / "run", settings(classes=[f"class {n}" for n in range(1000)]))
    made.add(
        "a" * 8, *(picture(f"s{n}", n, labels={n: (0.9, True)}, scores={(n, "one", "up"): n}) for n in range(1000))
    )
    with server(tmp_path) as address:
        found = browser.new_page()
        found.goto(address)
        found.locator(".run h2 a").click()
        found.locator(".tabs a[href$='/classes']").click()
        found.wait_for_url("**/classes", wait_until="load")
        assert found.locator("tbody tr").count() == 1000
        found.locator(".scroll.tall").focus()
        last = found.locator("tbody tr").last
        inside = "one => one.getBoundingClientRect().bottom <= one.closest('.tall').getBoundingClientRect().bottom + 1"
        for _ in range(4):  # the heights of rows are guessed until they have been in sight
            found.keyboard.press("End")
            found.wait_for_timeout(200)
        assert last.evaluate(inside)
        assert last.inner_text().split() == ["class", "999", "999", "999.0", "n", "1", "no", "data"]
        found.close()


def test_failures_can_be_copied(tab: Any, served: Any, tmp_path: Path) -> None:
    tab.goto(f"{served[1]['hostile']}/failures")
    assert tab.locator("tbody th bdi").inner_text() == "<b>broken</b>.png"
    assert tab.locator("td.reason").inner_text() == "It is <i>gone</i>."
    tab.locator("tbody a").click()
    tab.wait_for_url("**/saliency?text=s30")
    assert names(tab) == ["<b>broken</b>.png"]


def test_the_list_of_runs(tab: Any, served: Any) -> None:
    tab.goto(served[0])
    assert tab.locator(".run h2").all_inner_texts() == ["hostile", "real"]
    tab.locator("#text").fill("rea")
    settled(tab, "document.querySelectorAll('.run').length === 1")
    assert query(tab) == {"text": ["rea"]}
    tab.locator(".run h2 a").click()
    tab.wait_for_url("**/overview")
    for name in ("queues", "grid", "scores", "classes", "counterfactual", "failures", "saliency"):
        tab.locator(f".tabs a[href$='/{name}']").click()
        tab.wait_for_url(f"**/{name}")
        assert tab.locator(".tabs [aria-current]").get_attribute("href").endswith(name)


def test_light_dark_and_automatic(tab: Any, served: Any) -> None:
    tab.goto(served[0])
    paper = "getComputedStyle(document.body).backgroundColor"
    light = tab.evaluate(paper)
    tab.locator("#theme").click()
    tab.locator("#theme").click()
    dark = tab.evaluate(paper)
    assert dark != light
    tab.reload()
    assert (tab.locator("#theme").inner_text(), tab.evaluate(paper)) == ("Dark", dark)
    tab.locator("#theme").click()
    tab.emulate_media(color_scheme="dark")
    assert (tab.locator("#theme").inner_text(), tab.evaluate(paper)) == ("Auto", dark)


def test_a_run_that_is_being_written_is_followed(browser: Any, tmp_path: Path) -> None:
    growing: Folder = folder(tmp_path / "run", 3)
    with server(tmp_path / "run") as address:
        found = browser.new_page()
        found.goto(address)
        found.locator(".run h2 a").click()
        found.locator(".tabs a[href$='/saliency']").click()
        settled(found, "document.querySelectorAll('.sample').length === 4")
        growing.add("d" * 8, *(one(number) for number in range(10, 13)))
        settled(found, "document.querySelectorAll('.sample').length === 7")
        assert "7 samples" in found.locator("#progress").inner_text()
        found.close()


@pytest.mark.parametrize("width", [800, 1440])
@pytest.mark.parametrize("page", ["saliency", "scores", "classes", "counterfactual", "failures"])
def test_nothing_is_wider_than_the_window(tab: Any, served: Any, page: str, width: int) -> None:
    tab.set_viewport_size({"width": width, "height": 900})
    tab.goto(f"{served[1]['hostile']}/{page}")
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    unnamed = """[...document.querySelectorAll('a, button, input:not([type=hidden]), select, svg[role=img], img')]
        .filter((one) => one.checkVisibility() && !(one.getAttribute('aria-label') || one.labels?.length || one.alt
        || one.textContent?.trim() || one.querySelector('svg[aria-label], img[alt]')))
        .map((one) => one.outerHTML.slice(0, 120))"""
    assert tab.evaluate(unnamed) == []
