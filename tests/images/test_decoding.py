"""The one place that opens pictures: formats, the limit of pixels, and the memory that a picture takes."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from seewhy import cli
from seewhy.datasets import open_data
from seewhy.datasets._masks import Lazily
from seewhy.datasets._rows import _picture
from seewhy.errors import InvalidInput, UnreadableImage
from seewhy.images import decoding
from seewhy.images.decoding import MOST_PIXELS, VARIABLE, allowing, opened
from seewhy.images.reading import read, read_mask

POSTSCRIPT = (
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n(mark) (w) file closefile\nshowpage\n%%EOF\n"
)


def blank(path: Path, width: int, height: int, mode: str = "1") -> Path:
    Image.new(mode, (width, height)).save(path)
    return path


@pytest.mark.parametrize("name", ["holiday.jpg", "holiday.png", "holiday.eps"])
def test_postscript_reaches_no_other_program(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def started(*args: object, **named: object) -> None:
        raise AssertionError(f"a program was started: {args}")

    monkeypatch.setattr(subprocess, "check_call", started)
    monkeypatch.setattr(subprocess, "Popen", started)
    path = tmp_path / name
    path.write_bytes(POSTSCRIPT)
    said = "it is not a picture in a format that seewhy opens (AVIF, BMP, DIB, GIF, ICO, JPEG, JPEG2000, JXL, MPO, "
    for reader in (read, read_mask):
        with pytest.raises(UnreadableImage, match=re.escape(f"Cannot read {str(path)!r}: {said}")):
            reader(path)
    with pytest.raises(InvalidInput, match=re.escape(f"its {len(POSTSCRIPT)} bytes are no picture: it is not a")):
        _picture(POSTSCRIPT)
    with Image.open(path) as image:
        assert image.format == "EPS"  # without the list Pillow would take it


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "TGA", "PCX", "SGI", "ICO"])
def test_formats_on_the_list_are_opened(form: str) -> None:
    out = io.BytesIO()
    Image.new("RGB", (16, 16), (10, 200, 30)).save(out, form)
    with opened(out) as image:
        assert image.format == form
        assert read(image).size == (16, 16)


def test_only_the_formats_that_are_asked_for() -> None:
    out = io.BytesIO()
    Image.new("L", (8, 8)).save(out, "GIF")
    with pytest.raises(UnreadableImage, match=r"in a format that seewhy opens \(PNG\)"), opened(out, formats=("PNG",)):
        pass


def test_the_limit_is_compared_with_the_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = blank(tmp_path / "a.png", 400, 300)
    loaded = list[str]()
    monkeypatch.setattr(Image.Image, "load", lambda self: loaded.append("load"))
    said = (
        "it has 400 x 300 pixels, more than the 119999 that are opened; if you trust it, store it smaller or allow "
        "more (--max-pixels, SEEWHY_MAX_PIXELS)."
    )
    with pytest.raises(UnreadableImage, match=re.escape(said)):
        read(path, most_pixels=119_999)
    monkeypatch.setenv(VARIABLE, "119999")
    for reader in (read, read_mask):
        with pytest.raises(UnreadableImage, match=re.escape(said)):
            reader(path)
    with pytest.raises(InvalidInput, match=re.escape(said[:-1])):
        _picture(path.read_bytes())
    with pytest.raises(InvalidInput, match="more than the 119999 that are opened"):
        Lazily({0: [[0, 0, 1, 0, 1, 1]]}, (300, 400), "'a'")[0]
    assert not loaded


def test_the_limit_can_be_raised_above_pillows(tmp_path: Path) -> None:
    path, before = blank(tmp_path / "wide.png", 15_000, 12_000), Image.MAX_IMAGE_PIXELS
    with pytest.raises(UnreadableImage, match="more pixels than the 89478485"):
        read_mask(path)
    with allowing(180_000_000), opened(path) as image:
        assert image.size == (15_000, 12_000)
    assert before == Image.MAX_IMAGE_PIXELS == MOST_PIXELS
    assert VARIABLE not in os.environ


def test_limits_that_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "many")
    with pytest.raises(InvalidInput, match=r"SEEWHY_MAX_PIXELS must be a whole number of pixels, got 'many'\."):
        decoding.most_pixels()
    with pytest.raises(InvalidInput, match=r"must be a whole number above 0, got 0\."), allowing(0):
        pass


def test_the_limit_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = blank(tmp_path / "a.png", 64, 48, "RGB")
    command = ["explain", "--model", "timm:resnet10t.nope", str(path)]
    assert cli.main([*command, "--max-pixels", "0"]) == 2
    assert "The limit of pixels must be a whole number above 0, got 0." in capsys.readouterr().err
    assert VARIABLE not in os.environ


def test_the_limit_holds_in_data_sets(tmp_path: Path) -> None:
    blank(tmp_path / "a.png", 64, 48, "RGB")
    with allowing(1000), pytest.raises(UnreadableImage, match="more than the 1000"):
        read(open_data(tmp_path)[0].image)
    assert read(open_data(tmp_path)[0].image).size == (64, 48)


def test_threads_open_pictures_at_once_above_pillows_limit(tmp_path: Path) -> None:
    path, found = blank(tmp_path / "a.png", 64, 48), list[tuple[int, int]]()

    def look() -> None:
        for _ in range(50):
            with opened(path, most=10**9) as image:
                found.append(image.size)

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [(64, 48)] * 200
    assert Image.MAX_IMAGE_PIXELS == MOST_PIXELS


# ------------------------------------------------------------------------------------------------------ the memory

PEAK = """
import sys
from PIL import Image
from seewhy.images.reading import read, read_mask
Image.init()
def kilobytes(name):
    return next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith(name + ":"))
for path, reader in [(path, reader) for path in sys.argv[1:] for reader in (read, read_mask)]:
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before = kilobytes("VmRSS")
    found = reader(path)
    pixels = found.size[0] * found.size[1] if reader is read else found.size
    print((kilobytes("VmHWM") - before) * 1024 / pixels)
    del found
"""


def _heavy(folder: Path) -> list[Path]:
    """Animated, multi-page, transparent and deep pictures of 2.25 million pixels."""
    coarse = np.random.default_rng(0).integers(0, 256, (30, 30, 4), dtype=np.uint8)
    rgba = Image.fromarray(coarse).resize((1500, 1500), Image.Resampling.NEAREST)
    indexed = rgba.convert("RGB").quantize(64)
    more: dict[str, Any] = {"save_all": True}
    rgba.save(folder / "rgba.png", compress_level=1)
    rgba.convert("LA").save(folder / "la.png", compress_level=1)
    indexed.save(folder / "indexed.png", transparency=3, compress_level=1)
    rgba.save(folder / "moving.png", append_images=[rgba.rotate(90)], disposal=1, compress_level=1, **more)
    indexed.save(folder / "moving.gif", append_images=[indexed.rotate(90)], transparency=3, disposal=2, **more)
    rgba.save(folder / "pages.tiff", append_images=[rgba.rotate(90)], **more)
    exif = Image.Exif()
    exif[0x0112] = 6
    rgba.save(folder / "turned.png", exif=exif, compress_level=1)
    Image.fromarray(np.asarray(rgba)[..., 0].astype(np.uint16) * 257).save(folder / "deep.png", compress_level=1)
    return sorted(folder.iterdir())


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak of memory is Linux's own number")
def test_a_picture_takes_at_most_six_bytes_a_pixel_above_the_decoded(tmp_path: Path) -> None:
    files = _heavy(tmp_path)
    command = [sys.executable, "-c", PEAK, *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    peaks = list(map(float, done.stdout.split()))
    assert len(peaks) == 2 * len(files)
    assert max(peaks) <= 4 + 6, peaks  # RGB itself takes 4 in Pillow


def test_strips_change_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    values = np.random.default_rng(1).integers(0, 256, (37, 23, 4), dtype=np.uint8)
    forms = [Image.fromarray(values), Image.fromarray(values).convert("LA"), Image.fromarray(values[..., :3])]
    forms += [
        Image.fromarray(values[..., 0].astype(np.uint16) * 257),
        Image.fromarray(values[..., 0] / np.float32(255)),
    ]
    forms += [forms[2].quantize(16), forms[2].convert("CMYK"), forms[2].convert("1")]
    whole = [np.asarray(read(one)) for one in forms]
    monkeypatch.setattr(decoding, "_STRIP", 60)
    for one, want in zip(forms, whole, strict=True):
        np.testing.assert_array_equal(np.asarray(read(one)), want)
    white = 255 - values[..., 3:].astype(float)
    np.testing.assert_allclose(whole[0], values[..., :3] * (values[..., 3:] / 255) + white, atol=1)
