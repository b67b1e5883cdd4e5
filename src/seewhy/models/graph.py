"""A network's operations as a graph, exported or recorded in one pass, and what follows from how they are connected.

A tensor is known by its key. A *dominator* is a tensor through which everything that the scores know of the picture
has passed: the residual stream of a transformer, the last map of a classifier.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

__all__ = ["Graph", "Node", "Size"]

_SHAPES = {"Shape", "ShapeOf", "Size"}
_ATTENTION = {"ScaledDotProductAttention", "Attention", "MultiHeadAttention", "GroupQueryAttention"}


@dataclass(frozen=True)
class Size:
    """A tensor's shape, and whether it holds floating-point numbers."""

    shape: tuple[int, ...]
    floating: bool = True


@dataclass(frozen=True, eq=False)
class Node:
    """An operation of a graph.

    Attributes:
        name: what people call it.
        op: its kind, in the words of the file's format.
        inputs: keys of tensors, "" for one that is left out.
        outputs: keys of tensors.
        attributes: its settings.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Graph:
    """Operations in an order in which they can run.

    Attributes:
        nodes: the operations; those that hold a constant are among them, or their keys are produced by none.
        inputs: keys of what goes in.
        outputs: keys of what comes out.
        constant: key -> the array that it stands for, or None where that is not a plain constant.
        aliases: further names of tensors.
    """

    nodes: Sequence[Node]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    constant: Callable[[str], Any]
    aliases: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def names(self) -> dict[str, str]:
        """What a tensor may be called -> the tensor: its own name, that of its operation, others that the file has."""
        operations = {node.name: node.outputs[0] for node in self.nodes if node.outputs}
        return {**self.aliases, **operations, **{key: key for key in self.producer}}

    @cached_property
    def producer(self) -> dict[str, Node]:
        """Tensor -> the operation that makes it."""
        return {key: node for node in self.nodes for key in node.outputs}

    @cached_property
    def consumers(self) -> dict[str, list[Node]]:
        """Tensor -> the operations that use it."""
        found: dict[str, list[Node]] = {}
        for node in self.nodes:
            for key in dict.fromkeys(node.inputs):
                found.setdefault(key, []).append(node)
        return found

    @cached_property
    def place(self) -> dict[str, int]:
        """Tensor -> when it is made."""
        return {key: i for i, node in enumerate(self.nodes) for key in node.outputs}

    @cached_property
    def live(self) -> set[str]:
        """The tensors whose values depend on what goes in."""
        return self.after(self.inputs)

    def after(self, keys: Iterable[str]) -> set[str]:
        """Returns the tensors whose values depend on those of any of ``keys``, with these; a shape does not."""
        found = set(keys)
        for node in self.nodes:
            if node.op not in _SHAPES and any(key in found for key in node.inputs):
                found.update(node.outputs)
        return found

    def before(self, keys: Iterable[str], stop: Iterable[str] = ()) -> set[str]:
        """Returns the tensors on which any of ``keys`` depends, with these; not further than ``stop``."""
        found, end = set(keys), set(stop)
        for node in reversed(self.nodes):
            if any(key in found and key not in end for key in node.outputs):
                found.update(key for key in node.inputs if key)
        return found

    def chain(self, key: str) -> list[str]:
        """The dominators of a tensor, the nearest first: on every way from what goes in to it lies each of them."""
        parents = self._dominators
        found: list[str] = []
        current: int | None = self.place.get(key)
        while current is not None:
            found.append(self.nodes[current].outputs[0])
            current = parents.get(current)
        return found

    @cached_property
    def _dominators(self) -> dict[int, int | None]:
        """For each operation the nearest one through which everything comes to it; None for the input itself."""
        above: dict[int, int | None] = {}
        depth: dict[int | None, int] = {None: 0}
        for i, node in enumerate(self.nodes):
            sources = [key for key in node.inputs if key in self.live]
            if not sources:
                continue
            places = [self.place.get(key) for key in sources]  # None is the input itself
            meet = places[0]
            for other in places[1:]:
                a, b = meet, other
                while a != b:
                    if depth[a] >= depth[b]:
                        a = above[a] if a is not None else None
                    else:
                        b = above[b] if b is not None else None
                meet = a
            above[i] = meet
            depth[i] = depth[meet] + 1
        return above

    def mixes(self, node: Node) -> bool:
        """Says whether an operation multiplies two things that both depend on the picture, as attention does."""
        if node.op in _ATTENTION:
            return True
        if node.op not in ("MatMul", "Einsum"):
            return False
        return sum(key in self.live for key in node.inputs) > 1
