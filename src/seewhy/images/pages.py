"""One page of many: how a file with several pages, frames or slices says which one is meant.

``picture.tif[3]`` is the fourth page of picture.tif; of files with more than one axis of pictures a place along each is
said: ``scan.nii[12,0]``. The same words are used wherever a path is: in Python, on the command line, in tables of data.
A file whose own name ends so is that file.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from PIL import Image

from seewhy.images.decoding import check_page

__all__ = ["Page", "chosen", "several", "turned_to"]

Page = tuple[int, ...]
_CHOICE = re.compile(r"(?P<file>.+)\[(?P<page>\d{1,9}(?:, ?\d{1,9})*)\]\Z", flags=re.DOTALL)
_SUBFILE = 254  # the tag of TIFF that says what a page is
_REDUCED, _MASK = 1, 4


def chosen(source: str | os.PathLike[str]) -> tuple[Path, Page]:
    """The file that a path names, and the page of it: ``picture.tif[3]`` is (picture.tif, (3,)); () where none is said.

    Example:
        >>> chosen("scan.nii[12,0]")
        (PosixPath('scan.nii'), (12, 0))
    """
    found = _CHOICE.match(os.fspath(source))
    if found is None or os.path.lexists(source):
        return Path(source), ()
    return Path(found["file"]), tuple(int(part) for part in found["page"].split(","))


def several(shape: tuple[int, ...], page: Page, what: str = "pages or frames") -> None:
    """Raises ValueError where a page is to be chosen and is not, or is chosen and is not there.

    Args:
        shape: how many pictures there are along each axis; () and (1, ...) are one picture.
        page: what was chosen.
        what: the pictures are called so.
    """
    if page and len(page) == len(shape) and all(one < size for one, size in zip(page, shape, strict=True)):
        return
    if not page and all(size == 1 for size in shape):
        return
    sizes = " x ".join(str(size) for size in shape) or "1"
    last = ",".join(str(size - 1) for size in shape or (1,))
    first = ",".join("0" for _ in shape or (1,))
    raise ValueError(
        f"it has {sizes} {what}{f', and no [{_joined(page)}]' if page else ''}; say which one behind the file's name, "
        f"from name[{first}] to name[{last}]"
    )


def turned_to(image: Image.Image, page: Page, most: int | None = None) -> Image.Image:
    """Returns the picture at its chosen page, whose size is compared with the limit.

    Camera pictures of several parts (MPO) are the first of them, and pages of a TIFF file that are smaller copies or
    masks of others do not count, unless they are chosen.

    Raises:
        ValueError: there are several and none was chosen, or there is no such page.
        UnreadableImage: the page has more pixels than are opened.
    """
    several((_count(image, bool(page)),), page)
    if page:
        image.seek(page[0])
        check_page(image, most)
    return image


def _count(image: Image.Image, every: bool) -> int:
    if image.format == "MPO" and not every:
        return 1
    count = int(getattr(image, "n_frames", 1))
    if count == 1 or every or image.format != "TIFF":
        return count
    return count if any(_whole(image, i) for i in range(1, count)) else 1


def _whole(image: Image.Image, page: int) -> bool:
    """Says whether a page of a TIFF file is a picture of its own; the file is left at its first page."""
    image.seek(page)
    try:
        return not image.tag_v2.get(_SUBFILE, 0) & (_REDUCED | _MASK)  # type: ignore[attr-defined]
    finally:
        image.seek(0)


def _joined(page: Page) -> str:
    return ",".join(str(one) for one in page)
