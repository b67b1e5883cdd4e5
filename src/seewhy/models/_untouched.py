"""Leaves a torch module as it was found: modes, requires_grad, buffers and the global random state."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

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
    devices = {p.device.index for p in parameters if p.is_cuda}
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=list(devices)))
        stack.enter_context(_eager(modules))
        try:
            _set(modules, frozen)
            yield
        finally:
            _restore(modes, frozen, buffers)
            for module, own in named:  # a forward pass may also have put another tensor in a buffer's place
                module._buffers.clear()
                module._buffers.update(own)


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
def hooked(network: nn.Module, name: str, hook: object) -> Iterator[None]:
    """A forward hook on the module called ``name`` for the time of the block."""
    handle = network.get_submodule(name).register_forward_hook(hook)  # type: ignore[arg-type]
    try:
        yield
    finally:
        handle.remove()
