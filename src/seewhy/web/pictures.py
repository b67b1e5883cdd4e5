"""Maps and pictures as the browser takes them.

A map is a grey PNG of its own resolution: 0 and 255 stand for the ends of its scale (`seewhy.draw.scale`), and on a
signed scale 128 for about nothing. The browser enlarges and colours it.

Browsers enlarge in steps of a sixteenth of a cell. Of a map of 7 x 7 these would be seen: with ``fine`` small maps come
enlarged up to fifteen times, bilinear between the centres of their cells, as everywhere else.
"""

from __future__ import annotations

import io
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from seewhy.draw.scale import Scale
from seewhy.images.decoding import opened
from seewhy.images.reading import read
from seewhy.images.view import View
from seewhy.plain import is_flat
from seewhy.runs.query.run import Run, SampleRecord, StoredMap

__all__ = ["Picture", "flat", "grey", "large", "levels", "map_picture", "thumbnail"]

FINE = 128  # cells of a long side to which small maps are enlarged
LARGEST = 1600  # pixels of a large picture's long side
HEAVIEST = 256 * 1024 * 1024  # bytes of an original that is opened
_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"}  # 8 bits; deeper ones need a scale


class Picture(NamedTuple):
    """Bytes of an image and their type."""

    data: bytes
    media: str


def flat(stored: StoredMap) -> bool:
    """Says whether a map says nothing: one value everywhere, but for rounding."""
    return is_flat(stored.row.low, stored.row.high)


def levels(values: NDArray[np.float32], shown: Scale) -> NDArray[np.uint8]:
    """Returns a map (h, w) in 256 steps; a flat one is all 0, or about nothing where it is signed."""
    return np.rint(_scaled(values, shown)).astype(np.uint8)


def _scaled(values: NDArray[np.float32], shown: Scale) -> NDArray[np.float32]:
    """Returns a map in 0..255."""
    if shown.signed and is_flat(shown.low, shown.high):
        return np.full(values.shape, 128, dtype=np.float32)
    return shown.places(values) * np.float32(255)


def grey(values: NDArray[np.float32], shown: Scale, *, fine: bool = False) -> bytes:
    """Returns a map (h, w) as a grey PNG."""
    made = levels(values, shown)
    times = min(15, FINE // max(values.shape)) if fine else 1
    if times > 1:
        height, width = values.shape
        times -= 1 - times % 2  # an odd number: then the centres of the cells, where slopes change, are kept
        made = np.rint(_weights(height, times) @ _scaled(values, shown) @ _weights(width, times).T).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(made).save(out, format="PNG", compress_level=3)
    return out.getvalue()


@lru_cache(maxsize=256)
def _weights(cells: int, times: int) -> NDArray[np.float32]:
    """(cells * times, cells): the share of each cell in each of the finer ones, between the cells' centres."""
    return View.identity(1, cells * times).to_original(np.eye(cells)[:, None, :])[:, 0].T


def map_picture(
    run: Run, sample: str, label: int, explainer: str, *, signed: bool = False, faint: bool = False, fine: bool = False
) -> Picture | None:
    """Returns the picture of a stored map; None where there is none.

    Raises:
        InvalidInput: its pack is damaged.
    """
    found = run.map_bytes(sample, label, explainer)
    if found is None:
        return None
    data, row = found
    shown = run.scale(row, signed=signed, faint=faint)
    if row.encoding == "png" and shown == Scale(row.low, row.high) and not is_flat(row.low, row.high):
        return Picture(data, "image/png")
    values = run.map(sample, label, explainer)
    assert values is not None
    return Picture(grey(values, shown, fine=fine), "image/png")


def thumbnail(run: Run, sample: str) -> Picture | None:
    """Returns the stored small picture; None where there is none.

    Raises:
        InvalidInput: its pack is damaged.
    """
    found = run.thumbnail(sample)
    return None if found is None else Picture(found[0], "image/png" if found[1] == "png" else "image/jpeg")


def large(run: Run, record: SampleRecord) -> Picture | None:
    """The original, made smaller where it is huge; the thumbnail where it is not what it was (`Run.original`)."""
    data = run.original(record, HEAVIEST).data
    if data is not None:
        try:
            return _drawn(data)
        except Exception:  # whatever Pillow raises for a damaged picture
            pass  # damaged, or of a depth that needs a scale: the thumbnail is what the network saw
    return thumbnail(run, record.sample)


def _drawn(data: bytes) -> Picture:
    with opened(io.BytesIO(data)) as image:
        if image.mode not in _MODES:
            raise ValueError(image.mode)
        image.draft("RGB", (LARGEST, LARGEST))
        upright = read(image)
        upright.thumbnail((LARGEST, LARGEST), Image.Resampling.BILINEAR, reducing_gap=2.0)
        out = io.BytesIO()
        upright.save(out, format="JPEG", quality=90)
    return Picture(out.getvalue(), "image/jpeg")
