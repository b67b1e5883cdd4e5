"""Queues: which labels are in them, and in which order."""

import pytest

from seewhy.errors import UnknownName
from seewhy.runs.query.run import Run
from support.run_folders import Folder, keys, picture, settings

METRICS = ("up", "relevance_mass", "trust_grade", "sparseness")


def run_of(tmp_path, *pictures, explainers=("one", "two", "random_map"), **more):
    folder = Folder(tmp_path, settings(explainers=explainers, metrics=METRICS, **more))
    folder.add("p", *pictures)
    return Run(folder.place)


def softmax(key, position, probability, truth, label=0, **more):
    labels = {label: (probability, label == truth)}
    return picture(
        key, position, labels=labels, truth=(truth,), predicted=label, probability=probability, **more
    )  # fmt: skip


def queue(run, name):
    return keys(run.labels(queue=name, sort="queue", descending=run.queues[name].descending))


def test_wrong_ones_are_as_sure_as_half_of_the_right_ones(tmp_path):
    sure = [softmax(f"r{n}", n, p, 0) for n, p in enumerate((0.5, 0.7, 0.9))]
    wrong = [softmax("low", 3, 0.69, 1), softmax("same", 4, 0.7, 1), softmax("high", 5, 0.99, 1)]
    run = run_of(tmp_path, *sure, *wrong)
    assert queue(run, "wrong") == [("high", 0), ("same", 0)]
    assert tuple(run.queue_counts()["wrong"]) == (2, 2)


def test_where_nothing_is_right_all_wrong_ones_are_in_the_queue(tmp_path):
    assert queue(run_of(tmp_path, softmax("a", 0, 0.1, 1)), "wrong") == [("a", 0)]


def test_right_answers_that_look_elsewhere(tmp_path):
    def note(label):
        return [("one", 1, 0, 0.1, None, (), [("border only", "at the border", label)])]

    def mass(value):
        return {(0, "one", "relevance_mass"): value}

    done = ["predict", "explain:id-one", "score:id-one:id-relevance_mass"]
    run = run_of(
        tmp_path,
        softmax("on", 0, 0.9, 0, scores=mass(0.8), done=done),
        softmax("off", 1, 0.9, 0, scores=mass(0.2), done=done),
        softmax("wrong", 2, 0.9, 1, scores=mass(0.1), done=done),
        softmax("border", 3, 0.9, 0, scores=mass(0.7), costs=note(0), done=done),
        softmax("other", 4, 0.9, 0, scores=mass(0.7), costs=note(1), done=done),
        softmax("all", 5, 0.9, 0, scores=mass(0.6), costs=note(None), done=done),
    )  # fmt: skip
    assert queue(run, "elsewhere:one") == [("off", 0), ("all", 0), ("border", 0)]
    assert "elsewhere:random_map" not in run.queues


def test_explainers_disagree_in_the_tenth_where_they_differ_most(tmp_path):
    both = [
        softmax(f"s{n:02}", n, 0.9, 0, scores={(0, "one", "up"): 0.5, (0, "two", "up"): 0.5 + n / 100})
        for n in range(20)
    ]
    alone = softmax("alone", 20, 0.9, 0, scores={(0, "one", "up"): 0.9})
    run = run_of(tmp_path, *both, alone)
    assert queue(run, "disagree:up") == [("s19", 0), ("s18", 0)]
    assert "disagree:sparseness" not in run.queues


def test_explainers_that_agree_everywhere_leave_the_queue_empty(tmp_path):
    same = {(0, "one", "up"): 0.5, (0, "two", "up"): 0.5}
    assert queue(run_of(tmp_path, softmax("a", 0, 0.9, 0, scores=same)), "disagree:up") == []


def test_intervals_that_exclude_the_prediction_the_farthest_first(tmp_path):
    run = run_of(
        tmp_path,
        softmax("in", 0, 0.9, 0, uncertainty={0: (0.85, 0.1, 0.8, 0.95)}),
        softmax("above", 1, 0.9, 0, uncertainty={0: (0.5, 0.1, 0.4, 0.6)}),
        softmax("below", 2, 0.3, 0, uncertainty={0: (0.5, 0.1, 0.4, 0.6)}),
    )
    assert queue(run, "interval") == [("above", 0), ("below", 0)]


def test_maps_that_can_hardly_be_trusted(tmp_path):
    grades = {"none": 0.0, "low": 1.0, "fair": 2.0}
    made = [softmax(k, n, 0.9, 0, scores={(0, "one", "trust_grade"): v}) for n, (k, v) in enumerate(grades.items())]
    assert queue(run_of(tmp_path, *made), "trust:one") == [("none", 0), ("low", 0)]


def test_boxes_and_several_classes_count_mistakes(tmp_path):
    labels = {0: (0.9, False), 1: (0.8, True), 2: (0.6, False)}
    run = run_of(tmp_path, picture("a", 0, labels=labels, truth=(1,)), activation="sigmoid")
    assert queue(run, "wrong") == [("a", 0)]


def test_a_queue_meets_other_filters_in_the_same_label(tmp_path):
    run = run_of(tmp_path, softmax("a", 0, 0.9, 1), softmax("b", 1, 0.8, 1, label=2))
    assert keys(run.samples(queue="wrong", labels=[2])) == [("b", 2)]


def test_what_a_run_has_no_data_for_is_not_offered_and_said(folder):
    run = Run(folder.place)
    assert [*run.queues] == ["wrong", "disagree:up", "disagree:down", "interval"]
    assert run.missing_queues == {"elsewhere": "--metrics relevance_mass", "trust": "--metrics trust_grade"}
    with pytest.raises(UnknownName, match="There is no queue 'trust:one'"):
        run.labels(queue="trust:one")
    with pytest.raises(UnknownName, match="There is no order 'queue'"):
        run.labels(sort="queue")


def test_limits_of_queues_follow_what_is_read(folder):
    folder.add("p", softmax("a", 0, 0.9, 0), softmax("b", 1, 0.6, 1))
    run = Run(folder.place)
    assert queue(run, "wrong") == []
    folder.add("q", softmax("c", 2, 0.5, 0), softmax("d", 3, 0.5, 0))
    run.refresh()
    assert queue(run, "wrong") == [("b", 0)]
