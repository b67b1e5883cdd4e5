"""A copy of a torch network in which every BatchNorm that directly follows a convolution is part of that convolution.

    BN(W * x + b) = (W s) * x + (b - mean) s + beta,   s = gamma / sqrt(var + eps)

Which BatchNorm follows which convolution is seen in a pass: it is given the very tensor that the convolution gave, and
nothing has changed it in between. Whether something else looks at that tensor is not seen: who uses the copy compares
its scores.
"""

from __future__ import annotations

import copy
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from seewhy.models.torch.parts import walk
from seewhy.models.torch.state import on

__all__ = ["folded"]


def folded(network: nn.Module, run: Any) -> nn.Module | None:
    """Returns the copy, in evaluation mode; None where there is nothing to fold. The network is left alone.

    Args:
        network: in evaluation mode; the caller has it to itself.
        run: network -> nothing; makes one pass.
    """
    own = copy.deepcopy(network).eval()
    pairs = _pairs(own, run)
    for conv, norm in pairs:
        _fold(conv, norm)
    places = {id(norm): _after(norm) for _, norm in pairs}
    for module in walk(own):
        for name, child in list(module._modules.items()):
            if id(child) in places:
                module._modules[name] = places[id(child)]
    return own if pairs else None


def _pairs(network: nn.Module, run: Any) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    given: dict[int, tuple[nn.Conv2d, Tensor, int]] = {}
    found: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []
    calls: dict[nn.Module, int] = {}

    def gave(module: nn.Module, _args: Any, output: Any) -> None:
        calls[module] = calls.get(module, 0) + 1
        if isinstance(module, nn.Conv2d) and isinstance(output, Tensor):
            given[id(output)] = (module, output, output._version)

    def gets(module: nn.Module, args: Any) -> None:
        conv, tensor, version = given.get(id(args[0]) if args else 0, (None, None, -1))
        if conv is not None and tensor is not None and tensor is args[0] and tensor._version == version:
            assert isinstance(module, nn.BatchNorm2d)
            found.append((conv, module))

    with ExitStack() as stack:
        for module in walk(network):
            if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
                stack.enter_context(on(module, before=gets if isinstance(module, nn.BatchNorm2d) else None, after=gave))
        run(network)
    once = [pair for pair in found if all(calls.get(module) == 1 for module in pair)]
    return [(conv, norm) for conv, norm in once if norm.running_mean is not None and _plain(conv, norm)]


def _plain(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> bool:
    """Says whether the weights are parameters of these modules, and it is known what the norm does besides."""
    own = "weight" in conv._parameters and "bias" in conv._parameters
    return own and (type(norm) is nn.BatchNorm2d or all(isinstance(getattr(norm, n, None), nn.Module) for n in _REST))


_REST = ("drop", "act")  # what timm's BatchNorm does afterwards


def _after(norm: nn.BatchNorm2d) -> nn.Module:
    if type(norm) is nn.BatchNorm2d:
        return nn.Identity()
    return nn.Sequential(*(getattr(norm, name) for name in _REST))


def _fold(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    with torch.no_grad():
        weight, bias = fuse_conv_bn_weights(
            conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        )
    conv.weight, conv.bias = weight, bias
