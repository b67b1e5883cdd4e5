"""Infidelity against closed forms and Captum; sparseness and complexity against their formulas."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
import torch
from captum.metrics import infidelity
from torch import Tensor, nn

from seewhy.errors import BadOutput, InvalidInput
from seewhy.explainers.gradient import Gradient
from seewhy.explainers.occlusion import Occlusion
from seewhy.metrics import Case, Metric
from seewhy.metrics.complexity import Complexity
from seewhy.metrics.infidelity import Infidelity
from seewhy.metrics.sparseness import Sparseness
from seewhy.models.adapters import as_model
from support import networks
from support.networks import build, pictures

SQUARES = Infidelity(activation_fn=None)
NOISE = Infidelity(activation_fn=None, perturbation="noise")


class Seen(nn.Module):
    """Remembers what went through a network."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.images = inner, list[Tensor]()

    def forward(self, x: Tensor) -> Tensor:
        self.images += list(x.clone())
        return self.inner(x)


def judge(metric: Metric, network: Any, image: Tensor, saliency: Tensor, target: Any = 1) -> float:
    return metric(Case(model=as_model(network), image=image, target=target, saliency=saliency))


def linear(channels: int = 3) -> tuple[networks.Linear, Tensor, Tensor]:
    """A network, a picture, and what each pixel contributes to class 1."""
    network, image = build(networks.Linear, channels, 16, 24), pictures(1, channels, 16, 24)[0]
    return network, image, (network.weight.detach()[1] * image).sum(0)


@pytest.mark.parametrize("channels", [1, 3])
def test_squares_and_what_a_pixel_contributes(channels: int) -> None:
    network, image, contribution = linear(channels)
    worst = judge(SQUARES, network, image, torch.zeros(16, 24))
    assert worst > 1
    for factor in (1.0, 7.0, 1e-3):
        assert judge(SQUARES, network, image, factor * contribution) == pytest.approx(0, abs=1e-6 * worst)
    assert judge(SQUARES, network, image, -contribution) == pytest.approx(worst)
    other = judge(SQUARES, network, image, contribution + 2 * pictures(1, 1, 16, 24, seed=9)[0, 0])
    assert 0.1 * worst < other < worst


def test_noise_and_how_steep_the_score_is() -> None:
    network, image, contribution = linear(1)
    steepness = network.weight.detach()[1, 0]
    worst = judge(NOISE, network, image, torch.zeros(16, 24))
    assert judge(NOISE, network, image, 3 * steepness) == pytest.approx(0, abs=1e-6 * worst)
    assert judge(NOISE, network, image, -steepness) == pytest.approx(worst)
    assert judge(NOISE, network, image, contribution) > 1e-3 * worst


def test_noise_is_put_on_the_baseline() -> None:
    network = Seen(build(networks.Pooled))
    image = pictures(1)[0]
    judge(Infidelity(perturbation="noise", baseline=2.0, sigma=0.3, samples=50), network, image, image.sum(0))
    assert torch.equal(network.images[0], image)
    shown = torch.stack(network.images[1:])
    assert shown.shape == (50, 3, 32, 32)
    assert float(shown.mean()) == pytest.approx(2.0, abs=0.01)
    assert float(shown.std()) == pytest.approx(0.3, abs=0.01)
    assert float((shown[0] - shown[1]).std()) == pytest.approx(0.3 * math.sqrt(2), abs=0.02)


def hidden(images: list[Tensor], value: float) -> list[tuple[int, int, int, int]]:
    """First and last row and column of the square that shows ``value``."""
    found = []
    for image in images:
        inside = (image == value).all(0).nonzero()
        (top, left), (bottom, right) = inside.amin(0).tolist(), inside.amax(0).tolist()
        assert len(inside) == (bottom - top + 1) * (right - left + 1)
        found.append((top, bottom, left, right))
    return found


def test_squares_of_all_sizes_lie_everywhere_in_the_picture() -> None:
    network, image = Seen(build(networks.Pooled)), pictures(1, height=28, width=56)[0]
    judge(Infidelity(samples=2000, baseline=5.0), network, image, image.sum(0))
    assert torch.equal(network.images[0], image)
    boxes = hidden(network.images[1:], 5.0)
    sides = [bottom - top + 1 for top, bottom, *_ in boxes]
    assert sides == [right - left + 1 for *_, left, right in boxes]
    assert np.bincount(sides, minlength=11)[1:].min() > 140
    assert max(sides) == 10  # as published for 28 pixels
    assert {min(b[i] for b in boxes) for i in (0, 2)} == {0}
    assert (max(b[1] for b in boxes), max(b[3] for b in boxes)) == (27, 55)
    for size in (1, 10):
        tops = {b[0] for b, side in zip(boxes, sides, strict=True) if side == size}
        assert tops == set(range(28 - size + 1))
    network.images.clear()
    judge(Infidelity(samples=20, baseline=5.0, window=1), network, image, image.sum(0))
    assert {(b - t, r - x) for t, b, x, r in hidden(network.images[1:], 5.0)} == {(0, 0)}


@pytest.mark.parametrize("kind", ["square", "noise"])
def test_it_is_captums(kind: Any) -> None:
    inner, image = build(networks.Deep), pictures(1)[0]
    one = nn.Sequential(Grey(), inner)
    image = image[:1]
    explainer = Occlusion(one, window=8, stride=4) if kind == "square" else Gradient(one, reduce="sum")
    saliency = explainer.attribute(image[None], 1)[0, 0]
    seen = Seen(one)
    got = judge(Infidelity(perturbation=kind, samples=60), seen, image, saliency)
    images = torch.stack(seen.images[1:])
    change = (images == 0).float() if kind == "square" else image - images

    def perturb(_: Tensor) -> tuple[Tensor, Tensor]:
        return change, images

    theirs = infidelity(lambda x: one(x).softmax(1), perturb, image[None], saliency[None, None], target=1,
                        n_perturb_samples=60, normalize=True)  # fmt: skip
    assert got == pytest.approx(float(theirs), rel=1e-4)
    assert got > 0


class Grey(nn.Module):
    """One channel to three."""

    def forward(self, x: Tensor) -> Tensor:
        return x.expand(-1, 3, -1, -1) * torch.tensor([1.0, -0.5, 2.0]).view(3, 1, 1)


def test_a_score_that_nothing_moves_is_no_data() -> None:
    image = pictures(1)[0]
    for metric in (Infidelity(), Infidelity(perturbation="noise")):
        assert math.isnan(judge(metric, build(networks.Constant), image, image.sum(0)))


def test_the_size_of_the_passes_does_not_matter_but_the_seed_does() -> None:
    network, image = build(networks.Deep), pictures(1)[0]
    for kind in ("square", "noise"):
        parameters: dict[str, Any] = {"perturbation": kind, "samples": 30}
        want = judge(Infidelity(**parameters), network, image, image.sum(0))
        for size in (1, 7, "auto"):
            got = judge(Infidelity(**parameters, perturbation_per_eval=size), network, image, image.sum(0))
            assert got == pytest.approx(want, rel=1e-4)
        assert judge(Infidelity(**parameters, seed=1), network, image, image.sum(0)) != pytest.approx(want, rel=1e-2)


def test_the_activation() -> None:
    network, image, contribution = linear(1)
    found = [judge(Infidelity(activation_fn=a), network, image, contribution) for a in ("softmax", "sigmoid", None)]
    assert len({round(value, 9) for value in found}) == 3
    single = nn.Sequential(nn.Flatten(), nn.Linear(12, 1))
    said = "The network has one output, and the softmax of one score is always 1. Use activation_fn='sigmoid' or None."
    with pytest.raises(BadOutput, match="^" + re.escape(said) + "$"):
        judge(Infidelity(activation_fn="softmax"), single, torch.ones(3, 2, 2), torch.ones(2, 2), 0)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"perturbation": "circle"}, "perturbation must be 'square' or 'noise', got 'circle'."),
    ({"samples": 0}, "samples must be a positive integer, got 0."),
    ({"window": 0}, "window must be a positive integer, got 0."),
    ({"window": 17}, "window 17 is larger than the picture, (16, 24)."),
    ({"sigma": -1}, "sigma must be a positive number, got -1."),
    ({"seed": None}, "seed must be an integer, got None."),
    ({"baseline": "grey"}, "baseline must be a number, 'mean', 'blur' or a tensor, got 'grey'."),
    ({"activation_fn": 3}, "activation_fn must be 'auto', 'softmax', 'sigmoid', None or a callable, got 3."),
    ({"perturbation_per_eval": 0}, "perturbation_per_eval must be a positive integer or 'auto', got 0."),
]


@pytest.mark.parametrize(("parameters", "said"), WRONG, ids=[str(p) for p, _ in WRONG])
def test_wrong_parameters(parameters: dict[str, Any], said: str) -> None:
    network, image, contribution = linear()
    with pytest.raises(InvalidInput, match="^" + re.escape(said) + "$"):
        judge(Infidelity(**parameters), network, image, contribution)


def gini(values: list[float]) -> float:
    """Mean difference of all pairs over twice the mean."""
    v = np.abs(values)
    return float(np.abs(v[:, None] - v).sum() / (2 * len(v) ** 2 * v.mean()))


@pytest.mark.parametrize("values", [[1, 2, 3, 4], [0, 0, 0, 5], [-3, 1, -1, 2], [2, 2, 2, 2], [0.1, -0.1, 7, 0]])
def test_sparseness_and_complexity_are_their_definitions(values: list[float]) -> None:
    saliency = torch.tensor(values, dtype=torch.float32).view(2, 2)
    network, image = build(networks.Pooled), torch.zeros(3, 2, 2)
    assert judge(Sparseness(), network, image, saliency) == pytest.approx(gini(values))
    p = np.abs(values) / np.abs(values).sum()
    want = -sum(q * math.log(q) for q in p if q > 0)
    assert judge(Complexity(), network, image, saliency) == pytest.approx(want)


def test_both_ends_of_sparseness_and_complexity() -> None:
    network, image = build(networks.Pooled), torch.zeros(3, 64, 96)
    flat, single = torch.full((64, 96), -0.3), torch.zeros(64, 96)
    single[10, 80] = 4
    assert judge(Sparseness(), network, image, flat) == pytest.approx(0, abs=1e-9)
    assert judge(Sparseness(), network, image, single) == pytest.approx(1 - 1 / (64 * 96))
    assert judge(Complexity(), network, image, flat) == pytest.approx(math.log(64 * 96))
    assert judge(Complexity(), network, image, single) == 0
    for metric in (Sparseness(), Complexity()):
        assert math.isnan(judge(metric, network, image, 0 * flat))
        noise = pictures(1, 1, 64, 96)[0, 0]
        assert judge(metric, network, image, noise) == pytest.approx(judge(metric, network, image, -1e-6 * noise))
