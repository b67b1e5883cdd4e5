"""MindSpore's tensors and cells at the doors: what comes in becomes torch's. MindSpore is never imported here.

Whoever brings such an object has imported the library; nobody else needs it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["as_torch", "callable_in_torch", "is_cell", "to_mindspore"]


def as_torch(value: Any) -> Any:
    """Returns a tensor of MindSpore as torch's, also within lists, tuples and dictionaries; anything else as it is.

    Example:
        >>> as_torch([3, "cat"])
        [3, 'cat']
    """
    if isinstance(value, dict):
        return {key: as_torch(one) for key, one in value.items()}
    if type(value) in (list, tuple):
        return type(value)(as_torch(one) for one in value)
    return _converted(value) if _is_tensor(value) else value


def to_mindspore(tensor: Tensor) -> Any:
    """Returns a tensor of torch as MindSpore's, a copy."""
    return sys.modules["mindspore"].Tensor(tensor.detach().cpu().contiguous().numpy().copy())


def is_cell(value: Any) -> bool:
    """Says whether it is a ``mindspore.nn.Cell``."""
    library = sys.modules.get("mindspore")
    return library is not None and isinstance(value, library.nn.Cell)


def callable_in_torch(function: Any) -> Any:
    """A cell as a function of torch's tensors; anything else as it is. An activation such as ``nn.Softmax()``."""
    return _InTorch(function) if is_cell(function) else function


class _InTorch:
    """A cell that is called with torch's tensors, without gradients."""

    def __init__(self, cell: Callable[..., Any]) -> None:
        self.cell = cell
        self.__name__ = type(cell).__name__

    def __call__(self, *given: Tensor) -> Tensor:
        found: Tensor = as_torch(self.cell(*map(to_mindspore, given)))
        return found.to(given[0].device)


def _is_tensor(value: Any) -> bool:
    library = sys.modules.get("mindspore")
    return library is not None and isinstance(value, library.Tensor)


def _converted(value: Any) -> Tensor:
    library = sys.modules["mindspore"]
    wide = value.astype(library.float32) if value.dtype == library.bfloat16 else value
    found = torch.from_numpy(wide.asnumpy().copy())
    return found.to(torch.bfloat16) if wide is not value else found
