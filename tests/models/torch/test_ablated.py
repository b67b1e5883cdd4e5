"""Channels set to 0 without maps that are written out: it says what the whole network says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seewhy import AblationCAM
from seewhy.models import without
from seewhy.models.torch.ablated import Ablated
from seewhy.models.torch.model import TorchModel
from support.networks import CLASSES, build, pictures


class _Head(nn.Module):
    """A layer of 6 channels and 8 x 8 positions, and what may follow it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Sequential(nn.Conv2d(3, 6, 3, 4, 1), nn.Tanh())
        self.wide, self.hidden, self.last = nn.Linear(384, 9), nn.Linear(6, 9), nn.Linear(9, CLASSES)
        self.spot, self.three, self.drop = nn.Conv2d(6, 9, 1), nn.Conv2d(6, 9, 3, 1, 1), nn.Dropout(0.5)
        self.grouped, self.act = nn.Conv2d(6, 9, 1, groups=3), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.layer(x), x)

    def head(self, maps: Tensor, x: Tensor) -> Any:
        raise NotImplementedError


class Flattened(_Head):
    def head(self, maps: Tensor, x: Tensor) -> Any:
        return self.last(self.act(self.wide(self.drop(torch.flatten(maps, 1)))))


class Viewed(_Head):
    def head(self, maps: Tensor, x: Tensor) -> Any:
        return self.last(F.gelu(self.wide(maps.contiguous().view(maps.size(0), -1))))


class Reshaped(_Head):
    def head(self, maps: Tensor, x: Tensor) -> Any:
        return self.last(F.gelu(self.wide(maps.reshape((maps.shape[0], 384)))))


class Pooled(_Head):
    def head(self, maps: Tensor, x: Tensor) -> Any:
        return self.last(F.hardswish(self.hidden(F.adaptive_avg_pool2d(maps, 1).flatten(1))))


class Mean(_Head):
    def head(self, maps: Tensor, x: Tensor) -> Any:
        return self.last(self.act(self.hidden(maps.mean([-1, -2]))))


class Kept(_Head):
    def head(self, maps: Tensor, x: Tensor) -> Any:
        return self.last(self.act(self.spot(maps.mean((2, 3), keepdim=True))).flatten(1))


class Spot(_Head):
    def head(self, maps: Tensor, x: Tensor) -> Any:
        return self.last(F.adaptive_avg_pool2d(self.act(self.spot(self.drop(maps))), 1).flatten(1))


LAZY = [Flattened, Viewed, Reshaped, Pooled, Mean, Kept, Spot]


class Normed(_Head):
    """A mean is followed by what looks at all channels."""

    def head(self, maps: Tensor, x: Tensor) -> Any:
        pooled = maps.mean((2, 3))
        return self.last(torch.tanh(self.hidden(F.layer_norm(pooled, (6,)))))


class InPlace(_Head):
    """The layer's own output is changed in place, and what the operation gives is not looked at."""

    def head(self, maps: Tensor, x: Tensor) -> Any:
        torch.relu_(maps)
        return self.last(self.hidden(maps.mean((2, 3))))


class Three(_Head):
    def head(self, maps: Tensor, x: Tensor) -> Any:
        return self.last(self.act(self.three(maps)).amax((2, 3)))


class Grouped(_Head):
    def head(self, maps: Tensor, x: Tensor) -> Any:
        return self.last(self.act(self.grouped(maps)).amax((2, 3)))


class Strange(_Head):
    """Means over other dimensions, a view of another shape, and the picture itself."""

    def head(self, maps: Tensor, x: Tensor) -> Any:
        channels = maps.mean(1).flatten(1)[:, :6]
        rows = maps.view(maps.shape[0], 6, -1).amax(2)
        return self.last(self.hidden(channels + rows * x.mean((1, 2, 3))[:, None]).tanh())


class Reused(_Head):
    """The maps are looked at twice, linearly and otherwise."""

    def head(self, maps: Tensor, x: Tensor) -> Any:
        return self.last(
            (self.hidden(maps.mean((2, 3))) + self.spot(maps).amax((2, 3))).tanh() * maps.amax((1, 2, 3))[:, None]
        )


def whole(network: _Head, inputs: Tensor, rows: Tensor, channels: Tensor) -> Tensor:
    """(R, K): the whole network, one copy at a time, with a channel set to 0 by a hook."""
    found = []
    for row, channel in zip(rows.tolist(), channels.tolist(), strict=True):

        def cut(_module: nn.Module, _args: Any, output: Tensor, channel: int = channel) -> Tensor:
            changed = output.clone()
            changed[:, channel] = 0
            return changed

        handle = network.layer.register_forward_hook(cut)
        with torch.no_grad():
            found.append(network(inputs[row : row + 1].clone())[0])
        handle.remove()
    return torch.stack(found)


@pytest.mark.parametrize("kind", [*LAZY, Normed, InPlace, Three, Grouped, Strange, Reused])
@pytest.mark.parametrize("n", [1, 3])
def test_it_says_what_the_whole_network_says(kind: type[_Head], n: int) -> None:
    network, inputs = build(kind), pictures(n)
    model = TorchModel(network)
    rows = torch.arange(n).repeat_interleave(6)
    channels = torch.arange(6).repeat(n)
    with model.opened():
        features = model.features(inputs, "layer")
        first = without(model, features, rows[:5], channels[:5]).classes
        rest = without(model, features, rows[5:].flip(0), channels[5:].flip(0)).classes
    wanted = whole(network, inputs, rows, channels)
    found = torch.cat([first, rest.flip(0)])
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    assert float((found[0] - found[1]).abs().max()) > 1e-5  # channels matter


@pytest.mark.parametrize("kind", LAZY)
def test_maps_are_written_out_for_the_trial_alone(kind: type[_Head], monkeypatch: pytest.MonkeyPatch) -> None:
    network, inputs, counts = build(kind), pictures(2), list[int]()
    own: Callable[[Ablated], Tensor] = Ablated.written

    def counted(maps: Ablated) -> Tensor:
        counts.append(len(maps.rows))
        return own(maps)

    monkeypatch.setattr(Ablated, "written", counted)
    found = AblationCAM(network, layer="layer", perturbation_per_eval=4).run(inputs, [[0, 3], [1, 2]])
    assert counts == [2]
    monkeypatch.undo()
    monkeypatch.setattr("seewhy.models.torch.head._NEAR", -1.0)  # nothing is near enough: maps are written out
    plain = AblationCAM(network, layer="layer", perturbation_per_eval=4).run(inputs, [[0, 3], [1, 2]])
    torch.testing.assert_close(found.raw, plain.raw, rtol=1e-4, atol=1e-6)


class Watching(_Head):
    """Says something else of many copies than of few, so that only the trial is right."""

    def head(self, maps: Tensor, x: Tensor) -> Any:
        return self.last(self.hidden(maps.mean((2, 3)))) * (2.0 if type(maps) is Ablated else 1.0)


def test_a_stand_in_that_is_not_taken_for_maps_is_not_used() -> None:
    network, inputs = build(Watching), pictures(1)
    model, rows = TorchModel(network), torch.zeros(6, dtype=torch.long)
    with model.opened():
        features = model.features(inputs, "layer")
        found = without(model, features, rows, torch.arange(6)).classes
    torch.testing.assert_close(found, whole(network, inputs, rows, torch.arange(6)), rtol=1e-5, atol=1e-6)
