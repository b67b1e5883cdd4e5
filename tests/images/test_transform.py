"""Other people's transforms: their own tensors, and the way back to the picture that is learned from them."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision import transforms as v1
from torchvision.models import ResNet18_Weights
from torchvision.transforms import v2

from seewhy import load
from seewhy.errors import InvalidInput, InvalidType
from seewhy.images.preprocessing import Preprocessing
from seewhy.images.transform import as_preprocessing
from seewhy.runs.folder.identity import identity

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FLOAT = [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
TIMM = pytest.importorskip("timm.data").create_transform(224, is_training=False, crop_pct=0.9, mean=MEAN, std=STD)


def picture(height: int, width: int) -> Image.Image:
    pixels = np.random.default_rng(3).integers(0, 256, (height, width, 3))
    return Image.fromarray(pixels.astype(np.uint8))


def caffe(image: Image.Image) -> Tensor:
    """BGR, 0..255, mean taken away."""
    pixels = np.asarray(image.resize((100, 90)), dtype=np.float32)[:, :, ::-1].copy()
    return torch.from_numpy(pixels).permute(2, 0, 1) - torch.tensor([104.0, 117.0, 123.0]).view(3, 1, 1)


def as_array(image: Image.Image) -> Any:
    """(H, W, C), as albumentations' users return it."""
    return np.asarray(image.resize((40, 30)), dtype=np.float32) / 255


CROP = Preprocessing(size=(224, 224), mean=MEAN, std=STD, crop_fraction=0.875)
BOXED = Preprocessing(size=(64, 64), mean=MEAN, std=STD, fit="letterbox")
# name -> the transform, and for a picture (height, width) the box of the original that its input covers
CASES: dict[str, tuple[Any, Callable[[int, int], tuple[float, ...]]]] = {
    "v1": (v1.Compose([v1.Resize(256), v1.CenterCrop(224), v1.ToTensor(), v1.Normalize(MEAN, STD)]),
           lambda h, w: CROP(picture(h, w))[1].box),
    "v2": (v2.Compose([v2.Resize(256), v2.CenterCrop(224), *FLOAT]), lambda h, w: CROP(picture(h, w))[1].box),
    "preset": (ResNet18_Weights.DEFAULT.transforms(), lambda h, w: CROP(picture(h, w))[1].box),
    "squash": (v2.Compose([v2.Resize((50, 70)), *FLOAT]), lambda h, w: (0, 0, w, h)),
    "timm": (TIMM, lambda h, w: Preprocessing(size=(224, 224), mean=MEAN, std=STD, crop_fraction=0.9)(
        picture(h, w))[1].box),
    "whole": (v1.ToTensor(), lambda h, w: (0, 0, w, h)),
    "corner": (v1.Compose([v1.Lambda(lambda im: im.crop((3, 5, 33, 30))), v1.ToTensor()]), lambda h, w: (3, 5, 33, 30)),
    "padded": (v1.Compose([v1.Lambda(lambda im: v1.Pad((0, (im.width - im.height) // 2))(im)), v1.Resize((90, 90)),
                           v1.ToTensor()]), lambda h, w: (0, -((w - h) // 2), w, h + (w - h) // 2)),
    "grey": (v1.Compose([v1.Grayscale(), v1.Resize((64, 48)), v1.ToTensor()]), lambda h, w: (0, 0, w, h)),
    "caffe": (caffe, lambda h, w: (0, 0, w, h)),
    "array": (as_array, lambda h, w: (0, 0, w, h)),
    "ours": (lambda im: BOXED(im)[0], lambda h, w: BOXED(picture(h, w))[1].box),
}  # fmt: skip


@pytest.mark.parametrize("size", [(75, 100), (375, 500), (40, 41), (1200, 3000)], ids=str)
@pytest.mark.parametrize("name", CASES)
def test_the_place_of_the_input_is_found_to_a_quarter_of_a_percent(name: str, size: tuple[int, int]) -> None:
    transform, place = CASES[name]
    _, view = as_preprocessing(transform)(picture(*size))
    assert view.original == size
    assert view.box == pytest.approx(place(*size), abs=max(0.15, 0.0025 * max(size)))


def test_the_input_is_the_transforms_own() -> None:
    image, transform = picture(75, 100), CASES["v2"][0]
    assert torch.equal(as_preprocessing(transform)(image)[0][0], transform(image))


@pytest.mark.parametrize(
    ("name", "mean", "std", "channels"),
    [("v1", MEAN, STD, "RGB"), ("grey", (0.0,), (1.0,), "L"), ("whole", (0.0,) * 3, (1.0,) * 3, "RGB"),
     ("caffe", (104 / 255, 117 / 255, 123 / 255), (1 / 255,) * 3, "BGR")],
)  # fmt: skip
def test_constants_and_order_of_channels_are_learned(name: str, mean: Any, std: Any, channels: str) -> None:
    found = as_preprocessing(CASES[name][0])
    assert found.mean == pytest.approx(mean, abs=1e-5)
    assert found.std == pytest.approx(std, rel=1e-4)
    assert found.channels == channels


def test_an_input_is_shown_as_the_picture_was() -> None:
    image = picture(64, 48)
    for name in ("whole", "caffe"):
        made = as_preprocessing(CASES[name][0])
        shown = np.asarray(made.denormalise(made(image)[0][0]), dtype=int)
        small = np.asarray(image if name == "whole" else image.resize((100, 90)), dtype=int)
        assert np.abs(shown - small).max() <= 1


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (v1.Compose([v1.RandomResizedCrop(64), v1.ToTensor()]), "Compose is random: it makes two inputs of one "),
        (v1.Compose([v1.RandomHorizontalFlip(1.0), v1.ToTensor()]), "Compose turns, mirrors or bends pictures, so "),
        (v1.Compose([v1.RandomVerticalFlip(1.0), v1.ToTensor()]), "Compose turns, mirrors or bends pictures, so "),
        (v1.Compose([v1.Lambda(lambda im: im.rotate(8)), v1.ToTensor()]), "Compose turns, mirrors or bends pictures,"),
        (v1.Compose([v1.Lambda(lambda im: im.transpose(2)), v1.ToTensor()]), "Compose turns, mirrors or bends "),
        (v1.Compose([v1.ToTensor(), v1.Lambda(lambda t: t.square())]), "Compose does not change greys in proportion "),
        (v1.Compose([v1.ToTensor(), v1.Lambda(lambda t: -t)]), "Compose makes an input with 3 channels in which white"),
        (v1.Lambda(lambda im: 1 / 0), "The transform Lambda raised ZeroDivisionError: division by zero. "),
    ],
)  # fmt: skip
def test_what_cannot_be_laid_on_the_picture_is_refused(transform: Any, message: str) -> None:
    with pytest.raises(InvalidInput) as error:
        as_preprocessing(transform)(picture(75, 100))
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("resize", "preprocessing: expected a seewhy.Preprocessing, a transform of torchvision, timm or "),
        (v1.ToTensor, "preprocessing: expected a transform, got the class ToTensor. Make one of it."),
        (v1.Resize(8), "Resize must make a tensor (C, H, W) of a PIL image, got a Image. Add ToTensor() (or "),
        (v1.Compose([v1.Resize(8), v1.PILToTensor()]), "Compose must make floating-point inputs, got uint8. Add "),
        (lambda im: None, "<lambda> must make a tensor (C, H, W) of a PIL image, got a NoneType."),
    ],
)
def test_wrong_objects_are_named(given: Any, message: str) -> None:
    with pytest.raises(InvalidType) as error:
        load(lambda x: x.mean((2, 3)), preprocessing=given)
    assert str(error.value).startswith(message)


def test_two_transforms_have_two_identities_and_a_copy_has_one() -> None:
    first, again = (as_preprocessing(v2.Compose([v2.Resize((8, 8)), *FLOAT])) for _ in range(2))
    other = as_preprocessing(v2.Compose([v2.Resize((8, 8), v2.InterpolationMode.NEAREST), *FLOAT]))
    assert identity(first) == identity(again) == identity(pickle.loads(pickle.dumps(first)))
    assert identity(first) != identity(other)


def test_load_takes_it_and_says_what_cannot_be_changed() -> None:
    transform = CASES["squash"][0]
    model: Any = load(lambda x: x.mean((2, 3)), processor=transform)
    assert str(model.preprocessing).startswith("50x70 RGB, by Compose; values 0..1, mean 0.485 0.456 0.406, deviation")
    with pytest.raises(InvalidInput, match="somebody else's \\(Compose\\), so size cannot be changed"):
        load(lambda x: x.mean((2, 3)), preprocessing=transform, changes={"size": (8, 8)})
    with pytest.raises(InvalidInput, match="two names of one thing"):
        load(lambda x: x.mean((2, 3)), preprocessing=transform, processor=transform)
