"""Where a row of tokens lies in the picture: how many tokens stand before those of the picture, and their grid.

Nothing is assumed about a network's tokens: a grid is tried out. One place is changed, and the token that changes most
must be the one that the grid says. The place is a position of the map that the tokens were made from, or where there is
none of that grid a cell of the picture. This is looked at where tokens of a length come up first, before they have
spoken to each other; whether every token keeps its place from there on to a layer that is used is tried out, too. In a
pyramid, whose grids come of finer ones by leaving out or pooling positions, the finer cell that each token came of is
changed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from seewhy.errors import NoSpatialOutput
from seewhy.models.layout import Layout, Seen, is_tokens
from seewhy.models.places import alike, apart, changed, probes
from seewhy.models.torch.state import hooked, on
from seewhy.models.turns import alone
from seewhy.registry import instead
from seewhy.types import Passes

__all__ = ["MOST_PREFIX", "Enough", "NotOfThePicture", "astray", "candidates", "locate", "stay"]

MOST_PREFIX = 16  # class tokens and registers
_TRIES = 6
_HIGH = 0.8  # share of the other tokens that move less than the one that was changed, which speaks to all
_FIRSTS = 6  # how many tensors of a length are tried
_OBLONG = math.log(1.25)  # a cell's height and width may differ by a quarter, where borders of a picture are cut off


class NotOfThePicture(NoSpatialOutput):
    """Tokens that do not move with the places of the picture."""


class Enough(Exception):
    """Ends a forward pass when what was looked for has been seen; never leaves this package."""


def locate(
    network: nn.Module, inputs: Tensor, length: int, seen: list[Seen], run: Callable[[Tensor], Any],
    passes: Passes,
) -> Layout:  # fmt: skip
    """Returns the layout of tokens of this length, found by changing cells of the first picture.

    Args:
        network: the module.
        inputs: (N, C, H, W).
        length: of the row of tokens.
        seen: what every module gave for these inputs.
        run: one forward pass.
        passes: counts the pictures of passes that were ended.

    Raises:
        NoSpatialOutput: no grid stood the test.
    """
    own = [s for s in seen if s.kind in ("tokens", "enters") and s.shape[:2] == (1, length)]
    firsts: dict[str, Seen] = {}
    for one in own:
        if one.live:
            firsts.setdefault(one.value, one)
    still = True
    for first in list(firsts.values())[:_FIRSTS]:
        search = _Search(network, inputs[:1], first, run, passes)
        found = _layout(search, length, seen[: seen.index(first)], inputs)
        if found is not None:
            return found
        still = still and search.still
    known = next(iter(firsts.values()), own[0]).name
    raise (NotOfThePicture if still else NoSpatialOutput)(astray(length, known, still))


def astray(length: int, layer: str, still: bool = False) -> str:
    """Says that tokens of a length have no layout; ``still`` where they move with no place of the picture."""
    how = "do not move with the places of the picture" if still else "do not lie in the picture row by row"
    return (
        f"The network's tokens ({length} of them from layer {layer!r} on) {how}, so a map cannot be read from them. "
        f"Use a method that needs scores only: {instead('scores')}."
    )


def stay(
    network: nn.Module, image: Tensor, layout: Layout, source: Seen, layer: Seen, run: Callable[[Tensor], Any],
    passes: Passes,
) -> bool:  # fmt: skip
    """Says whether a change of one token of ``source`` moves the same token of ``layer`` most.

    Where everything moves everything it is enough that it moves more than nearly all others. Tokens may be sorted in
    between, by windows for example.

    Args:
        network: the module.
        image: (1, C, H, W).
        layout: of tokens of this length.
        source: tokens that run before.
        layer: the tokens in question.
        run: one forward pass.
        passes: counts the pictures of a pass that is ended.
    """
    cells = probes(layout.grid)
    places = [layout.prefix + i * layout.grid[1] + j for i, j in cells]
    kept: list[Tensor] = []

    def change(tokens: Tensor) -> Tensor:
        copy = tokens.clone()
        noise = torch.randn(copy.shape[2], generator=torch.Generator().manual_seed(0)).to(copy)
        for row, place in zip(copy[1:], places, strict=True):
            row[place] += noise * (1 + row.float().std(correction=0).to(noise))
        return copy

    def keep(tokens: Tensor) -> None:
        kept.append(tokens.detach().float())
        raise Enough

    rows = 1 + len(cells)
    with alone(network), ExitStack() as stack, suppress(Enough), torch.no_grad():
        stack.enter_context(_seen(network, source, rows, change))
        stack.enter_context(_seen(network, layer, rows, keep))
        passes.forward += rows
        run(image.expand(rows, -1, -1, -1).contiguous())
        passes.forward -= rows
    if not kept:
        return False
    moved = (kept[0][1:] - kept[0][:1]).norm(dim=2)
    return _each_most(moved, places) or (apart(layout.to_maps(kept[0]), cells) and _rank(moved, places) >= _HIGH)


@contextmanager
def _seen(network: nn.Module, one: Seen, rows: int, hook: Callable[[Tensor], Tensor | None]) -> Iterator[None]:
    """A hook on the tokens of one call of a module, which it gives or is given."""
    calls, module = 0, network.get_submodule(one.name)

    def counted(tokens: Any) -> Any:
        nonlocal calls
        calls += 1
        wanted = calls == one.call and is_tokens(tokens) and len(tokens) == rows
        return hook(tokens) if wanted else None

    def before(_module: nn.Module, args: Any) -> Any:
        found = counted(args[0])
        return None if found is None else (found, *args[1:])

    given = one.kind == "enters"
    with on(module, before=before) if given else on(module, after=lambda _m, _args, output: counted(output)):
        yield


def _layout(search: _Search, length: int, before: list[Seen], inputs: Tensor) -> Layout | None:
    """Returns the layout that stood the test, or None."""
    maps = [s for s in before if s.kind == "map"]
    tries = candidates(length, maps, inputs)[:_TRIES]
    for prefix, grid in tries:
        source = next((s for s in reversed(maps) if s.grid == grid and s.live), None)
        if source and search.holds(prefix, grid, source):
            return Layout("tokens", prefix, grid)
    for prefix, grid in sorted(tries, key=lambda found: found[0] > 0):  # those that fill their grid come first
        if prefix and (inputs.shape[2] % grid[0] or inputs.shape[3] % grid[1]):
            continue  # cells that are not the network's own prove nothing about one token more or less
        finer = _finer(grid, before, inputs) if prefix == 0 else None
        if search.holds(prefix, grid, None) or (finer is not None and search.is_step(grid, finer)):
            return Layout("tokens", prefix, grid)
    return None


def candidates(length: int, maps: list[Seen], inputs: Tensor) -> list[tuple[int, tuple[int, int]]]:
    """(prefix, grid) that the length allows: grids of earlier maps, the latest first, then by the picture's shape."""
    grids = [(s.grid[0], s.grid[1]) for s in reversed(maps)]
    found = [(length - h * w, (h, w)) for h, w in grids if 0 <= length - h * w <= MOST_PREFIX]
    height, width = inputs.shape[2:]
    shaped: list[tuple[float, int, tuple[int, int]]] = []
    for prefix in range(min(MOST_PREFIX + 1, length - 1)):
        total = length - prefix
        for h in (h for h in range(1, total + 1) if total % h == 0):
            oblong = abs(math.log(height * (total // h) / (h * width)))
            if total > 1 and oblong < _OBLONG:
                shaped.append((oblong, prefix, (h, total // h)))
    found += [(prefix, grid) for _, prefix, grid in sorted(shaped)]
    return list(dict.fromkeys(found))


def _finer(grid: tuple[int, int], seen: list[Seen], inputs: Tensor) -> tuple[int, int] | None:
    """Returns the finest grid of tokens before of which this one can have come by taking every n-th position."""
    lengths = {s.shape[1] for s in seen if s.kind in ("tokens", "enters")}
    before = [g for length in lengths for prefix, g in candidates(length, [], inputs) if prefix == 0]
    steps = [
        g for g in before if g > grid and all(-(-b // -(-g[0] // grid[0])) == a for a, b in zip(grid, g, strict=True))
    ]
    return max(steps, default=None)


@dataclass(eq=False)
class _Search:
    """Tries grids out on one picture (1, C, H, W) and the tokens of one layer."""

    network: nn.Module
    image: Tensor
    layer: Seen
    run: Callable[[Tensor], Any]
    passes: Passes
    still: bool = True  # whether every change so far moved nothing, or all tokens alike

    def holds(self, prefix: int, grid: tuple[int, int], source: Seen | None) -> bool:
        """Says whether each change moves the token that stands for its place most; see `_each_most`.

        Where tokens have spoken to each other some may move much whatever is changed: then what counts is by how much
        a token moves beside what it does under the other changes.
        """
        cells = probes(grid)
        moved = self._moved(grid, cells, source)
        return _each_most(moved, [prefix + i * grid[1] + j for i, j in cells])

    def is_step(self, grid: tuple[int, int], finer: tuple[int, int]) -> bool:
        """Says whether a change of the finer cell that each token came of moves that token most."""
        step = -(-finer[0] // grid[0])
        cells = probes(grid)
        found = self._moved(finer, [(step * i, step * j) for i, j in cells], None)
        return _most(found) == [i * grid[1] + j for i, j in cells]

    def _moved(self, grid: tuple[int, int], cells: list[tuple[int, ...]], source: Seen | None) -> Tensor:
        """(cells, L): by how much each changed cell moved each token; (0, L) where they were not seen."""
        tokens = self._tokens(grid, cells, source)
        if tokens is None:
            return torch.zeros(0, self.layer.shape[1])
        moved: Tensor = (tokens[1:] - tokens[:1]).float().norm(dim=2)
        self.still = self.still and alike(moved)
        return moved

    def _tokens(self, grid: tuple[int, int], cells: list[tuple[int, ...]], source: Seen | None) -> Tensor | None:
        """(1 + cells, L, C): the layer's tokens as they are, and with each cell changed."""
        kept: list[Tensor] = []
        inputs = self.image.expand(1 + len(cells), -1, -1, -1)

        calls = 0

        def keep(tokens: Any) -> None:
            nonlocal calls
            calls += 1
            if calls < self.layer.call:
                return
            if is_tokens(tokens) and len(tokens) == len(inputs):
                kept.append(tokens.detach().clone())
            raise Enough

        with alone(self.network), ExitStack() as stack, suppress(Enough), torch.no_grad():
            module = self.network.get_submodule(self.layer.name)
            if self.layer.kind == "enters":
                stack.enter_context(on(module, before=lambda _module, args: keep(args[0])))
            else:
                stack.enter_context(on(module, after=lambda _module, _args, output: keep(output)))
            if source is None:
                inputs = changed(self.image, grid, cells)
            else:
                stack.enter_context(hooked(self.network, source.name, _changing(source, cells)))
            self.passes.forward += len(inputs)
            self.run(inputs.contiguous())
            self.passes.forward -= len(inputs)  # the pass came to its end and was counted
        return kept[0] if kept else None


def _each_most(moved: Tensor, wanted: list[int]) -> bool:
    """Whether each change moves its own token most, or most beside what that token does under the other changes."""
    return wanted in (_most(moved), _most(moved / moved.mean(0).clamp_min(1e-12)))


def _rank(moved: Tensor, wanted: list[int]) -> float:
    """The share of tokens that each change moves less than its own, beside what they do under the other changes."""
    table = (moved + 1e-6 * moved.amax()).log()
    table = table - table.mean(0)
    own = table[torch.arange(len(wanted)), wanted]
    return float((table < own[:, None]).float().mean()) if bool(moved.any()) else 0.0


def _most(moved: Tensor) -> list[int]:
    """For each change the token that moved most; nothing where one moved none."""
    return moved.argmax(1).tolist() if len(moved) and bool((moved.amax(1) > 0).all()) else []


def _changing(source: Seen, cells: list[tuple[int, ...]]) -> Callable[..., Tensor]:
    """Returns a hook that changes one position of a map in each row but the first."""

    def hook(_module: nn.Module, _args: Any, output: Tensor) -> Tensor:
        copy = output.clone()
        view = copy.permute(0, 3, 1, 2) if source.last else copy
        noise = torch.randn(view.shape[1], generator=torch.Generator().manual_seed(0)).to(view)
        for row, (i, j) in zip(view[1:], cells, strict=True):
            row[:, i, j] += noise * (1 + row.float().std(correction=0).to(noise))
        return copy

    return hook
