"""Leaves a torch module as it was found: modes, requires_grad, buffers and the global random state."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.jit import ScriptModule
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["hooked", "untouched"]


@contextmanager
def untouched(network: nn.Module) -> Iterator[None]:
    """Evaluation mode and frozen parameters for the time of the block; then everything is put back, also on errors."""
    modules = list(network.modules())  # walked once: with small networks the walk is what a call costs
    modes = [(m, m.training) for m in modules]
    parameters = [p for m in modules for p in m._parameters.values() if p is not None]
    frozen = [p for p in parameters if p.requires_grad and not p.is_inference()]  # of those the flag cannot be set
    named = [(m, dict(m._buffers)) for m in modules if not isinstance(m, _BatchNorm | ScriptModule) and m._buffers]
    buffers = [
        (b, b.clone(), b._version) for _, own in named for b in own.values() if b is not None and not b.is_inference()
    ]
    norms = _snapshots(m for m in modules if isinstance(m, _BatchNorm) and not isinstance(m, ScriptModule))
    devices = {p.device.index for p in parameters if p.is_cuda}
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=list(devices)))
        stack.enter_context(_eager(modules))
        try:
            _set(modules, frozen)
            yield
        finally:
            _restore(modes, frozen, buffers)
            _restore_norms(norms)
            for module, own in named:  # a forward pass may also have put another tensor in a buffer's place
                module._buffers.clear()
                module._buffers.update(own)


def _snapshots(norms: Iterable[nn.Module]) -> list[tuple[list[Tensor], Tensor, list[int]]]:
    """The statistics of all BatchNorms in one tensor for each type: a hundred small copies would cost a millisecond."""
    groups: dict[Any, list[Tensor]] = {}
    for buffer in (b for m in norms for b in m._buffers.values() if b is not None and not b.is_inference()):
        groups.setdefault((buffer.dtype, buffer.device), []).append(buffer)
    return [(g, torch.cat([b.flatten() for b in g]), [b._version for b in g]) for g in groups.values()]


def _restore_norms(norms: list[tuple[list[Tensor], Tensor, list[int]]]) -> None:
    # A BatchNorm that a forward pass switched to training shows it by its counter; its statistics count no version.
    if all([b._version for b in group] == versions for group, _, versions in norms):
        return
    with torch.no_grad():
        for group, values, _ in norms:
            for buffer, value in zip(group, values.split([b.numel() for b in group]), strict=True):
                buffer.copy_(value.view_as(buffer))


def _set(modules: list[nn.Module], frozen: list[nn.Parameter]) -> None:
    # The flag itself, not eval(): a module that overrides train() to do work could not be put back.
    for module in modules:
        if module.training:
            module.training = False
    for parameter in frozen:
        parameter.requires_grad_(False)


def _restore(
    modes: list[tuple[nn.Module, bool]], frozen: list[nn.Parameter], buffers: list[tuple[Tensor, Tensor, int]]
) -> None:
    for module, training in modes:
        if module.training != training:
            module.training = training
    for parameter in frozen:
        parameter.requires_grad_(True)
    with torch.no_grad():
        for buffer, value, version in buffers:
            if buffer._version != version or not torch.equal(buffer, value):  # through .data no version is counted
                buffer.copy_(value)


@contextmanager
def _eager(modules: list[nn.Module]) -> Iterator[None]:
    """Runs compiled parts uncompiled: hooks and gradients at a layer need the real modules."""
    # A compiled function may also hide in a forward: where the compiler is not even loaded, there is none.
    compiled = "torch._dynamo" in sys.modules or any(
        type(m).__name__ == "OptimizedModule" or getattr(m, "_compiled_call_impl", None) is not None for m in modules
    )
    if not compiled:
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


@contextmanager
def hooked(network: nn.Module, name: str, hook: Callable[..., Any]) -> Iterator[None]:
    """A forward hook on the module called ``name`` for the time of the block."""
    handle = network.get_submodule(name).register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
