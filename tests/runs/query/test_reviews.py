"""What reviewers say: kept as small files, the last of each author counts, filterable, in every export."""

import csv
import json
from pathlib import Path

import pytest
from PIL import Image

from seewhy.errors import InvalidInput
from seewhy.exports.coco import Coco
from seewhy.exports.csv import Csv
from seewhy.exports.fiftyone import FiftyOne
from seewhy.exports.parquet import Parquet
from seewhy.runs.query.run import Run
from support.run_folders import picture, three_pictures
from support.typed import present


def names(page):
    return [hit.record.sample for hit in page]


def files(folder):
    return sorted(path.name for path in (Path(folder.place) / "reviews").iterdir())


def test_a_review_is_a_file_that_the_next_reader_finds(folder):
    run = Run(three_pictures(folder).place)
    run.review("a", "Anna B.", "bad label", " that is a dog ")
    run.review("b", "Anna B.", text="dark")
    assert [(one.author, one.verdict, one.text) for one in present(run.sample("a")).reviews] == [
        ("Anna B.", "bad label", "that is a dog")
    ]
    other = Run(folder.place)
    assert {key: [one.line for one in said] for key, said in other.reviews.items()} == {
        "a": ["Anna B.: bad label, that is a dog"], "b": ["Anna B.: dark"],
    }  # fmt: skip
    assert [name.split("-")[1:-1] for name in files(folder)] == [["anna", "b"]] * 2


def test_the_last_word_of_each_author_counts_and_no_file_is_changed(folder):
    run = Run(three_pictures(folder).place)
    for author, verdict in (("anna", "bad label"), ("ben", "look again"), ("anna", "looks right")):
        run.review("a", author, verdict)
    assert [one.line for one in run.reviews["a"]] == ["ben: look again", "anna: looks right"]
    assert len(files(folder)) == 3
    run.review("a", "anna")
    assert [one.line for one in run.reviews["a"]] == ["ben: look again"]


def test_an_open_run_reads_what_others_say(folder):
    run = Run(three_pictures(folder).place)
    Run(folder.place).review("b", "ben", "look again")
    assert run.reviews == {}
    assert run.refresh() == 0
    assert names(run.samples(reviewed=True)) == ["b"]
    (Path(folder.place) / "reviews" / files(folder)[0]).unlink()
    run.refresh()
    assert run.reviews == {}


def test_reviews_are_filters(folder):
    run = Run(three_pictures(folder).place)
    run.review("a", "anna", "bad label")
    run.review("b", "ben", "look again")
    assert names(run.samples(verdicts=["bad label"])) == ["a"]
    assert names(run.samples(verdicts=["bad label", "look again"])) == ["a", "b"]
    assert names(run.samples(reviewed=False)) == ["c"]
    assert names(run.labels(verdicts=["look again"], labels=[1])) == ["b"]


@pytest.mark.parametrize(
    ("about", "message"),
    [
        (("nobody", "anna"), "has no picture 'nobody'"),
        (("a", " "), "needs an author"),
        (("a", "anna", "nice"), "A verdict must be one of 'looks right', 'wrong evidence', 'bad label', 'look again'"),
        (("a", "anna", "", "x" * 2001), "The text of a review must have at most 2000 characters, got 2001"),
    ],
)
def test_what_is_no_review_is_refused_before_anything_is_written(folder, about, message):
    run = Run(three_pictures(folder).place)
    with pytest.raises(InvalidInput, match=message):
        run.review(*about)
    assert not (Path(folder.place) / "reviews").exists()


@pytest.mark.parametrize(
    "body",
    [
        "", "[]", "{}", "[" * 5000, " " * 70_000,
        '{"sample": "a", "verdict": "fine", "text": "", "author": "x", "written": 1}',
        '{"sample": "a", "verdict": "", "text": "", "author": "x", "written": 1e300}',
    ],
)  # fmt: skip
def test_a_file_that_is_no_review_is_left_out_with_the_reason(folder, body):
    run = Run(three_pictures(folder).place)
    run.review("a", "anna", "bad label")
    (Path(folder.place) / "reviews" / "strange.json").write_text(body)
    run.refresh()
    assert list(run.reviews) == ["a"]
    assert "strange.json" in run.unread_reviews["strange.json"]


@pytest.fixture
def reviewed(folder):
    run = Run(three_pictures(folder).place)
    run.review("a", "anna", "bad label", "a dog")
    return run


def test_tables_have_what_reviewers_say(reviewed, tmp_path):
    Csv()(reviewed, tmp_path / "labels.csv")
    with (tmp_path / "labels.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [(line["sample"], line["reviews"]) for line in lines] == [
        ("a", "anna: bad label, a dog"), ("a", "anna: bad label, a dog"), ("b", ""), ("b", ""),
    ]  # fmt: skip
    pq = pytest.importorskip("pyarrow.parquet")
    Parquet()(reviewed, tmp_path / "labels.parquet")
    assert pq.read_table(tmp_path / "labels.parquet")["reviews"].to_pylist()[::3] == ["anna: bad label, a dog", None]


def test_tables_of_a_run_without_reviews_are_as_they_were(folder, tmp_path):
    Csv()(Run(three_pictures(folder).place), tmp_path / "labels.csv")
    assert "reviews" not in (tmp_path / "labels.csv").read_text().partition("\n")[0]


def test_pictures_of_other_formats_have_what_reviewers_say(reviewed, tmp_path):
    Coco()(reviewed, tmp_path / "coco.json")
    images = json.loads((tmp_path / "coco.json").read_text())["images"]
    assert [one.get("reviews") for one in images][:2] == [["anna: bad label, a dog"], None]


def test_verdicts_are_tags_in_fiftyone(folder, tmp_path):
    folder.add("p", picture("a", labels={0: (0.9, True)}, small=Image.new("RGB", (8, 8))))
    run = Run(folder.place)
    run.review("a", "anna", "bad label", "a dog")
    FiftyOne()(run, tmp_path / "out")
    (sample,) = json.loads((tmp_path / "out" / "samples.json").read_text())["samples"]
    assert (sample["tags"], sample["reviews"]) == (["bad label"], "anna: bad label, a dog")
