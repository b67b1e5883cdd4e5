"""What follows a layer, replayed: whatever stands around the layer, it says what the whole network would say."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seewhy.models.torch import head
from seewhy.models.torch.model import TorchModel
from support.networks import CLASSES, pictures

close = torch.testing.assert_close


class _Base(nn.Module):
    """A trunk, a layer, a head; what stands around them differs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.layer = nn.Conv2d(3, 6, 3, 2, 1), nn.Conv2d(6, 6, 3, 1, 1)
        self.side, self.norm = nn.Conv2d(6, 6, 1), nn.BatchNorm2d(6)
        self.after, self.fc = nn.Conv2d(6, 6, 3, 1, 1), nn.Linear(6, CLASSES)

    def end(self, x: Tensor) -> Tensor:
        return self.fc(torch.tanh(self.after(x)).amax((2, 3)))


class _Skip(_Base):
    def forward(self, x: Tensor) -> Tensor:
        stem = self.stem(x)
        return self.end(self.layer(stem).relu() + self.side(stem))


class _Functional(_Base):
    """Code between modules makes what the head needs, before the layer runs."""

    def forward(self, x: Tensor) -> Tensor:
        stem = self.stem(x)
        gate = torch.sigmoid(stem.mean((2, 3), keepdim=True)) * 2
        return self.end(self.layer(stem) * gate)


class _Picture(_Base):
    """The head looks at the picture itself."""

    def forward(self, x: Tensor) -> Tensor:
        maps = self.layer(self.stem(x))
        return self.end(maps) * x.mean((1, 2, 3), keepdim=True)[:, 0, 0]


class _Sizes(_Base):
    """The number of images is written down before the layer and used after it."""

    def forward(self, x: Tensor) -> Tensor:
        n = x.shape[0]
        stem = self.stem(x * 2)
        maps = self.layer(stem)
        return self.end((maps.flatten(1) + stem.flatten(1)).view(n, 6, *maps.shape[2:]))


class _InPlaceBefore(_Base):
    """What a module gave is changed in place before the layer, and needed as it was made and as it became."""

    def forward(self, x: Tensor) -> Tensor:
        stem = self.stem(x)
        stem += 1
        return self.end(self.layer(stem) + stem)


class _InPlaceAfter(_Base):
    """What a module gave is changed in place after the layer."""

    def forward(self, x: Tensor) -> Tensor:
        stem = self.stem(x)
        maps = self.layer(stem)
        stem += maps
        return self.end(stem)


class _Spoiled(_Base):
    """The layer's output is changed in place."""

    def forward(self, x: Tensor) -> Tensor:
        maps = self.layer(self.stem(x))
        return self.end(maps.mul_(2).tanh_())


class _Several(nn.Module):
    def forward(self, x: Tensor) -> Any:
        return {"half": x / 2, "rest": (x.mean((2, 3)), None, 3)}


class _Nested(_Base):
    def __init__(self) -> None:
        super().__init__()
        self.several = _Several()

    def forward(self, x: Tensor) -> Tensor:
        stem = self.stem(x)
        found = self.several(stem)
        return self.end(self.layer(stem) + found["half"]) + found["rest"][0].sum(1, keepdim=True) * found["rest"][2]


class _Windows(nn.Module):
    """(N, C, h, w) -> (N windows, C, 4, 4)."""

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        return x.view(n, c, h // 4, 4, w // 4, 4).permute(0, 2, 4, 1, 3, 5).reshape(-1, c, 4, 4)


class _Folded(_Base):
    """What passes the layer by has several rows for each image."""

    def __init__(self) -> None:
        super().__init__()
        self.windows = _Windows()

    def forward(self, x: Tensor) -> Tensor:
        stem = self.stem(x)
        windows, maps = self.windows(stem), self.layer(stem)
        return self.end(maps) + windows.view(len(maps), -1).amax(1, keepdim=True)


class _Turned(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(2).permute(2, 0, 1)


class _Second(_Base):
    """What passes the layer by has its images in the second dimension."""

    def __init__(self) -> None:
        super().__init__()
        self.turned = _Turned()

    def forward(self, x: Tensor) -> Tensor:
        stem = self.stem(x)
        return self.end(self.layer(stem)) + self.turned(stem).tanh().mean(0)[:, :1]


class _Twice(_Base):
    """The layer, and what lies around it, run twice."""

    def forward(self, x: Tensor) -> Tensor:
        first = self.side(self.layer(self.stem(x)).relu())
        return self.end(self.side(self.layer(first)))


class _Inside(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.base = _Skip()

    def forward(self, x: Tensor, flag: bool = False) -> Any:
        return [self.base(x), flag]


class _Listed(_Base):
    """Modules in a list are called one by one; the list itself is not."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Conv2d(6, 6, 1) for _ in range(3)])

    def forward(self, x: Tensor) -> Tensor:
        x, kept = self.stem(x), []
        for block in self.blocks:
            x = block(x).relu()
            kept.append(x)
        return self.end(self.layer(x) + kept[0] + self.blocks[1](kept[1]))


class _Frozen(_Base):
    """A constant of the network, not of the picture, comes out of a module."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(2, 6)

    def forward(self, x: Tensor) -> Tensor:
        stem, table = self.stem(x), self.table(torch.arange(2))
        return self.end(self.layer(stem) + table.mean(0).view(1, -1, 1, 1)) + table.sum()


KINDS: list[tuple[type[nn.Module], str]] = [
    (_Skip, "layer"), (_Skip, "side"), (_Functional, "layer"), (_Picture, "layer"), (_Sizes, "layer"),
    (_InPlaceBefore, "layer"), (_InPlaceAfter, "layer"), (_Spoiled, "layer"), (_Nested, "layer"), (_Folded, "layer"),
    (_Second, "layer"), (_Twice, "layer"), (_Inside, "base.layer"), (_Listed, "layer"), (_Listed, "blocks.1"),
    (_Frozen, "layer"),
]  # fmt: skip


def made(kind: type[nn.Module]) -> Any:
    torch.manual_seed(3)
    return kind().eval()


def whole(network: nn.Module, layer: str, x: Tensor, maps: Tensor, call: int) -> Tensor:
    """(R, K): each map in the layer's place, one at a time, through the whole network."""
    rows = []
    for picture, one in zip(x, maps, strict=True):
        calls = 0

        def put(_m: Any, _a: Any, output: Tensor, one: Tensor = one) -> Tensor:
            nonlocal calls
            calls += 1
            return one[None].clone() if calls == call else output

        handle = network.get_submodule(layer).register_forward_hook(put, prepend=True)
        with torch.no_grad():
            output = network(picture[None])
        handle.remove()
        rows.append(output[0] if isinstance(output, list) else output)
    return torch.cat(rows)


def replayed(network: nn.Module, layer: str, x: Tensor, change: Callable[[Tensor], Tensor]) -> tuple[Any, Tensor, Any]:
    """The features, three changed maps for each picture, and what the head says of them."""
    model = TorchModel(network)
    with model.opened():
        found = model.features(x, layer)
        rows = torch.arange(len(x)).repeat_interleave(3)
        maps = change(found.maps[rows])
        return found, maps, model.from_features(found, maps, rows)


def changed(maps: Tensor) -> Tensor:
    return maps * torch.rand(maps.shape, generator=torch.Generator().manual_seed(1)).to(maps)


@pytest.mark.parametrize(("kind", "layer"), KINDS)
@pytest.mark.parametrize("n", [1, 3, 9])
def test_a_replay_says_what_the_whole_network_says(kind: type[nn.Module], layer: str, n: int) -> None:
    network, x = made(kind), pictures(n, height=16, width=16)
    call = 2 if kind is _Twice or layer == "blocks.1" else 1
    before = copy.deepcopy(network.state_dict())
    for _ in range(2):  # the second time it is known how
        found, maps, outputs = replayed(network, layer, x, changed)
        want = whole(network, layer, x.repeat_interleave(3, 0), maps, call)
        close(outputs.scores[:, 0], want, atol=1e-5, rtol=1e-5)
        assert not any("could not be cut" in said for said in found.warnings)
    assert found.state.recording is not None
    assert not any("forward" in vars(module) for module in network.modules())
    close(network.state_dict(), before)


def test_only_what_something_looks_at_is_kept() -> None:
    for kind, needed in ((_Spoiled, 0), (_Skip, 1)):
        found, _, _ = replayed(made(kind), "layer", pictures(2, height=16, width=16), changed)
        memory = [value.untyped_storage().nbytes() for value in found.state.recording.values]
        assert sum(size > 64 for size in memory) == needed


def test_what_follows_is_run_alone() -> None:
    network, x = made(_Skip), pictures(2, height=16, width=16)
    replayed(network, "layer", x, changed)
    ran: list[str] = []
    for name in ("stem", "layer", "side", "after", "fc"):
        part = network.get_submodule(name)
        own = part._conv_forward if isinstance(part, nn.Conv2d) else part.forward

        def noted(*args: Any, name: str = name, own: Any = own) -> Any:
            ran.append(name)
            return own(*args)

        setattr(part, "_conv_forward" if isinstance(part, nn.Conv2d) else "forward", noted)
    model = TorchModel(network)
    with model.opened():
        found = model.features(x, "layer")
        assert ran == ["stem", "layer", "side", "after", "fc"]
        ran.clear()
        model.from_features(found, found.maps, torch.arange(2))
    assert ran == ["side", "after", "fc"] * 2  # once to see whether it is right


def test_an_error_in_the_head_puts_every_module_back() -> None:
    network, x = made(_Skip), pictures(2, height=16, width=16)
    model = TorchModel(network)
    with model.opened():
        found = model.features(x, "layer")
        model.from_features(found, found.maps, torch.arange(2))
        network.after.register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            model.from_features(found, found.maps, torch.arange(2))
    assert not any("forward" in vars(module) for module in network.modules())


def test_a_module_that_has_a_forward_of_its_own_keeps_it() -> None:
    network, x = made(_Skip), pictures(1, height=16, width=16)
    own = network.stem.forward
    network.stem.forward = lambda x: own(x) * 3
    mine = network.stem.forward
    _, maps, outputs = replayed(network, "layer", x, changed)
    close(outputs.scores[:, 0], whole(network, "layer", x.repeat(3, 1, 1, 1), maps, 1), atol=1e-5, rtol=1e-5)
    assert network.stem.forward is mine


def test_hooks_of_others_act_once() -> None:
    network, x = made(_Skip), pictures(2, height=16, width=16)
    network.stem.register_forward_hook(lambda _m, _a, output: output * 2)
    network.layer.register_forward_hook(lambda _m, _a, output: output + 1)
    _, maps, outputs = replayed(network, "layer", x, changed)
    close(outputs.scores[:, 0], whole(network, "layer", x.repeat_interleave(3, 0), maps, 1), atol=1e-5, rtol=1e-5)


def test_a_network_that_goes_another_way_later_is_run_whole_and_that_is_said() -> None:
    class Moody(_Skip):
        factor = 1.0

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * self.factor

    network, x = made(Moody), pictures(2, height=16, width=16)
    model = TorchModel(network)
    with model.opened():
        found = model.features(x, "layer")
        network.factor = 2.0  # between the pass and the first replay
        got = model.from_features(found, found.maps, torch.arange(2))
    close(got.scores[:, 0], whole(network, "layer", x, found.maps, 1), atol=1e-5, rtol=1e-5)
    assert any("could not be cut" in said for said in found.warnings)


def test_threads_that_run_the_network_without_seewhy_get_its_own_modules() -> None:
    network, x = made(_Skip), pictures(1, height=16, width=16)
    other = pictures(1, seed=5, height=16, width=16)
    with torch.no_grad():
        want = network(other)
    got: list[Tensor] = []

    def elsewhere(*_: Any) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        with torch.no_grad():
            thread = threading.Thread(target=lambda: got.append(network(other).detach()))
            thread.start()
            thread.join()

    model = TorchModel(network)
    with model.opened():
        found = model.features(x, "layer")
        handle = network.after.register_forward_pre_hook(elsewhere)
        model.from_features(found, found.maps, torch.zeros(1, dtype=torch.long))
        handle.remove()
    assert got
    for one in got:
        close(one, want)


def test_scripted_parts_run_as_they_are() -> None:
    network, x = made(_Skip), pictures(2, height=16, width=16)
    network.stem = torch.jit.script(network.stem)
    network.side = torch.jit.script(network.side)
    _, maps, outputs = replayed(network, "layer", x, changed)
    close(outputs.scores[:, 0], whole(network, "layer", x.repeat_interleave(3, 0), maps, 1), atol=1e-5, rtol=1e-5)


def test_a_layer_whose_head_is_never_asked_is_written_down_once() -> None:
    network, x = made(_Skip), pictures(1, height=16, width=16)
    model = TorchModel(network)
    with model.opened():
        first, second = model.features(x, "layer"), model.features(x, "layer")
        assert first.state.recording is not None
        assert second.state.recording is None
        got = model.from_features(second, second.maps, torch.zeros(1, dtype=torch.long))
    close(got.scores, second.outputs.scores, atol=1e-6, rtol=1e-5)
    assert isinstance(second.state, head.Head)
