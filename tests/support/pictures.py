"""Real photographs and common preprocessings, shared by the tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import skimage
import sklearn
from PIL import Image

from seewhy.images.preprocessing import Preprocessing

SKIMAGE = Path(skimage.__file__).parent / "data"
SKLEARN = Path(sklearn.__file__).parent / "datasets" / "images"
PHOTOS = [SKIMAGE / n for n in ("chelsea.png", "coffee.png", "camera.png", "rocket.jpg", "astronaut.png")] + [
    SKLEARN / n for n in ("china.jpg", "flower.jpg")
]
MORE = [SKIMAGE / n for n in ("moon.png", "coins.png", "brick.png", "text.png", "retina.jpg", "microaneurysms.png")]

HALF = Preprocessing(size=(224, 224), mean=(0.5,) * 3, std=(0.5,) * 3, crop_fraction=0.875, interpolation="bicubic")
IMAGENET = Preprocessing(size=(224, 224), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
PLAIN = Preprocessing(size=(224, 224), mean=(0.0,) * 3, std=(1.0,) * 3)
CAFFE = Preprocessing(
    size=(224, 224), mean=(103.939, 116.779, 123.68), std=(1.0,) * 3, channels="BGR", value_range=255.0
)
GREY = Preprocessing(size=(64, 64), mean=(0.1307,), std=(0.3081,), channels="L")


def solid(mode: str, colour: Any, size: tuple[int, int] = (4, 3)) -> Image.Image:
    return Image.new(mode, size, colour)


def pixel(image: Image.Image, x: int = 0, y: int = 0) -> tuple[int, ...]:
    got = image.getpixel((x, y))
    assert isinstance(got, tuple)
    return got


def ramp(height: int, width: int) -> Image.Image:
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([x * 7 % 256, y * 5 % 256, (x + y) * 3 % 256], axis=2).astype(np.uint8))
