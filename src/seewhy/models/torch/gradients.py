"""Gradients in float32, whatever the network computes in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["gradients"]

_SCALE = 2.0**14


def gradients(value: Tensor, leaves: Sequence[Tensor], keep: bool) -> list[Tensor]:
    """Gradients of a sum of values, in float32; zeros where it does not depend on a leaf.

    In float16 the value is scaled first, because small gradients would become zero; where that is too much for float16,
    less and less.

    Args:
        value: what is differentiated.
        leaves: by what.
        keep: more gradients of the same graph will follow; else it is freed as it is walked, which saves memory and
            time.
    """
    half = any(leaf.dtype == torch.float16 for leaf in leaves)
    scale = _SCALE if half else 1.0
    while True:
        start = torch.full_like(value, scale)
        found: Any  # with None, which torch does not declare
        found = torch.autograd.grad(value, leaves, start, retain_graph=keep or half, allow_unused=True)
        if scale <= 1 or all(one is None or bool(torch.isfinite(one).all()) for one in found):
            break
        scale /= 64
    return [
        torch.zeros_like(leaf, dtype=torch.float32) if one is None else one.float() / scale if half else one.float()
        for one, leaf in zip(found, leaves, strict=True)
    ]
