"""Two hundred pictures that are damaged, strange or hostile, and what has to become of each.

    expected = write_damaged(folder)
    expected["cut-0.50.png"]    # Fate(kind="failure", reason="truncated")

A picture is "right" when its pixels are the true ones, a "failure" when it cannot be read and the reason is said,
"either" where a decoder may find an error or not (the pixels are then checked where `pixels` is given), and "absent"
where it is no picture at all (a folder).
"""

from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, TiffImagePlugin

from support.damaged_formats import chunk, cmyk, encoded, grey16, interlaced, lab, packed12, png, tiff

__all__ = ["Fate", "write_damaged"]

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, eq=False)
class Fate:
    """What has to become of a file.

    Attributes:
        kind: see the module.
        pixels: (H, W, 3), the true picture.
        near: by how much each value may differ (lossy formats).
        reason: a part of the message of a failure.
    """

    kind: Literal["right", "failure", "either", "absent"]
    pixels: Pixels | None = None
    near: int = 0
    reason: str = ""


def right(pixels: Pixels, near: int = 0) -> Fate:
    return Fate(kind="right", pixels=pixels, near=near)


def failure(reason: str = "") -> Fate:
    return Fate(kind="failure", reason=reason)


def write_damaged(folder: Path, seed: int = 0) -> dict[str, Fate]:
    """Writes the files and says for each, by its path below the folder, what has to become of it."""
    scene = _scene(seed)
    made: dict[str, Fate] = {}
    for part in (_whole, _cut, _flipped, _wrong_type, _sizes, _modes, _deep, _turned, _several, _profiles, _headers):
        made |= part(folder, scene, np.random.default_rng(seed))
    return made | _names(folder, scene) | _entries(folder, scene)


def _scene(seed: int, height: int = 48, width: int = 64) -> Pixels:
    """Smooth colours, so that lossy formats stay near, with a red corner at the upper left."""
    y, x = np.mgrid[:height, :width]
    phase = np.random.default_rng(seed).uniform(0, 3, 3)
    waves = [127 + 90 * np.sin(x / 17 + y / 13 * (i + 1) / 2 + phase[i]) for i in range(3)]
    pixels = np.stack(waves, 2).astype(np.uint8)
    pixels[:8, :12] = (230, 20, 20)
    return pixels


_FORMS: dict[str, tuple[str, dict[str, Any], int]] = {  # ending -> Pillow's name, options, how near the pixels come
    "png": ("PNG", {}, 0),
    "jpg": ("JPEG", {"quality": 95, "subsampling": 0}, 16),
    "gif": ("GIF", {}, 40),
    "tif": ("TIFF", {}, 0),
    "webp": ("WEBP", {"lossless": True}, 0),
    "bmp": ("BMP", {}, 0),
    "ppm": ("PPM", {}, 0),
}


def _form(pixels: Pixels, ending: str) -> bytes:
    form, options, _ = _FORMS[ending]
    return encoded(pixels, form, **options)


def _whole(folder: Path, scene: Pixels, _: np.random.Generator) -> dict[str, Fate]:
    """Every format, and every format under each other's ending: the content decides."""
    made = {}
    for ending, (_form_name, _options, near) in _FORMS.items():
        for other in _FORMS:
            (folder / f"{ending}-as.{other}").write_bytes(_form(scene, ending))
            made[f"{ending}-as.{other}"] = right(scene, near)
    return made


def _cut(folder: Path, scene: Pixels, _: np.random.Generator) -> dict[str, Fate]:
    """The first part of a file only. Nothing that lacks pixels may pass for a picture."""
    variants = {ending: _form(scene, ending) for ending in _FORMS}
    variants["progressive.jpg"] = encoded(scene, "JPEG", progressive=True, quality=95)
    variants["packed.tif"] = encoded(scene, "TIFF", compression="tiff_adobe_deflate")
    variants["lzw.tif"] = encoded(scene, "TIFF", compression="tiff_lzw")
    variants["interlaced.png"] = interlaced(scene)
    variants["lossy.webp"] = encoded(scene, "WEBP", quality=90)
    made = {}
    for ending, data in variants.items():
        for share in (0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.98):
            name = f"cut-{share:.2f}.{ending}"
            (folder / name).write_bytes(data[: int(len(data) * share)])
            made[name] = failure()
    return made


def _flipped(folder: Path, scene: Pixels, rng: np.random.Generator) -> dict[str, Fate]:
    """Some bytes behind the header are others. Only PNG has sums by which a decoder must find that."""
    made = {}
    for ending in _FORMS:
        for number in range(3):
            data = bytearray(_form(scene, ending))
            for at in rng.integers(60, len(data) - 20, 3):
                data[at] ^= int(rng.integers(1, 256))
            name = f"flipped-{number}.{ending}"
            (folder / name).write_bytes(bytes(data))
            made[name] = failure() if ending == "png" else Fate(kind="either")
    return made


def _wrong_type(folder: Path, _: Pixels, rng: np.random.Generator) -> dict[str, Fate]:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("a.txt", "text")
    contents = {
        "text": b"not a picture\n",
        "zip": packed.getvalue(),
        "html": b"<!doctype html><html><body>404 Not Found</body></html>",
        "svg": b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
        "pdf": b"%PDF-1.4\n1 0 obj\n<<>>\nendobj\n%%EOF\n",
        "mp4": b"\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00mp42isom" + bytes(64),
        "zeros": bytes(5000),
        "noise": rng.integers(0, 256, 5000, np.uint8).tobytes(),
        "one-byte": b"\x89",
        "png-signature": b"\x89PNG\r\n\x1a\n",
        "jpeg-signature": b"\xff\xd8\xff",
        "gif-signature": b"GIF89a",
    }
    made = {}
    for name, content in contents.items():
        (folder / f"{name}.jpg").write_bytes(content)
        made[f"{name}.jpg"] = failure()
    (folder / "empty.jpg").touch()
    (folder / "empty.png").touch()
    empty = dict.fromkeys(("empty.jpg", "empty.png"), failure("the file is empty"))
    return {**made, **empty, "text.jpg": failure("it is not a picture")}


def _sizes(folder: Path, _: Pixels, rng: np.random.Generator) -> dict[str, Fate]:
    made = {}
    for height, width in ((1, 1), (1, 33), (33, 1), (2, 20_000), (20_000, 2)):
        pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
        for ending in ("png", "bmp", "tif"):
            name = f"size-{height}x{width}.{ending}"
            (folder / name).write_bytes(_form(pixels, ending))
            made[name] = right(pixels)
    return made


def _modes(folder: Path, scene: Pixels, _: np.random.Generator) -> dict[str, Fate]:
    """CMYK, one bit, palettes, transparency."""
    image, grey = Image.fromarray(scene), np.asarray(Image.fromarray(scene).convert("L"))
    grey_rgb, bits = np.repeat(grey[..., None], 3, 2), grey > 127
    alpha = np.tile(np.linspace(0, 255, scene.shape[1]).astype(np.uint8), (scene.shape[0], 1))
    on_white, grey_on_white = _over_white(scene, alpha), _over_white(grey_rgb, alpha)
    palette = image.quantize(16)
    clear = np.asarray(palette) == 3
    flat = np.asarray(palette.convert("RGB"))
    files = {
        "cmyk.tif": (encoded(cmyk(scene), "TIFF"), right(scene)),
        "cmyk-adobe.jpg": (encoded(cmyk(scene), "JPEG", quality=95, subsampling=0), right(scene, 16)),
        "one-bit.png": (encoded(Image.fromarray(bits), "PNG"), right(_grey(bits * 255))),
        "one-bit.tif": (encoded(Image.fromarray(bits), "TIFF", compression="group4"), right(_grey(bits * 255))),
        "one-bit.bmp": (encoded(Image.fromarray(bits), "BMP"), right(_grey(bits * 255))),
        "grey.jpg": (encoded(grey, "JPEG", quality=95), right(grey_rgb, 16)),
        "grey.png": (encoded(grey, "PNG"), right(grey_rgb)),
        "palette.png": (encoded(palette, "PNG"), right(flat)),
        "palette.gif": (encoded(palette, "GIF"), right(flat)),
        "palette-clear.png": (encoded(palette, "PNG", transparency=3), right(np.where(clear[..., None], 255, flat))),
        "palette-clear.gif": (encoded(palette, "GIF", transparency=3), right(np.where(clear[..., None], 255, flat))),
        "colour-key.png": (encoded(scene, "PNG", transparency=(230, 20, 20)), right(_keyed(scene))),
        "alpha.png": (encoded(np.dstack([scene, alpha]), "PNG"), right(on_white, 1)),
        "alpha.tif": (encoded(np.dstack([scene, alpha]), "TIFF"), right(on_white, 1)),
        "alpha.webp": (encoded(np.dstack([scene, alpha]), "WEBP", lossless=True, exact=True), right(on_white, 1)),
        "grey-alpha.png": (encoded(Image.fromarray(np.dstack([grey, alpha]), "LA"), "PNG"), right(grey_on_white, 1)),
        "progressive.jpg": (encoded(scene, "JPEG", progressive=True, quality=95, subsampling=0), right(scene, 16)),
        "interlaced.png": (interlaced(scene), right(scene)),
    }
    return _written(folder, files)


def _written(folder: Path, files: dict[str, tuple[bytes, Fate]]) -> dict[str, Fate]:
    for name, (data, _) in files.items():
        (folder / name).write_bytes(data)
    return {name: fate for name, (_, fate) in files.items()}


def _grey(values: Any) -> Pixels:
    return np.repeat(np.asarray(values).astype(np.uint8)[..., None], 3, 2)


def _over_white(pixels: Pixels, alpha: Pixels) -> Pixels:
    share = alpha[..., None] / 255
    return np.rint(pixels * share + 255 * (1 - share)).astype(np.uint8)


def _keyed(pixels: Pixels) -> Pixels:
    return np.where((pixels == (230, 20, 20)).all(2, keepdims=True), 255, pixels).astype(np.uint8)


def _deep(folder: Path, scene: Pixels, _: np.random.Generator) -> dict[str, Fate]:
    """16 bits, floats, NaN, other colour spaces."""
    ramp = np.arange(48 * 64, dtype=np.uint16).reshape(48, 64) * 21
    deep_rgb = (scene.astype(np.uint16) * 257).astype(">u2")
    shown = _grey(np.rint(ramp / 257))
    unit = (np.arange(48 * 64, dtype=np.float32) / (48 * 64 - 1)).reshape(48, 64)
    broken = unit.copy()
    broken[3, 4] = np.nan
    big_endian = Image.frombytes("I;16B", (64, 48), ramp.astype(">u2").tobytes())
    clear = chunk(b"tRNS", struct.pack(">H", 21 * 70))
    files = {
        "grey16-white-is-zero.tif": (tiff(65535 - ramp, bits=16, photometric=0), right(shown)),
        "float-white-is-zero.tif": (
            tiff(1 - unit, bits=32, photometric=0, kind=3),
            right(_grey(np.rint(unit * 255)), 1),
        ),
        "grey12.tif": (tiff(packed12(ramp // 16), bits=12), right(_grey(np.rint((ramp // 16) * (255 / 4095))))),
        "grey8-white-is-zero.tif": (tiff(255 - scene[..., 0], bits=8, photometric=0), right(_grey(scene[..., 0]))),
        "signed8.tif": (tiff(scene[..., 0], bits=8, kind=2), failure("its values are signed")),
        "signed16.tif": (tiff(ramp // 2, bits=16, kind=2), failure("its values are signed")),
        "grey16-clear.png": (grey16(ramp, clear), right(np.where(_grey(ramp == 21 * 70), 255, shown).astype(np.uint8))),
        "grey16.png": (encoded(ramp, "PNG"), right(shown)),
        "rgb16.png": (png(64, 48, 16, 2, 0, b"".join(b"\0" + row.tobytes() for row in deep_rgb)), right(scene)),
        "grey16.tif": (encoded(ramp, "TIFF"), right(shown)),
        "grey16-big-endian.tif": (encoded(big_endian, "TIFF"), right(shown)),
        "int32.tif": (encoded(ramp.astype(np.int32), "TIFF"), right(shown)),
        "int32-large.tif": (encoded(ramp.astype(np.int32) * 100, "TIFF"), failure("expected values in 0..65535")),
        "float.tif": (encoded(unit, "TIFF"), right(_grey(np.rint(unit * 255)))),
        "float-255.tif": (encoded(unit * 255, "TIFF"), failure("divide values of 0..255 by 255")),
        "float-nan.tif": (encoded(broken, "TIFF"), failure("NaN or infinite")),
        "lab.tif": (encoded(lab(scene), "TIFF"), right(scene, 16)),
        "hsv-as-rgb.png": (encoded(Image.fromarray(scene).convert("HSV").convert("RGB"), "PNG"), right(scene, 12)),
        "ycc.jpg": (encoded(Image.fromarray(scene).convert("YCbCr"), "JPEG", quality=95), right(scene, 100)),
    }
    return _written(folder, files)


def _turned(folder: Path, scene: Pixels, _: np.random.Generator) -> dict[str, Fate]:
    """EXIF orientations, from the definition of the tag; the upright picture has its red corner at the upper left."""
    transposed = scene.transpose(1, 0, 2)
    stored = {
        1: scene, 2: scene[:, ::-1], 3: scene[::-1, ::-1], 4: scene[::-1],
        5: transposed, 6: transposed[::-1], 7: transposed[::-1, ::-1], 8: transposed[:, ::-1],
    }  # fmt: skip
    made: dict[str, Fate] = {}
    for orientation, pixels in stored.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        for ending in ("jpg", "png", "webp"):
            form, options, near = _FORMS[ending]
            data = encoded(np.ascontiguousarray(pixels), form, exif=exif, **options)
            made |= _written(folder, {f"turned-{orientation}.{ending}": (data, right(scene, near))})
    junk = encoded(scene, "JPEG", quality=95, subsampling=0, exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    nine = Image.Exif()
    nine[0x0112] = 9
    return made | _written(
        folder,
        {
            "exif-junk.jpg": (junk, Fate(kind="either", pixels=scene, near=16)),
            "turned-9.png": (encoded(scene, "PNG", exif=nine), right(scene)),
        },
    )


def _several(folder: Path, scene: Pixels, _: np.random.Generator) -> dict[str, Fate]:
    """Of several frames or pages nobody knows which is meant."""
    unsaid = Fate(kind="failure", reason="pages or frames; say which one")
    others = [Image.fromarray(np.full_like(scene, grey)) for grey in (0, 255)]
    more: dict[str, Any] = {"save_all": True, "append_images": others}
    files = {
        "animated.gif": (encoded(scene, "GIF", duration=50, **more), unsaid),
        "animated.png": (encoded(scene, "PNG", duration=50, **more), unsaid),
        "animated.webp": (encoded(scene, "WEBP", duration=50, lossless=True, **more), unsaid),
        "pages.tif": (encoded(scene, "TIFF", **more), unsaid),
    }
    return _written(folder, files)


def _profiles(folder: Path, scene: Pixels, rng: np.random.Generator) -> dict[str, Fate]:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    files = {
        "profile.png": (encoded(scene, "PNG", icc_profile=profile), right(scene)),
        "profile.tif": (encoded(scene, "TIFF", icc_profile=profile), right(scene)),
        "profile-junk.png": (encoded(scene, "PNG", icc_profile=rng.bytes(500)), right(scene)),
        "tail.png": (_form(scene, "png") + rng.bytes(1000), right(scene)),
        "ended.jpg": (
            _form(scene, "jpg")[:900] + b"\xff\xd9",
            Fate(kind="either"),
        ),  # only libjpeg knows what is missing
        "tail.jpg": (_form(scene, "jpg") + rng.bytes(1000), right(scene, 16)),
    }
    return _written(folder, files)


def _headers(folder: Path, scene: Pixels, _: np.random.Generator) -> dict[str, Fate]:
    """Headers that lie about the size."""
    rows = b"\0" + bytes(30)
    bmp = bytearray(_form(scene, "bmp"))
    bmp[18:26] = struct.pack("<ii", 60_000, 60_000)
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[270] = "x" * 100_000
    files = {
        "bomb.png": (png(60_000, 60_000, 8, 2, 0, rows), failure("if you trust it, store it smaller")),
        "bomb.bmp": (bytes(bmp), failure("if you trust it, store it smaller")),
        "bomb.gif": (b"GIF89a" + struct.pack("<HH", 65_535, 65_535) + bytes(3) + b";", failure()),
        "bomb.ppm": (b"P6 60000 60000 255 " + bytes(100), failure("if you trust it, store it smaller")),
        "short.png": (png(64, 48, 8, 2, 0, rows), failure()),
        "no-width.png": (png(0, 48, 8, 2, 0, b""), failure()),
        "negative.ppm": (b"P6 -4 -4 255 " + bytes(100), failure()),
        "long-text.tif": (encoded(scene, "TIFF", tiffinfo=tags), right(scene)),
        "text-bomb.png": (_text_bomb(scene), Fate(kind="either", pixels=scene)),
    }
    return _written(folder, files)


def _text_bomb(pixels: Pixels) -> bytes:
    whole = _form(pixels, "png")
    text = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(80_000_000), 9))
    return whole[:33] + text + whole[33:]


def _names(folder: Path, scene: Pixels) -> dict[str, Fate]:
    names = ["two words.png", "quote'\".png", "\U0001f431 chat.png", "line\nbreak.png", "-dash.png", "%20&;$(x).png",
             "tab\t.png", "a\\b.png", "ü" * 100 + ".png", "n" * 196 + ".png",
             "caps.PNG", " .png", "e\u0301.png", "é.png",
             os.fsdecode(b"bytes-\xff\xfe.png"), "\u202egnp.png"]  # fmt: skip
    for name in names:
        (folder / name).write_bytes(_form(scene, "png"))
    (folder / "gone\n\U0001f431.png").write_bytes(b"text")
    return {**dict.fromkeys(names, right(scene)), "gone\n\U0001f431.png": failure("it is not a picture")}


def _entries(folder: Path, scene: Pixels) -> dict[str, Fate]:
    """Links, folders, pipes, and a file that may not be read."""
    (folder / "sub").mkdir()
    (folder / "sub" / "plain.png").write_bytes(_form(scene, "png"))
    (folder / "directory.jpg").mkdir()
    (folder / "link.png").symlink_to("sub/plain.png")
    (folder / "broken.png").symlink_to("nowhere.png")
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "sub" / "loop").symlink_to("..")
    (folder / "sub" / "circle").symlink_to("circle")
    os.mkfifo(folder / "pipe.png")
    (folder / "device.png").symlink_to(os.devnull)
    (folder / "closed.png").write_bytes(_form(scene, "png"))
    (folder / "closed.png").chmod(0)
    readable = os.access(folder / "closed.png", os.R_OK)
    return {
        "sub/plain.png": right(scene),
        "link.png": right(scene),
        "broken.png": failure("No such file or directory"),
        "loop.png": failure("Too many levels of symbolic links"),
        "pipe.png": failure("expected an ordinary file, got a pipe, socket or device"),
        "device.png": failure("expected an ordinary file, got a pipe, socket or device"),
        "directory.jpg": Fate(kind="absent"),
        "closed.png": right(scene) if readable else failure("Permission denied"),
    }
