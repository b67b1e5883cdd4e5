"""The parameter randomisation test: which weights change when, that they come back, and both ends of the scale."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from seewhy.errors import InvalidInput, MissingCapability
from seewhy.explainers.activation_map import ActivationMap
from seewhy.explainers.grad_cam import GradCAM
from seewhy.explainers.gradient import Gradient
from seewhy.maps import scale
from seewhy.metrics import cases
from seewhy.metrics._correlation import pearson, spearman
from seewhy.metrics.mprt import MPRT
from support import networks
from support.networks import build, pictures


@dataclass
class Watcher:
    """An explainer that remembers which of the network's weights were not the first ones."""

    network: nn.Module
    how: Callable[[Tensor], Tensor] = lambda inputs: inputs.sum(1)
    changed: list[set[str]] = field(default_factory=list)
    states: list[dict[str, Tensor]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.first = copy.deepcopy(self.network.state_dict())

    def attribute(self, inputs: Tensor, targets: Any = None) -> Tensor:
        state = copy.deepcopy(self.network.state_dict())
        self.states.append(state)
        self.changed.append({name for name, value in state.items() if not torch.equal(value, self.first[name])})
        return self.how(inputs).unsqueeze(1)

    def judge(self, metric: MPRT, x: Tensor) -> float:
        (case,) = cases(self, x, 1)
        self.changed.clear()
        self.states.clear()
        return metric(case)


class Backwards(nn.Module):
    """Layers that are made in another order than they run in."""

    def __init__(self) -> None:
        super().__init__()
        self.last, self.middle, self.first = nn.Linear(8, 5), nn.Linear(8, 8), nn.Conv2d(3, 8, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.middle(self.first(x).relu().mean((2, 3))).relu())


def names(*layers: str) -> set[str]:
    return {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}


def test_from_the_top_down_in_the_order_in_which_layers_run() -> None:
    watcher = Watcher(build(Backwards))
    watcher.judge(MPRT(steps=3), pictures(1))
    assert watcher.changed == [names("last"), names("last", "middle"), names("last", "middle", "first")]
    watcher.judge(MPRT(steps=3, order="independent"), pictures(1))
    assert watcher.changed == [names("last"), names("middle"), names("first")]


def test_more_and_fewer_steps_than_layers() -> None:
    watcher, every = Watcher(build(Backwards)), names("last", "middle", "first")
    watcher.judge(MPRT(steps=1), pictures(1))
    assert watcher.changed == [every]
    watcher.judge(MPRT(steps=2), pictures(1))
    assert watcher.changed == [names("last"), every]
    watcher.judge(MPRT(steps=2, order="independent"), pictures(1))
    assert watcher.changed == [names("last"), names("middle", "first")]
    watcher.judge(MPRT(steps=5), pictures(1))
    assert watcher.changed == [names("last")] * 2 + [names("last", "middle")] * 2 + [every]
    assert not torch.equal(watcher.states[0]["last.weight"], watcher.states[1]["last.weight"])
    watcher.judge(MPRT(steps=5, order="independent"), pictures(1))
    assert watcher.changed == [names("last")] * 2 + [names("middle")] * 2 + [names("first")]


def test_weights_of_modules_that_do_not_run_by_themselves() -> None:
    watcher = Watcher(build(networks.Tokens))
    watcher.judge(MPRT(steps=100, order="independent"), pictures(1))
    order: list[str] = []
    for changed in watcher.changed:
        order += sorted(changed - set(order))
    assert order[:2] == ["head.bias", "head.weight"]
    assert order[-1] == "cls"
    together = next(c for c in watcher.changed if "blocks.1.self_attn.in_proj_weight" in c)
    assert "blocks.1.self_attn.out_proj.weight" in together
    assert order.index("blocks.1.linear1.weight") < order.index("blocks.0.linear1.weight")


class Tied(nn.Module):
    """The first layer's weight is used again by the last."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 5)
        self.last.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.middle(self.first(x.mean((1, 3))).relu()).relu())


def test_shared_weights_belong_to_the_layer_that_runs_last() -> None:
    watcher = Watcher(build(Tied))
    watcher.judge(MPRT(steps=3, order="independent"), pictures(1, height=5))
    assert watcher.changed == [names("last") | {"first.weight"}, names("middle"), {"first.bias"}]


def test_the_drawn_weights_are_as_large_as_those_they_replace() -> None:
    last = nn.Linear(3 * 32 * 32, 40, bias=False)
    network = nn.Sequential(nn.Flatten(), last)
    with torch.no_grad():
        last.weight.normal_(3.0, 0.25)
    watcher = Watcher(network)
    watcher.judge(MPRT(steps=2), pictures(1))
    drawn, first = [state["1.weight"] for state in watcher.states], last.weight.detach()
    for weight in drawn:
        assert float(weight.mean()) == pytest.approx(3.0, abs=0.01)
        assert float(weight.std()) == pytest.approx(0.25, abs=0.01)
        assert abs(pearson(weight, first)) < 0.02
    assert not torch.equal(*drawn)


def test_buffers_and_constant_tensors_stay_and_take_no_step() -> None:
    watcher = Watcher(build(networks.Pooled))
    watcher.judge(MPRT(steps=1), pictures(1))
    assert watcher.changed == [names("conv1", "conv2", "fc")]
    watcher.judge(MPRT(steps=3, order="independent"), pictures(1))
    assert watcher.changed == [names("fc"), names("conv2"), names("conv1")]
    (case,) = cases(Watcher(nn.Sequential(nn.BatchNorm2d(3), nn.Flatten())), pictures(1), 1)
    with pytest.raises(InvalidInput, match=r"'Sequential' has none to replace\.$"):
        MPRT()(case)


@pytest.mark.parametrize("order", ["cascading", "independent"])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_the_weights_come_back_bit_by_bit_after_an_error(order: Any, error: type[BaseException]) -> None:
    network = build(networks.Pooled)
    with torch.no_grad():
        network.fc.weight[0, 0] = -0.0
        network.conv1.bias[1] = 1e-42
    watcher = Watcher(network)
    pointers = [p.data_ptr() for p in network.parameters()]
    bits = [p.detach().clone().view(torch.int32) for p in network.parameters()]

    def how(inputs: Tensor) -> Tensor:
        if len(watcher.changed) == 3:
            raise error("broken on purpose")
        return inputs.sum(1)

    (case,) = cases(watcher, pictures(1), 1)
    watcher.changed.clear()
    watcher.how = how
    with pytest.raises(error, match="broken on purpose"):
        MPRT(order=order)(case)
    assert len(watcher.changed) == 3
    assert all(watcher.changed)
    assert all(torch.equal(p.detach().view(torch.int32), b) for p, b in zip(network.parameters(), bits, strict=True))
    assert pointers == [p.data_ptr() for p in network.parameters()]
    assert not any(m._forward_pre_hooks for m in network.modules())


def test_no_hook_stays_after_an_error_in_the_network() -> None:
    network = build(networks.Pooled)
    (case,) = cases(Watcher(network), pictures(1), 1)
    network.fc = nn.Linear(3, 5)
    with pytest.raises(InvalidInput, match="Pooled refuses an input"):
        MPRT()(case)
    assert not any(m._forward_pre_hooks for m in network.modules())


def test_a_graph_of_the_users_stays_valid() -> None:
    network, x = build(networks.Deep), pictures(1)
    network(x).sum().backward()
    want = [p.grad.clone() for p in network.parameters()]
    network.zero_grad()
    loss = network(x).sum()
    MPRT().evaluate(Gradient(network), x, 1)
    loss.backward()
    assert all(torch.equal(p.grad, g) for p, g in zip(network.parameters(), want, strict=True))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_types_of_weights(dtype: torch.dtype) -> None:
    network = build(networks.Pooled).to(dtype)
    before = copy.deepcopy(network.state_dict())
    found = MPRT().evaluate(Gradient(network), pictures(1).to(dtype), 1)
    assert 0 <= float(found) < 0.9
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_networks_made_in_inference_mode_and_frozen_ones() -> None:
    with torch.inference_mode():
        network = build(Backwards)
    watcher = Watcher(network)
    watcher.judge(MPRT(steps=1), pictures(1))
    assert watcher.changed == [names("last", "middle", "first")]
    assert all(torch.equal(value, watcher.first[key]) for key, value in network.state_dict().items())
    frozen = build(networks.Pooled).requires_grad_(False)
    want = MPRT().evaluate(Gradient(build(networks.Pooled)), pictures(1), 1)
    assert torch.equal(MPRT().evaluate(Gradient(frozen), pictures(1), 1), want)


def test_both_ends() -> None:
    x = pictures(1)
    unmoved = Watcher(build(networks.Pooled), lambda inputs: inputs.abs().sum(1))
    assert unmoved.judge(MPRT(), x) == pytest.approx(1.0)
    flipped = Watcher(build(networks.Pooled), lambda inputs: inputs.sum(1) * (-1.0) ** len(flipped.changed))
    assert flipped.judge(MPRT(), x) == pytest.approx(1.0)  # a map that is only turned over has not forgotten it
    network = build(networks.Linear, 1, 64, 96)
    forgetful = MPRT().evaluate(Gradient(network, reduce="sum"), pictures(1, 1, 64, 96), 1)
    assert float(forgetful) < 0.05
    half = 0.5 * network.weight.detach()[1, 0]
    mixed = Watcher(network, lambda inputs: (half + 0.5 * network.weight.detach()[1, 0])[None])
    assert 0.5 < mixed.judge(MPRT(), pictures(1, 1, 64, 96)) < 0.9


def test_methods_that_look_at_the_network_pass_and_the_head_does_not_matter_to_activation_maps() -> None:
    network, x = build(networks.Pooled), pictures(2, height=64, width=96)
    assert float(MPRT(steps=1).evaluate(GradCAM(network), x, 1).max()) < 0.6
    top = MPRT(steps=5, order="independent")
    (case,) = cases(ActivationMap(network), x[:1], 1)
    found: list[float] = []

    def explain(images: Tensor, target: Any) -> Tensor:
        changed = ActivationMap(network).attribute(images, target)[:, 0]
        found.append(abs(spearman(changed[0], case.saliency)))
        return changed

    object.__setattr__(case, "explain", explain)
    assert top(case) == pytest.approx(sum(found) / 5)
    assert found[0] == pytest.approx(1.0)
    assert min(found) < 0.9


def test_flat_maps() -> None:
    x, network = pictures(1), build(networks.Pooled)
    flat = Watcher(network, lambda inputs: torch.ones(1, 32, 32))
    assert math.isnan(flat.judge(MPRT(), x))
    vanishing = Watcher(network, lambda inputs: inputs.sum(1) * (not vanishing.changed[-1]))
    assert vanishing.judge(MPRT(), x) == 0.0


def test_the_same_number_for_a_map_that_is_scaled_and_another_for_another_seed() -> None:
    network, x = build(networks.Deep), pictures(2)
    want = MPRT().evaluate(Gradient(network), x, 1)
    scaled = scale(Gradient(network).attribute(x, 1))
    torch.testing.assert_close(MPRT().evaluate(Gradient(network), x, 1, saliency=scaled), want, atol=1e-3, rtol=0)
    assert not torch.allclose(MPRT(seed=1).evaluate(Gradient(network), x, 1), want, atol=1e-3)
    assert not torch.allclose(MPRT(similarity="pearson").evaluate(Gradient(network), x, 1), want, atol=1e-3)


def test_the_correlations() -> None:
    chance = torch.Generator().manual_seed(0)
    for levels in (3, 10, 1000):
        a, b = (torch.randint(0, levels, (16, 24), generator=chance).float() ** 3 for _ in range(2))
        b += 0.5 * a
        assert spearman(a, b) == pytest.approx(spearmanr(a.flatten(), b.flatten()).statistic)
        both = torch.stack([a.flatten(), b.flatten()]).double()
        assert pearson(a, b) == pytest.approx(float(torch.corrcoef(both)[0, 1]))
        assert pearson(a, 3 - 2 * a) == pytest.approx(-1)
        assert spearman(a, torch.log1p(a)) == pytest.approx(1)
    assert pearson(1e25 * a, 1e-25 * b) == pytest.approx(pearson(a, b))
    assert math.isnan(pearson(a, torch.ones_like(a)))
    assert math.isnan(spearman(torch.zeros_like(a), a))
    rounding = torch.ones_like(a)
    rounding[::2, ::3] += 1e-7
    assert float(rounding.std()) > 0
    assert math.isnan(pearson(rounding, a))
    assert math.isnan(spearman(a, rounding))


def test_networks_that_have_no_weights() -> None:
    (case,) = cases(Watcher(nn.Flatten()), pictures(1), 1)
    said = "MPRT gives the network random weights, and 'Flatten' has none to replace."
    with pytest.raises(InvalidInput, match="^" + re.escape(said) + "$"):
        MPRT()(case)


def test_networks_that_are_no_torch_modules() -> None:
    def brightness(x: Tensor) -> Tensor:
        return x.mean((2, 3))

    scripted = nn.Sequential(nn.Identity(), torch.jit.script(build(networks.Pooled)))
    for network in (brightness, scripted):
        (case,) = cases(Function(network), pictures(1), 1)
        said = (
            f"MPRT gives the layers of a torch module random weights, and {case.model.name!r} shows none. Load the "
            "network in torch: a callable, a TorchScript and another backend's file hide theirs."
        )
        with pytest.raises(MissingCapability, match="^" + re.escape(said) + "$"):
            MPRT()(case)
    assert not scripted._forward_pre_hooks


@dataclass
class Function:
    """An explainer of a plain function."""

    network: Any

    def attribute(self, inputs: Tensor, targets: Any = None) -> Tensor:
        return inputs.sum(1, keepdim=True)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"order": "bottom up"}, "order must be 'cascading' or 'independent', got 'bottom up'."),
    ({"steps": 0}, "steps must be a positive integer, got 0."),
    ({"similarity": "ssim"}, "similarity must be 'spearman' or 'pearson', got 'ssim'."),
    ({"seed": 0.5}, "seed must be an integer, got 0.5."),
]


@pytest.mark.parametrize(("parameters", "said"), WRONG, ids=[str(p) for p, _ in WRONG])
def test_wrong_parameters(parameters: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match="^" + re.escape(said) + "$"):
        MPRT(**parameters)
