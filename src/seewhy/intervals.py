"""How sure an average is, and which differences between averages are more than chance.

Intervals are percentile bootstraps over the images (Efron 1979). Differences are paired, image by image; their p-value
is that of the sign-flip test (Fisher 1935: under the null hypothesis every difference could as well have the other
sign), exact for few images, and adjusted for the number of comparisons after Holm 1979.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np
from numpy.typing import NDArray

__all__ = ["bootstrap", "holm", "sign_flip"]

Floats = NDArray[np.float64]
ROOM = 4_000_000  # numbers drawn at a time


def bootstrap(values: Floats, *, confidence: float, resamples: int, seed: int) -> tuple[Floats, Floats]:
    """Lower and upper bounds (k,) of the means of ``values`` (n, k); NaN where n is less than 2.

    All k columns are resampled together, so that columns which differ by a constant get the same interval around it.
    """
    n, k = values.shape
    if n < 2:
        return np.full(k, np.nan), np.full(k, np.nan)
    rng = np.random.default_rng(seed)
    means = np.concatenate(
        [rng.multinomial(n, np.full(n, 1 / n), size=size) @ values / n for size in _sizes(resamples, n)]
    )
    tail = (1 - confidence) / 2 * 100
    low, high = np.percentile(means, [tail, 100 - tail], axis=0)
    return low, high


def sign_flip(differences: Floats, *, resamples: int, seed: int) -> Floats:
    """Two-sided p-values (k,) that the means of ``differences`` (n, k) are zero; 1 where n is 0."""
    n, k = differences.shape
    if n == 0:
        return np.ones(k)
    seen = np.abs(differences.sum(0)) * (1 - 1e-12)  # equal sums may differ by rounding
    if 2**n <= resamples:
        signs = np.array(list(product((-1.0, 1.0), repeat=n)))
        exact: Floats = (np.abs(signs @ differences) >= seen).mean(0)
        return exact
    rng, beyond = np.random.default_rng(seed), np.zeros(k)
    for size in _sizes(resamples, n):
        signs = rng.integers(0, 2, size=(size, n)) * 2.0 - 1.0
        beyond += (np.abs(signs @ differences) >= seen).sum(0)
    return (beyond + 1) / (resamples + 1)


def holm(p: Floats) -> Floats:
    """p-values (m,) adjusted for m comparisons."""
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1)
    return adjusted


def _sizes(total: int, n: int) -> Iterator[int]:
    at_once = max(1, ROOM // n)
    for start in range(0, total, at_once):
        yield min(at_once, total - start)
