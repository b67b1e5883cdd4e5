"""HiResCAM of a network of volumes, with torch's own hooks and gradients alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["hires"]


def hires(
    network: nn.Module, layer: str, x: Tensor, c: int, *, last: bool = False,
    say: Callable[[Any], Tensor] = lambda raw: raw,
) -> Tensor:  # fmt: skip
    """(N, d, h, w): a layer's output times the gradient of a score there, summed over channels.

    Args:
        network: in evaluation mode.
        layer: that gives (N, C, d, h, w).
        x: (N, C, D, H, W).
        c: the class.
        last: whether the layer gives (N, d, h, w, C).
        say: what the network returns -> scores (N, K).
    """
    kept: list[Tensor] = []

    def keep(_module: nn.Module, _args: Any, output: Tensor) -> Tensor:
        kept.append(output.detach().requires_grad_())
        return kept[-1].clone()

    with network.get_submodule(layer).register_forward_hook(keep), torch.enable_grad():
        score = say(network(x))[:, c].sum()
    (gradient,) = torch.autograd.grad(score, kept[-1:])
    return (gradient * kept[-1].detach()).sum(-1 if last else 1)
