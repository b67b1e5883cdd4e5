"""The pages of scores: means, intervals, weights and classes against the values that were written."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from support.run_folders import Folder, picture, settings
from support.web_pages import MAP, client, key


def scored(place: Path) -> Folder:
    """Values 0.2 and 0.4 of one and 0.5 and 0.9 of two for "up"; for "down" only two has one value."""
    made = Folder(place, settings())
    for number, (first, second) in enumerate([(0.2, 0.5), (0.4, 0.9)]):
        scores = {(number, "one", "up"): first, (number, "two", "up"): second, (number, "one", "down"): None}
        scores |= {(number, "two", "down"): 0.25} if number else {}
        maps = {(number, e): MAP for e in ("one", "two")}
        made.add(f"{number:08d}", picture(f"s{number}", number, labels={number: (0.9, True)}, maps=maps, scores=scores))
    return made


def test_scores_are_means_with_their_intervals(tmp_path: Path) -> None:
    scored(tmp_path / "run")
    with client(tmp_path / "run") as asking:
        page = asking.get(f"/api/runs/{key(asking)}/scores", params={"weights": "3,0"}).json()
        text = asking.get(f"/runs/{key(asking)}/scores").text
    up, down = page["metrics"]
    cell = up["cells"][0]
    half = 1.959964 * math.sqrt(0.02) / math.sqrt(2)
    assert (cell["mean"], cell["count"]) == (pytest.approx(0.3), 2)
    assert (cell["low"], cell["high"]) == pytest.approx((0.3 - half, 0.3 + half))
    assert (up["share"], down["share"], up["cells"][1]["best"]) == (1.0, 0.0, True)
    assert (down["cells"][0]["mean"], down["cells"][0]["no_data"]) == (None, 2)
    assert (down["cells"][1]["unit"], down["cells"][1]["low"]) == (0.75, None)
    assert [one["score"] for one in page["weighted"]] == pytest.approx([0.3, 0.7])
    assert page["best"]["explainer"] == "two"
    assert page["best"]["sure"] == pytest.approx(0.5 * (1 + math.erf(0.4 / math.sqrt(0.01 + 0.04) / math.sqrt(2))))
    assert "no data" in text


def test_an_interval_ends_where_the_metric_does(tmp_path: Path) -> None:
    made = Folder(tmp_path / "run", settings(["one"], ["up"]))
    for number, value in enumerate((1.0, 1.0, 1.0, 0.2)):
        scores = {(number, "one", "up"): value}
        made.add(f"{number:08d}", picture(f"s{number}", number, labels={number: (0.9, True)}, scores=scores))
    with client(tmp_path / "run") as asking:
        cell = asking.get(f"/api/runs/{key(asking)}/scores").json()["metrics"][0]["cells"][0]
    assert cell["mean"] == pytest.approx(0.8)
    assert cell["high"] == 1.0
    assert 0 < cell["low"] < 0.8


def test_a_weighted_score_without_data_is_missing(tmp_path: Path) -> None:
    scored(tmp_path / "run")
    with client(tmp_path / "run") as asking:
        page = asking.get(f"/api/runs/{key(asking)}/scores").json()
    assert page["weighted"][0] == {"explainer": "one", "score": None, "error": None, "missing": ["down"]}
    assert page["weighted"][1]["score"] == pytest.approx((0.7 + 0.75) / 2)
    assert page["best"] == {"explainer": "two", "second": None, "ahead": None, "sure": None}


@pytest.mark.parametrize(
    ("weights", "told"),
    [
        ("1", "weights must be one a metric, 2, got 1."),
        ("1,-1", "weights must be from 0 to 1000000, got '1,-1'."),
        ("1,e", "weights must be numbers separated by commas, got '1,e'."),
    ],
)
def test_weights_that_cannot_be_used(tmp_path: Path, weights: str, told: str) -> None:
    scored(tmp_path / "run")
    with client(tmp_path / "run") as asking:
        answer = asking.get(f"/api/runs/{key(asking)}/scores", params={"weights": weights})
    assert (answer.status_code, answer.json()["detail"]) == (400, told)


def test_scores_by_class(tmp_path: Path) -> None:
    scored(tmp_path / "run")
    with client(tmp_path / "run") as asking:
        address_of = f"/api/runs/{key(asking)}/classes"
        page = asking.get(address_of, params={"by": "metric", "name": "up", "sort": "two", "descending": "true"}).json()
        assert [(row["label"], [bar["mean"] for bar in row["bars"]]) for row in page["rows"]] == [
            (1, [0.4, 0.9]),
            (0, [0.2, 0.5]),
        ]
        down = asking.get(address_of, params={"by": "explainer", "name": "two", "sort": "down"}).json()
        assert [[bar["mean"] for bar in row["bars"]] for row in down["rows"]] == [[0.9, 0.25], [0.5, None]]
        assert down["rows"][1]["bars"][1] == {"mean": None, "count": 0, "place": None}
        assert [row["name"] for row in asking.get(address_of, params={"text": "DOG"}).json()["rows"]] == ["dog"]
