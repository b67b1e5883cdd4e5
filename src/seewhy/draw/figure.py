"""Pictures on the screen, in a notebook or a window: the only place that needs matplotlib."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from seewhy.draw import overlay
from seewhy.errors import MissingDependency
from seewhy.images.images import stretched

__all__ = ["figure", "show", "show_maps"]


def figure(pictures: list[Image.Image], titles: list[str]) -> Any:
    """A matplotlib figure with the pictures side by side.

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
    """Draws the pictures in the notebook or a window."""
    figure(pictures, titles)
    importlib.import_module("matplotlib.pyplot").show()


def show_maps(inputs: Tensor, saliency: Tensor) -> None:
    """Draws (N, T, H, W) maps over (N, C, H, W) inputs, whose values are stretched to the visible range."""
    pictures, titles = [], []
    for i, image in enumerate(inputs.detach().float().cpu()):
        for t, one in enumerate(saliency[i].cpu()):
            pictures.append(overlay.overlay(stretched(image), one.numpy()))
            titles.append(f"image {i}, target {t}")
    show(pictures, titles)
