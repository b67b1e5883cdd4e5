"""What PointingGame, IoSR and Localization have in common: does the map point at the object?"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from seewhy.maps import FLAT, scale

__all__ = ["iosr", "pointing"]


def pointing(saliency: Tensor, truth: Tensor, tolerance: float) -> float:
    """1 where the map's maximum is at most ``tolerance`` pixels from the object, else 0; over equal maxima their mean.

    Args:
        saliency: (H, W). A map that is flat but for rounding has its maximum everywhere.
        truth: (H, W) bool.
        tolerance: Euclidean distance between the centres of pixels.
    """
    levels = scale(saliency.double())
    rows, columns = (levels == levels.max()).nonzero().unbind(1)
    return float(_near(truth, rows, columns, tolerance).double().mean())


def _near(truth: Tensor, rows: Tensor, columns: Tensor, tolerance: float) -> Tensor:
    """(P,) bool: which of the points have a pixel of the truth in the disc around them, looked up line by line."""
    height, width = truth.shape
    before = F.pad(truth.long().cumsum(1), (1, 0))
    found = torch.zeros_like(rows, dtype=torch.bool)
    far = min(math.floor(tolerance), height - 1)
    for down in range(-far, far + 1):
        reach = math.floor(math.sqrt(tolerance**2 - down**2) + 1e-9)  # the root of a square may come out below it
        lines = (rows + down).clamp(0, height - 1)  # the border line instead is nearer, so it adds no false hit
        start, stop = (columns - reach).clamp_min(0), (columns + reach + 1).clamp_max(width)
        found |= before[lines, stop] > before[lines, start]
    return found


def iosr(saliency: Tensor, truth: Tensor, threshold: float) -> float:
    """Share of the salient pixels that lie on the object; NaN where none is salient.

    Args:
        saliency: (H, W). If it has negative values it is moved up until its minimum is 0.
        truth: (H, W) bool.
        threshold: pixels above this share of the maximum are salient.
    """
    lifted = saliency.double() - saliency.double().min().clamp_max(0)
    peak = lifted.max()
    if bool(peak <= FLAT * saliency.abs().max()):
        return float("nan")
    salient = lifted > threshold * peak
    return float((salient & truth).sum() / salient.sum())
