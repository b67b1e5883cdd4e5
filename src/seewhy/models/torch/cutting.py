"""Cuts a torch network in two at a layer: the part that depends on the layer's output can then be run alone.

The network is exported with a free batch size; its graph is split into the nodes that depend on the layer (the head)
and the values that the head needs from before it (skip connections that pass the layer by). Cuts are kept as long as
the network lives, because an export takes seconds; they share its parameters.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node
from torch.utils import _pytree as pytree

from seewhy.models.layout import fingerprint
from seewhy.models.turns import process

__all__ = ["Cut", "cut"]

log = logging.getLogger(__name__)
_cuts: WeakKeyDictionary[nn.Module, dict[Any, Cut | None]] = WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class Cut:
    """The part of a network above a layer.

    Attributes:
        head: (layer's output, *rest) -> the network's output, flat.
        trunk: inputs -> rest, or None where the head needs nothing else.
        batch: for each value of the rest its function of the batch size, or None where it is a tensor.
        spec: the structure of the network's output.
    """

    head: GraphModule
    trunk: GraphModule | None
    batch: tuple[Callable[[int], int] | None, ...]
    spec: Any

    def rest(self, inputs: Tensor) -> tuple[Any, ...]:
        """What the head needs from before the layer, for these inputs: at most one pass through the trunk."""
        return tuple(self.trunk(inputs)) if self.trunk is not None else ()

    def run(self, maps: Tensor, rows: Tensor, rest: tuple[Any, ...]) -> Any:
        """Returns the network's output if the layer had given ``maps``, row r with the rest of image ``rows[r]``."""
        tensors = iter(rest)
        values = [at(len(maps)) if at else _rows(next(tensors), rows) for at in self.batch]
        return pytree.tree_unflatten(list(self.head(maps, *values)), self.spec)


def _rows(value: Tensor, rows: Tensor) -> Tensor:
    return value.index_select(0, rows)


def cut(network: nn.Module, inputs: Tensor, kwargs: dict[str, Any], layer: str, shape: tuple[int, ...]) -> Cut | None:
    """The cut of ``network`` at ``layer`` for inputs of this shape, or None where the network cannot be exported.

    Args:
        network: in evaluation mode.
        inputs: (N, C, H, W) an example.
        kwargs: the forward's extra arguments.
        layer: a module's name.
        shape: of the layer's output without its batch dimension, which tells its node from others of the module.
    """
    known = _cuts.setdefault(network, {})
    half = torch.is_autocast_enabled(inputs.device.type) and torch.get_autocast_dtype(inputs.device.type)
    key = (fingerprint(network), tuple(inputs.shape[1:]), inputs.dtype, inputs.device, half, layer, tuple(kwargs))
    if key not in known:
        with process():  # an export replaces how every module is called
            if key not in known:
                known[key] = _tried(network, inputs, kwargs, layer, shape)
    return known[key]


def _tried(
    network: nn.Module, inputs: Tensor, kwargs: dict[str, Any], layer: str, shape: tuple[int, ...]
) -> Cut | None:
    try:
        return _make(network, inputs, kwargs, layer, shape)
    except Exception as error:
        # torch.export raises many types; the caller then runs the whole network instead, and says so.
        log.info("The network could not be cut at %r: %s", layer, error)
        return None


def _make(network: nn.Module, inputs: Tensor, kwargs: dict[str, Any], layer: str, shape: tuple[int, ...]) -> Cut:
    two = inputs[:1].expand(2, *inputs.shape[1:]).contiguous()
    fixed = dict.fromkeys(kwargs)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # what the export says of a network that is then compared with its graph
        free = ({0: torch.export.Dim.AUTO},)
        program = torch.export.export(
            network, (two,), kwargs or None, dynamic_shapes={**_named(network, free), **fixed}
        )
        module = program.run_decompositions({}).module(check_guards=False)
    graph = module.graph
    chosen = _node(graph, layer, shape)
    return _split(module, chosen, program.call_spec.out_spec)


def _named(network: nn.Module, free: tuple[Any, ...]) -> dict[str, Any]:
    import inspect

    first = next(iter(inspect.signature(network.forward).parameters))
    return {first: free[0]}


def _node(graph: Graph, layer: str, shape: tuple[int, ...]) -> Node:
    """Returns the last node that ran inside the module and has its output's shape."""

    def inside(node: Node) -> bool:
        stack = (node.meta.get("nn_module_stack") or {}).values()
        return any(path == layer or path.startswith((f"{layer}.", f"{layer}@")) for path, _ in stack)

    def fits(node: Node) -> bool:
        value = node.meta.get("val")
        return isinstance(value, Tensor) and tuple(value.shape[1:]) == shape

    found: list[Node] = [node for node in graph.nodes if inside(node) and fits(node)]
    if not found:
        raise LookupError(f"no node of the exported graph gives the output of layer {layer!r}")
    return found[-1]


def _split(module: GraphModule, chosen: Node, spec: Any) -> Cut:
    source, *arguments = [n for n in module.graph.nodes if n.op == "placeholder"]
    (result,) = [n for n in module.graph.nodes if n.op == "output"]
    above, from_input = _dependents(chosen), _dependents(source)
    needed = _ancestors(
        pytree.tree_leaves(result.args), stop=lambda n: n is chosen or (n in from_input and n not in above)
    )
    rest = [n for n in module.graph.nodes if n in needed and n in from_input and n not in above and n is not chosen]
    head, trunk = Graph(), Graph()
    known = {node: head.placeholder(f"rest_{i}") for i, node in enumerate([chosen, *rest])}
    _copy(head, [n for n in module.graph.nodes if n in needed and n not in known], known, result.args[0])
    tensors = [n for n in rest if isinstance(n.meta.get("val"), Tensor)]
    before = _ancestors(tensors, stop=lambda _: False)
    _check_batch(source, tensors)
    if any(n in needed or n in before for n in arguments):
        raise LookupError("the forward's further arguments enter the computation")
    _copy(trunk, [n for n in module.graph.nodes if n in before], {}, tensors)
    batch = tuple(None if n in tensors else _of_batch(n) for n in rest)
    return Cut(GraphModule(module, head), GraphModule(module, trunk) if tensors else None, batch, spec)


def _check_batch(source: Node, tensors: list[Node]) -> None:
    """Raises unless the batch size stayed free and is the first dimension, and no other, of all ``tensors``."""
    batch = source.meta["val"].shape[0]
    if isinstance(batch, int):
        raise LookupError("the network fixes the batch size")
    for node in tensors:
        first, *others = node.meta["val"].shape or (0,)
        symbols = [size.node.expr.free_symbols for size in others if not isinstance(size, int)]
        if isinstance(first, int) or first.node.expr != batch.node.expr or any(symbols):
            raise LookupError(f"{node.name} has its batch dimension elsewhere")


def _copy(graph: Graph, nodes: list[Node], known: dict[Node, Node], output: Any) -> None:
    for node in nodes:
        known[node] = graph.node_copy(node, lambda n: known[n])
    flat = pytree.tree_leaves(output)
    graph.output(tuple(known[n] if isinstance(n, Node) else n for n in flat))


def _dependents(node: Node) -> set[Node]:
    found: set[Node] = set()
    waiting = list(node.users)
    while waiting:
        if (user := waiting.pop()) not in found:
            found.add(user)
            waiting.extend(user.users)
    return found


def _ancestors(nodes: list[Any], stop: Callable[[Node], bool]) -> set[Node]:
    found: set[Node] = set()
    waiting = [n for n in nodes if isinstance(n, Node)]
    while waiting:
        if (node := waiting.pop()) not in found:
            found.add(node)
            waiting.extend([] if stop(node) else node.all_input_nodes)
    return found


def _of_batch(node: Node) -> Callable[[int], int]:
    """Returns a size that was computed from the batch size (for a reshape), as a function of it."""
    expression = node.meta["val"].node.expr
    symbols = list(expression.free_symbols)
    if len(symbols) > 1:
        raise LookupError(f"{node.name} depends on more than the batch size")
    return lambda n: int(expression.subs(dict.fromkeys(symbols, n)))
