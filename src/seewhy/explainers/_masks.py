"""Random masks of RISE: a grid of cells, each shown or not, enlarged bilinearly and moved by less than a cell.

Masks are never kept at the image's size: each is a product R_i G_i C_i of its grid with two rows of interpolation
weights, and sums over masks are made with the grids. Masks of volumes are grids of three axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from seewhy.checks import check_choice, check_count, check_flag, check_inside, check_seed, sides, sides_of
from seewhy.maps import across, full_precision

__all__ = ["ESTIMATORS", "Masks", "check"]

ESTIMATORS = {"regression": 4, "centred": 2, "plain": 1}
"""How a map is made of scores under masks -> the fewest masks that it can do with."""


def check(method: Any, *, automatic: bool = False) -> None:
    """Raises InvalidInput unless a method's parameters about its masks can be used; says what its values are.

    With ``automatic``, their number may be "auto".
    """
    check_choice("estimator", method.estimator, tuple(ESTIMATORS))
    if method.estimator == "plain":  # a mean score, whose 0 is no effect of nothing
        object.__setattr__(method, "values", "level")
    if not automatic or method.num_masks != "auto":
        check_count("num_masks", method.num_masks, ESTIMATORS[method.estimator])
    if method.volumes:
        sides_of("grid", method.grid, 0)
    else:
        sides("grid", method.grid)
    check_inside("p", method.p)
    check_flag("paired", method.paired, optional=True)
    check_seed(method.seed)


@dataclass(frozen=True, kw_only=True, eq=False)
class Masks:
    """Random masks, kept as grids and offsets.

    Attributes:
        grids: (M, s_y, s_x) 0 or 1; of volumes (M, s_z, s_y, s_x).
        offsets: (M, 2) of each mask, down and right, in pixels; of volumes (M, 3), the depth first.
        axes: of each axis (offsets, s, length): interpolation weights for every possible offset.
        p: probability of a 1 in a grid.
    """

    p: float
    grids: Tensor
    offsets: Tensor
    axes: tuple[Tensor, ...]

    @classmethod
    def draw(
        cls, count: int, grid: tuple[int, ...], p: float, seed: int, size: tuple[int, ...], *, paired: bool = False
    ) -> Masks:
        """``count`` masks for images of ``size`` (H, W) or volumes of (D, H, W).

        They are drawn on the host, so that every device gets the same.

        With ``paired``, mask 2i + 1 is made of the same numbers as mask 2i, from their other end: what one shows the
        other hides (exactly so for p = 0.5), and both are still shown with probability p.
        """
        host = torch.device("cpu")
        generator = torch.Generator(host).manual_seed(seed)
        axes = tuple(_interpolation(side, length) for side, length in zip(grid, size, strict=True))
        drawn = -(-count // 2) if paired else count
        chances = torch.rand((drawn, *grid), generator=generator, dtype=torch.float32, device=host)
        offsets = torch.stack([torch.randint(len(w), (drawn,), generator=generator, device=host) for w in axes], 1)
        if paired:
            chances = torch.stack([chances, 1 - chances], 1).flatten(0, 1)[:count]
            offsets = offsets.repeat_interleave(2, 0)[:count]
        return cls(p=p, grids=(chances < p).float(), offsets=offsets, axes=axes)

    def take(self, index: Tensor) -> Masks:
        """Returns the masks of these numbers."""
        return replace(self, grids=self.grids[index], offsets=self.offsets[index])

    def to(self, device: torch.device) -> Masks:
        """Returns the same on another device."""
        grids, offsets = self.grids.to(device), self.offsets.to(device)
        return Masks(p=self.p, grids=grids, offsets=offsets, axes=tuple(one.to(device) for one in self.axes))

    @property
    def size(self) -> tuple[int, ...]:
        """The lengths of the image's axes."""
        return tuple(weights.shape[2] for weights in self.axes)

    def at(self, index: Tensor) -> Tensor:
        """(B, H, W): the masks of these numbers at the image's size."""
        return self._spread(self.axes, index)

    def _spread(self, axes: Sequence[Tensor], index: Tensor) -> Tensor:
        """(B, *lengths): masks at the points whose weights are given for each axis."""
        places = self.offsets[index].unbind(1)
        with full_precision(self.grids):
            return across(self.grids[index], [w[o].mT for w, o in zip(axes, places, strict=True)])

    def weighted_sum(self, weights: Tensor, chunk: int = 256) -> Tensor:
        """(R, M) -> (R, H, W): sum over masks of weight times mask.

        Masks with the same offset across share their column weights, so their rows are added up first; one matrix
        product with all column weights then gives the map. Of volumes that is done for each layer of cells, the masks
        with the same offset in depth together.
        """
        if len(self.axes) == 2:
            return self._flat_sum(weights, chunk)
        deep, *others = self.axes
        total = weights.new_zeros((len(weights), *self.size))
        for offset, along in enumerate(deep):
            some = (self.offsets[:, 0] == offset).nonzero().flatten()
            for cell in range(deep.shape[1]) if len(some) else ():
                flat = replace(
                    self, grids=self.grids[some, cell], offsets=self.offsets[some, 1:], axes=tuple(others)
                )._flat_sum(weights[:, some], chunk)
                for place in along[cell].nonzero().flatten().tolist():
                    total[:, place].add_(flat, alpha=float(along[cell, place]))
        return total

    def _flat_sum(self, weights: Tensor, chunk: int) -> Tensor:
        rows, columns = self.axes
        offsets, order = self.offsets[:, 1].sort()
        sizes = offsets.bincount(minlength=len(columns)).tolist()
        down = (rows[self.offsets[order, 0]].transpose(1, 2) @ self.grids[order]).split(sizes)
        columns = columns.flatten(0, 1)
        total = weights.new_empty((len(weights), *self.size))
        for some, into in zip(weights.split(chunk), total.split(chunk), strict=True):
            parts = some[:, order].split(sizes, 1)
            tall = [(w @ d.flatten(1)).unflatten(1, d.shape[1:]) for w, d in zip(parts, down, strict=True)]
            torch.matmul(torch.cat(tall, 2), columns, out=into)
        return total

    def nodes(self) -> Tensor:
        """(M, S_y * S_x): the masks at two points a cell, which say all that a smooth mask has to say."""
        every = torch.arange(len(self.grids), device=self.grids.device)
        return self._spread(self._at_nodes(), every).flatten(1)

    def slopes(self, weights: Tensor) -> Tensor:
        """(R, S_y * S_x) -> (R, H, W): cov(f, M) / var(M) at each pixel for a score f that is linear in the nodes.

        Over all grids and offsets that can be drawn, in closed form: the covariance of a mask at two points is the
        product of one for their rows and one for their columns.
        """
        each = [
            torch.einsum("osx,osn->xn", whole, some) / whole.square().sum(1).sum(0).unsqueeze(1)
            for whole, some in zip(self.axes, self._at_nodes(), strict=True)
        ]
        with full_precision(weights):
            return across(weights.view(-1, *(one.shape[1] for one in each)), each)

    def _at_nodes(self) -> list[Tensor]:
        def some(weights: Tensor) -> Tensor:
            cells, length = weights.shape[1:]
            count = min(2 * cells, length)
            places = ((torch.arange(count, device=weights.device) + 0.5) * length / count).long()
            return weights[:, :, places]

        return [some(weights) for weights in self.axes]

    def variance(self) -> Tensor:
        """(H, W) variance of a mask at each pixel, over all grids and offsets that can be drawn."""
        first, *others = (weights.square().sum(1).mean(0) for weights in self.axes)
        found = self.p * (1 - self.p) * first
        for along in others:
            found = found.unsqueeze(-1) * along
        return found


def _interpolation(cells: int, length: int) -> Tensor:
    """(offsets, cells, length): weights with which each cell enters each pixel, for every offset within a cell."""
    cell = -(-length // cells)
    alone = torch.eye(cells, dtype=torch.float32, device="cpu").unsqueeze(0)  # whatever torch's defaults are
    weights = F.interpolate(alone, size=(cells + 1) * cell, mode="linear", align_corners=False)
    return torch.stack([weights[0, :, offset : offset + length] for offset in range(cell)])
