"""Averages by label, as Faithfulness keeps them; "no data" is counted, and never averaged as 0."""

from __future__ import annotations

import pickle
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from seewhy.errors import InvalidInput, InvalidTarget
from seewhy.explainers import Gradient
from seewhy.metrics import Faithfulness
from support.metric_cases import case, mean_network, patch
from support.networks import Pooled, build, pictures

NAN = float("nan")


def test_the_mean_of_each_label_and_the_mean_of_those() -> None:
    """Not the mean over all results: a frequent label would outweigh a rare one."""
    metric = Faithfulness(3)
    metric.aggregate([0.2, 0.4, 0.6, 0.9], [0, 0, 0, 2])
    assert metric.class_performances == [pytest.approx(0.4), None, pytest.approx(0.9)]
    assert metric.get_results() == metric.class_performances
    assert metric.counts == [3, 0, 1]
    assert metric.performance == pytest.approx(0.65)


def test_nothing_aggregated_is_no_data() -> None:
    assert Faithfulness(2).class_performances == [None, None]
    assert Faithfulness(2).counts == [0, 0]
    assert Faithfulness(2).performance is None
    assert Faithfulness().class_performances == []
    assert Faithfulness().performance is None


def test_nan_is_no_data_and_zero_is_a_result() -> None:
    metric = Faithfulness(2)
    metric.aggregate([NAN, 0.0, NAN], [0, 1, 1])
    assert metric.class_performances == [None, 0.0]
    assert metric.counts == [0, 1]
    assert metric.performance == 0.0


@pytest.mark.parametrize(
    ("results", "labels"),
    [
        (torch.tensor([0.5, 0.25]), torch.tensor([1, 0])),
        (np.array([0.5, 0.25]), np.array([1, 0], dtype=np.uint8)),
        ([0.5, 0.25], [1, 0]),
        (torch.tensor([0.5, 0.25], requires_grad=True), [1, 0]),
        (torch.tensor([[0.5], [0.25]]), torch.tensor([[1], [0]])),
    ],
)
def test_every_form_of_results_and_labels(results: Any, labels: Any) -> None:
    metric = Faithfulness(2)
    metric.aggregate(results, labels)
    assert metric.class_performances == [0.25, 0.5]


def test_single_results_and_one_label_for_several() -> None:
    metric = Faithfulness(2)
    metric.aggregate(0.5, 1)
    metric.aggregate(torch.tensor(0.25), torch.tensor(1))
    metric.aggregate([0.1, 0.2, 0.3], 0)
    assert metric.counts == [3, 2]
    assert metric.class_performances == [pytest.approx(0.2), 0.375]


def test_without_a_number_of_labels_the_tally_grows() -> None:
    metric = Faithfulness()
    metric.aggregate(0.5, 3)
    assert metric.class_performances == [None, None, None, 0.5]
    metric.aggregate([NAN, 1.0], [5, 0])
    assert metric.counts == [1, 0, 0, 1, 0, 0]


def test_reset_forgets_everything() -> None:
    fixed, free = Faithfulness(2), Faithfulness()
    for metric in (fixed, free):
        metric.aggregate(0.5, 1)
        metric.reset()
    assert fixed.class_performances == [None, None]
    assert free.class_performances == []


def test_two_metrics_do_not_share_a_tally() -> None:
    one, two = Faithfulness(2), Faithfulness(2)
    one.aggregate(0.5, 1)
    assert two.counts == [0, 0]
    assert replace(one, steps=5).counts == [0, 0]
    assert one == two
    assert pickle.loads(pickle.dumps(one)).counts == [0, 1]


def test_judging_is_not_aggregating() -> None:
    metric = Faithfulness(2, None, "DeletionAUC")
    metric(case(mean_network, patch()))
    assert metric.counts == [0, 0]


def test_the_documented_use() -> None:
    network, x, labels = build(Pooled), pictures(3), torch.tensor([0, 4, 4])
    metric = Faithfulness(num_labels=5, metric="InsertionAUC", activation_fn=torch.nn.Softmax(-1), steps=10)
    found = metric.evaluate(Gradient(network), x, labels)
    metric.aggregate(found, labels)
    assert metric.class_performances[0] == pytest.approx(float(found[0]))
    assert metric.class_performances[4] == pytest.approx(float(found[1:].mean()))
    assert metric.counts == [1, 0, 0, 0, 2]
    assert metric.performance == pytest.approx((float(found[0]) + float(found[1:].mean())) / 2)


WRONG = [
    ([0.5], [2], InvalidTarget, "Label 2 is out of range: num_labels is 2."),
    ([0.5], [-1], InvalidTarget, "Label -1 is out of range: num_labels is 2."),
    ([0.5, 0.5], [0, 1, 1], InvalidInput, "aggregate takes one label for each result, got 2 and 3."),
    ([0.5], [0, 1], InvalidInput, "aggregate takes one label for each result, got 1 and 2."),
    ([0.5], [1.0], InvalidTarget, "targets must be integers, got float64."),
    ([0.5], [True], InvalidTarget, "targets must be integers, got bool."),
]


@pytest.mark.parametrize(("results", "labels", "error", "said"), WRONG)
def test_wrong_results_and_labels(results: Any, labels: Any, error: type[Exception], said: str) -> None:
    metric = Faithfulness(2)
    with pytest.raises(error, match="^" + re.escape(said) + "$"):
        metric.aggregate(results, labels)
    assert metric.counts == [0, 0]


@pytest.mark.parametrize("value", [0, -3, 2.0, True, "ten"])
def test_wrong_numbers_of_labels(value: Any) -> None:
    said = f"num_labels must be a positive integer or None, got {value!r}."
    with pytest.raises(InvalidInput, match="^" + re.escape(said) + "$"):
        Faithfulness(value)
