"""Whether a tensor lies in the picture: a change of one place of the picture must move it there, more than elsewhere.

Of changes at several places (p) and what moves at the positions that stand for them (q) a table log r(p, q) is made,
without the means of its rows and columns: some positions move much whatever is changed, and some changes move
everything. Where positions stand for places the diagonal is larger than any exchange of places would be, and than what
moves where the places would lie in a mirrored or turned grid. Nothing is asked of a network but its forward pass, and
no change is so small that it would be lost in rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from typing import Any

import torch
from torch import Tensor

from seewhy.models.reading import maps_in

__all__ = ["alike", "answers", "apart", "changed", "probes"]

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


def apart(maps: Tensor, cells: list[tuple[int, int]]) -> bool:
    """Whether each change moved its own place of a map, more than an exchange of places or a turned grid would have it.

    Args:
        maps: (1 + P, C, h, w) as it is, and with each of P cells changed.
        cells: (row, column) of what was changed, in positions of the map.
    """
    moved = (maps[1:] - maps[:1]).float().norm(dim=1).double().cpu()
    live = [p for p in range(len(cells)) if bool(moved[p].any())]  # a border that is cut off moves nothing
    moved, cells = moved[live], [cells[p] for p in live]
    count = len(cells)
    own = torch.tensor([[float(row[i, j]) for i, j in cells] for row in moved]).reshape(count, count)
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
    return _upright(_centred((moved + floor).flatten(1)), cells, (moved.shape[1], moved.shape[2]))


def _centred(table: Tensor) -> Tensor:
    """Returns the logarithm without the means of its rows and columns."""
    logs = table.log()
    logs = logs - logs.mean(1, keepdim=True)
    return logs - logs.mean(0, keepdim=True)


def _near(moved: Tensor, cell: tuple[int, int]) -> bool:
    """Says whether what moved (h, w) most lies at a cell or beside it."""
    i, j = divmod(int(moved.argmax()), moved.shape[1])
    return abs(i - cell[0]) <= 1 and abs(j - cell[1]) <= 1


def _upright(table: Tensor, cells: list[tuple[int, int]], grid: tuple[int, int]) -> bool:
    """Says whether changes moved their own places more than those that they have in a mirrored or turned grid."""
    h, w = grid
    turned: set[tuple[tuple[int, int], ...]] = set()
    for across in (False, True):
        rows = [(j * (h - 1) / max(1, w - 1), i * (w - 1) / max(1, h - 1)) if across else (i, j) for i, j in cells]
        for down in (False, True):
            for right in (False, True):
                turned.add(tuple(
                    (round(h - 1 - i if down else i), round(w - 1 - j if right else j)) for i, j in rows
                ))  # fmt: skip
    turned.discard(tuple(cells))

    def total(places: Sequence[tuple[int, int]]) -> float:
        return float(sum(row[i * w + j] for row, (i, j) in zip(table, places, strict=True)))

    return all(total(cells) > total(places) for places in turned)


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
