"""Tries out on a network whether a layer's map lies in the picture, and whether it is the network's answer itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn

from seewhy.errors import InputRefused
from seewhy.models.layout import Seen
from seewhy.models.places import answers, apart, changed, probes
from seewhy.models.tokens import Enough
from seewhy.models.torch.state import hooked
from seewhy.types import Passes

__all__ = ["is_answer", "lies"]


def lies(
    network: nn.Module, image: Tensor, layer: Seen, source: Seen | None, run: Callable[[Tensor], Any], passes: Passes
) -> bool:
    """Whether a change of one place of the picture (1, C, H, W), or of an earlier map, moves the layer's map there.

    It must move it there more than elsewhere; see `_places`.
    """
    grid = layer.grid
    cells = probes(grid)
    rows = 1 + len(cells)

    def change(_module: nn.Module, _args: Any, output: Tensor) -> Tensor:
        assert source is not None
        maps = _channels_first(output, source)[:1]
        found = changed(maps.float(), grid, cells).to(output)
        return found.movedim(1, -1) if source.last else found

    def moved(inputs: Tensor) -> Tensor | None:
        kept: list[Tensor] = []

        def keep(_module: nn.Module, _args: Any, output: Any) -> None:
            kept.append(_channels_first(output, layer).detach().float())
            raise Enough

        with ExitStack() as stack, suppress(Enough), torch.no_grad():
            stack.enter_context(_at(network, layer, keep))
            if source is not None:
                stack.enter_context(_at(network, source, change))
            passes.forward += rows
            run(inputs)
            passes.forward -= len(inputs)
        return kept[0] if kept and len(kept[0]) == rows else None

    if source is None:
        found = moved(changed(image, grid, cells))
    else:
        found = None
        with suppress(InputRefused):  # one picture comes as far as the source; not every network takes more from there
            found = moved(image)
        found = moved(image.expand(rows, *image.shape[1:]).contiguous()) if found is None else found
    return found is not None and apart(found, cells)


@contextmanager
def _at(network: nn.Module, layer: Seen, hook: Callable[..., Any]) -> Iterator[None]:
    """A hook for one call of a module."""
    calls = 0

    def counted(module: nn.Module, args: Any, output: Any) -> Any:
        nonlocal calls
        calls += 1
        return hook(module, args, output) if calls == layer.call else None

    with hooked(network, layer.name, counted):
        yield


def is_answer(
    network: nn.Module, image: Tensor, layer: Seen, channels: int, run: Callable[[Tensor], Any],
    scores: Callable[[Any, int], Tensor],
) -> bool:  # fmt: skip
    """Says whether each of a map's channels is the score of one class: changed alone, it moves that class and no other.

    The classes are those of the scores, or of a map that the network returns.
    """
    which = sorted({0, channels // 2, channels - 1})

    def change(_module: nn.Module, _args: Any, output: Tensor) -> Tensor:
        copy = output.clone()
        view = _channels_first(copy, layer)
        step = 1 + view.detach().float().std(correction=0).to(view)
        for row, channel in zip(view[1:], which, strict=True):
            row[channel] += step
        return copy

    with torch.no_grad(), _at(network, layer, change):
        raw = run(image.expand(1 + len(which), *image.shape[1:]).contiguous())
        return answers(raw, scores(raw, 1 + len(which)), channels)


def _channels_first(output: Tensor, layer: Seen) -> Tensor:
    return output.movedim(-1, 1) if layer.last else output
