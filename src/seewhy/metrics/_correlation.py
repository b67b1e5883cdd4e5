"""How alike two maps are: Pearson's correlation of their values and Spearman's of their ranks."""

from __future__ import annotations

import torch
from torch import Tensor

from seewhy.maps import FLAT

__all__ = ["is_flat", "pearson", "spearman"]


def is_flat(values: Tensor) -> bool:
    """True where nothing stands out but for rounding."""
    return bool(values.max() - values.min() <= FLAT * values.abs().max())


def pearson(a: Tensor, b: Tensor) -> float:
    """Correlation in [-1, 1] of two maps of one shape; NaN where one of them is flat."""
    if is_flat(a) or is_flat(b):
        return float("nan")
    x, y = a.double() - a.double().mean(), b.double() - b.double().mean()
    return float(((x / x.norm()) * (y / y.norm())).sum().clamp(-1, 1))


def spearman(a: Tensor, b: Tensor) -> float:
    """Returns the same of the ranks; equal values share the mean of their ranks."""
    return float("nan") if is_flat(a) or is_flat(b) else pearson(_ranks(a), _ranks(b))


def _ranks(values: Tensor) -> Tensor:
    """(P,) float64 mean ranks, from 1."""
    _, which, counts = torch.unique(values.flatten(), return_inverse=True, return_counts=True)
    ranks: Tensor = (counts.cumsum(0) - (counts - 1) / 2.0).double()[which]
    return ranks
