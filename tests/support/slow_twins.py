"""Maps computed by hand, with hooks, autograd and the whole network only: nothing here asks seewhy anything.

What is needed of a layer is said by the caller: its name, how many tokens stand before those of the picture, its grid.
Whether that is true is asked here, too: whether all that the scores know of the picture passes through the layer
(`funnel`), and whether its positions lie where the picture's places are (`in_place`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seewhy.errors import SeewhyError
from seewhy.explainers import GradCAM, Occlusion, ViTReciproCAM
from seewhy.models.torch.model import TorchModel
from support.networks import pictures

__all__ = ["Client", "Place", "Twin", "check", "same", "say_pixels"]


def say_pixels(network: Any, x: Tensor) -> Tensor:
    """The logits of a network of Hugging Face's."""
    return network(pixel_values=x).logits


@dataclass(frozen=True, kw_only=True)
class Place:
    """A layer, and how it lies in the picture.

    Attributes:
        layer: name of the module.
        prefix: how many tokens stand before those of the picture; None for a map.
        grid: height and width.
        call: which call of the module counts, from 0.
    """

    layer: str
    prefix: int | None
    grid: tuple[int, int]
    call: int = -1

    def maps(self, output: Tensor) -> Tensor:
        """(N, C, h, w) of the layer's output."""
        if self.prefix is not None:
            return output[:, self.prefix :].transpose(1, 2).unflatten(2, self.grid)
        last = output.shape[1:3] == self.grid and output.shape[2:] != self.grid
        return output.permute(0, 3, 1, 2) if last else output


@dataclass(frozen=True, kw_only=True)
class Client:
    """A small network of somebody else's library, and what is expected of it.

    Attributes:
        name: in tables.
        make: gives the network.
        side: of the pictures, in pixels.
        channels: of the pictures.
        say: (network, pictures) -> scores (N, K), as its own users call it.
        options: how seewhy is told the same: arguments of `TorchModel`.
        layer: the automatic layer; "" where there is none.
        prefix: tokens before those of the picture at that layer; None for a map.
        grid: of that layer; 0 where there is none.
        carries: whether all that the scores know of the picture passes through that layer. Where the head reads a class
            token it does not: what that token has gathered before goes on beside it.
        error: the whole sentence where no layer is found.
        block: of a transformer, the block for ViTReciproCAM and its first norm ("" where the norms come later).
        placed: whether it can be seen by gradients where its positions lie. In a deep random network each may depend
            on the whole picture, and of 2 x 2 positions too little can be said.
        loose: numbers of a deep network that differ by more than rounding from one batch size to another.
        activate: scores -> probabilities.
    """

    name: str
    make: Callable[[], nn.Module]
    side: int = 64
    channels: int = 3
    say: Callable[[Any, Tensor], Tensor] = lambda network, x: network(x)
    options: dict[str, Any] = field(default_factory=dict)
    layer: str = ""
    prefix: int | None = None
    grid: int = 0
    carries: bool = True
    error: str = ""
    block: tuple[str, str] | None = None
    placed: bool = True
    loose: float = 1e-4
    activate: Callable[[Tensor], Tensor] = lambda scores: scores.softmax(1)

    @property
    def place(self) -> Place:
        """The automatic layer."""
        return Place(layer=self.layer, prefix=self.prefix, grid=(self.grid, self.grid))

    def built(self) -> nn.Module:
        """The network, always with the same weights; its BatchNorms have seen eight pictures, so that it is alive."""
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = self.make().eval()
            for parameter in network.parameters():  # classifiers of zeros, branches with a scale of 0.00001
                largest = float(parameter.detach().abs().max()) if parameter.numel() else 1.0
                if (parameter.ndim > 1 and largest == 0) or (parameter.ndim == 1 and 0 < largest < 1e-3):
                    nn.init.normal_(parameter, 0, 0.1)
            norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
            for norm in norms:
                norm.train().momentum = 1.0
            if norms:
                with torch.no_grad():
                    self.say(network, self.pictures(8))
        return network.eval()

    def pictures(self, n: int = 2) -> Tensor:
        """(N, C, H, W)."""
        return pictures(n, self.channels, self.side, self.side)


@dataclass(frozen=True, eq=False)
class Twin:
    """Maps of class ``label`` by hand.

    Attributes:
        network: in evaluation mode.
        say: (network, pictures) -> scores (N, K).
        x: (N, C, H, W).
        label: the class.
    """

    network: nn.Module
    say: Callable[[Any, Tensor], Tensor]
    x: Tensor
    label: int

    @contextmanager
    def hooked(self, place: Place, hook: Callable[[Tensor], Tensor]) -> Iterator[None]:
        """The output of one call of a layer is replaced by what ``hook`` makes of it."""
        count = self._calls(place.layer) if place.call < 0 else 0
        wanted, ran = place.call % count if count else place.call, 0

        def own(_module: nn.Module, _args: Any, output: Any) -> Any:
            nonlocal ran
            ran += 1
            if ran != wanted + 1:
                return None
            return (hook(output[0]), *output[1:]) if isinstance(output, tuple) else hook(output)

        handle = self.network.get_submodule(place.layer).register_forward_hook(own)
        try:
            yield
        finally:
            handle.remove()

    def _calls(self, layer: str) -> int:
        ran: list[int] = []
        handle = self.network.get_submodule(layer).register_forward_hook(lambda *_: ran.append(1))
        with torch.no_grad():
            self.say(self.network, self.x[:1])
        handle.remove()
        return len(ran)

    def slopes(self, place: Place) -> tuple[Tensor, Tensor]:
        """Maps and gradients (N, C, h, w) of a layer."""
        kept: list[Tensor] = []

        def keep(output: Tensor) -> Tensor:
            leaf = output.detach().requires_grad_()
            kept.append(leaf)
            return leaf.clone()

        with self.hooked(place, keep), torch.enable_grad():
            scores = self.say(self.network, self.x)
        (gradient,) = torch.autograd.grad(scores[:, self.label].sum(), kept[0], allow_unused=True)
        gradient = torch.zeros_like(kept[0]) if gradient is None else gradient
        return place.maps(kept[0].detach()), place.maps(gradient)

    def grad_cam(self, place: Place) -> Tensor:
        maps, slopes = self.slopes(place)
        return (slopes.mean((2, 3), keepdim=True) * maps).sum(1, keepdim=True).relu()

    def layer_cam(self, place: Place) -> Tensor:
        maps, slopes = self.slopes(place)
        return (slopes.relu() * maps).sum(1, keepdim=True).relu()

    def gradient(self) -> Tensor:
        x = self.x.clone().requires_grad_()
        (found,) = torch.autograd.grad(self.say(self.network, x)[:, self.label].sum(), x)
        return found

    @torch.no_grad()
    def recipro_cam(self, place: Place, cells: list[tuple[int, int]]) -> Tensor:
        """(N, cells): the score where the layer gives one position only."""

        def alone(cell: tuple[int, int], output: Tensor) -> Tensor:
            own, (i, j) = torch.zeros_like(output), cell
            place.maps(own)[:, :, i, j] = place.maps(output)[:, :, i, j]
            return own

        found = []
        for cell in cells:
            with self.hooked(place, partial(alone, cell)):
                found.append(self.say(self.network, self.x)[:, self.label])
        return torch.stack(found, 1)

    @torch.no_grad()
    def vit_recipro_cam(self, place: Place, block: str, norm: str, cells: list[tuple[int, int]]) -> Tensor:
        """(N, cells): a Gaussian on the tokens that enter ``block``, past its ``norm`` ("" for none)."""
        prefix, (h, w), found = place.prefix or 0, place.grid, []
        module = self.network.get_submodule(block)
        for cell in cells:
            weight = torch.ones(1, prefix + h * w, 1)
            weight[:, prefix:, 0] = _gaussian(cell, h, w).flatten()
            entered: list[Tensor] = []
            handles = [module.register_forward_pre_hook(_weigh(entered, weight), with_kwargs=True)]
            if norm:
                inner = self.network.get_submodule(norm)
                handles.append(inner.register_forward_hook(lambda m, _a, _o, e=entered, g=weight: m.forward(e[0]) * g))
            found.append(self.say(self.network, self.x)[:, self.label])
            for handle in handles:
                handle.remove()
        return torch.stack(found, 1)

    @torch.no_grad()
    def occlusion(self, side: int, activate: Callable[[Tensor], Tensor]) -> Tensor:
        """(N, H, W): the fall of the probability where each of the windows that lie side by side is covered with 0."""
        before = activate(self.say(self.network, self.x))[:, self.label]
        found = torch.zeros(len(self.x), *self.x.shape[2:])
        for top in range(0, self.x.shape[2], side):
            for left in range(0, self.x.shape[3], side):
                covered = self.x.clone()
                covered[:, :, top : top + side, left : left + side] = 0
                fall = before - activate(self.say(self.network, covered))[:, self.label]
                found[:, top : top + side, left : left + side] = fall[:, None, None]
        return found

    @torch.no_grad()
    def funnel(self, place: Place) -> float:
        """By how much the scores differ from those of another picture whose output of the layer is put in: 0 is all."""
        kept: list[Tensor] = []
        other = self.x.flip(0)  # the pictures change places

        def keep(output: Tensor) -> Tensor:
            kept.append(output.clone())
            return output

        with self.hooked(place, keep):
            wanted = self.say(self.network, other)
        with self.hooked(place, lambda _output: kept[0].clone()):
            got = self.say(self.network, self.x)
        own = self.say(self.network, self.x)
        return float((got - wanted).norm() / (own - wanted).norm().clamp_min(1e-12))

    def in_place(self, place: Place) -> float:
        """How far up the picture's own cell stands among all cells of which a position of the layer depends.

        The mean over positions of the share of cells on which the position depends less, by the gradient of the
        position's energy; 1 is best and 0.5 is chance. Cells on which all positions depend much count less.
        """
        h, w = place.grid
        x = self.x[:1].clone().requires_grad_()
        kept: list[Tensor] = []

        def keep(output: Tensor) -> Tensor:
            kept.append(output)
            return output.clone()

        with self.hooked(place, keep), torch.enable_grad():
            self.say(self.network, x)
            energies = place.maps(kept[0])[0].square().sum(0).flatten()
        rows = []
        for p in range(0, h * w, max(1, h * w // 16)):
            (slope,) = torch.autograd.grad(energies[p], x, retain_graph=True)
            rows.append((p, nn.functional.adaptive_avg_pool2d(slope.abs().sum(1), (h, w)).flatten()))
        table = torch.stack([row for _, row in rows])
        table = table / table.sum(1, keepdim=True).clamp_min(1e-20)
        table = table / table.mean(0, keepdim=True).clamp_min(1e-20)
        ranks = [float((row <= row[p]).double().mean()) for (p, _), row in zip(rows, table, strict=True)]
        return sum(ranks) / len(ranks)


def _weigh(entered: list[Tensor], weight: Tensor) -> Any:
    def hook(_module: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        if args:
            entered.append(args[0].clone())
            return (args[0] * weight, *args[1:]), kwargs
        entered.append(kwargs["hidden_states"].clone())
        return args, {**kwargs, "hidden_states": kwargs["hidden_states"] * weight}

    return hook


def _gaussian(cell: tuple[int, int], h: int, w: int) -> Tensor:
    """[1 2 1; 2 4 2; 1 2 1] / 16 around a cell, cut off at the borders."""
    line = torch.tensor([1.0, 2.0, 1.0])
    whole = torch.zeros(h + 2, w + 2)
    whole[cell[0] : cell[0] + 3, cell[1] : cell[1] + 3] = line[:, None] * line / 16
    return whole[1:-1, 1:-1]


def check(client: Client) -> None:
    """The automatic layer and what is true of it; GradCAM, Occlusion and ViTReciproCAM by hand.

    The class is the first for which GradCAM by hand is not empty, so that empty maps are not all that is compared.
    """
    network, x = client.built(), client.pictures()
    model = TorchModel(network, **client.options)
    if client.error:
        with pytest.raises(SeewhyError, match=f"^{re.escape(client.error)}$"):
            GradCAM(model).run(x, 0)
        return
    place, classes = client.place, client.say(network, x).shape[1]
    twins = (Twin(network, client.say, x, label) for label in range(min(classes, 5)))
    twin, want = next((t, m) for t in twins if bool((m := t.grad_cam(place)).any()))
    found = GradCAM(model).run(x, twin.label)
    assert (found.layer, tuple(found.raw.shape)) == (client.layer, (2, 1, client.grid, client.grid))
    same(found.raw, want, client.loose)
    assert not client.placed or client.grid == 2 or twin.in_place(place) > 0.8
    assert (twin.funnel(place) < 1e-3) == client.carries
    side = client.side // 4
    covered = Occlusion(model, window=side, stride=side).run(x, twin.label)
    same(covered.raw[:, 0], twin.occlusion(side, client.activate), max(1e-3, client.loose))
    if client.block is not None:
        shown, cells = ViTReciproCAM(model).run(x, twin.label), [(0, 1), (client.grid - 1, 0)]
        by_hand = twin.vit_recipro_cam(place, *client.block, cells)
        same(torch.stack([shown.raw[:, 0, i, j] for i, j in cells], 1), by_hand, client.loose)


def same(got: Tensor, want: Tensor, share: float) -> None:
    """Equal up to a share of the largest value, which is not 0."""
    largest = float(want.abs().max())
    assert largest > 0
    torch.testing.assert_close(got, want, atol=share * largest, rtol=0)
