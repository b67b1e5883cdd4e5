"""HiPe, hierarchical perturbation: occlusion from coarse to fine, finer only where the coarse map is salient.

The map S starts at zero on a grid of d x d cells. At each level windows of 2 x 2 cells slide over it one cell at a
time, half outside at the border, so that four windows cover every cell. A window W is tried at the first level, and
later only where

    max(S in W) >= (min(S) + max(S)) / 2

and its cells then gain max(0, p_c(x) - p_c(x with W covered)). Then d is doubled, as long as cells stay larger than
4 pixels. A map that is the same everywhere has nothing to refine, so it stops there.

What is refined depends on the target. A window that any target asks for is run once, all targets read their score
from that pass, and each keeps only those that it asked for itself: its map is the one that it would have alone. A
map's own resolution is that of the finest grid.

Where numbers are compared with the authors' program: that one begins with 6 cells a side, goes down to cells of 2
pixels and covers with the image's mean, which is HierarchicalPerturbation(grid=6, smallest_cell=2, baseline="mean").
The defaults here, 8 cells down to 4 pixels over the baseline 0, look at fewer windows. Where the first cells are too
small to be halved (8 pixels of an image of 64), one level is all there is, and a note says so.

Source: Cooper, Arandjelovic and Harrison, "Believe the HiPe: Hierarchical Perturbation for Fast, Robust, and
Model-Agnostic Saliency Mapping", 2021 (arXiv 2103.05108). The windows at the border follow the authors' program.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from seewhy import baseline as baselines
from seewhy.attribution import Attribution
from seewhy.checks import check_count, sides
from seewhy.errors import InvalidInput
from seewhy.explainers import Explainer
from seewhy.explainers._checks import at_places, unmoved
from seewhy.explainers._superpixels import cell_of
from seewhy.models import Model, at
from seewhy.perturbation import batch_size, chunked, probabilities, settle
from seewhy.plain import Meaning
from seewhy.targets import Request
from seewhy.types import Activation, Note, check_activation

__all__ = ["HierarchicalPerturbation"]

Score = Callable[[Tensor, Tensor], Tensor]
"""(rows (R,): which image, inside (R, H, W): what is covered) -> (R, T) the targets' scores."""


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class HierarchicalPerturbation(Explainer):
    """Occlusion from coarse to fine, refined only where the coarse map is salient (Cooper 2021).

    Attributes:
        activation_fn: scores -> probabilities: "auto", "softmax", "sigmoid", None or a callable; see `seewhy.explain`.
        perturbation_per_eval: covered copies a forward pass, or "auto".
        grid: cells along each side at the first level, or (down, across).
        smallest_cell: in pixels; cells are halved while they are larger.
        baseline: what covers a window: a number, "mean", "blur" or a tensor that broadcasts to the inputs.

    Example:
        >>> HierarchicalPerturbation(network, grid=2)(inputs, 1).shape
        torch.Size([2, 1, 32, 32])
    """

    activation_fn: str | Activation | None = "auto"
    perturbation_per_eval: int | str = 32
    grid: int | tuple[int, int] = 8
    smallest_cell: int = 4
    baseline: float | str | Tensor = 0.0

    values: ClassVar[Meaning] = "change"
    published: ClassVar[str] = "grid=6, smallest_cell=2, baseline='mean'"

    def __post_init__(self) -> None:
        check_activation(self.activation_fn)
        batch_size(self.perturbation_per_eval)
        sides("grid", self.grid)
        check_count("smallest_cell", self.smallest_cell)
        baselines.check(self.baseline)

    def _explain(self, model: Model, inputs: Tensor, request: Request) -> Attribution:
        grids = self._grids(inputs.shape[2], inputs.shape[3])
        cover = baselines.make(self.baseline, inputs)
        outputs = model(inputs)
        settled = settle(model, inputs, outputs, self.activation_fn)
        activate = settled.put
        targets = request.resolve(outputs)
        before = targets.values(probabilities(outputs, targets, activate))

        def drop(rows: Tensor, inside: Tensor) -> Tensor:
            changed = at(model, rows)(torch.where(inside.unsqueeze(1), cover[rows], inputs[rows]))
            return before[rows] - targets.values(probabilities(changed, targets, activate), rows)

        everywhere = before.new_ones((*before.shape, grids[0][0] + 1, grids[0][1] + 1)).bool()
        first = self._drops(drop, everywhere, inputs.shape[2:])
        maps = _on_cells(first)
        for _ in grids[1:]:
            maps = maps.repeat_interleave(2, 2).repeat_interleave(2, 3)
            maps += _on_cells(self._drops(drop, _salient(maps), inputs.shape[2:]))
        flat = self._flat(grids, inputs)
        notes = (*settled.notes, *unmoved(first.flatten(2), "window"), *_only_raised(first), *flat)
        return Attribution(raw=maps, outputs=outputs, targets=targets, notes=notes, quantity=settled.quantity)

    def _grids(self, height: int, width: int) -> list[tuple[int, int]]:
        """(down, across) of every level.

        Raises:
            InvalidInput: the first grid is finer than the image.
        """
        down, across = sides("grid", self.grid)
        if down > height or across > width:
            raise InvalidInput(f"grid {(down, across)} is finer than the picture, {(height, width)}.")
        grids = [(down, across)]
        while min(height / (down := 2 * down), width / (across := 2 * across)) > self.smallest_cell:
            grids.append((down, across))
        return grids

    def _flat(self, grids: list[tuple[int, int]], inputs: Tensor) -> list[Note]:
        """Says that nothing was refined where the first cells are too small to be halved."""
        if len(grids) > 1:
            return []
        (down, across), (height, width) = grids[0], inputs.shape[2:]
        return [
            Note(
                text=f"{down} x {across} cells of {height // down} x {width // across} pixels are not halved, since "
                f"cells stay larger than {self.smallest_cell}: there is one level, which is plain occlusion. Use a "
                "smaller grid or smallest_cell.",
                kind="one level",
            )
        ]

    def _drops(self, drop: Score, wanted: Tensor, size: tuple[int, ...]) -> Tensor:
        """(N, T, d+1, d+1) what each wanted window takes away from the score; 0 for the others."""
        n, t, down, across = wanted.shape
        rows, columns = (_inside(*axis, wanted.device) for axis in zip(size, (down, across), strict=True))
        images, windows = wanted.any(1).flatten(1).nonzero().unbind(1)
        found = torch.zeros((len(images), t), dtype=torch.float32, device=wanted.device)

        def work(start: int, stop: int) -> None:
            some = windows[start:stop]
            inside = rows[some // across].unsqueeze(2) & columns[some % across].unsqueeze(1)
            found[start:stop] = drop(images[start:stop], inside)

        chunked(work, len(images), self.perturbation_per_eval)
        drops = found.new_zeros((n, t, down * across))
        drops[images, :, windows] = found
        return drops.view_as(wanted) * wanted


def _inside(length: int, windows: int, device: torch.device) -> Tensor:
    """(windows, length) bool: the pixels of one axis in each window of two cells; the outer two have one cell only."""
    cell = cell_of(length, windows - 1, device)
    second = torch.arange(windows, device=device).unsqueeze(1)
    return (cell == second) | (cell == second - 1)


def _on_cells(drops: Tensor) -> Tensor:
    """(N, T, d+1, d+1) by window -> (N, T, d, d): each cell's sum over its four windows, falls of the score only."""
    return F.avg_pool2d(drops.relu(), 2, stride=1) * 4


def _salient(maps: Tensor) -> Tensor:
    """(N, T, d, d) -> (N, T, d+1, d+1) bool: the windows whose largest value reaches the map's mid-range."""
    low, high = maps.amin((2, 3), keepdim=True), maps.amax((2, 3), keepdim=True)
    return (F.max_pool2d(maps, 2, stride=1, padding=1) >= (low + high) / 2) & (high > low)


def _only_raised(drops: Tensor) -> list[Note]:
    raised = (drops.amax((2, 3)) <= 0) & (drops.amin((2, 3)) < -1e-7)
    return at_places(raised, "score that only rises", "covering any part only raises its score, so the map is empty.")
