"""Reading pictures of every kind, against closed forms."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import skimage
import torch
from PIL import Image

from seewhy.errors import InvalidType, UnreadableImage
from seewhy.images.reading import read
from support.pictures import PHOTOS, pixel, solid
from support.typed import unchecked


def test_a_photo_is_read_as_it_is() -> None:
    expected = skimage.data.chelsea()
    for source in (PHOTOS[0], str(PHOTOS[0]), Image.open(PHOTOS[0]), expected, expected / 255.0):
        got = read(source)
        assert got.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(got), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(tmp_path: Path, orientation: int) -> None:
    # The stored array for each orientation, from the definition of the EXIF tag (row 0 is ..., column 0 is ...).
    upright = np.zeros((20, 40, 3), np.uint8)
    upright[:6, :9] = (255, 0, 0)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "turned.png"
    Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif)
    np.testing.assert_array_equal(np.asarray(read(path)), upright)
    np.testing.assert_array_equal(np.asarray(read(Image.open(path))), upright)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (solid("CMYK", (0, 255, 255, 0)), (255, 0, 0)),
        (solid("L", 77), (77, 77, 77)),
        (solid("1", 1), (255, 255, 255)),
        (solid("YCbCr", (128, 128, 128)), (128, 128, 128)),
        (solid("RGBA", (200, 0, 0, 0)), (255, 255, 255)),
        (solid("RGBA", (200, 0, 100, 255)), (200, 0, 100)),
        (solid("LA", (0, 51)), (204, 204, 204)),
        (solid("I", 32896), (128, 128, 128)),
        (solid("I", 65535), (255, 255, 255)),
        (solid("I;16", 257), (1, 1, 1)),
        (solid("F", 0.2), (51, 51, 51)),
    ],
    ids=lambda v: v.mode if isinstance(v, Image.Image) else "",
)
def test_modes_become_rgb(image: Image.Image, expected: tuple[int, int, int]) -> None:
    got = read(image)
    assert got.mode == "RGB"
    assert pixel(got) == expected


def test_half_transparent_red_lies_on_white() -> None:
    r, g, b = pixel(read(solid("RGBA", (255, 0, 0, 128))))
    assert (r, g, b) == (255, 127, 127)


def test_palette_with_transparency(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    path = tmp_path / "palette.png"
    image.save(path, transparency=0)
    assert pixel(read(path)) == (255, 255, 255)
    assert pixel(read(path), 1) == (200, 100, 50)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit_files_are_scaled_not_clipped(tmp_path: Path, suffix: str) -> None:
    values = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    path = tmp_path / f"deep.{suffix}"
    Image.fromarray(values).save(path)
    assert [pixel(read(path), x)[0] for x in range(4)] == [0, 1, 128, 255]


@pytest.mark.parametrize("name", ["two words.png", "\U0001f431 chat.png", "line\nbreak.png", "%20'\".png"])
def test_odd_names(tmp_path: Path, name: str) -> None:
    solid("RGB", (1, 2, 3)).save(tmp_path / name)
    assert pixel(read(tmp_path / name)) == (1, 2, 3)
    with pytest.raises(UnreadableImage) as caught:
        read(tmp_path / ("no " + name))
    assert str(caught.value) == f"Cannot read {str(tmp_path / ('no ' + name))!r}: No such file or directory."


def test_unreadable_files_name_themselves_and_the_reason(tmp_path: Path) -> None:
    photo = PHOTOS[0].read_bytes()
    (tmp_path / "cut.png").write_bytes(photo[: len(photo) // 2])
    (tmp_path / "cut.jpg").write_bytes(PHOTOS[-1].read_bytes()[:9000])
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    os.mkfifo(tmp_path / "pipe")
    reasons = {
        "cut.png": "truncated",
        "cut.jpg": "truncated",
        "empty.png": "the file is empty.",
        "text.png": "it is not a picture in a format that seewhy opens (AVIF, BMP, ",
        "loop": "Too many levels of symbolic links.",
        "pipe": "expected an ordinary file, got a pipe, socket or device.",
        "": "expected a file, got a directory; pass the pictures in it one by one.",
        "nul\0.png": "a file's name has no null character.",
    }
    for name, reason in reasons.items():
        source = os.path.join(tmp_path, name)
        with pytest.raises(UnreadableImage) as caught:
            read(source)
        assert str(caught.value).startswith(f"Cannot read {source!r}: ")
        assert reason.lower() in str(caught.value).lower()


def test_broken_bytes_never_escape_as_another_error() -> None:
    photo = io.BytesIO()
    Image.open(PHOTOS[0]).resize((40, 30)).save(photo, "PNG")
    source, random = photo.getvalue(), np.random.default_rng(0)
    for _ in range(150):
        broken = bytearray(source)
        for at in random.integers(8, len(broken), 3):
            broken[at] = random.integers(256)
        try:
            opened = Image.open(io.BytesIO(bytes(broken)))
        except Exception:
            continue
        with contextlib.suppress(UnreadableImage):
            assert read(opened).mode == "RGB"


def test_decompression_bomb(tmp_path: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    path = tmp_path / "bomb.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")))
    before = Image.MAX_IMAGE_PIXELS
    with pytest.raises(UnreadableImage, match=r"more pixels than the 89478485 that .*, store it smaller or allow more"):
        read(path)
    assert before == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((3, 8, 9), np.uint8), "expected channels last, got channels first; use array.transpose(1, 2, 0)."),
        (np.zeros((2, 8, 9, 3), np.uint8), "expected one picture of shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)."),
        (np.zeros((8, 9, 2), np.uint8), "expected one picture of shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)."),
        (np.zeros(5, np.uint8), "expected one picture of shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)."),
        (np.zeros((0, 4, 3), np.uint8), "it has no pixels."),
        (np.full((2, 2), np.nan), "it has pixels that are NaN or infinite."),
        (np.full((2, 2), np.inf), "it has pixels that are NaN or infinite."),
        (np.full((2, 2), 200.0), "expected values in 0..1, got 200..200; divide values of 0..255 by 255."),
        (np.full((2, 2), -0.5), "expected values in 0..1, got -0.5..-0.5; rescale it."),
        (np.zeros((2, 2), complex), "expected uint8, or floating values in [0, 1]; convert it to one of these first."),
        (np.zeros((2, 2), np.int64), "expected uint8, or floating values in [0, 1]; convert it to one of these first."),
        (np.zeros((2, 2), bool), "expected uint8, or floating values in [0, 1]; convert it to one of these first."),
    ],
)
def test_arrays_that_are_no_pictures(array: np.ndarray, reason: str) -> None:
    with pytest.raises(UnreadableImage) as caught:
        read(array)
    assert str(caught.value) == f"Cannot read the array of shape {array.shape} and type {array.dtype}: {reason}"


def test_arrays_of_every_layout() -> None:
    assert pixel(read(np.full((2, 3), 9, np.uint8))) == (9, 9, 9)
    assert pixel(read(np.full((2, 3, 1), 9, np.uint8))) == (9, 9, 9)
    assert pixel(read(np.full((2, 3, 4), 0.0, np.float16))) == (255, 255, 255)
    assert read(np.full((2, 3), 9, np.uint8)).size == (3, 2)
    assert pixel(read(np.full((2, 2, 3), 1 + 1e-7))) == (255, 255, 255)
    assert pixel(read(np.array([[[1, 0, 0]]], np.float32))) == (255, 0, 0)
    assert pixel(read(np.full((2, 2), 0.999))) == (255, 255, 255)  # rounded, not cut


def test_other_types_and_pictures_out_of_range() -> None:
    with pytest.raises(InvalidType, match="Expected a path, a PIL image or a numpy array, got Tensor"):
        read(unchecked(torch.zeros(3, 4, 4)))
    with pytest.raises(UnreadableImage, match=r"the PIL image F 4x3: expected values in 0..1, got 128..128; divide"):
        read(solid("F", 128.0))
    with pytest.raises(UnreadableImage, match=r"expected values in 0..65535, got 70000..70000; rescale"):
        read(solid("I", 70000))
    with pytest.raises(UnreadableImage, match="it has no pixels"):
        read(Image.new("RGB", (0, 3)))
