"""Images on the screen, in a notebook or a window: the only place that needs matplotlib."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from seewhy.draw import overlay
from seewhy.draw.scale import scale_of
from seewhy.errors import MissingDependency
from seewhy.images.preprocessing import stretched
from seewhy.plain import Meaning
from seewhy.types import Note

__all__ = ["figure", "show", "show_maps"]


def figure(pictures: list[Image.Image], titles: list[str]) -> Any:
    """Returns a matplotlib figure with the images side by side.

    Raises:
        MissingDependency: matplotlib is not installed.
    """
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise MissingDependency("Drawing needs matplotlib. Install it: pip install 'seewhy[plot]'.") from error
    size = (4 * len(pictures), 4.4)
    made, axes = pyplot.subplots(1, len(pictures), figsize=size, squeeze=False, layout="constrained")
    for axis, picture, title in zip(axes[0], pictures, titles, strict=True):
        axis.imshow(np.asarray(picture))
        axis.set_title(title, fontsize=10)
        axis.set_axis_off()
    return made


def show(pictures: list[Image.Image], titles: list[str]) -> None:
    """Draws the images in the notebook or a window."""
    figure(pictures, titles)
    importlib.import_module("matplotlib.pyplot").show()


def show_maps(inputs: Tensor, raw: Tensor, values: Meaning, nothing: Sequence[Note] = ()) -> None:
    """Draws raw maps (N, T, h, w) over (N, C, H, W) inputs, whose values are stretched to the visible range.

    Args:
        inputs: what was explained.
        raw: the maps.
        values: what their values are.
        nothing: the notes about maps that show nothing.
    """
    pictures, titles, faint = [], [], {(note.image, note.target) for note in nothing}
    for i, image in enumerate(inputs.detach().float().cpu()):
        for t, one in enumerate(raw[i].float().cpu().numpy()):
            scale = scale_of(one, values, faint=(i, t) in faint)
            pictures.append(overlay.overlay(stretched(image), scale.places(one), signed=scale.signed))
            titles.append(f"image {i}, target {t}" + (" (shows nothing)" if (i, t) in faint else ""))
    show(pictures, titles)
