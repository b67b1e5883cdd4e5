"""What a card says of a prediction: right or wrong, found or not, and whether dropout agrees with it."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import Any

import pytest

from support.run_folders import Folder, picture, settings
from support.web_pages import client, key

# label -> probability, truth; the likeliest is right, wrong, and of unknown truth
LABELS: tuple[dict[int, Any], ...] = (
    {0: (0.47, True), 1: (0.3, False)},
    {0: (0.2, True), 1: (0.4, False)},
    {1: (0.9, None), 2: (0.05, None)},
)
UNSURE = {0: (0.02, 0.01, 0.0, 0.035), 1: (0.31, 0.02, 0.26, 0.34)}  # mean, deviation, interval


@pytest.fixture
def place(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    made = Folder(tmp_path / "run", settings(activation=getattr(request, "param", "softmax")))
    for number, labels in enumerate(LABELS):
        best = max(labels, key=lambda label: labels[label][0])
        known = {"predicted": best, "probability": labels[best][0], "uncertainty": {} if number else UNSURE}
        made.add(f"{number:08d}", picture(f"s{number}", number, labels=labels, **known))
    return tmp_path / "run"


def cards(place: Path) -> tuple[list[dict[int, Any]], str, list[dict[str, str]]]:
    """Label -> card of each picture, the page, and its table."""
    with client(place) as asking:
        run = key(asking)
        page = asking.get(f"/api/runs/{run}/saliency").json()
        text = asking.get(f"/runs/{run}/saliency").text
        table = list(csv.DictReader(io.StringIO(asking.get(f"/runs/{run}/saliency.csv").text)))
    lines = {(line["sample"], line["label"]): line for line in table}  # one a label, whatever the explainers
    return [{one["label"]: one for one in sample["labels"]} for sample in page["samples"]], text, [*lines.values()]


def test_the_likeliest_of_classes_that_exclude_each_other_is_right_or_wrong(place: Path) -> None:
    first, second, third = (found := cards(place))[0]
    assert [first[0]["answer"], first[1]["answer"]] == ["predicted, right", None]
    assert [second[1]["answer"], second[0]["answer"]] == ["predicted, wrong", None]
    assert [third[1]["answer"], third[2]["answer"]] == ["predicted", None]
    assert (first[0]["flag"], second[1]["flag"]) == ("FN", "TN")  # none is above 0.5, and yet one is predicted
    assert found[1].count(">✓</span>") == found[1].count(">✗</span>") == 1
    assert [line["answer"] for line in found[2]] == [
        "predicted, right", "", "predicted, wrong", "", "predicted", "",
    ]  # fmt: skip


def test_a_label_has_one_badge_in_the_list_and_above_its_maps(place: Path) -> None:
    with client(place) as asking:
        text = asking.get(f"/runs/{key(asking)}/saliency", params={"every": "true"}).text
    badge = re.compile(r'<span class="flag [^>]*>([^<]+)</span>')
    heads = [badge.findall(head)[0] for head in re.findall(r"<h3>.*?</h3>", text, re.DOTALL)]
    listed = [badge.findall(line)[0] for line in re.findall(r'<a class="pick".*?</a>', text, re.DOTALL)]
    assert heads == listed == ["✓", "TN", "✗", "FN", "?", "?"]


@pytest.mark.parametrize("place", ["sigmoid"], indirect=True)
def test_classes_that_do_not_exclude_each_other_have_their_flags_alone(place: Path) -> None:
    found, text, _ = cards(place)
    assert {one["answer"] for labels in found for one in labels.values()} == {None}
    assert ">✓</span>" not in text
    assert [one["flag"] for one in found[0].values()] == ["FN", "TN"]


def test_a_prediction_outside_of_its_own_interval_is_said_to_be_so(place: Path) -> None:
    found, text, table = cards(place)
    assert [one["outside"] for one in found[0].values()] == [True, False]
    assert text.count("outside of its own interval; mean with dropout 0.020") == 1
    assert text.count("outside of its own interval") == 1
    assert [line["outside"] for line in table] == ["True", "False", "", "", "", ""]
