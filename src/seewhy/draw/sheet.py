"""Contact sheets: images in rows and columns under their titles, with a line that says what the colours mean."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from seewhy.draw.overlay import INK, PAPER, to_rgb
from seewhy.errors import InvalidInput

__all__ = ["grid"]

EMPTY = (245, 245, 245)


def grid(
    rows: Sequence[Sequence[Image.Image | None]],
    *,
    column_titles: Sequence[str] = (),
    row_titles: Sequence[str] = (),
    cell: int = 224,
    title: str = "",
    footer: str = "",
) -> Image.Image:
    """Returns a contact sheet on white: images in rows and columns under their titles.

    Images keep their aspect ratio, fill their cell as far as that allows and stand in its middle. Titles that are
    too long are wrapped, then cut with an ellipsis.

    Args:
        rows: RGB or grey images; None leaves a cell empty, and so does a row that is shorter than the others.
        column_titles: one a column, or none.
        row_titles: one a row, or none.
        cell: side of a cell in pixels; the size of the letters follows it.
        title: a heading over everything.
        footer: under everything, the place to say what the colours mean; up to four lines for each of its own.

    Raises:
        InvalidInput: no image at all, a number of titles that does not fit, or cells too small to show anything.
    """
    columns = max((len(row) for row in rows), default=0)
    _check_grid(rows, columns, (column_titles, row_titles), cell)
    shown = [[image and _contained(image, cell) for image in row] for row in rows]
    heights = [max((image.height for image in row if image), default=cell) for row in shown]
    sheet = _Sheet.planned(
        cells=(cell, columns, heights), titles=(column_titles, row_titles), heading=title, footing=footer
    )
    canvas = Image.new("RGB", sheet.size, PAPER)
    for r, row in enumerate(shown):
        for c in range(columns):
            sheet.place(canvas, (r, c), row[c] if c < len(row) else None)
    sheet.write(ImageDraw.Draw(canvas))
    return canvas


def _check_grid(
    rows: Sequence[Sequence[Image.Image | None]], columns: int, titles: tuple[Sequence[str], Sequence[str]], cell: int
) -> None:
    if columns == 0:
        raise InvalidInput("Expected at least one row with one picture, got none.")
    if cell < 32:
        raise InvalidInput(f"Expected cells of at least 32 pixels, got {cell}.")
    for name, given, wanted in (("column", titles[0], columns), ("row", titles[1], len(rows))):
        if isinstance(given, str) or len(given) not in (0, wanted):
            raise InvalidInput(f"Expected {wanted} {name} titles or none, got {given!r}.")


def _contained(image: Image.Image, cell: int) -> Image.Image:
    """Returns the image, its longer side brought to `cell` pixels."""
    shown = to_rgb(image)
    scale = cell / max(shown.size)
    size = max(1, round(shown.width * scale)), max(1, round(shown.height * scale))
    # Lanczos overshoots when it enlarges: a map would get colours that none of its values has.
    return shown.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BILINEAR)


class _Text(NamedTuple):
    """Wrapped lines of one font."""

    lines: list[str]
    font: ImageFont.FreeTypeFont

    @classmethod
    def wrapped(cls, text: str, size: float, width: int, most: int) -> _Text:
        font = ImageFont.load_default(size)
        assert isinstance(font, ImageFont.FreeTypeFont)
        return cls(_wrap(text, font, width, most), font)

    @property
    def pitch(self) -> int:
        return round(self.font.size * 1.3)

    @property
    def height(self) -> int:
        return self.pitch * len(self.lines)

    @property
    def width(self) -> int:
        return math.ceil(max((self.font.getlength(line) for line in self.lines), default=0))

    def draw(self, draw: ImageDraw.ImageDraw, x: float, y: float, anchor: str = "l") -> None:
        for number, line in enumerate(self.lines):
            middle = y + (number + 0.5) * self.pitch
            draw.text((x, middle), line, fill=INK, font=self.font, anchor=anchor + "m")


def _wrap(text: str, font: ImageFont.FreeTypeFont, width: int, most: int) -> list[str]:
    """Returns at most `most` lines no wider than `width` pixels, the last one cut with an ellipsis if need be."""
    lines = [line for paragraph in text.splitlines() for line in _wrap_words(paragraph, font, width)]
    if len(lines) <= most:
        return lines
    room = width - int(font.getlength("\N{HORIZONTAL ELLIPSIS}"))
    rest = " ".join(lines[most - 1 :])
    return [*lines[: most - 1], _head(rest, font, room).rstrip() + "\N{HORIZONTAL ELLIPSIS}"]


def _wrap_words(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """Lines no wider than `width` pixels; words that are too long are broken."""
    lines: list[str] = []
    for word in "".join(c if c.isprintable() or c.isspace() else "?" for c in text).split():
        joined = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(joined) <= width:
            lines[-1] = joined
            continue
        rest = word
        while rest:
            lines.append(_head(rest, font, width))
            rest = rest[len(lines[-1]) :]
    return lines


def _head(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """Returns the longest beginning that fits, one character at least."""
    # Widths grow with the length, so the place to cut is found by halving.
    return text[
        : max(1, bisect_right(range(len(text) + 1), width, key=lambda n: math.ceil(font.getlength(text[:n]))) - 1)
    ]


@dataclass(frozen=True, kw_only=True)
class _Sheet:
    """Where everything stands on a contact sheet, in pixels."""

    cell: int
    gap: int
    left: int
    tops: list[int]
    heights: list[int]
    size: tuple[int, int]
    texts: tuple[_Text, _Text]
    titles: tuple[list[_Text], list[_Text]]

    @classmethod
    def planned(
        cls,
        *,
        cells: tuple[int, int, list[int]],
        titles: tuple[Sequence[str], Sequence[str]],
        heading: str,
        footing: str,
    ) -> _Sheet:
        """Measures the texts, then stacks them and the rows from the top."""
        cell, columns, heights = cells
        gap, letter = max(4, cell // 20), max(10, cell / 15)
        above = [_Text.wrapped(t, letter, cell, 2) for t in titles[0]]
        beside = [_Text.wrapped(t, letter, max(80, cell * 2 // 3), 5) for t in titles[1]]
        side = max((t.width for t in beside), default=0)
        left = 2 * gap + (side + gap if side else 0)
        width = left + columns * (cell + gap) + gap
        head = _Text.wrapped(heading, 1.4 * letter, width - 4 * gap, 2)
        foot = _Text.wrapped(footing, 0.9 * letter, width - 4 * gap, 4 * (1 + footing.count("\n")))
        # A row is as high as its images, or as its title where that is higher.
        tall = [max(h, beside[i].height if beside else 0) for i, h in enumerate(heights)]
        blocks = [b + gap // 2 for b in (head.height, max((t.height for t in above), default=0)) if b]
        top = 2 * gap + sum(blocks)
        tops = [top + sum(tall[:i]) + i * gap for i in range(len(tall))]
        height = tops[-1] + tall[-1] + 2 * gap + (foot.height if foot.lines else 0)
        return cls(
            cell=cell,
            gap=gap,
            left=left,
            tops=tops,
            heights=tall,
            size=(width, height),
            texts=(head, foot),
            titles=(above, beside),
        )

    def place(self, canvas: Image.Image, where: tuple[int, int], image: Image.Image | None) -> None:
        x, y = self.left + where[1] * (self.cell + self.gap), self.tops[where[0]]
        height = self.heights[where[0]]
        if image is None:
            canvas.paste(EMPTY, (x, y, x + self.cell, y + height))
        else:
            canvas.paste(image, (x + (self.cell - image.width) // 2, y + (height - image.height) // 2))

    def write(self, draw: ImageDraw.ImageDraw) -> None:
        heading, footing = self.texts
        heading.draw(draw, 2 * self.gap, 2 * self.gap - self.gap // 2)
        footing.draw(draw, 2 * self.gap, self.size[1] - footing.height - self.gap)
        for column, text in enumerate(self.titles[0]):
            x = self.left + column * (self.cell + self.gap) + self.cell / 2
            text.draw(draw, x, self.tops[0] - text.height - self.gap // 3, "m")
        for text, top, height in zip(self.titles[1], self.tops, self.heights, strict=False):
            text.draw(draw, 2 * self.gap, top + (height - text.height) / 2)
