"""The pages in a real browser: every control does what it says, the address says it all, nothing is asked elsewhere."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import cmap
import numpy as np
import pytest
from PIL import Image

from seewhy.draw.scale import scale_of
from seewhy.images.view import View
from seewhy.runs.query.run import Run
from seewhy.web.pictures import levels
from seewhy.web.serving import export
from support.typed import present, unchecked
from support.web_pages import HOSTILE, names, needs_chromium, query, settled

pytestmark = [needs_chromium, pytest.mark.slow]


def stored(run: Run, **asked: Any) -> list[str]:
    return [hit.record.name for hit in run.samples(**{"limit": 12, **asked})]


# -------------------------------------------------------------------------------------------------------- saliency


def test_the_first_page_is_what_the_store_has(tab: Any, served: Any, place: Path) -> None:
    run = Run(place / "real")
    tab.goto(f"{served[1]['real']}/saliency")
    assert names(tab) == stored(run)
    card, record = tab.locator(".sample").first, run.samples(limit=1).items[0].record
    label = int(card.locator(".maps").first.get_attribute("data-label"))
    assert card.locator(".active .p").inner_text() == f"{record.labels[label].probability:.3f}"
    assert card.locator(".active .flag").inner_text() == record.labels[label].flag
    assert f"sd {record.uncertainty[label].std:.3g}" in card.locator(".active .sure").inner_text()
    assert card.locator(".who").all_inner_texts() == list(run.explainers)
    for cell, name in zip(card.locator(".cell").all(), run.explainers, strict=True):
        row = record.maps[label, name].row
        scale = run.scale(row, faint=bool(record.nothing(label, name)))
        words = cell.locator(".bar span").all_inner_texts()
        assert [text.split()[at] for text, at in zip(words, (0, -1), strict=True)] == [*scale.words]
        ends = [float(text.strip("≥ " + "".join(scale.words))) for text in words]
        assert ends == pytest.approx([scale.low, scale.high], rel=5e-4, abs=1e-6)
        shown = [float(text) for text in cell.locator(".values dd").all_inner_texts()]
        assert shown == pytest.approx([record.scores[label, name, metric] for metric in run.metrics], rel=1e-3)


def test_filters_change_the_address_and_the_address_makes_the_view(tab: Any, served: Any, place: Path) -> None:
    run = Run(place / "real")
    tab.goto(f"{served[1]['real']}/saliency")
    tab.locator('input[name="flags"][value="FN"]').check()
    expected = stored(run, flags=["FN"])
    settled(tab, f"document.querySelectorAll('.sample').length === {len(expected)}")
    tab.select_option("#sort", "probability")
    settled(tab, "location.search === '?flags=FN&sort=probability'")
    tab.select_option("#descending", "true")
    settled(tab, "location.search.includes('descending=true')")
    expected = stored(run, flags=["FN"], sort="probability", descending=True)
    settled(tab, f"document.querySelector('.sample h2').innerText === {expected[0]!r}")
    assert names(tab) == expected
    assert query(tab) == {"flags": ["FN"], "sort": ["probability"], "descending": ["true"]}
    other = tab.context.new_page()
    other.goto(tab.url)
    assert names(other) == expected
    assert other.locator('input[value="FN"]').is_checked()
    tab.go_back()
    settled(tab, "document.querySelector('#descending').value === 'false'")
    tab.go_back()
    settled(tab, "document.querySelector('#sort').value === 'position'")
    assert names(tab) == stored(run, flags=["FN"])


def test_classes_are_searched_and_chosen(tab: Any, served: Any, place: Path) -> None:
    tab.goto(f"{served[1]['hostile']}/saliency")
    tab.locator("#label-search").press_sequentially("snow")
    settled(tab, "document.querySelectorAll('.options li').length === 1")
    assert tab.locator(".options li").all_inner_texts() == [f"{HOSTILE[3]} (3) 8"]
    tab.keyboard.press("Enter")
    settled(tab, "location.search === '?labels=3'")
    assert names(tab) == stored(Run(place / "hostile"), labels=[3])
    tab.locator("#label-search").press_sequentially("script")
    tab.keyboard.press("Enter")
    settled(tab, "location.search === '?labels=3&labels=1'")
    assert tab.locator(".chips bdi").all_inner_texts() == [HOSTILE[3], HOSTILE[1]]
    tab.locator(".chips button").first.click()
    settled(tab, "location.search === '?labels=1'")
    assert names(tab) == stored(Run(place / "hostile"), labels=[1])


def test_text_probability_page_size_and_explainers(tab: Any, served: Any, place: Path) -> None:
    run = Run(place / "hostile")
    tab.goto(f"{served[1]['hostile']}/saliency")
    tab.locator("#text").press_sequentially("picture 1")
    settled(tab, "location.search === '?text=picture+1'")
    settled(tab, "document.querySelectorAll('.sample').length === 11")
    tab.locator("#reset").click()
    settled(tab, "location.search === '' && document.querySelector('#text').value === ''")
    tab.locator('[name="least"]').fill("0.7")
    tab.keyboard.press("Tab")
    settled(tab, "location.search === '?least=0.7'")
    assert names(tab) == stored(run, min_probability=0.7)
    tab.goto(f"{served[1]['hostile']}/saliency")
    tab.select_option("#limit", "24")
    settled(tab, "document.querySelectorAll('.sample').length === 24")
    tab.locator(".summary .pager a[rel=next]").click()
    settled(tab, "location.search.includes('page=2')")
    settled(tab, f"document.querySelector('.sample h2').innerText === {stored(run, offset=24)[0]!r}")
    tab.locator('[name="explainers"][value="two"]').uncheck()
    settled(tab, "location.search.includes('explainers=one')")
    settled(tab, "!document.querySelector('.pager [rel=prev]')")
    assert set(tab.locator(".who").all_text_contents()) == {"one"}
    tab.locator('[name="explainers"][value="one"]').uncheck()
    settled(tab, "document.querySelectorAll('.cell').length === 0")


def test_a_label_is_chosen_by_click_and_by_key(tab: Any, served: Any) -> None:
    tab.goto(f"{served[1]['hostile']}/saliency")
    card = tab.locator("#sample-1")
    assert card.locator(".maps").get_attribute("data-label") == "1"
    card.locator(".pick").nth(1).click()
    settled(tab, "document.querySelector('#sample-1 .maps').dataset.label === '2'")
    assert query(tab) == {"on": ["1.2"]}
    tab.locator("#sample-1").focus()
    tab.keyboard.press("1")
    settled(tab, "document.querySelector('#sample-1 .maps').dataset.label === '1'")
    settled(tab, "document.activeElement.id === 'sample-1'")
    tab.locator('[name="every"]').check()
    settled(tab, "document.querySelectorAll('#sample-1 .maps').length === 2")


def test_looks_need_no_request(tab: Any, served: Any) -> None:
    tab.goto(f"{served[1]['hostile']}/saliency?overlay=false&opacity=40&threshold=10&colours=viridis")
    assert not tab.locator("#overlay").is_checked()
    assert [tab.locator(f"#{name}").input_value() for name in ("opacity", "threshold", "colours")] == [
        "40",
        "10",
        "viridis",
    ]
    tab.goto(f"{served[1]['hostile']}/saliency")
    tab.wait_for_load_state("networkidle")
    own = ("/api/", "icon.svg")  # following the run, and what the browser asks of itself
    before = [url for url in tab.asked if not any(part in url for part in own)]
    for name, value in (("opacity", 30), ("threshold", 60)):
        tab.locator(f"#{name}").evaluate(
            f"one => {{ one.value = {value}; one.dispatchEvent(new Event('input', {{bubbles: true}}));"
            " one.dispatchEvent(new Event('change', {bubbles: true})); }"
        )
    assert tab.locator(".layer").first.evaluate("one => getComputedStyle(one).opacity") == "0.3"
    tab.wait_for_timeout(50)
    shares = tab.locator("#coloured feFuncA").get_attribute("tableValues").split(" ")
    assert {float(one) for one in shares[:153]} == {0.0}
    assert float(shares[153]) == pytest.approx(0.6**0.75, abs=1e-3)
    tab.select_option("#colours", "cividis")
    tab.locator("#sample-0").focus()
    tab.keyboard.press("o")
    assert not tab.locator("#overlay").is_checked()
    assert tab.locator(".layer").first.evaluate("one => getComputedStyle(one).opacity") == "1"
    assert query(tab) == {"overlay": ["false"], "opacity": ["30"], "threshold": ["60"], "colours": ["cividis"]}
    assert [url for url in tab.asked if not any(part in url for part in own)] == before


@pytest.mark.parametrize("colours", ["grey", "inferno"])
def test_what_is_painted_is_the_map_interpolated(tab: Any, served: Any, place: Path, colours: str) -> None:
    tab.goto(f"{served[1]['hostile']}/saliency?overlay=false&colours={colours}")
    tab.locator("#sample-0 [data-open]").first.click()
    tab.locator("#viewer .map").wait_for()
    tab.wait_for_load_state("networkidle")
    painted = Image.open(io.BytesIO(tab.locator("#viewer-frame svg").screenshot())).convert("RGB")
    run = Run(place / "hostile")
    record = present(run.sample("s0"))
    width, height = painted.size
    times = width / 120
    view = View(original=(height, width), box=unchecked(tuple(times * end for end in present(record.box))))
    values = present(run.map("s0", 0, "one"))
    truth = view.to_original(levels(values, scale_of(values)).astype(np.float32))
    inside = slice(int(4 * times) + 2, int(76 * times) - 2), slice(int(24 * times) + 2, int(96 * times) - 2)
    table = cmap.Colormap({"grey": "matlab:gray"}.get(colours, colours)).lut(256)[:, :3] * 255
    expected = np.stack([np.interp(truth[inside], np.arange(256), channel) for channel in table.T], -1)
    error = np.abs(np.asarray(painted, dtype=float)[inside] - expected)
    assert error.mean() < 1.2
    assert error.max() < (6 if colours == "grey" else 16)
    outside = np.asarray(painted)[height // 2, int(10 * times)]
    assert outside.tolist() == [128, 128, 128]


def test_the_large_view(tab: Any, served: Any) -> None:
    tab.goto(f"{served[1]['hostile']}/saliency")
    tab.locator("#sample-1").focus()
    tab.keyboard.press("Enter")
    assert query(tab) == {"open": ["1.0"]}
    assert tab.locator("#viewer-about").inner_text() == f"one · {HOSTILE[1]}"
    tab.keyboard.press("ArrowDown")
    assert query(tab) == {"open": ["1.1"]}
    tab.keyboard.press("ArrowRight")
    assert (query(tab), tab.locator("#viewer-title").inner_text()) == ({"open": ["2.1"]}, "picture 2.png")
    tab.locator("#viewer-previous").click()
    tab.keyboard.press("2")
    settled(tab, f"document.querySelector('#viewer-about').innerText.endsWith({HOSTILE[2]!r})")
    again = tab.context.new_page()
    again.goto(tab.url)
    assert again.locator("#viewer").is_visible()
    assert again.locator("#viewer-about").inner_text() == tab.locator("#viewer-about").inner_text()
    again.close()
    tab.keyboard.press("Escape")
    settled(tab, "!location.search.includes('open')")
    tab.keyboard.press("?")
    assert tab.locator("#help").is_visible()


def test_arrows_walk_through_samples_and_pages(tab: Any, served: Any) -> None:
    tab.goto(f"{served[1]['hostile']}/saliency")
    for _ in range(2):
        tab.keyboard.press("ArrowRight")
    assert tab.evaluate("document.activeElement.id") == "sample-1"
    tab.keyboard.press("ArrowLeft")
    assert tab.evaluate("document.activeElement.id") == "sample-0"
    tab.keyboard.press("ArrowDown")
    settled(tab, "location.search === '?page=2' && document.querySelector('#sample-12')")


def test_downloads_are_of_this_view(tab: Any, served: Any) -> None:
    tab.goto(f"{served[1]['hostile']}/saliency?labels=3&threshold=20")
    for name in ("csv", "png", "html"):
        with tab.expect_download() as waiting:
            tab.locator(f".downloads a:text-is('{name.upper()}')").click()
        assert "threshold=20" in waiting.value.url
        assert waiting.value.suggested_filename == f"saliency.{name}"
        data = Path(waiting.value.path()).read_bytes()
        if name == "csv":
            assert {line["label"] for line in csv.DictReader(io.StringIO(data.decode()))} == {"2", "3", "4"}


def test_one_file_needs_no_server(tab: Any, place: Path, tmp_path: Path) -> None:
    tab.goto(export(place, tmp_path / "page.html", run="hostile", view="labels=3").as_uri())
    assert names(tab) == stored(Run(place / "hostile"), labels=[3])
    tab.locator("#overlay").uncheck()
    assert tab.locator(".layer").first.evaluate("one => getComputedStyle(one).opacity") == "1"
    tab.select_option("#colours", "magma")
    assert tab.locator("#ramp stop").count() == 86
    drawn = Image.open(io.BytesIO(tab.locator("svg.view").nth(1).screenshot())).convert("RGB")
    assert len(np.unique(np.asarray(drawn).reshape(-1, 3), axis=0)) > 100
