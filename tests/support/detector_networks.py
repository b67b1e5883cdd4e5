"""Small detectors with instance masks under the names of those in `networks`: two levels, two anchors and one."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seewhy.types import Grid, Outputs
from support import networks
from support.networks import CLASSES

ANCHORS = (2, 1)


def squares(height: int, width: int, stride: int, sides: tuple[int, ...]) -> Tensor:
    """(Q, 4) squares around every position of a grid, as large as ``sides`` say, position by position."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    centre = ((torch.stack([x, y], -1).float() + 0.5) * stride).view(-1, 1, 2)
    half = torch.tensor(sides).view(1, -1, 1) / 2
    return torch.cat([centre - half, centre + half], -1).view(-1, 4)


class Pooled(networks.Pooled):
    """Class heads at a fourth and at an eighth of the size; a candidate's mask is what is active within its box."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__(channels=channels)
        self.cls1, self.cls2 = nn.Conv2d(16, ANCHORS[0] * CLASSES, 1), nn.Conv2d(16, ANCHORS[1] * CLASSES, 1)

    def heads(self, x: Tensor) -> list[Tensor]:
        """(N, anchors x K, h, w) logits of each level."""
        maps = self.features(x)
        return [self.cls1(maps), self.cls2(F.avg_pool2d(maps, 2))]

    def forward(self, x: Tensor) -> Any:
        n, (height, width) = len(x), x.shape[2:]
        scores, grids, boxes = [], [], []
        for head, anchors, stride in zip(self.heads(x), ANCHORS, (4, 8), strict=True):
            h, w = head.shape[2:]
            rows = head.float().view(n, anchors, CLASSES, h, w).permute(0, 3, 4, 1, 2)
            scores.append(rows.reshape(n, -1, CLASSES).sigmoid())
            grids.append(Grid(h, w, anchors))
            boxes.append(squares(h, w, stride, (stride, 2 * stride)[:anchors]))
        places = torch.cat(boxes)
        covers = self._within(places, (height // 4, width // 4))
        bright = self.features(x).float().mean(1, keepdim=True).sigmoid()
        return Outputs(
            scores=torch.cat(scores, 1),
            boxes=places.expand(n, -1, -1),
            masks=bright * covers,
            activated=True,
            grids=tuple(grids),
        )

    def _within(self, boxes: Tensor, size: tuple[int, int]) -> Tensor:
        """(Q, 4) boxes -> (Q, h, w), 1 where the middle of a cell lies within."""
        x0, y0, x1, y1 = boxes.unsqueeze(-1).unbind(1)
        y, x = (4 * (torch.arange(s) + 0.5) for s in size)
        inside = ((y > y0) & (y < y1)).unsqueeze(2) & ((x > x0) & (x < x1)).unsqueeze(1)
        return inside.float()


class Dropout(Pooled):
    """Dropout, which behaves otherwise in training mode."""

    def features(self, x: Tensor) -> Tensor:
        return F.dropout(super().features(x), 0.5, self.training)


class Counting(networks.Counts, Pooled):
    """Changes its buffers in forward."""


class Careless(networks.Spoils, Pooled):
    """Changes its input in place."""


class Constant(Pooled):
    """The same scores for every picture and position, too low for an object."""

    def heads(self, x: Tensor) -> list[Tensor]:
        return [0 * head - 4 for head in super().heads(x)]


class Failing(Pooled):
    """Raises in forward."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where

    def forward(self, x: Tensor) -> Any:
        if self.where == "forward":
            raise RuntimeError("broken on purpose")
        return super().forward(x)


class Slope(nn.Module):
    """The same smooth mask for every box and class k: from -5 at the left border to 5 k at the right one."""

    def forward(self, features: Tensor) -> Tensor:
        ramp = torch.linspace(-5, 5, 28).expand(28, 28)
        return torch.stack([ramp.clamp_max(k) for k in range(6)]).expand(len(features), -1, -1, -1)
