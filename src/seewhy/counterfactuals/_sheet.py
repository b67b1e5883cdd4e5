"""Draws the layers of a counterfactual: in colour what the network saw, dark and grey what was hidden from it.

Pure: a tree in, PIL images out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from seewhy.baseline import blur
from seewhy.counterfactuals._windows import Box
from seewhy.draw import sheet
from seewhy.draw.overlay import INK, PAPER, to_rgb
from seewhy.errors import InvalidInput

__all__ = ["Panel", "draw", "footer", "panel", "panels", "title"]

DARK, BLACK = 0.42, 24  # a hidden pixel's grey: that share of its own, and no darker than this
LINE = (0, 229, 255)  # hardly a photograph has it


class Panel(NamedTuple):
    """One image of a sheet.

    Attributes:
        seen: (H, W) bool, what is in colour.
        boxes: windows with a line around them, in input pixels.
        caption: the lines beneath.
    """

    seen: NDArray[np.bool_]
    boxes: Sequence[Box]
    caption: Sequence[str]


class Tree(Protocol):
    """What is drawn: an `EditTree`."""

    @property
    def picture(self) -> Tensor: ...
    @property
    def target(self) -> str: ...
    @property
    def mode(self) -> str: ...
    @property
    def threshold(self) -> float: ...
    @property
    def probability(self) -> float: ...
    @property
    def found(self) -> bool: ...
    @property
    def reason(self) -> str | None: ...
    @property
    def root(self) -> Any: ...
    @property
    def layers(self) -> int: ...
    @property
    def cut_off(self) -> Sequence[float]: ...
    def layer_nodes(self, k: int) -> Sequence[Any]: ...
    def layer_mask(self, k: int) -> Tensor: ...
    def layer_probability(self, k: int) -> float: ...


def draw(tree: Tree, picture: Image.Image, *, label: str | None, cell: int) -> Image.Image:
    """Returns a sheet with all layers in one row.

    Args:
        tree: what was found.
        picture: RGB or grey, of any size; it shows what the network's input covers.
        label: the target's name for the reader.
        cell: longer side of one image in pixels.

    Raises:
        InvalidInput: cells too small to show anything.
        InvalidType: an image of another mode.
    """
    if cell < 32:
        raise InvalidInput(f"Expected cells of at least 32 pixels, got {cell}.")
    scale = cell / max(picture.size)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    shown = to_rgb(picture).resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BILINEAR)
    drawn = [_captioned(panel(shown, one), one.caption, cell) for one in panels(tree)]
    return sheet.grid([drawn], cell=max(max(one.size) for one in drawn), title=title(tree, label), footer=footer(tree))


def panels(tree: Tree) -> list[Panel]:
    """Returns the untouched image, the image that the search started from where that is another one, and the layers."""
    whole = np.ones(tree.picture.shape[1:], dtype=bool)
    found = [Panel(whole, (), ("untouched", f"probability {tree.probability:.3f}"))]
    if tree.root is not None and tree.mode == "show":
        found.append(Panel(~whole, (), ("start: all hidden", f"probability {tree.root.probability:.3f}")))
    return found + [_layer(tree, layer) for layer in range(tree.layers)]


def _layer(tree: Tree, layer: int) -> Panel:
    boxes = [node.box for node in tree.layer_nodes(layer)]
    inside = tree.layer_mask(layer).cpu().numpy()
    many = f"{len(boxes)} window{'s' if len(boxes) > 1 else ''}"
    caption = (f"layer {layer}: {many}", f"probability {tree.layer_probability(layer):.3f}")
    return Panel(inside if tree.mode == "show" else ~inside, boxes, caption)


def title(tree: Tree, label: str | None) -> str:
    """What the sheet shows."""
    name = tree.target.capitalize() if label is None else label
    found = "that suffice for" if tree.mode == "show" else "without which it falls under"
    return f"{name}: windows {found} {tree.threshold:g}" if tree.found else f"{name}: no windows found"


def footer(tree: Tree) -> str:
    """How to read it, or why there is nothing to read."""
    if tree.reason is not None:
        return tree.reason
    cut = ", ".join(f"{p:.3f}" for p in tree.cut_off)
    said = "In colour: what the network saw. Dark and grey: what was hidden from it."
    return said + (f" Deeper layers were cut off, their windows alone come to {cut}." if cut else "")


def panel(picture: Image.Image, one: Panel) -> Image.Image:
    """Returns the image, what is not seen blurred, dark and grey, with the windows outlined."""
    seen = Image.fromarray(one.seen).resize(picture.size, Image.Resampling.NEAREST)
    drawn = Image.composite(picture, _hidden(picture), seen)
    draw = ImageDraw.Draw(drawn)
    across, down = (new / old for new, old in zip(picture.size, reversed(one.seen.shape), strict=True))
    for x, y, w, h in one.boxes:
        corner = round((x + w) * across) - 1, round((y + h) * down) - 1
        draw.rectangle((round(x * across), round(y * down), *corner), outline=LINE, width=max(1, drawn.height // 200))
    return drawn


def _hidden(picture: Image.Image) -> Image.Image:
    grey = torch.from_numpy(np.asarray(picture.convert("L"), dtype=np.float32))
    dark = (BLACK + DARK * blur(grey[None, None])[0, 0]).round().to(torch.uint8)
    return Image.fromarray(dark.numpy()).convert("RGB")


def _captioned(picture: Image.Image, caption: Sequence[str], cell: int) -> Image.Image:
    """Returns the image in its cell, with the lines beneath."""
    letter = max(10, cell / 16)
    font, pitch = ImageFont.load_default(letter), round(1.3 * letter)
    width = max(cell, *(math.ceil(font.getlength(line)) for line in caption))
    drawn = Image.new("RGB", (width, picture.height + pitch // 3 + pitch * len(caption)), PAPER)
    drawn.paste(picture, ((width - picture.width) // 2, 0))
    for number, line in enumerate(caption):
        middle = picture.height + pitch // 3 + (number + 0.5) * pitch
        ImageDraw.Draw(drawn).text((width / 2, middle), line, fill=INK, font=font, anchor="mm")
    return drawn
