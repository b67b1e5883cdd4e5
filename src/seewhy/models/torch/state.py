"""Leaves a torch module as it was found: modes, requires_grad, buffers and the global random state."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.jit import ScriptModule
from torch.nn.modules.batchnorm import _BatchNorm

from seewhy.errors import InvalidInput
from seewhy.models import turns
from seewhy.models.torch.conduct import Own
from seewhy.models.torch.parts import walk
from seewhy.models.torch.shared_state import SharedState

__all__ = ["frozen", "hooked", "kept_random", "on", "untouched", "untouched_by_pass", "widened"]

_modules, _random, _stance = SharedState(), SharedState(), SharedState()
_here = threading.local()  # the networks whose block this thread is in


def _forget() -> None:
    """Lets go of all networks in a forked child, where the threads that held them do not exist."""
    for state in (_modules, _random, _stance):
        state.__init__()  # type: ignore[misc]  # the object stays, what it knew goes


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


@contextmanager
def untouched(network: nn.Module) -> Iterator[None]:
    """Evaluation mode for the time of the block; then modes, buffers and random state are put back, also on errors.

    Threads may be in such blocks at the same time; the last to leave puts back what the first found.

    Raises:
        InvalidInput: a BatchNorm without statistics, so that even in evaluation mode images of a batch see each other.
    """
    modules = walk(network)
    holders = [m for m in modules if m._buffers]
    norms = [m for m in holders if isinstance(m, _BatchNorm) and not isinstance(m, ScriptModule)]
    _check_norms(network, norms)
    others = [m for m in holders if not isinstance(m, _BatchNorm) or isinstance(m, ScriptModule)]
    devices = {p.device.index for p in network.parameters() if p.is_cuda} if torch.cuda.is_initialized() else set()
    before: list[nn.Module] = getattr(_here, "networks", [])
    with (
        kept_random(devices),
        _eager(modules),
        _modules.kept(
            frozenset(map(id, modules)),
            lambda: _noted(modules, norms, others),
            own=lambda: turns.holds(network),
            turn=lambda: turns.running(network),
            change=lambda: _switch(modules, [False] * len(modules)),
        ),
    ):
        try:
            _here.networks = [*before, network]
            yield
        finally:
            _here.networks = before


@contextmanager
def untouched_by_pass(network: nn.Module) -> Iterator[None]:
    """The same for a single pass, where this thread is in no such block of the network and it is needed."""
    inside = any(one is network for one in getattr(_here, "networks", ()))
    if inside or not (_modules.inside() or any(m.training for m in walk(network))):
        yield
        return
    with untouched(network):
        yield


def _noted(modules: list[nn.Module], norms: Sequence[nn.Module], others: list[nn.Module]) -> Callable[[], None]:
    """Notes modes and buffers; gives what puts them back."""
    modes = [m.training for m in modules]
    named = [(m, dict(m._buffers)) for m in others if not isinstance(m, ScriptModule)]
    buffers = [
        (b, b.clone(), b._version) for _, own in named for b in own.values() if b is not None and not b.is_inference()
    ]
    statistics = _snapshots(norms)

    def restore() -> None:
        _switch(modules, modes)
        _restore(buffers)
        _restore_norms(statistics)
        for module, own in named:  # a forward pass may also have put another tensor in a buffer's place
            if list(map(id, module._buffers.values())) != list(map(id, own.values())):
                module._buffers.clear()
                module._buffers.update(own)

    return restore


@contextmanager
def kept_random(devices: Iterable[int]) -> Iterator[None]:
    """The state of torch's global generators is put back after the block."""
    places = sorted(devices)

    def save() -> Callable[[], None]:
        host, cuda = torch.get_rng_state(), [(d, torch.cuda.get_rng_state(d)) for d in places]

        def restore() -> None:
            torch.set_rng_state(host)
            for device, state in cuda:
                torch.cuda.set_rng_state(state, device)

        return restore

    with _random.kept(frozenset(["cpu", *places]), save, turns.holds):
        yield


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
        try:
            _thaw(found)
        except BaseException:  # interrupted: what is put back twice is still put back
            _thaw(found)
            raise


def _thaw(parameters: list[nn.Parameter]) -> None:
    for parameter in parameters:
        parameter.requires_grad = True


def _switch(modules: list[nn.Module], modes: list[bool]) -> None:
    # The flag itself, not eval(): a module that overrides train() to do work could not be put back.
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
    made: list[Any] = []

    def restore() -> None:
        while made:
            made.pop().__exit__(None, None, None)

    with _stance.kept(
        frozenset(["stance"]), lambda: restore, change=lambda: made.append(torch.compiler.set_stance("force_eager"))
    ):
        yield


@contextmanager
def hooked(network: nn.Module, name: str, hook: Callable[..., Any]) -> Iterator[None]:
    """A forward hook on the module called ``name`` for the time of the block, which has the network to itself."""
    with turns.alone(network), on(network.get_submodule(name), after=hook):
        yield


@contextmanager
def widened(network: nn.Module) -> Iterator[None]:
    """Half-precision parameters and buffers are float32 for the time of the block; then as before, also on errors.

    The caller has the network to itself.
    """
    places = [(own, name) for m in walk(network) for own in (m._parameters, m._buffers) for name in own]
    held: list[tuple[Any, str, Tensor]] = [
        (own, name, t)
        for own, name in places
        if (t := own[name]) is not None and t.dtype in (torch.half, torch.bfloat16)
    ]
    wide = {id(t): nn.Parameter(t.detach().float(), False) if isinstance(t, nn.Parameter) else t.float()
            for _, _, t in held}  # fmt: skip
    try:
        for own, name, tensor in held:
            own[name] = wide[id(tensor)]
        yield
    finally:
        try:
            _put_back(held)
        except BaseException:
            _put_back(held)
            raise


def _put_back(held: list[tuple[Any, str, Tensor]]) -> None:
    for own, name, tensor in held:
        own[name] = tensor


@contextmanager
def on(
    module: nn.Module, *, before: Any = None, after: Any = None, named: bool = False, **options: Any
) -> Iterator[None]:
    """Hooks before and after the module's forward, which act in this thread; see `torch.nn.Module` for ``options``.

    The caller has the network to itself. The hook before is given the arguments without a name, from the first tensor
    on (others may stand before it, as sizes do in exported programs); where no tensor is among them, the first with a
    name; with ``named``, all. Where a module gives a tuple of one tensor and
    nothing else, as blocks of transformers do, the hook after is given the tensor, and what it returns takes the
    tensor's place.
    """
    # What is taken away stands ready before it is put there, and is taken away again where that was interrupted: an
    # interrupt may come between any two lines.
    first, second = Own(before if named else partial(_of_first, before)), Own(partial(_of_tensor, after))
    try:
        if before is not None:
            module.register_forward_pre_hook(first, with_kwargs=True)
        if after is not None:
            # First of all hooks: others may keep what they are given for later layers (transformers' own do), and what
            # they keep must be what this one hands on.
            module.register_forward_hook(second, prepend=True, **options)
        yield
    finally:
        try:
            _unhook(module, first, second)
        except BaseException:
            _unhook(module, first, second)
            raise


def _of_first(hook: Any, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
    """Calls a hook before the forward with the arguments from the first tensor on, also where that has a name."""
    name = next((key for key, value in kwargs.items() if isinstance(value, Tensor)), None)
    place = next((i for i, value in enumerate(args) if isinstance(value, Tensor)), None)
    if place is not None or name is None:
        start = place or 0
        found = hook(module, args[start:])
        return None if found is None else ((*args[:start], *(found if isinstance(found, tuple) else (found,))), kwargs)
    found = hook(module, (kwargs[name],))
    if found is None:
        return None
    return args, {**kwargs, name: found[0] if isinstance(found, tuple) else found}


def _of_tensor(hook: Any, *given: Any) -> Any:
    """Calls a forward hook with the one tensor in a module's output, where it is wrapped."""
    *called, output = given
    wrapped = type(output) in (tuple, list) and len(output) and isinstance(output[0], Tensor)
    if not wrapped or any(other is not None for other in output[1:]):
        return hook(*given)
    found = hook(*called, output[0])
    return None if found is None else type(output)((found, *output[1:]))


def _unhook(module: nn.Module, *own: Own) -> None:
    """Takes hooks away, wherever the module keeps them; also where they had only half been put there."""
    wanted = set(map(id, own))
    keys = [
        key
        for hooks in (module._forward_pre_hooks, module._forward_hooks)
        for key, hook in list(hooks.items())
        if id(hook) in wanted
    ]
    places: list[Any] = [  # the hooks themselves last: by them the keys are found, if this is interrupted
        module._forward_pre_hooks_with_kwargs, module._forward_hooks_with_kwargs, module._forward_hooks_always_called,
        module._forward_pre_hooks, module._forward_hooks,
    ]  # fmt: skip
    for key in keys:
        for place in places:
            place.pop(key, None)
