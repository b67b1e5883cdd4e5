"""ReciproCAM: the closed form, the cut network and the whole network must agree with the definition."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn

from seewhy.explainers import ReciproCAM
from seewhy.models.torch import head
from seewhy.models.torch.model import TorchModel
from support import networks
from support.networks import CLASSES, build, pictures

close = torch.testing.assert_close
WHOLE = "The network could not be cut at layer {!r}; the whole network was run for each change."


def slow(network: nn.Module, layer: str, x: Tensor, last: bool = False) -> Tensor:
    """(N, K, h, w): one picture and one position at a time, through the whole network with a hook."""
    kept: list[Tensor] = []
    handle = network.get_submodule(layer).register_forward_hook(lambda _m, _a, out: kept.append(out.clone()))
    network(x)
    handle.remove()
    own = kept[-1].permute(0, 3, 1, 2) if last else kept[-1]
    n, _, h, w = own.shape
    maps = torch.zeros(n, CLASSES, h, w)
    for image in range(n):
        for i in range(h):
            for j in range(w):
                alone = torch.zeros_like(own[image : image + 1])
                alone[:, :, i, j] = own[image, :, i, j]
                put = alone.permute(0, 2, 3, 1) if last else alone
                handle = network.get_submodule(layer).register_forward_hook(lambda _m, _a, _o, put=put: put.clone())
                maps[image, :, i, j] = network(x[image : image + 1])[0].detach()
                handle.remove()
    return maps


CASES = [(networks.Pooled, "act2", False), (networks.Pooled, "conv1", False), (networks.Inplace, "bn2", False),
         (networks.Residual, "conv2", False), (networks.Residual, "conv3", False), (networks.Deep, "body", False),
         (networks.Deep, "body.0", False), (networks.ChannelsLast, "stage", True)]  # fmt: skip


@pytest.mark.parametrize(("kind", "layer", "last"), CASES)
@pytest.mark.slow
def test_it_is_the_definition_replayed_exported_and_by_the_whole_network(kind: Any, layer: str, last: bool) -> None:
    network, x = build(kind), pictures(3, height=16, width=24)
    want = slow(network, layer, x, last)
    found = ReciproCAM(network, layer=layer).run(x, "all")
    close(found.raw, want, atol=1e-5, rtol=1e-5)
    assert WHOLE.format(layer) not in found.warnings
    with mock.patch.object(head.Head, "_planned", return_value=None):
        exported = ReciproCAM(network, layer=layer).run(x, "all")
    close(exported.raw, want, atol=1e-5, rtol=1e-5)
    assert WHOLE.format(layer) not in exported.warnings
    with (
        mock.patch.object(head.Head, "_planned", return_value=None),
        mock.patch.object(head, "cut", return_value=None),
        mock.patch("seewhy.models.torch.pooled_head.Tape.head", return_value=None),
    ):
        whole = ReciproCAM(network, layer=layer).run(x, "all")
    close(whole.raw, want, atol=1e-5, rtol=1e-5)
    assert WHOLE.format(layer) in whole.warnings


@pytest.mark.parametrize(("kind", "layer"), [(networks.Pooled, "act2"), (networks.ChannelsLast, "norm")])
def test_the_closed_form_is_taken_and_is_the_rerun(kind: Any, layer: str) -> None:
    network = build(kind, pooled=True) if kind is networks.ChannelsLast else build(kind)
    x = pictures(3, height=32, width=48)
    model = TorchModel(network)
    features = model.features(x, layer)
    assert features.linear is not None
    quick = ReciproCAM(model, layer=layer).attribute(x, "all", native=True)
    weight, bias = network.fc.weight.detach(), network.fc.bias.detach()
    h, w = features.maps.shape[2:]
    by_hand = torch.einsum("kc,nchw->nkhw", weight, features.maps) / (h * w) + bias.view(1, -1, 1, 1)
    close(quick, by_hand, atol=1e-5, rtol=1e-5)
    close(quick, slow(network, layer, x, last=kind is networks.ChannelsLast), atol=1e-5, rtol=1e-5)
    close(
        ReciproCAM(model, layer=layer).attribute(x, [[4, 1]] * 3, native=True), by_hand[:, [4, 1]], atol=1e-5, rtol=1e-5
    )


@pytest.mark.slow
def test_what_follows_a_layer_costs_no_pass_also_where_it_needs_what_passed_the_layer_by() -> None:
    x = pictures(3)
    for kind, layer in ((networks.Pooled, "act2"), (networks.Deep, "body"), (networks.Residual, "conv2")):
        network = build(kind)
        for _ in range(2):  # the second time it is known how
            assert ReciproCAM(network, layer=layer).run(x, "all").passes.forward == 3


class _Times(networks.Pooled):
    """Not a pooled linear head, though mean and linear layer are there: each adds something the closed form has not."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        maps = self.features(x)
        if self.how == "channels":  # 4 x 4 positions, as many as there are channels
            return self.fc(maps.mean(1).flatten(1))
        pooled = self.fc(maps.mean((2, 3)))
        others = {
            "softmax": lambda: pooled.softmax(1), "times": lambda: pooled.mul_(2),
            "max": lambda: pooled + self.fc(maps.amax((2, 3))),
            "gate": lambda: self.fc((maps * maps.mean((2, 3), keepdim=True).sigmoid()).mean((2, 3))),
            "square": lambda: self.fc(maps.mean((2, 3)).square()),
            "half": lambda: self.fc(maps[:, :, :4].mean((2, 3))), "sum": lambda: self.fc(maps.sum((2, 3))),
            "in place": lambda: self.fc(maps.mul_(3).mean((2, 3))),
            "twice": lambda: pooled + self.fc(maps.mean((2, 3))),
            "two heads": lambda: (pooled, nn.functional.linear(maps.mean((2, 3)), -self.fc.weight))[0],
            "foreach": lambda: torch._foreach_mul_([pooled], 2) or pooled,
        }  # fmt: skip
        return others[self.how]()


HEADS = [
    "softmax",
    "times",
    "max",
    "gate",
    "square",
    "half",
    "sum",
    "in place",
    "twice",
    "foreach",
    "channels",
    "two heads",
]


@pytest.mark.parametrize("how", HEADS)
@pytest.mark.slow
def test_a_head_that_is_nearly_pooled_linear(how: str) -> None:
    network, x = build(_Times, how), pictures(2, height=16, width=16)
    found = ReciproCAM(network, layer="act2").run(x, "all")
    close(found.raw, slow(network, "act2", x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("output", [lambda s: s[:, [2, 0, 1]], lambda s: s.neg_(), lambda s: s * 3])
def test_scores_that_the_caller_picks_are_those_that_are_explained(output: Any) -> None:
    network, x = build(networks.Pooled), pictures()
    got = ReciproCAM(TorchModel(network, output=output), layer="act2").attribute(x, "all", native=True)
    want = slow(network, "act2", x).permute(0, 2, 3, 1).reshape(-1, CLASSES)
    want = output(want).unflatten(0, (2, 8, 8)).permute(0, 3, 1, 2)
    close(got, want, atol=1e-5, rtol=1e-5)


class _BatchElsewhere(nn.Module):
    """What the head needs from before the layer has its batch in the second dimension."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.side, self.fc = nn.Conv2d(3, 4, 3, 4, 1), nn.Linear(3, 4), nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        side = self.side(x.mean((2, 3))).t()
        return self.fc((self.conv(x).relu().amax((2, 3)).t() * side).t())


class _Argument(networks.Residual):
    """A network whose forward takes more than the picture."""

    def forward(self, x: Tensor, scale: Any = None) -> Tensor:
        return super().forward(x) * scale


class _Branching(networks.Deep):
    """Python decides by what the picture holds: such a network cannot be exported."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if float(x.abs().sum()) > 0 else super().forward(x) * 2


class _Box:
    """Something that torch cannot look into."""

    def __init__(self, inside: Tensor) -> None:
        self.inside = inside


class _Boxing(nn.Conv2d):
    def forward(self, x: Tensor) -> Any:
        return _Box(super().forward(x))


class _Hiding(networks.Deep):
    """It cannot be exported, and what passes the layer by cannot be handed back in other rows."""

    def __init__(self) -> None:
        super().__init__()
        self.side = _Boxing(3, CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        box = self.side(x)
        return super().forward(x) * (1 if float(x.abs().sum()) > 0 else 2) + box.inside.mean((2, 3))


UNEXPORTED = [(_BatchElsewhere, "conv", {}), (_Argument, "conv2", {"scale": torch.tensor(2.0)}),
             (_Branching, "body", {})]  # fmt: skip


@pytest.mark.parametrize("n", [2, 4])
def test_what_cannot_be_cut_is_run_whole_and_that_is_said(n: int) -> None:
    network, x = build(_Hiding), pictures(n, height=16, width=16)
    for _ in range(2):
        found = ReciproCAM(network, layer="body").run(x, "all")
        close(found.raw, slow(network, "body", x), atol=1e-5, rtol=1e-5)
        assert WHOLE.format("body") in found.warnings
    assert not any("forward" in vars(module) for module in network.modules())


@pytest.mark.parametrize(("kind", "layer", "kwargs"), UNEXPORTED)
@pytest.mark.parametrize("n", [1, 2, 4])
@pytest.mark.slow
def test_networks_that_cannot_be_exported_are_replayed(kind: Any, layer: str, kwargs: dict[str, Any], n: int) -> None:
    network, x = build(kind), pictures(n, height=16, width=16)
    found = ReciproCAM(TorchModel(network, forward_kwargs=kwargs), layer=layer).run(x, "all")

    def plain(inputs: Tensor) -> Tensor:
        return network(inputs, **kwargs)

    bound = _Bound(network, plain)
    close(found.raw, slow(bound, f"inner.{layer}", x), atol=1e-5, rtol=1e-5)
    assert WHOLE.format(layer) not in found.warnings


class _Bound(nn.Module):
    def __init__(self, inner: nn.Module, call: Any) -> None:
        super().__init__()
        self.inner, self.call = inner, call

    def forward(self, x: Tensor) -> Tensor:
        return self.call(x)


def test_weights_trained_in_place_and_layers_replaced_are_seen() -> None:
    network, x = build(networks.Deep), pictures(2, height=16, width=16)
    ReciproCAM(network, layer="body")(x)
    with torch.no_grad():
        network.head[4].weight.mul_(-2)
    close(
        ReciproCAM(network, layer="body").attribute(x, "all", native=True),
        slow(network, "body", x),
        atol=1e-5,
        rtol=1e-5,
    )
    network.head[5] = nn.Tanh()
    close(
        ReciproCAM(network, layer="body").attribute(x, "all", native=True),
        slow(network, "body", x),
        atol=1e-5,
        rtol=1e-5,
    )


def test_memory_stays_bounded_the_head_sees_few_positions_at_a_time() -> None:
    network, x = build(networks.Deep), pictures(2)  # 2 x 8 x 8 positions
    seen: list[int] = []
    real = TorchModel.from_features

    def spy(self: TorchModel, features: Any, maps: Tensor, rows: Tensor) -> Any:
        seen.append(len(maps))
        return real(self, features, maps, rows)

    with mock.patch.object(TorchModel, "from_features", spy):
        ReciproCAM(network, layer="body", perturbation_per_eval=7)(x, "all")
    assert seen == [7] * 14 + [6] * 5


def test_the_input_as_the_layer() -> None:
    network = build(networks.Linear, 3, 4, 5)
    x = pictures(2, height=4, width=5)
    want = torch.einsum("nchw,kchw->nkhw", x, network.weight.detach())
    close(ReciproCAM(network, layer="").attribute(x, "all"), want, atol=1e-5, rtol=1e-5)


def test_a_layer_that_runs_twice_is_replaced_the_last_time_only() -> None:
    x = pictures(2, height=16, width=16)
    want = slow(
        build(networks.Pooled), "act2", x
    )  # the same weights, with an activation of its own in the second place
    with (
        mock.patch.object(head.Head, "_planned", return_value=None),
        mock.patch.object(head, "cut", return_value=None),
        mock.patch("seewhy.models.torch.pooled_head.Tape.head", return_value=None),
    ):
        got = ReciproCAM(build(networks.Shared), layer="act1").attribute(x, "all", native=True)
    close(got, want, atol=1e-5, rtol=1e-5)


class _Tempered(networks.Deep):
    """A plain number decides about the scores; an exported graph holds the value that it had."""

    temperature = 1.0

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / self.temperature


@pytest.mark.parametrize("exported", [False, True])
def test_a_cut_that_is_out_of_date_is_not_used(exported: bool) -> None:
    network, x = build(_Tempered), pictures(2, height=16, width=16)
    with mock.patch.object(head.Head, "_planned", return_value=None) if exported else nullcontext():
        ReciproCAM(network, layer="body")(x)
        network.temperature = 2.0
        found = ReciproCAM(network, layer="body").run(x, "all")
    close(found.raw, slow(network, "body", x), atol=1e-5, rtol=1e-5)
    assert (WHOLE.format("body") in found.warnings) is exported  # a replay runs what the network runs now
