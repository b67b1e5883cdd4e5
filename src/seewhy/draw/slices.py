"""Slices of a volume, or frames of a clip, side by side: which are shown, and the sheet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from seewhy.draw import sheet

__all__ = ["MOST", "contact", "peak", "which"]

MOST = 12  # slices of one sheet, where nobody says how many
_ACROSS = 4


def which(values: NDArray[Any], most: int = MOST) -> list[int]:
    """The slices that a sheet shows: spread evenly, among them the one with the strongest value.

    Args:
        values: (D, H, W) of the map.
        most: how many are shown at most.

    Returns:
        Their numbers, from 0 on and in order.
    """
    count = len(values)
    if count <= most:
        return list(range(count))
    spread = [round((k + 0.5) * count / most - 0.5) for k in range(most)]
    strongest = peak(values)
    nearest = min(range(most), key=lambda k: abs(spread[k] - strongest))
    spread[nearest] = strongest
    return sorted(set(spread))


def peak(values: NDArray[Any]) -> int:
    """The slice with the strongest value, for or against, of (D, H, W)."""
    return int(np.abs(values).max(axis=(1, 2)).argmax())


def contact(pictures: Sequence[Image.Image], numbers: Sequence[int], strongest: int | None = None) -> Image.Image:
    """Slices in rows, each under its number.

    Args:
        pictures: one for each number.
        numbers: of the slices, from 0 on.
        strongest: the one whose title stands in brackets.
    """
    across = min(_ACROSS, len(pictures))
    cell = max(64, min(224, max(max(one.size) for one in pictures)))
    titled = [
        sheet.grid([[one]], column_titles=[f"[ slice {n} ]" if n == strongest else f"slice {n}"], cell=cell)
        for one, n in zip(pictures, numbers, strict=True)
    ]
    rows = [titled[start : start + across] for start in range(0, len(titled), across)]
    width, height = titled[0].size
    canvas = Image.new("RGB", (width * across, height * len(rows)), "white")
    for place, one in enumerate(titled):
        canvas.paste(one, (place % across * width, place // across * height))
    return canvas
