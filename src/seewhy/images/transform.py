"""Other people's transforms as preprocessing: of torchvision, timm, albumentations, Hugging Face, or any callable.

The transform itself makes the input, so the network gets what it was trained with. What seewhy has to know beside
that is learned from what the transform does to pictures that are made for it:

- plain greys and colours show the constants: the mean and deviation of each channel, and the order of the channels;
- for every size of picture, a picture of coordinates (each pixel's colour says where it lies) shows which part of it
  the input covers: resized, cropped, squashed or padded. A line is fitted to the coordinates that come out, so the
  place is known to a fraction of a pixel.

A transform that is random, turns, mirrors or bends the picture is refused: its maps could not be laid on the picture.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from seewhy.errors import InvalidInput, InvalidType, raised_by
from seewhy.images.preprocessing import Preprocessing
from seewhy.images.view import View

__all__ = ["Transform", "as_preprocessing"]

Greys = NDArray[np.float32]
_SIDES = (287, 331)  # height and width of the picture that the constants are learned from: nothing's usual size
_REFUSED = "Pass the transform that the network is tested with, or a seewhy.Preprocessing."


def as_preprocessing(given: Any) -> Preprocessing:
    """Makes a preprocessing of a transform of any library.

    Args:
        given: a `Preprocessing`, which is returned as it is; a transform of torchvision (v1, v2) or timm, one of
            albumentations, a processor of Hugging Face, or any callable that makes an input of a PIL image.

    Returns:
        The preprocessing, which makes the same tensors as what was given.

    Raises:
        InvalidType: it is none of these, or returns no tensor.
        InvalidInput: it is random, or what it does to a picture cannot be told.

    Example:
        >>> from torchvision.transforms import v2
        >>> steps = [v2.Resize(8), v2.CenterCrop(8), v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)]
        >>> as_preprocessing(v2.Compose(steps)).describe()
        '8x8 RGB, by Compose; values 0..1, mean 0, deviation 1'
    """
    if isinstance(given, Preprocessing):
        return given
    call = _caller(given)
    probe = _textured(*_SIDES)
    first = _input(call, probe)
    if not torch.equal(first, _input(call, probe)):
        raise InvalidInput(f"{_title(given)} is random: it makes two inputs of one picture. {_REFUSED}")
    mean, std, channels = _constants(call, _title(given))
    known = hashlib.blake2b(first.numpy().tobytes(), digest_size=6).hexdigest()
    return Transform(
        size=(first.shape[1], first.shape[2]), mean=mean, std=std, channels=channels, transform=call,
        title=_title(given), sketch=known,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Transform(Preprocessing):
    """Somebody else's transform; made by `as_preprocessing`.

    Attributes:
        transform: a PIL image -> (C, H, W), (1, C, H, W) or an array (H, W, C).
        title: what it is called in reports.
        sketch: a digest of what it makes of one picture, by which two transforms are told apart.
        size: of the input that one picture became; others may become inputs of other sizes.
    """

    transform: Callable[[Image.Image], Any] = field(compare=False, repr=False)
    title: str
    sketch: str

    def describe(self) -> str:
        """One line for people: size, whose transform, constants."""
        middle = super().describe().partition("; ")[2]
        return f"{self.size[0]}x{self.size[1]} {self.channels}, by {self.title}; {middle}"

    def __call__(self, image: Image.Image) -> tuple[Tensor, View]:
        """Returns the transform's own input (1, C, H, W) float32 for an RGB picture, and the view back.

        Raises:
            InvalidType: not an RGB PIL image, or the transform returns no tensor.
            InvalidInput: the transform turns, mirrors or bends a picture of this size, or raises.
        """
        self._check(image)
        made = _input(self.transform, image)
        size = (made.shape[1], made.shape[2])
        return made.unsqueeze(0).contiguous(), _view(self, image.height, image.width, size)


@lru_cache(maxsize=4096)
def _view(known: Transform, height: int, width: int, size: tuple[int, int]) -> View:
    """Which part of a picture of this size the input covers."""

    def seen(grey: Greys) -> Greys:
        """(h, w) in 0..1: what the transform makes of a grey picture."""
        made = _input(known.transform, _grey(np.broadcast_to(grey, (height, width))))
        if tuple(made.shape[1:]) != size:
            raise InvalidInput(
                f"{known.title} makes inputs of other sizes of pictures of one size, {width} x {height} pixels. "
                f"{_REFUSED}"
            )
        shown = (made * torch.tensor(known.std).view(-1, 1, 1) + torch.tensor(known.mean).view(-1, 1, 1)).mean(0)
        return shown.numpy()

    black, white = seen(np.zeros((1, 1), np.float32)), seen(np.ones((1, 1), np.float32))
    inside = (white - black) > 0.99  # a padded margin is the same whatever the picture
    across = seen(_ramp(width)[None, :])
    down = seen(_ramp(height)[:, None])
    x0, x1 = _span(known.title, across, inside, width)
    y0, y1 = _span(known.title, down.T, inside.T, height)
    return View(original=(height, width), box=(x0, y0, x1, y1))


def _ramp(pixels: int) -> Greys:
    """(pixels,) in 0..1: the middle of each pixel's place along a side, from one tenth to nine tenths of the greys.

    The greys at both ends are kept away from black and white, where filters that overshoot are cut off.
    """
    return np.asarray(0.1 + 0.8 * (np.arange(pixels) + 0.5) / pixels, dtype=np.float32)


def _span(title: str, seen: Greys, inside: NDArray[np.bool_], pixels: int) -> tuple[float, float]:
    """Where the first and the last column of the input (h, w) end in the picture, from the coordinates in it."""
    columns = np.flatnonzero(inside.any(0))
    if len(columns) < 2 or not inside[:, columns].any():
        raise InvalidInput(f"{title} shows next to nothing of a picture. {_REFUSED}")
    where = (seen - 0.1) / 0.8 * pixels
    counts = inside[:, columns].sum(0)
    means = np.where(inside, where, 0)[:, columns].sum(0) / np.maximum(counts, 1)
    uneven = float(np.abs(np.where(inside, where, 0)[:, columns] - np.where(inside[:, columns], means, 0)).max())
    step = pixels / (0.8 * 255)  # of a coordinate, as greys of 8 bits tell it
    # Filters have less to take a mean of at the border of the picture: the outer columns lie.
    margin = min(max(1, len(columns) // 16), (len(columns) - 2) // 2)
    inner = slice(margin, len(columns) - margin)
    slope, start = np.polyfit(columns[inner] + 0.5, means[inner], 1)
    bent = float(np.abs(means[inner] - (start + slope * (columns[inner] + 0.5))).max())
    if uneven > 2 * step + 0.01 * pixels or slope <= 0 or bent > 1.5 * step + 2 * abs(slope):
        raise InvalidInput(
            f"{title} turns, mirrors or bends pictures, so that a map cannot be laid on the picture. {_REFUSED}"
        )
    low, high = float(start), float(start + slope * seen.shape[1])
    # Most transforms show the whole side: what is so but for the rounding of greys is so.
    near = max(0.25, step / 8)
    whole = abs(low) < near and abs(high - pixels) < near
    return (0.0, float(pixels)) if whole else (low, high)


def _constants(
    call: Callable[[Image.Image], Any], title: str
) -> tuple[tuple[float, ...], tuple[float, ...], Literal["RGB", "BGR", "L"]]:
    """Mean and deviation of each channel on the scale 0..1, and the channels' order."""

    def middle(colour: tuple[int, int, int]) -> Tensor:
        """(C,) what a picture of one colour becomes at its centre."""
        made = _input(call, Image.new("RGB", (_SIDES[1], _SIDES[0]), colour))
        return made[:, made.shape[1] // 2, made.shape[2] // 2].double()

    black, grey, white = middle((0, 0, 0)), middle((51, 51, 51)), middle((255, 255, 255))
    span = white - black
    if len(span) not in (1, 3) or not bool((span > 1e-9).all()):
        raise InvalidInput(
            f"{title} makes an input with {len(span)} channels in which white is not above black. An input has 1 or 3 "
            f"channels that grow with the brightness. {_REFUSED}"
        )
    if not torch.allclose((grey - black) / span, torch.full_like(span, 0.2), atol=0.01):
        raise InvalidInput(
            f"{title} does not change greys in proportion (a fifth of white becomes "
            f"{float(((grey - black) / span)[0]):.3g} of it), so an input cannot be shown. {_REFUSED}"
        )
    std = 1 / span
    mean = (-black * std).clamp(0, 1) + 0.0  # no minus zero
    order: Literal["RGB", "BGR", "L"] = "L"
    if len(span) == 3:
        brightest = int(((middle((255, 0, 0)) - black) / span).argmax())
        order = "RGB" if brightest == 0 else "BGR"
    digits = 7
    return (
        tuple(round(float(m), digits) for m in mean),
        tuple(float(f"{float(s):.{digits}g}") for s in std),
        order,
    )


def _textured(height: int, width: int) -> Image.Image:
    """Returns the same picture each time, without symmetry."""
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3))
    return Image.fromarray(pixels.astype(np.uint8))


def _grey(values: Greys) -> Image.Image:
    """Returns an RGB picture of greys (H, W) in 0..1.

    Neighbours are rounded by different thresholds, so that the means over rows are finer than 8 bits.
    """
    rows, columns = np.ogrid[: values.shape[0], : values.shape[1]]
    levels = np.floor(values * 255 + (rows * 0.618034 + columns * 0.754878) % 1).astype(np.uint8)
    return Image.fromarray(np.repeat(levels[:, :, None], 3, axis=2))


# ------------------------------------------------------------------------------------------ whose transform it is


def _title(given: Any) -> str:
    return given.__name__ if hasattr(given, "__qualname__") else type(given).__name__


def _caller(given: Any) -> Callable[[Image.Image], Any]:
    """How a transform is called with a PIL image."""
    if isinstance(given, type):
        raise InvalidType(f"preprocessing: expected a transform, got the class {given.__name__}. Make one of it.")
    libraries = {cls.__module__.partition(".")[0] for cls in type(given).__mro__}
    if "transformers" in libraries:
        return _Processor(getattr(given, "image_processor", given))
    if "albumentations" in libraries:
        return _Albumentation(given)
    if not callable(given):
        raise InvalidType(
            "preprocessing: expected a seewhy.Preprocessing, a transform of torchvision, timm or albumentations, a "
            f"processor of Hugging Face, or a callable PIL image -> tensor; got {type(given).__name__}."
        )
    called: Callable[[Image.Image], Any] = given
    return called


@dataclass(frozen=True)
class _Processor:
    """A processor of Hugging Face's transformers."""

    own: Any

    def __call__(self, image: Image.Image) -> Any:
        return self.own(images=image, return_tensors="pt")


@dataclass(frozen=True)
class _Albumentation:
    """A transform of albumentations, which takes arrays by name."""

    own: Any

    def __call__(self, image: Image.Image) -> Any:
        return self.own(image=np.asarray(image))


def _input(call: Callable[[Image.Image], Any], image: Image.Image) -> Tensor:
    """(C, H, W) float32: what the transform makes of a picture."""
    title = _title(getattr(call, "own", call))
    with raised_by(f"The transform {title}"):
        made = call(image)
    if isinstance(made, Mapping):
        made = next((made[name] for name in ("pixel_values", "image") if name in made), made)
    if isinstance(made, list | tuple) and len(made) == 1:
        made = made[0]
    if isinstance(made, np.ndarray):
        last = made.ndim == 3 and made.shape[2] in (1, 3) and made.shape[0] not in (1, 3)
        made = torch.from_numpy(np.ascontiguousarray(made.transpose(2, 0, 1) if last else made))
    if isinstance(made, Tensor) and made.ndim == 4 and len(made) == 1:
        made = made[0]
    if not isinstance(made, Tensor) or made.ndim != 3 or made.numel() == 0:
        got = f"a tensor of shape {tuple(made.shape)}" if isinstance(made, Tensor) else f"a {type(made).__name__}"
        hint = " Add ToTensor() (or ToImage() and ToDtype()) to it." if isinstance(made, Image.Image) else ""
        raise InvalidType(f"{title} must make a tensor (C, H, W) of a PIL image, got {got}.{hint}")
    if not made.dtype.is_floating_point:
        raise InvalidType(
            f"{title} must make floating-point inputs, got {str(made.dtype).removeprefix('torch.')}. Add "
            "ToDtype(torch.float32, scale=True) to it."
        )
    return made.detach().to("cpu", torch.float32)
