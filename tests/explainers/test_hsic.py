"""HSIC against the matrices of the paper, closed forms and numpy."""

from __future__ import annotations

import itertools
import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

from seewhy import baseline as baselines
from seewhy.errors import InvalidInput
from seewhy.explainers import HSIC
from seewhy.explainers.hsic import _median_distances
from seewhy.targets import BoxTarget, ClassTarget
from support import networks
from support.networks import build, detector, pictures

close = torch.testing.assert_close


def sobol(count: int, cells: int, p: float, seed: int) -> np.ndarray:
    return (SobolEngine(cells, scramble=True, seed=seed).draw(count, dtype=torch.float32) < p).numpy()


def covered(picture: Tensor, cover: Tensor, mask: np.ndarray, grid: tuple[int, int]) -> Tensor:
    """Pixel by pixel: cell floor(i * d / H)."""
    out, (_, height, width) = picture.clone(), picture.shape
    for i, j in itertools.product(range(height), range(width)):
        if not mask[i * grid[0] // height * grid[1] + j * grid[1] // width]:
            out[:, i, j] = cover[:, i, j]
    return out


def slow(masks: np.ndarray, scores: np.ndarray, rbf: bool = False) -> np.ndarray:
    """trace(K H L H) / (n - 1)^2 for every cell, with all four matrices written out."""
    n, y = len(masks), scores.astype(np.float64)
    distances = [abs(a - b) for a, b in itertools.combinations(y, 2) if abs(a - b) > 1e-6 * abs(y).max()]
    sigma = sorted(distances)[(len(distances) - 1) // 2]
    gram = np.exp(-((y[:, None] - y[None]) ** 2) / (2 * sigma**2))
    centre = np.eye(n) - 1 / n
    found = []
    for cell in masks.T.astype(float):
        apart = (cell[:, None] - cell[None]) ** 2
        kernel = np.exp(-apart / (2 * 0.5**2)) if rbf else (apart == 0).astype(float)
        found.append(np.trace(kernel @ centre @ gram @ centre) / (n - 1) ** 2)
    return np.array(found)


@pytest.mark.parametrize(("grid", "p", "baseline"), [((3, 5), 0.5, 0.0), (4, 0.3, "mean"), ((1, 7), 0.7, "blur")])
def test_it_is_the_definition(grid: Any, p: float, baseline: Any) -> None:
    network, x = build(networks.Pooled), pictures(2, height=17, width=24)
    sides = grid if isinstance(grid, tuple) else (grid, grid)
    masks, cover = sobol(40, sides[0] * sides[1], p, 3), baselines.make(baseline, x)
    got = HSIC(network, num_masks=40, grid=grid, p=p, baseline=baseline, seed=3).attribute(x, 2, native=True)
    assert got.shape == (2, 1, *sides)
    for i in range(2):
        copies = torch.stack([covered(x[i], cover[i], mask, sides) for mask in masks])
        want = slow(masks, network(copies).softmax(1)[:, 2].detach().numpy())
        close(got[i].flatten(), torch.from_numpy(want).float(), atol=1e-6, rtol=1e-3)


def test_every_kernel_on_two_values_gives_the_same_map() -> None:
    masks = sobol(60, 9, 0.5, 0)
    scores = masks @ np.linspace(0, 1, 9) ** 2
    dirac, rbf = slow(masks, scores), slow(masks, scores, rbf=True)
    np.testing.assert_allclose(rbf, dirac * (1 - np.exp(-2)), rtol=1e-9)


def test_closed_form_of_a_score_that_is_one_cell() -> None:
    """The score is 1 where cell 4 is shown, else 0: sigma is 1, and L has two values."""

    def network(inputs: Tensor) -> Tensor:
        return inputs[:, :, 5, 5].repeat(1, 2)

    explainer = HSIC(network, activation_fn=None, num_masks=200, grid=3, p=0.4)
    got = explainer.attribute(torch.ones(1, 1, 12, 12), 0, native=True).flatten()
    ones = int(sobol(200, 9, 0.4, 0)[:, 4].sum())
    want = 4 * (ones * (200 - ones) / 200) ** 2 * (1 - np.exp(-0.5)) / 199**2
    close(float(got[4]), float(want), atol=0, rtol=1e-4)
    assert float(got[[0, 1, 2, 3, 5, 6, 7, 8]].max()) < 0.03 * float(want)


def test_shift_scale_and_sign_of_the_scores_do_not_matter() -> None:
    base, x = build(networks.Linear), pictures(1, height=8, width=12)
    maps = [
        HSIC(lambda inputs, a=a, b=b: a * base(inputs) + b, activation_fn=None, num_masks=64, grid=3).attribute(x, 1)
        for a, b in ((1.0, 0.0), (10.0, 3.0), (-1.0, 0.0))
    ]
    assert float(maps[0].min()) >= 0
    close(maps[1], maps[0], atol=1e-5, rtol=1e-3)
    close(maps[2], maps[0], atol=1e-6, rtol=1e-4)


def test_a_score_that_most_masks_leave_at_zero() -> None:
    """Most distances are 0; a median over all of them would be no bandwidth."""

    def network(inputs: Tensor) -> Tensor:
        both = inputs[:, 0, 2, 2] * inputs[:, 0, 2, 10]
        return torch.stack([both, -both], 1)

    got = HSIC(network, activation_fn=None, num_masks=256, grid=4).attribute(torch.ones(1, 1, 16, 16), 0, native=True)
    assert bool(torch.isfinite(got).all())
    best = got.flatten().topk(3)
    assert set(best.indices[:2].tolist()) == {0, 2}
    assert float(best.values[1]) > 10 * float(best.values[2])


def test_what_matters_is_found_where_it_is() -> None:
    def network(inputs: Tensor) -> Tensor:
        patch = inputs[:, :, 20:30, 5:20].mean((1, 2, 3))
        return torch.stack([patch, -patch], 1)

    inside = torch.zeros(35, 56, dtype=torch.bool)
    inside[20:30, 5:20] = True
    for raw in HSIC(network, num_masks=500).attribute(torch.ones(1, 3, 35, 56), "all")[0]:
        assert inside.flatten()[raw.argmax()]
        assert float(raw[inside].mean()) > 8 * float(raw[~inside].mean())


@pytest.mark.parametrize("p", [0.2, 0.5, 0.8])
def test_sobol_masks_are_spread_evenly(p: float) -> None:
    even, chance = (HSIC(None, num_masks=1500, p=p, sampler=s)._masks().float() for s in ("sobol", "random"))
    assert even.shape == chance.shape == (1500, 49)
    assert float((even.mean(0) - p).abs().max()) < 0.005
    assert float((chance.mean(0) - p).abs().max()) < 0.05
    assert float((chance.mean(0) - p).abs().max()) > 0.01


def test_sobol_masks_need_fewer_copies_than_random_ones() -> None:
    weights = torch.linspace(0, 1, 49, dtype=torch.float64) ** 4
    deviations = {}
    for sampler in ("sobol", "random"):
        maps = []
        for seed in range(6):
            masks = HSIC(None, num_masks=256, sampler=sampler, seed=seed)._masks().numpy()
            maps.append(slow(masks[:, ::16], masks @ weights.numpy()))
        deviations[sampler] = np.std(maps, axis=0).mean()
    assert deviations["sobol"] < 0.7 * deviations["random"]


def test_medians_are_numpys() -> None:
    generator = np.random.default_rng(0)
    rows = [generator.normal(size=50), generator.integers(0, 3, 50) / 2, np.full(50, 0.3), 5 + generator.random(50)]
    got = _median_distances(torch.tensor(np.array(rows)))
    for row, width in zip(rows, got, strict=True):
        apart = np.sort([abs(a - b) for a, b in itertools.combinations(row, 2) if abs(a - b) > 1e-6 * abs(row).max()])
        assert width == pytest.approx(apart[(len(apart) - 1) // 2] if len(apart) else 0.0, abs=1e-9)
    assert got[2] == 0


@pytest.mark.parametrize("sampler", ["sobol", "random"])
def test_seeds_and_torchs_defaults(sampler: Any) -> None:
    network, x = build(networks.Pooled), pictures()
    maps = [HSIC(network, num_masks=32, sampler=sampler, seed=s).attribute(x) for s in (0, 0, 1)]
    assert torch.equal(maps[0], maps[1])
    assert not torch.allclose(maps[0], maps[2])
    with networks.float64_by_default():
        assert torch.equal(HSIC(network, num_masks=32, sampler=sampler).attribute(x), maps[0])


def test_all_targets_come_from_the_same_passes() -> None:
    network, x = build(networks.Pooled), pictures()
    for targets in (1, "all", [[0, 1, 2]] * 2, [ClassTarget(label=0), ClassTarget(label=4)]):
        assert HSIC(network, num_masks=16).run(x, targets).passes.forward == 2 + 2 * 16


def test_scores_that_no_mask_changes() -> None:
    found = HSIC(build(networks.Constant), num_masks=16).run(torch.zeros(1, 3, 32, 32), 1)
    assert "Image 0, class 1: its score did not change under any mask." in found.warnings
    assert "Image 0, class 1: the map is constant, nothing stands out." in found.warnings
    assert float(found.raw.abs().max()) == 0


def test_boxes_of_a_detector() -> None:
    x = torch.zeros(1, 3, 32, 48)
    x[:, 0, :16, :24] = 1.0
    x[:, 1, 16:, 24:] = 1.0
    red, green = BoxTarget(box=(0, 0, 24, 16), label=0), BoxTarget(box=(24, 16, 48, 32), label=1)
    maps = HSIC(detector, num_masks=400, grid=(4, 6)).attribute(x, [red, green], native=True)[0]
    assert float(maps[0, :2, :3].min()) > 3 * float(maps[0, 2:].max())
    assert float(maps[1, 2:, 3:].min()) > 3 * float(maps[1, :2].max())


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"num_masks": 1}, "num_masks must be an integer of at least 2, got 1."),
    ({"num_masks": 8.0}, "num_masks must be an integer of at least 2, got 8.0."),
    ({"grid": 0}, "grid must be a positive integer or a pair (down, across) of them, got 0."),
    ({"grid": (3, True)}, "grid must be a positive integer or a pair (down, across) of them, got (3, True)."),
    ({"grid": (33, 2)}, "grid (33, 2) is finer than the picture, (32, 40)."),
    ({"grid": 146}, "grid 146 has more cells than a Sobol sequence has dimensions, 21201. Use sampler='random'."),
    ({"p": 1}, "p must lie between 0 and 1, both excluded, got 1."),
    ({"p": "half"}, "p must lie between 0 and 1, both excluded, got 'half'."),
    ({"sampler": "halton"}, "sampler must be 'sobol' or 'random', got 'halton'."),
    ({"baseline": "grey"}, "baseline must be a number, 'mean', 'blur' or a tensor, got 'grey'."),
    ({"seed": True}, "seed must be an integer, got True."),
    ({"activation_fn": "relu"}, "activation_fn must be 'auto', 'softmax', 'sigmoid', None or a callable, got 'relu'."),
    ({"perturbation_per_eval": 0}, "perturbation_per_eval must be a positive integer or 'auto', got 0."),
]


@pytest.mark.parametrize(("parameters", "said"), WRONG, ids=[str(next(iter(p.items()))) for p, _ in WRONG])
def test_wrong_parameters(parameters: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match="^" + re.escape(said) + "$"):
        HSIC(build(networks.Pooled), **parameters)(pictures(height=32, width=40))
