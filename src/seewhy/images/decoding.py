"""Opening pictures: the one place that hands a file to Pillow, with a list of formats and a limit of pixels.

Pillow knows formats that it gives to other programs (PostScript to Ghostscript); those are not on the list. The limit
is compared with what the header says, before anything is decoded. It is `MOST_PIXELS` unless the environment variable
SEEWHY_MAX_PIXELS (``--max-pixels``) says otherwise. It stands for memory: of formats whose decoders hold several copies
of a picture fewer pixels are opened (`SHARES`), so that none takes more than some 10 bytes for each pixel of the limit.

A decoded picture becomes RGB in strips, so that beside it and the result nothing of its size is held.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from threading import RLock
from typing import IO

from PIL import BmpImagePlugin, IcoImagePlugin, Image, PngImagePlugin, UnidentifiedImageError

from seewhy.errors import InvalidInput, UnreadableImage

__all__ = [
    "FORMATS", "MOST_PIXELS", "SHARES", "VARIABLE", "allowing", "check_page", "check_pixels", "header", "most_pixels",
    "opened", "orientation", "strips", "upright",
]  # fmt: skip

FORMATS = (
    "AVIF", "BMP", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "JXL", "MPO", "PCX", "PNG", "PPM", "QOI", "SGI", "TGA",
    "TIFF", "WEBP",
)  # fmt: skip
MOST_PIXELS = 89_478_485  # above it Pillow warns; 268 MB as RGB
SHARES = {"AVIF": 2, "JPEG2000": 3, "JXL": 3, "WEBP": 2}  # that part of the limit is opened; JXL was not measured
VARIABLE = "SEEWHY_MAX_PIXELS"
_STRIP = 2**18  # pixels that are changed at once
_ORIENTATION = 0x0112  # the tag of EXIF that says how a camera was held
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip
_ICON = b"\0\0\1\0"
_pillow = RLock()


def most_pixels() -> int:
    """How many pixels a picture may have.

    Raises:
        InvalidInput: the environment variable is no such number.
    """
    given = os.environ.get(VARIABLE)
    if given is None:
        return MOST_PIXELS
    if not given.isdecimal() or not int(given):
        raise InvalidInput(f"The environment variable {VARIABLE} must be a whole number of pixels, got {given!r}.")
    return int(given)


@contextmanager
def allowing(most: int | None) -> Iterator[None]:
    """Sets the limit for the time of a block, in the processes that are started in it too; None leaves it.

    Raises:
        InvalidInput: not a positive number.
    """
    if most is None:
        yield
        return
    if most < 1:
        raise InvalidInput(f"The limit of pixels must be a whole number above 0, got {most}.")
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = str(most)
    try:
        yield
    finally:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before


def check_pixels(width: int, height: int, most: int | None = None) -> None:
    """Raises UnreadableImage for more than ``most`` pixels, `most_pixels` if that is not given."""
    most = most_pixels() if most is None else most
    if width * height > most:
        raise UnreadableImage(
            f"it has {width} x {height} pixels, more than the {most} that are opened; if you trust it, store it "
            f"smaller or allow more (--max-pixels, {VARIABLE})"
        )


def header(
    source: str | os.PathLike[str] | IO[bytes], formats: Sequence[str] = FORMATS, most: int | None = None
) -> Image.Image:
    """Returns a picture whose header has been read, and which is decoded when it is used.

    Args:
        source: a file's path, or an open file.
        formats: which of Pillow's formats it may have.
        most: pixels that it may have; `most_pixels` if not given.

    Raises:
        UnreadableImage: another format, or more pixels.
        Exception: whatever Pillow raises for a damaged header.
    """
    most = most_pixels() if most is None else most
    try:
        _check_icon(source, formats, most)
        image = _open(source, formats, most)
    except UnidentifiedImageError as error:
        raise UnreadableImage(f"it is not a picture in a format that seewhy opens ({', '.join(formats)})") from error
    except Image.DecompressionBombError as error:
        raise UnreadableImage(
            f"it has more pixels than the {most} that are opened; if you trust it, store it smaller or allow more "
            f"(--max-pixels, {VARIABLE})"
        ) from error
    try:
        check_page(image, most)
    except UnreadableImage:
        image.close()
        raise
    return image


def check_page(image: Image.Image, most: int | None = None) -> None:
    """Raises UnreadableImage where the page at which an image stands has more pixels than are opened."""
    most = most_pixels() if most is None else most
    check_pixels(image.width, image.height, most)
    _check_share(image, most)


def _check_share(image: Image.Image, most: int) -> None:
    share = SHARES.get(image.format or "", 1)
    if image.width * image.height > most // share:
        raise UnreadableImage(
            f"it has {image.width} x {image.height} pixels, more than the {most // share} that are opened of "
            f"{image.format}, whose decoder takes up to {share} times the memory of others; if you trust it, store it "
            f"in another format or allow more (--max-pixels {image.width * image.height * share}, {VARIABLE})"
        )


def _check_icon(source: str | os.PathLike[str] | IO[bytes], formats: Sequence[str], most: int) -> None:
    """Compares what is within an icon with the limit: Pillow decodes it while it reads the header."""
    if "ICO" not in formats:
        return
    with open(source, "rb") if isinstance(source, str | os.PathLike) else nullcontext(source) as file:
        begin = file.tell()
        try:
            if file.read(len(_ICON)) != _ICON:
                return
            file.seek(begin)
            entry = IcoImagePlugin.IcoFile(file).entry[0]
            file.seek(entry.offset)
            if file.read(8) == b"\x89PNG\r\n\x1a\n":
                file.seek(entry.offset)
                check_pixels(*PngImagePlugin.PngImageFile(file).size, most)
            else:
                file.seek(entry.offset)
                width, height = BmpImagePlugin.DibImageFile(file).size
                check_pixels(width, height // 2, most)  # its mask stands below it
        finally:
            file.seek(begin)


@contextmanager
def opened(
    source: str | os.PathLike[str] | IO[bytes], formats: Sequence[str] = FORMATS, most: int | None = None
) -> Iterator[Image.Image]:
    """The same for the time of a block, at whose end what was decoded is let go."""
    image = header(source, formats, most)
    try:
        yield image
    finally:
        image.close()


def _open(source: str | os.PathLike[str] | IO[bytes], formats: Sequence[str], most: int) -> Image.Image:
    Image.init()
    known = [name for name in formats if name in Image.OPEN]
    limit = Image.MAX_IMAGE_PIXELS
    if limit is None or most <= limit:
        return Image.open(source, formats=known)
    with _pillow:  # Pillow has one limit for all: it is put back when the header has been read
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, most
        try:
            return Image.open(source, formats=known)
        finally:
            Image.MAX_IMAGE_PIXELS = before


def strips(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """Returns the picture from top to bottom in parts of its whole width, each with the row at which it begins."""
    rows = max(1, _STRIP // image.width)
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """Returns the picture as EXIF's orientation says that it was seen; itself where nothing is to be turned."""
    turn = _TURNS.get(orientation)
    return image if turn is None else image.transpose(turn)


def orientation(image: Image.Image) -> int:
    """What the picture's EXIF data say, after it has been decoded; 1 where they say nothing that can be."""
    found = image.getexif().get(_ORIENTATION, 1)
    return found if found in _TURNS else 1
