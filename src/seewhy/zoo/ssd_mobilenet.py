"""SSD-MobileNetV2: a detector of 23 classes of Open Images, run by OpenVINO from a TensorFlow Lite file.

The file gives raw encodings of 1917 boxes and logits of 24 classes, the first of which means "nothing here". Anchors
are those of TensorFlow's object detection models (Liu et al. 2016, arXiv 1512.02325): six grids of 19 to 1 positions a
side; grid i has the scale s_i = 0.2 + 0.15 i, the aspect ratios 1, 2, 1/2, 3, 1/3 and a square of sqrt(s_i s_(i+1)),
with s_6 = 1. The first grid has three anchors alone: a square of 0.1, and s_0 with the ratios 2 and 1/2.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from seewhy.images.preprocessing import Preprocessing
from seewhy.models.exported.openvino import OpenVINOModel
from seewhy.models.heads import SSD, Grid
from seewhy.zoo.fetching import need

__all__ = ["LABELS", "SIZE", "anchors", "ssd_mobilenet"]

SIZE = (300, 300)
LABELS = (
    "background", "Bicycle", "Boot", "Laptop", "Person", "Chair", "Cattle", "Desk", "Cat", "Computer mouse",
    "Computer monitor", "Box", "Mug", "Coffee cup", "Stationary bicycle", "Table", "Bottle", "High heels", "Vehicle",
    "Footwear", "Dog", "Book", "Camera", "Car",
)  # fmt: skip
PREPROCESSING = Preprocessing(size=SIZE, mean=(0.5,) * 3, std=(0.5,) * 3, fit="squash")
_SIDES = (19, 10, 5, 3, 2, 1)  # positions a side of each grid


def ssd_mobilenet(folder: str | Path | None = None) -> OpenVINOModel:
    """SSD-MobileNetV2 as a model that gives scores, boxes and features.

    Args:
        folder: where the file was fetched to; None for `seewhy.zoo.folder`.

    Raises:
        CheckpointError: the file is not there; the message says how to fetch it.
        MissingDependency: OpenVINO is not installed.
    """
    (file,) = need("ssd_mobilenet", folder)
    head = SSD(
        anchors=anchors(),
        size=SIZE,
        boxes="raw_outputs/box_encodings",
        scores="raw_outputs/class_predictions",
        grids=tuple(Grid(side, side, len(shapes)) for side, shapes in zip(_SIDES, _shapes(), strict=True)),
    )
    return OpenVINOModel(file, output=head, preprocessing=PREPROCESSING, labels=LABELS, title="SSD-MobileNetV2")


def anchors() -> Tensor:
    """(1917, 4): centre x, centre y, width, height as shares of the input."""
    rows = [
        ((x + 0.5) / side, (y + 0.5) / side, width, height)
        for side, shapes in zip(_SIDES, _shapes(), strict=True)
        for y in range(side)
        for x in range(side)
        for width, height in shapes
    ]
    return torch.tensor(rows)


def _shapes() -> list[list[tuple[float, float]]]:
    """Width and height of each grid's anchors."""
    scales = [0.2 + 0.15 * i for i in range(len(_SIDES))] + [1.0]
    first = [(0.1, 0.1), _of(scales[0], 2), _of(scales[0], 1 / 2)]
    others = [
        [*(_of(s, ratio) for ratio in (1, 2, 1 / 2, 3, 1 / 3)), _of((s * following) ** 0.5, 1)]
        for s, following in pairwise(scales[1:])
    ]
    return [first, *others]


def _of(scale: float, ratio: float) -> tuple[float, float]:
    return scale * ratio**0.5, scale / ratio**0.5
