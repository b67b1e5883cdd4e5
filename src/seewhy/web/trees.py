"""Looks at a stored hierarchical occlusion before it is drawn: a run folder may come from anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from seewhy.checks import is_number
from seewhy.errors import InvalidInput

__all__ = ["checked"]

SIDE = 1 << 14  # cells of the network's input
MOST = 10_000  # windows, and layers


def checked(tree: dict[str, Any]) -> dict[str, Any]:
    """Returns the tree, where everything in it is what the page draws.

    Raises:
        InvalidInput: it is not.
    """
    size, shares = tree.get("size"), [*_list(tree, "layer_probabilities"), *_list(tree, "cut_off")]
    if not (_wholes(size, 2) and all(1 <= side <= SIDE for side in size or ())):
        raise InvalidInput("The stored tree has no size.")
    numbers = [*shares, *(tree[name] for name in ("threshold", "probability") if tree.get(name) is not None)]
    if tree.get("mode") not in ("show", "hide", None) or not all(map(is_number, numbers)) or len(numbers) > MOST:
        raise InvalidInput("The stored tree has values that are none.")
    root = tree.get("root")
    for count, node in enumerate(_nodes(root) if root is not None else ()):
        if count > MOST or not _drawable(node, size or ()):
            raise InvalidInput("The stored tree has a window that cannot be drawn.")
    return tree


def _list(tree: dict[str, Any], name: str) -> list[Any]:
    found = tree.get(name) or []
    if not isinstance(found, list):
        raise InvalidInput("The stored tree has values that are none.")
    return found


def _nodes(root: Any) -> Iterator[Any]:
    """All windows of the tree; the root itself is the whole input."""
    waiting = [root]
    while waiting:
        node = waiting.pop()
        children = node.get("children") if isinstance(node, dict) else None
        if not isinstance(children, list):
            raise InvalidInput("The stored tree has a window that cannot be drawn.")
        yield from children
        waiting += children


def _drawable(node: Any, size: Any) -> bool:
    if not isinstance(node, dict) or not _wholes(node.get("box"), 4) or not _wholes([node.get("layer")], 1):
        return False
    x, y, width, height = node["box"]
    inside = 0 <= x < x + width <= size[1] and 0 <= y < y + height <= size[0]
    return inside and is_number(node.get("probability")) and is_number(node.get("gain")) and 0 <= node["layer"] < MOST


def _wholes(value: Any, count: int) -> bool:
    return isinstance(value, list) and len(value) == count and all(type(one) is int for one in value)
