"""Runs what follows a layer, by letting the modules that finished before it hand back what they gave in a pass.

In a pass of the network itself it is noted which modules had finished when the layer was entered: of those within one
another the outermost. For other maps in the layer's place the network's own forward is called again, in which these
modules give what they gave (one row for each map) and the layer gives the maps. What stands between modules runs as it
is written. Nothing is exported or interpreted, any size of input will do, and every module is put back at once.

Which of the values are looked at by anything but modules that hand back themselves is seen in the first replay, in
which every operation is watched: only these are kept, and written down in later passes. All others are stood for by
tensors without memory, full of NaN: were one looked at after all, the scores would say so.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from threading import get_ident
from typing import Any

import torch
from torch import Tensor, nn
from torch.jit import ScriptModule
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from seewhy.errors import out_of_memory
from seewhy.models.torch.parts import walk
from seewhy.models.torch.state import on

__all__ = ["Plan", "Recorder", "Recording", "Unfit", "discover", "instead", "replay", "slim"]

# Where images lie in a value: each in a row, in several rows, or in the second dimension.
_WAYS = ("first", "folded", "second")
_PICTURE, _LAYER = -1, -2  # stand for calls in what a watcher notes


class Unfit(Exception):
    """The network cannot be replayed so; never leaves this package."""


@dataclass(frozen=True, eq=False)
class Plan:
    """What is to be kept of a pass, and how it is handed back.

    Attributes:
        order: the modules that had finished when the layer was entered, call by call.
        real: which of these calls gave a value that something looks at.
        late: which of them are looked at after the layer was entered.
        written: which of them are changed in place when they were handed back.
        cloned: which of them are changed in place in the pass itself, and have to be copied when they are made.
        picture: whether something looks at the picture itself.
        spoils: whether the layer's own output is changed in place.
        idle: whether no operation runs before the layer.
        way: where images lie in values whose first dimension is not that of the images.
        narrow: the network is called for the images themselves, and only from the layer on for every row.
    """

    order: tuple[nn.Module, ...]
    real: frozenset[int]
    late: frozenset[int]
    written: frozenset[int]
    cloned: frozenset[int]
    picture: bool
    spoils: bool
    idle: bool
    way: str = "first"
    narrow: bool = False


@dataclass(frozen=True, eq=False)
class Recording:
    """What modules gave in a pass of N images, until a layer was entered.

    Attributes:
        order: the modules, call by call.
        values: what each gave; tensors without memory where nothing looks at them.
        changed: which values were changed in place later.
        inputs: (N, C, H, W) of the pass.
        n: how many images there are in the values.
        cloned: whether copies were made of what is changed in place later.
    """

    order: tuple[nn.Module, ...]
    values: list[Any]
    changed: frozenset[int]
    inputs: Tensor
    n: int
    cloned: bool = False

    def serves(self, plan: Plan, inputs: Tensor) -> bool:
        """Says whether it holds what the plan asks for these images, and the pass went as the plan has it."""
        if len(self.order) != len(plan.order) or any(a is not b for a, b in zip(self.order, plan.order, strict=True)):
            return False
        return (self.n == len(inputs) or not plan.real) and (self.cloned or not plan.cloned)


@dataclass(eq=False)
class _Event:
    module: nn.Module
    value: Any
    versions: list[int]


@dataclass(eq=False)
class Recorder:
    """Writes down, for the time of a block with one pass in it, what modules give before a layer is entered.

    Attributes:
        network: in evaluation mode; the caller has it to itself.
        layer: a module's name.
        inputs: (N, C, H, W) of the pass.
        at: which call of the layer counts; None for the last.
        plan: what is needed; without one everything is kept.
    """

    network: nn.Module
    layer: str
    inputs: Tensor
    at: int | None = None
    plan: Plan | None = None
    _events: list[_Event] = field(default_factory=list, init=False)
    _open: list[int] = field(default_factory=list, init=False)
    _found: list[_Event] | None = field(default=None, init=False)
    _entered: int = field(default=0, init=False)
    _stack: ExitStack = field(default_factory=ExitStack, init=False)

    def __enter__(self) -> Recorder:
        layer = self.network.get_submodule(self.layer)
        modules = walk(self.network)[1:] if self.plan is None else dict.fromkeys([*self.plan.order, layer])
        try:
            for module in modules:
                if not isinstance(module, ScriptModule):  # its parts cannot be reached
                    self._stack.enter_context(instead(module, self._wrapped(module, module is layer)))
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def _wrapped(self, module: nn.Module, counts: bool) -> Callable[..., Any]:
        own = module.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            if counts:
                self._enter()
            start = len(self._events)
            value = own(*args, **kwargs)
            if self._done():
                return value
            place = len(del_from(self._events, start))
            clone = self.plan is not None and place in self.plan.cloned
            kept = pytree.tree_map_only(Tensor, Tensor.clone, value) if clone else value
            if self.plan is not None and place not in self.plan.real:
                kept = pytree.tree_map_only(Tensor, hollow, value)
            self._events.append(_Event(module, kept, _versions(kept)))
            return value

        return forward

    def _enter(self) -> None:
        self._entered += 1
        if self.at is None or self._entered == self.at:
            self._found = list(self._events)

    def _done(self) -> bool:
        return self.at is not None and self._entered >= self.at

    def recording(self) -> Recording | None:
        """What was written down, after the pass; None where the layer did not run."""
        if self._found is None:
            return None
        changed = {i for i, event in enumerate(self._found) if _versions(event.value) != event.versions}
        values = [event.value for event in self._found]
        order = tuple(e.module for e in self._found)
        return Recording(order, values, frozenset(changed), self.inputs, len(self.inputs), self.plan is not None)


def del_from(events: list[_Event], start: int) -> list[_Event]:
    """Returns the list without what ran inside a module that has finished."""
    del events[start:]
    return events


def _versions(value: Any) -> list[int]:
    return [t._version for t in pytree.tree_leaves(value) if isinstance(t, Tensor) and not t.is_inference()]


def hollow(tensor: Tensor) -> Tensor:
    """Returns a tensor of the same shape and type, without memory; NaN where its type has that."""
    floats = tensor.dtype.is_floating_point or tensor.dtype.is_complex
    one: Tensor = tensor.new_full((1,) * tensor.ndim, torch.nan if floats else 0)
    return one.expand(tensor.shape)


@contextmanager
def instead(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Calls of the module in this thread run ``forward``; then it is as before, also on errors.

    The caller has the network to itself; a thread that runs it without seewhy still gets the module's own forward.
    """
    own, me, held = module.forward, get_ident(), module.__dict__
    before = held.get("forward")

    def mine(*args: Any, **kwargs: Any) -> Any:
        return forward(*args, **kwargs) if get_ident() == me else own(*args, **kwargs)

    try:
        held["forward"] = mine
        yield
    finally:
        if before is None:
            held.pop("forward", None)
        else:
            held["forward"] = before


@dataclass(eq=False)
class _Watcher(TorchDispatchMode):
    """Sees, in a replay, which of the values that are handed back something looks at."""

    cells: dict[int, int] = field(default_factory=dict)  # storage -> call; -1 for the picture
    held: list[Tensor] = field(default_factory=list)
    early: set[int] = field(default_factory=set)
    late: set[int] = field(default_factory=set)
    written: set[int] = field(default_factory=set)
    entered: bool = False
    idle: bool = True
    aside: bool = False

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return "torch._dynamo" in sys.modules

    def __post_init__(self) -> None:
        TorchDispatchMode.__init__(self)

    def give(self, call: int, value: Any) -> Any:
        """Notes that a value was handed back."""
        for t in pytree.tree_leaves(value):
            if isinstance(t, Tensor):
                self.cells[t.untyped_storage()._cdata] = call
                self.held.append(t)
        return value

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs the operation and notes what it looks at."""
        kwargs = kwargs or {}
        if not self.aside:
            self._note(func, args, kwargs)
        return func(*args, **kwargs)

    def _note(self, func: Any, args: Any, kwargs: dict[str, Any]) -> None:
        self.idle = self.idle and self.entered
        for tensor in pytree.tree_leaves((args, kwargs)):
            call = self.cells.get(tensor.untyped_storage()._cdata) if isinstance(tensor, Tensor) else None
            if call is not None:
                (self.late if self.entered else self.early).add(call)
        if func._schema.is_mutable:
            cells = [t.untyped_storage()._cdata for t in _written(func, args, kwargs)]
            self.written |= {self.cells[c] for c in cells if c in self.cells}

    @staticmethod
    def of(noted: set[int]) -> frozenset[int]:
        """Returns the calls among what was noted."""
        return frozenset(place for place in noted if place >= 0)


def _written(func: Any, args: Any, kwargs: dict[str, Any]) -> list[Tensor]:
    """Returns the tensors that an operation changes in place."""
    changed = [(i, a.name) for i, a in enumerate(func._schema.arguments) if a.alias_info and a.alias_info.is_write]
    given = [args[i] if i < len(args) else kwargs.get(name) for i, name in changed]
    return [t for t in pytree.tree_leaves(given) if isinstance(t, Tensor)]


def replay(
    network: nn.Module, layer: str, recording: Recording, plan: Plan, own: Tensor, rows: Tensor,
    run: Callable[[Tensor, Tensor], Any], watcher: _Watcher | None = None,
) -> Any:  # fmt: skip
    """What the network returns if the layer had given ``own`` (R, ...), row r in the place of image ``rows[r]``'s own.

    Args:
        network: in evaluation mode; the caller has it to itself.
        layer: a module's name.
        recording: of the pass.
        plan: how values are handed back.
        own: the layer's output.
        rows: (R,) images of the pass.
        run: (images, rows) -> what the network returns.
        watcher: sees what is looked at.
    """
    shown = _Shown(recording, plan, own, rows, watcher)
    module = network.get_submodule(layer)
    calls: dict[nn.Module, list[int]] = {module: []}
    for place, one in enumerate(recording.order):
        calls.setdefault(one, []).append(place)
    images = shown.images()
    with ExitStack() as stack:
        for one, places in calls.items():
            if isinstance(one, ScriptModule):
                raise Unfit("a scripted module cannot hand back what it gave")
            stack.enter_context(instead(one, shown.answering(one, places, one is module)))
        stack.enter_context(on(module, after=shown.put))
        if watcher is not None:
            stack.enter_context(watcher)
        return run(images, torch.arange(len(images), device=rows.device) if plan.narrow else rows)


@dataclass(eq=False)
class _Shown:
    """One replay."""

    recording: Recording
    plan: Plan
    own: Tensor
    rows: Tensor
    watcher: _Watcher | None
    placed: bool = False

    def images(self) -> Tensor:
        """What the network is called with."""
        inputs, n = self.recording.inputs, self.recording.n
        if self.plan.narrow:
            return inputs.clone() if self.plan.picture else inputs
        if self.plan.picture:
            found = inputs.index_select(0, self.rows)
        else:
            found = inputs[:1].expand(len(self.rows), *inputs.shape[1:]) if n else inputs
        return found if self.watcher is None else self.watcher.give(_PICTURE, found)

    def answering(self, module: nn.Module, places: Sequence[int], counts: bool) -> Callable[..., Any]:
        """Returns the forward of a module that hands back; of the layer (``counts``) the next call gives the maps."""
        original, left = module.forward, list(places)

        def forward(*args: Any, **kwargs: Any) -> Any:
            if left:
                return self.handed(left.pop(0))
            if counts and not self.placed:
                if self.watcher is not None:
                    self.watcher.entered = True
                self.placed = True
                self._next = True
                return self.own
            return original(*args, **kwargs)

        return forward

    _next: bool = False

    def put(self, _module: nn.Module, _args: Any, _output: Any) -> Tensor | None:
        """Returns a hook of the layer: whatever other hooks made of the maps, they are what it gives."""
        if not self._next:
            return None
        self._next = False
        if self.watcher is None:
            return self.own.clone() if self.plan.spoils else self.own
        self.watcher.aside = True
        given: Tensor = self.watcher.give(_LAYER, self.own.clone())
        self.watcher.aside = False
        return given

    def handed(self, place: int) -> Any:
        """What a call gave, one row for each map."""
        value = self.recording.values[place]
        if self.watcher is not None:
            self.watcher.aside = True
            given = self.watcher.give(place, self._rows(value, copy=True))
            self.watcher.aside = False
            return given
        if self.plan.narrow and place not in self.plan.late:
            return pytree.tree_map_only(Tensor, Tensor.clone, value) if place in self.plan.written else value
        return self._rows(value, copy=place in self.plan.written)

    def _rows(self, value: Any, copy: bool) -> Any:
        return pytree.tree_map_only(Tensor, lambda t: self._of(t, copy), value)

    def _of(self, tensor: Tensor, copy: bool) -> Tensor:
        """Returns the rows of one tensor."""
        n, rows, way = self.recording.n, self.rows, self.plan.way
        empty = tensor.untyped_storage().nbytes() < tensor.numel()  # without memory: nothing looks at it
        if way == "second" and tensor.ndim > 1 and tensor.shape[1] == n:
            return tensor.index_select(1, rows)
        if way == "folded" and tensor.ndim and tensor.shape[0] % n == 0 and tensor.shape[0] > n:
            folded: Tensor = tensor.unflatten(0, (n, -1))
            return folded.index_select(0, rows).flatten(0, 1)
        if tensor.ndim and tensor.shape[0] == n and way != "second":
            if (n == 1 and not copy) or empty:
                return tensor[:1].expand(len(rows), *tensor.shape[1:])
            return tensor.index_select(0, rows)
        return tensor.clone() if copy else tensor


def discover(
    network: nn.Module, layer: str, recording: Recording, own: Tensor, rows: Tensor,
    run: Callable[[Tensor, Tensor], Any], right: Callable[[Any], bool],
) -> Plan | None:  # fmt: skip
    """How a pass is to be replayed; None where it cannot be.

    Args:
        network: in evaluation mode; the caller has it to itself.
        layer: a module's name.
        recording: of the pass.
        own: what the layer gave in the pass, for the images ``rows``.
        rows: more than there are images, so that a number of images that is written down somewhere is noticed.
        run: (images, rows) -> what the network returns.
        right: whether what the network returns is what it returned in the pass.
    """
    everything = frozenset(range(len(recording.order)))
    for way in _WAYS:
        plan = Plan(recording.order, everything, everything, everything, frozenset(), True, True, False, way)
        watcher = _Watcher()
        found = _tried(partial(replay, network, layer, recording, plan, own, rows, run, watcher))
        looked = watcher.early | watcher.late
        spoiled = watcher.of(looked) & recording.changed
        if not spoiled and not (found is not None and right(found)):
            continue
        plan = Plan(
            recording.order, watcher.of(looked), watcher.of(watcher.late), watcher.of(watcher.written), spoiled,
            _PICTURE in looked, _LAYER in watcher.written, watcher.idle, way,
        )  # fmt: skip
        if spoiled or watcher.idle or watcher.early & watcher.late:
            return plan
        narrow, kept = replace(plan, narrow=True), slim(recording, plan, recording.inputs)
        found = _tried(partial(replay, network, layer, kept, narrow, own, rows, run))
        return narrow if found is not None and right(found) else plan
    return None


def slim(recording: Recording, plan: Plan, inputs: Tensor) -> Recording:
    """Returns the recording without the memory of what nothing looks at, for the images (N, C, H, W)."""
    values = [
        value if place in plan.real else pytree.tree_map_only(Tensor, hollow, value)
        for place, value in enumerate(recording.values)
    ]
    return replace(recording, values=values, inputs=inputs)


def _tried(work: Callable[[], Any]) -> Any:
    """What it gives; None where the network's own code would not have it."""
    try:
        return work()
    except Exception as error:  # the network's own code may raise anything at rows that it does not expect
        if out_of_memory(error):
            raise
        return None
