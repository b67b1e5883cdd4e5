"""DICOM: one frame of a file, in the unit of its rescale slope and intercept, with the window that the file asks for.

    value = slope x stored + intercept                (Modality LUT, PS3.3 C.11.1)
    black, white = centre - 0.5 -+ (width - 1) / 2    (VOI LUT, PS3.3 C.11.2.1.2; LINEAR_EXACT: centre -+ width / 2)

MONOCHROME1 is shown the other way round. Without a window black and white are the ends of what its bits can hold.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from seewhy.errors import MissingDependency
from seewhy.images.decoding import check_pixels
from seewhy.images.pages import Page, several
from seewhy.images.readers import Plane

__all__ = ["DICOM"]

_PLAIN = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.5")
_MOST_HEADER = 2**26  # bytes before the pixels
_COLOURS = ("RGB", "YBR_FULL")
_GREYS = ("MONOCHROME1", "MONOCHROME2")


class DICOM:
    """Medical pictures, by pydicom."""

    suffixes = (".dcm", ".dicom")

    def recognises(self, path: Path, head: bytes) -> bool:
        """Says whether the file has the mark of DICOM."""
        return head[128:132] == b"DICM"

    def open(self, path: Path, page: Page, most: int) -> Plane:
        """One frame; see `seewhy.images.readers.Reader.open`."""
        pydicom = _library()
        syntax = str(pydicom.filereader.read_file_meta_info(path).get("TransferSyntaxUID", ""))
        if syntax not in _PLAIN:
            raise ValueError(
                f"its pixels are compressed in a way that seewhy does not read ({pydicom.uid.UID(syntax).name}); store "
                "them uncompressed or as RLE (gdcmconv --raw IN OUT)"
            )
        data = pydicom.dcmread(path, defer_size=_MOST_HEADER)
        if "Rows" not in data or "Columns" not in data:
            raise ValueError("it has no picture")
        several((int(data.get("NumberOfFrames") or 1),), page, "frames")
        check_pixels(int(data.Rows), int(data.Columns) * int(data.get("SamplesPerPixel", 1)), most)
        kind = str(data.get("PhotometricInterpretation", ""))
        if kind not in (*_GREYS, *_COLOURS):
            raise ValueError(
                f"its photometric interpretation is {kind!r}, expected one of {', '.join(_GREYS + _COLOURS)}"
            )
        stored = pydicom.pixels.pixel_array(path, index=page[0] if page else 0)
        if kind in _COLOURS:
            return Plane(values=stored, low=0, top=2 ** int(data.BitsStored) - 1)
        return _grey(stored, data, kind == "MONOCHROME1")


def _grey(stored: Any, data: Any, inverted: bool) -> Plane:
    if "ModalityLUTSequence" in data:
        raise ValueError("its values go through a table (Modality LUT Sequence), which seewhy does not read")
    slope, intercept = float(data.get("RescaleSlope") or 1), float(data.get("RescaleIntercept") or 0)
    if slope <= 0:
        raise ValueError(f"its rescale slope is {slope:g}, expected a number above 0")
    values = stored.astype(np.float32) * np.float32(slope) + np.float32(intercept)
    if "WindowCenter" in data and "WindowWidth" in data:
        low, top, note = _window(data)
    else:
        bits, signed = int(data.BitsStored), int(data.get("PixelRepresentation") or 0)
        ends = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
        (low, top), note = (slope * end + intercept for end in ends), ""
    return Plane(values=values, low=low, top=top, inverted=inverted, note=note)


def _window(data: Any) -> tuple[float, float, str]:
    """Black, white and a note of the first window of the file."""
    centre, width = (
        float(np.ravel(np.asarray(data[name].value, float))[0]) for name in ("WindowCenter", "WindowWidth")
    )
    kind = str(data.get("VOILUTFunction") or "LINEAR")
    exact = kind == "LINEAR_EXACT"
    half = width / 2 if exact else (width - 1) / 2
    centre = centre if exact else centre - 0.5
    if not half > 0:
        raise ValueError(f"its window has a width of {width:g}; it must be above {0 if exact else 1}")
    low, top = centre - half, centre + half
    odd = kind not in ("LINEAR", "LINEAR_EXACT")
    note = f"its window is to be read by the function {kind}, and was read as a straight line from {low:g} to {top:g}."
    return low, top, note if odd else ""


def _library() -> Any:
    try:
        import pydicom
        import pydicom.filereader
        import pydicom.pixels
    except ImportError as error:
        raise MissingDependency("DICOM files need pydicom: pip install pydicom.") from error
    return pydicom
