"""KernelSHAP: the Shapley values of an image's parts, by one weighted regression.

The parts (superpixels) are the players of a game: v(S) is the class's probability when only the parts S are shown and
the others are covered. The Shapley values of M parts are the phi that minimise

    sum over S  w(S) (v(S) - v(nothing) - sum_{j in S} phi_j)^2     with  sum_j phi_j = v(everything) - v(nothing)
    w(S) = (M - 1) / (C(M, s) s (M - s)),   s = |S|,  0 < s < M

The constraint is put in exactly, so the values always add up to what the image changes. When ``num_masks`` allows
all 2^M - 1 coalitions the values are exact. Otherwise sizes s and M - s, which weigh most when small, are taken
whole as long as their share of the coalitions allows; the rest is drawn: each size as often as its total weight says
(systematic sampling), the parts at random, always together with the complement (Covert and Lee 2021: it lowers the
variance and cancels every interaction of two parts).

A map shows each part's value at all of its pixels, so its own resolution is the image's.

Source: Lundberg and Lee, "A Unified Approach to Interpreting Model Predictions", 2017 (arXiv 1705.07874); Covert and
Lee, "Improving KernelSHAP: Practical Shapley Value Estimation Using Linear Regression", 2021 (arXiv 2012.01536).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from math import comb

import torch
from torch import Tensor

from seewhy.errors import InvalidInput
from seewhy.explainers._superpixels import OverSuperpixels, Plan, all_coalitions

__all__ = ["KernelSHAP"]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class KernelSHAP(OverSuperpixels):
    """Shapley values of superpixels, which add up to what the image changes (Lundberg and Lee 2017).

    Attributes:
        activation_fn: scores -> probabilities: "auto", "softmax", "sigmoid", None or a callable; see `seewhy.explain`.
        perturbation_per_eval: partly covered copies a forward pass, or "auto".
        num_masks: partly covered copies an image, at most; from 2^M - 1 on the values of M parts are exact.
        segments: "grid" for square cells, "slic" for superpixels that follow the image (needs scikit-image), or an
            integer tensor (H, W) or (N, H, W) with a number for each part.
        grid: cells along the short side, or (down, across); "slic" aims at as many superpixels.
        baseline: what covers a part: a number, "mean", "blur" or a tensor that broadcasts to the inputs.
        seed: of the coalitions; the global random state is neither read nor changed.

    Example:
        >>> KernelSHAP(network, grid=4, num_masks=200)(inputs, 1).shape
        torch.Size([2, 1, 32, 32])
    """

    def _plan(self, parts: int) -> Plan:
        exact = 2**parts - 1 <= self.num_masks
        shown, weights = _everything(parts) if exact else _drawn(parts, (self.num_masks - 1) // 2, self.seed)
        plan = Plan(
            shown=torch.cat([torch.zeros((1, parts), dtype=torch.bool, device="cpu"), shown]),
            weights=torch.cat([weights.new_zeros(1), weights]),
        )
        if int(torch.linalg.matrix_rank(_normal(plan)[0], hermitian=True)) < parts:
            raise InvalidInput(
                f"{len(plan.shown)} coalitions do not determine the Shapley values of {parts} segments. "
                f"Use num_masks >= {4 * parts}, or fewer segments."
            )
        return plan

    def _values(self, plan: Plan, scores: Tensor, whole: Tensor) -> Tensor:
        gain = whole - scores[0]
        matrix, design = _normal(plan)
        share = plan.shown.double().mean(1, keepdim=True)
        rest = scores - scores[0] - share * gain
        values: Tensor = torch.linalg.solve(matrix, design @ rest)
        return (values + gain / plan.shown.shape[1]).T


def _normal(plan: Plan) -> tuple[Tensor, Tensor]:
    """(M, M) and (M, n): the normal equations for values that add up to zero; the ones fix their free direction."""
    shown = plan.shown.double()
    centred = shown - shown.mean(1, keepdim=True)
    design = centred.T * plan.weights
    return design @ centred + 1 / shown.shape[1] ** 2, design


def _size_weights(parts: int) -> list[float]:
    """Total weight of all coalitions of each size 0..M, adding up to 1."""
    raw = [0.0, *(1 / (size * (parts - size)) for size in range(1, parts)), 0.0]
    return [w / sum(raw) for w in raw]


def _everything(parts: int) -> tuple[Tensor, Tensor]:
    shown = all_coalitions(parts)[1:-1]
    each = [w / comb(parts, size) for size, w in enumerate(_size_weights(parts))]
    return shown, torch.tensor(each, dtype=torch.float64, device="cpu")[shown.sum(1)]


def _drawn(parts: int, pairs: int, seed: int) -> tuple[Tensor, Tensor]:
    """Coalitions and their weights, at most ``pairs`` of them and as many complements."""
    by_size = _size_weights(parts)
    sizes = range(1, parts // 2 + 1)
    mass = {s: by_size[s] * (1 if 2 * s == parts else 2) for s in sizes}
    exist = {s: comb(parts, s) // (2 if 2 * s == parts else 1) for s in sizes}
    shown = [torch.zeros((0, parts), dtype=torch.bool, device="cpu")]
    weights = [torch.zeros(0, dtype=torch.float64, device="cpu")]
    left = dict(mass)
    for size in sizes:
        if exist[size] * sum(left.values()) > pairs * mass[size]:
            break
        shown.append(_of_size(parts, size))
        weights.append(torch.full((exist[size],), left.pop(size) / exist[size], dtype=torch.float64, device="cpu"))
        pairs -= exist[size]
    if pairs:
        some, times = _sampled(parts, pairs, left, seed)
        shown.append(some)
        weights.append(times.double() * (sum(left.values()) / pairs))
    half, each = torch.cat(shown), torch.cat(weights) / 2
    return torch.cat([half, ~half]), torch.cat([each, each])


def _of_size(parts: int, size: int) -> Tensor:
    """(C(M, s), M) bool: every coalition of s parts."""
    chosen = torch.tensor(list(combinations(range(parts), size)), device="cpu")
    return torch.zeros((len(chosen), parts), dtype=torch.bool, device="cpu").scatter_(1, chosen, True)


def _sampled(parts: int, pairs: int, mass: dict[int, float], seed: int) -> tuple[Tensor, Tensor]:
    """Different coalitions, one of each pair, and how often each was drawn."""
    generator = torch.Generator("cpu").manual_seed(seed)
    start = torch.rand(1, generator=generator, dtype=torch.float64, device="cpu")
    steps = (torch.arange(pairs, dtype=torch.float64, device="cpu") + start) / pairs
    upto = torch.tensor(list(mass.values()), dtype=torch.float64, device="cpu").cumsum(0)
    which = torch.searchsorted(upto / upto[-1], steps).clamp_max(len(mass) - 1)
    size = torch.tensor(list(mass), device="cpu")[which]
    order = torch.rand((pairs, parts), generator=generator, dtype=torch.float64, device="cpu").argsort(1).argsort(1)
    shown = order < size.unsqueeze(1)
    with_first = torch.where(shown[:, :1], shown, ~shown)
    found, times = torch.unique(with_first, dim=0, return_counts=True)
    return found, times
