"""Recognises, in an exported graph, a head that is a mean over positions and a linear layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from seewhy.models import PooledLinear
from seewhy.models.graph import Graph, Node

__all__ = ["pooled_linear"]

Evaluate = Callable[[str], Any]
_SAME = {"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout"}


def pooled_linear(graph: Graph, key: str, end: str, grid: tuple[int, int], last: Any, evaluate: Evaluate) -> Any:
    """The linear layer, if everything from the map ``key`` to the scores ``end`` is a mean and one linear layer.

    Args:
        graph: the operations.
        key: the map.
        end: the scores.
        grid: (h, w) of the map.
        last: its dimensions of positions.
        evaluate: key -> the array that a tensor holds whatever the picture, or None.

    Returns:
        A `PooledLinear`, or None. The caller compares what it gives with the scores.
    """
    walk = _Walk(graph, grid, tuple(last), evaluate)
    needed = graph.before([end])
    while key != end:
        users = [n for n in graph.consumers.get(key, []) if needed.intersection(n.outputs)]
        users = [n for n in users if n.op not in ("Shape", "ShapeOf")]
        if len(users) != 1 or not walk.take(users[0], key):
            return None
        key = users[0].outputs[0]
    if walk.weight is None:
        return None
    bias = None if walk.bias is None else torch.from_numpy(np.array(walk.bias, np.float32))
    return PooledLinear(weight=torch.from_numpy(np.array(walk.weight, np.float32)), bias=bias)


class _Walk:
    """Goes from operation to operation and gives up at anything else than a mean, a reshape, a linear layer."""

    def __init__(self, graph: Graph, grid: tuple[int, int], positions: tuple[int, ...], evaluate: Evaluate) -> None:
        self.graph, self.grid, self.positions, self.evaluate = graph, grid, positions, evaluate
        self.pooled = False
        self.weight: Any = None  # (K, C)
        self.bias: Any = None

    def take(self, node: Node, key: str) -> bool:
        """Says whether the operation may be there."""
        if not self.pooled:
            return self._pool(node)
        if node.op in _SAME or (node.op == "Transpose" and self.weight is None):
            return node.inputs[0] == key
        if self.weight is None:
            return self._linear(node, key)
        return self._after(node, key)

    def _pool(self, node: Node) -> bool:
        if node.op == "Transpose":
            order = self._axes(node, "perm")
            self.positions = tuple(order.index(p) for p in self.positions) if order else ()
            return bool(order)
        if node.op == "ReduceMean":
            axes = self._axes(node, "axes")
            self.pooled = axes is not None and {a % 4 for a in axes} == set(self.positions)
        elif node.op == "GlobalAveragePool":
            self.pooled = self.positions == (2, 3)
        elif node.op in ("AveragePool", "AvgPool"):
            kernel = tuple(node.attributes.get("kernel_shape", node.attributes.get("kernel", ())))
            pads = [*node.attributes.get("pads", ()), *node.attributes.get("pads_begin", ())]
            self.pooled = kernel == self.grid and not any(pads) and self.positions == (2, 3)
        elif node.op == "AdaptiveAvgPool":
            size = self.evaluate(node.inputs[1])
            self.pooled = size is not None and np.ravel(size).tolist() == [1, 1]
        return self.pooled

    def _axes(self, node: Node, name: str) -> list[int] | None:
        """Reads the axes from an attribute or the second input."""
        found = node.attributes.get(name)
        if found is None and len(node.inputs) > 1:
            found = self.evaluate(node.inputs[1])
        return None if found is None else [int(a) for a in np.ravel(found)]

    def _linear(self, node: Node, key: str) -> bool:
        if node.op not in ("MatMul", "Gemm", "Conv", "Convolution") or node.inputs[0] != key:
            return False
        weight = self.evaluate(node.inputs[1])
        if weight is None:
            return False
        if node.op.startswith("Conv"):
            one = weight.ndim == 4 and weight.shape[2:] == (1, 1) and int(node.attributes.get("group", 1)) == 1
            self.weight = weight[:, :, 0, 0] if one else None
        elif weight.ndim == 2 and not node.attributes.get("transA") and not node.attributes.get("transpose_a"):
            turned = node.attributes.get("transB") or node.attributes.get("transpose_b")
            self.weight = (weight if turned else weight.T) * node.attributes.get("alpha", 1.0)
        if self.weight is not None and len(node.inputs) > 2 and node.inputs[2]:
            return self._add(node.inputs[2], node.attributes.get("beta", 1.0))
        return self.weight is not None

    def _after(self, node: Node, key: str) -> bool:
        others = [k for k in node.inputs if k != key]
        if node.op == "Add" and len(others) == 1:
            return self._add(others[0], 1.0)
        if node.op in ("Mul", "Multiply") and len(others) == 1:
            factor = self.evaluate(others[0])
            if factor is None or np.size(factor) != 1:
                return False
            self.weight = self.weight * float(np.ravel(factor)[0])
            self.bias = None if self.bias is None else self.bias * float(np.ravel(factor)[0])
            return True
        return False

    def _add(self, key: str, factor: float) -> bool:
        found = self.evaluate(key)
        if found is None or np.size(found) not in (1, len(self.weight)):
            return False
        added = np.broadcast_to(np.ravel(found), len(self.weight)) * factor
        self.bias = added if self.bias is None else self.bias + added
        return True
