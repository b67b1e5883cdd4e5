"""Runs over a detector whose boxes, maps and scores are known, for the tests of runs and pages."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

import seewhy
from seewhy.runs.runner import Runner, Summary
from seewhy.runs.work.job import Job
from seewhy.types import Grid, Outputs
from support.networks import detector

SIZE = (32, 48)
QUARTERS = ((0, 0, 24, 16), (24, 0, 48, 16), (0, 16, 24, 32), (24, 16, 48, 32))
HALF_TRUE = (24, 0, 33, 16)  # overlaps its quarter by 0.375
NAMES = ("red", "green")
OCCLUSION = "occlusion(window=8, stride=8, baseline=0.0)"


class Quarters(nn.Module):
    """`networks.detector` as a module: a candidate for each quarter, class 0 where red and class 1 where green."""

    labels = NAMES

    def __init__(self) -> None:
        super().__init__()
        self.same = nn.Conv2d(3, 3, 1, bias=False)
        with torch.no_grad():
            self.same.weight.copy_(torch.eye(3).view(3, 3, 1, 1))

    def forward(self, x: Tensor) -> Outputs:
        found = detector(self.same(x))
        return replace(found, grids=(Grid(2, 2),))


def model(labels: Any = NAMES) -> Any:
    """The detector for pictures of 96 x 64: two of their pixels are one of the input."""
    plain = seewhy.Preprocessing(size=SIZE, mean=(0, 0, 0), std=(1, 1, 1), fit="squash")
    return seewhy.load(Quarters(), preprocessing=plain, labels=list(labels))


def scene(**quarters: tuple[int, float]) -> Image.Image:
    """A picture of 96 x 64; ``q0=(0, 0.9)`` makes the first quarter red with 0.9."""
    pixels = np.zeros((64, 96, 3), dtype=np.uint8)
    for name, (channel, value) in quarters.items():
        x0, y0, x1, y1 = (2 * side for side in QUARTERS[int(name[1])])
        pixels[y0:y1, x0:x1, channel] = round(255 * value)
    return Image.fromarray(pixels)


def tensor(**quarters: tuple[int, float]) -> Tensor:
    """The same as an input of the network, (3, 32, 48)."""
    made = torch.zeros(3, *SIZE)
    for name, (channel, value) in quarters.items():
        x0, y0, x1, y1 = QUARTERS[int(name[1])]
        made[channel, y0:y1, x0:x1] = value
    return made


def data() -> list[dict[str, Any]]:
    """Two boxes of one class and one half true; nothing to be found; no truth; not to be read."""
    two = scene(q0=(0, 0.8), q3=(0, 0.6), q1=(1, 0.7))
    true = [[2 * side for side in box] for box in (QUARTERS[0], HALF_TRUE)]
    return [
        {"image": two, "labels": [0, 1], "boxes": true},
        {"image": scene(q2=(0, 0.2)), "labels": [], "boxes": []},
        {"image": scene(q2=(1, 0.9))},
        {"image": "/nowhere/at/all.png"},
    ]


def job(place: Path, **changes: Any) -> Job:
    known: dict[str, Any] = {
        "place": place, "model": model(), "data": data(), "data_options": {"box_format": "xyxy"},
        "precision": "float32", "explainers": [OCCLUSION],
        "metrics": ["pointing_game(tolerance=0)", "insertion_auc(steps=8, baseline=0.0)"],
    }  # fmt: skip
    return Job(**known | changes)


def run(place: Path, **changes: Any) -> Summary:
    own = {name: changes.pop(name) for name in ("shard", "retry", "engine") if name in changes}
    return Runner(job=job(place, **changes), progress=False, **own).run()
