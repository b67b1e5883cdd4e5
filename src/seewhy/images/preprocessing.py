"""Turns an upright RGB image into a network's input, and an input back into an image for display.

`Preprocessing` also gives the `View`: which part of the image the network saw. An input whose preprocessing is not
known is shown by `stretched`.

Positions are in pixels with the half-pixel convention: pixel i covers i to i + 1, its centre is at i + 0.5.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from seewhy.errors import InvalidInput, InvalidType
from seewhy.images.deep import Deep, deep, three, windowed
from seewhy.images.view import View

__all__ = ["Preprocessing", "constants", "stretched", "to_unit"]


_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "sampled": None,  # no filter of Pillow
}
_FITS = {"crop": "centre crop", "squash": "squashed", "letterbox": "letterboxed", "keep": "at its own aspect ratio"}
_LUMA = (0.299, 0.587, 0.114)  # as Pillow makes grey of colours
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
        channels: their order in the input; or how many, for pictures of several bands, which come in the file's order.
        value_range: pixels run over 0..value_range before the mean is subtracted (255 for Caffe-like networks).
        pad: grey of the letterbox's margins in [0, 1].
        window: the values of the file that are black and white, for pictures that use another part of their range than
            0 to the largest value: (0, 4095) for 12 bits in a file of 16, (level - width / 2, level + width / 2) for
            a radiograph. Values beyond are cut off.
        show: of a picture with more than three channels, those that people see as red, green and blue; the first
            three if not given. The network gets all.

    Raises:
        InvalidInput: a field that cannot be, with the reason.

    Example:
        >>> preprocessing = Preprocessing(size=(224, 224), mean=(0.5,) * 3, std=(0.5,) * 3)
        >>> inputs, view = preprocessing(photo)
        >>> inputs.shape, view.original
        (torch.Size([1, 3, 224, 224]), (40, 60))
    """

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fit: Literal["crop", "squash", "letterbox", "keep"] = "crop"
    crop_fraction: float = 1.0
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos", "sampled"] = "bilinear"
    channels: Literal["RGB", "BGR", "L"] | int = "RGB"
    value_range: float = 1.0
    pad: float = 114 / 255
    window: tuple[float, float] | None = None
    show: tuple[int, int, int] | None = None

    def __post_init__(self) -> None:
        for name, known in (("fit", _FITS), ("interpolation", _RESAMPLING)):
            _require(getattr(self, name) in known, name, f"one of {', '.join(known)}", getattr(self, name))
        self._check_channels()
        for name in ("size", "mean", "std"):  # metadata read from JSON has lists
            object.__setattr__(self, name, _as_tuple(name, getattr(self, name)))
        depth = _depth(self.channels)
        whole = len(self.size) == 2 and all(isinstance(s, int) and s > 0 for s in self.size)
        _require(whole, "size", "(height, width) in whole pixels", self.size)
        if self.fit == "keep":
            _require(self.size[0] <= self.size[1], "size", "the short side before the long one", self.size)
            _require(self.crop_fraction == 1, "crop_fraction", "1 where the picture is kept whole", self.crop_fraction)
        top = self.value_range
        _require(0 < top < math.inf, "value_range", "a positive number", top)
        fair = len(self.mean) == depth and all(0 <= m <= top for m in self.mean)
        _require(
            fair,
            "mean",
            f"{depth} numbers in 0..{top:g} (value_range), one a channel of {_channels(self.channels)}",
            self.mean,
        )
        fair = len(self.std) == depth and all(0 < s < math.inf for s in self.std)
        _require(fair, "std", f"{depth} positive numbers, one a channel of {_channels(self.channels)}", self.std)
        _require(0 < self.crop_fraction <= 1, "crop_fraction", "a number above 0, at most 1", self.crop_fraction)
        _require(0 <= self.pad <= 1, "pad", "a grey in [0, 1]", self.pad)
        if self.window is not None:
            object.__setattr__(self, "window", _as_tuple("window", self.window))
            fair = len(self.window) == 2 and -math.inf < self.window[0] < self.window[1] < math.inf
            _require(fair, "window", "(black, white) with black below white", self.window)

    def _check_channels(self) -> None:
        known = self.channels in _DEPTH or (type(self.channels) is int and self.channels > 0)
        _require(known, "channels", f"one of {', '.join(_DEPTH)}, or how many", self.channels)
        if self.show is None:
            return
        object.__setattr__(self, "show", _as_tuple("show", self.show))
        depth = _depth(self.channels)
        fair = len(self.show) == 3 and all(type(one) is int and 0 <= one < depth for one in self.show)
        _require(fair, "show", f"three channels of 0 to {depth - 1}", self.show)

    def __str__(self) -> str:
        return self.describe()

    def describe(self) -> str:
        """One line for people: size, fit, filter and constants."""
        height, width = self.size
        side = f"at most {height} by {width}" if self.fit == "keep" else f"{height}x{width}"
        part = "" if self.crop_fraction == 1 else f" of {self.crop_fraction:g}"
        means, stds = _numbers(self.mean), _numbers(self.std)
        return (
            f"{side} {_channels(self.channels)}, {_FITS[self.fit]}{part}, {self.interpolation}; "
            f"values 0..{self.value_range:g}, mean {means}, deviation {stds}"
            f"{'' if self.window is None else f', black {self.window[0]:g} and white {self.window[1]:g}'}"
        )

    def __call__(self, image: Image.Image) -> tuple[Tensor, View]:
        """Returns the input for an RGB picture, and the view back.

        Returns:
            (1, C, H, W) float32, H and W as `size` says, and the view that lays maps of this input on the picture.

        Raises:
            InvalidType: not an RGB PIL image (`read` makes one of anything).
            InvalidInput: a picture so long and thin that it cannot be resized in reasonable memory.
        """
        self._check(image)
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

    @staticmethod
    def _check(image: Image.Image) -> None:
        if not isinstance(image, Image.Image) or image.mode != "RGB":
            got = f"mode {image.mode}" if isinstance(image, Image.Image) else type(image).__name__
            raise InvalidType(f"Expected an RGB PIL image, got {got}. Pass it through seewhy.images.read first.")

    def denormalise(self, tensor: Tensor) -> Image.Image:
        """Returns the way back for display: an RGB picture of an input (C, H, W).

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
        unit = to_unit(pixels, self.mean, self.std, self.value_range).clamp(0, 1)
        shown = torch.from_numpy(three(unit.permute(1, 2, 0).numpy(), self.show))
        unit = shown.unsqueeze(0) if shown.ndim == 2 else shown.permute(2, 0, 1)
        return _shown(unit.flip(0) if self.channels == "BGR" else unit)

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
        known = deep(image)
        self._check_bands(3 if known is None else known.bands, known is not None)
        if known is None and self.window is None:
            pixels = self._resized(image.convert("L") if self.channels == "L" else image, resized)
        else:
            pixels = self._deeply_resized(image, known, resized)
        canvas = np.full((*size, pixels.shape[2]), round(255 * self.pad), dtype=np.float32)
        here, there = zip(*(_overlap(c, r, s) for c, r, s in zip(corner, resized, size, strict=True)), strict=True)
        canvas[there] = pixels[here]
        return canvas

    def _deeply_resized(self, image: Image.Image, known: Deep | None, size: tuple[int, int]) -> NDArray[np.float32]:
        """(H, W, C) in 0..255, of which nothing was rounded."""
        if known is None:
            low, high = self.window or (0.0, 255.0)
            units = ((np.asarray(image, np.float32) - low) / (high - low)).clip(0, 1)
        else:
            units = known.units(self.window)
        planes = [units] if units.ndim == 2 else list(units.transpose(2, 0, 1))
        if self.channels == "L" and len(planes) == 3:
            planes = [sum((share * plane for share, plane in zip(_LUMA, planes, strict=True)), np.float32(0))]
        made = [self._resized(Image.fromarray(plane * np.float32(255)), size) for plane in planes]
        found = np.concatenate(made if len(made) == len(self.mean) else made * len(self.mean), 2)
        return found.clip(0, 255)  # a filter may overshoot, which 8 bits would cut off, too

    def _check_bands(self, bands: int, deep: bool) -> None:
        """Raises where channels would have to be left out or made up."""
        wanted = _depth(self.channels)
        if bands == wanted or (not isinstance(self.channels, int) and bands in (1, 3)):
            return
        if isinstance(self.channels, int) and wanted == 1 and not deep:
            raise InvalidInput(
                "Expected a picture of 1 channel, got 3. Preprocessing(channels='L') makes grey of colours."
            )
        raise InvalidInput(
            f"The network takes {_channels(self.channels)}, and the picture has {bands} channel{'s' * (bands > 1)}. "
            "Say how many it takes with Preprocessing(channels=...), and pass pictures that have as many."
        )

    def seen(self, image: Image.Image) -> Image.Image:
        """Returns the picture as people are to see it: with black and white where the network sees them."""
        return windowed(image, self.window, self.show)

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


def stretched(tensor: Tensor) -> Image.Image:
    """Shows an input (C, H, W) whose preprocessing is not known as RGB: its range is stretched from black to white.

    One and three channels are shown as they are, of any other number their mean.
    """
    return stretched_slices(tensor.unsqueeze(1))[0]


def stretched_slices(tensor: Tensor) -> list[Image.Image]:
    """The slices of a volume or clip (C, D, H, W) in the same way, all with one black and one white."""
    pixels = tensor.detach().to("cpu", torch.float32)
    pixels = pixels if len(pixels) in (1, 3) else pixels.mean(0, keepdim=True)
    low, high = pixels.amin(), pixels.amax()
    unit = (pixels - low) / (high - low).clamp_min(1e-12)
    return [_shown(one) for one in unit.unbind(1)]


def _shown(unit: Tensor) -> Image.Image:
    """RGB of (1, H, W) or (3, H, W) in [0, 1]."""
    array = (unit * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    return Image.fromarray(array[:, :, 0] if len(unit) == 1 else array).convert("RGB")


def _depth(channels: str | int) -> int:
    return channels if isinstance(channels, int) else _DEPTH[channels]


def _channels(channels: str | int) -> str:
    return channels if isinstance(channels, str) else f"{channels} channels"


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
