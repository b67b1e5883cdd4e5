"""Leaves a torch module as it was found: modes, requires_grad, buffers and the global random state."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

__all__ = ["hooked", "untouched"]


@contextmanager
def untouched(network: nn.Module) -> Iterator[None]:
    """Evaluation mode and frozen parameters for the time of the block; then everything is put back, also on errors."""
    modes = [(m, m.training) for m in network.modules()]
    frozen = [p for p in network.parameters() if p.requires_grad]
    buffers = [(b, b.clone(), b._version) for b in network.buffers() if not b.is_inference()]
    devices = {p.device for p in network.parameters() if p.is_cuda}
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=[d.index for d in devices]))
        stack.enter_context(_eager(network))
        try:
            _set(modes, frozen)
            yield
        finally:
            _restore(modes, frozen, buffers)


def _set(modes: list[tuple[nn.Module, bool]], frozen: list[nn.Parameter]) -> None:
    # The flag itself, not eval(): a module that overrides train() to do work could not be put back.
    for module, _ in modes:
        module.training = False
    for parameter in frozen:
        parameter.requires_grad_(False)


def _restore(
    modes: list[tuple[nn.Module, bool]], frozen: list[nn.Parameter], buffers: list[tuple[Tensor, Tensor, int]]
) -> None:
    for module, training in modes:
        module.training = training
    for parameter in frozen:
        parameter.requires_grad_(True)
    with torch.no_grad():
        for buffer, value, version in buffers:
            if buffer._version != version:
                buffer.copy_(value)


@contextmanager
def _eager(network: nn.Module) -> Iterator[None]:
    """Runs compiled parts uncompiled: hooks and gradients at a layer need the real modules."""
    compiled = any(
        type(m).__name__ == "OptimizedModule" or getattr(m, "_compiled_call_impl", None) is not None
        for m in network.modules()
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
