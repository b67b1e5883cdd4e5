"""The pages and their JSON twins, asked without a browser: what they say is what the store holds."""

from __future__ import annotations

import csv
import io
import re
from html.parser import HTMLParser
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from seewhy.draw.scale import Scale, scale_of
from seewhy.errors import InvalidInput
from seewhy.images.view import View
from seewhy.runs.query.run import Run
from seewhy.web.colours import alpha, tables
from seewhy.web.pictures import levels
from seewhy.web.queries import SaliencyQuery, address
from seewhy.web.serving import export
from support.run_folders import Folder, picture, settings, task
from support.typed import present
from support.web_pages import HOSTILE, MAP, client, folder, key, one, photograph, tree


@pytest.fixture
def asking(tmp_path: Path) -> Any:
    folder(tmp_path / "run")
    with client(tmp_path) as found:
        found.run = key(found)
        yield found


class Reader(HTMLParser):
    """The tags and attributes of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, Any]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.found.append((tag, attrs))

    @property
    def tags(self) -> set[str]:
        return {tag for tag, _ in self.found}

    @property
    def attributes(self) -> list[tuple[str, str | None]]:
        return [pair for _, attributes in self.found for pair in attributes]


def image(answer: Any) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(answer.content)))


# ------------------------------------------------------------------------------------------------------- pictures


def test_a_map_is_its_values_in_256_steps_and_may_be_kept_for_ever(asking: Any) -> None:
    card = asking.get(f"/api/runs/{asking.run}/saliency").json()["samples"][0]["labels"][0]["maps"][0]
    fine = image(asking.get(f"/runs/{asking.run}/{card['url']}"))
    truth = View.identity(105, 105).to_original((MAP + 1) * 85)
    assert np.abs(fine - truth).max() <= 0.501
    card["url"] = card["url"].replace("&fine=true", "")
    answer = asking.get(f"/runs/{asking.run}/{card['url']}")
    assert answer.headers["cache-control"] == "private, max-age=31536000, immutable"
    assert answer.headers["content-type"] == "image/png"
    assert (card["low"], card["high"], card["size"]) == (-1.0, 2.0, [7, 7])
    assert np.array_equal(image(answer), np.rint((MAP.astype(float) + 1) * 85))
    signed = image(asking.get(f"/runs/{asking.run}/{card['url']}&signed=true"))
    assert np.array_equal(signed, np.rint((MAP.astype(float) + 2) * 63.75))


def test_large_maps_come_as_they_are_kept(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(40, 50)).astype(np.float32)
    made = Folder(tmp_path / "run", settings())
    made.add("a" * 8, picture(labels={0: (0.9, True)}, maps={(0, "one"): values}, small=photograph()))
    with client(tmp_path / "run") as asking:
        url = asking.get(f"/api/runs/{key(asking)}/saliency").json()["samples"][0]["labels"][0]["maps"][0]["url"]
        shown = image(asking.get(f"/runs/{key(asking)}/{url}"))
    low, high = float(values.min()), float(values.max())
    assert np.abs(low + shown / 255 * (high - low) - values).max() <= (high - low) / 510 * 1.001


@pytest.mark.parametrize(
    ("value", "signed", "expected"), [(5.0, False, 0), (5.0, True, 255), (-5.0, True, 0), (0.0, True, 128)]
)
def test_a_map_of_one_value(value: float, signed: bool, expected: int) -> None:
    shown = Scale.of(value, value, signed=signed)
    assert np.unique(levels(np.full((3, 3), value, np.float32), shown)).tolist() == [expected]


def test_pictures_of_another_version_are_not_there(asking: Any) -> None:
    card = asking.get(f"/api/runs/{asking.run}/saliency").json()["samples"][0]
    for url in (card["picture"], card["labels"][0]["maps"][0]["url"]):
        assert asking.get(f"/runs/{asking.run}/{url}").status_code == 200
        assert asking.get(f"/runs/{asking.run}/{url.replace('v=', 'v=9')}").status_code == 404
    assert image(asking.get(f"/runs/{asking.run}/{card['picture']}")).shape == (80, 120, 3)


def test_the_large_picture_is_the_original_as_long_as_it_is_the_same(tmp_path: Path) -> None:
    source = tmp_path / "original.png"
    photograph(1200, 800).save(source)
    status = source.stat()
    made = Folder(tmp_path / "run", settings())
    small = photograph(1200, 800)
    stamp = f"{status.st_size}:{status.st_mtime_ns}"
    made.add("a" * 8, picture(source=str(source), stamp=stamp, size=(800, 1200), small=small, labels={0: (0.9, None)}))
    with client(tmp_path / "run") as asking:
        url = f"/runs/{key(asking)}/" + asking.get(f"/api/runs/{key(asking)}/saliency").json()["samples"][0]["large"]
        assert image(asking.get(url)).shape == (800, 1200, 3)
        photograph(1200, 801).save(source)
        assert image(asking.get(url)).shape[1] <= 320
        source.unlink()
        assert image(asking.get(url)).shape[1] <= 320


def test_colour_tables_are_the_colour_maps(asking: Any) -> None:
    import cmap

    for one_map, known in zip(tables(), ("inferno", "viridis"), strict=False):
        places = np.linspace(0, 85, 256)
        table = [np.interp(places, np.arange(86), list(map(float, t.split()))) for t in one_map[2:]]
        assert np.abs(np.stack(table, 1) - cmap.Colormap(known).lut(256)[:, :3]).max() < 1 / 255


def test_the_share_of_the_colours() -> None:
    laid = list(map(float, alpha(0, signed=False, overlay=True).split()))
    assert laid == pytest.approx([(v / 255) ** 0.75 for v in range(256)], abs=6e-4)
    alone = list(map(float, alpha(50, signed=False, overlay=False).split()))
    assert alone == [float(v / 255 >= 0.5) for v in range(256)]
    signed = list(map(float, alpha(100, signed=True, overlay=True).split()))
    assert signed == [1.0] + [0.0] * 254 + [1.0]


# -------------------------------------------------------------------------------------------------------- saliency


def test_cards_say_what_the_store_says(asking: Any, tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    page = asking.get(f"/api/runs/{asking.run}/saliency").json()
    assert page["total"] == 8
    assert page["explainers"] == ["one", "two"]
    for card in page["samples"]:
        record = present(run.sample(card["sample"]))
        assert card["box"] == (list(record.box) if record.box else None)
        assert {one["label"]: one["probability"] for one in card["labels"]} == pytest.approx(
            {label: row.probability for label, row in record.labels.items()}
        )
        for label in filter(itemgetter("active"), card["labels"]):
            assert label["name"] == HOSTILE[label["label"]]
            for shown in label["maps"]:
                values = {v["metric"]: v["value"] for v in shown["values"]}
                stored = {
                    m: v for (c, e, m), v in record.scores.items() if (c, e) == (label["label"], shown["explainer"])
                }
                assert values == stored
    assert page["samples"][0]["labels"][0]["maps"][0]["values"][1] == {
        "metric": "down",
        "value": None,
        "better": "lower",
        "said": "",
    }
    assert page["samples"][7]["failures"] == ["read: It is <i>gone</i>."]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"labels": [0]}, [0, 6]),
        ({"labels": [0], "flags": ["TP"]}, [0]),
        ({"flags": ["TN"], "limit": 96}, [0, 1, 2, 3, 4, 5, 6]),
        ({"flags": ["FP"]}, []),
        ({"text": "PICTURE 3"}, [3]),
        ({"least": "0.545", "most": ""}, [4, 5, 6]),
        ({"most": 0.52}, [0, 1, 2, 3, 4, 5, 6]),
        ({"flags": ["TP"], "sort": "probability", "descending": "true", "limit": 2}, [6, 5]),
        ({"flags": ["TP"], "sort": "probability", "descending": "true", "limit": 2, "page": 2}, [4, 3]),
        ({"sort": "score:one:up", "descending": "true", "limit": 3}, [6, 5, 4]),
        ({"sort": "disagreement:up", "descending": "false", "limit": 3}, [2, 3, 1]),
        ({"sort": "disagreement:up", "limit": 1}, [6]),  # the worst first
    ],
)
def test_filters_and_orders(asking: Any, asked: dict[str, Any], expected: list[int]) -> None:
    page = asking.get(f"/api/runs/{asking.run}/saliency", params=asked).json()
    assert [card["position"] for card in page["samples"]] == expected


def test_a_label_is_chosen_by_the_address_else_the_first_that_meets_the_filters(asking: Any) -> None:
    def active(**asked: Any) -> list[int]:
        card = asking.get(f"/api/runs/{asking.run}/saliency", params=asked).json()["samples"][0]
        return [label["label"] for label in card["labels"] if label["active"]]

    assert active() == [0]
    assert active(on="0.1") == [1]
    assert active(on="0.4") == [0]
    assert active(flags="TN") == [1]
    assert active(every="true") == [0, 1]


def test_what_is_not_there_says_why(tmp_path: Path) -> None:
    failure = ("explain", "two", None, 0, "No layer.")
    made = Folder(tmp_path / "run", settings())
    done = ["predict", task("explain", "one"), task("explain", "two")]
    maps = {(0, "one"): np.ones((2, 2))}
    made.add("a" * 8, one(0, maps=maps, scores={}, failures=[failure], done=done, failed=done[2:]))
    with client(tmp_path / "run") as asking:
        first, second = asking.get(f"/api/runs/{key(asking)}/saliency").json()["samples"][0]["labels"][0]["maps"]
        text = asking.get(f"/runs/{key(asking)}/saliency").text
    assert first["flat"]
    assert "the same value everywhere: 1" in text
    assert (second["url"], second["missing"]) == ("", "No layer.")
    assert "No layer." in text


def test_hostile_names_are_text(asking: Any) -> None:
    for page in ("saliency", "scores", "classes", "counterfactual", "failures"):
        text = asking.get(f"/runs/{asking.run}/{page}", params={}).text
        assert "<script>window" not in text
        assert "<img src=x" not in text
        assert "<b>broken" not in text
        assert not re.search("[\u202e\x00]", text)
        read = Reader(text)
        assert not [name for name, _ in read.attributes if name.startswith("on") or name == "style"]
        assert not [value for name, value in read.attributes if (value or "").startswith("javascript:")]
        assert read.tags.isdisjoint({"style", "iframe", "i"})
        assert all(dict(attributes).get("src") for tag, attributes in read.found if tag == "script")


# ------------------------------------------------------------------------------------------------------- downloads


def test_the_table_has_every_map_of_the_page(asking: Any) -> None:
    answer = asking.get(f"/runs/{asking.run}/saliency.csv", params={"flags": "TP"})
    lines = list(csv.DictReader(io.StringIO(answer.text)))
    assert len(lines) == 7 * 2 * 2
    first = lines[0]
    assert (first["sample"], first["label"], first["explainer"]) == ("s0", "0", "one")
    assert float(first["probability"]) == pytest.approx(0.51)
    assert (float(first["up"]), first["down"]) == (0.0, "")
    assert {line["class"] for line in lines if line["label"] == "5"} == {"'=1+1"}


@pytest.mark.parametrize("overlay", ["true", "false"])
def test_the_picture_has_the_maps_where_the_network_looked(asking: Any, overlay: str) -> None:
    asked = {"flags": "TP", "overlay": overlay, "colours": "grey", "opacity": 100, "limit": 1}
    drawn = image(asking.get(f"/runs/{asking.run}/saliency.png", params=asked))
    cell = drawn[42:122, 12 + 212 : 12 + 212 + 120].astype(float)
    view = View(original=(80, 120), box=(24.0, 4.0, 96.0, 76.0))
    truth = view.to_original(levels(MAP, scale_of(MAP)).astype(np.float32))
    seen = ~np.isnan(truth)
    if overlay == "false":
        assert np.abs(cell[seen].mean(-1) - truth[seen]).max() <= 1
        assert (cell[~seen] == 128).all()
    else:
        assert (cell[~seen].max(-1) - cell[~seen].min(-1) <= 1).all()
        assert cell[~seen].max() <= 0.4 * 255
        peak = np.unravel_index(np.nanargmax(truth), truth.shape)
        assert cell[peak].min() == 255


def test_one_file_has_everything_in_it(tmp_path: Path) -> None:
    folder(tmp_path / "run")
    made = export(tmp_path / "run", tmp_path / "page.html", view="flags=TP&limit=3&colours=viridis")
    text = made.read_text()
    assert text.count("<article") == 3
    assert not re.search(r"""(?:src|href)="(?!data:|#)""", text)
    assert text.count("data:image/png;base64,") == 3 * 2
    assert text.count("data:image/jpeg;base64,") == 3 * (1 + 2 * 2)
    with pytest.raises(InvalidInput, match=r"^The view 'limit=1000' cannot be used. limit: Input should be less than"):
        export(tmp_path / "run", tmp_path / "page.html", view="limit=1000")


# -------------------------------------------------------------------------------- counterfactual, failures, runs


def test_windows_lie_where_they_lay_in_the_input(tmp_path: Path) -> None:
    made = Folder(tmp_path / "run", settings())
    made.add("a" * 8, one(0, trees={0: tree(), 1: tree(found=False)}), one(1, trees={1: tree(found=False)}))
    with client(tmp_path / "run") as asking:
        page = asking.get(f"/api/runs/{key(asking)}/counterfactual").json()
        every = asking.get(f"/api/runs/{key(asking)}/counterfactual", params={"empty": "true", "sample": "1"}).json()
        text = asking.get(f"/runs/{key(asking)}/counterfactual", params={"label": 1}).text
    chosen = page["chosen"]
    assert ([s["position"] for s in page["samples"]], [s["position"] for s in every["samples"]]) == ([0], [0, 1])
    assert (chosen["label"]["label"], chosen["seen"]) == (0, [24.0, 4.0, 72.0, 72.0])
    first, last = chosen["layers"]
    assert (first["boxes"], first["area"], first["chosen"]) == ([[24.0, 4.0, 36.0, 36.0]], 0.25, False)
    assert last["boxes"] == [[24.0, 4.0, 18.0, 18.0], [33.0, 4.0, 18.0, 18.0]]
    assert last["area"] == pytest.approx(24 * 16 / 64**2)
    assert [(s["layer"], s["depth"], s["gain"]) for s in chosen["steps"]] == [(1, 0, 0.7), (2, 1, 0.2), (2, 1, 0.4)]
    assert "It is not enough." in text


def test_failures_say_why_and_how_to_try_again(asking: Any, tmp_path: Path) -> None:
    page = asking.get(f"/api/runs/{asking.run}/failures").json()
    assert (page["total"], page["failures"][0]["failure"][-1]) == (1, "It is <i>gone</i>.")
    assert page["command"] == ""
    assert "retry=True" in asking.get(f"/runs/{asking.run}/failures").text
    folder(tmp_path / "with space", command={"model": "m"})
    with client(tmp_path / "with space") as again:
        command = again.get(f"/api/runs/{key(again)}/failures").json()["command"]
    assert command == f"seewhy resume --retry '{tmp_path / 'with space'}'"


def test_a_folder_of_runs(tmp_path: Path) -> None:
    folder(tmp_path / "b")
    folder(tmp_path / "deep" / "a", count=1)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "run.json").write_text("{")
    with client(tmp_path) as asking:
        found = asking.get("/api/runs", params={"sort": "samples", "descending": "true"}).json()["runs"]
        assert [(one["name"], one["samples"], one["complete"]) for one in found] == [
            ("b", 8, True), ("deep/a", 2, True), ("bad", 0, None),
        ]  # fmt: skip
        assert found[2]["reason"].startswith("run.json in ")
        assert [one["name"] for one in asking.get("/api/runs", params={"text": "DEEP"}).json()["runs"]] == ["deep/a"]
        for run in found[:2]:
            assert asking.get(f"/runs/{run['key']}/saliency").status_code == 200
        assert asking.get(f"/runs/{found[2]['key']}/saliency").status_code == 400


def test_addresses_have_what_differs_only() -> None:
    assert address(SaliencyQuery()) == ""
    query = SaliencyQuery(flags=["FN"], sort="probability", descending=True, explainers=[])
    assert address(query, page=3) == "?flags=FN&sort=probability&descending=true&page=3&explainers="


def test_behind_a_proxy_every_address_has_its_path(tmp_path: Path) -> None:
    folder(tmp_path / "run")
    with client(tmp_path, root_path="/why") as asking:
        text = asking.get(f"/runs/{key(asking)}/saliency").text
    assert not [a for a in re.findall(r'(?:href|src|action)="([^"#?][^"]*)"', text) if not a.startswith("/why/")]


@pytest.mark.parametrize(("activation", "wanted"), [("softmax", "predicted, {}"), ("sigmoid", None)])
def test_the_likeliest_class_of_a_softmax_network_is_its_prediction(
    tmp_path: Path, activation: str, wanted: str | None
) -> None:
    """Below the threshold, too; of a multi-label network nothing is "the" prediction."""
    made = Folder(tmp_path / "run", settings(activation=activation))
    for number, true in enumerate((1, 0, None)):
        labels = {label: (p, None if true is None else label == true) for label, p in ((0, 0.3), (1, 0.45))}
        made.add(f"{number:08d}", picture(f"s{number}", number, labels=labels, predicted=1, probability=0.45))
    with client(Path(made.place)) as asking:
        page = asking.get(f"/api/runs/{key(asking)}/saliency").json()
        text = asking.get(f"/runs/{key(asking)}/saliency").text
    answers = [{label["label"]: label["answer"] for label in card["labels"]} for card in page["samples"]]
    if wanted is None:
        assert answers == [{0: None, 1: None}] * 3
        assert "predicted, " not in text
        return
    assert answers == [
        {0: None, 1: "predicted, right"}, {0: None, 1: "predicted, wrong"}, {0: None, 1: "predicted"},
    ]  # fmt: skip
    assert ">predicted, right</span>" in text


def test_a_probability_outside_of_its_own_interval_is_said_with_the_mean(tmp_path: Path) -> None:
    made = Folder(tmp_path / "run", settings())
    unsure = {0: (0.02, 0.01, 0.0, 0.035), 1: (0.4, 0.1, 0.3, 0.6)}
    made.add("a" * 8, picture(labels={0: (0.472, True), 1: (0.5, False)}, uncertainty=unsure))
    with client(Path(made.place)) as asking:
        (card,) = asking.get(f"/api/runs/{key(asking)}/saliency").json()["samples"]
        text = asking.get(f"/runs/{key(asking)}/saliency").text
    assert {label["label"]: label["outside"] for label in card["labels"]} == {0: True, 1: False}
    assert text.count("outside of its own interval; mean with dropout 0.020") == 1
