"""Counterfactuals: what would have to be seen, or hidden, for the network to decide otherwise.

    search = HierarchicalOcclusion(network, threshold=0.5)
    trees = search(inputs, targets)                   # N lists of T trees
    trees[0][0].layer_image(0), trees[0][0].sheet()   # the image after a layer; all layers drawn

A method is one file: a frozen dataclass whose fields are its parameters. Its answer is an `EditTree` for each image
and target, so that whatever shows one (a page, a sheet, a report) need not know which method made it.
"""

from __future__ import annotations

import importlib
from typing import Any

from seewhy import registry

__all__ = ["Counterfactuals", "EditTree", "HierarchicalOcclusion", "Node"]

_RESULTS = ("Counterfactuals", "EditTree", "Node")


def __getattr__(name: str) -> Any:
    if name in _RESULTS:
        return getattr(importlib.import_module("seewhy.counterfactuals._tree"), name)
    if name in registry.class_names("counterfactuals"):
        return registry.load("counterfactuals", name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_RESULTS, *registry.class_names("counterfactuals")})
