"""A picture of the data as the worker wants it: the network's input and a thumbnail."""

from __future__ import annotations

import os
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from PIL import ExifTags, Image
from torch import Tensor

from seewhy.datasets import Data
from seewhy.errors import InvalidInput, SeewhyError
from seewhy.images.decoding import opened
from seewhy.images.pages import chosen
from seewhy.images.readers import reader_of
from seewhy.images.view import View
from seewhy.inputs import prepare
from seewhy.models import Model
from seewhy.runs.folder.codec import thumbnail
from seewhy.runs.folder.identity import identity
from seewhy.runs.folder.originals import content
from seewhy.types import Sample

__all__ = ["Loaded", "digest", "load"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Loaded:
    """A picture, read.

    Attributes:
        sample: with its annotations.
        inputs: (1, C, H, W).
        view: which part of the original the input covers.
        digest: of its content and annotations.
        content: sign of the original's bytes, None where it is no file.
        small: the thumbnail's bytes, format and (height, width).
        original: the original's bytes and ending, where it is to be copied.
        warnings: about the input.
        stamp: of the file that was read, None where it is no file.
    """

    sample: Sample
    inputs: Tensor
    view: View
    digest: str
    content: str | None
    small: tuple[bytes, str, tuple[int, int]]
    original: tuple[bytes, str] | None
    warnings: tuple[str, ...]
    stamp: str | None = None


def load(model: Model, data: Data, index: int, keep: bool) -> Loaded:
    """Reads one picture.

    Args:
        model: whose preprocessing is used.
        data: the pictures.
        index: which.
        keep: whether the original's bytes are kept.

    Raises:
        Exception: whatever reading it raises.
    """
    source = data.source(index)
    stamp = None if source is None else data.stamp(index)
    sample = data[index]
    if sample.boxes and source is not None:
        _check_upright(source)
    batch = prepare(model, sample.image)
    if len(batch.inputs) != 1:
        raise InvalidInput(f"A sample is one picture, got {len(batch.inputs)}.")
    original = _original(source, batch.pictures[0]) if keep else None
    stored = original[0] if original is not None else _bytes(source)
    found = Loaded(
        sample=sample, inputs=batch.inputs, view=batch.views[0], digest=_digest(source, sample),
        content=None if stored is None else content(stored), small=thumbnail(batch.pictures[0]), original=original,
        warnings=batch.warnings, stamp=stamp,
    )  # fmt: skip
    if stamp is not None and data.stamp(index) != stamp:  # its maps may be of one picture and its digest of another
        raise InvalidInput(f"{source!r} was changed while it was read. Run again: then it is computed anew.")
    return found


def _check_upright(source: str) -> None:
    """Raises where it is unclear whether boxes are meant for the picture as stored or as shown (EXIF orientation)."""
    try:
        with opened(chosen(source)[0]) as image:
            turned = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # reading the picture will raise the error
        return
    if turned != 1:
        raise InvalidInput(
            f"{source!r} is turned by its EXIF data, and nobody knows whether its boxes are meant before or after. "
            "Store it upright."
        )


def digest(data: Data, index: int) -> str | None:
    """Returns a digest of a picture's content and annotations; None where it cannot be read."""
    try:
        return _digest(data.source(index), data[index])
    except (SeewhyError, OSError):
        return None


def _digest(source: str | None, sample: Sample) -> str:
    image: Any = _bytes(source)
    page = chosen(source)[1] if source is not None else ()
    if image is None:
        image = np.asarray(sample.image) if isinstance(sample.image, Image.Image) else sample.image
    apart = [sample.crowds, sample.difficult] if sample.crowds or sample.difficult else []
    return identity(image, sample.labels, sample.boxes, *apart, *([list(page)] if page else []))


def _bytes(source: str | None) -> bytes | None:
    path = None if source is None else chosen(source)[0]
    return path.read_bytes() if path is not None and os.path.isfile(path) else None


def _original(source: str | None, picture: Image.Image) -> tuple[bytes, str]:
    path, page = chosen(source or "")
    if source is not None and (data := _bytes(source)) is not None and not page and reader_of(path) is None:
        return data, path.suffix.lower()
    out = BytesIO()
    picture.save(out, format="PNG")
    return out.getvalue(), ".png"
