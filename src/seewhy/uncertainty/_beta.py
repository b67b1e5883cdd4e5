"""Quantiles of Beta distributions: the inverse of the regularised incomplete beta function.

    I_x(a, b) = x^a (1 - x)^b / (a B(a, b)) / (1 + d_1 / (1 + d_2 / (1 + ...)))
    d_2m = m (b - m) x / ((a + 2m - 1)(a + 2m)),   d_2m+1 = -(a + m)(a + b + m) x / ((a + 2m)(a + 2m + 1))

The fraction converges fast for x < (a + 1) / (a + b + 2); beyond, I_x(a, b) = 1 - I_1-x(b, a) is used.

Source: Abramowitz and Stegun, "Handbook of Mathematical Functions", 1964, 26.5.8; evaluated after Lentz 1976.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["beta_quantile", "incomplete_beta"]

Floats = NDArray[np.float64]
TINY = 1e-300
LARGE = 1e5  # from here on both parameters are large enough for the normal approximation with its first correction


def incomplete_beta(x: Floats, a: Floats, b: Floats) -> Floats:
    """The share of Beta(a, b) below ``x``, elementwise."""
    turned = x > (a + 1) / (a + b + 2)
    x, a, b = np.where(turned, 1 - x, x), np.where(turned, b, a), np.where(turned, a, b)
    with np.errstate(divide="ignore"):  # the logarithm of 0 is meant
        front = np.exp(a * np.log(x) + b * np.log1p(-x) - np.log(a) - _log_beta(a, b))
    part: Floats = np.clip(front / _fraction(x, a, b), 0, 1)
    return np.where(turned, 1 - part, part)


def _log_beta(a: Floats, b: Floats) -> Floats:
    terms = (torch.lgamma(torch.from_numpy(value)).numpy() for value in (a, b, a + b))
    first, second, both = terms
    found: Floats = first + second - both
    return found


def _fraction(x: Floats, a: Floats, b: Floats, steps: int = 1000, close: float = 1e-10) -> Floats:
    """1 + d_1 / (1 + d_2 / ...), from the front until a further step changes nothing."""
    value, above, below = np.ones_like(x), np.ones_like(x), np.zeros_like(x)
    for step in range(1, steps):
        m = step // 2
        if step % 2:
            d = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            d = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        below = 1 / _nonzero(1 + d * below)
        above = _nonzero(1 + d / above)
        change = above * below
        value *= change
        if (np.abs(change - 1) < close).all():
            break
    return value


def _nonzero(x: Floats) -> Floats:
    return np.where(np.abs(x) < TINY, TINY, x)


def beta_quantile(share: float, mean: Floats, variance: Floats) -> Floats:
    """The value below which ``share`` of the Beta distribution with this mean and variance lies, elementwise.

    Where the variance is 0 it is the mean. Where it is as large as a mean allows, mean (1 - mean), or larger, all mass
    is at 0 and 1.

    Args:
        share: between 0 and 1.
        mean: in [0, 1], of any shape.
        variance: not negative, of the same shape.
    """
    found, spread = mean.copy(), mean * (1 - mean)
    wide = (variance > 1e-16) & (spread > 1e-16)
    size = np.maximum(spread[wide] / variance[wide] - 1, 1e-6)
    found[wide] = _of_shapes(share, mean[wide] * size, (1 - mean[wide]) * size)
    return found


def _of_shapes(share: float, a: Floats, b: Floats) -> Floats:
    """(R,) parameters -> (R,) quantiles."""
    mean, deviation = a / (a + b), np.sqrt(a * b / (a + b + 1)) / (a + b)
    found = _normal(share, mean, deviation, a, b)
    search = np.minimum(a, b) <= LARGE
    found[search] = _search(share, found[search], *(v[search] for v in (mean, deviation, a, b)))
    return found


def _normal(share: float, mean: Floats, deviation: Floats, a: Floats, b: Floats) -> Floats:
    """Mean and deviation, and the first term of Cornish and Fisher (1938) for the skewness."""
    z = float(torch.special.ndtri(torch.tensor(share, dtype=torch.float64)))
    skewness = 2 * (b - a) * np.sqrt(a + b + 1) / ((a + b + 2) * np.sqrt(a * b))
    found: Floats = mean + deviation * (z + skewness * (z * z - 1) / 6)
    return found


def _search(share: float, start: Floats, mean: Floats, deviation: Floats, a: Floats, b: Floats) -> Floats:
    """Newton's steps and bisection in turn, within the bounds that Cantelli's inequality sets around the mean."""
    reach = math.sqrt(max(1 / share, 1 / (1 - share)) - 1) * deviation
    low, high = np.maximum(mean - reach, 0), np.minimum(mean + reach, 1)
    x = np.where((start > low) & (start < high), start, (low + high) / 2)
    left = np.arange(len(x))
    for step in range(80):
        at, p, q = x[left], a[left], b[left]
        off = incomplete_beta(at, p, q) - share
        low[left], high[left] = np.where(off < 0, at, low[left]), np.where(off < 0, high[left], at)
        open_ = (np.abs(off) > 1e-11) & (high[left] - low[left] > 1e-8 * deviation[left])
        if not open_.any():
            break
        left, at, off, p, q = left[open_], at[open_], off[open_], p[open_], q[open_]
        slope = (p - 1) * np.log(np.maximum(at, TINY)) + (q - 1) * np.log1p(-at) - _log_beta(p, q)
        newton = at - off * np.exp(np.clip(-slope, -700, 700))
        inside = (newton > low[left]) & (newton < high[left]) & (step % 3 < 2)
        x[left] = np.where(inside, newton, (low[left] + high[left]) / 2)
    return x
