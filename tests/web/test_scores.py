"""The pages of scores: means, intervals, weights and classes against the values that were written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seewhy.comparison import Comparison
from seewhy.runs.folder.rows import NoteRow
from seewhy.statistics import interval
from seewhy.web.charts import radar
from seewhy.web.library import Library
from seewhy.web.queries import ScoresQuery
from seewhy.web.scores import scores
from support.run_folders import Folder, picture, settings
from support.typed import present
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
        assert down["rows"][1]["bars"][1] == {"mean": None, "count": 0, "place": None, "chance": []}
        assert [row["name"] for row in asking.get(address_of, params={"text": "DOG"}).json()["rows"]] == ["dog"]


# ---------------------------------------------------------------------------------------------------------- chance


def with_chance(place: Path) -> Path:
    """Two explainers, one of which is no better than the random map, which stands first in the run."""
    about = settings(["blind", "one", "two"], ["up", "down"])
    about["explainers"]["blind"] |= {"chance": True}
    about["explainers"]["one"] |= {"caution": "Follows the edges.", "class_agnostic": True, "published": "blocks=2"}
    made = Folder(place, about)
    notes = [NoteRow("same for every picture", "it is.")]
    for number in range(8):
        scores = {(number % 2, e, "up"): v + number / 100 for e, v in (("blind", 0.3), ("one", 0.31), ("two", 0.7))}
        scores[number % 2, "one", "up"] -= 0.03 * (number % 2)
        scores[number % 2, "two", "up"] += 0.02 * (number % 3)
        scores |= {(number % 2, e, "down"): 0.5 for e in ("blind", "one", "two")}
        costs: list[Any] = [("two", 1.0, 0.0, 0.1, None, [], notes if number > 2 else [])]
        maps = {(number % 2, e): MAP for e in ("one", "two")}
        one = picture(f"s{number}", number, labels={number % 2: (0.9, True)}, maps=maps, scores=scores, costs=costs)
        made.add(f"{number:08d}", one)
    return place


def test_chance_stands_apart_and_says_what_is_above_it(tmp_path: Path) -> None:
    page = asked(with_chance(tmp_path / "run"), weights="1,0")
    assert page["explainers"] == ["one", "two", "blind"]
    up = page["metrics"][0]
    assert [(cell["explainer"], cell["baseline"], cell["above"]) for cell in up["cells"]] == [
        ("one", False, False), ("two", False, True), ("blind", True, None),
    ]  # fmt: skip
    assert [cell["best"] for cell in up["cells"]] == [False, True, False]
    assert [cell["above"] for cell in page["metrics"][1]["cells"]] == [False, False, None]


def test_the_defaults_of_the_authors_program_are_said_where_they_are_others(tmp_path: Path) -> None:
    how = asked(with_chance(tmp_path / "run"))["how"]
    assert [line for line in how if "authors" in line] == ["the authors' program of one: blocks=2"]


def test_the_head_of_a_column_warns_of_the_method(tmp_path: Path) -> None:
    heads = {head["explainer"]: head for head in asked(with_chance(tmp_path / "run"))["heads"]}
    assert heads["one"]["cautions"] == ["Follows the edges.", "The same map for every class."]
    assert heads["two"]["cautions"] == ["Same for every picture: noted on 5 of 8 pictures."]
    assert (heads["blind"]["cautions"], heads["blind"]["number"], heads["one"]["number"]) == ([], 0, 1)
    assert [heads[name]["style"] for name in ("blind", "one", "two")] == ["chance-0", "hue-0", "hue-1"]


@pytest.mark.parametrize(
    ("sort", "expected"),
    [("", ["one", "two"]), ("name", ["one", "two"]), ("weighted", ["two", "one"]), ("metric:up", ["two", "one"]),
     ("metric:down", ["one", "two"])],
)  # fmt: skip
def test_explainers_are_sorted_and_chance_stays_last(tmp_path: Path, sort: str, expected: list[str]) -> None:
    page = asked(with_chance(tmp_path / "run"), sort=sort, weights="1,0")
    assert page["explainers"] == [*expected, "blind"]
    assert [cell["explainer"] for cell in page["metrics"][0]["cells"]] == page["explainers"]
    assert [one["explainer"] for one in page["weighted"]] == page["explainers"]


def test_an_order_that_there_is_not(tmp_path: Path) -> None:
    with client(with_chance(tmp_path / "run")) as asking:
        answer = asking.get(f"/api/runs/{key(asking)}/scores", params={"sort": "metric:upp"})
    assert (answer.status_code, answer.json()["detail"].split(".")[0]) == (400, "There is no order 'metric:upp'")


def test_every_drawing_has_the_level_of_chance(tmp_path: Path) -> None:
    with client(with_chance(tmp_path / "run")) as asking:
        scores_text = asking.get(f"/runs/{key(asking)}/scores").text
        by_metric = asking.get(f"/api/runs/{key(asking)}/classes", params={"by": "metric", "name": "up"}).json()
        by_explainer = asking.get(f"/api/runs/{key(asking)}/classes", params={"by": "explainer", "name": "two"}).json()
        text = asking.get(f"/runs/{key(asking)}/classes", params={"by": "metric", "name": "up"}).text
    assert scores_text.count('class="level-0"') == 2 * 3  # in every strip of both metrics
    assert [(one["name"], one["baseline"]) for one in by_metric["columns"]] == [
        ("one", False), ("two", False), ("blind", True),
    ]  # fmt: skip
    for page in (by_metric, by_explainer):
        assert all(bar["chance"][0][0] == "blind" for row in page["rows"] for bar in row["bars"])
    assert by_metric["rows"][0]["bars"][1]["chance"][0][1] == pytest.approx(0.33)
    assert by_explainer["rows"][1]["bars"][0]["chance"][0][1] == pytest.approx(0.34)
    assert text.count('class="level-0"') == 2 * 3


def test_a_baseline_has_one_style_in_all_drawings_whatever_the_order(tmp_path: Path) -> None:
    about = settings(["first", "one", "second"], ["up", "a", "b"])
    about["explainers"]["first"] |= {"chance": True}
    about["explainers"]["second"] |= {"chance": True}
    made = Folder(tmp_path / "run", about)
    values = {"first": 0.2, "one": 0.5, "second": 0.4}  # sorted by the metric, the second comes before the first
    scores = {(0, e, m): v for e, v in values.items() for m in ("up", "a", "b")}
    made.add("0" * 8, picture("s", 0, labels={0: (0.9, True)}, scores=scores))
    with client(tmp_path / "run") as asking:
        of = f"runs/{key(asking)}/scores?sort=metric:up"
        styles = {one["explainer"]: one["style"] for one in asking.get(f"/api/{of}").json()["heads"]}
        text = asking.get(f"/{of}").text
    assert list(styles.items()) == [("one", "hue-0"), ("second", "chance-1"), ("first", "chance-0")]
    for name, style in (("first", "0"), ("second", "1")):
        assert len(re.findall(rf'<path class="level-{style}" d="[^"]*"><title>{name} ', text)) == 3 * 3
        assert text.count(f'<g class="shape chance-{style}"') == 1


def test_numbers_have_the_digits_that_their_interval_lets_count(tmp_path: Path) -> None:
    cells = asked(with_chance(tmp_path / "run"))["metrics"][0]["cells"]
    for cell in cells:
        half = (cell["high"] - cell["low"]) / 2
        assert 10 <= half * 10 ** cell["decimals"] < 100
    few = asked(scored(tmp_path / "few", pictures=3).place)["metrics"][0]["cells"][1]
    assert (few["low"], few["decimals"]) == (None, 3)


def test_the_names_of_a_radar_are_whole_and_inside(tmp_path: Path) -> None:
    names = [
        "a_rather_long_metric(steps=16, baseline='blur', order='most relevant first')",
        "b",
        "WWWWWWWWWWWWWWWWWWWW",
        "d",
    ]
    about = settings(["one"], names)
    made = Folder(tmp_path / "run", about)
    made.add("0" * 8, picture("s", 0, labels={0: (0.9, True)}, scores={(0, "one", name): 0.5 for name in names}))
    opened = present(Library(tmp_path / "run").opened(next(iter(Library(tmp_path / "run").places()))))
    chart = present(radar(scores(opened, ScoresQuery())))
    left, top, width, height = chart.box
    for axis, name in zip(chart.axes, names, strict=True):
        assert "".join(text for text, _, _ in axis.lines) == name
        for text, x, y in axis.lines:
            start = x - {"start": 0.0, "middle": 0.5, "end": 1.0}[axis.anchor] * 6 * len(text)
            assert left <= start
            assert start + 6 * len(text) <= left + width
            assert top <= y - 10
            assert y + 3 <= top + height
