"""What is done to maps whatever made them: precision, scale, resolution, and how many axes their places have.

A picture (N, C, H, W) has two spatial axes, a volume or clip (N, C, D, H, W) has three: depth, or time, comes first.
Which axes those are is asked here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from seewhy.plain import FLAT

__all__ = ["FLAT", "PICTURE", "VOLUME", "across", "full_precision", "over", "places", "scale", "size_of", "upsample"]

PICTURE, VOLUME = 4, 5
"""Dimensions of a batch of pictures (N, C, H, W), and of volumes or clips (N, C, D, H, W)."""


def size_of(batch: Tensor) -> tuple[int, ...]:
    """The lengths of the spatial axes of (N, C, H, W) or (N, C, D, H, W): (H, W) or (D, H, W)."""
    return tuple(batch.shape[2:])


def places(batch: Tensor) -> tuple[int, ...]:
    """Which dimensions of (N, C, H, W) or (N, C, D, H, W) are the spatial axes: (2, 3) or (2, 3, 4)."""
    return tuple(range(2, batch.ndim))


def over(values: Tensor, like: Tensor) -> Tensor:
    """Values (N,) or (N, T) with as many dimensions of length 1 behind as ``like`` has more of."""
    return values.reshape(*values.shape, *[1] * (like.ndim - values.ndim))


def across(values: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    """Each of the last axes of ``values`` through a matrix of its own: (..., s_1, .., s_n) -> (..., L_1, .., L_n).

    Args:
        values: (..., s_1, .., s_n).
        matrices: (L_k, s_k) for each axis, or with leading dimensions that fit those of ``values``.
    """
    *front, down, right = matrices
    if front:
        (deep,) = front
        down, right = (m if m.ndim == 2 else m.unsqueeze(-3) for m in (down, right))
    found = down @ values @ right.mT
    return (deep @ found.flatten(-2)).unflatten(-1, found.shape[-2:]) if front else found


def full_precision(like: Tensor) -> torch.autocast:
    """No autocast for the block: the caller's is meant for the network, not for sums over masks and positions."""
    return torch.autocast(like.device.type, enabled=False)


def scale(raw: Tensor) -> Tensor:
    """Each map to [0, 1]: (x - min) / (max - min); a map that is flat but for rounding gives zeros.

    Args:
        raw: (H, W), (N, H, W), (N, T, H, W), or (N, T, D, H, W) for maps of volumes.
    """
    axes = places(raw) if raw.ndim == VOLUME else (-2, -1)
    low, high = raw.amin(axes, keepdim=True), raw.amax(axes, keepdim=True)
    span = high - low
    span = span.where(span > FLAT * torch.maximum(high.abs(), low.abs()), torch.zeros_like(span))
    return torch.where(span > 0, (raw - low) / span.where(span > 0, torch.ones_like(span)), torch.zeros_like(raw))


def upsample(raw: Tensor, size: tuple[int, ...]) -> Tensor:
    """(N, T, h, w) -> (N, T, H, W), linear along each axis between the centres of the positions; volumes likewise."""
    if size_of(raw) == size:
        return raw
    mode = "trilinear" if raw.ndim == VOLUME else "bilinear"
    return F.interpolate(raw, size=size, mode=mode, align_corners=False)
