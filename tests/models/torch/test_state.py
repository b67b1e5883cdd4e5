"""Networks that do something unusual in their forward pass."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seewhy.errors import InvalidInput, NoSpatialOutput, UnknownLayer
from seewhy.explainers.grad_cam import GradCAM
from seewhy.models.torch.model import TorchModel
from seewhy.models.torch.state import on
from support import networks
from support.networks import build, pictures
from support.typed import of_kind, present

close = torch.testing.assert_close


class _Unusual(networks.Pooled):
    """Changes in its forward what a forward pass should leave alone."""

    hidden: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("hidden", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.hidden.data.add_(1)  # torch counts no version of such a change
        self.pool.train()
        return super().forward(x)


def test_what_a_forward_pass_changes_behind_the_scenes_is_put_back() -> None:
    network = build(_Unusual)
    model = TorchModel(network)
    with model.opened():
        model(pictures())
        assert float(network.hidden) == 1
    assert float(network.hidden) == 0
    assert not network.pool.training


def test_a_traced_network_gives_gradients_but_hides_its_layers() -> None:
    network, x = build(networks.Pooled), pictures()
    want = x.clone().requires_grad_()
    network(want)[:, 0].sum().backward()
    model = TorchModel(torch.jit.trace(network, x))
    with model.opened():
        close(model.gradients(x, lambda o: o.classes[:, :1], "").of(0), want.grad)
        with pytest.raises((UnknownLayer, NoSpatialOutput)):
            model.features(x, "auto")


def test_batch_norm_without_statistics_is_refused() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, track_running_stats=False)).eval()
    said = (
        "BatchNorm '1' has no running statistics: what the network says about a picture depends on the others "
        "in the batch. "
        "Use track_running_stats=True and train or calibrate it."
    )
    with pytest.raises(InvalidInput, match="^" + re.escape(said) + "$"), TorchModel(network).opened():
        pass


@pytest.mark.compile
def test_a_compiled_function_inside_the_network_is_run_uncompiled() -> None:
    class Fresh(networks.Pooled):
        """Code of its own: what other tests compiled too often, torch compiles no more in this process."""

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.features(x).mean((2, 3)))

    network, x = build(Fresh), pictures()
    want = TorchModel(network).features(x, "act2").maps
    compiled = []

    def backend(graph: Any, _inputs: Any) -> Any:
        compiled.append(graph)
        return graph.forward

    network.forward = torch.compile(network.forward, backend=backend)
    with torch.compiler.set_stance("default"):  # a call that another test left hanging may hold another one
        network(x)
    before = len(compiled)
    model = TorchModel(network)
    with model.opened():
        close(model.features(x, "act2").maps, want)
    assert len(compiled) == before > 0


def test_a_batch_norm_that_a_forward_switches_to_training_is_put_back() -> None:
    class Adaptive(nn.Module):
        """Takes its statistics from the batch at hand, as test-time adaptation does."""

        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.norm.train()
            return self.norm(self.conv(x)).relu().mean((2, 3))

    net = Adaptive().eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    GradCAM(net, layer="conv").run(torch.randn(2, 3, 8, 8), 1)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not net.norm.training


def test_a_model_that_is_simply_called_is_in_evaluation_mode() -> None:
    network, x = (
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.9), nn.Flatten(), nn.LazyLinear(2)),
        pictures(),
    )
    network.eval()(x)
    want = network(x).detach()
    network.train()
    means = present(of_kind(nn.BatchNorm2d, network[1]).running_mean).clone()
    close(TorchModel(network)(x).classes, want)
    assert all(m.training for m in network.modules())
    close(network[1].running_mean, means)


def test_what_others_hooks_keep_is_what_ours_hands_on() -> None:
    """Transformers' networks keep hidden states by hooks of their own and go on from what these kept."""

    class Keeps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
            self.kept: list[Tensor] = []
            self.first.register_forward_hook(lambda _m, _a, out: self.kept.append(out))

        def forward(self, x: Tensor) -> Tensor:
            self.kept.clear()
            deep = self.second(self.first(x).relu())
            return (deep * self.kept[0]).mean((2, 3))

    with torch.random.fork_rng():
        torch.manual_seed(0)
        network, x = Keeps().eval(), torch.rand(1, 3, 8, 8)
    found = GradCAM(network, layer="first").run(x, 1)
    own = network.first(x).detach().requires_grad_()
    (slope,) = torch.autograd.grad((network.second(own.relu()) * own)[:, 1].mean(), own)
    by_hand = (own * slope.mean((2, 3), keepdim=True)).sum(1).relu()
    torch.testing.assert_close(found.raw[:, 0], by_hand.detach())


def test_a_hook_is_given_the_arguments_from_the_first_tensor_on() -> None:
    class Scaled(nn.Module):
        def forward(self, factor: int, x: torch.Tensor, more: float = 0.0) -> torch.Tensor:
            return factor * x + more

    module, x = Scaled(), torch.ones(2)
    with on(module, before=lambda _module, args: (args[0] + 1, *args[1:])):
        assert module(3, x).tolist() == [6, 6]
        assert module(3, x, 0.5).tolist() == [6.5, 6.5]
        assert module(3, x=x).tolist() == [6, 6]
    with on(module, before=lambda _module, args: args[0] + 1):
        assert module(3, x).tolist() == [6, 6]
    assert module(3, x).tolist() == [3, 3]
