"""ROAD against scipy's sparse solver, closed forms and a slow twin."""

from __future__ import annotations

import itertools
import re
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
import torch
import torch.nn.functional as F
from torch import Tensor

from seewhy.errors import BadOutput, InvalidInput
from seewhy.metrics import ROAD
from seewhy.metrics.road import impute
from support.metric_cases import blind_network, case, patch, rough, slow_score
from support.networks import pictures

WEIGHTS = {
    (i, j): 1 / 6 if 0 in (i, j) else 1 / 12 for i, j in itertools.product((-1, 0, 1), repeat=2) if (i, j) != (0, 0)
}


def slow_impute(image: np.ndarray, removed: np.ndarray) -> np.ndarray:
    """The linear system of the paper, equation after equation, solved by scipy; (C, H, W) and (H, W)."""
    height, width = removed.shape
    unknown = {place: number for number, place in enumerate(zip(*np.nonzero(removed), strict=True))}
    matrix = scipy.sparse.lil_matrix((len(unknown), len(unknown)))
    right = np.zeros((len(unknown), len(image)))
    for (y, x), number in unknown.items():
        for (down, across), weight in WEIGHTS.items():
            beside = (y + down, x + across)
            if not (0 <= beside[0] < height and 0 <= beside[1] < width):
                continue
            matrix[number, number] += weight
            if beside in unknown:
                matrix[number, unknown[beside]] -= weight
            else:
                right[number] += weight * image[:, beside[0], beside[1]]
    found = image.astype(float).copy()
    found[:, removed] = scipy.sparse.linalg.spsolve(matrix.tocsc(), right).reshape(right.shape).T
    return found


def blob(height: int, width: int) -> Tensor:
    """(H, W) a smooth map, whose salient pixels hang together."""
    coarse = torch.rand((1, 1, 4, 4), generator=torch.Generator().manual_seed(3))
    return F.interpolate(coarse, (height, width), mode="bicubic")[0, 0]


@pytest.mark.parametrize(("height", "width", "channels"), [(24, 31, 3), (9, 7, 1), (1, 12, 2), (33, 2, 1), (40, 40, 1)])
@pytest.mark.parametrize("kind", ["scattered", "blob"])
def test_imputation_against_scipys_sparse_solver(height: int, width: int, channels: int, kind: str) -> None:
    """All amounts in one batch: from a single pixel to all but one."""
    saliency = blob(height, width) if kind == "blob" else torch.randn(height, width)
    place = saliency.flatten().argsort().argsort().view(height, width)
    amounts = [1, height * width // 2, height * width * 9 // 10, height * width - 1]
    removed = torch.stack([place < n for n in amounts]).unsqueeze(1)
    images = pictures(len(amounts), channels, height, width)
    found = impute(images, removed)
    for i in range(len(amounts)):
        want = torch.from_numpy(slow_impute(images[i].numpy(), removed[i, 0].numpy()))
        torch.testing.assert_close(found[i].double(), want, atol=5e-4, rtol=0)
    assert torch.equal(found.masked_fill(removed, 0), images.masked_fill(removed, 0))


def test_a_slope_is_filled_in_exactly_and_a_plain_picture_also_at_the_border() -> None:
    """Every pixel of a slope is the mean of its neighbours, as long as they are all there."""
    slope = (torch.arange(40.0).view(-1, 1) - 3 * torch.arange(56.0)).expand(1, 1, 40, 56) / 50
    hole = torch.zeros(1, 1, 40, 56, dtype=torch.bool)
    hole[..., 5:35, 8:50] = True
    torch.testing.assert_close(impute(slope, hole), slope, atol=5e-4, rtol=0)
    plain, nearly_all = torch.full((1, 2, 40, 56), 0.7), torch.ones(1, 1, 40, 56, dtype=torch.bool)
    nearly_all[..., 0, 0] = False
    torch.testing.assert_close(impute(plain, nearly_all), plain, atol=5e-4, rtol=0)


def test_each_image_is_solved_for_itself() -> None:
    images, removed = pictures(4, 3, 17, 29), torch.rand(4, 1, 17, 29) < 0.7
    together = impute(images, removed)
    for i in range(4):
        assert torch.equal(impute(images[i : i + 1], removed[i : i + 1]), together[i : i + 1])
    assert torch.equal(impute(images, removed & False), images)
    assert torch.equal(impute(images * 0, removed), images * 0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_imputation_keeps_the_type_and_is_made_in_full_precision(dtype: torch.dtype) -> None:
    images, removed = pictures(1, 3, 16, 24).to(dtype), torch.rand(1, 1, 16, 24) < 0.8
    with torch.autocast("cpu", torch.bfloat16):
        found = impute(images, removed)
    assert found.dtype == dtype
    assert torch.equal(found, torch.where(removed, impute(images.float(), removed).to(dtype), images))


def test_a_solution_that_is_not_reached_is_an_error() -> None:
    said = "ROAD: the removed pixels could not be solved for in 2 steps."
    with pytest.raises(BadOutput, match="^" + re.escape(said) + "$"):
        impute(pictures(1, 1), torch.rand(1, 1, 32, 32) < 0.8, most=2)


def slow_road(one: Any, percentiles: tuple[float, ...], least: bool) -> float:
    order = np.argsort(-one.saliency.numpy().ravel())
    order, found = order[::-1] if least else order, []
    for q in percentiles:
        removed = np.zeros(one.saliency.numel(), dtype=bool)
        removed[order[: round(len(order) * q / 100)]] = True
        found.append(slow_score(one, slow_impute(one.image.numpy(), removed.reshape(one.saliency.shape))))
    return float(np.mean(found))


@pytest.mark.parametrize(("height", "width", "channels"), [(12, 18, 3), (16, 9, 1)])
def test_the_score_against_a_slow_twin(height: int, width: int, channels: int) -> None:
    one, percentiles = rough(height, width, channels), (10, 35.5, 80)
    before = slow_score(one, one.image)
    most, least = (slow_road(one, percentiles, way) for way in (False, True))
    want = {"MoRF": before - most, "LeRF": least - before, "combined": (least - most) / 2}
    for order, value in want.items():
        assert ROAD(percentiles=percentiles, order=order, noise=0.0)(one) == pytest.approx(value, abs=2e-5)
    assert abs(most - least) > 0.003


def contrast_network(x: Tensor) -> Tensor:
    """How much the pixels of the patch differ from those around them."""
    rough_part = (x - F.avg_pool2d(x, 3, 1, 1)).abs() * patch()
    score = rough_part.sum((1, 2, 3)) / 10
    return torch.stack([score, 1 - score], 1)


def test_both_ends() -> None:
    """The patch is a chequerboard on grey; without its pixels nothing of it is left."""
    image = ((torch.arange(8).view(-1, 1) + torch.arange(10)) % 2 - 0.5).unsqueeze(0) * patch()
    for order in ("MoRF", "LeRF", "combined"):
        metric = ROAD(activation_fn=None, order=order, percentiles=(12.5, 30, 50), noise=0.0)
        best = metric(case(contrast_network, patch(), image))
        others = [metric(case(contrast_network, torch.rand(8, 10), image)) for _ in range(5)]
        worst = metric(case(contrast_network, -patch(), image))
        assert best > max(others)
        assert worst < min(others)
        if order == "combined":
            assert best == pytest.approx(-worst, abs=1e-4)
            assert best > 0.1
    assert ROAD()(case(blind_network, patch(), image)) == 0


def test_noise_falls_on_removed_pixels_only() -> None:
    seen: list[Tensor] = []

    def network(x: Tensor) -> Tensor:
        seen.append(x.clone())
        return x.mean((2, 3))

    saliency, image = torch.rand(40, 50), torch.full((3, 40, 50), 0.5)
    for seed in (0, 1):
        ROAD(activation_fn=None, percentiles=(20, 60), order="MoRF", noise=0.1, seed=seed)(
            case(network, saliency, image)
        )
    ROAD(activation_fn=None, percentiles=(20, 60), order="MoRF", noise=0.0)(case(network, saliency, image))
    noisy, other, clean = seen
    assert torch.equal(noisy[0], image)
    changed = (noisy[1:] != 0.5).float().mean((2, 3))
    torch.testing.assert_close(changed, torch.tensor([[0.2] * 3, [0.6] * 3]))
    noise = (noisy - clean)[2][noisy[2] != 0.5]
    assert float(noise.std()) == pytest.approx(0.1, rel=0.05)
    assert float(noise.mean()) == pytest.approx(0, abs=0.01)
    assert not torch.equal(noisy, other)


def test_at_least_one_pixel_is_left() -> None:
    """All others are given its value."""
    image = torch.arange(20.0).view(1, 4, 5)
    bright = case(lambda x: x.mean((2, 3)).repeat(1, 2), image[0], image)
    for order, value in (("MoRF", 9.5 - 0), ("LeRF", 19 - 9.5), ("combined", 9.5)):
        metric = ROAD(activation_fn=None, percentiles=(99.9,), order=order, noise=0.0)
        assert metric(bright) == pytest.approx(value, abs=1e-3)
        assert ROAD(percentiles=(0.001,), order=order)(bright) == 0


WRONG = [
    ({"percentiles": ()}, "percentiles must be numbers above 0 and below 100, got ()."),
    ({"percentiles": (0, 50)}, "percentiles must be numbers above 0 and below 100, got (0, 50)."),
    ({"percentiles": (50, 100)}, "percentiles must be numbers above 0 and below 100, got (50, 100)."),
    ({"percentiles": 50}, "percentiles must be numbers above 0 and below 100, got 50."),
    ({"order": "morf"}, "order must be 'MoRF', 'LeRF' or 'combined', got 'morf'."),
    ({"noise": -0.1}, "noise must be a number of at least 0, got -0.1."),
    ({"noise": float("nan")}, "noise must be a number of at least 0, got nan."),
    ({"noise": "low"}, "noise must be a number of at least 0, got 'low'."),
    ({"seed": 1.0}, "seed must be an integer, got 1.0."),
    ({"activation_fn": "relu"}, "activation_fn must be 'auto', 'softmax', 'sigmoid', None or a callable, got 'relu'."),
    ({"perturbation_per_eval": -1}, "perturbation_per_eval must be a positive integer or 'auto', got -1."),
]


@pytest.mark.parametrize(("parameters", "said"), WRONG, ids=[str(p) for p, _ in WRONG])
def test_wrong_parameters(parameters: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match="^" + re.escape(said) + "$"):
        ROAD(**parameters)


def test_percentiles_may_be_a_list() -> None:
    assert ROAD(percentiles=[10, 20]) == ROAD(percentiles=(10, 20))
    assert hash(ROAD(percentiles=[10, 20])) == hash(ROAD(percentiles=(10, 20)))
