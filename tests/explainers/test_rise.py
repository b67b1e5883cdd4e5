"""RISE against the paper written out slowly, numpy's covariance, and a detector."""

from __future__ import annotations

import itertools
import math
import re
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from seewhy.errors import InvalidInput
from seewhy.explainers import RISE
from seewhy.explainers._masks import Masks
from seewhy.explainers._regression import STRENGTHS, regress
from seewhy.explainers.rise import ROUND
from seewhy.progress import listening
from seewhy.targets import BoxTarget, ClassTarget
from support import networks
from support.networks import CLASSES, build, detector, pictures

close = torch.testing.assert_close


def slow_masks(count: int, grid: tuple[int, int], p: float, seed: int, size: tuple[int, int]) -> Tensor:
    """Every mask at the picture's size, enlarged and cut out one by one, as in the paper."""
    generator = torch.Generator().manual_seed(seed)
    cells = [-(-length // side) for side, length in zip(grid, size, strict=True)]
    grids = (torch.rand((count, *grid), generator=generator) < p).float()
    offsets = [torch.randint(cell, (count,), generator=generator) for cell in cells]
    masks = []
    for m in range(count):
        large = [(side + 1) * cell for side, cell in zip(grid, cells, strict=True)]
        whole = F.interpolate(grids[m][None, None], size=large, mode="bilinear", align_corners=False)[0, 0]
        top, left = offsets[0][m], offsets[1][m]
        masks.append(whole[top : top + size[0], left : left + size[1]])
    return torch.stack(masks)


def slow_scores(network: Any, x: Tensor, masks: Tensor, target: int) -> Tensor:
    return torch.stack(
        [torch.stack([network(x[i : i + 1] * m)[0].softmax(0)[target] for m in masks]) for i in range(len(x))]
    ).detach()


SHAPES = [((32, 32), 7, 0.5), ((24, 40), (3, 5), 0.3), ((17, 16), 4, 0.7)]


@pytest.mark.parametrize(("size", "grid", "p"), SHAPES)
def test_masks_are_those_of_the_paper(size: tuple[int, int], grid: Any, p: float) -> None:
    sides = grid if isinstance(grid, tuple) else (grid, grid)
    masks, want = Masks.draw(50, sides, p, 3, size), slow_masks(50, sides, p, 3, size)
    close(masks.at(torch.arange(50)), want, atol=1e-6, rtol=0)
    weights = torch.randn(70, 50)
    close(masks.weighted_sum(weights), torch.einsum("rm,mhw->rhw", weights, want), atol=1e-4, rtol=0)


@pytest.mark.parametrize(("size", "grid", "p"), [((6, 4), (2, 2), 0.3), ((4, 6), (1, 3), 0.5)])
def test_the_variance_is_that_of_all_masks_that_can_be_drawn(
    size: tuple[int, int], grid: tuple[int, int], p: float
) -> None:
    masks = Masks.draw(1, grid, p, 0, size)
    first, second = torch.zeros(size), torch.zeros(size)
    for bits in itertools.product((0.0, 1.0), repeat=grid[0] * grid[1]):
        chance = p ** sum(bits) * (1 - p) ** (len(bits) - sum(bits)) / math.prod(map(len, masks.axes))
        for rows, columns in itertools.product(*masks.axes):
            mask = rows.T @ torch.tensor(bits).view(grid) @ columns
            first, second = first + chance * mask, second + chance * mask**2
    close(first, torch.full(size, p))
    close(masks.variance(), second - first**2)


def test_masks_lie_between_0_and_1_with_mean_p() -> None:
    for p in (0.2, 0.5, 0.8):
        masks = Masks.draw(2000, (7, 7), p, 0, (28, 42)).at(torch.arange(2000))
        assert float(masks.min()) >= 0
        assert float(masks.max()) <= 1 + 1e-6
        assert abs(float(masks.mean()) - p) < 0.01
        assert float((masks.mean(0) - p).abs().max()) < 0.06


def test_the_offsets_are_less_than_a_cell() -> None:
    masks = Masks.draw(500, (7, 5), 0.5, 0, (30, 42))
    assert masks.offsets.amin(0).tolist() == [0, 0]
    assert masks.offsets.amax(0).tolist() == [4, 8]  # cells of 5 x 9 pixels


@pytest.mark.parametrize(("size", "grid", "p"), SHAPES)
def test_plain_is_the_paper(size: tuple[int, int], grid: Any, p: float) -> None:
    network, x = build(networks.Pooled), pictures(2, height=size[0], width=size[1])
    masks = slow_masks(40, grid if isinstance(grid, tuple) else (grid, grid), p, 3, size)
    scores = slow_scores(network, x, masks, 1)
    want = torch.zeros(2, 1, *size)
    for i in range(2):
        for m in range(40):
            want[i, 0] += scores[i, m] * masks[m] / (40 * p)
    got = RISE(network, num_masks=40, grid=grid, p=p, seed=3, estimator="plain").attribute(x, 1)
    close(got, want, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("size", "grid", "p"), SHAPES)
def test_centred_is_the_covariance_over_the_variance(size: tuple[int, int], grid: Any, p: float) -> None:
    network, x = build(networks.Pooled), pictures(2, height=size[0], width=size[1])
    masks = slow_masks(40, grid if isinstance(grid, tuple) else (grid, grid), p, 3, size)
    scores = slow_scores(network, x, masks, 1).numpy()
    variance = Masks.draw(1, grid if isinstance(grid, tuple) else (grid, grid), p, 0, size).variance()
    got = RISE(network, num_masks=40, grid=grid, p=p, seed=3, estimator="centred", paired=False).attribute(x, 1)
    for image, i, j in [(0, 0, 0), (1, 5, 7), (0, size[0] - 1, size[1] - 1), (1, 9, 2)]:
        both = np.cov(scores[image].astype(float), masks[:, i, j].double().numpy(), bias=True)
        close(float(got[image, 0, i, j]), both[0, 1] / float(variance[i, j]), atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize(("size", "grid", "p"), SHAPES)
def test_paired_masks_show_what_the_other_hides(size: tuple[int, int], grid: Any, p: float) -> None:
    sides = grid if isinstance(grid, tuple) else (grid, grid)
    masks = Masks.draw(2001, sides, p, 3, size, paired=True)
    first, second = masks.grids[0:2000:2], masks.grids[1:2000:2]
    assert torch.equal(masks.offsets[0:2000:2], masks.offsets[1:2000:2])
    assert abs(float(first.mean()) - p) < 0.02
    assert abs(float(second.mean()) - p) < 0.02
    shown_by_both = float((first * second).mean())
    assert shown_by_both == pytest.approx(max(0, 2 * p - 1), abs=0.02)
    assert len(masks.grids) == 2001


@pytest.mark.parametrize(("size", "grid", "p"), SHAPES)
def test_slopes_are_the_covariance_over_the_variance_of_endless_masks(
    size: tuple[int, int], grid: Any, p: float
) -> None:
    masks = Masks.draw(60_000, grid if isinstance(grid, tuple) else (grid, grid), p, 0, size)
    nodes = masks.nodes()
    weights = torch.randn(nodes.shape[1], generator=torch.Generator().manual_seed(0)) / nodes.shape[1] ** 0.5
    scores = nodes @ weights
    want = masks.weighted_sum((scores - scores.mean())[None])[0] / len(scores) / masks.variance()
    close(masks.slopes(weights[None])[0], want, atol=0.05 * float(want.abs().max()), rtol=0)


def test_regression_is_a_ridge_regression_of_the_strength_with_the_least_cross_validation_error() -> None:
    from sklearn.linear_model import Ridge

    generator = torch.Generator().manual_seed(0)
    masks, truth = torch.rand((80, 12), generator=generator), torch.randn(12, generator=generator)
    scores = torch.stack([masks @ truth + 0.3 * torch.randn(80, generator=generator) + 5, torch.ones(80)])
    fit = regress(masks, scores)
    a = (masks - masks.mean(0)).double().numpy()
    y = (scores[0] - scores[0].mean()).double().numpy()
    unit, errors = (np.linalg.svd(a, compute_uv=False) ** 2).mean(), {}
    for strength in STRENGTHS.tolist():
        hat = a @ np.linalg.solve(a.T @ a + strength * unit * np.eye(12), a.T)
        left = y - hat @ y
        errors[strength] = left @ left / 80 / ((79 - np.trace(hat)) / 80) ** 2
    best = min(errors, key=errors.__getitem__)
    assert min(errors) < best < max(errors)
    want = Ridge(alpha=best * unit).fit(masks.double().numpy(), scores[0].double().numpy()).coef_
    close(fit.weights[0], torch.tensor(want).float(), atol=1e-5, rtol=0)
    assert float(fit.explained[0]) == pytest.approx(1 - errors[best] / (y @ y / 80 / (79 / 80) ** 2), abs=1e-5)
    assert float(fit.weights[1].abs().max()) == 0
    assert float(fit.explained[1]) == 0


def test_few_masks_are_enough_for_a_score_that_is_linear_in_what_is_shown() -> None:
    """The map of 200 masks is then all but that of endless masks, which "centred" is still far from."""
    x = torch.ones(1, 1, 28, 28)

    def network(inputs: Tensor) -> Tensor:
        return inputs[:, :, 8:16, 4:12].mean((2, 3)).repeat(1, 2)

    few = {"activation_fn": None, "num_masks": 200}
    many = RISE(network, activation_fn=None, num_masks=50_000, estimator="centred").attribute(x, 0)
    regression, centred = (RISE(network, estimator=e, **few).attribute(x, 0) for e in ("regression", "centred"))
    assert float((regression - many).std() / many.std()) < 0.1
    assert float((centred - many).std() / many.std()) > 0.25


def _patches(inputs: Tensor) -> Tensor:
    """Easy (the score is what is shown of one patch), and noise that no map can explain."""
    easy = inputs[:, :, 8:16, 4:12].mean((1, 2, 3))
    noise = torch.sin(inputs.flatten(1).sum(1) * 1e4)
    return torch.stack([easy, noise, torch.zeros_like(easy)], 1)


def test_it_stops_when_the_map_has_converged() -> None:
    x = torch.ones(2, 1, 28, 28)
    rise = RISE(_patches, activation_fn=None, num_masks=640, tolerance=0.05)
    easy = rise.run(x, 0)
    each = (easy.passes.forward - 2) / 2  # but for the images themselves
    assert each in range(2 * ROUND, 320, ROUND)
    assert easy.warnings == ()
    first = RISE(_patches, activation_fn=None, num_masks=640, tolerance=0.05).run(x[:1], 0)
    close(first.raw, easy.raw[:1])
    hard = rise.run(x[:1], 1)
    assert hard.passes.forward == 641
    assert "Image 0, class 1: its map may not have converged after 640 masks. Raise num_masks." in hard.warnings


def test_a_map_does_not_depend_on_what_else_is_explained() -> None:
    """The noise takes all masks; the patch's map is made of those that it needs alone."""
    x = torch.ones(1, 1, 28, 28)
    rise = RISE(_patches, activation_fn=None, num_masks=320, tolerance=0.05, error=True)
    both = rise.run(x, [[1, 0]])
    assert both.passes.forward == 321
    for t, label in enumerate((1, 0)):
        alone = rise.run(x, label)
        close(both.raw[:, t], alone.raw[:, 0])
        assert both.error is not None
        assert alone.error is not None
        close(both.error[:, t], alone.error[:, 0])
    assert [w for w in both.warnings if "may not have converged" in w] == [
        "Image 0, class 1: its map may not have converged after 320 masks. Raise num_masks."
    ]


def test_by_default_it_takes_as_many_masks_as_it_needs() -> None:
    x = torch.ones(1, 1, 28, 28)
    assert RISE(_patches, activation_fn=None).run(x, 0).passes.forward < 200
    assert RISE(_patches, activation_fn=None).run(x, 1).passes.forward == 501
    assert RISE(_patches, activation_fn=None, num_masks=300).run(x, 0).passes.forward == 301
    assert RISE(_patches, activation_fn=None, estimator="plain").run(x, 0).passes.forward == 501
    nothing = RISE(_patches, activation_fn=None).run(x, 2)
    assert not any("converged" in w for w in nothing.warnings)  # no mask changes it, which is said


@pytest.mark.parametrize("estimator", ["regression", "centred", "plain"])
def test_the_standard_error_is_the_spread_over_seeds(estimator: Any) -> None:
    """Twenty seeds; the score is a patch's brightness and, in part, what no map can explain."""

    def network(inputs: Tensor) -> Tensor:
        return _patches(inputs)[:, :1] + 0.2 * _patches(inputs)[:, 1:2]

    x = torch.ones(1, 1, 28, 28)
    found = [
        RISE(network, activation_fn=None, num_masks=400, estimator=estimator, seed=s, error=True).run(x, 0)
        for s in range(20)
    ]
    true = torch.stack([one.raw[0, 0] for one in found]).std(0)
    said = torch.stack([one.error[0, 0] for one in found if one.error is not None]).square().mean(0).sqrt()
    assert len(found) == 20
    assert 0.75 < float(said.mean() / true.mean()) < 1.35
    assert float(((said / true).log().abs() < 0.7).float().mean()) > 0.9  # pixel by pixel; 20 draws are few


def test_progress_is_counted_over_all_images_and_ends_at_the_total_when_it_stops_early() -> None:
    told: list[tuple[int, int]] = []
    with listening(lambda done, total: told.append((done, total))):
        RISE(_patches, activation_fn=None, num_masks=640, tolerance=0.05).run(torch.ones(2, 1, 28, 28), 0)
    assert {total for _, total in told} == {1280}
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[-1] == (1280, 1280)


def test_a_map_that_is_noise_says_so() -> None:
    found = RISE(_patches, activation_fn=None, num_masks=300).run(torch.ones(1, 1, 28, 28), [[0, 1]])
    said = [w for w in found.warnings if "hardly more than noise" in w]
    assert len(said) == 1
    assert re.match(r"Image 0, class 1: the masks explain \d% of how its score changes, so the map is ", said[0])


def test_seeds() -> None:
    network, x = build(networks.Pooled), pictures()
    maps = [RISE(network, num_masks=16, seed=s).attribute(x) for s in (0, 0, 1)]
    assert torch.equal(maps[0], maps[1])
    assert not torch.allclose(maps[0], maps[2])


def test_it_does_not_depend_on_torchs_defaults() -> None:
    network, x = build(networks.Pooled), pictures()
    want = RISE(network, num_masks=16).attribute(x)
    with networks.float64_by_default():
        assert torch.equal(RISE(network, num_masks=16).attribute(x), want)


def test_what_matters_is_found() -> None:
    """The score is the brightness of one patch: the map's mass must lie there, and nowhere with the sign turned."""
    x = torch.ones(1, 3, 35, 56)

    def network(inputs: Tensor) -> Tensor:
        patch = inputs[:, :, 20:30, 5:20].mean((1, 2, 3))
        return torch.stack([patch, -patch], 1)

    for estimator in ("plain", "centred", "regression"):
        up, down = RISE(network, activation_fn=None, num_masks=2000, estimator=estimator).attribute(x, "all")[0]
        inside = torch.zeros(35, 56, dtype=torch.bool)
        inside[20:30, 5:20] = True
        assert inside.flatten()[up.argmax()]
        assert inside.flatten()[down.argmin()]
    assert float(up[inside].mean()) > 4 * float(up[~inside].abs().mean())


def test_the_centred_estimate_is_less_noisy_than_the_plain_one() -> None:
    x = torch.ones(1, 1, 28, 28)

    def network(inputs: Tensor) -> Tensor:
        return (5 + inputs[:, :, 8:16, 8:16].mean((2, 3))).repeat(1, 2)

    def noise(estimator: Any) -> float:
        maps = torch.cat(
            [
                RISE(network, activation_fn=None, num_masks=200, seed=s, estimator=estimator).attribute(x, 0)
                for s in range(6)
            ]
        )
        return float(maps.std(0).mean() / maps.mean(0).std())

    assert noise("centred") < 0.7 * noise("plain")


def test_all_targets_come_from_the_same_passes() -> None:
    network, x = build(networks.Pooled), pictures()
    for targets in (1, "all", [[0, 1, 2]] * 2, [ClassTarget(label=0), ClassTarget(label=4)]):
        assert RISE(network, num_masks=16).run(x, targets).passes.forward == 2 + 2 * 16


def test_scores_that_no_mask_changes() -> None:
    found = RISE(build(networks.Constant), num_masks=16).run(torch.zeros(1, 3, 32, 32), 1)
    assert "Image 0, class 1: its score did not change under any mask." in found.warnings
    assert float(found.raw.abs().max()) == 0


def _scene() -> Tensor:
    """A red object at the top left, a green one at the bottom right."""
    x = torch.zeros(1, 3, 32, 48)
    x[:, 0, :16, :24] = 1.0
    x[:, 1, 16:, 24:] = 1.0
    return x


def test_boxes_of_a_detector() -> None:
    red, green = BoxTarget(box=(0, 0, 24, 16), label=0), BoxTarget(box=(24, 16, 48, 32), label=1)
    found = RISE(detector, num_masks=500).run(_scene(), [red, green])
    assert found.passes.forward == 501
    assert found.targets.classes is None
    maps = found.raw[0]
    corners = {"red": maps[0, :16, :24], "green": maps[1, 16:, 24:]}
    assert float(corners["red"].mean()) > 5 * float(maps[0, 20:, 28:].mean().abs())
    assert float(corners["green"].mean()) > 5 * float(maps[1, :12, :20].mean().abs())
    assert not torch.allclose(maps[0], maps[1], atol=0.05)


def test_a_box_target_is_class_probability_times_overlap() -> None:
    half = BoxTarget(box=(0, 0, 24, 32), label=0)  # overlaps the top left candidate and the one below it by one half
    whole = BoxTarget(box=(0, 0, 24, 16), label=0)
    maps = RISE(detector, num_masks=60, seed=1).attribute(_scene(), [half, whole])[0]
    close(maps[0], maps[1] / 2, atol=1e-6, rtol=1e-5)


def test_two_classes_in_the_same_box_have_two_maps() -> None:
    x = _scene()
    x[:, 1, :16, :12] = 1.0
    both = [BoxTarget(box=(0, 0, 24, 16), label=label) for label in (0, 1)]
    maps = RISE(detector, num_masks=300).attribute(x, both)[0]
    assert float(maps[1, :16, :12].mean()) > 1.5 * float(maps[1, :16, 14:24].mean())
    assert float(maps[0, :16, :12].mean()) < 1.5 * float(maps[0, :16, 14:24].mean())


_SIDES = "grid must be a positive integer or a pair (down, across) of them, or three of volumes, got {}."
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"num_masks": 3}, "num_masks must be an integer of at least 4, got 3."),
    ({"num_masks": 1, "estimator": "centred"}, "num_masks must be an integer of at least 2, got 1."),
    ({"num_masks": 0, "estimator": "plain"}, "num_masks must be a positive integer, got 0."),
    ({"num_masks": 10.0}, "num_masks must be an integer of at least 4, got 10.0."),
    ({"grid": 0}, _SIDES.format(0)),
    ({"grid": (7,)}, _SIDES.format("(7,)")),
    ({"p": 0}, "p must lie between 0 and 1, both excluded, got 0."),
    ({"p": 1.0}, "p must lie between 0 and 1, both excluded, got 1.0."),
    ({"p": "half"}, "p must lie between 0 and 1, both excluded, got 'half'."),
    ({"estimator": "center"}, "estimator must be 'regression', 'centred' or 'plain', got 'center'."),
    ({"paired": "yes"}, "paired must be True, False or None, got 'yes'."),
    ({"tolerance": 0}, "tolerance must lie between 0 and 1, both excluded, or be None, got 0."),
    ({"tolerance": 1.5}, "tolerance must lie between 0 and 1, both excluded, or be None, got 1.5."),
    ({"seed": 1.5}, "seed must be an integer, got 1.5."),
    ({"activation_fn": "relu"}, "activation_fn must be 'auto', 'softmax', 'sigmoid', None or a callable, got 'relu'."),
    ({"perturbation_per_eval": True}, "perturbation_per_eval must be a positive integer or 'auto', got True."),
]  # fmt: skip


@pytest.mark.parametrize(("parameters", "said"), WRONG, ids=[str(next(iter(p.items()))) for p, _ in WRONG])
def test_wrong_parameters(parameters: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match="^" + re.escape(said) + "$"):
        RISE(build(networks.Pooled), **parameters)


def test_one_mask_is_enough_for_the_plain_estimate() -> None:
    assert RISE(build(networks.Pooled), num_masks=1, estimator="plain")(pictures(), "all").shape[1] == CLASSES
