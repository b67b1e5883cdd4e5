"""Checks of what callers pass, with errors that say what was expected, what came and what to do."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from seewhy.errors import InvalidInput, InvalidType

__all__ = ["check_inputs", "same"]


def check_inputs(inputs: Any) -> None:
    """Raises unless ``inputs`` is a finite float tensor (N, C, H, W)."""
    if not isinstance(inputs, Tensor):
        raise InvalidType(
            f"inputs must be a torch tensor (N, C, H, W), got {type(inputs).__name__}. "
            "For pictures and files use seewhy.explain."
        )
    if inputs.ndim != 4:
        hint = " For one image use inputs.unsqueeze(0)." if inputs.ndim == 3 else ""
        raise InvalidInput(f"inputs must have shape (N, C, H, W), got {tuple(inputs.shape)}.{hint}")
    if inputs.dtype == torch.uint8:
        raise InvalidInput(
            "inputs must be floating point, got uint8. Scale it as the network was trained: x.float() / 255."
        )
    if not inputs.dtype.is_floating_point:
        raise InvalidInput(f"inputs must be floating point, got {str(inputs.dtype).removeprefix('torch.')}.")
    if 0 in inputs.shape:
        raise InvalidInput(f"inputs is empty: its shape is {tuple(inputs.shape)}.")
    # The sum is finite where every value is, and one pass cheaper; where it overflows every value is looked at.
    if not bool(inputs.sum().isfinite()) and not bool(torch.isfinite(inputs).all()):
        bad = (~torch.isfinite(inputs)).flatten(1).any(1).nonzero().flatten().tolist()
        raise InvalidInput(f"inputs has NaN or infinite values in image {', '.join(map(str, bad))}.")


def same(a: Any, b: Any) -> bool:
    """Whether two parameters are equal; tensors are by type, shape and values."""
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return isinstance(a, Tensor) and isinstance(b, Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    return bool(a == b)
