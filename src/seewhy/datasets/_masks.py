"""Masks as COCO writes them (Lin et al., 2014, arXiv:1405.0312): polygons and run lengths.

A pixel belongs to a polygon when its centre lies inside, by the even-odd rule; several polygons of one object are
joined. Runs go down the columns, the first one is of pixels outside.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seewhy.errors import InvalidInput, UnreadableImage
from seewhy.images.decoding import check_pixels

__all__ = ["Lazily", "decode", "polygon"]

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Lazily(Mapping[int, Mask]):
    """Masks that are decoded when they are asked for: label -> the segmentations of its objects.

    Attributes:
        parts: what `decode` takes.
        size: height and width of the image.
        where: what errors name.
    """

    parts: Mapping[int, Sequence[Any]]
    size: tuple[int, int]
    where: str

    def __getitem__(self, label: int) -> Mask:
        try:
            check_pixels(self.size[1], self.size[0])
        except UnreadableImage as error:
            raise InvalidInput(f"Cannot use a mask of {self.where}: {error}.") from error
        mask = np.zeros(self.size, bool)
        for part in self.parts[label]:
            try:
                mask |= decode(part, self.size)
            except ValueError as error:
                raise InvalidInput(f"Cannot use a mask of {self.where}: {str(error).rstrip('.')}.") from error
        return mask

    def __iter__(self) -> Iterator[int]:
        return iter(self.parts)

    def __len__(self) -> int:
        return len(self.parts)


def decode(segmentation: Any, size: tuple[int, int]) -> Mask:
    """(H, W) of one object: a list of polygons [x0, y0, x1, y1, ...] or {"size": [H, W], "counts": list or text}.

    Raises:
        ValueError: it is neither, or does not fit the size.
    """
    if isinstance(segmentation, Mapping):
        given = segmentation.get("size")
        if not isinstance(given, Sequence) or tuple(given) != size:
            raise ValueError(f"its run lengths are for the size {given}, the picture has {list(size)}")
        counts = segmentation.get("counts")
        return _from_runs(_uncompressed(counts) if isinstance(counts, str | bytes) else counts, size)
    if isinstance(segmentation, Sequence) and not isinstance(segmentation, str):
        mask = np.zeros(size, bool)
        for one in segmentation:
            mask |= polygon(one, size)
        return mask
    raise ValueError(f"expected polygons or run lengths, got {type(segmentation).__name__}")


def polygon(points: Any, size: tuple[int, int]) -> Mask:
    """(H, W) true on the pixels whose centre lies inside the closed polygon x0, y0, x1, y1, ...

    Raises:
        ValueError: not an even count of at least six finite numbers.
    """
    numbers = isinstance(points, Sequence) and all(isinstance(v, int | float) and math.isfinite(v) for v in points)
    if not numbers or len(points) < 6 or len(points) % 2:
        raise ValueError("expected a polygon of at least three points x, y")
    height, width = size
    corners = np.asarray(points, np.float64).reshape(-1, 2)
    flips = np.zeros((height, width + 1), bool)
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, 0), strict=True):
        low, high = (_first(v, height) for v in sorted((y0, y1)))
        if low < high:  # rows whose centre lies between the two ends
            rows = np.arange(low, high)
            across = x0 + (rows + 0.5 - y0) * (x1 - x0) / (y1 - y0)
            flips[rows, np.ceil(across - 0.5).clip(0, width).astype(int)] ^= True
    inside: Mask = np.logical_xor.accumulate(flips, axis=1)[:, :width]
    return inside


def _first(at: float, count: int) -> int:
    """Returns the first pixel whose centre is not before a position."""
    return min(max(math.ceil(at - 0.5), 0), count)


def _from_runs(counts: Any, size: tuple[int, int]) -> Mask:
    whole = isinstance(counts, Sequence) and all(isinstance(c, int) and c >= 0 for c in counts)
    if not whole or sum(counts) != size[0] * size[1]:
        raise ValueError(f"its run lengths do not add up to the picture's {size[0] * size[1]} pixels")
    values = np.arange(len(counts)) % 2 == 1
    return np.repeat(values, counts).reshape(size, order="F")


def _uncompressed(text: str | bytes) -> list[int]:
    """Run lengths from COCO's text: groups of 5 bits, lowest first; from the fourth on less the last but one.

    Each character is 48 + 5 bits + 32 if another follows; the highest bit of the last group is the sign.
    """
    codes = iter(text.encode("ascii", "replace") if isinstance(text, str) else text)
    counts: list[int] = []
    for first in codes:
        value = _number(first, lambda: next(codes, None))
        counts.append(value + counts[-2] if len(counts) > 2 else value)
    return counts


def _number(code: int, following: Callable[[], int | None]) -> int:
    value, shift = 0, 0
    while True:
        group = code - 48
        if not 0 <= group < 64:
            raise ValueError(f"its run lengths have a character {chr(code)!r} that cannot be there")
        value |= (group & 31) << shift
        shift += 5
        if not group & 32:
            return value - (1 << shift) if group & 16 else value
        if (after := following()) is None:
            raise ValueError("its run lengths end too early")
        code = after
