"""The trained transformer on textured shapes: does a map lie on the object, and does it fall when the object goes?"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seewhy.datasets.shapes import Shapes
from support.shape_networks import inputs, trained

NUMBERS = range(24)
_DATA = Shapes(seed=77)


@cache
def scenes() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(N, 3, 64, 64) pictures, the same without one object each, its class (N,), its mask (N, 64, 64)."""
    pictures, labels, masks = [], [], []
    without = []
    for number in NUMBERS:
        picture = _DATA[number]
        if not picture.shapes:
            continue
        shape = picture.shapes[0]
        gone = np.where(shape.mask[..., None], _DATA.background(number), picture.pixels)
        pictures.append(picture.pixels)
        without.append(gone)
        labels.append(shape.label)
        masks.append(shape.mask)
    return (
        inputs(np.stack(pictures)),
        inputs(np.stack(without).astype(np.uint8)),
        torch.tensor(labels),
        torch.from_numpy(np.stack(masks)),
    )


def evidence(method: Any, **parameters: Any) -> tuple[float, float]:
    """(share of pictures whose map is higher on the object than elsewhere, ... whose map falls there without it)."""
    pictures, without, labels, masks = scenes()
    explainer = method(trained("vit"), **parameters)
    before, after = explainer.attribute(pictures, labels)[:, 0], explainer.attribute(without, labels)[:, 0]
    on = torch.stack([m[k].mean() - m[~k].mean() for m, k in zip(before, masks, strict=True)])
    fall = torch.stack([a[k].mean() - b[k].mean() for a, b, k in zip(before, after, masks, strict=True)])
    return float((on > 0).float().mean()), float((fall > 0).float().mean())
