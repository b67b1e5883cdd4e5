"""Preprocessing against timm and torchvision, and the way back to the original picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from seewhy.errors import InvalidInput, InvalidType
from seewhy.images.preprocessing import Preprocessing
from seewhy.images.reading import read
from seewhy.images.view import View
from support.pictures import CAFFE, GREY, HALF, IMAGENET, PHOTOS, pixel, solid
from support.typed import unchecked


def shapes(path: Path) -> list[Image.Image]:
    image = read(path)
    return [
        image,
        image.transpose(Image.Transpose.ROTATE_90),
        image.crop((0, 0, 199, 150)),
        image.crop((3, 0, 90, 299)),
    ]


@pytest.mark.parametrize("photo", PHOTOS[:2], ids=lambda p: p.stem)
def test_crop_equals_timm(photo: Path) -> None:
    timm_data = pytest.importorskip("timm.data")
    timm = pytest.importorskip("timm")
    config = timm_data.resolve_data_config({}, model=timm.create_model("tf_efficientnet_lite0", pretrained=False))
    transform = timm_data.create_transform(**config)
    assert (config["crop_pct"], config["interpolation"], config["mean"]) == (0.875, "bicubic", (0.5, 0.5, 0.5))
    for image in shapes(photo):
        got, _ = HALF(image)
        assert got.shape == (1, 3, 224, 224)
        assert got.dtype == torch.float32
        assert float((got[0] - transform(image)).abs().max()) <= 1e-5


@pytest.mark.parametrize("size", [(224, 224), (160, 224), (225, 97)])
@pytest.mark.parametrize("fraction", [1.0, 0.95, 0.875])
def test_crop_and_squash_equal_timm_at_other_sizes(size: tuple[int, int], fraction: float) -> None:
    factory = pytest.importorskip("timm.data.transforms_factory")
    modes: tuple[tuple[Any, str], ...] = (("crop", "center"), ("squash", "squash"))
    for fit, mode in modes:
        ours = Preprocessing(size=size, mean=(0.3,) * 3, std=(0.2,) * 3, fit=fit, crop_fraction=fraction)
        theirs = factory.transforms_imagenet_eval(
            size, crop_pct=fraction, crop_mode=mode, interpolation="bilinear", mean=(0.3,) * 3, std=(0.2,) * 3
        )
        for image in shapes(PHOTOS[0]):
            torch.testing.assert_close(ours(image)[0][0], theirs(image), atol=1e-5, rtol=0)


def test_squash_equals_torchvision() -> None:
    transforms = pytest.importorskip("torchvision.transforms.v2")
    theirs = transforms.Compose(
        [
            transforms.Resize((200, 120)),
            transforms.PILToTensor(),
            transforms.ToDtype(torch.float32, scale=True),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    ours = Preprocessing(size=(200, 120), mean=IMAGENET.mean, std=IMAGENET.std, fit="squash")
    for image in shapes(PHOTOS[1]):
        torch.testing.assert_close(ours(image)[0][0], theirs(image), atol=1e-5, rtol=0)


def test_letterbox_pads_in_grey_and_centres() -> None:
    prep = Preprocessing(size=(40, 60), mean=(0.0,) * 3, std=(1.0,) * 3, fit="letterbox")
    tensor, view = prep(solid("RGB", (255, 0, 0), (100, 200)))
    assert view == View(original=(200, 100), box=(-100.0, 0.0, 200.0, 200.0))
    torch.testing.assert_close(tensor[0, :, :, :20], torch.full((3, 40, 20), 114 / 255))
    torch.testing.assert_close(tensor[0, :, :, 40:], torch.full((3, 40, 20), 114 / 255))
    torch.testing.assert_close(tensor[0, :, 5, 25], torch.tensor([1.0, 0.0, 0.0]))


def test_orders_of_channels_and_ranges() -> None:
    image = solid("RGB", (255, 51, 0))
    rgb = Preprocessing(size=(2, 2), mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 4.0))
    torch.testing.assert_close(rgb(image)[0][0, :, 0, 0], torch.tensor([0.9, 0.0, -0.075]))
    caffe = Preprocessing(size=(2, 2), mean=(10.0, 20.0, 30.0), std=(1.0, 1.0, 5.0), channels="BGR", value_range=255.0)
    torch.testing.assert_close(caffe(image)[0][0, :, 0, 0], torch.tensor([-10.0, 31.0, 45.0]))
    grey, _ = Preprocessing(size=(2, 2), mean=(0.0,), std=(1.0,), channels="L")(image)
    assert grey.shape == (1, 1, 2, 2)
    torch.testing.assert_close(grey[0, 0, 0, 0] * 255, torch.tensor(float(round(0.299 * 255 + 0.587 * 51))))


@pytest.mark.parametrize("prep", [HALF, IMAGENET, CAFFE])
def test_denormalise_is_the_way_back(prep: Preprocessing) -> None:
    image = read(PHOTOS[1]).crop((0, 0, 224, 224))
    exact = Preprocessing(
        size=(224, 224), mean=prep.mean, std=prep.std, channels=prep.channels, value_range=prep.value_range
    )
    np.testing.assert_array_equal(np.asarray(prep.denormalise(exact(image)[0][0])), np.asarray(image))


def test_denormalise_grey_clips_and_refuses() -> None:
    back = GREY.denormalise(torch.tensor([[[-9.0, 9.0]]], requires_grad=True))
    assert (back.mode, pixel(back), pixel(back, 1)) == ("RGB", (0, 0, 0), (255, 255, 255))
    with pytest.raises(InvalidInput, match=r"Expected one input of shape \(1, H, W\), got \(3, 2, 2\)"):
        GREY.denormalise(torch.zeros(3, 2, 2))
    with pytest.raises(InvalidInput, match="Expected finite values, got NaN or infinity"):
        GREY.denormalise(torch.full((1, 2, 2), float("nan")))


def test_description_is_one_line() -> None:
    line = "224x224 RGB, centre crop of 0.875, bicubic; values 0..1, mean 0.5, deviation 0.5"
    assert str(HALF) == HALF.describe() == line
    assert str(CAFFE) == ("224x224 BGR, centre crop, bilinear; values 0..255, mean 103.939 116.779 123.68, deviation 1")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("size", (224,), "Preprocessing.size: expected (height, width) in whole pixels, got (224,)."),
        ("size", (0, 3), "Preprocessing.size: expected (height, width) in whole pixels, got (0, 3)."),
        ("size", (2.5, 3), "Preprocessing.size: expected (height, width) in whole pixels, got (2.5, 3)."),
        (
            "mean",
            (0.5,),
            "Preprocessing.mean: expected 3 numbers in 0..1 (value_range), one a channel of RGB, got (0.5,).",
        ),
        (
            "mean",
            (123.7,) * 3,
            "Preprocessing.mean: expected 3 numbers in 0..1 (value_range), one a channel of RGB, "
            "got (123.7, 123.7, 123.7).",
        ),
        (
            "std",
            (1.0, 0.0, 1.0),
            "Preprocessing.std: expected 3 positive numbers, one a channel of RGB, got (1.0, 0.0, 1.0).",
        ),
        ("fit", "stretch", "Preprocessing.fit: expected one of crop, squash, letterbox, keep, got 'stretch'."),
        ("crop_fraction", 0.0, "Preprocessing.crop_fraction: expected a number above 0, at most 1, got 0.0."),
        ("crop_fraction", 87.5, "Preprocessing.crop_fraction: expected a number above 0, at most 1, got 87.5."),
        (
            "interpolation",
            "area",
            "Preprocessing.interpolation: expected one of nearest, bilinear, bicubic, lanczos, sampled, got 'area'.",
        ),
        ("channels", "rgb", "Preprocessing.channels: expected one of RGB, BGR, L, or how many, got 'rgb'."),
        ("value_range", 0.0, "Preprocessing.value_range: expected a positive number, got 0.0."),
        ("pad", 114.0, "Preprocessing.pad: expected a grey in [0, 1], got 114.0."),
    ],
)
def test_impossible_preprocessing(field: str, value: object, message: str) -> None:
    fields: dict[str, Any] = {"size": (8, 8), "mean": (0.5,) * 3, "std": (0.5,) * 3, field: value}
    with pytest.raises(InvalidInput) as caught:
        Preprocessing(**fields)
    assert str(caught.value) == message


def test_lists_are_taken_and_numbers_are_not() -> None:
    fields: dict[str, Any] = {"size": [8, 8], "mean": [0.5] * 3, "std": [0.5] * 3}
    prep = Preprocessing(**fields)
    assert prep == Preprocessing(size=(8, 8), mean=(0.5,) * 3, std=(0.5,) * 3)
    assert hash(prep)
    with pytest.raises(InvalidType, match=r"Preprocessing.size: expected a tuple of numbers, got 224\."):
        Preprocessing(size=unchecked(224), mean=(0.5,) * 3, std=(0.5,) * 3)


def test_only_rgb_pictures_of_bearable_shape() -> None:
    with pytest.raises(
        InvalidType, match=r"Expected an RGB PIL image, got mode CMYK. Pass it through seewhy.images.read"
    ):
        HALF(solid("CMYK", (0, 0, 0, 0)))
    with pytest.raises(InvalidType, match="got ndarray"):
        HALF(unchecked(np.zeros((4, 4, 3))))
    with pytest.raises(
        InvalidInput, match=r"1x9000 would be resized to 256x2304000 .* fit='squash' or fit='letterbox'"
    ):
        HALF(solid("RGB", 0, (9000, 1)))
    tensor, view = Preprocessing(size=(8, 8), mean=(0.5,) * 3, std=(0.5,) * 3, fit="letterbox")(
        solid("RGB", 0, (9000, 1))
    )
    assert tensor.shape == (1, 3, 8, 8)
    assert view.original == (1, 9000)


@pytest.mark.parametrize("fit", ["crop", "squash", "letterbox"])
@pytest.mark.parametrize("shape", [(300, 451), (451, 300), (64, 64), (50, 90)])
@pytest.mark.parametrize("fraction", [1.0, 0.875])
def test_a_spot_comes_back_to_its_place(fit: Any, shape: tuple[int, int], fraction: float) -> None:
    prep = Preprocessing(size=(96, 128), mean=(0.0,) * 3, std=(1.0,) * 3, fit=fit, crop_fraction=fraction, pad=0.0)
    height, width = shape
    for y, x in ((height // 2, width // 2), (height * 2 // 5, width * 5 // 8)):
        picture = np.zeros((height, width, 3), np.uint8)
        picture[y - 2 : y + 3, x - 2 : x + 3] = 255
        tensor, view = prep(Image.fromarray(picture))
        back = view.to_original(tensor[0, 0])
        assert back.shape == shape
        assert back.dtype == np.float32
        weight = np.nan_to_num(back)
        rows, columns = np.mgrid[:height, :width]
        found = (weight * rows).sum() / weight.sum(), (weight * columns).sum() / weight.sum()
        one = max((view.box[3] - view.box[1]) / 96, (view.box[2] - view.box[0]) / 128)
        assert abs(found[0] - y) < 0.25 * one + 0.01
        assert abs(found[1] - x) < 0.25 * one + 0.01


def test_nan_exactly_where_the_crop_did_not_look() -> None:
    prep = Preprocessing(size=(10, 10), mean=(0.0,) * 3, std=(1.0,) * 3)
    _, view = prep(solid("RGB", 0, (40, 20)))
    back = view.to_original(np.ones((2, 3, 7, 7)))
    assert view.box == (10.0, 0.0, 30.0, 20.0)
    assert back.shape == (2, 3, 20, 40)
    assert np.isnan(back[..., :10]).all()
    assert np.isnan(back[..., 30:]).all()
    np.testing.assert_allclose(back[..., 10:30], 1, atol=1e-6)


def test_letterbox_sees_the_whole_picture() -> None:
    prep = Preprocessing(size=(10, 10), mean=(0.0,) * 3, std=(1.0,) * 3, fit="letterbox")
    _, view = prep(solid("RGB", 0, (40, 20)))
    ramp_down = torch.arange(10.0).expand(10, 10).T
    back = view.to_original(ramp_down)
    # Rows 2.5 to 7.5 of the input hold the picture (3 to 8 after rounding): closed form of the ramp at pixel centres.
    top = view.box[1]
    expected = (np.arange(20) + 0.5 - top) / 4 - 0.5
    assert not np.isnan(back).any()
    np.testing.assert_allclose(back, np.repeat(expected[:, None], 40, axis=1), atol=1e-5)


def test_identity_changes_nothing_and_upsampling_is_interpolate() -> None:
    maps = torch.rand(2, 5, 7, generator=torch.Generator().manual_seed(0))
    np.testing.assert_array_equal(View.identity(5, 7).to_original(maps), maps.numpy())
    for size in ((15, 21), (5, 30), (11, 16)):
        expected = torch.nn.functional.interpolate(maps[None], size=size, mode="bilinear", align_corners=False)[0]
        np.testing.assert_allclose(View.identity(*size).to_original(maps), expected.numpy(), atol=1e-5)


def test_nothing_falls_between_the_pixels_of_a_smaller_picture() -> None:
    maps = torch.zeros(64, 64)
    maps[31, 33] = 1
    back = View.identity(8, 8).to_original(maps)
    assert tuple(map(int, np.unravel_index(back.argmax(), back.shape))) == (3, 4)
    assert back.max() > 0.005
    # One pixel averages all cells under a triangle that falls from 1 at the centre to 1/2 at the edge: 48 in sum.
    np.testing.assert_allclose(View.identity(1, 1).to_original(maps), (1 / 48) ** 2, rtol=0.06)


def test_maps_and_views_that_cannot_be() -> None:
    view = View.identity(4, 4)
    with pytest.raises(InvalidInput, match="Expected finite maps, got NaN or infinity"):
        view.to_original(np.full((2, 2), np.nan))
    with pytest.raises(InvalidInput, match=r"Expected maps of shape \(..., h, w\) with at least one cell, got \(3,\)"):
        view.to_original(np.zeros(3))
    with pytest.raises(InvalidInput, match="Expected a picture and a box with an area"):
        View(original=(4, 4), box=(0.0, 0.0, 0.0, 4.0))
