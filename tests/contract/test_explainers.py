"""What every explainer promises, tried on everything that the registry finds."""

from __future__ import annotations

import copy
import pickle
import random
import re
import sys
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from seewhy import registry
from seewhy.errors import InputRefused, UnknownParameter
from seewhy.maps import upsample
from seewhy.models import GradientModel
from seewhy.models.adapters import as_model
from support import detector_networks, networks
from support.explainer_cases import (
    BATCHED,
    DETECTIONS,
    LAYERED,
    TOKENS,
    close,
    every,
    make,
    zoo,
)
from support.networks import CLASSES, build, pictures
from support.typed import present, unchecked


@pytest.fixture
def net(request: pytest.FixtureRequest) -> Any:
    return build(zoo(request.node.callspec.params["name"]).Pooled)


@every
def test_the_form_of_the_result(name: str, net: nn.Module) -> None:
    x = pictures(3)
    saliency, raw = make(name, net)(x), make(name, net).attribute(x)
    assert saliency.shape == raw.shape == (3, 1, 32, 32)
    assert saliency.dtype == raw.dtype == torch.float32
    assert not raw.requires_grad
    assert not raw.is_inference()
    if registry.load("explainers", name).values == "score":
        assert torch.equal(saliency, raw)
        assert 0 <= float(raw.min()) < float(raw.max()) <= 1
        return
    close(saliency.amax((2, 3)), torch.ones(3, 1))
    close(saliency.amin((2, 3)), torch.zeros(3, 1))


@every
def test_neighbours_in_the_batch_do_not_matter(name: str, net: nn.Module) -> None:
    x = pictures(4)
    together = make(name, net).attribute(x, [0, 1, 2, 3])
    for i in range(4):
        close(together[i : i + 1], make(name, net).attribute(x[i : i + 1], i))


@every
def test_the_same_call_gives_the_same_map_and_leaves_chance_alone(name: str) -> None:
    network, x = build(zoo(name).Counting), pictures()
    states = torch.get_rng_state(), np.random.get_state(legacy=False)["state"]["key"].copy(), random.getstate()
    first, second = make(name, network).attribute(x), make(name, network).attribute(x)
    assert torch.equal(first, second)
    assert torch.equal(states[0], torch.get_rng_state())
    assert (states[1] == np.random.get_state(legacy=False)["state"]["key"]).all()
    assert states[2] == random.getstate()


@every
def test_chance_is_not_read_from_the_global_state(name: str, net: nn.Module) -> None:
    first = make(name, net).attribute(pictures())
    torch.manual_seed(77)
    assert torch.equal(first, make(name, net).attribute(pictures()))


@every
def test_a_flat_map_gives_zeros(name: str) -> None:
    if name in ("random_map", "centre_map"):
        pytest.skip("it does not look at the network, so it is never flat")
    if name in TOKENS:
        pytest.skip("where tokens that do not depend on the picture lie cannot be found out, which is an error")
    network = build(detector_networks.Constant if name in DETECTIONS else networks.Constant)
    with torch.no_grad():
        (network.conv1 if name in DETECTIONS else network.conv).bias.zero_()
    saliency = make(name, network)(torch.zeros(2, 3, 32, 32), "all")
    assert torch.equal(saliency, torch.zeros(2, CLASSES, 32, 32))


@every
@pytest.mark.parametrize("size", [(64, 96), (96, 64)])
def test_pictures_that_are_not_square(name: str, net: nn.Module, size: tuple[int, int]) -> None:
    x = torch.zeros(1, 3, *size)
    x[..., 40:56, 8:24] = (
        pictures(1, height=16, width=16) * 4
    )  # low and left: a transposed map would be bright elsewhere
    raw = make(name, net).attribute(x, 1)
    assert raw.shape == (1, 1, *size)
    turned = make(name, _Turned(net)).attribute(x.transpose(2, 3).contiguous(), 1)
    if name not in (
        "rise",
        "rise_plus",
        "smooth_grad",
        "hsic",
        "random_map",
        "tis",
    ):  # their chance is not the turned one
        close(turned.transpose(2, 3), raw)


class _Turned(nn.Module):
    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = copy.deepcopy(inner)
        for conv in (self.inner.conv1, self.inner.conv2):
            conv.weight = nn.Parameter(conv.weight.transpose(2, 3).contiguous())

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


@every
def test_one_channel(name: str) -> None:
    raw = make(name, build(zoo(name).Pooled, channels=1)).attribute(pictures(3, channels=1), 2)
    assert raw.shape == (3, 1, 32, 32)
    assert float(raw.std()) > 0


@every
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float16, 0.05), (torch.bfloat16, 0.2), (torch.float64, 1e-5)])
@pytest.mark.slow
def test_other_floating_point_types(name: str, net: nn.Module, dtype: torch.dtype, atol: float) -> None:
    if name == "random_map" and dtype != torch.float64:
        pytest.skip("its noise is seeded by the picture, and a rounded picture is another one")
    want = make(name, net)(pictures(), 1)
    got = make(name, copy.deepcopy(net).to(dtype))(pictures().to(dtype), 1)
    assert got.dtype == torch.float32
    if name == "vit_recipro_cam":  # its map spans a hundredth of the logits here, so float32 leaves five digits of it
        atol = max(atol, 1e-4)
    assert float((got - want).abs().mean()) < atol


@every
@pytest.mark.parametrize("layout", ["channels_last", "strided", "expanded", "leaf"])
@pytest.mark.slow
def test_every_layout_of_the_inputs(name: str, net: nn.Module, layout: str) -> None:
    x = pictures()[:1].repeat(2, 1, 1, 1)
    wide = torch.zeros(2, 3, 32, 64)
    wide[..., ::2] = x
    laid = {"channels_last": x.contiguous(memory_format=torch.channels_last), "strided": wide[..., ::2],
            "expanded": x[:1].expand(2, -1, -1, -1), "leaf": x.clone().requires_grad_()}[layout]  # fmt: skip
    close(make(name, net).attribute(laid, 1), make(name, net).attribute(x, 1))
    assert laid.grad is None


@every
def test_the_inputs_are_not_modified(name: str) -> None:
    x = pictures()
    make(name, build(zoo(name).Careless))(x, 1)
    assert torch.equal(x, pictures())


@every
def test_several_targets_are_the_single_ones(name: str, net: nn.Module) -> None:
    x = pictures()
    everything = make(name, net).attribute(x, "all")
    assert everything.shape[1] == CLASSES
    for t in range(CLASSES):
        close(everything[:, t : t + 1], make(name, net).attribute(x, t))
    some = make(name, net).attribute(x, [[3, 0], [1, 4]])
    close(some[0], everything[0, [3, 0]])
    close(some[1], everything[1, [1, 4]])
    predicted = as_model(net)(x).classes.argmax(1)
    close(make(name, net).attribute(x), everything[range(2), predicted].unsqueeze(1))


@every
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_inside_no_grad_and_inference_mode(name: str, net: nn.Module, mode: Any) -> None:
    want = make(name, net).attribute(pictures(), [1, 2])
    with mode():
        got = make(name, net).attribute(pictures(), torch.tensor([1, 2]))
        assert torch.is_inference_mode_enabled() == (mode is torch.inference_mode)
        assert not torch.is_grad_enabled()
    assert torch.equal(got, want)


@every
def test_frozen_and_training_networks_give_the_same(name: str) -> None:
    network = build(zoo(name).Dropout)
    want = make(name, network).attribute(pictures(), 1)
    assert torch.equal(make(name, copy.deepcopy(network).train()).attribute(pictures(), 1), want)
    assert torch.equal(make(name, copy.deepcopy(network).requires_grad_(False)).attribute(pictures(), 1), want)


@every
@pytest.mark.compile
@pytest.mark.parametrize("way", networks.WAYS)
def test_compiled_networks(name: str, net: nn.Module, way: str) -> None:
    want = make(name, net).attribute(pictures(), 1)
    compiled = networks.compiled(copy.deepcopy(net), way, pictures())
    close(make(name, compiled).attribute(pictures(), 1), want)


def _state(network: nn.Module) -> dict[str, Any]:
    return {
        "training": [m.training for m in network.modules()],
        "requires_grad": [p.requires_grad for p in network.parameters()],
        "grad": [None if p.grad is None else p.grad.clone() for p in network.parameters()],
        "hooks": [
            len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in network.modules()
        ],
        "weights": {k: v.clone() for k, v in network.state_dict().items()},
        "chance": torch.get_rng_state(),
    }


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_equal(a[k], b[k]) for k in a)
    return len(a) == len(b) and all(map(_equal, a, b)) if isinstance(a, list) else bool(a == b)


def _mixed(network: Any) -> Any:
    """Some modules in training mode, some parameters frozen, some with a gradient, one with a user's hook."""
    network.train()
    network.bn1.eval()
    network.conv1.requires_grad_(False)
    network.fc.weight.grad = torch.ones_like(network.fc.weight)
    network.conv2.register_forward_hook(lambda *_: None)
    return network


@every
def test_the_network_is_left_as_it_was_found(name: str) -> None:
    network = _mixed(build(zoo(name).Counting))
    before = _state(network)
    make(name, network)(pictures(), "all")
    assert _equal(before, _state(network))


@every
@pytest.mark.parametrize("where", ["forward", "backward"])
def test_the_network_is_left_as_it_was_found_after_an_error(name: str, where: str) -> None:
    network = _mixed(build(zoo(name).Failing, where))
    before = _state(network)
    explainer = make(name, network)
    if where == "forward":
        with pytest.raises(InputRefused, match="It says: broken on purpose"):
            explainer(pictures())
    elif explainer.needs is GradientModel and name not in LAYERED:
        with pytest.raises(RuntimeError, match="broken on purpose"):
            explainer(pictures())
    assert _equal(before, _state(network))
    assert not torch.is_inference_mode_enabled()
    assert torch.is_grad_enabled()


@every
def test_every_parameter_has_a_default(name: str) -> None:
    for field in fields(registry.load("explainers", name)):
        assert field.name == "network" or field.default is not MISSING or field.default_factory is not MISSING


@every
def test_equality_hash_and_repr(name: str, net: nn.Module) -> None:
    one, same, other = make(name, net), make(name, net), make(name, build(zoo(name).Pooled))
    assert one == same
    assert hash(one) == hash(same)
    assert one != other
    assert one != "one"
    assert repr(one).startswith(f"{type(one).__name__}(Pooled")
    for parameter, value in one.parameters.items():
        assert f"{parameter}={value!r}" in repr(one)
    with pytest.raises(AttributeError):
        unchecked(one).network = other.network  # frozen


@every
def test_pickle_gives_an_equal_one(name: str, net: nn.Module) -> None:
    one = make(name, net)
    two = pickle.loads(pickle.dumps(one))
    assert type(two) is type(one)
    assert {**two.parameters, "ood_net": None} == {**one.parameters, "ood_net": None}  # a copy of a module is another
    assert torch.equal(two.attribute(pictures(), 1), one.attribute(pictures(), 1))


@every
def test_documentation_and_names(name: str) -> None:
    cls = registry.load("explainers", name)
    source = present(sys.modules[cls.__module__].__doc__)
    assert re.search(r"[A-Z][a-z]+.*\b(19|20)\d\d\b", source, re.DOTALL), "no author and year"
    first, *more = cls.__doc__.splitlines()
    assert re.fullmatch(r"[A-Z][^.]*(\([A-Z][^.]*(et al\.)?[^.]* (19|20)\d\d\))?\.", first)
    assert not more or not more[0].strip()
    assert cls.__name__.lower() == name.replace("_", "")
    assert Path(present(sys.modules[cls.__module__].__file__)).stem == name


@every
def test_an_unknown_keyword_names_the_nearest(name: str, net: nn.Module) -> None:
    cls = registry.load("explainers", name)
    known = [f.name for f in fields(cls)][1:]
    wrong = known[0][:-1]
    with pytest.raises(
        UnknownParameter, match=re.escape(f"{cls.__name__} has no parameter {wrong!r}. Did you mean")
    ) as said:
        cls(net, **{wrong: 1})
    assert repr(known[0]) in str(said.value)
    first = "ood_net" if name == "rise_plus" else "network"
    with pytest.raises(
        UnknownParameter, match=re.escape(f"{cls.__name__} takes the {first}, and parameters by name: ")
    ):
        cls(net, 1)


@pytest.mark.parametrize("name", LAYERED)
def test_native_maps_are_those_before_enlarging(name: str, net: nn.Module) -> None:
    x = pictures(height=32, width=48)
    native, raw = make(name, net).attribute(x, "all", native=True), make(name, net).attribute(x, "all")
    assert native.shape == (2, CLASSES, 8, 12)
    assert torch.equal(raw, upsample(native, (32, 48)))
    want = torch.nn.functional.interpolate(native, (32, 48), mode="bilinear", align_corners=False)
    assert torch.equal(raw, want)


@pytest.mark.parametrize("name", BATCHED)
def test_the_size_of_the_passes_does_not_matter(name: str) -> None:
    network = build(zoo(name).Deep)
    want = make(name, network, perturbation_per_eval=32).attribute(pictures(), [[0, 1], [2, 3]])
    for size in (1, 3, "auto"):
        close(make(name, network, perturbation_per_eval=size).attribute(pictures(), [[0, 1], [2, 3]]), want, 1e-6)


@every
@pytest.mark.parametrize("kind", [networks.Pooled, networks.Constant])
def test_passes_are_counted_right(name: str, kind: type[nn.Module], monkeypatch: pytest.MonkeyPatch) -> None:
    if name in TOKENS and kind is networks.Constant:
        pytest.skip("where tokens that do not depend on the picture lie cannot be found out, which is an error")
    network = build(getattr(zoo(name), kind.__name__))
    if name in TOKENS:  # what is run again above the first layer alone is no pass
        network.conv1 = counter = networks.Counted(network.conv1)
    else:
        network = counter = networks.Counted(network)
    differentiate, walked = torch.autograd.grad, []

    def counted(value: Tensor, leaf: Any, *args: Any, **options: Any) -> Any:
        walked.append(len(leaf if isinstance(leaf, Tensor) else leaf[0]))
        return differentiate(value, leaf, *args, **options)

    monkeypatch.setattr(torch.autograd, "grad", counted)
    first, again = (make(name, network).run(pictures(3), [[0, 1]] * 3).passes for _ in range(2))
    assert counter.images == first.forward + again.forward
    assert sum(walked) == first.backward + again.backward
    if name in ("gradient", "guided_backprop", "deconvolution"):
        assert again.backward == 6
    if name in LAYERED and name not in ("score_cam", "vit_recipro_cam"):  # which shows the network a picture a channel
        assert (first.forward, again.forward) == (4, 3)  # the layer is chosen once, with one image
