"""Says why a network refused its input, and what is at fault: the picture's channels, a further input, or a layer."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from seewhy.errors import InvalidInput, one_line
from seewhy.maps import VOLUME, size_of
from seewhy.models.torch.further_inputs import shapes

__all__ = ["check_frames", "refusal"]

_CONVOLUTIONS = nn.Conv2d | nn.Conv3d


def refusal(network: nn.Module, title: str, inputs: Tensor, further: Mapping[str, Any], error: Exception) -> str:
    """Returns the message for an error that a network raised.

    Args:
        network: the module.
        title: how it is called.
        inputs: (N, C, H, W) or (N, C, D, H, W), what it was given.
        further: what it was given besides.
        error: what it raised.
    """
    if isinstance(error, RecursionError):
        limit = sys.getrecursionlimit()
        return (
            f"{title} calls modules within modules deeper than Python's recursion limit allows, which is {limit}. "
            f"Raise it: sys.setrecursionlimit({4 * limit})."
        )
    n, c = inputs.shape[:2]
    size = " x ".join(map(str, size_of(inputs)))
    beside = f" with {shapes(further)}" if further else ""
    said = one_line(error)
    return (
        f"{title} refuses an input of {n} x {c} channels x {size} pixels{beside}.{_channels(network, inputs, error)}"
        f"{_place(network, error)} It says: {said}"
    )


def _channels(network: nn.Module, inputs: Tensor, error: Exception) -> str:
    """What the first convolution takes, where that is not what came."""
    where = _raised(network, error)
    first = next((m for m in network.modules() if isinstance(m, _CONVOLUTIONS)), None)
    if isinstance(first, nn.Conv3d) and inputs.ndim != VOLUME:
        return " Its first convolution takes volumes or clips (N, C, D, H, W); for one of them use x.unsqueeze(0)."
    at_fault = first is not None and first.in_channels != inputs.shape[1] and (where is None or where[1] is first)
    return f" Its first convolution takes {first.in_channels} channels." if at_fault and first is not None else ""


def _place(network: nn.Module, error: Exception) -> str:
    """Returns the layer that raised the error, unless it is the network itself."""
    found = _raised(network, error)
    if found is None or not found[0] or (isinstance(found[1], _CONVOLUTIONS) and "channels" in str(error)):
        return ""
    return f" It failed in {found[0]!r} ({type(found[1]).__name__})."


def _raised(network: nn.Module, error: Exception) -> tuple[str, nn.Module] | None:
    """Name and module of the innermost part of the network in which the error was raised."""
    names = {id(module): name for name, module in network.named_modules()}
    found: tuple[str, nn.Module] | None = None
    trace = error.__traceback__
    while trace is not None:
        own = trace.tb_frame.f_locals.get("self")
        if isinstance(own, nn.Module) and id(own) in names:
            found = names[id(own)], own
        trace = trace.tb_next
    return found


def check_frames(network: nn.Module, title: str, inputs: Tensor) -> None:
    """Raises where a network's configuration shows that its clips have their frames before their channels."""
    config = getattr(network, "config", None)
    known = getattr(config, "num_frames", None), getattr(config, "num_channels", None)
    if inputs.ndim == VOLUME and None not in known and tuple(inputs.shape[1:3]) == known != known[::-1]:
        raise InvalidInput(
            f"{title} takes clips (N, frames, C, H, W), and those that are explained are (N, C, frames, H, W). "
            "Explain a module whose forward passes x.transpose(1, 2) on."
        )
