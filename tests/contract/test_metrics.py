"""What every metric in the registry must hold to, whoever wrote it."""

from __future__ import annotations

import copy
import math
import pickle
import random
import re
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from seewhy import registry
from seewhy.errors import InvalidInput, UnknownParameter
from seewhy.explainers.gradient import Gradient
from seewhy.explainers.occlusion import Occlusion
from seewhy.metrics import Metric, cases
from support import networks
from support.networks import build, pictures

NAMES = registry.names("metrics")
SMALL: dict[str, dict[str, Any]] = {}

every = pytest.mark.parametrize("name", NAMES)


def make(name: str, **parameters: Any) -> Metric:
    return registry.load("metrics", name)(**{**SMALL.get(name, {}), **parameters})


def truth(x: Tensor) -> Tensor:
    mask = torch.zeros((len(x), *x.shape[2:]), dtype=torch.bool)
    mask[:, 8:20, 4:16] = True
    return mask


def judge(name: str, x: Tensor, network: nn.Module, targets: Any = 1, **more: Any) -> Tensor:
    return make(name).evaluate(Gradient(network), x, targets, mask=truth(x), **more)


@every
def test_one_number_for_each_image_within_the_range(name: str) -> None:
    found = judge(name, pictures(3), build(networks.Pooled))
    low, high = make(name).range
    assert found.shape == (3,)
    assert found.dtype == torch.float64
    assert bool(found.isfinite().all())
    assert bool(((found >= low) & (found <= high)).all())


@every
@pytest.mark.parametrize("size", [(64, 96), (96, 64)])
def test_pictures_that_are_not_square(name: str, size: tuple[int, int]) -> None:
    assert bool(judge(name, pictures(1, height=size[0], width=size[1]), build(networks.Pooled)).isfinite().all())


@every
def test_one_channel(name: str) -> None:
    found = judge(name, pictures(2, channels=1), build(networks.Pooled, channels=1))
    assert bool(found.isfinite().all())


@every
def test_neighbours_in_the_batch_do_not_matter(name: str) -> None:
    network, x = build(networks.Pooled), pictures(3)
    together = judge(name, x, network, [0, 1, 2])
    alone = torch.cat([judge(name, x[i : i + 1], network, i) for i in range(3)])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)


@every
def test_the_same_call_gives_the_same_number_and_leaves_chance_alone(name: str) -> None:
    network, x = build(networks.Pooled), pictures(2)
    states = torch.get_rng_state(), np.random.get_state(legacy=False)["state"]["key"].copy(), random.getstate()
    first = judge(name, x, network)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    assert torch.equal(first, judge(name, x, network))
    assert torch.equal(state, torch.get_rng_state())
    torch.set_rng_state(states[0])
    assert (states[1] == np.random.get_state(legacy=False)["state"]["key"]).all()
    assert states[2] == random.getstate()


@every
def test_the_network_is_left_as_it_was(name: str) -> None:
    network = build(networks.Pooled).train()
    before = copy.deepcopy(network.state_dict())
    judge(name, pictures(2), network)
    assert network.training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in network.parameters())


@every
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_inside_no_grad_and_inference_mode(name: str, mode: Any) -> None:
    network, x = build(networks.Pooled), pictures(2)
    want = judge(name, x, network)
    with mode():
        torch.testing.assert_close(judge(name, x, network), want)


@every
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_flat_map_gives_a_number_in_range_or_no_data(name: str, value: float) -> None:
    x = pictures(2)
    found = judge(name, x, build(networks.Pooled), saliency=torch.full((2, 32, 32), value))
    low, high = make(name).range
    assert all(math.isnan(v) or low <= v <= high for v in found.tolist())


@every
def test_a_network_that_says_the_same_of_everything(name: str) -> None:
    found = judge(name, pictures(2), build(networks.Constant), 0)
    low, high = make(name).range
    assert all(math.isnan(v) or low <= v <= high for v in found.tolist())


@every
def test_the_cost_is_what_it_says(name: str) -> None:
    network = networks.Counted(build(networks.Pooled))
    x, explained = pictures(1), 0
    explainer = Occlusion(network, window=16, stride=16)
    (case,) = cases(explainer, x, 1, mask=truth(x))

    def explain(images: Tensor, targets: Any) -> Tensor:
        nonlocal explained
        explained += len(images)
        before = network.images
        found = explainer.attribute(images, targets)[:, 0]
        network.images = before
        return found

    network.images = 0
    metric = make(name)
    object.__setattr__(case, "explain", explain)
    metric(case)
    assert (network.images, explained) == tuple(metric.cost(32, 32))


@every
def test_a_missing_or_empty_truth_is_an_error(name: str) -> None:
    metric, explainer, x = make(name), Gradient(build(networks.Pooled)), pictures(1)
    if not metric.needs_truth:
        pytest.skip("it does not compare with the truth")
    title = type(metric).__name__
    said = f"{title} compares the map with the truth. Pass mask=..., (N, H, W) bool."
    with pytest.raises(InvalidInput, match="^" + re.escape(said) + "$"):
        metric.evaluate(explainer, x, 1)
    said = f"The ground truth is empty: {title} needs at least one pixel of the object."
    with pytest.raises(InvalidInput, match="^" + re.escape(said) + "$"):
        metric.evaluate(explainer, x, 1, mask=torch.zeros(1, 32, 32))


@every
def test_a_missing_explainer_is_an_error(name: str) -> None:
    metric, x = make(name), pictures(1)
    if not metric.needs_explainer:
        pytest.skip("it does not explain other images")
    (case,) = cases(Gradient(build(networks.Pooled)), x, 1, mask=truth(x))
    object.__setattr__(case, "explain", None)
    said = f"{type(metric).__name__} explains other images too. Pass the explainer."
    with pytest.raises(InvalidInput, match="^" + re.escape(said) + "$"):
        metric(case)


@every
def test_parameters_have_defaults_and_unknown_ones_are_refused(name: str) -> None:
    kind = registry.load("metrics", name)
    kind()
    with pytest.raises(UnknownParameter, match=f"^{kind.__name__} has no parameter 'no_such_thing'\\. "):
        kind(no_such_thing=1)


@every
def test_equality_repr_and_pickle(name: str) -> None:
    first, second = make(name), make(name)
    assert first == second
    assert repr(first) == repr(second)
    assert repr(first).startswith(type(first).__name__ + "(")
    assert pickle.loads(pickle.dumps(first)) == first


@pytest.mark.parametrize(
    "name", [n for n in NAMES if "baseline" in [f.name for f in fields(registry.load("metrics", n))]]
)
def test_a_baseline_that_is_a_tensor_can_be_compared(name: str) -> None:
    first, again, other = (make(name, baseline=torch.full((3, 1, 1), value)) for value in (0.5, 0.5, 0.4))
    assert first == again
    assert hash(first) == hash(again)
    assert first != other
    assert first != make(name)


@every
def test_the_scale_and_the_source_are_stated(name: str) -> None:
    kind = registry.load("metrics", name)
    assert kind.better in ("higher", "lower")
    assert kind.range[0] < kind.range[1]
    assert re.search(r"(19|20)\d\d", str(__import__(kind.__module__, fromlist=["x"]).__doc__))
    documented = re.findall(r"^ +(\w+): ", "\n".join(c.__doc__ or "" for c in kind.__mro__), flags=re.MULTILINE)
    own = [f.name for f in fields(kind) if f.init]
    assert set(own) <= set(documented), f"not documented: {set(own) - set(documented)}"
