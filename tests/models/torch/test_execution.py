"""How networks run: checkpointed, quantised, at random, with parts in plain lists, twice, nested deep, wrapped."""

from __future__ import annotations

import random
import re
import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from seewhy.errors import InputRefused, InvalidInput, NoSpatialOutput
from seewhy.explainers import RISE, GradCAM, Gradient, ReciproCAM
from seewhy.models.torch.model import TorchModel
from support.networks import CLASSES, Pooled, build, pictures

close = torch.testing.assert_close


class _Checkpointed(Pooled):
    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.reentrant = reentrant
        self.body = nn.Sequential(self.conv1, self.bn1, self.act1, self.conv2, self.bn2, self.act2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.pool(checkpoint(self.body, x, use_reentrant=self.reentrant)).flatten(1))


def test_activations_that_are_computed_again_without_reentry_give_the_same_maps() -> None:
    x, plain, other = pictures(), build(Pooled), build(_Checkpointed, False)
    for method in (GradCAM, Gradient, ReciproCAM):
        close(method(other).attribute(x, 1), method(plain).attribute(x, 1), atol=1e-6, rtol=1e-5)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_activations_that_are_computed_again_with_reentry_are_an_error_for_gradients_alone() -> None:
    said = (
        " computes its activations again in the backward pass (torch.utils.checkpoint), so it cannot be differentiated "
        "at a layer. Switch that off for explaining (gradient_checkpointing_disable() of Hugging Face's models), or "
        "use ReciproCAM, RISE or Occlusion."
    )
    x, plain, other = pictures(), build(Pooled), build(_Checkpointed, True)
    for explainer, who in ((Gradient(other), "_Checkpointed"), (GradCAM(other), "What runs layer 'body'")):
        with pytest.raises(InvalidInput, match=f"^{re.escape(who + said)}$"):
            explainer(x, 1)
    close(ReciproCAM(other).attribute(x, 1), ReciproCAM(plain).attribute(x, 1))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_dynamically_quantised_layers_have_no_gradient() -> None:
    network = torch.ao.quantization.quantize_dynamic(build(Pooled), {nn.Linear}, dtype=torch.qint8)
    said = (
        r"^Pooled has quantised layers \(quantized::linear_dynamic\), which torch does not differentiate: a gradient "
        r"would be zero or leave them out\. Use ReciproCAM, RISE or Occlusion, or the network before it was "
        r"quantised\.$"
    )
    x = pictures()
    for method in (GradCAM, Gradient):
        with pytest.raises(InvalidInput, match=said):
            method(network)(x, 1)
    want = ReciproCAM(build(Pooled)).attribute(x, 1)
    assert float((ReciproCAM(network).attribute(x, 1) - want).abs().amax()) < 0.02 * float(want.abs().amax())


class _Random(Pooled):
    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.dropout(self.pool(self.features(x)).flatten(1), 0.5))


class _Unused(Pooled):
    def forward(self, x: Tensor) -> Tensor:
        F.dropout(x, 0.5)
        torch.rand(3)
        return super().forward(x)


@pytest.mark.parametrize("method", [GradCAM, Gradient, ReciproCAM, RISE])
def test_a_network_that_is_random_in_evaluation_mode_says_so(method: Any) -> None:
    said = (
        "_Random draws random numbers in evaluation mode (bernoulli_): it says something else of the same picture in "
        "each pass, so this map is one of many. Give F.dropout training=self.training."
    )
    assert method(build(_Random)).run(pictures(), 1).warnings[0] == said
    for kind in (_Unused, Pooled):
        assert not any("random numbers" in w for w in method(build(kind)).run(pictures(), 1).warnings)


class _Listed(nn.Module):
    """Its later layers are in a plain list."""

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.stem, self.parts, self.fc = nn.Conv2d(3, 8, 3, 2, 1), list(parts), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for part in self.parts:
            x = part(x)
        return self.fc(x.relu().mean((2, 3)))


def test_parts_in_a_plain_list_are_said() -> None:
    found = GradCAM(build(_Listed, nn.Conv2d(8, 8, 3, 1, 1), nn.ReLU())).run(pictures(), 1)
    assert found.layer == "stem"
    assert found.warnings[0] == (
        "_Listed runs modules that are no part of it (Conv2d, ReLU), as those in a plain list are: they cannot be "
        "named as a layer. Keep them in a torch.nn.ModuleList."
    )


class _AllListed(_Listed):
    """All of its layers but the last are in a plain list."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU())
        del self.stem

    def forward(self, x: Tensor) -> Tensor:
        for part in self.parts:
            x = part(x)
        return self.fc(x.mean((2, 3)))


def test_where_all_layers_are_in_a_plain_list_that_is_what_is_blamed() -> None:
    said = (
        r"^The network's layers \(Conv2d, ReLU\) are no part of it, as those in a plain list are, so none can be "
        r"named\. Keep them in a torch\.nn\.ModuleList, or use "
    )
    with pytest.raises(NoSpatialOutput, match=said):
        GradCAM(build(_AllListed))(pictures(), 1)


@pytest.mark.parametrize("part", [nn.BatchNorm2d(8), nn.Dropout(0.5)])
def test_parts_that_stayed_in_training_mode_are_refused(part: nn.Module) -> None:
    network, before = build(_Listed, part), {n: b.clone() for n, b in part.named_buffers()}
    said = (
        rf"^_Listed runs a {type(part).__name__} in training mode that is no part of it, so eval\(\) does not reach "
        r"it\. Keep it in a torch\.nn\.ModuleList instead of a plain list\.$"
    )
    for method in (GradCAM, RISE):
        with pytest.raises(InvalidInput, match=said):
            method(network)(pictures(), 1)
    for name, buffer in part.named_buffers():
        close(buffer, before[name])


class _Recurrent(Pooled):
    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__()
        self.rows, self.fc = kind(16, 12, batch_first=True), nn.Linear(12, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.rows(self.features(x).flatten(2).transpose(1, 2))[0][:, -1])


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_recurrent_heads_leak_no_warnings(kind: type[nn.Module]) -> None:
    network, x = build(_Recurrent, kind), pictures(height=16, width=16)
    with warnings.catch_warnings(record=True) as leaked:
        warnings.simplefilter("always")
        found = ReciproCAM(network).run(x, 1)
        graded = GradCAM(network).run(x, 1)
    assert [str(w.message) for w in leaked] == []
    assert (found.layer, graded.layer) == ("act2", "act2")
    maps = network.features(x)
    alone = torch.zeros_like(maps)
    alone[:, :, 2, 1] = maps[:, :, 2, 1]
    want = network.fc(network.rows(alone.flatten(2).transpose(1, 2))[0][:, -1])[:, 1]
    close(found.raw[:, 0, 2, 1], want.detach(), atol=1e-5, rtol=1e-5)


class _Siamese(Pooled):
    """The picture beside a fixed one, through the same encoder, which runs on the fixed one last."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(self.conv1, self.bn1, self.act1, self.conv2, self.bn2, self.act2)
        self.register_buffer("fixed", torch.randn(1, 3, 32, 32))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc((self.body(x).mean((2, 3)) - self.body(self.fixed).mean((2, 3))).abs())


class _Pair(_Siamese):
    """Two pictures in the channels of one."""

    def forward(self, x: Tensor) -> Tensor:
        return self.fc((self.body(x[:, :3]).mean((2, 3)) - self.body(x[:, 3:]).mean((2, 3))).abs())


@pytest.mark.parametrize("n", [1, 3])
def test_of_a_shared_encoder_the_call_for_the_picture_is_explained(n: int) -> None:
    network, x = build(_Siamese), pictures(n)
    found = GradCAM(network).run(x, 2)
    assert found.layer == "body"
    assert found.warnings[0] == (
        "Layer 'body' ran 2 times in a pass; output 1 is explained, the last one through which the picture reaches the "
        "scores."
    )
    maps = network.body(x).detach().requires_grad_()
    scores = network.fc((maps.mean((2, 3)) - network.body(network.fixed).mean((2, 3))).abs())
    (gradient,) = torch.autograd.grad(scores[:, 2].sum(), maps)
    want = (gradient.mean((2, 3), keepdim=True) * maps).sum(1, keepdim=True).relu()
    close(found.raw, want.detach(), atol=1e-6, rtol=1e-5)
    alone = torch.zeros_like(maps)
    alone[:, :, 3, 4] = maps[:, :, 3, 4]
    scores = network.fc((alone.mean((2, 3)) - network.body(network.fixed).mean((2, 3))).abs())
    close(ReciproCAM(network).run(x, 2).raw[:, 0, 3, 4], scores[:, 2].detach(), atol=1e-6, rtol=1e-5)


def test_two_pictures_in_one_input_have_no_layer_of_their_own() -> None:
    said = (
        "No layer with a spatial map carries all of the picture's influence on the scores: it passes through several "
        "beside each other. Layers that come into question: 'body'. Name one, layer='body' for example, or use "
        "RISE or Occlusion."
    )
    x = pictures(2, channels=6)
    with pytest.raises(NoSpatialOutput, match=f"^{re.escape(said)}$"):
        GradCAM(build(_Pair))(x)
    assert GradCAM(build(_Pair), layer="body").run(x, 0).warnings[0] == (
        "Layer 'body' ran 2 times in a pass; the picture reaches the scores through several of them beside each other, "
        "and only output 2 is explained. Choose a layer after they have come together."
    )


class _Turning(Pooled):
    def __init__(self, turn: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.turn = turn

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.turn(x))


TURNS: dict[str, Callable[[Tensor], Tensor]] = {
    "mirrored": lambda x: x.flip(3),
    "on its side": lambda x: x.transpose(2, 3),
    "a quarter": lambda x: x.rot90(1, (2, 3)),
    "its middle": lambda x: x[:, :, 16:48, 16:48],
    "a corner": lambda x: x[:, :, :32, 32:],
}


@pytest.mark.parametrize("turn", TURNS)
def test_where_a_network_turns_or_crops_the_picture_itself_no_layer_is_named(turn: str) -> None:
    network, x = build(_Turning, TURNS[turn]), pictures(1, height=64, width=64)
    said = (
        "All of the picture's influence on the scores passes layer 'act2', but its positions do not lie where the "
        "picture's places are, as where a network mirrors, turns or crops the picture itself: its map would lie over "
        "other places. Do that before the network, or use RISE or Occlusion."
    )
    for method in (GradCAM, ReciproCAM):
        with pytest.raises(NoSpatialOutput, match=f"^{re.escape(said)}$"):
            method(network)(x)
    assert RISE(network, num_masks=8).run(x, 0).raw.shape[:2] == (1, 1)


class _Nested(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


def test_the_recursion_limit_is_named_not_the_channels() -> None:
    network: Any = build(Pooled)
    for _ in range(400):
        network.fc = _Nested(network.fc)
    limit = sys.getrecursionlimit()
    said = (
        f"Pooled calls modules within modules deeper than Python's recursion limit allows, which is {limit}. Raise it: "
        f"sys.setrecursionlimit({4 * limit})."
    )
    with pytest.raises(InputRefused, match=f"^{re.escape(said)}$"):
        GradCAM(network)(pictures(), 1)


def test_data_parallel_is_explained_like_the_network_in_it() -> None:
    x, network = pictures(), build(Pooled)
    found = GradCAM(nn.DataParallel(network)).run(x, 1)
    assert found.layer == "module.act2"
    close(found.raw, GradCAM(network).run(x, 1).raw)


def test_looks_are_made_once_for_a_network_and_size() -> None:
    network, x = build(Pooled), pictures()
    model = TorchModel(network)
    for method in (GradCAM, RISE, ReciproCAM):
        method(model).run(x, 1)
    before = model.passes.forward
    GradCAM(model).run(x, 1)
    assert model.passes.forward - before == len(x)


class _Wrapped(nn.Module):
    """A block that gives its tokens, or its map, in a tuple, as many libraries' do."""

    def __init__(self, inner: nn.Module, more: tuple[Any, ...] = ()) -> None:
        super().__init__()
        self.inner, self.more = inner, more

    def forward(self, x: Tensor) -> tuple[Any, ...]:
        return (self.inner(x), *self.more)


class _Tuples(Pooled):
    """The same network, whose last map is inside a tuple only."""

    def __init__(self, *more: Any) -> None:
        super().__init__()
        self.stage = _Wrapped(_Scaled(), more)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.stage(self.features(x))[0].mean((2, 3)))


class _Scaled(nn.Module):
    """Gives what is no module's output otherwise."""

    def forward(self, x: Tensor) -> Any:
        return x * x


class _Both(_Tuples):
    def forward(self, x: Tensor) -> Tensor:
        self.stage.more = (self.features(x),)
        maps, before = self.stage(self.features(x))
        return self.fc((maps + before).mean((2, 3)))


@pytest.mark.parametrize("more", [(), (None,)])
def test_a_map_in_a_tuple_is_a_map(more: tuple[Any, ...]) -> None:
    network, x = build(_Tuples, *more), pictures()
    network.stage.inner.forward = lambda maps: (maps * maps,)[0]
    found = GradCAM(network, layer="stage").run(x, 1)
    maps = network.features(x).square().detach()
    want = (network.fc.weight[1][:, None, None] * maps).sum(1, keepdim=True).relu() / maps[0, 0].numel()
    close(found.raw, want.detach(), atol=1e-6, rtol=1e-5)
    assert GradCAM(network).run(x, 1).layer == "stage"
    alone = torch.zeros_like(maps)
    alone[:, :, 3, 4] = maps[:, :, 3, 4]
    close(ReciproCAM(network).run(x, 1).raw[:, 0, 3, 4], network.fc(alone.mean((2, 3)))[:, 1].detach())


def test_a_tuple_of_two_tensors_is_no_map() -> None:
    network, x = build(_Both), pictures()
    with pytest.raises(NoSpatialOutput, match=r"^Layer 'stage' has no spatial map: it gives a tuple for an input of "):
        GradCAM(network, layer="stage")(x)


class _Drawing(Pooled):
    """Draws where torch does not see it: ``how`` gives a number."""

    def __init__(self, how: Callable[[], float]) -> None:
        super().__init__()
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (1 + self.how())


class _OwnGenerator(Pooled):
    def __init__(self) -> None:
        super().__init__()
        self.dice = np.random.default_rng(0)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * float(self.dice.normal())


WAVERS = (
    "{} says something else of the same picture in each pass, so this map is one of many. Torch draws no random "
    "numbers in it: look for those of numpy or Python, or for what it keeps from pass to pass."
)


@pytest.mark.parametrize("method", [GradCAM, RISE])
@pytest.mark.parametrize("make", [lambda: _Drawing(random.random), lambda: _Drawing(np.random.rand), _OwnGenerator])
def test_random_numbers_of_numpy_and_python_are_said(make: Callable[[], nn.Module], method: Any) -> None:
    network = build(make)
    for _ in range(2):
        assert method(network).run(pictures(1), 1).warnings[0] == WAVERS.format(type(network).__name__)


def test_numbers_that_are_drawn_and_do_not_matter_are_not_said() -> None:
    network = build(_Drawing, lambda: 0 * random.random())
    assert not [w for w in GradCAM(network).run(pictures(1), 1).warnings if "each pass" in w]


class _CBAM(Pooled):
    """Gates for channels and for places behind the last map (Woo 2018)."""

    def __init__(self) -> None:
        super().__init__()
        self.squeeze, self.excite = nn.Linear(16, 4), nn.Linear(4, 16)
        self.gate = nn.Sequential(nn.Conv2d(2, 1, 3, padding=1), nn.Sigmoid())

    def attended(self, maps: Tensor) -> Tensor:
        """The maps times both gates."""
        pooled = (maps.mean((2, 3)), maps.amax((2, 3)))
        maps = (
            maps * torch.stack([self.excite(self.squeeze(p).relu()) for p in pooled]).sum(0).sigmoid()[:, :, None, None]
        )
        return maps * self.gate(torch.cat([maps.mean(1, keepdim=True), maps.amax(1, keepdim=True)], 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.attended(self.features(x)).mean((2, 3)))


def test_gates_for_places_are_no_maps() -> None:
    network, x = build(_CBAM), pictures()
    found = GradCAM(network).run(x, 1)
    assert found.layer == "act2"
    maps = network.features(x).detach().requires_grad_()
    (slope,) = torch.autograd.grad(network.fc(network.attended(maps).mean((2, 3)))[:, 1].sum(), maps)
    want = (slope.mean((2, 3), keepdim=True) * maps).sum(1, keepdim=True).relu().detach()
    assert bool(want.any())
    close(found.raw, want, atol=1e-6, rtol=1e-4)
