"""What is done to maps whatever made them: precision, scale, resolution."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from seewhy.plain import FLAT

__all__ = ["FLAT", "full_precision", "scale", "upsample"]


def full_precision(like: Tensor) -> torch.autocast:
    """No autocast for the block: the caller's is meant for the network, not for sums over masks and positions."""
    return torch.autocast(like.device.type, enabled=False)


def scale(raw: Tensor) -> Tensor:
    """Each map to [0, 1]: (x - min) / (max - min); a map that is flat but for rounding gives zeros."""
    low, high = raw.amin((-2, -1), keepdim=True), raw.amax((-2, -1), keepdim=True)
    span = high - low
    span = span.where(span > FLAT * torch.maximum(high.abs(), low.abs()), torch.zeros_like(span))
    return torch.where(span > 0, (raw - low) / span.where(span > 0, torch.ones_like(span)), torch.zeros_like(raw))


def upsample(raw: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, T, h, w) -> (N, T, H, W), bilinear between the centres of the positions."""
    if tuple(raw.shape[2:]) == size:
        return raw
    return F.interpolate(raw, size=size, mode="bilinear", align_corners=False)
