"""A chart of averages: points with their intervals, one panel a metric, the best at the top."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from seewhy.draw.overlay import INK, PAPER
from seewhy.errors import InvalidInput

__all__ = ["Bar", "Panel", "draw"]

POINT, MUTED, LINE = (31, 90, 160), (140, 140, 140), (225, 225, 225)
LETTER, ROW, LABELS, PLOT, GAP = 15, 26, 210, 340, 28  # pixels


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One average; ``muted`` for those that are only there to compare with. NaN is written as "no data"."""

    label: str
    value: float
    low: float
    high: float
    muted: bool = False


@dataclass(frozen=True, kw_only=True)
class Panel:
    """The averages of one metric, sorted so that the best is at the top."""

    title: str
    bars: tuple[Bar, ...]
    descending: bool = True

    def sorted(self) -> list[Bar]:
        """Returns the bars, best first, those without data last."""
        sign = -1 if self.descending else 1
        return sorted(self.bars, key=lambda b: (math.isnan(b.value), sign * b.value if b.value == b.value else 0))

    def limits(self) -> tuple[float, float]:
        """Returns the ends of the scale: all that is drawn, and some air."""
        drawn = [v for b in self.bars for v in (b.value, b.low, b.high) if v == v]
        low, high = (min(drawn), max(drawn)) if drawn else (0.0, 1.0)
        air = 0.06 * (high - low) or 0.05 * max(1e-6, abs(high))
        return low - air, high + air


def draw(panels: Sequence[Panel], *, footer: str = "", columns: int = 2) -> Image.Image:
    """Returns an RGB image of the panels, in rows of ``columns``.

    Raises:
        InvalidInput: there is nothing to draw.
    """
    if not panels or not all(p.bars for p in panels):
        raise InvalidInput("Expected at least one panel with one average each, got none.")
    columns = min(columns, len(panels))
    width = columns * (LABELS + PLOT + 60) + (columns + 1) * GAP
    height_of = [max(len(p.bars) for p in panels[i : i + columns]) * ROW + 70 for i in range(0, len(panels), columns)]
    canvas = Image.new("RGB", (width, sum(height_of) + GAP * (len(height_of) + 1) + (30 if footer else 0)), PAPER)
    pen = _Pen(canvas)
    top = GAP
    for row, height in enumerate(height_of):
        for column, panel in enumerate(panels[row * columns : (row + 1) * columns]):
            pen.panel(panel, GAP + column * (LABELS + PLOT + 60 + GAP), top)
        top += height + GAP
    pen.write(GAP, top + 4, footer, anchor="lm", fill=INK)
    return canvas


class _Pen:
    def __init__(self, canvas: Image.Image) -> None:
        self.pen = ImageDraw.Draw(canvas)
        self.font = ImageFont.load_default(LETTER)

    def write(self, x: float, y: float, text: str, *, anchor: str, fill: tuple[int, int, int]) -> None:
        self.pen.text((x, y), text, fill=fill, font=self.font, anchor=anchor)

    def panel(self, panel: Panel, x: int, y: int) -> None:
        self.write(x, y + 10, panel.title, anchor="lm", fill=INK)
        low, high = panel.limits()
        left, bottom = x + LABELS, y + 34 + ROW * len(panel.bars)

        def at(value: float) -> float:
            return left + (value - low) / (high - low) * PLOT

        for tick in _ticks(low, high):
            self.pen.line([(at(tick), y + 30), (at(tick), bottom)], fill=LINE)
            self.write(at(tick), bottom + 12, f"{tick:g}", anchor="mm", fill=MUTED)
        for bar in panel.bars:
            if bar.muted and bar.value == bar.value:  # the level of chance, through all rows
                self.pen.line([(at(bar.value), y + 34), (at(bar.value), bottom)], fill=MUTED)
        for number, bar in enumerate(panel.sorted()):
            middle = y + 34 + ROW * number + ROW / 2
            self.write(left - 12, middle, self._fitting(bar.label, LABELS - 20), anchor="rm", fill=INK)
            if bar.value != bar.value:
                self.write(left + 4, middle, "no data", anchor="lm", fill=MUTED)
                continue
            colour = MUTED if bar.muted else POINT
            if bar.low == bar.low:
                self.pen.line([(at(bar.low), middle), (at(bar.high), middle)], fill=colour, width=3)
            self.pen.ellipse([at(bar.value) - 5, middle - 5, at(bar.value) + 5, middle + 5], fill=colour)
            self.write(left + PLOT + 10, middle, f"{bar.value:.3f}", anchor="lm", fill=INK)

    def _fitting(self, text: str, width: int) -> str:
        while self.font.getlength(text) > width and len(text) > 2:
            text = text[:-2] + "\N{HORIZONTAL ELLIPSIS}"
        return text


def _ticks(low: float, high: float) -> list[float]:
    """Three to six round numbers between the ends."""
    step = 10 ** math.floor(math.log10((high - low) / 3))
    step *= next(m for m in (5, 2, 1) if (high - low) / (m * step) >= 3)
    first = math.ceil(low / step)
    return [round(i * step, 10) for i in range(first, math.floor(high / step) + 1)]
