"""Random masks of RISE: a grid of cells, each shown or not, enlarged bilinearly and moved by less than a cell.

Masks are never kept at the picture's size: each is a product R_i G_i C_i of its grid with two rows of interpolation
weights, and sums over masks are made with the grids.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from seewhy.maps import full_precision

__all__ = ["Masks"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Masks:
    """Random masks, kept as grids and offsets.

    Attributes:
        grids: (M, s_y, s_x) 0 or 1.
        offsets: (M, 2) of each mask, down and right, in pixels.
        rows: (offsets, s_y, H) interpolation weights down for every possible offset.
        columns: (offsets, s_x, W) the same across.
        p: probability of a 1 in a grid.
    """

    p: float
    grids: Tensor
    offsets: Tensor
    rows: Tensor
    columns: Tensor

    @classmethod
    def draw(cls, count: int, grid: tuple[int, int], p: float, seed: int, size: tuple[int, int]) -> Masks:
        """``count`` masks for pictures of ``size`` (H, W); drawn on the host, so that every device gets the same."""
        host = torch.device("cpu")
        generator = torch.Generator(host).manual_seed(seed)
        rows, columns = (_interpolation(side, length) for side, length in zip(grid, size, strict=True))
        grids = (torch.rand((count, *grid), generator=generator, dtype=torch.float32, device=host) < p).float()
        offsets = [torch.randint(len(w), (count,), generator=generator, device=host) for w in (rows, columns)]
        return cls(p=p, grids=grids, offsets=torch.stack(offsets, 1), rows=rows, columns=columns)

    def to(self, device: torch.device) -> Masks:
        """The same on another device."""
        tensors = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return Masks(p=self.p, **tensors)

    def at(self, index: Tensor) -> Tensor:
        """(B, H, W): the masks of these numbers at the picture's size."""
        down, right = self.offsets[index].unbind(1)
        with full_precision(self.grids):
            return self.rows[down].transpose(1, 2) @ self.grids[index] @ self.columns[right]

    def weighted_sum(self, weights: Tensor, chunk: int = 256) -> Tensor:
        """(R, M) -> (R, H, W): sum over masks of weight times mask.

        Masks with the same offset across share their column weights, so their rows are added up first; one matrix
        product with all column weights then gives the map.
        """
        offsets, order = self.offsets[:, 1].sort()
        sizes = offsets.bincount(minlength=len(self.columns)).tolist()
        down = (self.rows[self.offsets[order, 0]].transpose(1, 2) @ self.grids[order]).split(sizes)
        columns = self.columns.flatten(0, 1)
        total = weights.new_empty((len(weights), self.rows.shape[2], self.columns.shape[2]))
        for some, into in zip(weights.split(chunk), total.split(chunk), strict=True):
            parts = some[:, order].split(sizes, 1)
            tall = [(w @ d.flatten(1)).unflatten(1, d.shape[1:]) for w, d in zip(parts, down, strict=True)]
            torch.matmul(torch.cat(tall, 2), columns, out=into)
        return total

    def variance(self) -> Tensor:
        """(H, W) variance of a mask at each pixel, over all grids and offsets that can be drawn."""
        down, right = (weights.square().sum(1).mean(0) for weights in (self.rows, self.columns))
        return self.p * (1 - self.p) * down.unsqueeze(1) * right


def _interpolation(cells: int, length: int) -> Tensor:
    """(offsets, cells, length): weights with which each cell enters each pixel, for every offset within a cell."""
    cell = -(-length // cells)
    alone = torch.eye(cells, dtype=torch.float32, device="cpu").unsqueeze(0)  # whatever torch's defaults are
    weights = F.interpolate(alone, size=(cells + 1) * cell, mode="linear", align_corners=False)
    return torch.stack([weights[0, :, offset : offset + length] for offset in range(cell)])
