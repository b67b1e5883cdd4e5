"""Pointing game, salient region, energy and rank against slow twins, closed forms and both ends of the scale."""

from __future__ import annotations

import itertools
import math
import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from seewhy.errors import InvalidInput
from seewhy.explainers.gradient import Gradient
from seewhy.metrics import Case, Metric
from seewhy.metrics.energy_pointing_game import EnergyPointingGame
from seewhy.metrics.iosr import IoSR
from seewhy.metrics.localization import Localization
from seewhy.metrics.pointing_game import PointingGame
from seewhy.metrics.relevance_mass import RelevanceMass
from seewhy.metrics.relevance_rank import RelevanceRank
from seewhy.models.adapters import as_model
from support import networks
from support.networks import build, pictures

ALL = [PointingGame(tolerance=0), IoSR(), EnergyPointingGame(), RelevanceRank(),
       Localization(tolerance=0), Localization(metric="IoSR")]  # fmt: skip


def judge(metric: Metric, saliency: Tensor, truth: Tensor) -> float:
    model = as_model(lambda x: x.mean((2, 3)))
    image = torch.zeros(1, *saliency.shape)
    return metric(Case(model=model, image=image, target=0, saliency=saliency, truth=truth))


def box(height: int, width: int, rows: tuple[int, int], columns: tuple[int, int]) -> Tensor:
    mask = torch.zeros(height, width, dtype=torch.bool)
    mask[slice(*rows), slice(*columns)] = True
    return mask


def peak(height: int, width: int, *points: tuple[int, int]) -> Tensor:
    found = torch.rand(height, width, generator=torch.Generator().manual_seed(3)) - 0.5
    for row, column in points:
        found[row, column] = 2.0
    return found


@pytest.mark.parametrize("metric", ALL, ids=repr)
def test_the_perfect_map_scores_best_and_the_inverted_one_worst(metric: Metric) -> None:
    truth = box(64, 96, (5, 20), (70, 90))
    assert judge(metric, truth.float(), truth) == 1.0
    assert judge(metric, 1 - truth.float(), truth) == 0.0
    assert judge(metric, -truth.float(), truth) == 0.0


def test_rows_and_columns_are_not_swapped() -> None:
    wide, tall = peak(64, 96, (10, 80)), peak(96, 64, (80, 10))
    for tolerance in (0, 3):
        metric = PointingGame(tolerance=tolerance)
        assert judge(metric, wide, box(64, 96, (8, 13), (78, 83))) == 1.0
        assert judge(metric, wide, box(64, 96, (56, 64), (5, 15))) == 0.0
        assert judge(metric, tall, box(96, 64, (78, 83), (8, 13))) == 1.0
        assert judge(metric, tall, box(96, 64, (5, 15), (56, 64))) == 0.0
    square, there = peak(96, 96, (10, 80)), box(96, 96, (8, 13), (78, 83))
    assert judge(PointingGame(), square, there) == 1.0
    assert judge(PointingGame(tolerance=0), square, there.T) == 0.0


@pytest.mark.parametrize(
    ("point", "hit"), [((29, 32), 1.0), ((20, 35), 1.0), ((21, 35), 0.0), ((33, 28), 0.0), ((20, 36), 0.0)]
)
def test_the_tolerance_is_fifteen_pixels_in_a_straight_line(point: tuple[int, int], hit: float) -> None:
    truth = box(64, 96, (20, 21), (20, 21))
    assert (math.dist(point, (20, 20)) <= 15) == bool(hit)
    assert judge(PointingGame(), peak(64, 96, point), truth) == hit
    assert judge(Localization(), peak(64, 96, point), truth) == hit


def slow_pointing(saliency: Tensor, truth: Tensor, tolerance: float) -> float:
    peaks = (saliency == saliency.max()).nonzero().tolist()
    inside = truth.nonzero().tolist()
    return float(np.mean([min(math.dist(p, q) for q in inside) <= tolerance for p in peaks]))


@pytest.mark.parametrize("tolerance", [0, 0.5, 1, math.sqrt(2), 2, math.sqrt(13), 5, 6.4, 100])
def test_the_pointing_game_is_its_definition(tolerance: float) -> None:
    chance = torch.Generator().manual_seed(0)
    scores = []
    for _ in range(12):
        saliency = torch.randint(0, 6, (9, 14), generator=chance).float() - 2
        truth = torch.rand((9, 14), generator=chance) < 0.05
        truth[4, 7] = True
        scores.append(judge(PointingGame(tolerance=tolerance), saliency, truth))
        assert scores[-1] == pytest.approx(slow_pointing(saliency, truth, tolerance))
    assert tolerance == 100 or len(set(scores)) > 3


def test_equal_maxima_and_flat_maps_give_the_average() -> None:
    truth = box(64, 96, (0, 32), (0, 48))
    metric = PointingGame(tolerance=0)
    assert judge(metric, peak(64, 96, (1, 1), (60, 90)), truth) == 0.5
    assert judge(metric, peak(64, 96, (1, 1), (60, 90), (60, 91), (63, 95)), truth) == 0.25
    flat = torch.full((64, 96), 0.3)
    assert judge(metric, flat, truth) == 0.25
    flat[60, 90] = 0.3 + 5e-8  # rounding
    assert judge(metric, flat, truth) == 0.25


def test_an_empty_truth_is_no_hit_but_an_error() -> None:
    for metric in ALL:
        said = f"The ground truth is empty: {type(metric).__name__} needs at least one pixel of the object."
        with pytest.raises(InvalidInput, match="^" + re.escape(said) + "$"):
            judge(metric, peak(8, 8, (1, 1)), torch.zeros(8, 8, dtype=torch.bool))


def test_the_accuracy_is_the_mean_over_classes() -> None:
    network, x = build(networks.Pooled), torch.zeros(5, 3, 32, 32)
    maps = torch.stack([peak(32, 32, p) for p in [(5, 5), (5, 5), (5, 5), (30, 30), (30, 30)]])
    truth = box(32, 32, (2, 8), (2, 8)).expand(5, -1, -1)
    labels = torch.tensor([0, 0, 0, 0, 2])
    metric = Localization(3, tolerance=2)
    found = metric.evaluate(Gradient(network), x, labels, mask=truth, saliency=maps)
    assert found.tolist() == [1, 1, 1, 0, 0]
    metric.aggregate(found, labels)
    assert metric.get_results() == [0.75, None, 0.0]
    assert metric.performance == 0.375
    assert found.tolist() == PointingGame(tolerance=2).evaluate(
        Gradient(network), x, labels, mask=truth, saliency=maps
    ).tolist()  # fmt: skip


def test_no_salient_pixel_is_no_data_in_the_averages() -> None:
    metric = Localization(metric="IoSR")
    metric.aggregate([0.5, float("nan")], [1, 1])
    metric.aggregate(float("nan"), 2)
    assert metric.get_results() == [None, 0.5, None]
    assert metric.counts == [0, 1, 0]


def test_the_salient_region() -> None:
    saliency = torch.tensor([[4.0, 3.0, 2.0], [1.0, 2.5, 0.0]])
    truth = torch.tensor([[True, False, False], [True, True, False]])
    assert judge(IoSR(), saliency, truth) == pytest.approx(2 / 3)  # 4, 3, 2.5 are above half of 4; 2 is not
    assert judge(IoSR(threshold=0.2), saliency, truth) == pytest.approx(3 / 5)
    assert judge(IoSR(threshold=0), saliency, truth) == pytest.approx(3 / 5)
    assert judge(IoSR(threshold=0.99), saliency, truth) == 1.0
    assert judge(Localization(metric="IoSR", threshold=0.2), saliency, truth) == pytest.approx(3 / 5)


def test_negative_maps_are_moved_up_and_positive_ones_are_not() -> None:
    truth = torch.tensor([[True, False, False, False]])
    assert judge(IoSR(), torch.tensor([[-1.0, -2.0, -4.0, -5.0]]), truth) == 0.5  # 4, 3, 1, 0
    assert judge(IoSR(), torch.tensor([[2.0, 1.0, -4.0, -4.0]]), truth) == 0.5  # 6, 5, 0, 0
    assert judge(IoSR(), torch.tensor([[8.0, 7.0, 5.0, 4.0]]), truth) == pytest.approx(1 / 3)


def test_flat_maps_have_no_salient_region_unless_they_are_positive() -> None:
    truth = box(8, 8, (0, 4), (0, 4))
    for value in (0.0, -3.0):
        assert math.isnan(judge(IoSR(), torch.full((8, 8), value), truth))
    rounding = torch.full((8, 8), -3.0)
    rounding[0, 0] += 3e-7
    assert math.isnan(judge(IoSR(), rounding, truth))
    assert judge(IoSR(), torch.ones(8, 8), truth) == 0.25


def test_energy_is_relevance_mass_where_the_minimum_is_zero() -> None:
    truth = box(8, 12, (0, 4), (3, 9))
    saliency = torch.rand(8, 12, generator=torch.Generator().manual_seed(0))
    saliency[7, 0] = 0
    want = float(saliency[truth].sum() / saliency.sum())
    assert judge(EnergyPointingGame(), saliency, truth) == pytest.approx(want)
    assert judge(EnergyPointingGame(), 5 * saliency, truth) == pytest.approx(want)
    assert judge(RelevanceMass(), saliency, truth) == pytest.approx(want)


def test_energy_moves_negative_maps_where_relevance_mass_cuts_them_off() -> None:
    saliency, truth = torch.tensor([[3.0, 1.0, -1.0]]), torch.tensor([[True, False, False]])
    assert judge(EnergyPointingGame(), saliency, truth) == pytest.approx(4 / 6)
    assert judge(RelevanceMass(), saliency, truth) == pytest.approx(3 / 4)
    assert math.isnan(judge(EnergyPointingGame(), torch.full((1, 3), 2.0), truth))


def orders(saliency: list[float], truth: list[bool]) -> float:
    """Mean over every order of the pixels that is sorted by falling saliency."""
    size, every = sum(truth), itertools.permutations(range(len(saliency)))
    falling = [o for o in every if all(saliency[a] >= saliency[b] for a, b in itertools.pairwise(o))]
    return float(np.mean([sum(truth[i] for i in order[:size]) / size for order in falling]))


@pytest.mark.parametrize("values", [
    [3, 3, 1, 1, 0, 2, 2], [1, 1, 1, 1, 1, 1, 1], [7, 6, 5, 4, 3, 2, 1], [-1, -1, -5, -1, -1, -1, -2],
    [0, 0, 0, 0, 0, 0, 9],
])  # fmt: skip
@pytest.mark.parametrize("size", [1, 3, 4, 7])
def test_rank_is_the_average_over_all_orders_of_equal_pixels(values: list[float], size: int) -> None:
    truth = [i % 2 == 0 if size == 4 else i >= 7 - size for i in range(7)]
    got = judge(RelevanceRank(), torch.tensor([values], dtype=torch.float32), torch.tensor([truth]))
    assert got == pytest.approx(orders(values, truth))


def test_the_rank_of_a_flat_map_is_the_share_of_the_object() -> None:
    assert judge(RelevanceRank(), torch.full((64, 96), -2.0), box(64, 96, (0, 16), (0, 96))) == pytest.approx(0.25)


WRONG: list[tuple[Any, dict[str, Any], str]] = [
    (PointingGame, {"tolerance": -1}, "tolerance must be a number of pixels, at least 0, got -1."),
    (PointingGame, {"tolerance": float("nan")}, "tolerance must be a number of pixels, at least 0, got nan."),
    (Localization, {"tolerance": True}, "tolerance must be a number of pixels, at least 0, got True."),
    (Localization, {"threshold": "0.5"}, "threshold must be at least 0 and below 1, got '0.5'."),
    (IoSR, {"threshold": 1}, "threshold must be at least 0 and below 1, got 1."),
    (IoSR, {"threshold": -0.1}, "threshold must be at least 0 and below 1, got -0.1."),
    (Localization, {"metric": "IoU"}, "metric must be 'PointingGame' or 'IoSR', got 'IoU'."),
    (Localization, {"num_labels": 0}, "num_labels must be a positive integer or None, got 0."),
]


@pytest.mark.parametrize(("kind", "parameters", "said"), WRONG, ids=[f"{k.__name__}-{p}" for k, p, _ in WRONG])
def test_wrong_parameters(kind: Any, parameters: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match="^" + re.escape(said) + "$"):
        kind(**parameters)


def test_half_precision_maps() -> None:
    saliency, truth = pictures(1, 1, 16, 24)[0, 0], box(16, 24, (2, 9), (3, 15))
    for metric in ALL:
        assert judge(metric, saliency.half(), truth) == pytest.approx(judge(metric, saliency.half().float(), truth))
