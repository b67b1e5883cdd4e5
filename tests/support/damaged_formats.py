"""Files of pictures made by hand, where Pillow writes none of that kind."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from support.typed import present

Pixels = NDArray[np.uint8]


def encoded(pixels: Any, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(buffer, form, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int, colour: int, interlace: int, rows: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def interlaced(pixels: Pixels) -> bytes:
    """Adam7: seven passes, each row with filter 0."""
    passes = [(0, 8, 0, 8), (0, 8, 4, 8), (4, 8, 0, 4), (0, 4, 2, 4), (2, 4, 0, 2), (0, 2, 1, 2), (1, 2, 0, 1)]
    parts = [pixels[top::down, left::across] for top, down, left, across in passes]
    rows = b"".join(b"\0" + row.tobytes() for part in parts if part.size for row in part)
    return png(pixels.shape[1], pixels.shape[0], 8, 2, 1, rows)


def grey16(values: NDArray[np.uint16], more: bytes) -> bytes:
    whole = png(64, 48, 16, 0, 0, b"".join(b"\0" + row.tobytes() for row in values.astype(">u2")))
    return whole[:33] + more + whole[33:]


def tiff(values: NDArray[Any], *, bits: int, photometric: int = 1, kind: int = 1) -> bytes:
    """One strip of grey; kind 1 unsigned, 2 signed, 3 floating."""
    data = values.tobytes()
    entries = {
        256: 64,
        257: 48,
        258: bits,
        259: 1,
        262: photometric,
        273: 8,
        277: 1,
        278: 48,
        279: len(data),
        339: kind,
    }
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries.items())
    start = struct.pack("<2sHI", b"II", 42, 8 + len(data))
    return start + data + struct.pack("<H", len(entries)) + directory + bytes(4)


def packed12(values: NDArray[Any]) -> Pixels:
    """Two values in three bytes."""
    first, second = values.reshape(-1, 2).astype(np.int64).T
    return np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], 1).astype(np.uint8)


def cmyk(pixels: Pixels) -> Image.Image:
    """Ink is what is missing to white; no black."""
    return Image.fromarray(np.dstack([255 - pixels, np.zeros(pixels.shape[:2], np.uint8)]), "CMYK")


def lab(pixels: Pixels) -> Image.Image:
    to_lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    return present(ImageCms.applyTransform(Image.fromarray(pixels), to_lab))
