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

from seewhy.errors import InvalidInput

__all__ = ["frozen", "hooked", "tensors", "untouched", "walk"]


def walk(network: nn.Module) -> list[nn.Module]:
    """Every module once; `Module.modules` makes a name for each, and with small networks that is what a call costs."""
    found, known = [network], {id(network)}
    for module in found:
        for child in module._modules.values():
            if child is not None and id(child) not in known:
                known.add(id(child))
                found.append(child)
    return found


def tensors(network: nn.Module) -> list[Tensor]:
    """Every parameter and buffer; one that several modules share comes several times."""
    owned = ((*m._parameters.values(), *m._buffers.values()) for m in walk(network))
    return [t for group in owned for t in group if t is not None]


@contextmanager
def untouched(network: nn.Module) -> Iterator[None]:
    """Evaluation mode for the time of the block; then modes, buffers and random state are put back, also on errors.

    Raises:
        InvalidInput: a BatchNorm without statistics, so that even in evaluation mode images of a batch see each other.
    """
    modules = walk(network)
    modes = [m.training for m in modules]
    holders = [m for m in modules if m._buffers]
    norms = [m for m in holders if isinstance(m, _BatchNorm) and not isinstance(m, ScriptModule)]
    _check_norms(network, norms)
    others = [m for m in holders if not isinstance(m, _BatchNorm) or isinstance(m, ScriptModule)]
    named = [(m, dict(m._buffers)) for m in others if not isinstance(m, ScriptModule)]
    buffers = [
        (b, b.clone(), b._version) for _, own in named for b in own.values() if b is not None and not b.is_inference()
    ]
    statistics = _snapshots(norms)
    devices = {p.device.index for p in network.parameters() if p.is_cuda} if torch.cuda.is_initialized() else set()
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=list(devices)))
        stack.enter_context(_eager(modules))
        try:
            # The flag itself, not eval(): a module that overrides train() to do work could not be put back.
            if True in modes:
                _switch(modules, [False] * len(modules))
            yield
        finally:
            _switch(modules, modes)
            _restore(buffers)
            _restore_norms(statistics)
            for module, own in named:  # a forward pass may also have put another tensor in a buffer's place
                module._buffers.clear()
                module._buffers.update(own)


def _check_norms(network: nn.Module, norms: list[_BatchNorm]) -> None:
    without = [m for m in norms if m.running_mean is None]
    if without:
        name = next(name for name, module in network.named_modules() if module in without)
        raise InvalidInput(
            f"BatchNorm {name!r} has no running statistics: what the network says about a picture depends on "
            "the others in the batch. Use track_running_stats=True and train or calibrate it."
        )


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """No parameter needs a gradient for the time of the block; then as before, also on errors."""
    held = [p for m in walk(network) for p in m._parameters.values() if p is not None and p.requires_grad]
    found = [p for p in held if not p.is_inference()]  # torch would not let these need one again
    try:
        for parameter in found:
            parameter.requires_grad = False
        yield
    finally:
        for parameter in found:
            parameter.requires_grad = True


def _switch(modules: list[nn.Module], modes: list[bool]) -> None:
    for module, training in zip(modules, modes, strict=True):
        if module.training != training:
            module.training = training


def _snapshots(norms: Iterable[nn.Module]) -> list[tuple[list[Tensor], Tensor, list[int]]]:
    """The statistics of all BatchNorms in one tensor for each type: a hundred small copies would cost a millisecond."""
    groups: dict[Any, list[Tensor]] = {}
    for buffer in (b for m in norms for b in m._buffers.values() if b is not None and not b.is_inference()):
        groups.setdefault((buffer.dtype, buffer.device, buffer.ndim), []).append(buffer)
    return [(g, torch.cat(g) if g[0].ndim == 1 else torch.stack(g), [b._version for b in g]) for g in groups.values()]


def _restore_norms(norms: list[tuple[list[Tensor], Tensor, list[int]]]) -> None:
    # A BatchNorm that a forward pass switched to training shows it by its counter; its statistics count no version.
    if all([b._version for b in group] == versions for group, _, versions in norms):
        return
    with torch.no_grad():
        for group, values, _ in norms:
            parts = values.split([len(b) for b in group]) if group[0].ndim == 1 else values
            for buffer, value in zip(group, parts, strict=True):
                buffer.copy_(value)


def _restore(buffers: list[tuple[Tensor, Tensor, int]]) -> None:
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
