"""How sure a map is that was made of scores under random masks: each pixel's error, and agreement with another map.

Both ask what the same estimate makes of parts of the masks. Masks that come in pairs stay together.

Sources: the jackknife, Quenouille 1956 and Tukey 1958, in groups; a correlation of halves stepped up to the whole,
Spearman 1910 and Brown 1910.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["agreement", "standard_error"]

GROUPS = 10
TOGETHER = 64  # targets at a time: maps of all classes would fill hundreds of megabytes

Estimate = Callable[[Tensor, Tensor], Tensor]
"""(indices of masks, their scores (N, T, m)) -> maps (N, T, H, W)."""


def agreement(estimate: Estimate, scores: Tensor) -> Tensor:
    """Returns (N, T): how well a map would agree with another one made from as many other masks.

    The correlation r of the maps of two halves, stepped up to the whole: 2 r / (1 + r).
    """
    pair = torch.arange(scores.shape[2], device=scores.device) // 2
    found = []
    for some in scores.split(TOGETHER, 1):
        first, second = (_part(estimate, some, pair % 2 == half).flatten(2) for half in (0, 1))
        r = torch.cosine_similarity(first - first.mean(2, keepdim=True), second - second.mean(2, keepdim=True), dim=2)
        found.append(torch.where(r > 0, 2 * r / (1 + r), torch.zeros_like(r)))
    return torch.cat(found, 1)


def standard_error(estimate: Estimate, scores: Tensor) -> Tensor:
    """Returns (N, T, H, W): the standard error of each pixel, from leaving out one of ten groups of masks at a time.

    With G groups and the maps m_g without the masks of group g: sqrt((G - 1) / G sum_g (m_g - mean m)^2).
    """
    pair = torch.arange(scores.shape[2], device=scores.device) // 2
    groups = min(GROUPS, int(pair[-1]) + 1)
    found = []
    for some in scores.split(TOGETHER, 1):
        mean = spread = torch.zeros(())
        for g in range(groups):
            one = _part(estimate, some, pair % groups != g)
            step = one - mean
            mean = mean + step / (g + 1)
            spread = spread + step * (one - mean)
        found.append(((groups - 1) / groups * spread).sqrt())
    return torch.cat(found, 1)


def _part(estimate: Estimate, scores: Tensor, chosen: Tensor) -> Tensor:
    index = chosen.nonzero()[:, 0]
    return estimate(index, scores[:, :, index])
