"""KernelSHAP against Shapley's formula, Captum and closed forms; and how pictures are divided into parts."""

from __future__ import annotations

import itertools
import re
import sys
from math import comb, factorial
from typing import Any

import pytest
import torch
from captum import attr
from skimage import data
from torch import Tensor

from seewhy import baseline as baselines
from seewhy.errors import InvalidInput, MissingDependency
from seewhy.explainers import LIME, KernelSHAP
from seewhy.explainers._superpixels import segment
from seewhy.targets import BoxTarget, ClassTarget
from support import networks
from support.networks import build, detector, pictures

close = torch.testing.assert_close


def stripes(parts: int, height: int = 16, width: int = 24) -> Tensor:
    """(H, W) diagonal stripes, so that no part is a rectangle."""
    return (torch.arange(height).unsqueeze(1) // 3 + torch.arange(width) // 2) % parts


def game(network: Any, x: Tensor, cover: Tensor, labels: Tensor, target: int) -> dict[frozenset[int], float]:
    """What the network says about one image when only these parts are shown, for every set of parts."""
    parts, found = int(labels.max()) + 1, {}
    for size in range(parts + 1):
        for some in itertools.combinations(range(parts), size):
            shown = torch.isin(labels, torch.tensor(some, dtype=torch.long))
            found[frozenset(some)] = network(torch.where(shown, x, cover)[None]).softmax(1)[0, target].item()
    return found


def shapley(v: dict[frozenset[int], float], parts: int) -> Tensor:
    """The mean gain over all orders in which the parts can be shown, by the formula with factorials."""
    values = torch.zeros(parts)
    for j in range(parts):
        for some, value in v.items():
            if j not in some:
                chance = factorial(len(some)) * factorial(parts - len(some) - 1) / factorial(parts)
                values[j] += chance * (v[some | {j}] - value)
    return values


@pytest.mark.parametrize(("parts", "baseline"), [(2, 0.0), (3, "mean"), (6, "blur")])
def test_it_is_shapleys_formula(parts: int, baseline: Any) -> None:
    network, x, labels = build(networks.Pooled), pictures(2, height=16, width=24), stripes(parts)
    cover = baselines.make(baseline, x)
    found = KernelSHAP(network, segments=labels, baseline=baseline).run(x, 2)
    assert found.raw.shape == (2, 1, 16, 24)
    assert found.passes.forward == 2 + 2 * (2**parts - 1)
    for i in range(2):
        want = shapley(game(network, x[i], cover[i], labels, 2), parts)
        close(found.raw[i, 0], want[labels], atol=1e-6, rtol=1e-4)


def test_it_is_captums() -> None:
    network, x, labels = build(networks.Pooled), pictures(1, height=16, width=24), stripes(5)

    def probabilities(inputs: Tensor) -> Tensor:
        return network(inputs).softmax(1)

    got = KernelSHAP(network, segments=labels).attribute(x, 1)
    mask = labels.expand(1, 3, -1, -1).contiguous()
    every = attr.ShapleyValues(probabilities).attribute(x, target=1, feature_mask=mask, perturbations_per_eval=8)
    close(got, every[:, :1].float().detach(), atol=1e-6, rtol=1e-4)
    torch.manual_seed(0)
    theirs = attr.KernelShap(probabilities).attribute(
        x, target=1, feature_mask=mask, n_samples=400, perturbations_per_eval=50
    )
    close(got, theirs[:, :1].float(), atol=0.1 * float(got.abs().max()), rtol=0)


@pytest.mark.parametrize("num_masks", [200, 4096])
def test_closed_form_of_a_linear_network(num_masks: int) -> None:
    """A part is worth the sum of w (x - baseline) over its pixels, whatever coalitions are tried."""
    network, x, labels = build(networks.Linear), pictures(height=8, width=12), stripes(12, 8, 12)
    cover = pictures(1, height=8, width=12, seed=9)
    pixels = torch.einsum("nchw,kchw->nkhw", x - cover, network.weight.detach())
    want = torch.stack([(pixels * (labels == j)).sum((2, 3)) for j in range(12)], 2)[..., labels]
    explainer = KernelSHAP(network, activation_fn=None, segments=labels, baseline=cover, num_masks=num_masks)
    close(explainer.attribute(x, "all"), want, atol=1e-4, rtol=1e-4)


def test_interactions_of_two_parts_cancel() -> None:
    """Every coalition is tried with its complement, so a quadratic game is solved exactly from a few."""
    weights = torch.randn(8, 12)

    def network(inputs: Tensor) -> Tensor:
        score = (inputs[:, 0] * weights).sum((1, 2))
        return torch.stack([score, score**2], 1)

    x, labels = torch.ones(1, 1, 8, 12), stripes(14, 8, 12)
    parts = torch.stack([weights[labels == j].sum() for j in range(14)])
    want = parts * parts.sum()
    explainer = KernelSHAP(network, activation_fn=None, segments=labels, num_masks=120)
    assert explainer.run(x, 1).passes.forward <= 121
    close(explainer.attribute(x, 1)[0, 0], want[labels], atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize(("num_masks", "grid"), [(100, 4), (300, 7), (1000, 7)])
def test_the_values_add_up_to_what_the_picture_changes(num_masks: int, grid: int) -> None:
    network, x = build(networks.Deep), pictures(2, height=28, width=28)
    raw = KernelSHAP(network, num_masks=num_masks, grid=grid).attribute(x, "all", native=True)
    one = slice(28 // grid // 2, None, 28 // grid)  # a pixel of each cell
    gain = network(x).softmax(1) - network(torch.zeros_like(x)).softmax(1)
    close(raw[:, :, one, one].sum((2, 3)), gain.detach(), atol=1e-5, rtol=0)


def test_weights_of_all_coalitions_are_the_kernel() -> None:
    plan = KernelSHAP(None, num_masks=63)._plan(6)
    assert len(plan.shown) == 63
    assert len(plan.shown.unique(dim=0)) == 63
    assert not bool(plan.shown[0].any())
    for shown, weight in zip(plan.shown[1:], plan.weights[1:], strict=True):
        s = int(shown.sum())
        kernel = 5 / (comb(6, s) * s * (6 - s))
        close(float(weight), kernel / sum(5 / (t * (6 - t)) for t in range(1, 6)))


@pytest.mark.parametrize(("parts", "num_masks"), [(8, 60), (12, 200), (49, 200), (49, 1000), (49, 1001), (100, 2000)])
def test_drawn_coalitions(parts: int, num_masks: int) -> None:
    plan = KernelSHAP(None, num_masks=num_masks)._plan(parts)
    shown, weights, size = plan.shown[1:], plan.weights[1:], plan.shown[1:].sum(1)
    assert len(plan.shown) <= num_masks
    assert len(plan.shown) > 0.7 * num_masks
    assert len(plan.shown.unique(dim=0)) == len(plan.shown)
    assert {tuple(row) for row in shown.tolist()} == {tuple(row) for row in (~shown).tolist()}
    assert 0 < int(size.min()) <= int(size.max()) < parts
    close(float(weights.sum()), 1.0)
    total = sum(1 / (s * (parts - s)) for s in range(1, parts))
    pairs = (num_masks - 1) // 2
    for s in range(1, parts):
        want = 1 / (s * (parts - s)) / total
        assert abs(float(weights[size == s].sum()) - want) <= 1 / pairs  # systematic sampling: a draw off at most


def test_a_coalition_and_its_complement_are_one_pair() -> None:
    """Where they are of the same size either may be drawn, and together they must not be tried twice."""
    for seed in range(30):
        plan = KernelSHAP(None, num_masks=40, seed=seed)._plan(6)
        assert len(plan.shown.unique(dim=0)) == len(plan.shown)
        close(float(plan.weights.sum()), 1.0)


def test_small_and_large_coalitions_are_tried_whole_where_they_can_be() -> None:
    plan = KernelSHAP(None, num_masks=1000)._plan(49)
    sizes = plan.shown.sum(1).bincount(minlength=50).tolist()
    assert sizes[0] == 1
    assert sizes[1] == sizes[48] == 49
    assert sizes[2] == sizes[47] < comb(49, 2)


def test_more_coalitions_come_nearer_to_the_exact_values() -> None:
    network, x, labels = build(networks.Deep), pictures(1), stripes(12, 32, 32)
    exact = KernelSHAP(network, segments=labels, num_masks=4095).attribute(x, 1)

    def error(num_masks: int) -> float:
        maps = [KernelSHAP(network, segments=labels, num_masks=num_masks, seed=s).attribute(x, 1) for s in range(3)]
        return float(torch.stack([(m - exact).square().mean() for m in maps]).mean().sqrt() / exact.std())

    few, many = error(60), error(800)
    assert many < 0.5 * few
    assert many < 0.1


def test_too_few_coalitions_are_an_error_before_the_first_pass() -> None:
    def network(inputs: Tensor) -> Tensor:
        raise AssertionError("it must not run")

    said = "51 coalitions do not determine the Shapley values of 49 segments. Use num_masks >= 196, or fewer segments."
    with pytest.raises(InvalidInput, match="^" + re.escape(said) + "$"):
        KernelSHAP(network, num_masks=51)(pictures())


@pytest.mark.parametrize("parts", [5, 9, 20, 49, 70])
def test_the_number_that_the_error_names_is_enough(parts: int) -> None:
    for seed in range(5):
        KernelSHAP(None, num_masks=4 * parts, seed=seed)._plan(parts)


@pytest.mark.parametrize("method", [KernelSHAP, LIME])
def test_seeds_and_torchs_defaults(method: Any) -> None:
    network, x = build(networks.Deep), pictures()
    maps = [method(network, num_masks=100, grid=4, seed=s).attribute(x) for s in (0, 0, 1)]
    assert torch.equal(maps[0], maps[1])
    assert not torch.allclose(maps[0], maps[2])
    with networks.float64_by_default():
        assert torch.equal(method(network, num_masks=100, grid=4).attribute(x), maps[0])


@pytest.mark.parametrize("method", [KernelSHAP, LIME])
def test_all_targets_come_from_the_same_passes(method: Any) -> None:
    network, x = build(networks.Pooled), pictures()
    for targets in (1, "all", [[0, 1, 2]] * 2, [ClassTarget(label=0), ClassTarget(label=4)]):
        assert method(network, grid=2).run(x, targets).passes.forward == 2 + 2 * 15


@pytest.mark.parametrize("method", [KernelSHAP, LIME])
def test_boxes_of_a_detector(method: Any) -> None:
    x = torch.zeros(1, 3, 32, 48)
    x[:, 0, :16, :24] = 1.0
    x[:, 1, 16:, 24:] = 1.0
    red, green = BoxTarget(box=(0, 0, 24, 16), label=0), BoxTarget(box=(24, 16, 48, 32), label=1)
    maps = method(detector, grid=(4, 6), num_masks=400).attribute(x, [red, green])[0]
    assert float(maps[0, :16, :24].min()) > 5 * float(maps[0, 16:].abs().max())
    assert float(maps[1, 16:, 24:].min()) > 5 * float(maps[1, :16].abs().max())


@pytest.mark.parametrize("method", [KernelSHAP, LIME])
def test_scores_that_no_coalition_changes(method: Any) -> None:
    found = method(build(networks.Constant), grid=2).run(torch.zeros(1, 3, 32, 32), 1)
    assert "Image 0, class 1: its score did not change under any coalition." in found.warnings
    assert "Image 0, class 1: the map is constant, nothing stands out." in found.warnings
    assert float(found.raw.abs().max()) == 0


@pytest.mark.parametrize("method", [KernelSHAP, LIME])
def test_images_may_have_different_numbers_of_parts(method: Any) -> None:
    network, x = build(networks.Pooled), pictures(3, height=16, width=24)
    labels = torch.stack([stripes(3), stripes(8) * 10 - 7, stripes(5) ** 2])
    explainer = method(network, num_masks=40, segments=labels)
    together = explainer.run(x, [[0, 1]] * 3)
    assert together.passes.forward <= 3 + 7 + 40 + 31
    for i, parts in enumerate((3, 8, 5)):
        alone = method(network, num_masks=40, segments=stripes(parts)).attribute(x[i : i + 1], [[0, 1]])
        close(together.raw[i : i + 1], alone, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(
    ("size", "grid", "sides"),
    [
        ((32, 32), 7, (7, 7)),
        ((64, 96), 7, (7, 10)),
        ((96, 64), 4, (6, 4)),
        ((20, 30), (2, 5), (2, 5)),
        ((9, 7), 7, (9, 7)),
    ],
)
def test_cells_are_square_unless_asked_otherwise(size: tuple[int, int], grid: Any, sides: tuple[int, int]) -> None:
    labels = segment("grid", grid, torch.zeros(2, 3, *size))
    assert labels.shape == (2, *size)
    for i, j in itertools.product(range(size[0]), range(size[1])):
        assert int(labels[0, i, j]) == i * sides[0] // size[0] * sides[1] + j * sides[1] // size[1]


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_superpixels_follow_the_picture(channels: int) -> None:
    """Two photographs: about as many parts as asked for, and colours vary less within them than within squares."""
    cats = torch.from_numpy(data.chelsea()[50:250, 100:350].copy()).permute(2, 0, 1).float()
    coffee = torch.from_numpy(data.coffee()[100:300, 150:400].copy()).permute(2, 0, 1).float()
    x = torch.stack([cats, coffee]) / 127.5 - 1
    x = torch.cat([x, x], 1)[:, :channels]
    slic, squares = segment("slic", 7, x), segment("grid", 7, x)
    assert slic.dtype == torch.int64
    assert not torch.equal(slic[0], slic[1])
    for i in range(2):
        counts = slic[i].flatten().bincount()
        assert int(counts.min()) > 0
        assert 30 < len(counts) < 90

        def inside(labels: Tensor, picture: Tensor = x[i]) -> float:
            parts = [picture[:, labels == j] for j in labels.unique()]
            return sum(float((p - p.mean(1, keepdim=True)).square().sum()) for p in parts)

        assert inside(slic[i]) < 0.7 * inside(squares[i])
        assert torch.equal(segment("slic", 7, x[i : i + 1])[0], slic[i])


def test_superpixels_need_scikit_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skimage.segmentation", None)
    said = "segments='slic' needs scikit-image. Install it: pip install scikit-image, or use segments='grid'."
    with pytest.raises(MissingDependency, match="^" + re.escape(said) + "$"):
        KernelSHAP(build(networks.Pooled), segments="slic")(pictures())


WRONG = [
    ({"num_masks": 1}, "num_masks must be an integer of at least 2, got 1."),
    ({"num_masks": "many"}, "num_masks must be an integer of at least 2, got 'many'."),
    ({"segments": "felzenszwalb"}, "segments must be 'grid', 'slic' or an integer tensor, got 'felzenszwalb'."),
    ({"segments": torch.zeros(32, 40)}, "segments must be an integer tensor (H, W) or (N, H, W), got float32 of shape "
     "(32, 40). For a mask use mask.long()."),
    ({"segments": torch.zeros(32, 40).bool()}, "segments must be an integer tensor (H, W) or (N, H, W), got bool of "
     "shape (32, 40). For a mask use mask.long()."),
    ({"segments": torch.zeros(1, 1, 2, 2).int()}, "segments must be an integer tensor (H, W) or (N, H, W), got int32 "
     "of shape (1, 1, 2, 2). For a mask use mask.long()."),
    ({"segments": torch.zeros(40, 32).int()}, "segments must have shape (32, 40) or (2, 32, 40), got (40, 32)."),
    ({"segments": torch.zeros(3, 32, 40).int()}, "segments must have shape (32, 40) or (2, 32, 40), got (3, 32, 40)."),
    ({"segments": torch.zeros(32, 40).int()}, "Image 0, 1 has one part only, and there is nothing to tell apart. Give "
     "at least 2 segments."),
    ({"grid": 0}, "grid must be a positive integer or a pair (down, across) of them, got 0."),
    ({"grid": 33}, "grid (33, 41) is finer than the picture, (32, 40)."),
    ({"baseline": "grey"}, "baseline must be a number, 'mean', 'blur' or a tensor, got 'grey'."),
    ({"seed": 0.5}, "seed must be an integer, got 0.5."),
    ({"activation_fn": "relu"}, "activation_fn must be 'auto', 'softmax', 'sigmoid', None or a callable, got 'relu'."),
    ({"perturbation_per_eval": 0}, "perturbation_per_eval must be a positive integer or 'auto', got 0."),
]  # fmt: skip


@pytest.mark.parametrize("method", [KernelSHAP, LIME])
@pytest.mark.parametrize(("parameters", "said"), WRONG, ids=[f"{i}" for i in range(len(WRONG))])
def test_wrong_parameters(method: Any, parameters: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match="^" + re.escape(said) + "$"):
        method(build(networks.Pooled), **parameters)(pictures(height=32, width=40))
