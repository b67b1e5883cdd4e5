"""A folder to run commands in, with a module whose function makes a small network."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

FACTORY = """
import torch
from torch import nn

def {function}():
    torch.manual_seed(0)
    stem = nn.Conv2d(3, 4, 3, stride=2, padding=1)
    return nn.Sequential(stem, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
"""


def flags(model: str) -> list[str]:
    """What says which model is meant, and how an image becomes its input of 32 x 32."""
    return ["--model", model, "--size", "32", "32", "--mean", *["0.5"] * 3, "--std", *["0.5"] * 3]


@contextmanager
def at(folder: Path, monkeypatch: pytest.MonkeyPatch, model: str, classes: str) -> Iterator[Path]:
    """Works in ``folder``, in which ``model`` ("module:function") can be imported and names.txt holds the classes."""
    module, function = model.split(":")
    (folder / f"{module}.py").write_text(FACTORY.format(function=function))
    (folder / "names.txt").write_text(classes)
    monkeypatch.chdir(folder)
    yield folder
    sys.modules.pop(module, None)
    while str(folder) in sys.path:
        sys.path.remove(str(folder))


def noise(place: Path, seed: int | np.random.Generator = 0) -> None:
    """Writes an image of 40 x 60 random pixels."""
    pixels = np.random.default_rng(seed).integers(0, 255, (40, 60, 3), np.uint8)
    Image.fromarray(pixels).save(place)
