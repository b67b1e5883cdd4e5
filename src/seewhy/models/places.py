"""Whether a tensor lies in the picture: a change of one place of the picture must move it there, more than elsewhere.

Of changes at several places (p) and what moves at the positions that stand for them (q) a table log r(p, q) is made,
without the means of its rows and columns: some positions move much whatever is changed, and some changes move
everything. Where positions stand for places the diagonal is larger than any exchange of places would be. Nothing is
asked of a network but its forward pass, and no change is so small that it would be lost in rounding.
"""

from __future__ import annotations

from itertools import permutations

import torch
from torch import Tensor

__all__ = ["alike", "apart", "changed", "one_each", "probes"]

_CHANCE = 0.02  # share of the exchanges that may do as well
_SAME = 0.98


def probes(grid: tuple[int, int]) -> list[tuple[int, int]]:
    """Up to six cells in different rows and columns, none where a shift or a turned grid would go unseen."""
    h, w = grid
    inner = [(h // 3, w - 1), (h // 2, w // 4), (h - 1, w // 2), (min(1, h - 1), w // 3)]
    return list(dict.fromkeys([*inner, (0, 0), (h - 1, w - 1)]))


def changed(image: Tensor, grid: tuple[int, int], cells: list[tuple[int, int]]) -> Tensor:
    """(1 + cells, C, H, W): the picture, and one copy for each cell with noise in it."""
    _, c, height, width = image.shape
    noise = torch.randn((c, height, width), generator=torch.Generator().manual_seed(0)).to(image)
    copies = image.repeat(1 + len(cells), 1, 1, 1)
    strength = image.float().std(correction=0).to(image) + 1
    for copy, (i, j) in zip(copies[1:], cells, strict=True):
        rows = slice(round(i * height / grid[0]), round((i + 1) * height / grid[0]))
        columns = slice(round(j * width / grid[1]), round((j + 1) * width / grid[1]))
        copy[:, rows, columns] += 2 * strength * noise[:, rows, columns]
    return copies


def apart(moved: Tensor) -> bool:
    """Whether each change moves its own place more than an exchange of places would have it.

    Args:
        moved: (P, P) by how much change p moves the position that stands for place q.
    """
    live = moved.sum(1) > 0  # a border that the network cuts off moves nothing
    moved = moved[live][:, live].double().cpu()
    count = len(moved)
    if count < 2:
        return count == 1
    table = (moved + 1e-6 * moved.amax()).log()
    table = table - table.mean(1, keepdim=True)
    table = table - table.mean(0, keepdim=True)
    orders = torch.tensor(list(permutations(range(count))))
    sums = table[torch.arange(count), orders].sum(1)  # the first order is the places' own
    better = int((sums >= sums[0] - 1e-9).sum())
    return float(table.abs().amax()) > 1e-4 and better <= max(1, int(_CHANCE * len(orders)))


def alike(moved: Tensor) -> bool:
    """Whether changes at different places move a row of vectors (P, L) in the same way, or not at all."""
    shapes = torch.nn.functional.normalize(moved.double(), dim=1)
    pairs = (shapes @ shapes.T)[~torch.eye(len(shapes), dtype=torch.bool, device=shapes.device)]
    return not bool(moved.any()) or (len(pairs) > 0 and float(pairs.mean()) > _SAME)


def one_each(scores: Tensor) -> bool:
    """Whether each change moved the score of one class alone.

    Args:
        scores: (1 + changes, positions, K). Probabilities that sum to 1 move together: there the proportions between
            the others must stay.
    """
    values = scores.double()
    if bool((values >= 0).all()) and bool(((values.sum(-1) - 1).abs() < 1e-3).all()):
        values = values.clamp_min(1e-30).log()
    change = values[1:] - values[:1]
    if change.shape[2] > 2:
        change = change - change.median(2, keepdim=True).values
    size = change.abs().amax(1)  # (changes, K)
    most = size.topk(min(2, size.shape[1]), 1).values
    live = most[:, 0] > 0
    return bool(live.any()) and bool((most[live][:, -1] <= 1e-4 * most[live][:, 0]).all())
