"""The only writing route: off by default, for pages of this server alone, and kept in the run folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from seewhy.errors import InvalidInput
from seewhy.web.security import Rules
from seewhy.web.serving import serve
from support.web_pages import client, folder, key

HERE = {"Origin": "http://127.0.0.1:8484"}


def kept(place: Path) -> list[tuple[str, str, str, str]]:
    found = [json.loads(path.read_text()) for path in sorted((place / "reviews").glob("*.json"))]
    return [(one["sample"], one["author"], one["verdict"], one["text"]) for one in found]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    folder(tmp_path / "run")
    return tmp_path / "run"


def send(place: Path, rules: Rules, headers: Any = None, path: str = "review", **form: Any) -> Any:
    with client(place, rules) as asking:
        about = {"sample": "s1", "verdict": "bad label", "text": "", "token": rules.form_token, **form}
        about = {name: value for name, value in about.items() if value is not None}
        return asking.post(
            f"/runs/{key(asking)}/{path}", data=about, headers=HERE if headers is None else headers,
            follow_redirects=False,
        )  # fmt: skip


def test_nothing_can_be_written_by_default(place: Path) -> None:
    answer = send(place, Rules())
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")
    with client(place) as asking:
        run = key(asking)
        assert "review" not in asking.get(f"/runs/{run}/sample").text.replace("--review NAME", "")
        assert asking.get(f"/runs/{run}/sample").headers["referrer-policy"] == "no-referrer"
        assert asking.get(f"/runs/{run}/review").status_code == 405
    assert not (place / "reviews").exists()


def test_a_verdict_is_kept_under_the_reviewers_name(place: Path) -> None:
    rules = Rules(reviewer="Anna")
    answer = send(place, rules, text="a dog\r\nand a cat", back="sample?queue=wrong&page=2")
    assert answer.status_code == 303
    assert answer.headers["location"].endswith("/sample?queue=wrong&page=2")
    assert kept(place) == [("s1", "Anna", "bad label", "a dog\nand a cat")]
    with client(place, rules) as asking:
        run = f"/runs/{key(asking)}"
        assert "a dog\nand a cat" in asking.get(f"{run}/sample?picks=1").text
        assert asking.get(f"/api{run}/grid?verdicts=bad label").json()["total"] == 1
        assert asking.get(f"/api{run}/grid?reviewed=false").json()["total"] == 7
        assert asking.get(f"/api{run}/overview").json()["verdicts"] == {"bad label": 1}


def test_what_was_written_is_seen_at_once_and_by_other_servers(place: Path) -> None:
    rules = Rules(reviewer="Anna")
    with client(place, rules) as asking, client(place) as other:
        run = key(asking)
        assert other.get(f"/api/runs/{run}/grid?reviewed=true").json()["total"] == 0
        before = asking.get(f"/api/runs/{run}").json()["version"]
        form = {"sample": "s2", "verdict": "look again", "token": rules.form_token}
        asking.post(f"/runs/{run}/review", data=form, headers=HERE)
        assert asking.get(f"/api/runs/{run}/grid?reviewed=true").json()["total"] == 1
        assert asking.get(f"/api/runs/{run}").json()["version"] > before


def test_several_samples_get_one_verdict(place: Path) -> None:
    send(place, Rules(reviewer="Anna"), sample=None, picks=["0", "3"], verdict="look again")
    assert sorted(kept(place)) == [("s0", "Anna", "look again", ""), ("s3", "Anna", "look again", "")]


def test_showing_the_chosen_writes_nothing(place: Path) -> None:
    answer = send(place, Rules(reviewer="Anna"), sample=None, picks=["0", "3"], verdict=None, show="true")
    assert answer.headers["location"].endswith("/grid?picks=0&picks=3")
    assert not (place / "reviews").exists()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 403), ({"Origin": "null"}, 403), ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://127.0.0.1:9999"}, 403),
        ({**HERE, "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"}, 403),
        ({**HERE, "Host": "evil.example"}, 400), ({**HERE, "Content-Type": "text/plain"}, 415),
    ],
)  # fmt: skip
def test_forms_of_other_pages_are_not_taken(place: Path, headers: Any, status: int) -> None:
    assert send(place, Rules(reviewer="Anna"), headers).status_code == status
    assert not (place / "reviews").exists()


@pytest.mark.parametrize(
    ("form", "status"),
    [
        ({"token": ""}, 403), ({"token": "x" * 43}, 403), ({"token": "é"}, 403), ({"sample": "nobody"}, 400),
        ({"sample": None}, 400), ({"verdict": "nice"}, 400), ({"text": "x" * 2001}, 400), ({"text": "x" * 70_000}, 413),
        ({"picks": ["0"] * 2000}, 400),
    ],
)  # fmt: skip
def test_what_is_no_review_is_refused(place: Path, form: Any, status: int) -> None:
    assert send(place, Rules(reviewer="Anna"), **form).status_code == status
    assert not (place / "reviews").exists()


@pytest.mark.parametrize(
    "back", ["//evil.example", "https://evil.example", "sample\r\nX: 1", "../../", "sample?\\evil", "javascript:1", ""]
)
def test_afterwards_one_is_always_here(place: Path, back: str) -> None:
    answer = send(place, Rules(reviewer="Anna"), back=back)
    assert answer.status_code == 303
    assert answer.headers["location"].endswith("/overview")
    assert answer.headers["location"].startswith("/runs/")


def test_who_has_no_token_of_the_server_writes_nothing(place: Path) -> None:
    rules = Rules(token="secret", reviewer="Anna", names=frozenset({"10.0.0.1"}))
    from seewhy.web.library import Library

    run = next(iter(Library(place).places()))
    with client(place, rules) as asking:
        form = {"sample": "s1", "verdict": "bad label", "token": rules.form_token}
        assert asking.post(f"/runs/{run}/review", data=form, headers=HERE).status_code == 401
        known = {**HERE, "Authorization": "Bearer secret"}
        answer = asking.post(f"/runs/{run}/review", data=form, headers=known, follow_redirects=False)
        assert answer.status_code == 303
    assert len(kept(place)) == 1


def test_other_paths_and_methods_stay_closed(place: Path) -> None:
    for path in ("saliency", "review/", "review%2f..", "map"):
        assert send(place, Rules(reviewer="Anna"), path=path).status_code in (404, 405)
    with client(place, Rules(reviewer="Anna")) as asking:
        for method in ("PUT", "PATCH", "DELETE", "OPTIONS"):
            assert asking.request(method, f"/runs/{key(asking)}/review", headers=HERE).status_code == 405


def test_a_name_that_cannot_be_kept_is_said_before_the_server_starts(place: Path) -> None:
    with pytest.raises(InvalidInput, match="needs an author"):
        serve(place, reviewer="  ", port=0, browser=False)


def test_what_is_said_is_text_and_nothing_else(place: Path) -> None:
    rules = Rules(reviewer='<b>"Anna"</b>')
    send(place, rules, text="<script>window.hacked = true</script>")
    with client(place, rules) as asking:
        for page in ("sample?picks=1", "grid", "overview"):
            text = asking.get(f"/runs/{key(asking)}/{page}").text
            assert "<script>window" not in text
            assert '<b>"Anna' not in text


# ---------------------------------------------------------------------------------------------------------- sample


def test_a_sample_is_the_nth_of_those_that_meet_the_filters(place: Path) -> None:
    with client(place) as asking:
        run = f"/api/runs/{key(asking)}"
        tiles = asking.get(f"{run}/grid?sort=probability&descending=true&flags=TP").json()["tiles"]
        for number in (0, 3):
            page = asking.get(f"{run}/{tiles[number]['link']}").json()
            assert page["sample"]["position"] == tiles[number]["sample"]["position"]
            assert (page["page"], page["total"]) == (number + 1, len(tiles))
        assert asking.get(f"{run}/sample?page=99").json()["sample"] is None


def test_scores_stand_beside_the_mean_of_the_run(place: Path) -> None:
    with client(place) as asking:
        page = asking.get(f"/api/runs/{key(asking)}/sample?page=3").json()
    lines = {line["metric"]: line for line in page["scores"]}
    assert [(one["explainer"], one["value"], one["mean"]) for one in lines["up"]["levels"]] == [
        ("one", 0.2, pytest.approx(0.3)), ("two", 0.25, 0.25),
    ]  # fmt: skip
    assert lines["down"]["levels"][0]["value"] is None


def test_the_link_back_leads_to_the_page_of_the_grid(place: Path) -> None:
    with client(place) as asking:
        page = asking.get(f"/api/runs/{key(asking)}/sample?page=5&flags=TP").json()
    assert page["grid"] == "grid?flags=TP"
