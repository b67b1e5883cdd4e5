"""The overview, the queues and the grid: every number leads to exactly that many samples."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

import pytest

from support.run_folders import Folder, picture, settings, task
from support.web_pages import HOSTILE, MAP, client, key, photograph

METRICS = ("up", "relevance_mass", "trust_grade")


def softmax(place: Path, count: int = 40, classes: Any = HOSTILE) -> Path:
    """Pictures of a softmax network that is wrong about every third; some warn, fail, or are very unsure."""
    made = Folder(place, settings(classes=classes, metrics=METRICS, data={"kind": "folder", "length": count}))
    for number in range(count):
        true, wrong = number % 5, number % 3 == 0
        said = (true + 1 + number % 2) % 6 if wrong else true
        sure = 0.31 + 0.69 * ((number * 7) % count) / count
        labels = {said: (sure, not wrong), **({true: ((1 - sure) / 2, True)} if wrong else {})}
        noted = [("one", 1.0, 1.0, 0.1, None, (), [("border only", "at the border", said)])] if number % 4 == 0 else []
        failed: dict[str, Any] = (
            {"failures": [("explain", "two", None, None, "no")], "failed": [task("explain", "two")]}
            if number % 11 == 0
            else {}
        )
        done = ["predict", *(task("explain", e) for e in ("one", "two"))]
        done += [task("score", e, m) for e in ("one", "two") for m in METRICS]
        one = picture(
            f"s{number:03d}", number, labels=labels, truth=(true,), predicted=said, probability=sure,
            maps={(label, e): MAP for label in labels for e in ("one", "two")}, done=[*done, "uncertainty:" + "u" * 12],
            scores={
                (label, e, m): ((number * (3 + at)) % 10) / (10 if m != "trust_grade" else 3)
                for label in labels
                for at, e in enumerate(("one", "two"))
                for m in METRICS
            },
            uncertainty={said: (sure, 0.1, sure - 0.1, sure + (-0.01 if number % 6 == 0 else 0.1))}, costs=noted,
            warnings=["small: 3 pixels"] if number % 9 == 0 else [], small=photograph(), size=(80, 120), **failed,
        )  # fmt: skip
        made.add(f"{number:08d}", one)
    return place


def several(place: Path) -> Path:
    """Pictures with several classes each: found, missed, and mistaken."""
    made = Folder(place, settings(classes=HOSTILE, activation="sigmoid", data={"kind": "folder", "length": 20}))
    for number in range(20):
        labels = {0: (0.9 - number / 100, True), 1: (0.2, True), 2: (0.55 + number / 50, number % 2 == 0)}
        truth = tuple(label for label, (_, there) in labels.items() if there)
        made.add(f"{number:08d}", picture(f"s{number:02d}", number, labels=labels, truth=truth, small=photograph()))
    return place


@pytest.fixture(params=[softmax, several])
def asked(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    request.param(tmp_path / "run")
    with client(tmp_path / "run") as found:
        yield found, f"/runs/{key(found)}"


LINK = re.compile(r'<a href="([^"]*/grid\?[^"]*)"(?: aria-label="([^"]*)")?>(.*?)</a>', re.S)


def test_every_number_of_the_overview_leads_to_that_many_samples(asked: Any) -> None:
    found, run = asked
    text = found.get(f"{run}/overview?rows=1&columns=1").text
    numbers = 0
    for address, label, inner in LINK.findall(text):
        number = re.match(r"\d+", label or inner.strip())
        if number is None:
            continue  # a queue: its number stands beside it
        answer = found.get("/api" + html.unescape(address))
        assert answer.status_code == 200, address
        assert answer.json()["total"] == int(number[0]), address
        numbers += 1
    assert numbers > 20


def test_every_queue_has_as_many_samples_as_is_said(asked: Any) -> None:
    found, run = asked
    page = found.get(f"/api{run}/queues").json()
    assert page["queues"]
    exclusive = found.get(f"/api{run}/overview").json()["exclusive"]
    for one in page["queues"]:
        line = one["queue"]
        each, count = ("sample", line["count"][1]) if exclusive else ("label", line["count"][0])
        total = found.get(f"/api{run}/grid", params={"queue": line["name"], "each": each}).json()["total"]
        assert total == count, line["name"]
        assert len(one["tiles"]) == min(total, 10)


def test_what_is_said_of_a_softmax_network(tmp_path: Path) -> None:
    softmax(tmp_path / "run")
    with client(tmp_path / "run") as found:
        page = found.get(f"/api/runs/{key(found)}/overview").json()
        text = found.get(f"/runs/{key(found)}/overview").text
    assert (page["known"], page["hits"], page["of_classes"]) == (40, 26, 6)
    assert ">65 %</p>" in text  # two digits are all that 40 pictures allow
    assert sum(map(sum, page["matrix"]["counts"])) == 40
    assert [one[0] for one in page["warnings"]] == ["small"]
    assert {one["kind"] for one in page["queues"]} == {"wrong", "elsewhere", "disagree", "interval", "trust"}


def test_names_are_text_and_nothing_else(tmp_path: Path) -> None:
    softmax(tmp_path / "run")
    with client(tmp_path / "run") as found:
        run = f"/runs/{key(found)}"
        for page in ("overview", "queues", "grid"):
            text = found.get(f"{run}/{page}").text
            assert "<script>window" not in text
            assert "<img src=x" not in text
            assert "style=" not in text  # the policy forbids it


def test_a_run_without_truth_or_pictures_has_an_overview(tmp_path: Path) -> None:
    Folder(tmp_path / "empty", settings())
    untold = Folder(tmp_path / "untold", settings())
    untold.add("p", picture("a", labels={0: (0.9, None)}, predicted=0, probability=0.9))
    with client(tmp_path) as found:
        for one in found.get("/api/runs").json()["runs"]:
            for page in ("overview", "queues", "grid"):
                assert found.get(f"/runs/{one['key']}/{page}").status_code == 200
            assert "Nothing is known of the truth." in found.get(f"/runs/{one['key']}/overview").text


def test_a_matrix_of_many_classes_comes_in_parts(tmp_path: Path) -> None:
    made = Folder(tmp_path / "run", settings(classes=[f"class {n}" for n in range(70)]))
    rows = [
        picture(f"s{n}", n, labels={n: (0.9, False)}, truth=((n + 1) % 70,), predicted=n, probability=0.9)
        for n in range(70)
    ]
    made.add("p", *rows)
    with client(tmp_path / "run") as found:
        run = f"/api/runs/{key(found)}/overview"
        total = 0
        for row in (1, 2, 3):
            for column in (1, 2, 3):
                part = found.get(run, params={"rows": row, "columns": column}).json()["matrix"]
                assert (part["pages"], part["classes"]) == (3, 70)
                total += sum(map(sum, part["counts"]))
        assert total == 70
        assert found.get(run, params={"rows": 99}).json()["matrix"]["row"] == 3


# ------------------------------------------------------------------------------------------------------------ grid


@pytest.fixture
def grid(tmp_path: Path) -> Any:
    softmax(tmp_path / "run")
    with client(tmp_path / "run") as found:
        run = key(found)
        yield lambda **query: found.get(f"/api/runs/{run}/grid", params=query)


def test_the_grid_shows_one_map_of_the_networks_answer(grid: Any) -> None:
    page = grid(explainer="two", limit=24).json()
    assert (len(page["tiles"]), page["pages"], page["explainer"]) == (24, 2, "two")
    first = page["tiles"][0]
    assert first["label"]["label"] == 1  # said, though class 0 is there
    assert [one["explainer"] for one in first["label"]["maps"]] == ["two"]


def test_the_grid_can_show_every_label(grid: Any) -> None:
    assert grid(each="label", limit=200).json()["total"] == 54
    assert {tile["label"]["flag"] for tile in grid(each="label", flags=["FN"], limit=200).json()["tiles"]} == {"FN"}


def test_chosen_samples_are_a_grid_of_their_own(grid: Any) -> None:
    page = grid(picks=[3, 7]).json()
    assert [tile["sample"]["position"] for tile in page["tiles"]] == [3, 7]
    assert [one["name"] for one in page["active"]] == ["2 chosen"]


def test_a_filter_of_another_page_is_said_and_can_be_left_out(grid: Any) -> None:
    page = grid(missed=0, right="false", confidence="0.5,", warning="small", size="large").json()
    assert [one["name"] for one in page["active"]] == [
        "wrong", f"missed: {HOSTILE[0]}", "probability of the answer from 0.5 on", "small",
    ]  # fmt: skip
    assert page["active"][0]["value"] == "?missed=0&confidence=0.5%2C&warning=small&size=large"


def test_a_queue_shows_the_explainer_that_it_is_about_in_its_order(grid: Any) -> None:
    page = grid(queue="trust:two").json()
    grades = [tile["label"]["maps"][0]["values"] for tile in page["tiles"]]
    found = [one["value"] for values in grades for one in values if one["metric"] == "trust_grade"]
    assert page["explainer"] == "two"
    assert found == sorted(found)
    assert found


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({"explainer": "three"}, 400), ({"queue": "three"}, 400), ({"limit": 201}, 422), ({"confidence": "1"}, 422),
        ({"confidence": "1.2.3,"}, 400), ({"note": "three: x"}, 400), ({"verdicts": "nice"}, 422),
        ({"picks": "-1"}, 422),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_refused(grid: Any, query: Any, status: int) -> None:
    assert grid(**query).status_code == status
