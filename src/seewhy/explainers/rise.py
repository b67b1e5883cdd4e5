"""RISE: which pixels were shown when the class's probability was high, over many random masks.

A mask is a grid of s x s cells, each shown with probability p, enlarged bilinearly to (s+1) x (s+1) cells and moved by
a random offset of less than a cell. With f_i the probability under mask M_i, for each pixel:

    plain      sum_i f_i M_i / (N p)                      (the paper)
    centred    cov(f, M) / var(M)                         (the same signal without the noise of the mean score)

Masks are never kept at the picture's size: each is a product R_i G_i C_i of its grid with two rows of interpolation
weights, and sums over masks are made with the grids. Source: Petsiuk, Das and Saenko, "RISE: Randomized Input Sampling
for Explanation of Black-box Models", 2018 (arXiv 1806.07421); with a BoxTarget it is D-RISE, Petsiuk et al. 2021.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from seewhy.errors import InvalidInput
from seewhy.explainers import Explainer
from seewhy.explainers._checks import unmoved
from seewhy.explainers._perturbation import batch_size, check_activation, perturbed_scores
from seewhy.models import Model
from seewhy.targets import Request
from seewhy.types import Activation, Attribution, activation

__all__ = ["RISE", "Masks"]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class RISE(Explainer):
    """Covariance of the class's probability with random masks, for any black box (Petsiuk 2018).

    Attributes:
        activation_fn: scores -> probabilities: "softmax", "sigmoid", None or a callable.
        perturbation_per_eval: masked copies a forward pass, or "auto".
        num_masks: masks an image; all images and targets share them.
        grid: cells along each side, or (down, across).
        p: probability that a cell is shown.
        estimator: "centred" or "plain".
        seed: of the masks; the global random state is neither read nor changed.
    """

    activation_fn: str | Activation | None = "softmax"
    perturbation_per_eval: int | str = 32
    num_masks: int = 4000
    grid: int | tuple[int, int] = 7
    p: float = 0.5
    estimator: Literal["centred", "plain"] = "centred"
    seed: int = 0

    def __post_init__(self) -> None:
        activation(self.activation_fn)
        batch_size(self.perturbation_per_eval)
        if not _is_count(self.num_masks) or (self.num_masks < 2 and self.estimator == "centred"):
            raise InvalidInput(f"num_masks must be an integer of at least 2, got {self.num_masks!r}.")
        if not all(_is_count(side) for side in _sides(self.grid)):
            raise InvalidInput(f"grid must be a positive integer or a pair (down, across) of them, got {self.grid!r}.")
        if not isinstance(self.p, int | float) or not 0 < self.p < 1:
            raise InvalidInput(f"p must lie between 0 and 1, both excluded, got {self.p!r}.")
        if self.estimator not in ("centred", "plain"):
            raise InvalidInput(f"estimator must be 'centred' or 'plain', got {self.estimator!r}.")
        if not isinstance(self.seed, int) or isinstance(self.seed, bool):
            raise InvalidInput(f"seed must be an integer, got {self.seed!r}.")

    def _explain(self, model: Model, inputs: Tensor, request: Request) -> Attribution:
        height, width = inputs.shape[2:]
        masks = Masks.draw(self.num_masks, _sides(self.grid), self.p, self.seed, (height, width)).to(inputs.device)
        outputs = model(inputs)
        check_activation(outputs, self.activation_fn)
        targets = request.resolve(outputs)

        def perturb(images: Tensor, index: Tensor) -> Tensor:
            return inputs[images] * masks.at(index).unsqueeze(1).to(inputs.dtype)

        scores = perturbed_scores(
            model, inputs, perturb, self.num_masks, targets=targets, activate=activation(self.activation_fn),
            per_eval=self.perturbation_per_eval,
        ).transpose(1, 2)  # fmt: skip
        centred = scores - scores.mean(2, keepdim=True)
        raw = self._estimate(masks, (centred if self.estimator == "centred" else scores).flatten(0, 1))
        return Attribution(
            raw=raw.view(*scores.shape[:2], height, width),
            outputs=outputs,
            targets=targets.classes,
            warnings=unmoved(centred, "mask", targets),
        )

    def _estimate(self, masks: Masks, scores: Tensor) -> Tensor:
        """(R, masks) -> (R, H, W)."""
        mean = masks.weighted_sum(scores) / self.num_masks
        if self.estimator == "plain":
            return mean / self.p
        variance = masks.variance()
        return torch.where(variance > 1e-8, mean / variance.clamp_min(1e-8), torch.zeros_like(mean))


@dataclass(frozen=True, kw_only=True, eq=False)
class Masks:
    """Random masks, kept as grids and offsets.

    Attributes:
        grids: (M, s_y, s_x) 0 or 1.
        offsets: (M, 2) of each mask, down and right, in pixels.
        rows: (offsets, s_y, H) interpolation weights down for every possible offset.
        columns: (offsets, s_x, W) the same across.
    """

    grids: Tensor
    offsets: Tensor
    rows: Tensor
    columns: Tensor

    @classmethod
    def draw(cls, count: int, grid: tuple[int, int], p: float, seed: int, size: tuple[int, int]) -> Masks:
        """``count`` masks for pictures of ``size`` (H, W); drawn on the host, so that every device gets the same."""
        generator = torch.Generator().manual_seed(seed)
        rows, columns = (_interpolation(side, length) for side, length in zip(grid, size, strict=True))
        grids = (torch.rand((count, *grid), generator=generator) < p).float()
        offsets = [torch.randint(len(w), (count,), generator=generator) for w in (rows, columns)]
        return cls(grids=grids, offsets=torch.stack(offsets, 1), rows=rows, columns=columns)

    def to(self, device: torch.device) -> Masks:
        """The same on another device."""
        return Masks(**{name: value.to(device) for name, value in vars(self).items()})

    def at(self, index: Tensor) -> Tensor:
        """(B, H, W): the masks of these numbers at the picture's size."""
        down, right = self.offsets[index].unbind(1)
        return self.rows[down].transpose(1, 2) @ self.grids[index] @ self.columns[right]

    def weighted_sum(self, weights: Tensor, chunk: int = 64) -> Tensor:
        """(R, M) -> (R, H, W): sum over masks of weight times mask.

        Masks with the same offset across share their column weights, so their rows are added up first; one matrix
        product with all column weights then gives the map.
        """
        groups = [(self.offsets[:, 1] == offset).nonzero().flatten() for offset in range(len(self.columns))]
        down = [self.rows[self.offsets[g, 0]].transpose(1, 2) @ self.grids[g] for g in groups]
        columns = self.columns.flatten(0, 1)
        parts = []
        for some in weights.split(chunk):
            tall = [(some[:, g] @ rows.flatten(1)).unflatten(1, rows.shape[1:]) for g, rows in zip(groups, down, strict=True)]
            parts.append(torch.cat(tall, 2) @ columns)
        return torch.cat(parts)

    def variance(self, chunk: int = 64) -> Tensor:
        """(H, W) variance of the masks at each pixel."""
        size = (self.rows.shape[2], self.columns.shape[2])
        first, second = (torch.zeros(size, dtype=torch.float64, device=self.grids.device) for _ in range(2))
        for index in torch.arange(len(self.grids), device=self.grids.device).split(chunk):
            some = self.at(index)
            first += some.sum(0)
            second += some.square().sum(0)
        mean = first / len(self.grids)
        return (second / len(self.grids) - mean.square()).clamp_min(0).float()


def _interpolation(cells: int, length: int) -> Tensor:
    """(offsets, cells, length): weights with which each cell enters each pixel, for every offset within a cell."""
    cell = -(-length // cells)
    weights = F.interpolate(torch.eye(cells).unsqueeze(0), size=(cells + 1) * cell, mode="linear", align_corners=False)
    return torch.stack([weights[0, :, offset : offset + length] for offset in range(cell)])


def _sides(grid: Any) -> tuple[Any, Any]:
    if isinstance(grid, tuple | list):
        return (grid[0], grid[1]) if len(grid) == 2 else (None, None)
    return grid, grid


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
