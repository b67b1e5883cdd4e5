"""Pictures of more than 8 bits reach the network as they are; what is shown is rounded, and what is odd is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch import nn

import seewhy
from seewhy import Preprocessing
from seewhy.errors import InvalidInput
from seewhy.images.deep import deep, narrow
from seewhy.images.reading import read

PLAIN = Preprocessing(size=(30, 40), mean=(0.0,), std=(1.0,), channels="L", fit="squash")
RNG = np.random.default_rng(0)


def saved(path: Path, values: Any) -> Path:
    Image.fromarray(values).save(path)
    return path


def test_sixteen_bits_reach_the_network(tmp_path: Path) -> None:
    values = RNG.integers(0, 65536, (30, 40)).astype(np.uint16)
    for name in ("x.png", "x.tif"):
        tensor = PLAIN(read(saved(tmp_path / name, values)))[0][0, 0].numpy()
        np.testing.assert_allclose(tensor, values / 65535, atol=1e-6)


def test_floats_reach_the_network() -> None:
    for shape in ((30, 40), (30, 40, 1)):
        values = RNG.random(shape).astype(np.float32)
        np.testing.assert_allclose(PLAIN(read(values))[0][0, 0].numpy(), values.reshape(30, 40), atol=1e-6)
    colours = RNG.random((30, 40, 3))
    three = Preprocessing(size=(30, 40), mean=(0.0,) * 3, std=(1.0,) * 3, fit="squash", channels="BGR")
    np.testing.assert_allclose(three(read(colours))[0][0].numpy(), colours.transpose(2, 0, 1)[::-1], atol=1e-6)
    luma = colours @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(PLAIN(read(colours))[0][0, 0].numpy(), luma, atol=1e-5)


def test_a_resized_deep_picture_is_near_its_eight_bits(tmp_path: Path) -> None:
    """The same geometry and filter, finer values."""
    values = np.add.outer(np.arange(90) * 400, np.arange(120) * 240).astype(np.uint16)
    eight = Image.fromarray(np.rint(values / 257).astype(np.uint8)).convert("RGB")
    fits: tuple[Any, ...] = ("crop", "squash", "letterbox")
    for fit in fits:
        known = Preprocessing(size=(30, 50), mean=(0.0,) * 3, std=(1.0,) * 3, fit=fit, interpolation="bicubic")
        deeply, view = known(read(saved(tmp_path / "x.png", values)))
        plainly, same = known(eight)
        assert view == same
        assert float((deeply - plainly).abs().max()) < 1.5 / 255


def test_twelve_bits_in_sixteen_are_said_and_a_window_opens_them(tmp_path: Path) -> None:
    values = (np.add.outer(np.arange(30), np.arange(40)) * 59).astype(np.uint16)  # 0 to 4012
    path = saved(tmp_path / "x-ray.png", values)
    assert "its values run from 0 to 4012 of 0 to 65535" in narrow(read(path))
    window = Preprocessing(size=(30, 40), mean=(0.0,), std=(1.0,), channels="L", fit="squash", window=(0, 4095))
    tensor = window(read(path))[0][0, 0].numpy()
    np.testing.assert_allclose(tensor, values / 4095, atol=1e-6)
    assert len(np.unique(tensor)) == len(np.unique(values))
    assert int(np.asarray(window.seen(read(path))).max()) == round(4012 / 4095 * 255)
    level = Preprocessing(size=(30, 40), mean=(0.0,), std=(1.0,), channels="L", fit="squash", window=(1000, 2000))
    np.testing.assert_allclose(level(read(path))[0][0, 0].numpy(), ((values - 1000.0) / 1000).clip(0, 1), atol=1e-6)


def test_what_is_said_stands_beside_the_map_and_on_the_command_line(tmp_path: Path) -> None:
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    ).eval()
    values = (np.add.outer(np.arange(30), np.arange(40)) * 59).astype(np.uint16)
    path = saved(tmp_path / "x-ray.png", values)
    found = seewhy.explain(seewhy.load(network, preprocessing=PLAIN), path, method="gradient")
    assert any(text.startswith("x-ray.png: its values run from 0 to 4012") for text in found.warnings)
    opened = seewhy.load(network, preprocessing=PLAIN, changes={"window": (0, 4012)})
    clear = seewhy.explain(opened, path, method="gradient")
    assert not any("values run" in text for text in clear.warnings)
    assert int(np.asarray(clear.pictures[0]).max()) == 255


def test_a_transform_of_others_gets_eight_bits_and_that_is_said(tmp_path: Path) -> None:
    transforms = pytest.importorskip("torchvision.transforms")
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    ).eval()
    path = saved(tmp_path / "deep.png", RNG.integers(0, 65536, (30, 40)).astype(np.uint16))
    found = seewhy.explain(seewhy.load(network, preprocessing=transforms.ToTensor()), path, method="gradient")
    assert any("ToTensor was given 8 bits of a picture that has more" in text for text in found.warnings)


def test_values_go_with_the_pixels_that_they_belong_to(tmp_path: Path) -> None:
    """A picture that was changed after it was read is what it is now."""
    picture = read(saved(tmp_path / "x.png", RNG.integers(0, 65536, (30, 40)).astype(np.uint16)))
    assert deep(picture) is not None
    for changed in (ImageOps.invert(picture), picture.resize((20, 15)), ImageOps.mirror(picture), picture.rotate(180)):
        assert deep(changed) is None
        eight = np.asarray(changed.convert("L"), np.float32) / 255
        own = Preprocessing(size=eight.shape, mean=(0.0,), std=(1.0,), channels="L", fit="squash")  # type: ignore[arg-type]
        np.testing.assert_allclose(own(changed)[0][0, 0].numpy(), eight, atol=1e-6)


def test_an_upright_picture_turns_its_values(tmp_path: Path) -> None:
    values = RNG.integers(0, 65536, (30, 40)).astype(np.uint16)
    image = Image.fromarray(values)
    exif = image.getexif()
    exif[274] = 6
    image.save(tmp_path / "turned.png", exif=exif)
    picture = read(tmp_path / "turned.png")
    found = deep(picture)
    assert found is not None
    np.testing.assert_allclose(np.rint(found.units() * 255), np.asarray(picture)[:, :, 0], atol=1)
    assert picture.size == (30, 40)


def test_white_is_zero(tmp_path: Path) -> None:
    values = RNG.integers(0, 65536, (30, 40)).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "x.tif", tiffinfo={262: 0})
    found = PLAIN(read(tmp_path / "x.tif"))[0][0, 0].numpy()
    shown = np.asarray(read(tmp_path / "x.tif"))[:, :, 0] / 255
    np.testing.assert_allclose(found, shown, atol=1 / 255)


@pytest.mark.parametrize("window", [(1, 1), (5, 2), (0, float("inf")), (0, 1, 2)])
def test_windows_that_are_none(window: Any) -> None:
    with pytest.raises(InvalidInput, match=r"Preprocessing\.window: expected \(black, white\) with black below white"):
        Preprocessing(size=(8, 8), mean=(0.0,), std=(1.0,), channels="L", window=window)


def test_a_window_of_eight_bits() -> None:
    values = np.arange(200, dtype=np.uint8).reshape(10, 20)
    known = Preprocessing(size=(10, 20), mean=(0.0,), std=(1.0,), channels="L", fit="squash", window=(50, 150))
    made = known(read(values))[0][0, 0]
    torch.testing.assert_close(made, ((torch.arange(200.0).view(10, 20) - 50) / 100).clamp(0, 1), atol=1e-5, rtol=0)
