"""Groups of like vectors: a few that are close together beside many others, or none.

Vectors are standardised, brought to their main directions (PCA) and clustered by density (HDBSCAN, Campello, Moulavi
and Sander 2013), which needs no number of clusters and may leave all as noise. A small dense cluster beside one that
holds nearly everything is what a shortcut looks like; small clusters beside much noise are not.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from seewhy.errors import MissingDependency

__all__ = ["SMALLEST", "apart"]

DIRECTIONS = 8
SMALLEST = 8
CLOSE = 4  # neighbours by which density is measured
BODY, SMALL, NOISE = 0.55, 0.35, 0.25  # of the vectors: in the largest at least; in a small, in no cluster at most


def apart(values: NDArray[np.float32], smallest: int = SMALLEST, seed: int = 0) -> list[NDArray[np.int64]]:
    """Returns the small clusters beside a large one, as the places of their vectors; none where there is no large one.

    Args:
        values: (n, C); features without any spread are left out.
        smallest: members that a cluster has at least.
        seed: of the decomposition, where that is drawn at random.

    Raises:
        MissingDependency: scikit-learn is not installed.
    """
    try:
        from sklearn.cluster import HDBSCAN
        from sklearn.decomposition import PCA
    except ImportError as error:
        raise MissingDependency("Patterns need scikit-learn. Install it: pip install 'seewhy[insights]'.") from error
    spread = values.std(0) if len(values) else np.zeros(0)
    live = values[:, spread > 1e-6 * max(float(spread.max(initial=0.0)), 1e-30)]
    if len(live) < 4 * smallest or not live.shape[1]:
        return []
    scaled = (live - live.mean(0)) / live.std(0)
    directions = min(DIRECTIONS, live.shape[1], len(live) - 1)
    short = PCA(directions, svd_solver="full" if live.shape[1] <= 500 else "randomized", random_state=seed)
    found = HDBSCAN(min_cluster_size=smallest, min_samples=CLOSE, copy=True).fit_predict(short.fit_transform(scaled))
    sizes = {int(k): int((found == k).sum()) for k in np.unique(found)}
    noise = sizes.pop(-1, 0)
    body = max(sizes, key=lambda k: sizes[k], default=None)
    if body is None or sizes[body] < BODY * len(found) or noise > NOISE * len(found):
        return []
    return [np.flatnonzero(found == k) for k in sizes if k != body and sizes[k] <= SMALL * len(found)]
