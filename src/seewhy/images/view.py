"""Where a network's input lies in a picture, and the way between the two for boxes, masks and maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from seewhy.errors import InvalidInput
from seewhy.plain import Box, Values, array_of

__all__ = ["View"]


@dataclass(frozen=True, kw_only=True)
class View:
    """The part of a picture that a network's input covers.

    Attributes:
        original: (height, width) of the picture in pixels.
        box: x0, y0, x1, y1 in the picture's pixels. It exceeds the picture where the input was padded (letterbox).
    """

    original: tuple[int, int]
    box: Box

    def __post_init__(self) -> None:
        x0, y0, x1, y1 = self.box
        if not (x0 < x1 and y0 < y1 and min(self.original) > 0):
            raise InvalidInput(f"Expected a picture and a box with an area, got {self.original} and {self.box}.")

    @classmethod
    def identity(cls, height: int, width: int) -> View:
        """Returns the view of a picture that is itself the input."""
        return cls(original=(height, width), box=(0.0, 0.0, float(width), float(height)))

    def scaled(self, height: int, width: int) -> View:
        """Returns the same view of a copy of the picture that has another size in pixels."""
        down, across = height / self.original[0], width / self.original[1]
        x0, y0, x1, y1 = self.box
        return View(original=(height, width), box=(x0 * across, y0 * down, x1 * across, y1 * down))

    def box_to_original(self, box: Sequence[float], size: tuple[int, int]) -> Box:
        """A box x0, y0, x1, y1 in pixels of the input of ``size`` (height, width) -> in the picture's pixels."""
        x, y, across, down = self._scale(size)
        return x + box[0] * across, y + box[1] * down, x + box[2] * across, y + box[3] * down

    def box_to_input(self, box: Sequence[float], size: tuple[int, int]) -> Box:
        """A box x0, y0, x1, y1 in the picture's pixels -> in pixels of the input of ``size`` (height, width)."""
        x, y, across, down = self._scale(size)
        return (box[0] - x) / across, (box[1] - y) / down, (box[2] - x) / across, (box[3] - y) / down

    def _scale(self, size: tuple[int, int]) -> tuple[float, float, float, float]:
        """Where the input begins in the picture, x and y, and how many of the picture's pixels one of its own has."""
        x0, y0, x1, y1 = self.box
        return x0, y0, (x1 - x0) / size[1], (y1 - y0) / size[0]

    def to_original(self, saliency: Values) -> NDArray[np.float32]:
        """Maps of any resolution, laid on the picture's pixels; NaN where the network did not look.

        Bilinear between the centres of the map's cells and constant beyond the outer ones; where the map is finer
        than the picture, cells are averaged with the same triangle (nothing falls between two pixels). A map that
        has the picture's size already and covers it comes back unchanged.

        Args:
            saliency: (..., h, w), finite; it covers `box`.

        Returns:
            (..., H, W) float32 of the original's height and width.

        Raises:
            InvalidInput: the map has fewer than two dimensions, no cells, or values that are not finite.
        """
        maps: NDArray[np.float32] = array_of(saliency).astype(np.float32, copy=False)
        if maps.ndim < 2 or maps.size == 0:
            raise InvalidInput(f"Expected maps of shape (..., h, w) with at least one cell, got {maps.shape}.")
        if not np.isfinite(maps).all():
            raise InvalidInput("Expected finite maps, got NaN or infinity; NaN is kept for pixels that were not seen.")
        x0, y0, x1, y1 = self.box
        rows, above = _hat_weights(self.original[0], (y0, y1), maps.shape[-2])
        columns, beside = _hat_weights(self.original[1], (x0, x1), maps.shape[-1])
        spread = np.asarray(rows @ maps @ columns.T, dtype=np.float32)
        spread[..., above, :] = np.nan
        spread[..., beside] = np.nan
        return spread

    def to_input(self, mask: Any, size: tuple[int, int]) -> NDArray[np.bool_]:
        """Returns a mask of the picture, seen as the network's input sees it.

        Args:
            mask: (H, W) of the picture's size; what is above 0 is the object.
            size: height and width of the input.

        Returns:
            (h, w) bool; False where the input was padded.

        Raises:
            InvalidInput: the mask has not the picture's size.
        """
        given = array_of(mask) > 0
        if given.shape != self.original:
            raise InvalidInput(f"The mask must have the picture's size, {self.original}, got {given.shape}.")
        if self == View.identity(*size):
            return given
        # Each pixel of the input takes the value at its centre; beyond the picture it is 0.
        picture, (height, width) = Image.fromarray(given.astype(np.uint8) * 255), size
        seen = picture.transform((width, height), Image.Transform.EXTENT, self.box, Image.Resampling.NEAREST)
        return np.asarray(seen) > 0


def _hat_weights(pixels: int, span: tuple[float, float], cells: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """(pixels, cells): the share of each cell in each pixel along one axis; (pixels,): which pixels lie outside."""
    low, high = span
    # float64: at a few thousand pixels float32 would move weights by 1e-4.
    centres = np.arange(pixels) + 0.5
    cells_per_pixel = cells / (high - low)
    positions = ((centres - low) * cells_per_pixel - 0.5).clip(0, cells - 1)
    distances = np.abs(positions[:, None] - np.arange(cells))
    weights: NDArray[np.float64] = (1 - distances / max(1.0, cells_per_pixel)).clip(0)
    weights /= weights.sum(axis=1, keepdims=True)
    return weights.astype(np.float32), (centres < low) | (centres > high)
