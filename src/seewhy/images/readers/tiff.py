"""TIFF with more than four channels: satellite and microscope pictures, which Pillow would cut or refuse.

Channels come as the file has them, whether they lie beside each other in every pixel or one plane after the other.
Black is 0 and white the largest whole number of the type, 1 for floating numbers. Source: TIFF 6.0 (1992).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import TiffImagePlugin

from seewhy.errors import MissingDependency
from seewhy.images.decoding import check_pixels
from seewhy.images.pages import Page, several
from seewhy.images.readers import Plane

__all__ = ["TIFF"]

_SAMPLES = 277  # the tag that says how many channels there are
_PILLOW = 4  # channels that Pillow shows: colours and transparency
_MARKS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PLAIN = (1, 5, 8, 32946, 32773)  # none, LZW, Deflate (two numbers), PackBits
_REDUCED = 1


class TIFF:
    """Pictures of many bands, by tifffile."""

    suffixes = (".tif", ".tiff")

    def recognises(self, path: Path, head: bytes) -> bool:
        """Says whether the first page has so many channels that this reader is needed."""
        return head[:4] in _MARKS and _channels(path, head) > _PILLOW

    def open(self, path: Path, page: Page, most: int) -> Plane:
        """One page, with all channels; see `seewhy.images.readers.Reader.open`."""
        with _library().TiffFile(path) as file:
            pages = [one for one in file.pages if not int(one.tags.valueof(254, 0) or 0) & _REDUCED]
            several((len(pages),), page, "pages")
            one = pages[page[0] if page else 0]
            check_pixels(one.imagelength, one.imagewidth * one.samplesperpixel, most)
            if int(one.compression) not in _PLAIN:
                raise ValueError(f"its compression is {one.compression.name}, expected none, LZW, Deflate or PackBits")
            if one.dtype is None or one.dtype.kind not in "uf":
                raise ValueError(f"its values are of the type {one.dtype}, expected unsigned or floating numbers")
            values = one.asarray().reshape(one.shape)
            values = values if int(one.planarconfig) == 1 else np.moveaxis(values, 0, -1)
        if values.ndim != 3:
            raise ValueError(f"a page has the shape {values.shape}, expected rows, columns and channels")
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise ValueError("it has values that are NaN or infinite")
        return _plane(values)


def _plane(values: Any) -> Plane:
    if values.dtype.kind == "u":
        return Plane(values=values, low=0, top=float(np.iinfo(values.dtype).max))
    low, top = float(values.min()), float(values.max())
    if low >= 0 and top <= 1:
        return Plane(values=values, low=0, top=1)
    note = (
        f"its floating values run from {low:g} to {top:g}, and were taken for 0 to 1 where they lie beyond. Say which "
        f"are black and white: Preprocessing(window=({low:g}, {top:g})), --window {low:g} {top:g}."
    )
    return Plane(values=values, low=0, top=1, note=note)


def _channels(path: Path, head: bytes) -> int:
    """How many channels the first page has; 0 where that cannot be read."""
    try:
        with open(path, "rb") as file:
            tags = TiffImagePlugin.ImageFileDirectory_v2(file.read(16) if head[2:3] == b"+" else file.read(8))
            file.seek(tags.next)
            tags.load(file)
        return int(tags.get(_SAMPLES, 1))
    except Exception:  # damaged in any way: Pillow will say how
        return 0


def _library() -> Any:
    try:
        import tifffile
    except ImportError as error:
        raise MissingDependency("TIFF files of more than four channels need tifffile: pip install tifffile.") from error
    return tifffile
