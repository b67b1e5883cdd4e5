"""Boxes in the forms that detectors give them, and in the one that everything else takes: corners in pixels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from seewhy.errors import InvalidInput

__all__ = ["FORMS", "are_shares", "check_size", "corners", "grid_centres", "in_pixels", "paste", "tiles"]

FORMS = ("xyxy", "yxyx", "cxcywh", "xywh")


def corners(boxes: Tensor, form: str) -> Tensor:
    """(..., 4) boxes of any form as x0, y0, x1, y1.

    Args:
        boxes: floating point.
        form: "xyxy" corners; "yxyx" corners, y first; "cxcywh" centre and size; "xywh" first corner and size.
    """
    if form == "xyxy":
        return boxes
    if form == "yxyx":
        return boxes[..., [1, 0, 3, 2]]
    place, size = boxes[..., :2], boxes[..., 2:]
    low = place - size / 2 if form == "cxcywh" else place
    return torch.cat([low, low + size], -1)


def in_pixels(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """(..., 4) x0, y0, x1, y1 as shares of the input -> in its pixels; ``size`` is (height, width)."""
    height, width = size
    return boxes * boxes.new_tensor([width, height, width, height])


def are_shares(boxes: Tensor) -> bool:
    """Says whether boxes of any form look like shares of the input: hardly anything below 0 or above 1."""
    return not boxes.numel() or bool((boxes.amin() >= -1) & (boxes.amax() <= 2))


def tiles(size: tuple[int, int], strides: Sequence[int]) -> list[tuple[int, int]]:
    """(height, width) of the grid that a convolutional head has at each stride."""
    return [(-(-size[0] // stride), -(-size[1] // stride)) for stride in strides]


def grid_centres(size: tuple[int, int], strides: Sequence[int], offset: float) -> tuple[Tensor, Tensor]:
    """(Q, 2) x, y in pixels of every position of every level, row by row, and (Q, 1) its stride."""
    places, steps = [], []
    for stride, (height, width) in zip(strides, tiles(size, strides), strict=True):
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        places.append((torch.stack([x, y], -1).reshape(-1, 2) + offset) * stride)
        steps.append(torch.full((height * width, 1), float(stride)))
    return torch.cat(places).float(), torch.cat(steps)


def paste(masks: Tensor, boxes: Tensor, size: tuple[int, int], frame: tuple[int, int]) -> Tensor:
    """(N, Q, h, w) masks that stand in frames of the whole input, bilinear, 0 outside of their boxes.

    Args:
        masks: (N, Q, m, m) each in its own box.
        boxes: (N, Q, 4) in pixels of the input.
        size: (H, W) of the input in pixels.
        frame: (h, w) of the result.
    """
    n, q, m = masks.shape[:3]
    y, x = ((torch.arange(f, device=boxes.device) + 0.5) * s / f for f, s in zip(frame, size, strict=True))
    low, high = boxes[..., None, :2], boxes[..., None, 2:]
    spans = (high - low).clamp_min(1e-6)
    across = (2 * (x - low[..., 0]) / spans[..., 0] - 1).view(n * q, 1, -1)
    down = (2 * (y - low[..., 1]) / spans[..., 1] - 1).view(n * q, -1, 1)
    # Far outside of a tiny box the places are huge, where the sampler's arithmetic ends.
    grid = torch.stack(torch.broadcast_tensors(across, down), -1).clamp(-9, 9).to(masks.dtype)
    found = F.grid_sample(masks.reshape(n * q, 1, m, m), grid, align_corners=False)
    return found.view(n, q, *frame)


def check_size(size: tuple[int, int] | None) -> None:
    """Raises unless ``size`` is (height, width) in whole pixels, or None."""
    whole = size is None or (len(size) == 2 and all(isinstance(s, int) and s > 0 for s in size))
    if not whole:
        raise InvalidInput(f"size must be the network's input as (height, width) in pixels, got {size!r}.")
