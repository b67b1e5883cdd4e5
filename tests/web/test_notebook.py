"""A run's page inside a notebook: one frame that needs no server and reaches nothing around it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import seewhy
from seewhy.errors import InvalidInput, UnknownName
from seewhy.runs.query.run import Run
from support.web_pages import HOSTILE, folder, names, needs_chromium, one


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("notebook") / "run"
    folder(place, 7).add("c" * 8, one(41, name="twin.png"), one(42, name="twin.png"))
    return place


@needs_chromium
def test_one_sample_in_a_frame_of_its_own(browser: Any, run: Path, tmp_path: Path) -> None:
    shown = seewhy.show(run, "picture 3.png")
    (tmp_path / "cell.html").write_text(f"<!doctype html><meta charset=utf-8>{shown._repr_html_()}", encoding="utf-8")
    context = browser.new_context(viewport={"width": 1000, "height": 900})
    tab, wrong, asked = context.new_page(), [], []
    tab.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
    tab.on("request", lambda sent: asked.append(sent.url))
    tab.goto((tmp_path / "cell.html").as_uri())
    frame = tab.frames[1]
    frame.wait_for_selector(".sample .map")
    assert frame.locator(".sample h2").all_inner_texts() == ["picture 3.png"]
    assert frame.locator(".active bdi").first.inner_text() == HOSTILE[3]
    assert frame.locator(".cell .map").count() == 2
    frame.locator("#opacity").fill("30")
    assert frame.locator(".layer").first.evaluate("one => getComputedStyle(one).opacity") == "0.3"
    with pytest.raises(Exception, match=r"cross-origin|Blocked a frame"):
        frame.evaluate("window.parent.document.body.innerHTML")
    assert tab.evaluate("document.querySelector('iframe').offsetHeight") == 780
    context.close()
    assert not wrong
    assert not [url for url in asked if not url.startswith(("file:", "data:", "about:"))]


@needs_chromium
def test_a_view_is_what_the_address_would_show(tab: Any, run: Path, tmp_path: Path) -> None:
    path = seewhy.show(run, view="labels=3&labels=4&sort=probability", height=500).save(tmp_path / "page.html")
    tab.goto(path.as_uri())
    wanted = Run(run).samples(labels=[3, 4], sort="probability")
    assert names(tab) == [hit.record.name for hit in wanted]


def test_a_key_names_one_of_two_pictures_of_a_name(run: Path) -> None:
    page = seewhy.show(run, "s42").page
    assert re.findall(r'id="sample-(\d+)"', page) == ["42"]
    with pytest.raises(UnknownName, match=r"has 2 pictures called 'twin\.png': use the key of one\.$"):
        seewhy.show(run, "twin.png")


def test_what_cannot_be_shown_is_said(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match=r"has no picture 'none\.png'\.$"):
        seewhy.show(run, "none.png")
    with pytest.raises(InvalidInput, match=r"^height is a positive number of pixels, got 0\.$"):
        seewhy.show(run, height=0)
    with pytest.raises(InvalidInput, match=r"^The view 'flags=XY' cannot be used\."):
        seewhy.show(run, view="flags=XY")
    with pytest.raises(InvalidInput, match=r"^Say which run is to be shown \(run, --run-name\): one of 'run'\.$"):
        seewhy.show(run.parent, run="other")


def test_the_frame_cannot_be_left(run: Path) -> None:
    made = seewhy.show(run, "s1")._repr_html_()
    inside = made[made.index("srcdoc=") + 8 : made.rindex('" style=')]
    assert not re.search(r'["<>]', inside)
    assert 'sandbox="allow-scripts"' in made
