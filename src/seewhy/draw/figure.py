"""Images on the screen, in a notebook or a window: the only place that needs matplotlib."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from seewhy.draw import overlay, slices
from seewhy.draw.scale import scale_of
from seewhy.errors import MissingDependency
from seewhy.images.preprocessing import stretched, stretched_slices
from seewhy.maps import PICTURE, size_of, upsample
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

    Of volumes and clips (N, C, D, H, W) a sheet of slices.

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
            pictures.append(_drawn(image, scale.places(one), scale.signed))
            titles.append(f"image {i}, target {t}" + (" (shows nothing)" if (i, t) in faint else ""))
    show(pictures, titles)


def _drawn(image: Tensor, values: NDArray[Any], signed: bool) -> Image.Image:
    """A map over an input (C, H, W), or over slices of (C, D, H, W); the values lie in [0, 1]."""
    if image.ndim == PICTURE - 1:
        return overlay.overlay(stretched(image), values, signed=signed)
    whole = upsample(torch.from_numpy(values)[None, None].float(), size_of(image.unsqueeze(0)))[0, 0].numpy()
    strength = 2 * whole - 1 if signed else whole
    shown, numbers = stretched_slices(image), slices.which(strength)
    drawn = [overlay.overlay(shown[d], whole[d], signed=signed) for d in numbers]
    return slices.contact(drawn, numbers, slices.peak(strength))
