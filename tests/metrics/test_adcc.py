"""ADCC against a twin written from the paper, closed forms and both ends of the scale."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from seewhy.errors import InvalidInput
from seewhy.explainers.gradient import Gradient
from seewhy.explainers.occlusion import Occlusion
from seewhy.metrics import Case, cases
from seewhy.metrics.adcc import ADCC, Parts
from seewhy.models.adapters import as_model
from support import networks
from support.networks import build, pictures


@dataclass
class Fixed:
    """An explainer that is told how."""

    network: Any
    how: Callable[[Tensor], Tensor]

    def attribute(self, inputs: Tensor, targets: Any = None) -> Tensor:
        return self.how(inputs).unsqueeze(1)


class Corner(nn.Module):
    """Class 0: how much of the top left quarter can be seen, in [0, 1]. Class 1: of the rest. Class 2 never."""

    def forward(self, x: Tensor) -> Tensor:
        h, w = x.shape[2] // 2, x.shape[3] // 2
        corner = x[:, :, :h, :w].sum((1, 2, 3))
        rest = x.sum((1, 2, 3)) - corner
        return torch.stack([corner / (h * w), rest / (3 * h * w), 0 * rest], 1)


def corner(height: int = 8, width: int = 12) -> Tensor:
    found = torch.zeros(height, width)
    found[: height // 2, : width // 2] = 1
    return found


def slow(explainer: Any, x: Tensor, target: int) -> tuple[float, float, float, float]:
    """One picture, in numpy, from the formulas of the paper."""
    network = explainer.network
    cam = explainer.attribute(x, target)[0, 0].numpy()
    cam = (cam - cam.min()) / (cam.max() - cam.min())
    masked = x * torch.from_numpy(cam)
    again = explainer.attribute(masked, target)[0, 0].numpy()
    coherency = (np.corrcoef(cam.ravel(), again.ravel())[0, 1] + 1) / 2
    complexity = np.abs(cam).sum() / cam.size
    y, o = (network(image).softmax(1)[0, target].item() for image in (x, masked))
    drop = max(0, y - o) / y
    return coherency, complexity, drop, 3 / (1 / coherency + 1 / (1 - complexity) + 1 / (1 - drop))


@pytest.mark.parametrize("size", [(32, 32), (64, 96)])
def test_it_is_the_papers(size: tuple[int, int]) -> None:
    x = 3 * pictures(4, height=size[0], width=size[1], seed=3)
    explainer = Occlusion(build(networks.Deep), window=16, stride=8)
    targets = [0, 1, 2, 3]
    found = cases(explainer, x, targets)
    drops = set()
    for i, case in enumerate(found):
        *parts, score = slow(explainer, x[i : i + 1], targets[i])
        assert ADCC().parts(case) == pytest.approx(parts, abs=1e-4)
        assert ADCC()(case) == pytest.approx(score, abs=1e-4)
        drops.add(ADCC().parts(case).drop > 0)
    assert drops == {True, False}


def test_closed_form_and_the_class_that_was_asked_for() -> None:
    x = torch.ones(1, 1, 8, 12)
    explainer = Fixed(Corner(), lambda inputs: (0.25 + corner()).expand(len(inputs), -1, -1))
    parts = {}
    for target in (0, 1):
        (case,) = cases(explainer, x, target)
        parts[target] = ADCC(activation_fn=None).parts(case)
    assert parts[0] == pytest.approx((1.0, 0.25, 0.0))
    assert parts[1] == pytest.approx((1.0, 0.25, 1.0))


def test_every_part_in_between() -> None:
    x = torch.ones(1, 1, 8, 12)
    shade = 1 - corner()
    shade[:4, 3:6] = 0.5
    explainer = Fixed(Corner(), lambda inputs: shade.expand(len(inputs), -1, -1))
    (case,) = cases(explainer, x, 0)
    assert ADCC(activation_fn=None).parts(case) == pytest.approx((1.0, (72 + 12 * 0.5) / 96, 0.75))
    left, top = torch.zeros(8, 12), torch.zeros(8, 12)
    left[:, :6], top[:4] = 1, 1
    explainer = Fixed(Corner(), lambda inputs: left[None] if inputs.amin() > 0 else top[None])
    (case,) = cases(explainer, x, 0)
    assert ADCC(activation_fn=None).parts(case) == pytest.approx((0.5, 0.5, 0.0))  # halves that cross: r = 0
    assert ADCC(activation_fn=None)(case) == pytest.approx(0.6)


def _repeated(saliency: Tensor, inputs: Tensor) -> Tensor:
    return saliency.expand(len(inputs), -1, -1)


def test_both_ends() -> None:
    x = torch.ones(1, 1, 64, 96)
    small = torch.zeros(64, 96)
    small[:4, :6] = 1

    def network(inputs: Tensor) -> Tensor:
        return inputs[:, 0, :4, :6].mean((1, 2)).unsqueeze(1)

    for saliency, want in ((small, 0.998), (-small, 0.0)):
        (case,) = cases(Fixed(network, partial(_repeated, saliency)), x, 0)
        assert ADCC(activation_fn=None)(case) == pytest.approx(want, abs=1e-3)


@pytest.mark.parametrize("value", [0.0, 1.0, -2.5])
def test_flat_maps_give_zero(value: float) -> None:
    x = pictures(2)
    explainer = Gradient(build(networks.Pooled))
    assert ADCC().evaluate(explainer, x, 1, saliency=torch.full((2, 32, 32), value)).tolist() == [0.0, 0.0]


def test_a_masked_picture_with_a_flat_map_gives_zero() -> None:
    x = torch.ones(1, 1, 8, 12)
    explainer = Fixed(Corner(), lambda inputs: corner().expand(len(inputs), -1, -1) * (inputs.amin() > 0))
    (case,) = cases(explainer, x, 0)
    assert ADCC().parts(case).coherency == 0.0
    assert ADCC()(case) == 0.0


def test_a_class_without_probability_is_no_data() -> None:
    x = torch.ones(1, 1, 8, 12)
    explainer = Fixed(Corner(), lambda inputs: corner().expand(len(inputs), -1, -1))
    assert math.isnan(float(ADCC(activation_fn=None).evaluate(explainer, x, 2)))
    assert 0 < float(ADCC().evaluate(explainer, x, 2)) < 1


def test_the_two_orders_of_averaging() -> None:
    x = 3 * pictures(4)
    explainer = Occlusion(build(networks.Deep), window=16, stride=8)
    found = cases(explainer, x, [0, 1, 2, 3])
    metric = ADCC()
    parts = np.array([slow(explainer, x[i : i + 1], i) for i in range(4)])
    coherency, complexity, drop, score = parts.mean(0)
    assert metric.overall(found) == pytest.approx(score, abs=1e-4)
    assert metric.overall(found) == pytest.approx(float(metric.evaluate(explainer, x, [0, 1, 2, 3]).mean()))
    want = 3 / (1 / coherency + 1 / (1 - complexity) + 1 / (1 - drop))
    assert metric.overall(found, average="parts") == pytest.approx(want, abs=1e-4)
    assert abs(want - score) > 1e-3


def test_no_data_is_left_out_of_the_average() -> None:
    x = torch.ones(2, 1, 8, 12)
    explainer = Fixed(Corner(), lambda inputs: (0.25 + corner()).expand(len(inputs), -1, -1))
    found = cases(explainer, x, [0, 2])
    metric = ADCC(activation_fn=None)
    for average in ("images", "parts"):
        assert metric.overall(found, average=average) == metric(found[0]) == pytest.approx(3 / (1 + 1 / 0.75 + 1))
        assert math.isnan(metric.overall(found[1:], average=average))


def test_what_the_picture_fades_to() -> None:
    x = torch.ones(1, 1, 8, 12)
    explainer = Fixed(Corner(), lambda inputs: (1 - corner()).expand(len(inputs), -1, -1))
    (case,) = cases(explainer, x, 0)
    for baseline, drop in ((0.0, 1.0), (0.75, 0.25), ("mean", 0.0), (torch.full((1, 1, 1), 0.5), 0.5), (3, 0.0)):
        assert ADCC(activation_fn=None, baseline=baseline).parts(case).drop == pytest.approx(drop)


def test_a_part_at_its_worst_makes_the_whole_zero() -> None:
    assert Parts(1, 0.5, 0.5).score == pytest.approx(0.6)
    assert [Parts(*p).score for p in ((0, 0.5, 0.5), (1, 1, 0.5), (1, 0.5, 1))] == [0, 0, 0]
    assert math.isnan(Parts(1, 0.5, float("nan")).score)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"activation_fn": "relu"}, "activation_fn must be 'auto', 'softmax', 'sigmoid', None or a callable, got 'relu'."),
    ({"perturbation_per_eval": 0}, "perturbation_per_eval must be a positive integer or 'auto', got 0."),
    ({"baseline": "grey"}, "baseline must be a number, 'mean', 'blur' or a tensor, got 'grey'."),
]


@pytest.mark.parametrize(("parameters", "said"), WRONG, ids=[str(p) for p, _ in WRONG])
def test_wrong_parameters(parameters: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match="^" + re.escape(said) + "$"):
        ADCC(**parameters)


def test_wrong_orders_and_missing_explainers() -> None:
    with pytest.raises(InvalidInput, match=r"^average must be 'images' or 'parts', got 'mean'\.$"):
        ADCC().overall([], average="mean")  # type: ignore[arg-type]
    case = Case(model=as_model(Corner()), image=torch.ones(1, 8, 12), target=0, saliency=corner())
    for call in (ADCC(), ADCC().parts, lambda one: ADCC().overall([one])):
        with pytest.raises(InvalidInput, match=r"^ADCC explains other images too\. Pass the explainer\.$"):
            call(case)


def test_half_precision_networks() -> None:
    network = build(networks.Pooled)
    want = ADCC().evaluate(Gradient(network), pictures(2), 1)
    got = ADCC().evaluate(Gradient(network.to(torch.bfloat16)), pictures(2).to(torch.bfloat16), 1)
    torch.testing.assert_close(got, want, atol=0.05, rtol=0)
