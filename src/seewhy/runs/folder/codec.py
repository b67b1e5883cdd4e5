"""Maps and thumbnails as bytes, and back: a small map as numbers, a large one in 256 grey levels with its range."""

from __future__ import annotations

import io
import struct
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from seewhy.errors import InvalidInput
from seewhy.images.decoding import opened

__all__ = [
    "MOST_CELLS",
    "SMALL",
    "Encoded",
    "Precision",
    "check",
    "check_thumbnail",
    "decode",
    "encode",
    "lossless",
    "thumbnail",
]

Precision = Literal["auto", "float32", "float16"]
SMALL = 1024  # cells: a map of up to 32 x 32 is kept as numbers
MOST_CELLS = 1 << 26  # the most that a map may have to be read
_SIDE = 256  # pixels: about the long side of a thumbnail
_PLAIN = 96  # a picture of up to this long side is kept as it is


class Encoded(NamedTuple):
    """A map's bytes, how they are read, and its true range."""

    data: bytes
    encoding: str
    low: float
    high: float


def encode(values: NDArray[np.float32], precision: Precision = "auto") -> Encoded:
    """Returns a map (h, w) of finite numbers as bytes.

    "float32" and "float16" keep numbers; "auto" keeps float32 up to 32 x 32 cells, and above that a grey PNG of 8 bits
    between the map's smallest and largest value.
    """
    low, high = float(values.min()), float(values.max())
    if precision == "float16" and max(abs(low), abs(high)) < 65504:
        return Encoded(values.astype("<f2").tobytes(), "f2", low, high)
    if precision != "auto" or values.size <= SMALL:
        return Encoded(values.astype("<f4").tobytes(), "f4", low, high)
    span = np.float64(high) - low
    levels = np.rint((values - np.float64(low)) * (255.0 / span)) if span > 0 else np.zeros_like(values)
    out = io.BytesIO()
    Image.fromarray(levels.astype(np.uint8)).save(out, format="PNG", compress_level=2)
    return Encoded(out.getvalue(), "png", low, high)


def decode(data: bytes, encoding: str, shape: tuple[int, int], low: float, high: float) -> NDArray[np.float32]:
    """Returns the map (h, w) from its bytes.

    Raises:
        InvalidInput: the bytes are not those of a map of this encoding and shape.
    """
    check(data, encoding, shape)
    if encoding == "png":
        steps = (low + np.arange(256) * ((high - low) / 255.0)).astype(np.float32)
        try:
            with opened(io.BytesIO(data), formats=("PNG",)) as image:
                made: NDArray[np.float32] = steps[np.asarray(image)]
                return made
        except (OSError, SyntaxError, ValueError) as error:
            raise InvalidInput(f"A stored map is damaged: {error}.") from error
    return np.frombuffer(data, dtype=f"<{encoding}").reshape(shape).astype(np.float32)


def check(data: bytes, encoding: str, shape: tuple[int, int]) -> None:
    """Compares a map's bytes with what its row says, before anything is unpacked.

    Raises:
        InvalidInput: the bytes are of another size, or the encoding is not known.
    """
    if encoding == "png":
        # Signature, length and kind of the first chunk, width, height, bits, colours: 8 grey bits, not interlaced.
        if data[:16] != _PNG or data[24:29] != b"\x08\0\0\0\0" or _size(data) != shape:
            raise InvalidInput(f"A stored map is damaged: it is no grey PNG of {shape[0]} x {shape[1]} cells.")
    elif encoding not in ("f2", "f4"):
        raise InvalidInput(f"Maps are kept as 'f4', 'f2' or 'png', got {encoding!r}: written by a later version?")
    elif len(data) != shape[0] * shape[1] * int(encoding[1]):
        raise InvalidInput(f"A stored map is damaged: {len(data)} bytes are not {shape[0]} x {shape[1]} cells.")


_PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"


def _size(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack(">II", data[16:24])
    return height, width


def check_thumbnail(data: bytes, kind: str, shape: tuple[int, int]) -> None:
    """Compares a small picture's bytes with what its row says, before it is unpacked.

    Raises:
        InvalidInput: the bytes are of another format or size.
    """
    try:
        with opened(io.BytesIO(data), formats=(kind.upper(),)) as image:
            found = (image.height, image.width)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InvalidInput(f"A stored picture is damaged: {str(error) or 'it cannot be read'}.") from error
    if found != shape:
        raise InvalidInput(f"A stored picture is damaged: it is {found[0]} x {found[1]}, not {shape[0]} x {shape[1]}.")


def lossless(encoding: str) -> bool:
    """Says whether a map that is kept in this encoding has exactly the computed values."""
    return encoding == "f4"


def thumbnail(picture: Image.Image) -> tuple[bytes, str, tuple[int, int]]:
    """Returns a small copy of a picture: its bytes, format and (height, width).

    Whole pixels are averaged, which is several times faster than resampling: its long side comes to 171 to 384 pixels.
    """
    factor = max(1, round(max(picture.size) / _SIDE))
    small = picture.reduce(factor) if factor > 1 else picture
    out = io.BytesIO()
    plain = max(picture.size) <= _PLAIN
    small.save(out, format="PNG" if plain else "JPEG", quality=88)
    return out.getvalue(), "png" if plain else "jpeg", (small.height, small.width)
