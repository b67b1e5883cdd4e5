"""IntegratedGradients and InputXGradient against closed forms, a slow twin and Captum."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from captum import attr
from torch import Tensor, nn

from seewhy import baseline as covers
from seewhy.errors import InvalidInput
from seewhy.explainers import InputXGradient, IntegratedGradients
from support import networks
from support.networks import CLASSES, build, pictures

close = torch.testing.assert_close


class Power(nn.Module):
    """f(x)_c = <w_c, x^p>: integrated gradients are w (x^p - b^p)."""

    def __init__(self, power: int) -> None:
        super().__init__()
        self.power, self.weight = power, nn.Parameter(torch.randn(CLASSES, 3, 8, 12))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("nchw,kchw->nk", x**self.power, self.weight)


class Homogeneous(nn.Module):
    """ReLUs without a bias: the gradient is the same all the way from 0 to the picture."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.Linear(8, CLASSES, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv(x).relu().mean((2, 3)))


COLOURS = torch.tensor([1.0, 2.0, 3.0]).view(3, 1, 1)


@pytest.mark.parametrize("baseline", [0.0, 2, "mean", "blur", COLOURS, pictures(2, 3, 8, 12, seed=9)])
def test_a_linear_network_is_explained_exactly_by_one_step(baseline: Any) -> None:
    network, x = build(networks.Linear), pictures(2, height=8, width=12)
    way = x - covers.make(baseline, x)
    want = torch.einsum("nchw,kchw->nkhw", way, network.weight.detach())
    for steps in (1, 7):
        found = IntegratedGradients(network, steps=steps, baseline=baseline).run(x, "all")
        close(found.raw, want, atol=1e-5, rtol=1e-5)
        assert not any("adds up" in w for w in found.warnings)


@pytest.mark.parametrize("power", [2, 3])
def test_powers(power: int) -> None:
    network, x = build(Power, power), pictures(2, height=8, width=12)
    start = pictures(2, 3, 8, 12, seed=9)
    want = torch.einsum("nchw,kchw->nkhw", x**power - start**power, network.weight.detach())
    errors = [
        float((IntegratedGradients(network, steps=s, baseline=start).attribute(x, "all") - want).abs().max())
        for s in (20, 40, 200)
    ]
    assert errors[2] < 1e-4 * float(want.abs().max())
    assert 3.5 < errors[0] / errors[1] < 4.5  # of second order


def test_it_is_the_rule_of_its_documentation() -> None:
    network, x, steps = build(networks.Pooled), pictures(2, height=16, width=24), 5
    want = torch.zeros(2, 1, 16, 24)
    for image in range(2):
        start = x[image].mean((1, 2), keepdim=True)
        for s in range(steps):
            u = (s + 0.5) / steps
            point = (start + u * u * (x[image] - start)).requires_grad_()
            (gradient,) = torch.autograd.grad(network(point[None])[0, 3], point)
            want[image, 0] += 2 * u / steps * (gradient * (x[image] - start)).sum(0)
    close(IntegratedGradients(network, steps=steps, baseline="mean").attribute(x, 3), want, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("start", [0.0, 0.7])
def test_it_is_captums_on_a_smooth_network(start: float) -> None:
    network, x = build(networks.Pooled, nn.GELU), pictures(3)
    theirs = attr.IntegratedGradients(network).attribute(x, baselines=start, target=[0, 1, 2], n_steps=100)
    got = IntegratedGradients(network, steps=200, baseline=start).attribute(x, [0, 1, 2])
    close(got, theirs.sum(1, keepdim=True).float(), atol=2e-6, rtol=1e-3)


def test_of_a_homogeneous_network_it_is_input_x_gradient() -> None:
    network, x = build(Homogeneous), pictures(3)
    want = InputXGradient(network).attribute(x, "all")
    close(IntegratedGradients(network, steps=3).attribute(x, "all"), want, atol=1e-6, rtol=1e-4)
    close(want.sum((2, 3)), network(x).detach(), atol=1e-5, rtol=1e-4)


def test_a_network_that_does_not_change_along_the_path() -> None:
    found = IntegratedGradients(build(networks.Constant)).run(pictures(), "all")
    assert float(found.raw.abs().max()) == 0
    assert not any("adds up" in w for w in found.warnings)


class Step(nn.Module):
    """0 but for a steep slope of 8 in the middle of the path, which few steps step over."""

    def forward(self, x: Tensor) -> Tensor:
        value = 800 * ((x.mean((1, 2, 3)) - 0.5).clamp(-0.005, 0.005) + 0.005)
        return torch.stack([value, x.mean((1, 2, 3)), value - 8.0 * (x.mean((1, 2, 3)) > 0)], 1)


def test_a_gap_is_measured_and_said() -> None:
    x = torch.ones(1, 1, 8, 8)
    found = IntegratedGradients(Step(), steps=4).run(x, [[0, 1]])
    said = (
        "Image 0, class 0: the map adds up to 0, but the score changes by 8 from the baseline to the image. Use more "
        "than 4 steps."
    )
    assert [w for w in found.warnings if "adds up" in w] == [said]
    assert not any("adds up" in w for w in IntegratedGradients(Step(), steps=2000).run(x, 0).warnings)


def test_the_tolerance_is_a_share_of_the_change() -> None:
    network, x = build(networks.Pooled), pictures(1)
    coarse = IntegratedGradients(network, steps=3)
    change = (network(x)[0, 1] - network(torch.zeros_like(x))[0, 1]).detach()
    gap = float((coarse.attribute(x, 1).sum() - change).abs() / change.abs())
    assert gap > 0.001
    for factor, warned in ((0.9, True), (1.1, False)):
        found = IntegratedGradients(network, steps=3, tolerance=factor * gap).run(x, 1)
        assert any("adds up" in w for w in found.warnings) == warned


def test_no_change_at_all_against_a_map_of_something() -> None:
    found = IntegratedGradients(Step(), steps=500).run(torch.ones(1, 1, 8, 8), 2)  # it jumps back without a slope
    assert any(re.match(r"Image 0, class 2: the map adds up to \d\S*, but the score changes by 0 ", w)
               for w in found.warnings)  # fmt: skip


@pytest.mark.parametrize(
    ("parameters", "starts"),
    [({}, 1), ({"baseline": COLOURS}, 1), ({"baseline": "blur"}, 3), ({"baseline": pictures(3)}, 3),
     ({"baselines": pictures(4)}, 4), ({"baselines": pictures(9)}, 6)],
)  # fmt: skip
def test_no_pass_is_wasted(parameters: dict[str, Any], starts: int) -> None:
    found = IntegratedGradients(build(networks.Pooled), steps=6, **parameters).run(pictures(3), [[0, 1]] * 3)
    assert found.passes.forward == 3 + starts + 3 * 6
    assert found.passes.backward == 3 * 6 * 2


def test_expected_gradients_of_a_linear_network() -> None:
    network, x, samples = build(networks.Linear), pictures(2, height=8, width=12), pictures(5, 3, 8, 12, seed=4)
    want = torch.einsum("nchw,kchw->nkhw", x - samples.mean(0), network.weight.detach())
    found = IntegratedGradients(network, steps=10, baselines=samples).run(x, "all")  # each sample twice
    close(found.raw, want, atol=1e-5, rtol=1e-4)
    assert not any("adds up" in w for w in found.warnings)


def test_expected_gradients_measure_the_gap_from_the_samples_that_were_used() -> None:
    network, x, samples = build(networks.Linear), pictures(1, height=8, width=12), pictures(3, 3, 8, 12, seed=4)
    samples[0] *= 100  # used once or twice in four steps, the others once
    found = IntegratedGradients(network, steps=4, baselines=samples, tolerance=1e-3).run(x, "all")
    assert not any("adds up" in w for w in found.warnings)
    used = IntegratedGradients(network, steps=4, baselines=samples, seed=1, tolerance=1e-3).run(x, "all")
    assert not any("adds up" in w for w in used.warnings)


def test_expected_gradients_converge_to_the_mean_over_samples() -> None:
    network, x, samples = build(Power, 3), pictures(2, height=8, width=12), pictures(5, 3, 8, 12, seed=4)
    want = torch.einsum("nchw,kchw->nkhw", x**3 - (samples**3).mean(0), network.weight.detach())
    errors = []
    for steps in (20, 2000):
        got = IntegratedGradients(network, steps=steps, baselines=samples, perturbation_per_eval=64).attribute(x, "all")
        errors.append(float((got - want).square().mean().sqrt() / want.std()))
    assert errors[1] < 0.02 < errors[0]


def test_expected_gradients_are_unbiased_and_seeded() -> None:
    network, x, samples = build(Power, 3), pictures(1, height=8, width=12), pictures(3, 3, 8, 12, seed=4)
    maps = [IntegratedGradients(network, steps=4, baselines=samples, seed=s).attribute(x, 0) for s in range(400)]
    want = torch.einsum("nchw,chw->nhw", x**3 - (samples**3).mean(0), network.weight.detach()[0])
    mean, error = torch.stack(maps).mean(0)[:, 0], torch.stack(maps).std(0)[:, 0] / 20
    assert float(((mean - want) / error).abs().mean()) < 1.2  # of a normal distribution 0.8
    assert torch.equal(maps[0], IntegratedGradients(network, steps=4, baselines=samples, seed=0).attribute(x, 0))
    assert not torch.allclose(maps[0], maps[1])


def test_expected_gradients_give_each_image_the_same_samples() -> None:
    network, x, samples = build(networks.Pooled), pictures(3), pictures(5, seed=4)
    together = IntegratedGradients(network, steps=8, baselines=samples, perturbation_per_eval=5).attribute(x, [0, 1, 2])
    for i in range(3):
        alone = IntegratedGradients(network, steps=8, baselines=samples).attribute(x[i : i + 1], i)
        close(together[i : i + 1], alone, atol=1e-6, rtol=1e-5)


def test_targets_that_are_not_classes() -> None:
    network, x = build(networks.Pooled), pictures(2)
    want = IntegratedGradients(network, steps=8).attribute(x, [[1, 4]] * 2)
    got = IntegratedGradients(network, steps=8).attribute(x, [lambda o: o.classes[:, 1], lambda o: o.classes[:, 4]])
    close(got, want)


def test_underflow_is_said() -> None:
    network = build(networks.Linear).half()
    with torch.no_grad():
        network.weight[:, :, ::2] = 0.0
    x = pictures(height=8, width=12)
    for method in (IntegratedGradients, InputXGradient):
        said = "50% of the gradient is exactly zero in float16. Use a float32 or bfloat16 network to be sure."
        assert said in method(network).run(x.half(), 1).warnings
        assert said not in method(build(networks.Linear)).run(x, 1).warnings


def test_input_x_gradient_of_a_linear_network() -> None:
    network, x = build(networks.Linear), pictures(height=8, width=12)
    product = network.weight.detach() * x.unsqueeze(1)
    for reduce, want in (
        ("sum", product.sum(2)),
        ("max_abs", product.abs().amax(2)),
        ("mean_abs", product.abs().mean(2)),
    ):
        close(InputXGradient(network, reduce=reduce).attribute(x, "all"), want)
    close(InputXGradient(network).attribute(x, "all"), product.sum(2))
    close(product.sum((2, 3, 4)), network(x).detach(), atol=1e-4, rtol=1e-5)


def test_input_x_gradient_is_captums() -> None:
    network, x = build(networks.Residual), pictures(3)
    want = attr.InputXGradient(network).attribute(x.clone().requires_grad_(), target=[0, 1, 2]).detach()
    close(InputXGradient(network).attribute(x, [0, 1, 2]), want.sum(1, keepdim=True), atol=1e-6, rtol=1e-4)


WRONG = [
    ({"steps": 0}, "steps must be a positive integer, got 0."),
    ({"steps": 8.0}, "steps must be a positive integer, got 8.0."),
    ({"tolerance": 0}, "tolerance must be a positive number, got 0."),
    ({"tolerance": float("nan")}, "tolerance must be a positive number, got nan."),
    ({"seed": "one"}, "seed must be an integer, got 'one'."),
    ({"baseline": "black"}, "baseline must be a number, 'mean', 'blur' or a tensor, got 'black'."),
    ({"perturbation_per_eval": 0}, "perturbation_per_eval must be a positive integer or 'auto', got 0."),
    ({"baselines": 3}, "baselines must be a tensor (M, C, H, W), got int."),
    ({"baselines": torch.zeros(3, 8, 8)}, "baselines must be a tensor (M, C, H, W), got (3, 8, 8)."),
    ({"baselines": torch.zeros(0, 3, 8, 8)}, "baselines must be a tensor (M, C, H, W), got (0, 3, 8, 8)."),
    ({"baselines": torch.full((1, 3, 8, 8), torch.nan)},
     "baselines must be floating point without NaN or infinite values."),
    ({"baselines": torch.zeros(1, 3, 8, 8).byte()}, "baselines must be floating point without NaN or infinite values."),
    ({"baselines": torch.zeros(1, 3, 8, 8), "baseline": "blur"}, "Pass baseline or baselines, not both."),
]  # fmt: skip


@pytest.mark.parametrize(("parameters", "said"), WRONG)
def test_wrong_parameters(parameters: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match="^" + re.escape(said) + "$"):
        IntegratedGradients(build(networks.Pooled), **parameters)


def test_baselines_of_another_size() -> None:
    said = "baselines must have shape (M, 3, 32, 32) like the inputs, got (2, 3, 16, 16)."
    with pytest.raises(InvalidInput, match="^" + re.escape(said) + "$"):
        IntegratedGradients(build(networks.Pooled), baselines=torch.zeros(2, 3, 16, 16))(pictures())


def test_a_gap_is_measured_by_the_change_of_the_score_however_large_the_map_is() -> None:
    """Positive and negative parts of 100 leave a change of 1: a gap of 0.3 is 30 % of it, and 0.15 % of the map."""
    raw = torch.zeros(1, 1, 4, 4)
    raw[0, 0, 0, 0], raw[0, 0, 0, 1] = 100.7, -100.0
    method = IntegratedGradients(build(networks.Pooled))
    (note,) = method._gaps(raw, torch.tensor([[1.0]]))
    assert "adds up to 0.7, but the score changes by 1" in note.text
    assert method._gaps(raw, torch.tensor([[0.7]])) == []
