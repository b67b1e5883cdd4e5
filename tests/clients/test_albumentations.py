"""Transforms of albumentations as preprocessing (version 2.0.8, MIT; its successor has another licence)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import seewhy
from seewhy.errors import InvalidInput, InvalidType
from seewhy.images.transform import as_preprocessing
from support.networks import Parts, build

alb = pytest.importorskip("albumentations")
to_tensor = pytest.importorskip("albumentations.pytorch").ToTensorV2

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (75, 100, 3)).astype("uint8"))


def steps(name: str) -> list[Any]:
    ways: dict[str, list[Any]] = {
        "squashed": [alb.Resize(64, 64)],
        "cropped": [alb.SmallestMaxSize(72), alb.CenterCrop(64, 64)],
        "padded": [alb.LongestMaxSize(64), alb.PadIfNeeded(64, 64, border_mode=0)],
    }
    return ways[name]


@pytest.mark.parametrize(
    ("name", "box"),
    [("squashed", (0, 0, 100, 75)), ("cropped", (16.7, 4.2, 83.3, 70.8)), ("padded", (0, -12.5, 100, 87.5))],
)
@pytest.mark.parametrize("tensor", [True, False], ids=["ToTensorV2", "an array"])
def test_the_tensor_is_its_own_and_the_way_back_is_found(name: str, box: tuple[float, ...], tensor: bool) -> None:
    transform = alb.Compose([*steps(name), alb.Normalize(), *([to_tensor()] if tensor else [])])
    made, view = as_preprocessing(transform)(PICTURE)
    own = transform(image=np.asarray(PICTURE))["image"]
    assert torch.equal(made[0], own if tensor else torch.from_numpy(own.transpose(2, 0, 1).copy()))
    assert view.box == pytest.approx(box, abs=0.7)


def test_the_constants_are_learned() -> None:
    known = as_preprocessing(alb.Compose([alb.Resize(64, 64), alb.Normalize(), to_tensor()]))
    assert known.mean == pytest.approx((0.485, 0.456, 0.406), abs=1e-3)
    assert known.std == pytest.approx((0.229, 0.224, 0.225), abs=1e-3)


def test_a_picture_is_explained_through_it() -> None:
    transform = alb.Compose([*steps("cropped"), alb.Normalize(), to_tensor()])
    found = seewhy.explain(seewhy.load(build(Pooled), preprocessing=transform), PICTURE, 2)
    assert found.overlay().size == PICTURE.size


class Pooled(Parts):
    """Scores of a mean over positions."""

    def forward(self, x: torch.Tensor) -> Any:
        return self.scores(x)


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (lambda: alb.RandomCrop(48, 48), "is random"),
        (lambda: alb.HorizontalFlip(p=1.0), "mirrors"),
        (lambda: alb.Transpose(p=1.0), "turns"),
    ],
    ids=["random", "mirrored", "turned"],
)
def test_what_cannot_be_laid_on_the_picture_is_refused(step: Any, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        as_preprocessing(alb.Compose([step(), alb.Resize(64, 64), alb.Normalize(), to_tensor()]))(PICTURE)


def test_pixels_of_8_bits_are_no_input() -> None:
    with pytest.raises(InvalidType, match="must make floating-point inputs, got uint8"):
        as_preprocessing(alb.Compose([alb.Resize(64, 64), to_tensor()]))
