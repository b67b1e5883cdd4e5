"""What becomes of a picture on its way to the scores: every operation of one forward pass, and every module's output.

A module's output *carries* the picture's influence where everything that the scores know of the picture has passed
through it. That is read off the operations that ran, functional code and changes in place included; it does not depend
on what a module is called, nor on gradients.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.jit import ScriptModule
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from seewhy.errors import InvalidInput, SeewhyError
from seewhy.maps import PICTURE
from seewhy.models.graph import Graph, Node
from seewhy.models.layout import Seen, is_tokens, spatial, without_heads
from seewhy.models.reading import maps_in
from seewhy.models.torch.chance import generators
from seewhy.models.torch.parts import modules_of, tensors_in, walk
from seewhy.models.torch.state import on
from seewhy.models.turns import alone

__all__ = ["Flow", "Heard", "follow", "overhear"]

_PICTURE = "picture"
# What leaves places where they are; in-place forms have an underscore more.
_LOCAL = {
    "_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "_native_batch_norm_legit_no_training", "_to_copy", "add",
    "avg_pool2d", "avg_pool3d", "batch_norm", "cat", "clamp", "clamp_max", "clamp_min", "clone", "constant_pad_nd",
    "convolution", "cudnn_batch_norm", "cudnn_convolution", "div", "elu", "gelu", "hardsigmoid", "hardswish",
    "hardtanh", "leaky_relu", "max_pool2d_with_indices", "max_pool3d_with_indices", "mean", "mish",
    "mkldnn_convolution", "mul", "native_batch_norm", "native_dropout", "native_group_norm", "neg", "pow", "relu",
    "rsub", "sigmoid", "silu", "softplus", "sub", "tanh", "upsample_bilinear2d", "upsample_nearest2d",
    "upsample_nearest3d", "upsample_trilinear3d",
}  # fmt: skip
_VIEWS = {"permute", "transpose", "t", "view", "_unsafe_view", "reshape", "slice", "select", "unfold", "as_strided"}


@dataclass(frozen=True, eq=False)
class Flow:
    """What was seen in one pass of one picture.

    Attributes:
        seen: what every module gave, in the order of execution, innermost first.
        random: names of operations that drew random numbers on which the scores depend.
        quantised: operations on quantised numbers through which the picture reaches the scores.
        strangers: kinds of modules that ran and are no part of the network.
        classes: how many classes the scores, or maps that the network returns, have.
        drawn: whether numpy's or Python's generator of random numbers was used.
        reached: whether the scores come from the picture through operations that were seen.
    """

    seen: list[Seen]
    random: tuple[str, ...]
    quantised: tuple[str, ...]
    strangers: tuple[str, ...]
    classes: frozenset[int]
    reached: bool
    drawn: bool
    graph: Graph
    turned: frozenset[str]

    def keeps_places(self, value: str) -> bool:
        """Whether every operation from the picture to a value leaves places where they are, as a convolution does."""
        before = self.graph.before([value]) & self.graph.live
        if before & self.turned:
            return False
        return all(self.graph.producer[key].op.rstrip("_") in _LOCAL for key in before if key in self.graph.producer)


@dataclass(eq=False)
class _Recorder(TorchDispatchMode):
    """Notes for every operation where its inputs came from.

    Tensors are known by their storage: a view holds what its base holds, and a change in place makes a new value.
    """

    nodes: list[Node] = field(default_factory=list)
    values: dict[Any, str] = field(default_factory=dict)
    kept: list[Any] = field(default_factory=list)  # so that no address is used again meanwhile
    random: list[str] = field(default_factory=list)
    turned: set[str] = field(default_factory=set)  # values that are looked at in another order of positions
    away: bool = False
    rank: int = PICTURE  # dimensions of the picture, and of its maps

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return "torch._dynamo" in sys.modules

    def __post_init__(self) -> None:
        TorchDispatchMode.__init__(self)

    def begin(self, picture: Tensor) -> None:
        self.rank = picture.ndim
        self.values[_cell(picture)] = _PICTURE
        self.kept.append(_hold(picture))

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Operations in this block are not the network's."""
        self.away = True
        try:
            yield
        finally:
            self.away = False

    def key(self, tensor: Tensor) -> str:
        """Returns the value that a tensor holds now; "" for one that was not made from the picture."""
        return self.values.get(_cell(tensor), "")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs the operation and notes it."""
        kwargs = kwargs or {}
        if self.away:
            return func(*args, **kwargs)
        chance = torch.Tag.nondeterministic_seeded in func.tags
        before = _dice(args) if chance else None
        result = func(*args, **kwargs)
        drew = before is not None and not torch.equal(before, _dice(args))
        self._note(func, args, kwargs, result, drew)
        return result

    def _note(self, func: Any, args: Any, kwargs: dict[str, Any], result: Any, drew: bool) -> None:
        given = tensors_in(args, kwargs)
        cells = {_cell(t) for t in given}
        sources = tuple(dict.fromkeys(self.values[c] for c in cells if c in self.values))
        if not sources and not drew:
            return
        if given and _turns(func, args, given[0], result, self.rank):
            self.turned.update(sources)
        written = _written(func, args, kwargs)
        changed = {_cell(t) for t in written}
        made = tensors_in(result)
        fresh = [t for t in (*written, *made) if _cell(t) in changed or _cell(t) not in cells]
        if not fresh:
            return
        key = f"{len(self.nodes)} {func}"
        self.nodes.append(Node(key, _name(func), sources, (key,)))
        if drew:
            self.random.append(key)
        for tensor in fresh:
            self.values[_cell(tensor)] = key
            self.kept.append(_hold(tensor))


def _name(func: Any) -> str:
    """Returns an operation's name without torch's own namespace."""
    known = isinstance(func, torch._ops.OpOverload)
    return str(func if not known else func._opname if func.namespace == "aten" else func.name())


def _turns(func: Any, args: Any, given: Tensor, result: Any, rank: int) -> bool:
    """Says whether a view of a map, or what is put together of several, has positions elsewhere."""
    if given.ndim != rank or given.shape[2:].numel() == 1 or not isinstance(result, Tensor):
        return False
    if _name(func) == "cat":
        return len(args) > 1 and args[1] % rank > 1
    axes = slice(2 - rank, None)
    sizes, steps = result.shape[axes], result.stride()[axes]
    return _name(func) in _VIEWS and (sizes != given.shape[axes] or steps != given.stride()[axes])


def _hold(tensor: Tensor) -> Any:
    """What keeps the address of a tensor's storage, but not its numbers."""
    try:
        return StorageWeakRef(tensor.untyped_storage())
    except (NotImplementedError, RuntimeError):
        return tensor


def _cell(tensor: Tensor) -> Any:
    try:
        return tensor.untyped_storage()._cdata
    except (NotImplementedError, RuntimeError):  # sparse and opaque tensors have none
        return ("object", id(tensor))


def _written(func: Any, args: Any, kwargs: dict[str, Any]) -> list[Tensor]:
    """Returns the tensors that an operation changes."""
    schema = getattr(func, "_schema", None)
    if schema is None or not schema.is_mutable:
        return []
    found: list[Any] = []
    for place, argument in enumerate(schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            found.append(args[place] if place < len(args) else kwargs.get(argument.name))
    return tensors_in(found)


def _dice(args: Any) -> Tensor:
    """Returns the state of the generators from which random numbers are drawn."""
    device = next((t.device for t in tensors_in(args)), torch.device("cpu"))
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return torch.cat(states)


@dataclass(frozen=True)
class Heard:
    """What was noticed in a pass that was made for another purpose; see `Flow`."""

    random: tuple[str, ...]
    strangers: tuple[str, ...]
    drawn: bool


def overhear(
    network: nn.Module, inputs: Tensor, run: Callable[[], Any], scores: Callable[[Any], Tensor]
) -> tuple[Any, Heard | None]:
    """What a pass gives, and what was noticed in it; None where its scores could not be read.

    Args:
        network: in evaluation mode.
        inputs: (N, C, H, W) the tensor that ``run`` gives to the network.
        run: the pass.
        scores: its output -> scores.

    Raises:
        InvalidInput: a module that is no part of the network ran in training mode.
    """
    recorder, strangers = _Recorder(), list[str]()
    with ExitStack() as stack:
        _watch_strangers(stack, network, strangers)
        with recorder:
            recorder.begin(inputs)
            before = generators()
            raw = run()
            drawn = generators() != before
            with suppress(SeewhyError):
                found = scores(raw)
                graph = Graph(recorder.nodes, (_PICTURE,), (recorder.key(found),), lambda _: None)
                random = _random(recorder, graph, recorder.key(found))
                return raw, Heard(random, tuple(dict.fromkeys(strangers)), drawn)
    return raw, None


def _random(recorder: _Recorder, graph: Graph, end: str) -> tuple[str, ...]:
    wanted = graph.before([end])
    return tuple(dict.fromkeys(graph.producer[key].op for key in recorder.random if key in wanted))


def _watch_strangers(stack: ExitStack, network: nn.Module, found: list[str]) -> None:
    own = set(map(id, walk(network)))
    for module in modules_of(network):
        if id(module) not in own and not isinstance(module, ScriptModule):
            stack.enter_context(on(module, before=_noting(network, found)))


def follow(network: nn.Module, inputs: Tensor, run: Callable[[Tensor], Any], scores: Callable[[Any], Tensor]) -> Flow:
    """One forward pass of a picture.

    Args:
        network: in evaluation mode.
        inputs: (1, C, H, W).
        run: one forward pass of the network.
        scores: its output -> scores.

    Raises:
        InvalidInput: a module that is no part of the network ran in training mode.
    """
    recorder, picture = _Recorder(), inputs.clone()
    seen: list[tuple[Seen, str]] = []
    given: dict[str, list[str]] = {}  # module -> what its calls that have not ended were given first
    strangers: list[str] = []
    with alone(network), ExitStack() as stack:
        for name, module in network.named_modules():
            if name and not isinstance(module, ScriptModule):  # its parts are hidden
                own_hooks = on(
                    module, before=_entering(name, seen, recorder, given),
                    after=_leaving(name, inputs, seen, recorder, given), named=True,
                )  # fmt: skip
                stack.enter_context(own_hooks)
        _watch_strangers(stack, network, strangers)
        stack.enter_context(torch.no_grad())
        stack.enter_context(recorder)
        recorder.begin(picture)
        before = generators()
        raw = run(picture)
        drawn = generators() != before
        found = scores(raw)
        end = recorder.key(found)
    flow = _read(recorder, seen, end, strangers)
    return replace(flow, drawn=drawn, classes=frozenset({found.shape[-1], *(t.shape[1] for t in maps_in(raw))}))


def _leaving(
    name: str, inputs: Tensor, seen: list[tuple[Seen, str]], recorder: _Recorder, given: dict[str, list[str]]
) -> Any:
    def note(_module: nn.Module, _args: Any, output: Any) -> None:
        with recorder.aside(), _disable_current_modes():  # each of the looks costs as much as an operation
            order = spatial(output, inputs)
        kind = "map" if order else "tokens" if is_tokens(output) else "other"
        shape = tuple(output.shape) if isinstance(output, Tensor) else ()
        grid = () if order is None else shape[1:-1] if order == "last" else shape[2:]
        key, first = recorder.key(output) if isinstance(output, Tensor) else "", given[name].pop()
        seen.append((Seen(name, kind, shape, grid, handed=bool(key) and key == first), key))

    return note


def _entering(name: str, seen: list[tuple[Seen, str]], recorder: _Recorder, given: dict[str, list[str]]) -> Any:
    def note(_module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        first = next((t for t in (*args, *kwargs.values()) if isinstance(t, Tensor)), None)
        key = "" if first is None else recorder.key(first)
        given.setdefault(name, []).append(key)
        if first is not None and is_tokens(first):
            seen.append((Seen(name, "enters", tuple(first.shape)), key))

    return note


def _read(recorder: _Recorder, seen: list[tuple[Seen, str]], end: str, strangers: list[str]) -> Flow:
    graph = Graph(recorder.nodes, (_PICTURE,), (end,), lambda _: None)
    reached = end in graph.live and end != _PICTURE
    wanted = graph.before([end])
    carrying = set(graph.chain(end)) if reached else set()
    calls: Counter[str] = Counter()
    found = []
    for one, key in seen:
        entering = one.kind == "enters"
        calls[one.name] += not entering
        live = key in graph.live and key in wanted
        found.append(replace(one, call=calls[one.name] + entering, live=live, carries=key in carrying, value=key))
    random = _random(recorder, graph, end)
    quantised = tuple(dict.fromkeys(n.op for n in graph.nodes if "quantized" in n.op and n.outputs[0] in wanted))
    return Flow(
        without_heads(found),
        random,
        quantised,
        tuple(dict.fromkeys(strangers)),
        frozenset(),
        reached,
        False,
        graph,
        frozenset(recorder.turned),
    )


def _noting(network: nn.Module, found: list[str]) -> Any:
    """Returns a hook for modules that are no part of the network, as those in a plain list are.

    Raises:
        InvalidInput: one of them is in training mode, in which it would give something else each time.
    """

    def note(module: nn.Module, _args: Any) -> None:
        kind = type(module).__name__
        if module.training and isinstance(module, nn.modules.batchnorm._BatchNorm | nn.modules.dropout._DropoutNd):
            raise InvalidInput(
                f"{type(network).__name__} runs a {kind} in training mode that is no part of it, so eval() does not "
                "reach it. Keep it in a torch.nn.ModuleList instead of a plain list."
            )
        found.append(kind)

    return note
