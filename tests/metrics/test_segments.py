"""IDSDS against scipy and IROF against a slow twin, at both ends of the scale."""

from __future__ import annotations

import itertools
import math
import re
import sys
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

from seewhy.errors import InvalidInput, MissingDependency
from seewhy.metrics import IDSDS, IROF
from seewhy.metrics._curves import cells
from support.metric_cases import Rough, blind_network, case, mean_network, patch, rough, rough_weight, slow_score


@pytest.mark.parametrize(("height", "width", "grid"), [(32, 32, 4), (18, 30, (3, 5)), (12, 8, (2, 4))])
def test_idsds_against_scipy(height: int, width: int, grid: Any) -> None:
    """Sums of patches of the raw signed map and drops of the logit, as published."""
    one = rough(height, width)
    rows, columns = grid if isinstance(grid, tuple) else (grid, grid)
    h, w = height // rows, width // columns
    logit = lambda image: float(one.model(image[None]).classes[0, 2])  # noqa: E731
    sums, drops = [], []
    for i, j in itertools.product(range(rows), range(columns)):
        where = (slice(i * h, i * h + h), slice(j * w, j * w + w))
        now = one.image.clone()
        now[:, where[0], where[1]] = 0
        sums.append(float(one.saliency[where].sum()))
        drops.append(logit(one.image) - logit(now))
    want = scipy.stats.spearmanr(sums, drops).statistic
    assert IDSDS(grid=grid)(one) == pytest.approx(want, abs=1e-9)
    assert abs(want) < 0.95


def test_idsds_shares_ranks_among_equal_patches() -> None:
    saliency = torch.zeros(8, 8)
    saliency[:4, :4], saliency[4:, :] = 0.1, 0.3
    image = torch.ones(1, 8, 8)
    image[0, :4, :4] = 2
    one = case(lambda x: x.mean((2, 3)).repeat(1, 2), saliency, image)
    want = scipy.stats.spearmanr([0.1, 0, 0.3, 0.3], [2, 1, 1, 1]).statistic
    assert IDSDS(grid=2)(one) == pytest.approx(want)


def test_idsds_at_both_ends_also_where_patches_are_unequal() -> None:
    one = rough(17, 23, target=1)
    weight = rough_weight(3, 17, 23)[1]
    exact = (weight * one.image).sum(0)
    patch_of = cells(17, 23, 4, 4).flatten()
    share = patch_of.bincount(exact.flatten().double())[patch_of].view(17, 23).float()  # one value a patch
    assert IDSDS()(case(Rough(), share, one.image, 1)) == pytest.approx(1)
    assert IDSDS()(case(Rough(), -share, one.image, 1)) == pytest.approx(-1)


def test_idsds_of_constants_is_0() -> None:
    jitter = case(lambda x: blind_network(x) + 1e-7 * torch.rand(len(x), 2), patch())
    for one in (
        case(blind_network, patch()),
        jitter,
        *(case(mean_network, torch.full((8, 10), v)) for v in (0.0, 0.1)),
    ):
        assert IDSDS()(one) == 0


def test_idsds_refuses_more_patches_than_pixels() -> None:
    with pytest.raises(InvalidInput, match=re.escape("grid (4, 4) has more patches than the picture, (3, 9), pixels.")):
        IDSDS()(rough(3, 9))


@pytest.mark.parametrize(
    ("height", "width", "count", "shape"), [(12, 18, 6, (2, 3)), (9, 7, 5, (3, 2)), (4, 4, 99, (4, 4))]
)
def test_irof_against_a_slow_twin(height: int, width: int, count: int, shape: tuple[int, int]) -> None:
    one = rough(height, width)
    segment = cells(height, width, *shape).numpy()
    mean = one.image.mean((1, 2)).numpy()[:, None]
    numbers = range(1, segment.max() + 1)
    order = sorted(numbers, key=lambda k: -one.saliency.numpy()[segment == k].astype(float).mean())
    now, curve = one.image.numpy().copy(), [slow_score(one, one.image)]
    for k in order:
        now[:, segment == k] = mean
        curve.append(slow_score(one, now))
    want = 1 - np.trapezoid(np.array(curve) / curve[0], np.linspace(0, 1, len(curve)))
    metric = IROF(segments=count)
    assert metric(one) == pytest.approx(want, abs=1e-6)
    assert metric.cost(height, width).forward == len(curve)


def test_irof_at_both_ends() -> None:
    saliency = torch.zeros(8, 10)
    saliency[2:4, 4:6] = 1  # a cell of the grid of 20
    one = case(lambda x: x[:, :, 2:4, 4:6].mean((2, 3)).repeat(1, 2), saliency)
    metric = IROF(activation_fn=None, segments=20, baseline=0.0)
    assert metric(one) == pytest.approx(1 - 1 / 40)
    assert metric(case(one.model, -saliency)) == pytest.approx(1 / 40)


def test_irof_without_a_score_has_no_data_and_negative_scores_count_as_0() -> None:
    for value in (0.0, -2.0):
        nothing = case(lambda x, value=value: torch.full((len(x), 2), value), patch())
        assert math.isnan(IROF(activation_fn=None)(nothing))
    comes = case(lambda x: 1 - x.mean((2, 3)).repeat(1, 2), patch())  # 0 for the white image, more without its pixels
    assert math.isnan(IROF(activation_fn=None, baseline=0.0)(comes))
    saliency = torch.arange(80.0, 0, -1).view(8, 10)
    falls = case(lambda x: 20 * x.mean((2, 3)).repeat(1, 2) - 19, saliency)  # below 0 without the first cell
    assert IROF(activation_fn=None, segments=20, baseline=0.0)(falls) == pytest.approx(1 - 1 / 40)


@pytest.mark.parametrize("channels", [1, 3])
def test_irof_with_the_papers_superpixels(channels: int) -> None:
    """Two flat parts of unlike colour are two superpixels: a grid would be cut in the middle."""
    image = torch.full((channels, 16, 24), -1.0)
    image[0, :, :15] = 3
    left = torch.zeros(16, 24)
    left[:, :15] = 1

    def network(x: Tensor) -> Tensor:
        return (x[:, 0, :, :15].mean((1, 2)) / 3)[:, None].repeat(1, 2)

    metric = IROF(activation_fn=None, method="slic", segments=2, baseline=0.0)
    assert metric(case(network, left, image)) == pytest.approx(1 - 1 / 4)
    assert metric(case(network, 1 - left, image)) == pytest.approx(1 / 4)


def test_irof_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skimage.segmentation", None)
    said = "IROF(method='slic') needs scikit-image. Install it: pip install scikit-image. Or use method='grid'."
    with pytest.raises(MissingDependency, match="^" + re.escape(said) + "$"):
        IROF(method="slic")(rough(8, 8))
    assert IROF()(rough(8, 8)) <= 1
