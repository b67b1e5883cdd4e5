"""Ridge regression of scores on masks, with a strength that the data choose.

    w = argmin  || y - A w ||^2 + strength || w ||^2        (A and y centred)

One singular value decomposition of the masks serves all scores and strengths. Of the strengths the one with the least
generalised cross-validation error is taken, for each score alone. Source: Golub, Heath and Wahba, "Generalized
Cross-Validation as a Method for Choosing a Good Ridge Parameter", 1979.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from seewhy.explainers._checks import at_places
from seewhy.types import Note

__all__ = ["Fit", "noisy", "regress"]

LEAST = 0.02  # share of the scores' variance below which a map is hardly more than noise

STRENGTHS = torch.logspace(-4, 4, 33, dtype=torch.float64)  # as shares of the mean squared singular value


class Fit(NamedTuple):
    """What a regression found.

    Attributes:
        weights: (R, P) float32.
        explained: (R,) share of the scores' variance that masks not yet seen would be predicted with; 0 or less where
            the fit is no better than the mean.
    """

    weights: Tensor
    explained: Tensor


def regress(masks: Tensor, scores: Tensor) -> Fit:
    """Fits ``scores`` (R, M) as linear functions of ``masks`` (M, P); on the host, in float64."""
    a = masks.double().cpu()
    y = scores.double().cpu()
    y = y - y.mean(1, keepdim=True)
    u, s, v = torch.linalg.svd(a - a.mean(0), full_matrices=False)
    m, along = len(a), y @ u  # (R, k)
    outside = (y.square().sum(1) - along.square().sum(1)).clamp_min(0)  # what no weights can fit
    strengths = STRENGTHS[:, None] * s.square().mean().clamp_min(1e-30)
    kept = s.square() / (s.square() + strengths)  # (L, k)
    left = outside + (1 - kept).square() @ along.square().T  # (L, R) squared residuals
    freedom = (m - 1 - kept.sum(1, keepdim=True)).clamp_min(1e-9) / m
    errors, best = (left / m / freedom.square()).min(0)
    weights = along * (s / (s.square() + strengths))[best] @ v
    total = y.square().sum(1) / m / ((m - 1) / m) ** 2
    explained = torch.where(total > 0, 1 - errors / total.where(total > 0, torch.ones_like(total)), 0.0)
    return Fit(weights.float().to(scores.device), explained.float().to(scores.device))


def noisy(explained: Tensor, moves: Tensor) -> list[Note]:
    """Says which maps are hardly more than noise.

    Args:
        explained: (N, T) the share of the scores' variance that the map explains.
        moves: (N, T) bool, whether the score changes at all.
    """

    def text(i: int, t: int) -> str:
        return (
            f"the masks explain {max(0.0, float(explained[i, t])):.0%} of how its score changes, so the map is hardly "
            "more than noise. Use more masks or a coarser grid."
        )

    return at_places((explained < LEAST) & moves, "noisy map", text)
