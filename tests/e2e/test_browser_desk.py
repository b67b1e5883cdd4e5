"""What a reviewer reaches for: a page by its number, the original large, classes that occur, the worst first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from seewhy.runs.query.run import Run
from support.run_folders import Folder, picture, settings
from support.web_pages import MAP, names, needs_chromium, photograph, query, server, settled

pytestmark = [needs_chromium, pytest.mark.slow]


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """Forty pictures; "tabby cat" is on ten of them, "cat" on five, "catfish" on twenty, and "dog" on none."""
    made = Folder(tmp_path / "run", settings(classes=("catfish", "tabby cat", "dog", "cat")))
    for number in range(40):
        label = 0 if number < 20 else 1 if number < 30 else 3 if number < 35 else 0
        scores = {(label, e, m): ((number * 7) % 40) / 40 for e in ("one", "two") for m in ("up", "down")}
        one = picture(
            f"s{number:02d}", number, labels={label: (0.5 + number / 100, True)}, maps={(label, "one"): MAP},
            scores=scores, small=photograph(), size=(80, 120), uncertainty={label: (0.5, number / 1000, 0, 1)},
        )  # fmt: skip
        made.add(f"{number:08d}", one)
    return tmp_path / "run"


@pytest.fixture
def desk(many: Path, browser: Any) -> Any:
    with server(many) as address:
        tab = browser.new_page()
        tab.goto(address)
        tab.locator("a[href$='/saliency']").first.click()
        tab.wait_for_url("**/saliency", wait_until="load")
        yield tab
        tab.close()


def test_a_page_is_reached_by_its_number(desk: Any) -> None:
    box = desk.locator(".summary [data-goto]")
    box.fill("3")
    box.press("Enter")
    settled(desk, "location.search === '?page=3'")
    assert names(desk)[0] == "s24.png"
    desk.locator("#opacity").fill("40")
    desk.locator("#opacity").dispatch_event("change")
    desk.locator(".summary [data-goto]").fill("99")
    desk.keyboard.press("Tab")
    settled(desk, "location.search.includes('page=4')")  # the last there is
    assert query(desk) == {"page": ["4"], "opacity": ["40"]}
    desk.go_back()
    settled(desk, "document.querySelector('.sample h2').innerText === 's24.png'")


def test_a_click_on_the_original_enlarges_it(desk: Any) -> None:
    desk.locator("#sample-1 .original a").click()
    settled(desk, "document.querySelector('#viewer').open")
    assert desk.locator("#viewer-title").inner_text() == "s01.png"
    assert desk.locator("#viewer-about").inner_text() == "The original"
    assert query(desk) == {"open": ["1.original"]}
    assert desk.locator("#viewer-frame .map").count() == 0
    large, small = (
        desk.locator(f"{where} svg").first.bounding_box() for where in ("#viewer-frame", "#sample-1 .original")
    )
    assert large["width"] > 2 * small["width"]
    desk.keyboard.press("ArrowRight")
    settled(desk, "location.search === '?open=2.original'")
    desk.keyboard.press("ArrowDown")
    settled(desk, "location.search === '?open=2.0'")  # the first map of the same picture
    assert desk.locator("#viewer-frame .map").count() == 1
    desk.keyboard.press("ArrowUp")
    settled(desk, "location.search === '?open=2.original'")
    desk.reload()
    settled(desk, "document.querySelector('#viewer').open")
    desk.keyboard.press("Escape")
    settled(desk, "!location.search")


def test_only_classes_that_occur_are_offered_with_counts_whole_words_first(desk: Any) -> None:
    desk.locator("#label-search").press_sequentially("cat")
    settled(desk, "document.querySelector('.options li')?.innerText === 'cat (3) 5'")
    assert desk.locator(".options li").all_inner_texts() == ["cat (3) 5", "tabby cat (1) 10", "catfish (0) 25"]
    desk.locator("#label-search").fill("dog")
    settled(desk, "document.querySelector('.options li').innerText === 'No such class on any picture'")


@pytest.mark.parametrize(
    ("sort", "falls"),
    [
        ("score:one:up", False),
        ("score:one:down", True),
        ("uncertainty", True),
        ("probability", False),
        ("position", False),
    ],
)
def test_the_worst_come_first_unless_it_is_said_otherwise(desk: Any, many: Path, sort: str, falls: bool) -> None:
    run = Run(many)

    def first(descending: bool) -> str:
        return run.samples(sort=sort, descending=descending, limit=1).items[0].record.name

    if sort != "position":
        desk.select_option("#sort", sort)
        settled(desk, f"location.search.endsWith('sort={sort.replace(':', '%3A')}')")
    settled(desk, f"document.querySelector('.sample h2').innerText === {first(falls)!r}")
    assert desk.locator("#descending").input_value() == str(falls).lower()
    desk.select_option("#descending", str(not falls).lower())
    settled(desk, f"location.search.includes('descending={str(not falls).lower()}')")
    settled(desk, f"document.querySelector('.sample h2').innerText === {first(not falls)!r}")
    other = "uncertainty" if sort != "uncertainty" else "score:one:up"
    desk.select_option("#sort", other)  # another order begins with its own worst
    settled(desk, f"location.search.endsWith('sort={other.replace(':', '%3A')}')")


def test_explainers_of_the_table_are_sorted_and_weights_stay(tab: Any, served: Any) -> None:
    tab.goto(f"{served[1]['real']}/scores")
    tab.locator("[data-weight]").nth(0).fill("3")
    tab.keyboard.press("Tab")
    settled(tab, "location.search.includes('weights=3')")
    tab.select_option("#sort", "name")
    settled(tab, "location.search.includes('sort=name')")
    heads = tab.locator(".scores thead th.num bdi").all_inner_texts()
    assert heads == sorted(heads)
    assert query(tab)["weights"][0].startswith("3,")
    tab.locator("[data-weight]").nth(0).fill("2")
    tab.keyboard.press("Tab")
    settled(tab, "location.search.includes('weights=2')")
    assert query(tab)["sort"] == ["name"]


def test_the_legend_hides_a_line_and_lights_the_one_that_is_pointed_at(tab: Any, served: Any) -> None:
    tab.goto(f"{served[1]['real']}/scores")
    button = tab.locator(".legend [data-hides]").nth(1)
    line = tab.locator(f".radar [data-line='{button.get_attribute('data-hides')}']")
    button.hover()
    assert "lit" in (line.get_attribute("class") or "")
    button.focus()
    tab.keyboard.press("Space")
    assert button.get_attribute("aria-pressed") == "false"
    assert not line.is_visible()
    assert tab.locator(".radar .shape:visible").count() == tab.locator(".radar .shape").count() - 1
    tab.keyboard.press("Space")
    assert line.is_visible()


@pytest.mark.parametrize("width", [1440, 800, 380])
def test_no_name_is_cut_and_the_radar_has_its_names_inside(browser: Any, tmp_path: Path, width: int) -> None:
    long = "a_metric_with_a_long_name(steps=16, baseline='blur')"
    metrics = [long, "up", "WWWWWWWWWWWWWWWWWWWWWWWW", "down", "some_other_metric(p=0.25)"]
    made = Folder(tmp_path / "run", settings(["one", "an_explainer(with=parameters, of=its_own)"], metrics))
    scores = {(0, "one", metric): 0.5 for metric in metrics}
    known: dict[str, Any] = {"maps": {(0, "one"): MAP}, "scores": scores, "small": photograph()}
    made.add("0" * 8, picture("s", 0, labels={0: (0.9, True)}, **known))
    with server(tmp_path / "run") as address:
        tab = browser.new_page(viewport={"width": width, "height": 900})
        tab.goto(address)
        tab.locator("a[href$='/scores']").first.click()
        tab.wait_for_url("**/scores", wait_until="load")
        frame = tab.locator("svg.radar").bounding_box()
        for text in tab.locator("svg.radar text").all():
            box = text.bounding_box()
            assert frame["x"] <= box["x"]
            assert box["x"] + box["width"] <= frame["x"] + frame["width"] <= width
            assert frame["y"] <= box["y"]
            assert box["y"] + box["height"] <= frame["y"] + frame["height"]
        assert tab.locator("svg.radar text").first.text_content() == long
        cut = "[...document.querySelectorAll('.scores th bdi, .strip h3, .one .who, .values dt, .cell .who')]"
        cut += ".filter((one) => one.scrollWidth > one.clientWidth + 1 && getComputedStyle(one).overflow !== 'visible')"
        assert tab.evaluate(f"{cut}.length") == 0
        tab.locator("a[href$='/saliency']").first.click()
        tab.wait_for_url("**/saliency", wait_until="load")
        assert tab.locator(".values dt").first.text_content() == long
        assert tab.evaluate(f"{cut}.length") == 0
        tab.close()


def test_the_first_picture_stands_within_200_pixels(desk: Any) -> None:
    desk.set_viewport_size({"width": 1440, "height": 900})
    assert desk.locator(".sample .view").first.bounding_box()["y"] < 200
