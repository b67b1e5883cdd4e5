"""Whether a tensor lies in the picture: a change of one place of the picture must move it there, more than elsewhere.

Of changes at several places (p) and what moves at the positions that stand for them (q) a table log r(p, q) is made,
without the means of its rows and columns: some positions move much whatever is changed, and some changes move
everything. Where positions stand for places the diagonal is larger than any exchange of places would be, and than what
moves where the places would lie in a mirrored or turned grid. Nothing is asked of a network but its forward pass, and
no change is so small that it would be lost in rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations, product
from typing import Any

import torch
from torch import Tensor

from seewhy.maps import size_of
from seewhy.models.reading import maps_in

__all__ = ["alike", "answers", "apart", "changed", "probes"]

_CHANCE = 0.02  # share of the exchanges that may do as well
_SAME = 0.98


Cell = tuple[int, ...]
"""(row, column) of a position; of a volume (slice, row, column)."""


def probes(grid: tuple[int, ...]) -> list[Cell]:
    """Up to six cells in different rows and columns, none where a shift or a turned grid would go unseen."""
    *front, h, w = grid
    inner = [(h // 3, w - 1), (h // 2, w // 4), (h - 1, w // 2), (min(1, h - 1), w // 3)]
    cells = [*inner, (0, 0), (h - 1, w - 1)]
    deep = [[d // 4, d - 1, min(1, d - 1), d // 2, 0, d - 1] for d in front]
    return list(dict.fromkeys((*(d[i] for d in deep), *cell) for i, cell in enumerate(cells)))


def changed(image: Tensor, grid: tuple[int, ...], cells: Sequence[Cell]) -> Tensor:
    """(1 + cells, C, H, W): the picture, and one copy for each cell with noise in it; of a volume likewise."""
    noise = torch.randn(image.shape[1:], generator=torch.Generator().manual_seed(0)).to(image)
    copies = image.repeat(1 + len(cells), *[1] * (image.ndim - 1))
    strength = image.float().std(correction=0).to(image) + 1
    for copy, cell in zip(copies[1:], cells, strict=True):
        steps = zip(cell, grid, size_of(image), strict=True)
        part = (slice(None), *(slice(round(i * whole / n), round((i + 1) * whole / n)) for i, n, whole in steps))
        copy[part] += 2 * strength * noise[part]
    return copies


def apart(maps: Tensor, cells: Sequence[Cell]) -> bool:
    """Whether each change moved its own place of a map, more than an exchange of places or a turned grid would have it.

    Args:
        maps: (1 + P, C, h, w) as it is, and with each of P cells changed; of a volume (1 + P, C, d, h, w).
        cells: of what was changed, in positions of the map.
    """
    moved = (maps[1:] - maps[:1]).float().norm(dim=1).double().cpu()
    live = [p for p in range(len(cells)) if bool(moved[p].any())]  # a border that is cut off moves nothing
    moved, cells = moved[live], [cells[p] for p in live]
    count = len(cells)
    own = torch.tensor([[float(row[cell]) for cell in cells] for row in moved]).reshape(count, count)
    strays = [p for p in range(count) if not bool(own[p].any())]
    if any(not _near(moved[p], cells[p]) for p in (strays if count > 2 else range(count))):
        return False
    if len(strays) == count or count == 1:
        return count > 0
    floor = 1e-6 * float(moved.amax())
    table = _centred(own + 1e-6 * own.amax())
    orders = torch.tensor(list(permutations(range(count))))
    sums = table[torch.arange(count), orders].sum(1)  # the first order is the places' own
    better = int((sums >= sums[0] - 1e-9).sum())
    if float(table.abs().amax()) <= 1e-4 or better > max(1, int(_CHANCE * len(orders))):
        return False
    return _upright(_centred((moved + floor).flatten(1)).view(moved.shape), cells)


def _centred(table: Tensor) -> Tensor:
    """Returns the logarithm without the means of its rows and columns."""
    logs = table.log()
    logs = logs - logs.mean(1, keepdim=True)
    return logs - logs.mean(0, keepdim=True)


def _near(moved: Tensor, cell: Cell) -> bool:
    """Says whether what moved (h, w) most lies at a cell or beside it."""
    most = torch.unravel_index(moved.argmax(), moved.shape)
    return all(abs(int(i) - own) <= 1 for i, own in zip(most, cell, strict=True))


def _upright(table: Tensor, cells: Sequence[Cell]) -> bool:
    """Says whether changes moved their own places more than those that they have in a mirrored or turned grid."""
    grid = table.shape[1:]
    axes = range(len(grid))
    turned: set[tuple[Cell, ...]] = set()
    for order in permutations(axes):
        moved = [[_stretched(cell[order[k]], grid[order[k]], grid[k]) for k in axes] for cell in cells]
        for mirrored in product((False, True), repeat=len(grid)):
            turned.add(tuple(
                tuple(round(grid[k] - 1 - cell[k] if mirrored[k] else cell[k]) for k in axes) for cell in moved
            ))  # fmt: skip
    turned.discard(tuple(cells))

    def total(places: Sequence[Cell]) -> float:
        return float(sum(row[place] for row, place in zip(table, places, strict=True)))

    return all(total(cells) > total(places) for places in turned)


def _stretched(place: int, length: int, other: int) -> float:
    """Says where a place of one axis stands on another, of another length."""
    return place if length == other else place * (other - 1) / max(1, length - 1)


def alike(moved: Tensor) -> bool:
    """Says whether changes at different places move a row of vectors (P, L) in the same way, or not at all."""
    shapes = torch.nn.functional.normalize(moved.double(), dim=1)
    pairs = (shapes @ shapes.T)[~torch.eye(len(shapes), dtype=torch.bool, device=shapes.device)]
    return not bool(moved.any()) or (len(pairs) > 0 and float(pairs.mean()) > _SAME)


def answers(raw: Any, scores: Tensor, channels: int) -> bool:
    """Says whether each change of one channel of a map moved the score of one class and no other.

    Args:
        raw: what the network returned for (1 + changes) rows, of which the first is unchanged.
        scores: (1 + changes, positions, K) that were read from it.
        channels: of the map; classes are looked for in the scores and in the maps that the network returns.
    """
    found = [t.movedim(1, -1) for t in maps_in(raw) if t.shape[:2] == (len(scores), channels)]
    found += [scores] if scores.shape[-1] == channels else []
    return any(_one_each(tensor.flatten(1, -2)) for tensor in found)


def _one_each(scores: Tensor) -> bool:
    """Says whether each change moved the score of one class alone.

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
