"""The pages of scores: means, intervals, weights and classes against the values that were written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seewhy.comparison import Comparison
from seewhy.statistics import interval
from support.run_folders import Folder, picture, settings
from support.web_pages import MAP, client, key

ONE, TWO = (0.2, 0.4, 0.3, 0.35, 0.25, 0.3, 0.3), (0.5, 0.9, 0.7, 0.8, 0.6, 0.65, 0.75)


def scored(place: Path, about: Any = None, pictures: int = 7) -> Folder:
    """Two explainers, "two" better by "up" on all pictures; for "down" only two has values, from the second on."""
    made = Folder(place, about or settings())
    for number, (first, second) in enumerate(list(zip(ONE, TWO, strict=True))[:pictures]):
        scores = {
            (number % 3, "one", "up"): first,
            (number % 3, "two", "up"): second,
            (number % 3, "one", "down"): None,
        }
        scores |= {(number % 3, "two", "down"): 0.25} if number else {}
        maps = {(number % 3, e): MAP for e in ("one", "two")}
        one = picture(f"s{number}", number, labels={number % 3: (0.9, True)}, maps=maps, scores=scores)
        made.add(f"{number:08d}", one)
    return made


def asked(place: Path | str, **query: str) -> dict[str, Any]:
    with client(Path(place)) as asking:
        found: dict[str, Any] = asking.get(f"/api/runs/{key(asking)}/scores", params=query).json()
        asking.get(f"/runs/{key(asking)}/scores", params=query).raise_for_status()
    return found


def test_scores_are_means_with_their_intervals(tmp_path: Path) -> None:
    page = asked(scored(tmp_path / "run").place, weights="3,0")
    up, down = page["metrics"]
    cell, want = up["cells"][0], interval(np.array(ONE), ends=(0.0, 1.0))
    assert (cell["mean"], cell["low"], cell["high"]) == pytest.approx((want.mean, want.low, want.high))
    assert (cell["count"], cell["pictures"], cell["why"]) == (7, 7, "")
    assert (up["share"], down["share"], up["cells"][1]["best"], up["cells"][1]["beats"]) == (1.0, 0.0, True, ["one"])
    assert (down["cells"][0]["mean"], down["cells"][0]["no_data"]) == (None, 7)
    assert (down["cells"][1]["unit"], down["cells"][1]["low"]) == (0.75, None)
    assert down["cells"][1]["why"] == "All pictures have the same value, which tells no interval."
    assert [one["score"] for one in page["weighted"]] == pytest.approx([0.3, 0.7])
    assert (page["best"]["explainer"], page["best"]["second"]) == ("two", "one")
    assert page["best"]["ahead"] == pytest.approx(0.4)


def test_a_run_and_a_comparison_of_the_same_numbers_say_the_same(tmp_path: Path) -> None:
    page = asked(scored(tmp_path / "run").place, weights="1,0")
    compared = Comparison(
        explainers=("one", "two"), metrics=("up",), better=("higher",), values=np.array([[ONE], [TWO]]),
        forward=np.zeros((2, 7)), backward=np.zeros((2, 7)), seconds=np.zeros((2, 7)), judging=np.zeros(1),
        pictures=tuple("abcdefg"), ranges=((0.0, 1.0),),
    )  # fmt: skip
    (difference,) = compared.differences
    best = page["best"]
    assert (best["verdict"], best["p"]) == (difference.verdict, difference.p) == ("real", 2 / 128)
    assert (best["low"], best["high"]) == pytest.approx((difference.low, difference.high))
    cells = {cell["explainer"]: (cell["mean"], cell["low"], cell["high"]) for cell in page["metrics"][0]["cells"]}
    assert cells == {m.explainer: pytest.approx((m.mean, m.low, m.high)) for m in compared.means}


def test_a_picture_counts_once_whatever_its_labels(tmp_path: Path) -> None:
    """Eight labels of one picture are no eight pictures."""
    made = Folder(tmp_path / "run", settings(["one", "two"], ["up"]))
    labels = dict.fromkeys(range(8), (0.9, True))
    scores = {(n, e, "up"): (0.8 if e == "one" else 0.2) + n / 100 for n in range(8) for e in ("one", "two")}
    made.add("00000000", picture("s0", 0, labels=labels, scores=scores))
    page = asked(made.place)
    cell = page["metrics"][0]["cells"][0]
    assert (cell["pictures"], cell["count"], cell["low"]) == (1, 8, None)
    assert cell["mean"] == pytest.approx(0.835)
    assert (page["best"]["verdict"], page["best"]["why"]) == (
        "cannot be told", "1 picture is too few, 6 are needed.",
    )  # fmt: skip


def test_an_interval_ends_where_the_metric_does(tmp_path: Path) -> None:
    made = Folder(tmp_path / "run", settings(["one"], ["up"]))
    for number, value in enumerate((1.0, 1.0, 1.0, 0.2, 1.0, 0.9)):
        scores = {(number, "one", "up"): value}
        made.add(f"{number:08d}", picture(f"s{number}", number, labels={number: (0.9, True)}, scores=scores))
    cell = asked(made.place)["metrics"][0]["cells"][0]
    assert cell["mean"] == pytest.approx(0.85)
    assert cell["high"] == 1.0
    assert 0 < cell["low"] < 0.85


def test_a_weighted_score_without_data_is_missing(tmp_path: Path) -> None:
    page = asked(scored(tmp_path / "run").place)
    first, second = page["weighted"]
    assert (first["explainer"], first["score"], first["pictures"], first["missing"]) == ("one", None, 0, ["down"])
    assert second["score"] == pytest.approx((np.mean(TWO[1:]) + 0.75) / 2)
    assert second["pictures"] == 6  # the first has no "down"
    assert (page["best"]["explainer"], page["best"]["second"], page["best"]["ahead"]) == ("two", None, None)


@pytest.mark.parametrize("told", [True, False])
def test_what_does_not_beat_a_baseline_is_not_called_best(tmp_path: Path, told: bool) -> None:
    """ "two" is a random map; folders of before did not say so, but have its name."""
    about = settings()
    about["explainers"]["two"] |= {"chance": True} if told else {"name": "random_map"}
    page = asked(scored(tmp_path / "run", about).place, weights="1,0")
    up = page["metrics"][0]
    assert page["baselines"] == ["two"]
    assert not any(cell["best"] for cell in up["cells"])
    assert (page["best"]["explainer"], page["best"]["leader"]) == (None, "one")
    assert page["best"]["why"] == "one has the best mean, but is not shown to be better than chance (two)."


def test_concision_has_no_weight_unless_it_is_given_one(tmp_path: Path) -> None:
    about = settings()
    about["metrics"]["down"]["concision"] = True
    place = scored(tmp_path / "run", about).place
    assert [row["share"] for row in asked(place)["metrics"]] == [1.0, 0.0]
    assert [row["share"] for row in asked(place, weights="1,1")["metrics"]] == [0.5, 0.5]


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
    scored(tmp_path / "run", pictures=2)
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
