"""Where maps of two runs lie on one picture: the same places of the original, whatever each network saw of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates
from scipy.stats import spearmanr

from seewhy.boxes import box_mask

__all__ = ["GRID", "centre", "common", "likeness", "share", "spread"]

Floats = NDArray[np.float64]
Box = tuple[float, float, float, float]  # x0, y0, x1, y1 in pixels of the original
GRID = 28  # places along each side at which maps are compared


def common(first: Box, second: Box) -> Box | None:
    """Returns the part of the original that two networks both saw; None where there is none."""
    found = (max(first[0], second[0]), max(first[1], second[1]), min(first[2], second[2]), min(first[3], second[3]))
    return found if found[0] < found[2] and found[1] < found[3] else None


def spread(values: NDArray[np.float32], seen: Box, wanted: Box) -> Floats:
    """Returns a map's values at GRID x GRID places of a part of the original, between cells linearly.

    Args:
        values: (h, w), over ``seen``.
        seen: what the map covers.
        wanted: the part, which lies in ``seen``.
    """
    height, width = values.shape
    steps = (np.arange(GRID) + 0.5) / GRID
    x = wanted[0] + steps * (wanted[2] - wanted[0])
    y = wanted[1] + steps * (wanted[3] - wanted[1])
    across = (x - seen[0]) / (seen[2] - seen[0]) * width - 0.5
    down = (y - seen[1]) / (seen[3] - seen[1]) * height - 0.5
    places = np.stack(np.meshgrid(down, across, indexing="ij"))
    found: Floats = map_coordinates(np.asarray(values, dtype=np.float64), places, order=1, mode="nearest")
    return found


def likeness(first: Floats, second: Floats) -> float:
    """Spearman's rank correlation of two maps; NaN where one is flat."""
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan")
    return float(spearmanr(first.ravel(), second.ravel()).statistic)


def centre(values: Floats) -> tuple[float, float] | None:
    """Where the middle of a map's positive mass lies, (down, across) from 0 to 1; None without any."""
    mass = np.maximum(values, 0)
    total = float(mass.sum())
    if not total > 0:
        return None
    steps = (np.arange(GRID) + 0.5) / GRID
    return float(mass.sum(1) @ steps) / total, float(mass.sum(0) @ steps) / total


def share(values: Floats, boxes: Sequence[Box], wanted: Box) -> float:
    """Returns the share of a map's positive mass that lies in boxes of the original; NaN without mass.

    Args:
        values: (GRID, GRID) of the part ``wanted``.
        boxes: of which a place has to lie in one.
        wanted: the part of the original.
    """
    mass = np.maximum(values, 0)
    if not float(mass.sum()) > 0:
        return float("nan")
    x0, y0, x1, y1 = wanted
    scale = np.array([GRID / (x1 - x0), GRID / (y1 - y0)] * 2)
    inside = box_mask((np.asarray(boxes, dtype=np.float64) - [x0, y0, x0, y0]) * scale, (GRID, GRID)).numpy()
    return float(mass[inside].sum() / mass.sum())
