"""The one place that opens pictures: formats, the limit of pixels, and the memory that a picture takes."""

from __future__ import annotations

import io
import os
import re
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile

from seewhy import cli
from seewhy.datasets import open_data
from seewhy.datasets._masks import Lazily
from seewhy.datasets._rows import _picture
from seewhy.errors import InvalidInput, UnreadableImage
from seewhy.images import decoding
from seewhy.images.decoding import MOST_PIXELS, SHARES, VARIABLE, allowing, opened
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


@pytest.mark.parametrize(("form", "share"), [("WEBP", 2), ("AVIF", 2), ("JPEG2000", 3), ("PNG", 1), ("JPEG", 1)])
def test_formats_that_take_more_memory_have_a_lower_limit(form: str, share: int, tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.new("RGB", (64, 48), (10, 200, 30)).save(path, form)
    assert read(path, most_pixels=64 * 48 * share).size == (64, 48)
    with pytest.raises(UnreadableImage) as found:
        read(path, most_pixels=64 * 48 * share - 1)
    if share > 1:
        assert f"it has 64 x 48 pixels, more than the 3071 that are opened of {form}, whose decoder" in str(found.value)
        assert f"store it in another format or allow more (--max-pixels {64 * 48 * share}, {VARIABLE})" in str(
            found.value
        )


@pytest.mark.parametrize("inner", ["PNG", "DIB"])
def test_what_is_within_an_icon_is_compared_with_the_limit(
    inner: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pillow decodes an icon while it reads the header, which may say 16 x 16 of anything."""
    out = io.BytesIO()
    Image.new("RGB", (300, 200)).save(out, inner)
    data, path = out.getvalue(), tmp_path / "favicon.ico"
    if inner == "DIB":  # twice as high: the mask stands below
        data = data[:8] + struct.pack("<i", 400) + data[12:]
    path.write_bytes(struct.pack("<HHHBBBBHHII", 0, 1, 1, 16, 16, 0, 0, 1, 24, len(data), 22) + data + bytes(300 * 200))
    decoded = list[str]()
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: decoded.append("load"))
    for reader in (lambda: read(path, most_pixels=59_999), lambda: read_mask(path)):
        monkeypatch.setenv(VARIABLE, "59999")
        with pytest.raises(UnreadableImage, match="it has 300 x 200 pixels, more than the 59999 that are opened"):
            reader()
    with pytest.raises(InvalidInput, match="it has 300 x 200 pixels"):
        _picture(path.read_bytes())
    assert not decoded
    monkeypatch.undo()
    assert read(path, most_pixels=60_000).size == (300, 200)


@pytest.mark.parametrize("data", [b"\0\0\1\0", b"\0\0\1\0\1\0", b"\0\0\1\0\1\0" + b"\xff" * 16, b"\0\0\1\0\0\0"])
def test_damaged_icons(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.ico").write_bytes(data)
    with pytest.raises(UnreadableImage, match=r"a\.ico': "):
        read(tmp_path / "a.ico")


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
    """Animated, multi-page, transparent and deep pictures of 2.25 million pixels, and those of greedy decoders."""
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
    rgba.convert("RGB").save(folder / "progressive.jpg", progressive=True, subsampling=0)
    rgba.save(folder / "moving.webp", append_images=[rgba.rotate(90)], lossless=True, method=0, **more)
    rgba.save(folder / "clear.avif", speed=10)
    rgba.save(folder / "clear.jp2", irreversible=True)
    return sorted(folder.iterdir())


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak of memory is Linux's own number")
def test_no_picture_takes_more_than_ten_bytes_for_a_pixel_of_the_limit(tmp_path: Path) -> None:
    """Six above the decoded picture, which takes four in Pillow; formats that take more have a lower limit."""
    files = _heavy(tmp_path)
    several = ("moving", "pages")
    command = [sys.executable, "-c", PEAK, *(f"{one}[0]" if one.stem in several else str(one) for one in files)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    peaks = list(map(float, done.stdout.split()))
    assert len(peaks) == 2 * len(files)
    shares = {".webp": SHARES["WEBP"], ".avif": SHARES["AVIF"], ".jp2": SHARES["JPEG2000"]}
    for number, peak in enumerate(peaks):
        path = files[number // 2]
        own = path.stat().st_size / 1500**2  # some decoders hold the file, too
        assert peak <= 10.5 * shares.get(path.suffix, 1) + 2 * own, (path.name, peak)


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
