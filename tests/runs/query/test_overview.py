"""What a run says about the network, against counts by hand and scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from seewhy.runs.query.overview import average_precision
from seewhy.runs.query.run import Run
from support.run_folders import Folder, picture, settings


def names(page):
    return [hit.record.sample for hit in page]


def said(key, position, probabilities, truth, **more):
    """A picture of a softmax network: its classes with their probabilities, and what is truly there."""
    best = max(probabilities, key=probabilities.get)
    labels = {c: (p, None if truth is None else c in truth) for c, p in probabilities.items()}
    return picture(
        key, position, labels=labels, truth=truth, predicted=best, probability=probabilities[best], **more
    )  # fmt: skip


def softmax(folder):
    folder.add(
        "p",
        said("a", 0, {0: 0.92}, (0,)),
        said("b", 1, {0: 0.47, 1: 0.3}, (0,)),
        said("c", 2, {1: 0.97, 0: 0.03}, (0,)),
        said("d", 3, {1: 0.62, 2: 0.38}, (2,)),
        said("e", 4, {2: 0.72}, None),
        picture("f", 5, failures=[("read", None, None, None, "broken")], done=["predict"], failed=["predict"]),
    )
    return Run(folder.place)


def test_a_softmax_network_is_right_where_its_likeliest_class_is_there(folder):
    found = softmax(folder).overview()
    assert (found.pictures, found.known, found.hits, found.right.mean, found.right.n) == (6, 4, 2, 0.5, 4)
    assert [(one.label, one.there, one.missed, one.mistaken) for one in found.classes] == [
        (2, 1, 1, 0), (0, 3, 1, 0), (1, 0, 0, 2),
    ]  # fmt: skip
    assert [tuple(one) for one in found.confusions] == [(0, 0, 2), (0, 1, 1), (2, 1, 1)]
    assert [tuple(one) for one in found.mistakes] == [(0, 1, 1), (2, 1, 1)]
    assert [tuple(one) for one in found.failures] == [("read", None, None, 1, 1)]
    assert found.mean_precision is None


def test_a_histogram_has_every_answer_once_in_its_bin(folder):
    found = softmax(folder).overview()
    filled = {(round(one.low, 2), *one[2:]) for one in found.bins if sum(one[2:])}
    assert filled == {(0.9, 1, 0, 0), (0.45, 1, 0, 0), (0.95, 0, 1, 0), (0.6, 0, 1, 0), (0.7, 0, 0, 1)}
    assert len(found.bins) == 20


def test_calibration_is_said_of_answers_whose_truth_is_known(folder):
    found = softmax(folder).overview()
    assert [(one.low, one.answers, one.right.mean) for one in found.steps] == [(0.4, 1, 1), (0.6, 1, 0), (0.9, 2, 0.5)]
    assert found.calibration_error == pytest.approx((0.53 + 0.62 + 2 * abs(0.945 - 0.5)) / 4)


def test_certain_answers_are_in_the_last_bin(folder):
    folder.add("p", said("a", 0, {0: 1.0}, (0,)), said("b", 1, {0: 0.0}, (0,)))
    found = Run(folder.place).overview()
    assert [one.right for one in found.bins] == [1, *[0] * 18, 1]
    assert [(one.low, one.answers) for one in found.steps] == [(0.0, 1), (0.9, 1)]


def test_logits_have_a_histogram_over_their_own_range_and_no_calibration(tmp_path):
    folder = Folder(tmp_path, settings(quantity="logit"))
    folder.add("p", said("a", 0, {0: -3.0}, (0,)), said("b", 1, {0: 7.0}, (1,)))
    found = Run(folder.place).overview()
    assert (found.bins[0].low, found.bins[-1].high, found.steps, found.calibration_error) == (-3.0, 7.0, (), None)


def test_without_truth_nothing_is_right_or_wrong(folder):
    folder.add("p", said("a", 0, {0: 0.8}, None))
    found = Run(folder.place).overview()
    assert (found.known, found.steps, found.classes, found.confusions) == (0, (), (), ())
    assert [one.unknown for one in found.bins if one.unknown] == [1]


def several(tmp_path):
    """Several classes a picture: 0 is missed and 1 mistaken in "b"; "c" is right about nothing being there."""
    folder = Folder(tmp_path, settings(activation="sigmoid"))
    folder.add(
        "p",
        picture("a", 0, labels={0: (0.9, True), 1: (0.8, True)}, truth=(0, 1), predicted=0),
        picture("b", 1, labels={0: (0.2, True), 1: (0.7, False)}, truth=(0,), predicted=1),
        picture("c", 2, labels={}, truth=(), predicted=0),
        picture("d", 3, labels={1: (0.95, False)}, truth=(), predicted=1),
        picture("e", 4, labels={1: (0.6, True)}, truth=(1,), predicted=1),
    )
    return Run(folder.place)


def test_of_several_classes_a_picture_is_right_without_misses_and_mistakes(tmp_path):
    run = several(tmp_path)
    found = run.overview()
    assert (found.exclusive, found.known, found.hits) == (False, 5, 3)
    assert found.flags == {"TP": 3, "FN": 1, "FP": 2, "TN": 0}
    assert [tuple(one) for one in found.confusions] == [(0, 1, 1)]
    assert names(run.samples(right=False)) == ["b", "d"]
    precise = {one.label: one.precision for one in found.classes}
    # class 1 in order: FP 0.95, TP 0.8, FP 0.7, TP 0.6; of class 0 the second hit was never found
    assert precise == {0: 0.5, 1: pytest.approx((1 / 2 + 2 / 4) / 2)}
    assert found.mean_precision == pytest.approx(0.5)


def test_average_precision_is_that_of_scikit_learn():
    draws = np.random.default_rng(0)
    for many in (1, 7, 200):
        scores = np.sort(draws.integers(0, 20, many) / 20)[::-1]
        hits = draws.random(many) < 0.4
        hits[0] = True
        wanted = average_precision_score(hits, scores)
        assert average_precision(scores, hits, int(hits.sum()), highest=False) == pytest.approx(wanted)


def test_average_precision_of_boxes_takes_the_highest_precision_from_there_on():
    hits = np.array([False, True, True, False])
    scores = np.array([0.9, 0.8, 0.7, 0.1])
    assert average_precision(scores, hits, 4, highest=True) == pytest.approx((2 / 3 + 2 / 3) / 4)
    assert average_precision(scores, hits, 4, highest=False) == pytest.approx((1 / 2 + 2 / 3) / 4)
    assert average_precision(scores[:0], hits[:0], 4, highest=True) == 0


# --------------------------------------------------------------------------------------------------------- filters


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({"right": True}, ["a", "b"]), ({"right": False}, ["c", "d"]), ({"missed": 0}, ["c"]), ({"missed": 2}, ["d"]),
        ({"mistaken": 1}, ["c", "d"]), ({"missed": 0, "mistaken": 1}, ["c"]), ({"missed": 1}, []),
        ({"failed": True}, ["f"]), ({"right": False, "text": "d"}, ["d"]), ({"right": True, "labels": [1]}, ["b"]),
        ({"there": 0}, ["a", "b", "c"]), ({"there": 0, "right": True}, ["a", "b"]), ({"positions": [4, 1]}, ["b", "e"]),
        ({"failed": False, "sort": "probability", "descending": True}, ["c", "a", "e", "d", "b"]),
    ],
)  # fmt: skip
def test_numbers_of_the_overview_lead_to_their_pictures(folder, asked, found):
    page = softmax(folder).samples(**asked)
    assert (names(page), page.total) == (found, len(found))


def test_misses_of_several_classes_are_filters_too(tmp_path):
    run = several(tmp_path)
    asked = ({"missed": 0}, {"mistaken": 1}, {"missed": 0, "mistaken": 1})
    assert [names(run.samples(**one)) for one in asked] == [["b"], ["b", "d"], ["b"]]


def test_warnings_and_notes_of_a_kind_are_filters(folder):
    note = [("one", 1, 0, 0.1, None, (), [("border only", "the border", 0)])]
    done = ["predict", "explain:id-one"]
    folder.add(
        "p", picture("a", 0, labels={0: (0.9, True)}, warnings=["small: 3 pixels"], costs=note, done=done),
        picture("b", 1, labels={0: (0.9, True)}),
    )  # fmt: skip
    run = Run(folder.place)
    kind = run.warnings()[0].kind
    assert names(run.samples(warning=kind)) == names(run.samples(note="one: border only")) == ["a"]
    assert names(run.samples(note="two: border only")) == []


@pytest.mark.parametrize("made", [softmax, several])
def test_each_bin_and_step_leads_to_its_own_answers(tmp_path, made):
    run = made(Folder(tmp_path) if made is softmax else tmp_path)
    found = run.overview()
    for low, high, *counts in found.bins:
        hits = run.samples(confidence=(low, high), limit=100) if found.exclusive else run.labels(confidence=(low, high))
        assert hits.total == sum(counts)
    for one in found.steps:
        about = {"flags": ["TP", "FP"]} if not found.exclusive else {}
        asked = run.samples if found.exclusive else run.labels
        known = [hit for hit in asked(confidence=(one.low, one.high), **about) if hit.record.truth is not None]
        assert len(known) == one.answers
