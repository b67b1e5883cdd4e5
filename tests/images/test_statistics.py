"""Inputs under the wrong preprocessing are noticed, real pictures are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from seewhy.errors import InvalidInput
from seewhy.images.preprocessing import Preprocessing
from seewhy.images.reading import read
from seewhy.images.statistics import check_statistics
from support.pictures import CAFFE, GREY, HALF, IMAGENET, MORE, PHOTOS, PLAIN

PREPS = {"half": HALF, "imagenet": IMAGENET, "plain": PLAIN, "caffe": CAFFE, "grey": GREY}


@pytest.mark.parametrize("prep", PREPS.values(), ids=PREPS)
@pytest.mark.parametrize("photo", PHOTOS + MORE, ids=lambda p: p.stem)
def test_silent_on_real_pictures(photo: Path, prep: Preprocessing) -> None:
    image = read(photo)
    assert check_statistics(prep(image)[0], prep) == []
    boxed = Preprocessing(
        size=prep.size,
        mean=prep.mean,
        std=prep.std,
        channels=prep.channels,
        value_range=prep.value_range,
        fit="letterbox",
    )
    assert check_statistics(boxed(image)[0], boxed) == []


def floats_under(prep: Preprocessing, photo: Path) -> torch.Tensor:
    """Resized as floats, so that no grey level is whole."""
    pixels = torch.tensor(np.asarray(read(photo)), dtype=torch.float32).permute(2, 0, 1)[None] / 255
    small = torch.nn.functional.interpolate(pixels, (160, 160), mode="bicubic", antialias=True)
    small = small.flip(1) if prep.channels == "BGR" else small.mean(1, keepdim=True) if prep.channels == "L" else small
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (prep.mean, prep.std))
    return (small * prep.value_range - mean) / std


@pytest.mark.parametrize("prep", PREPS.values(), ids=PREPS)
@pytest.mark.parametrize("photo", PHOTOS + MORE, ids=lambda p: p.stem)
def test_silent_on_pictures_resized_as_floats(photo: Path, prep: Preprocessing) -> None:
    assert check_statistics(floats_under(prep, photo), prep) == []
    assert check_statistics(floats_under(prep, photo).half(), prep) == []


NAMES = {
    "half": "values of -1..1",
    "imagenet": "ImageNet's mean and deviation",
    "plain": "values of 0..1",
    "bytes": "values of 0..255",
    "caffe": "Caffe's mean (BGR)",
}
BYTES = Preprocessing(size=(224, 224), mean=(0.0,) * 3, std=(1.0,) * 3, value_range=255.0)


@pytest.mark.parametrize("photo", PHOTOS + MORE, ids=lambda p: p.stem)
@pytest.mark.parametrize("given", NAMES)
def test_speaks_on_every_wrong_convention(photo: Path, given: str) -> None:
    preps = {"half": HALF, "imagenet": IMAGENET, "plain": PLAIN, "bytes": BYTES, "caffe": CAFFE}
    inputs, _ = preps[given](read(photo))
    for name, expected in preps.items():
        warnings = check_statistics(inputs, expected)
        if name == given:
            assert warnings == []
        else:
            assert len(warnings) == 1
            assert f"looks like {NAMES[given]}: its values" in warnings[0]


@pytest.mark.parametrize("photo", PHOTOS, ids=lambda p: p.stem)
def test_speaks_on_floats_where_it_can_be_known(photo: Path) -> None:
    plain = floats_under(PLAIN, photo).clamp(0, 1)
    for expected in (HALF, IMAGENET):
        assert "looks like values of 0..1:" in check_statistics(plain, expected)[0]
    for expected in (HALF, IMAGENET, PLAIN):
        assert "looks like values of 0..255:" in check_statistics(plain * 255, expected)[0]
    assert "has hardly any contrast:" in check_statistics(plain, BYTES)[0]
    assert "lies outside the range of pictures:" in check_statistics(floats_under(IMAGENET, photo), PLAIN)[0]
    assert "lies outside the range of pictures:" in check_statistics(floats_under(HALF, photo), PLAIN)[0]


def test_constants_in_the_wrong_order() -> None:
    swapped = Preprocessing(size=(224, 224), mean=IMAGENET.mean[::-1], std=IMAGENET.std[::-1])
    (warning,) = check_statistics(swapped(read(PHOTOS[1]))[0], IMAGENET)
    assert "in the reverse order of channels" in warning


def test_the_sentence_names_the_pictures() -> None:
    good, bad = HALF(read(PHOTOS[0]))[0], PLAIN(read(PHOTOS[1]))[0]
    assert check_statistics(torch.cat([good, bad, good]), HALF) == [
        "The input (picture 1 of 3) looks like values of 0..1: its values run from 0 to 1, the network's preprocessing "
        "(224x224 RGB, centre crop of 0.875, bicubic; values 0..1, mean 0.5, deviation 0.5) gives -1 to 1."
    ]
    flat, broken = torch.zeros_like(good), good.clone()
    broken[0, 0, 3, 3] = float("nan")
    both = check_statistics(torch.cat([flat, broken]), HALF)
    assert [w.split(":")[0] for w in both] == [
        "The input (picture 0 of 2) is one flat colour",
        "The input (picture 1 of 2) has pixels that are NaN or infinite",
    ]


def test_zero_padding_and_sharpening_stay_silent() -> None:
    tensor, _ = IMAGENET(read(PHOTOS[1]))
    padded = torch.nn.functional.pad(tensor, (40, 40, 0, 0))
    assert check_statistics(padded, IMAGENET) == []


def test_statistics_need_the_right_shape() -> None:
    with pytest.raises(InvalidInput, match=r"Expected inputs of shape \(N, 3, H, W\), got \(3, 8, 8\)"):
        check_statistics(torch.zeros(3, 8, 8), HALF)
    with pytest.raises(InvalidInput, match=r"Expected inputs of shape \(N, 1, H, W\), got \(2, 3, 8, 8\)"):
        check_statistics(torch.zeros(2, 3, 8, 8), GREY)
