"""Pictures: read them, bring them to the form a network wants, check that form, and find the way back.

A file, PIL image or array becomes an upright RGB picture (`read`); `Preprocessing` turns that into the network's
input and remembers in a `View` which part of the picture the network saw; `View.to_original` lays a saliency map
back on the picture's own pixels; `check_statistics` says when an input does not look as the network expects it.

Positions are in pixels with the half-pixel convention: pixel i covers i to i + 1, its centre is at i + 0.5.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from seewhy.errors import InvalidInput, InvalidType, UnreadableImage
from seewhy.images.decoding import opened, orientation, strips, upright
from seewhy.images.view import View

__all__ = ["Preprocessing", "constants", "read", "read_mask", "stretched", "to_unit"]

Source = str | os.PathLike[str] | Image.Image | NDArray[Any]

# ------------------------------------------------------------------------------------------------------- reading


def read(image: Source, *, most_pixels: int | None = None) -> Image.Image:
    """The picture as an upright RGB image of 8 bits a channel.

    Rotated as its EXIF data say; the first frame of a file with several; transparency laid on white; grey of 16 bits
    (and of 32-bit integers) scaled from 0..65535, so that nothing is cut off, of 12 bits from 0..4095.

    Args:
        image: a file's path, a PIL image, or an array of shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), either
            uint8 or floating with values in [0, 1].
        most_pixels: of a file; `seewhy.images.decoding.most_pixels` if not given.

    Raises:
        UnreadableImage: names the source and the reason.
        InvalidType: for anything else than a path, a PIL image or an array.
    """
    if isinstance(image, np.ndarray):
        with _reading(f"the array of shape {image.shape} and type {image.dtype}"):
            return _to_rgb(_array_to_image(image))
    if isinstance(image, Image.Image):
        with _reading(f"the PIL image {image.mode} {image.width}x{image.height}"):
            return _to_rgb(image)
    if isinstance(image, str | os.PathLike):
        with _reading(repr(os.fspath(image))):
            return _read_file(Path(image), most_pixels)
    raise InvalidType(
        f"Expected a path, a PIL image or a numpy array, got {type(image).__name__}. "
        "Turn a tensor (C, H, W) in [0, 1] into an array with tensor.permute(1, 2, 0).numpy()."
    )


def read_mask(path: str | os.PathLike[str]) -> NDArray[np.bool_]:
    """(H, W) true where a mask file shows the object: not black (palette index above 0) and not transparent.

    Raises:
        UnreadableImage: names the file and the reason.
    """
    with _reading(repr(os.fspath(path))), opened(_ordinary(Path(path))) as image:
        image.load()
        found = np.zeros((image.height, image.width), np.uint8)
        for top, strip in strips(image):
            found[top : top + strip.height] = _shown(strip)
        turned = orientation(image)
    mask: NDArray[np.bool_] = np.asarray(upright(Image.fromarray(found), turned)).view(np.bool_)
    return mask


def _shown(strip: Image.Image) -> NDArray[np.bool_]:
    """(h, w) true where a part of a mask is neither black nor transparent."""
    values = np.asarray(strip if strip.mode in ("1", "L", "P", "I", "F", "I;16") else strip.convert("RGB"))
    opaque = np.asarray(strip.convert("RGBA"))[..., 3] > 0
    seen: NDArray[np.bool_] = opaque & ((values > 0).any(-1) if values.ndim == 3 else values > 0)
    return seen


@contextmanager
def _reading(name: str) -> Iterator[None]:
    try:
        yield
    except InvalidType:
        raise
    except Exception as error:  # decoders meet broken files with errors of any kind, struct.error and IndexError too
        raise UnreadableImage(f"Cannot read {name}: {_reason(error)}.") from error


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).rstrip(".") or type(error).__name__


def _read_file(path: Path, most: int | None) -> Image.Image:
    with opened(_ordinary(path), most=most) as image:
        image.load()
        found, turned = _plain(image), orientation(image)
    return upright(found, turned)


def _ordinary(path: Path) -> Path:
    """The path, if it is that of a file with something in it; a pipe or a device would be read without end."""
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise ValueError("expected a file, got a directory; pass the pictures in it one by one")
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("expected an ordinary file, got a pipe, socket or device")
    if status.st_size == 0:
        raise ValueError("the file is empty")
    return path


def _to_rgb(image: Image.Image) -> Image.Image:
    image.load()
    return upright(_plain(image), orientation(image))


def _plain(image: Image.Image) -> Image.Image:
    """The decoded picture as RGB, as it is stored."""
    if 0 in image.size:
        raise ValueError("it has no pixels")
    top, inverted = _white(image)
    deep = image.mode in ("I", "F") or image.mode.startswith("I;16")
    top = 1 if image.mode == "F" else top
    for _, strip in strips(image) if deep else ():  # first: a number that cannot be is the whole picture's fault
        _check_range(np.asarray(strip), top)
    clear = image.info.get("transparency")
    transparent = image.has_transparency_data
    if image.mode == "RGB" and not transparent:
        return image.copy()
    found = Image.new("RGB", image.size)
    for row, strip in strips(image):
        part = _deep_grey(strip, top, inverted, clear) if deep else strip
        if transparent and part.has_transparency_data:
            part = part.convert("RGBA")
            part = Image.alpha_composite(Image.new("RGBA", part.size, "white"), part)
        found.paste(part.convert("RGB"), (0, row))
    return found


_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # tags of TIFF


def _white(image: Image.Image) -> tuple[int, bool]:
    """The whole number that is white in a picture of more than 8 bits, and whether 0 is, both as TIFF may say."""
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(_BITS, (16,))[0]
    if bits <= 16 and 2 in tags.get(_SAMPLE_FORMAT, ()):
        raise ValueError("its values are signed, so that black is not known; store them unsigned")
    return 2 ** min(bits, 16) - 1, tags.get(_PHOTOMETRIC) == 0


def _deep_grey(strip: Image.Image, top: int, inverted: bool, clear: Any) -> Image.Image:
    values = np.asarray(strip)
    grey = _to_bytes(values, top)
    grey = 255 - grey if inverted else grey
    return Image.fromarray(np.where(values == clear, np.uint8(255), grey) if isinstance(clear, int) else grey)


def _check_range(values: NDArray[Any], top: int) -> None:
    low, high = float(values.min()), float(values.max())
    if not math.isfinite(low) or not math.isfinite(high):
        raise ValueError("it has pixels that are NaN or infinite")
    slack = 1e-6 * top  # float arithmetic may overshoot by a rounding error
    if low < -slack or high > top + slack:
        hint = "; divide values of 0..255 by 255" if top == 1 and low >= 0 and high <= 255 else "; rescale it"
        raise ValueError(f"expected values in 0..{top}, got {low:g}..{high:g}{hint}")


def _to_bytes(values: NDArray[Any], top: int) -> NDArray[np.uint8]:
    """Values of 0..top as 0..255, rounded."""
    _check_range(values, top)
    scaled: NDArray[np.uint8] = np.rint(values.clip(0, top) * (255.0 / top)).astype(np.uint8)
    return scaled


def _array_to_image(array: NDArray[Any]) -> Image.Image:
    channels_last = array.ndim == 3 and array.shape[2] in (1, 3, 4)
    if array.ndim == 3 and array.shape[0] in (1, 3, 4) and not channels_last:
        raise ValueError("expected channels last, got channels first; use array.transpose(1, 2, 0)")
    if array.ndim != 2 and not channels_last:
        raise ValueError("expected one picture of shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)")
    if array.size == 0:
        raise ValueError("it has no pixels")
    if np.issubdtype(array.dtype, np.floating):
        array = _to_bytes(array, 1)
    elif array.dtype != np.uint8:
        raise ValueError("expected uint8, or floating values in [0, 1]; convert it to one of these first")
    return Image.fromarray(np.ascontiguousarray(array[:, :, 0] if array.shape[2:] == (1,) else array))


def stretched(tensor: Tensor) -> Image.Image:
    """An RGB picture of an input (C, H, W) whose preprocessing is unknown: its range is stretched to black and white.

    One and three channels are shown as they are, of any other number their mean.
    """
    pixels = tensor.detach().to("cpu", torch.float32)
    pixels = pixels if len(pixels) in (1, 3) else pixels.mean(0, keepdim=True)
    low, high = pixels.amin(), pixels.amax()
    grey = ((pixels - low) / (high - low).clamp_min(1e-12) * 255).round().to(torch.uint8)
    array = grey.permute(1, 2, 0).numpy()
    return Image.fromarray(array[:, :, 0] if len(grey) == 1 else array).convert("RGB")


# ------------------------------------------------------------------------------------------------- preprocessing

_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "sampled": None,  # no filter of Pillow
}
_FITS = {"crop": "centre crop", "squash": "squashed", "letterbox": "letterboxed", "keep": "at its own aspect ratio"}
_DEPTH = {"RGB": 3, "BGR": 3, "L": 1}
_MOST_PIXELS = 2**26  # of a resized picture: an 8192 x 8192 one


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How a picture becomes a network's input: resize, lay out the channels, subtract the mean, divide.

    Attributes:
        size: (height, width) of the input in pixels; for "keep" the most pixels along the short and the long side.
        mean: one number a channel, in the network's order of channels, on the scale 0..value_range.
        std: likewise.
        fit: "crop" covers the size and cuts the rest off at the centre, "squash" changes the aspect ratio,
            "letterbox" shows everything and fills up with `pad`, "keep" gives the picture as it is, made smaller where
            it has more pixels, for networks that take any size (torchvision's detectors): inputs differ in size.
        crop_fraction: share of the resized picture's short side (squash: of both sides; letterbox: of the long
            side) that the size stands for (timm's crop_pct).
        interpolation: Pillow's filter, antialiased; or "sampled": bilinear between the four nearest pixels, as torch
            resizes pictures inside of a network.
        channels: their order in the input.
        value_range: pixels run over 0..value_range before the mean is subtracted (255 for Caffe-like networks).
        pad: grey of the letterbox's margins in [0, 1].

    Raises:
        InvalidInput: a field that cannot be, with the reason.
    """

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fit: Literal["crop", "squash", "letterbox", "keep"] = "crop"
    crop_fraction: float = 1.0
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos", "sampled"] = "bilinear"
    channels: Literal["RGB", "BGR", "L"] = "RGB"
    value_range: float = 1.0
    pad: float = 114 / 255

    def __post_init__(self) -> None:
        for name, known in (("fit", _FITS), ("interpolation", _RESAMPLING), ("channels", _DEPTH)):
            _require(getattr(self, name) in known, name, f"one of {', '.join(known)}", getattr(self, name))
        for name in ("size", "mean", "std"):  # metadata read from JSON has lists
            object.__setattr__(self, name, _as_tuple(name, getattr(self, name)))
        depth = _DEPTH[self.channels]
        whole = len(self.size) == 2 and all(isinstance(s, int) and s > 0 for s in self.size)
        _require(whole, "size", "(height, width) in whole pixels", self.size)
        if self.fit == "keep":
            _require(self.size[0] <= self.size[1], "size", "the short side before the long one", self.size)
            _require(self.crop_fraction == 1, "crop_fraction", "1 where the picture is kept whole", self.crop_fraction)
        top = self.value_range
        _require(0 < top < math.inf, "value_range", "a positive number", top)
        fair = len(self.mean) == depth and all(0 <= m <= top for m in self.mean)
        _require(
            fair, "mean", f"{depth} numbers in 0..{top:g} (value_range), one a channel of {self.channels}", self.mean
        )
        fair = len(self.std) == depth and all(0 < s < math.inf for s in self.std)
        _require(fair, "std", f"{depth} positive numbers, one a channel of {self.channels}", self.std)
        _require(0 < self.crop_fraction <= 1, "crop_fraction", "a number above 0, at most 1", self.crop_fraction)
        _require(0 <= self.pad <= 1, "pad", "a grey in [0, 1]", self.pad)

    def __str__(self) -> str:
        return self.describe()

    def describe(self) -> str:
        """One line for people: size, fit, filter and constants."""
        height, width = self.size
        side = f"at most {height} by {width}" if self.fit == "keep" else f"{height}x{width}"
        part = "" if self.crop_fraction == 1 else f" of {self.crop_fraction:g}"
        means, stds = _numbers(self.mean), _numbers(self.std)
        return (
            f"{side} {self.channels}, {_FITS[self.fit]}{part}, {self.interpolation}; "
            f"values 0..{self.value_range:g}, mean {means}, deviation {stds}"
        )

    def __call__(self, image: Image.Image) -> tuple[Tensor, View]:
        """The input for an RGB picture, and the view back.

        Returns:
            (1, C, H, W) float32, H and W as `size` says, and the view that lays maps of this input on the picture.

        Raises:
            InvalidType: not an RGB PIL image (`read` makes one of anything).
            InvalidInput: a picture so long and thin that it cannot be resized in reasonable memory.
        """
        if not isinstance(image, Image.Image) or image.mode != "RGB":
            got = f"mode {image.mode}" if isinstance(image, Image.Image) else type(image).__name__
            raise InvalidType(f"Expected an RGB PIL image, got {got}. Pass it through seewhy.images.read first.")
        resized = self._resized_size(image.height, image.width)
        size = resized if self.fit == "keep" else self.size
        top, left = (_offset(r, s) for r, s in zip(resized, size, strict=True))
        tensor = torch.from_numpy(self._fitted(image, resized, size, (-top, -left))).permute(2, 0, 1)
        tensor = tensor.flip(0) if self.channels == "BGR" else tensor
        mean, std = constants(self.mean, self.std, 2)
        tensor = (tensor * (self.value_range / 255) - mean) / std
        across, down = image.width / resized[1], image.height / resized[0]
        x1, y1 = left + size[1], top + size[0]
        box = (left * across, top * down, x1 * across, y1 * down)
        return tensor.unsqueeze(0).contiguous(), View(original=(image.height, image.width), box=box)

    def denormalise(self, tensor: Tensor) -> Image.Image:
        """The way back for display: an RGB picture of an input (C, H, W).

        Values that no pixel has (below black, above white) are shown as black and white.

        Raises:
            InvalidInput: wrong shape, or values that are not finite.
        """
        depth = len(self.mean)
        if tensor.ndim != 3 or tensor.shape[0] != depth or tensor.numel() == 0:
            raise InvalidInput(f"Expected one input of shape ({depth}, H, W), got {tuple(tensor.shape)}.")
        pixels = tensor.detach().to("cpu", torch.float32)
        if not bool(torch.isfinite(pixels).all()):
            raise InvalidInput("Expected finite values, got NaN or infinity; such an input cannot be shown.")
        grey = to_unit(pixels, self.mean, self.std, self.value_range).clamp(0, 1) * 255
        grey = grey.flip(0) if self.channels == "BGR" else grey
        array = grey.round().to(torch.uint8).permute(1, 2, 0).numpy()
        return Image.fromarray(array[:, :, 0] if depth == 1 else array).convert("RGB")

    def _resized_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of the whole picture at the input's scale, rounded as timm and torchvision round."""
        target = [math.floor(s / self.crop_fraction) for s in self.size]
        ratios = [height / target[0], width / target[1]]
        if self.fit == "squash":
            size = (target[0], target[1])
        elif self.fit == "keep":
            share = min(1.0, target[0] / min(height, width), target[1] / max(height, width))
            size = (max(1, math.floor(height * share + 1e-6)), max(1, math.floor(width * share + 1e-6)))
        elif self.fit == "crop" and target[0] == target[1]:
            short = min(height, width)
            size = (target[0] * height // short, target[1] * width // short)
        else:
            ratio = min(ratios) if self.fit == "crop" else max(ratios)
            size = (max(1, round(height / ratio)), max(1, round(width / ratio)))
        if size[0] * size[1] > _MOST_PIXELS:
            raise InvalidInput(
                f"A picture of {height}x{width} would be resized to {size[0]}x{size[1]} before the crop. "
                "Use fit='squash' or fit='letterbox', or cut the picture."
            )
        return size

    def _fitted(
        self, image: Image.Image, resized: tuple[int, int], size: tuple[int, int], corner: tuple[int, int]
    ) -> NDArray[np.float32]:
        """(H, W, C) in 0..255: the resized picture on a canvas of ``size``, its upper left corner at (y, x)."""
        pixels = self._resized(image.convert("L") if self.channels == "L" else image, resized)
        canvas = np.full((*size, pixels.shape[2]), round(255 * self.pad), dtype=np.float32)
        here, there = zip(*(_overlap(c, r, s) for c, r, s in zip(corner, resized, size, strict=True)), strict=True)
        canvas[there] = pixels[here]
        return canvas

    def _resized(self, image: Image.Image, size: tuple[int, int]) -> NDArray[np.float32]:
        """(H, W, C) in 0..255."""
        if self.interpolation != "sampled":
            image = image.resize((size[1], size[0]), _RESAMPLING[self.interpolation])
        pixels = np.asarray(image, dtype=np.float32).reshape(image.height, image.width, -1)
        if pixels.shape[:2] == size:
            return pixels
        planes = torch.from_numpy(pixels).permute(2, 0, 1).unsqueeze(0)
        small = F.interpolate(planes, size, mode="bilinear", align_corners=False)
        return small[0].permute(1, 2, 0).numpy()


def _require(good: bool, name: str, expected: str, got: object) -> None:
    if not good:
        raise InvalidInput(f"Preprocessing.{name}: expected {expected}, got {got!r}.")


def _as_tuple(name: str, value: object) -> tuple[Any, ...]:
    if not isinstance(value, tuple | list) or not all(isinstance(v, int | float) for v in value):
        raise InvalidType(f"Preprocessing.{name}: expected a tuple of numbers, got {value!r}.")
    return tuple(value)


def _numbers(values: Sequence[float]) -> str:
    return " ".join(f"{v:g}" for v in (values if len(set(values)) > 1 else values[:1]))


def _offset(resized: int, size: int) -> int:
    """Where the input's window begins on the resized picture; negative where it must be padded."""
    return round((resized - size) / 2) if resized >= size else -((size - resized) // 2)


def _overlap(corner: int, length: int, size: int) -> tuple[slice, slice]:
    """Which pixels of a line that begins at ``corner`` lie on a canvas, and where there."""
    first, last = max(corner, 0), min(corner + length, size)
    return slice(first - corner, last - corner), slice(first, last)


def constants(mean: Sequence[float], std: Sequence[float], trailing: int) -> tuple[Tensor, Tensor]:
    """Mean and deviation as (C, 1, ...) tensors with ``trailing`` dimensions of size 1."""
    shape = (-1,) + (1,) * trailing
    return torch.tensor(mean, dtype=torch.float32).view(shape), torch.tensor(std, dtype=torch.float32).view(shape)


def to_unit(values: Tensor, mean: Sequence[float], std: Sequence[float], value_range: float) -> Tensor:
    """Normalised values (C, ...) as grey in [0, 1]."""
    centre, spread = constants(mean, std, values.ndim - 1)
    return (values * spread + centre) / value_range
