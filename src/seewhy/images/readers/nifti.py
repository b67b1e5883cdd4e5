"""NIfTI: one slice along the third axis of a volume, scaled as its header says.

    value = scl_slope x stored + scl_inter            (NIfTI-1, 2004)

Rows are the first axis and columns the second, nothing is turned: so networks get volumes that are read by nibabel or
MONAI. Black and white are ``cal_min`` and ``cal_max`` where the header has them, else the ends of the slice itself, and
that is said.
"""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np

from seewhy.errors import MissingDependency
from seewhy.images.decoding import check_pixels
from seewhy.images.pages import Page, several
from seewhy.images.readers import Plane

__all__ = ["NIfTI"]

_MARK = slice(344, 348)
_MARKS = (b"n+1\0", b"ni1\0")


class NIfTI:
    """Volumes, by nibabel."""

    suffixes = (".nii", ".nii.gz")

    def recognises(self, path: Path, head: bytes) -> bool:
        """Says whether the header, which may be packed, has the mark of NIfTI."""
        if head[:2] == b"\x1f\x8b" and path.name.lower().endswith(".nii.gz"):
            with gzip.open(path) as file:
                head = file.read(_MARK.stop)
        return head[_MARK] in _MARKS and path.name.lower().endswith(self.suffixes)

    def open(self, path: Path, page: Page, most: int) -> Plane:
        """One slice; see `seewhy.images.readers.Reader.open`."""
        volume = _library().Nifti1Image.from_filename(path, mmap=False)
        kind = volume.get_data_dtype()
        if kind.kind not in "iuf":
            raise ValueError(f"its values are of the type {kind}, expected whole or floating numbers")
        if len(volume.shape) < 2 or 0 in volume.shape:
            raise ValueError(f"its shape is {volume.shape}, expected at least rows and columns")
        check_pixels(volume.shape[0], volume.shape[1], most)
        several(volume.shape[2:], page, "slices")
        place = page or (0,) * (len(volume.shape) - 2)
        values = np.asarray(volume.dataobj[(slice(None), slice(None), *place)], np.float32)
        if not np.isfinite(values).all():
            raise ValueError("it has values that are NaN or infinite")
        low, top = float(volume.header["cal_min"]), float(volume.header["cal_max"])
        if low < top:
            return Plane(values=values, low=low, top=top)
        low, top = float(values.min()), float(values.max())
        note = (
            f"the file does not say which values are black and white; those of this slice, {low:g} and {top:g}, were "
            f"taken. Say so for all: Preprocessing(window=({low:g}, {top:g})), --window {low:g} {top:g}."
        )
        return Plane(values=values, low=low, top=top if top > low else low + 1, note=note)


def _library() -> Any:
    try:
        import nibabel
    except ImportError as error:
        raise MissingDependency("NIfTI files need nibabel: pip install nibabel.") from error
    return nibabel
