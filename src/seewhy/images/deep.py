"""Pictures of more than 8 bits: what `seewhy.images.reading.read` keeps beside the RGB that is shown.

A PIL image of RGB has 8 bits a channel. The network gets all that the file or array had (`seewhy.Preprocessing` asks
for it here), and only what people look at is rounded to 8 bits.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from seewhy.images.decoding import strips

__all__ = ["Deep", "deep", "narrow", "three", "windowed", "with_deep"]

_KEY = "seewhy_deep"
_NARROW = 1 / 8  # of the range; below it a screen shows fewer than 32 greys
Window = tuple[float, float]


@dataclass(frozen=True, eq=False)
class Deep:
    """The values of a picture.

    Attributes:
        values: (H, W) or (H, W, C), as they were stored.
        top: the value that is white.
        inverted: ``low`` is white, and ``top`` black.
        sign: of the RGB pixels beside them: where those were changed, the values are no longer the picture's.
        low: the value that is black.
        note: what is to be said where nobody chose a window.
    """

    values: NDArray[Any]
    top: float
    inverted: bool
    sign: int
    low: float = 0.0
    note: str = ""

    @property
    def bands(self) -> int:
        """Channels of the picture."""
        return 1 if self.values.ndim == 2 else self.values.shape[2]

    def units(self, window: Window | None = None) -> NDArray[np.float32]:
        """(H, W) or (H, W, C) in [0, 1]: from black to white, or from the one end of a window to the other."""
        low, high = (self.low, self.top) if window is None else window
        found: NDArray[np.float32] = ((self.values.astype(np.float32) - low) / (high - low)).clip(0, 1)
        return 1 - found if self.inverted else found


def with_deep(
    image: Image.Image, values: NDArray[Any], top: float, inverted: bool = False, *, low: float = 0.0, note: str = ""
) -> Image.Image:
    """Returns the RGB picture, with its values kept beside it."""
    image.info[_KEY] = Deep(np.asarray(values), top, inverted, _sign(image), low, note)
    return image


def three(units: NDArray[np.float32], show: Sequence[int] | None = None) -> NDArray[np.float32]:
    """What is shown of a picture with any number of channels: (H, W) or (H, W, 3).

    Args:
        units: (H, W) or (H, W, C).
        show: which channels are red, green and blue; the first three if not given, the first alone where there are two.
    """
    if units.ndim == 2 or (units.shape[2] == 3 and show is None):
        return units
    if show is not None:
        return units[:, :, list(show)]
    return units[:, :, :3] if units.shape[2] > 3 else units[:, :, 0]


def deep(image: Image.Image) -> Deep | None:
    """Returns the values of a picture; None where 8 bits are all there is, or where the picture was changed since."""
    found = image.info.get(_KEY)
    if not isinstance(found, Deep) or found.values.shape[:2] != (image.height, image.width):
        return None
    return found if found.sign == _sign(image) else None


def narrow(image: Image.Image) -> str:
    """Says so where a picture uses a small part of the values that it could have; empty otherwise."""
    found = deep(image)
    if found is None or found.note or found.top == 1:
        return found.note if found else ""
    low, high = float(found.values.min()), float(found.values.max())
    if high - low >= _NARROW * (found.top - found.low):
        return ""
    return (
        f"its values run from {low:g} to {high:g} of {found.low:g} to {found.top:g}, so to the network all of it is "
        f"nearly of one brightness. If white is not {found.top:g}, say where black and white are: "
        f"Preprocessing(window=({low:g}, {high:g})), --window {low:g} {high:g}."
    )


def windowed(image: Image.Image, window: Window | None, show: Sequence[int] | None = None) -> Image.Image:
    """Returns the picture as it is shown with black and white at the ends of a window, and three of its channels."""
    found = deep(image)
    if window is None and (found is None or found.bands <= 3):
        return image
    if found is None:
        low, high = window or (0.0, 255.0)
        units = ((np.asarray(image, np.float32) - low) / (high - low)).clip(0, 1)
    else:
        units = three(found.units(window), show if found.bands > 3 else None)
    return Image.fromarray(np.rint(units * 255).astype(np.uint8)).convert("RGB")


def _sign(image: Image.Image) -> int:
    found = 0
    for _, strip in strips(image):  # no copy of the whole
        found = zlib.crc32(strip.tobytes(), found)
    return found
