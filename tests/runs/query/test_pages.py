import itertools

import numpy as np
import pytest

from seewhy.errors import InvalidInput, UnknownName
from seewhy.runs.query.run import Run
from support.run_folders import EYE, Folder, keys, picture, settings
from support.typed import present

# --------------------------------------------------------------------------------------------------------- pages


def test_filters_have_to_be_met_by_the_same_label(several):
    assert keys(several.samples(labels=[1], flags=["FP"])) == [("a", 1)]
    assert keys(several.samples(labels=[1], flags=["TP"])) == []  # the TP of "a" is its label 0
    assert keys(several.samples(labels=[1])) == [("a", 1), ("b", 1)]
    assert keys(several.samples()) == [("a", 0, 1), ("b", 1, 2), ("c",)]
    assert list(several.samples(labels=[1]).items[0].record.labels) == [0, 1]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, [("a", 0), ("a", 1), ("b", 1), ("b", 2)]),
        ({"labels": []}, []),
        ({"labels": [0, 2]}, [("a", 0), ("b", 2)]),
        ({"flags": ["FN", "TP"]}, [("a", 0), ("b", 1)]),
        ({"explainers": ["one"]}, [("a", 0), ("a", 1), ("b", 1)]),
        ({"explainers": ["two", "one"]}, [("a", 0)]),
        ({"min_probability": 0.6, "max_probability": 0.7}, [("a", 1), ("b", 2)]),
        ({"max_probability": 0.6}, [("a", 1), ("b", 1)]),
        ({"counterfactual": True}, [("a", 0)]),
        ({"counterfactual": False}, [("a", 1)]),
        ({"text": "100%_a"}, [("a", 0), ("a", 1)]),
        ({"text": "_"}, [("a", 0), ("a", 1)]),
        ({"text": "B.PNG"}, [("b", 1), ("b", 2)]),
        ({"text": "' OR true --"}, []),
        ({"sort": "probability"}, [("b", 1), ("a", 1), ("b", 2), ("a", 0)]),
        ({"sort": "probability", "descending": True}, [("a", 0), ("b", 2), ("a", 1), ("b", 1)]),
        ({"sort": "uncertainty", "descending": True}, [("a", 1), ("a", 0), ("b", 1), ("b", 2)]),
        ({"sort": "score:one:up"}, [("a", 1), ("b", 2), ("b", 1), ("a", 0)]),
        ({"sort": "score:two:up", "descending": True}, [("a", 0), ("a", 1), ("b", 1), ("b", 2)]),
        ({"sort": "disagreement:up"}, [("a", 0), ("a", 1), ("b", 1), ("b", 2)]),
        ({"sort": "position", "descending": True}, [("b", 1), ("b", 2), ("a", 0), ("a", 1)]),
        ({"offset": 1, "limit": 2}, [("a", 1), ("b", 1)]),
    ],
)
def test_pages_of_labels(several, asked, expected):
    assert keys(several.labels(**asked)) == expected


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"sort": "probability"}, [("b", 1, 2), ("a", 1, 0), ("c",)]),
        ({"sort": "probability", "descending": True}, [("a", 0, 1), ("b", 2, 1), ("c",)]),
        ({"sort": "score:one:up", "labels": [1], "descending": True}, [("b", 1), ("a", 1)]),
        ({"text": "c"}, [("c",)]),
        ({"text": "png", "offset": 1, "limit": 1}, [("b", 1, 2)]),
        ({"text": "b.", "sort": "probability"}, [("b", 1, 2)]),
    ],
)
def test_pages_of_pictures(several, asked, expected):
    assert keys(several.samples(**asked)) == expected


def test_pictures_are_in_the_order_of_their_best_label(folder):
    folder.add("p", picture("x", 0, labels={0: (0.9, None), 1: (0.1, None)}))
    folder.add("q", picture("y", 1, labels={0: (0.5, None), 1: (0.4, None)}))
    run = Run(folder.place)
    assert keys(run.samples(sort="probability", descending=True)) == [("x", 0, 1), ("y", 0, 1)]
    assert keys(run.samples(sort="probability")) == [("x", 1, 0), ("y", 1, 0)]


def test_totals_do_not_depend_on_the_page(several):
    assert (several.labels(limit=1).total, several.labels(offset=90).total) == (4, 4)
    assert several.samples(labels=[1], limit=1).total == 2
    assert several.samples(text="png", limit=1).total == 3
    assert several.samples(min_probability=0.1, limit=1).total == 2
    assert several.failures(offset=5).total == 1


@pytest.mark.parametrize("sort", ["position", "probability", "score:one:up", "entropy"])
def test_ties_are_in_the_order_of_position_sample_and_label(folder, sort):
    names = [("b", 1), ("z", 0), ("a", 1)]
    for number, (name, position) in enumerate(names):
        scores = {(label, "one", "up"): 0.5 for label in (2, 0)}
        one = picture(name, position, labels={2: (0.5, None), 0: (0.5, None)}, scores=scores)
        folder.add(str(number), one)
    run = Run(folder.place)
    expected = [("z", 0), ("z", 2), ("a", 0), ("a", 2), ("b", 0), ("b", 2)]
    assert keys(run.labels(sort=sort)) == expected
    pages = [run.labels(sort=sort, offset=n, limit=1) for n in range(6)]
    assert list(itertools.chain(*map(keys, pages))) == expected
    assert [k[0] for k in keys(run.samples(sort=sort))] == ["z", "a", "b"]
    assert [record.sample for record in run.records()] == ["z", "a", "b"]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"labels": ["cat"]}, "labels must be class indices, got 'cat'."),
        ({"flags": ["tp"]}, "flags must be of 'TP', 'FN', 'FP' and 'TN', got 'tp'."),
        ({"min_probability": float("nan")}, "min_probability must be a number, got nan."),
        ({"offset": -1}, "offset must be an integer of at least 0, got -1."),
        ({"limit": 0}, "limit must be an integer of at least 1, got 0."),
    ],
)
def test_filters_that_cannot_be_used(several, asked, message):
    for ask in (several.labels, several.samples):
        with pytest.raises(InvalidInput) as error:
            ask(**asked)
        assert str(error.value) == message


def test_unknown_names_offer_the_nearest(several):
    with pytest.raises(UnknownName, match=r"^There is no order 'score:one:upp'\. Did you mean 'score:one:up'"):
        several.labels(sort="score:one:upp")
    with pytest.raises(UnknownName, match=r"^There is no order 'position; DROP TABLE labels'\. "):
        several.labels(sort="position; DROP TABLE labels")
    with pytest.raises(UnknownName, match=r"^There is no explainer 'ono'\. Did you mean 'one'\?$"):
        several.samples(explainers=["ono"])
    with pytest.raises(UnknownName, match=r"^There is no metric 'u'\. "):
        several.label_scores(metric="u")


def test_names_full_of_sql_are_only_names(tmp_path):
    hostile = """a"'); DROP TABLE labels; -- ?:_%"""
    folder = Folder(tmp_path, settings(explainers=[hostile, "b"], metrics=[hostile], classes=[hostile]))
    scores = {(0, hostile, hostile): 0.5, (0, "b", hostile): 0.25}
    folder.add("p", picture(hostile, labels={0: (0.9, True)}, maps={(0, hostile): EYE}, scores=scores))
    run = Run(tmp_path)
    for sort in (f"score:{hostile}:{hostile}", f"disagreement:{hostile}"):
        assert keys(run.labels(sort=sort, explainers=[hostile], text=hostile)) == [(hostile, 0)]
    assert present(run.sample(hostile)).scores == scores
    assert f"{hostile}/{hostile}" in next(run.batches()).schema.names


# ---------------------------------------------------------------------------------------------------- all of them


def test_means_against_hand_counts(several):
    found = {(s.explainer, s.metric): s for s in several.scores()}
    one = found["one", "up"]
    assert (one.count, one.no_data, one.better, one.range) == (4, 0, "higher", (0.0, 1.0))
    assert one.mean == pytest.approx(((0.5 + 0.1) / 2 + (0.4 + 0.3) / 2) / 2)  # two pictures with two labels each
    assert one.std == pytest.approx(np.std([0.3, 0.35], ddof=1))
    assert (one.pictures, one.low, one.high) == (2, None, None)
    assert one.why == "Fewer than 6 pictures tell no interval."
    assert one.macro == pytest.approx((0.5 + (0.1 + 0.4) / 2 + 0.3) / 3)
    two = found["two", "up"]
    assert (two.mean, two.count, two.no_data, two.std) == (0.9, 1, 1, None)
    none = found["two", "down"]
    assert (none.mean, none.macro, none.count, none.better) == (None, None, 0, "lower")


def test_means_by_label_are_none_without_data(several):
    found = {(s.explainer, s.label): (s.mean, s.count) for s in several.label_scores(metric="up")}
    assert found["two", 0] == (0.9, 1)
    assert found["two", 1] == (None, 0)
    assert found["one", 1] == (pytest.approx(0.25), 2)
    assert {s.metric for s in several.label_scores(explainer="one")} == {"up", "down"}


def test_counts(several):
    counts = several.counts()
    assert (counts.total, counts.samples, counts.failed, counts.labels, counts.maps) == (3, 3, 1, 4, 5)
    assert (counts.flags, counts.trees) == ({"TP": 1, "FN": 1, "FP": 2, "TN": 0}, 1)
    assert [(f.sample, f.task, f.reason) for f in several.failures()] == [("c", "read", "broken")]


def test_a_run_without_parts_explainers_or_metrics(tmp_path):
    folder = Folder(tmp_path, settings(explainers=(), metrics=(), classes=None, uncertainty=None, counterfactual=None))
    run = Run(tmp_path)
    assert (run.counts().samples, run.labels().total, run.samples().items, list(run.records())) == (0, 0, [], [])
    folder.add("p", picture("a", labels={7: (0.9, None)}, entropy=0.5))
    assert run.refresh() == 1
    assert keys(run.samples()) == [("a", 7)]
    assert (run.class_name(7), run.scores(), present(run.sample("a")).entropy) == ("class 7", [], None)
    assert next(run.batches())["entropy"].to_pylist() == [None]  # nobody asked for uncertainty


def test_class_names_outside_of_the_list(several):
    assert [several.class_name(n) for n in (0, 2, 3, -1)] == ["cat", "newt", "class 3", "class -1"]
