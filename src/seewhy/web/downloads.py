"""The current view as a file: a table, a picture, or a page that needs no server."""

from __future__ import annotations

import csv
import io
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from seewhy.csv_cells import guarded
from seewhy.draw import overlay as drawing
from seewhy.draw.scale import Scale
from seewhy.images import decoding
from seewhy.images.view import View
from seewhy.web import pictures
from seewhy.web.colours import COLOUR_MAPS, SIGNED
from seewhy.web.library import Opened
from seewhy.web.queries import SaliencyQuery
from seewhy.web.rendering import clean, number, render
from seewhy.web.runs import about
from seewhy.web.saliency import LabelCard, MapCard, SaliencyPage, SampleCard, saliency, single

__all__ = ["csv_of", "html_of", "png_of"]

CELL, GAP, LINE = 200, 12, 18  # pixels


# ----------------------------------------------------------------------------------------------------------- table


def csv_of(page: SaliencyPage) -> bytes:
    """One line a sample, label and explainer. Texts that a spreadsheet would run are quoted with an apostrophe."""
    metrics = sorted({v.metric for s in page.samples for one in s.labels for m in one.maps for v in m.values})
    out = io.StringIO()
    lines = csv.writer(out)  # lines end with CR LF: of "\n" alone a "\r" in a name would not be quoted
    own = ["sample", "name", "position", "label", "class", "flag", "answer", page.quantity]
    own += ["mean", "std", "low", "high", "outside"]
    own += ["box", "x0", "y0", "x1", "y1", "overlap"] if page.detects else []
    lines.writerow(map(guarded, [*own, "explainer", "map_low", "map_high", "note", *metrics]))
    for sample in page.samples:
        for one in sample.labels:
            about_label = [one.index, one.name, one.flag, one.answer, one.probability]
            about_label += [one.mean, one.std, one.low, one.high, None if one.low is None else one.outside]
            about_label += [one.number, *(one.detected or [None] * 4), one.overlap] if page.detects else []
            sample_of = [sample.sample, sample.name, sample.position]
            cells = [_of(found, metrics) for found in one.maps] or [[None] * (4 + len(metrics))]
            lines.writerows(map(guarded, [*sample_of, *about_label, *cell]) for cell in cells)
    return out.getvalue().encode()


def _of(found: MapCard, metrics: list[str]) -> list[Any]:
    values = {value.metric: value.value for value in found.values}
    return [found.explainer, found.low, found.high, found.nothing, *(values.get(metric) for metric in metrics)]


# --------------------------------------------------------------------------------------------------------- picture


def png_of(opened: Opened, page: SaliencyPage, query: SaliencyQuery) -> bytes:
    """Returns the samples one below the other: the picture, then a map of each explainer, with names and values."""
    rows: list[tuple[SampleCard, LabelCard | None]] = []
    for sample in page.samples:
        rows += [(sample, label) for label in sample.labels if label.active] or [(sample, None)]
    height = 2 * GAP + LINE + max(1, len(rows)) * (CELL + 2 * LINE + GAP)
    width = 2 * GAP + (1 + len(page.shown)) * (CELL + GAP)
    canvas = Image.new("RGB", (width, height), drawing.PAPER)
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(12)
    for column, name in enumerate(["picture", *page.shown]):
        draw.text((GAP + column * (CELL + GAP), GAP), _fit(clean(name)), fill=drawing.INK, font=font)
    for line, (one, label) in enumerate(rows):
        top = 2 * GAP + LINE + line * (CELL + 2 * LINE + GAP)
        for column, (image, text) in enumerate(_cells(opened, query, one, label)):
            left = GAP + column * (CELL + GAP)
            image.thumbnail((CELL, CELL))
            canvas.paste(image, (left, top))
            for at, part in enumerate(text):
                draw.text((left, top + CELL + 2 + at * LINE), _fit(part), fill=drawing.INK, font=font)
    out = io.BytesIO()
    canvas.save(out, format="PNG")
    return out.getvalue()


def _fit(text: str) -> str:
    return text if len(text) <= 32 else text[:31] + "…"


def _cells(
    opened: Opened, query: SaliencyQuery, sample: SampleCard, label: LabelCard | None
) -> list[tuple[Image.Image, list[str]]]:
    found = pictures.thumbnail(opened.run, sample.sample)
    if found is None:
        return [(Image.new("RGB", (CELL, CELL), drawing.UNSEEN), [clean(sample.name), "no picture"])]
    with decoding.opened(io.BytesIO(found.data), formats=("PNG", "JPEG")) as small:
        picture = small.convert("RGB")
    if label is None:
        return [(picture, [clean(sample.name), "no label"])]
    told = f"{label.flag or ''} {clean(label.name)}".strip()
    told += f" ({label.number})" if label.number else ""
    cells = [(_outlined(picture, sample, label, query), [clean(sample.name), f"{label.probability:.3f} {told}"])]
    for one in label.maps:
        values = opened.run.map(sample.sample, label.label, one.explainer)
        if values is None:
            cells.append((Image.new("RGB", picture.size, drawing.UNSEEN), ["no map", one.missing]))
        else:
            assert one.scale is not None
            drawn = _outlined(_drawn(picture, values, one.scale, sample, query), sample, label, query)
            first, last = one.scale.words
            ends = f"{first} {number(one.scale.low)} to {number(one.scale.high)} {last}"
            told = "faint: it shows nothing" if one.nothing else ", ".join(number(v.value) for v in one.values)
            cells.append((drawn, [ends, told]))
    return cells


def _outlined(picture: Image.Image, sample: SampleCard, label: LabelCard, query: SaliencyQuery) -> Image.Image:
    """A small copy with the boxes that the page draws: the label's own strong, others thin, true ones dashed."""
    small = picture.copy()
    small.thumbnail((CELL, CELL))
    height, width = sample.size or (small.height, small.width)
    across, down = small.width / width, small.height / height

    def at(box: Any) -> tuple[float, float, float, float]:
        x0, x1 = sorted(min(max(x, -1.0), small.width + 1.0) for x in (box[0] * across, box[2] * across - 1))
        y0, y1 = sorted(min(max(y, -1.0), small.height + 1.0) for y in (box[1] * down, box[3] * down - 1))
        return x0, y0, x1, y1

    draw = ImageDraw.Draw(small)
    for one in sample.labels:
        if one.detected and one.label != label.label:
            draw.rectangle(at(one.detected), outline=drawing.PAPER)
    if label.detected:
        small = drawing.outlined(small, at(label.detected))
    for box in sample.boxes if query.boxes else ():
        if box[0] == label.index:
            _dashed(ImageDraw.Draw(small), at(box[1:]))
    return small


def _dashed(draw: ImageDraw.ImageDraw, box: tuple[float, float, float, float]) -> None:
    """Black and white by turns, so that it is seen on any colour."""
    x0, y0, x1, y1 = (round(value) for value in box)
    edge = [(x, y) for y in (y0, y1) for x in range(x0, x1 + 1)]
    edge += [(x, y) for x in (x0, x1) for y in range(y0, y1 + 1)]
    for x, y in edge:
        draw.point((x, y), fill=drawing.PAPER if (x + y) // 4 % 2 else drawing.INK)


def _drawn(
    picture: Image.Image, values: NDArray[np.float32], scale: Scale, sample: SampleCard, query: SaliencyQuery
) -> Image.Image:
    """Draws a map as the browser does: grey picture, colours over it, what the network did not see dark."""
    size = sample.size or (picture.height, picture.width)
    whole = View(original=size, box=sample.box) if sample.box else View.identity(*size)
    levels = pictures.levels(values, scale).astype(np.float32) / 255
    laid = whole.scaled(picture.height, picture.width).to_original(levels).clip(0, 1)
    colours = COLOUR_MAPS[SIGNED if scale.signed else query.colours][0]
    threshold = query.threshold / 100
    if query.overlay:
        return drawing.overlay(
            picture, laid, opacity=query.opacity / 100, colour_map=colours, signed=scale.signed, threshold=threshold
        )
    strength = np.abs(2 * laid - 1) if scale.signed else laid
    return drawing.colourise(np.where(strength < threshold, np.nan, laid), colours)


# ------------------------------------------------------------------------------------------------------------ page


def html_of(opened: Opened, query: SaliencyQuery, sample: str | None = None) -> bytes:
    """Returns the page, or the card of one sample, with all its pictures, styles and scripts in it."""

    def inline(url: str) -> pictures.Picture | None:
        kind, _, text = url.partition("?")
        asked = dict(parse_qsl(text))
        if kind == "map":
            looks = {name: asked.get(name) == "true" for name in ("signed", "fine", "faint")}
            return pictures.map_picture(opened.run, asked["sample"], int(asked["label"]), asked["explainer"], **looks)
        return pictures.thumbnail(opened.run, asked["sample"])

    page = saliency(opened, query) if sample is None else single(opened, query, sample)
    made = render("saliency.html", run=about(opened), query=query, page=page, tab="saliency", inline=inline)
    return made.encode()
