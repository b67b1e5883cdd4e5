"""Robustness, max-sensitivity and class sensitivity against closed forms, Captum and both ends of the scale."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from captum.metrics import sensitivity_max
from torch import Tensor, nn

from seewhy.errors import InvalidInput
from seewhy.explainers.activation_map import ActivationMap
from seewhy.explainers.gradient import Gradient
from seewhy.explainers.occlusion import Occlusion
from seewhy.maps import scale
from seewhy.metrics import Metric, cases
from seewhy.metrics.class_sensitivity import ClassSensitivity
from seewhy.metrics.max_sensitivity import MaxSensitivity
from seewhy.metrics.robustness import Robustness
from support import networks
from support.networks import build, pictures
from support.typed import unchecked

close = torch.testing.assert_close


@dataclass
class Recorder:
    """An explainer that is told how, and remembers what it was asked to explain."""

    network: Any
    how: Callable[[Tensor, Tensor], Tensor]
    inputs: list[Tensor] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)

    def attribute(self, inputs: Tensor, targets: Any = None) -> Tensor:
        classes = torch.as_tensor(targets).expand(len(inputs))
        self.inputs += list(inputs.clone())
        self.targets += classes.tolist()
        return self.how(inputs, classes).unsqueeze(1)

    def forget(self) -> None:
        self.inputs.clear()
        self.targets.clear()


def itself(inputs: Tensor, _: Any) -> Tensor:
    return inputs.sum(1)


def judged(metric: Metric, explainer: Recorder, x: Tensor, target: Any = 1, **more: Any) -> float:
    """The number, with only what the metric itself asked for left in the record."""
    (case,) = cases(explainer, x, target, **more)
    explainer.forget()
    return metric(case)


@pytest.mark.parametrize("metric", [Robustness(), MaxSensitivity(samples=10)], ids=repr)
def test_the_perturbed_picture_is_explained_every_time(metric: Any) -> None:
    x = pictures(1, height=64, width=96)
    explainer = Recorder(build(networks.Pooled), itself)
    judged(metric, explainer, x)
    assert len(explainer.inputs) == 10 == metric.cost(64, 96).explanations
    moved = torch.stack(explainer.inputs) - x
    assert bool((moved.flatten(1).abs().amax(1) > 0.19).all())
    assert bool((moved.abs() <= 0.2 + 1e-6).all())
    assert abs(float(moved.mean())) < 0.002
    assert float(moved.std()) == pytest.approx(0.2 / math.sqrt(3), rel=0.02)
    assert len({float(one.sum()) for one in moved}) == 10


@pytest.mark.parametrize("metric", [Robustness(), MaxSensitivity()], ids=repr)
def test_the_target_is_that_of_the_clean_picture(metric: Any) -> None:
    network, x = build(networks.Linear), 0.01 * pictures(1, height=8, width=12)
    explainer = Recorder(network, itself)
    predicted = int(network(x).argmax())
    judged(metric, explainer, x, None)
    noisy = network(torch.stack(explainer.inputs)).argmax(1).tolist()
    assert any(answer != predicted for answer in noisy)
    assert explainer.targets == [predicted] * metric.samples


def test_closed_form_of_a_map_that_is_the_picture() -> None:
    x = pictures(1, height=6, width=9)
    explainer = Recorder(build(networks.Linear, 3, 6, 9), itself)
    got = judged(Robustness(), explainer, x)
    ratios = [float((noisy - x[0]).sum(0).norm() / x[0].sum(0).norm()) for noisy in explainer.inputs]
    assert got == pytest.approx(math.exp(-max(ratios)), rel=1e-5)
    assert got < math.exp(-min(ratios))
    assert judged(MaxSensitivity(samples=10), explainer, x) == pytest.approx(max(ratios), rel=1e-5)


def test_both_ends_of_robustness() -> None:
    network, x = build(networks.Pooled), pictures(1)
    steady = Recorder(network, lambda inputs, _: pictures(1, 1).expand(len(inputs), -1, -1, -1)[:, 0])
    assert judged(Robustness(), steady, x) == 1.0
    assert judged(MaxSensitivity(), steady, x) == 0.0
    jumpy = Recorder(network, lambda inputs, _: 1e4 * (inputs - x).sum(1) + 0.01)
    assert judged(Robustness(), jumpy, x) == 0.0
    assert judged(MaxSensitivity(), jumpy, x) > 1e5
    between = [judged(Robustness(radius=r), Recorder(network, itself), x) for r in (0.05, 0.2, 1.0)]
    assert 1 > between[0] > between[1] > between[2] > 0


def test_it_is_captums_sensitivity() -> None:
    network, x = build(networks.Deep), pictures(1)
    explainer = Recorder(network, lambda inputs, classes: Gradient(network).attribute(inputs, classes)[:, 0])
    got = judged(MaxSensitivity(samples=12, radius=0.1), explainer, x)
    noisy = torch.stack(explainer.inputs)
    theirs = sensitivity_max(
        lambda inputs: (Gradient(network).attribute(inputs[0], 1),), x, lambda *_: (noisy,), n_perturb_samples=12
    )
    assert got == pytest.approx(float(theirs), rel=1e-5)
    assert got > 0.01


def test_nothing_is_guessed_from_a_map_that_happens_to_lie_between_0_and_1() -> None:
    """The same explainer, once with a map from exactly 0 to 1, once twice as loud."""
    x = pictures(1, height=6, width=9)
    low, size = itself(x, None).amin(), itself(x, None).amax() - itself(x, None).amin()
    network = build(networks.Linear, 3, 6, 9)

    def times(k: int) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda inputs, _: k * (itself(inputs, None) - low) / size

    loud = [Recorder(network, times(k)) for k in (1, 2)]
    assert (float(loud[0].attribute(x, 1).min()), float(loud[0].attribute(x, 1).max())) == (0, 1)
    for metric in (Robustness(), MaxSensitivity()):
        assert judged(metric, loud[0], x) == pytest.approx(judged(metric, loud[1], x), rel=1e-5)


def test_maps_are_scaled_where_that_is_said() -> None:
    network, x = build(networks.Deep), pictures(1)
    raw = Recorder(network, lambda inputs, classes: 50 + 9 * Gradient(network).attribute(inputs, classes)[:, 0])
    scaled = Recorder(network, lambda inputs, classes: scale(raw.how(inputs, classes)))
    for kind in (Robustness, MaxSensitivity):
        want = judged(kind(), scaled, x)
        metric = kind(scaled=True)
        assert judged(metric, raw, x) == pytest.approx(want, rel=1e-5)
        assert judged(metric, raw, x, saliency=scale(raw.attribute(x, 1))) == pytest.approx(want, rel=1e-5)
        assert abs(judged(kind(), raw, x) - want) > 0.01
    with pytest.raises(InvalidInput, match=r"^scaled must be True or False, got 1\.$"):
        Robustness(scaled=unchecked(1))


def test_a_map_of_zeros_is_no_data() -> None:
    explainer = Recorder(build(networks.Pooled), lambda inputs, _: torch.zeros(len(inputs), 32, 32))
    assert math.isnan(judged(Robustness(), explainer, pictures(1)))
    assert math.isnan(judged(MaxSensitivity(), explainer, pictures(1)))


@pytest.mark.parametrize("kind", [Robustness, MaxSensitivity])
def test_the_size_of_the_passes_does_not_matter_but_the_seed_does(kind: Any) -> None:
    network, x = build(networks.Deep), pictures(2)
    want = kind(samples=10).evaluate(Gradient(network), x, [0, 3])
    for size in (1, 3, "auto"):
        close(kind(samples=10, perturbation_per_eval=size).evaluate(Gradient(network), x, [0, 3]), want)
    assert not torch.allclose(kind(samples=10, seed=1).evaluate(Gradient(network), x, [0, 3]), want, rtol=1e-4)
    sizes: list[int] = []

    def how(inputs: Tensor, _: Tensor) -> Tensor:
        sizes.append(len(inputs))
        return inputs.sum(1)

    kind(samples=10, perturbation_per_eval=4).evaluate(Recorder(network, how), x[:1], 0)
    assert sizes == [1, 4, 3, 3]


def test_robustness_keeps_averages_by_label_and_takes_the_documented_arguments() -> None:
    metric = Robustness(5, activation_fn=nn.Softmax(-1))
    found = metric.evaluate(Gradient(build(networks.Deep)), pictures(3), [1, 1, 4])
    metric.aggregate(found, torch.tensor([1, 1, 4]))
    assert metric.class_performances == [None, pytest.approx(float(found[:2].mean())), None, None, float(found[2])]


class Weighted(nn.Module):
    """Scores that are sums of the picture times a map for each class."""

    def __init__(self, maps: Tensor, offsets: Tensor) -> None:
        super().__init__()
        self.maps, self.offsets = nn.Parameter(maps), nn.Parameter(offsets)

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("nhw,khw->nk", x.sum(1), self.maps) + self.offsets


def own(network: Weighted) -> Recorder:
    return Recorder(network, lambda _, classes: network.maps.detach()[classes])


def ladder(maps: Tensor, first: int, last: int) -> Recorder:
    """An explainer that gives every class its map, of a network to which class ``first`` is likeliest."""
    offsets = torch.zeros(len(maps))
    offsets[first], offsets[last] = 1e3, -1e3
    return own(Weighted(maps, offsets))


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_both_ends_of_class_sensitivity(classes: int) -> None:
    maps = pictures(1, classes, 8, 12)[0]
    first, last = classes - 1, classes // 2
    if first == last:
        last = 0
    x = pictures(1, 1, 8, 12, seed=4)
    maps[last] = 7 - 2 * maps[first]
    assert judged(ClassSensitivity(), ladder(maps, first, last), x) == pytest.approx(1.0)
    maps[last] = 7 + 2 * maps[first]
    assert judged(ClassSensitivity(), ladder(maps, first, last), x) == pytest.approx(0.0, abs=1e-7)
    maps[first], maps[last] = 0.0, 0.0
    maps[first, :, :6], maps[last, :4] = 1.0, 1.0  # halves that cross: as often together as apart
    assert judged(ClassSensitivity(), ladder(maps, first, last), x) == pytest.approx(0.5)


def test_each_map_is_made_for_its_own_class() -> None:
    explainer = ladder(pictures(1, 6, 8, 12)[0], 4, 2)
    x = pictures(1, 1, 8, 12)
    judged(ClassSensitivity(), explainer, x, 1)
    assert explainer.targets == [4, 2]
    close(torch.stack(explainer.inputs), x.expand(2, -1, -1, -1))


def test_it_is_the_correlation_of_the_two_maps() -> None:
    network, x = build(networks.Deep), pictures(3, height=64, width=96)
    got = ClassSensitivity().evaluate(Occlusion(network, window=16, stride=8), x)
    assert torch.equal(got, ClassSensitivity().evaluate(Occlusion(network, window=16, stride=8), x, 3))
    for i in range(3):
        scores = network(x[i : i + 1])[0]
        ends = [[int(scores.argmax()), int(scores.argmin())]]
        maps = Occlusion(network, window=16, stride=8).attribute(x[i : i + 1], ends)[0].flatten(1)
        assert float(got[i]) == pytest.approx((1 - float(torch.corrcoef(maps)[0, 1])) / 2, abs=1e-5)


def test_a_method_that_does_not_look_at_the_class_is_not_sensitive_to_it() -> None:
    found = ClassSensitivity().evaluate(ActivationMap(build(networks.Pooled)), pictures(2))
    close(found, torch.zeros(2, dtype=torch.float64), atol=1e-6, rtol=0)


def test_flat_maps_and_networks_without_two_classes() -> None:
    maps, x = pictures(1, 3, 8, 12)[0], pictures(1, 1, 8, 12)
    maps[2] = 0.25
    assert judged(ClassSensitivity(), ladder(maps, 0, 2), x) == 0.5
    assert judged(ClassSensitivity(), ladder(maps, 2, 0), x) == 0.5
    maps[0] = 0.0
    assert math.isnan(judged(ClassSensitivity(), ladder(maps, 0, 2), x))
    maps = pictures(1, 3, 8, 12)[0]
    assert math.isnan(judged(ClassSensitivity(), own(Weighted(maps[:1], torch.zeros(1))), x, 0))
    assert math.isnan(judged(ClassSensitivity(), own(Weighted(0 * maps, torch.ones(3))), x))


WRONG: list[tuple[Any, dict[str, Any], str]] = [
    (Robustness, {"radius": 0}, "radius must be a positive number, got 0."),
    (Robustness, {"samples": 0}, "samples must be a positive integer, got 0."),
    (Robustness, {"seed": 1.5}, "seed must be an integer, got 1.5."),
    (Robustness, {"num_labels": True}, "num_labels must be a positive integer or None, got True."),
    (Robustness, {"activation_fn": "relu"},
     "activation_fn must be 'auto', 'softmax', 'sigmoid', None or a callable, got 'relu'."),
    (Robustness, {"perturbation_per_eval": 0}, "perturbation_per_eval must be a positive integer or 'auto', got 0."),
    (MaxSensitivity, {"radius": float("inf")}, "radius must be a positive number, got inf."),
    (MaxSensitivity, {"samples": 2.0}, "samples must be a positive integer, got 2.0."),
    (MaxSensitivity, {"seed": True}, "seed must be an integer, got True."),
    (MaxSensitivity, {"perturbation_per_eval": "a"},
     "perturbation_per_eval must be a positive integer or 'auto', got 'a'."),
    (ClassSensitivity, {"num_labels": -1}, "num_labels must be a positive integer or None, got -1."),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "parameters", "said"), WRONG, ids=[f"{k.__name__}-{p}" for k, p, _ in WRONG])
def test_wrong_parameters(kind: Any, parameters: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match="^" + re.escape(said) + "$"):
        kind(**parameters)


def test_half_precision_networks() -> None:
    network = build(networks.Pooled).to(torch.bfloat16)
    x = pictures(1).to(torch.bfloat16)
    for metric in (Robustness(), MaxSensitivity(), ClassSensitivity()):
        assert bool(metric.evaluate(Gradient(network), x, 1).isfinite().all())
