"""Reads pictures and masks: a file, PIL image or array becomes an upright RGB picture. Needs no torch."""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from seewhy.errors import InvalidType, MissingDependency, UnreadableImage
from seewhy.images.decoding import most_pixels as pixel_limit
from seewhy.images.decoding import opened, orientation, strips, upright
from seewhy.images.deep import Deep, three, with_deep
from seewhy.images.pages import Page, chosen, turned_to
from seewhy.images.readers import Plane, reader_of

__all__ = ["read", "read_mask"]

Source = str | os.PathLike[str] | Image.Image | NDArray[Any]


def read(image: Source, *, most_pixels: int | None = None) -> Image.Image:
    """Returns the picture as an upright RGB image of 8 bits a channel.

    Rotated as its EXIF data say; transparency laid on white; grey of 16 bits (and of 32-bit integers) scaled from
    0..65535, so that nothing is cut off, of 12 bits from 0..4095. What had more than 8 bits or other channels than RGB
    is kept beside the image (`seewhy.images.deep`), for the network.

    Args:
        image: a file's path (``picture.tif[3]`` is the fourth page of picture.tif, ``scan.nii[12]`` the thirteenth
            slice: of several pages, frames or slices one is chosen), a PIL image, or an array of shape (H, W),
            (H, W, 1), (H, W, 3) or (H, W, 4), either uint8 or floating with values in [0, 1].
        most_pixels: of a file; `seewhy.images.decoding.most_pixels` if not given.

    Raises:
        UnreadableImage: names the source and the reason.
        InvalidType: for anything else than a path, a PIL image or an array.
        MissingDependency: for a DICOM, NIfTI or many-band TIFF file whose library is not installed.
    """
    if isinstance(image, np.ndarray):
        with _reading(f"the array of shape {image.shape} and type {image.dtype}"):
            found = _to_rgb(_array_to_image(image))
            if not np.issubdtype(image.dtype, np.floating) or image.shape[2:] == (4,):
                return found
            return with_deep(found, image[:, :, 0] if image.shape[2:] == (1,) else image, 1)
    if isinstance(image, Image.Image):
        with _reading(f"the PIL image {image.mode} {image.width}x{image.height}"):
            _check_chosen(image)
            return _to_rgb(image)
    if isinstance(image, str | os.PathLike):
        with _reading(repr(os.fspath(image))):
            return _read_file(*chosen(image), most_pixels)
    raise InvalidType(
        f"Expected a path, a PIL image or a numpy array, got {type(image).__name__}. "
        "Turn a tensor (C, H, W) in [0, 1] into an array with tensor.permute(1, 2, 0).numpy()."
    )


def read_mask(path: str | os.PathLike[str]) -> NDArray[np.bool_]:
    """(H, W) true where a mask file shows the object: not black (palette index above 0) and not transparent.

    Raises:
        UnreadableImage: names the file and the reason.
    """
    file, page = chosen(path)
    with _reading(repr(os.fspath(path))), opened(_ordinary(file)) as image:
        turned_to(image, page).load()
        found = np.zeros((image.height, image.width), np.uint8)
        for top, strip in strips(image):
            found[top : top + strip.height] = _shown(strip)
        turned = orientation(image)
    mask: NDArray[np.bool_] = np.asarray(upright(Image.fromarray(found), turned)).view(np.bool_)
    return mask


def _shown(strip: Image.Image) -> NDArray[np.bool_]:
    """(h, w) true where a part of a mask is neither black nor transparent."""
    values = np.asarray(strip if strip.mode in ("1", "L", "P", "I", "F", "I;16") else strip.convert("RGB"))
    opaque = np.asarray(strip.convert("RGBA"))[..., 3] > 0
    seen: NDArray[np.bool_] = opaque & ((values > 0).any(-1) if values.ndim == 3 else values > 0)
    return seen


@contextmanager
def _reading(name: str) -> Iterator[None]:
    try:
        yield
    except (InvalidType, MissingDependency):
        raise
    except Exception as error:  # decoders meet broken files with errors of any kind, struct.error and IndexError too
        raise UnreadableImage(f"Cannot read {name}: {_reason(error)}.") from error


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).rstrip(".") or type(error).__name__


def _read_file(path: Path, page: Page, most: int | None) -> Image.Image:
    if (reader := reader_of(_ordinary(path))) is not None:
        return _of_plane(reader.open(path, page, pixel_limit() if most is None else most))
    try:
        with opened(path, most=most) as image:
            return _to_rgb(turned_to(image, page, most))
    except UnreadableImage as error:
        reader = reader_of(path, outside=True) if isinstance(error.__cause__, UnidentifiedImageError) else None
        if reader is None:
            raise
        return _of_plane(reader.open(path, page, pixel_limit() if most is None else most))


def _of_plane(plane: Plane) -> Image.Image:
    """What a reader gives as RGB, its values kept beside it."""
    known = Deep(plane.values, plane.top, plane.inverted, 0, plane.low)
    if 0 in plane.values.shape:
        raise ValueError("it has no pixels")
    shown = np.rint(three(known.units()) * 255).astype(np.uint8)
    image = Image.fromarray(shown).convert("RGB")
    if shown.ndim == 3 and plane.values.dtype == np.uint8 and plane.values.shape[2] == 3 and plane.top == 255:
        return image
    return with_deep(image, plane.values, plane.top, plane.inverted, low=plane.low, note=plane.note)


def _check_chosen(image: Image.Image) -> None:
    """Raises where a file of several frames was opened, and nobody said which frame is meant."""
    if image.tell() == 0 and image.format != "MPO" and (count := getattr(image, "n_frames", 1)) > 1:
        raise ValueError(
            f"it is the first of {count} pages or frames; pass image.copy() for this one, or go to another with "
            "image.seek(1)"
        )


def _ordinary(path: Path) -> Path:
    """Returns the path, if it is that of a file with something in it; a pipe or a device would be read without end."""
    if "\0" in str(path):  # each version of Python has other words for it
        raise ValueError("a file's name has no null character")
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise ValueError("expected a file, got a directory; pass the pictures in it one by one")
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("expected an ordinary file, got a pipe, socket or device")
    if status.st_size == 0:
        raise ValueError("the file is empty")
    return path


def _to_rgb(image: Image.Image) -> Image.Image:
    image.load()
    turned = orientation(image)
    found = upright(_plain(image), turned)
    if not _is_deep(image) or "transparency" in image.info:
        return found
    top, inverted = _white(image)
    values = np.asarray(upright(image, turned))
    return with_deep(found, values, 1 if image.mode == "F" else top, inverted)


def _is_deep(image: Image.Image) -> bool:
    """Says whether it is a grey picture of more than 8 bits."""
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def _plain(image: Image.Image) -> Image.Image:
    """Returns the decoded picture as RGB, as it is stored."""
    if 0 in image.size:
        raise ValueError("it has no pixels")
    top, inverted = _white(image)
    deep = _is_deep(image)
    top = 1 if image.mode == "F" else top
    for _, strip in strips(image) if deep else ():  # first: a number that cannot be is the whole picture's fault
        _check_range(np.asarray(strip), top)
    clear = image.info.get("transparency")
    transparent = image.has_transparency_data
    if image.mode == "RGB" and not transparent:
        return image.copy()
    found = Image.new("RGB", image.size)
    for row, strip in strips(image):
        part = _deep_grey(strip, top, inverted, clear) if deep else strip
        if transparent and part.has_transparency_data:
            part = part.convert("RGBA")
            part = Image.alpha_composite(Image.new("RGBA", part.size, "white"), part)
        found.paste(part.convert("RGB"), (0, row))
    return found


_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # tags of TIFF


def _white(image: Image.Image) -> tuple[int, bool]:
    """The whole number that is white in a picture of more than 8 bits, and whether 0 is, both as TIFF may say."""
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(_BITS, (16,))[0]
    if bits <= 16 and 2 in tags.get(_SAMPLE_FORMAT, ()):
        raise ValueError("its values are signed, so that black is not known; store them unsigned")
    return 2 ** min(bits, 16) - 1, tags.get(_PHOTOMETRIC) == 0


def _deep_grey(strip: Image.Image, top: int, inverted: bool, clear: Any) -> Image.Image:
    values = np.asarray(strip)
    grey = _to_bytes(values, top)
    grey = 255 - grey if inverted else grey
    return Image.fromarray(np.where(values == clear, np.uint8(255), grey) if isinstance(clear, int) else grey)


def _check_range(values: NDArray[Any], top: int) -> None:
    low, high = float(values.min()), float(values.max())
    if not math.isfinite(low) or not math.isfinite(high):
        raise ValueError("it has pixels that are NaN or infinite")
    slack = 1e-6 * top  # float arithmetic may overshoot by a rounding error
    if low < -slack or high > top + slack:
        hint = "; divide values of 0..255 by 255" if top == 1 and low >= 0 and high <= 255 else "; rescale it"
        raise ValueError(f"expected values in 0..{top}, got {low:g}..{high:g}{hint}")


def _to_bytes(values: NDArray[Any], top: int) -> NDArray[np.uint8]:
    """Values of 0..top as 0..255, rounded."""
    _check_range(values, top)
    scaled: NDArray[np.uint8] = np.rint(values.clip(0, top) * (255.0 / top)).astype(np.uint8)
    return scaled


def _array_to_image(array: NDArray[Any]) -> Image.Image:
    channels_last = array.ndim == 3 and array.shape[2] in (1, 3, 4)
    if array.ndim == 3 and array.shape[0] in (1, 3, 4) and not channels_last:
        raise ValueError("expected channels last, got channels first; use array.transpose(1, 2, 0)")
    if array.ndim != 2 and not channels_last:
        raise ValueError("expected one picture of shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)")
    if array.size == 0:
        raise ValueError("it has no pixels")
    if np.issubdtype(array.dtype, np.floating):
        array = _to_bytes(array, 1)
    elif array.dtype != np.uint8:
        raise ValueError("expected uint8, or floating values in [0, 1]; convert it to one of these first")
    return Image.fromarray(np.ascontiguousarray(array[:, :, 0] if array.shape[2:] == (1,) else array))
