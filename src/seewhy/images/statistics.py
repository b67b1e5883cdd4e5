"""Whether an input looks like a picture under the preprocessing that the network expects.

Networks answer confidently on pictures that were not normalised, or normalised for another network; nothing else
tells. What is decided here is what can be decided from the values alone.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from seewhy.errors import InvalidInput
from seewhy.images.preprocessing import Preprocessing, constants, to_unit

__all__ = ["check_statistics"]


class _Convention(NamedTuple):
    name: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    value_range: float = 1.0


_IMAGENET = (0.485, 0.456, 0.406)
_CAFFE = (103.939, 116.779, 123.68)
_CONVENTIONS = (
    _Convention("values of 0..1", (0,), (1,)),
    _Convention("values of 0..255", (0,), (1,), 255),
    _Convention("values of -1..1", (0.5,), (0.5,)),
    _Convention("ImageNet's mean and deviation", _IMAGENET, (0.229, 0.224, 0.225)),
    _Convention("ImageNet's mean without its deviation", _IMAGENET, (1,)),
    _Convention("CLIP's mean and deviation", (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    _Convention("Caffe's mean (BGR)", _CAFFE, (1,), 255),
    _Convention("Caffe's mean (RGB)", _CAFFE[::-1], (1,), 255),
)


def check_statistics(inputs: Tensor, preprocessing: Preprocessing) -> list[str]:
    """Warnings, one sentence each, when inputs do not look like pictures under the preprocessing.

    Pictures of 8 bits have whole grey levels, and only the constants that were really used give them back: where
    some constants do, they decide. Elsewhere (pictures resized as floats, noise) the range of the values decides,
    and only what no picture has is reported.

    Args:
        inputs: (N, C, H, W), as the network gets them.
        preprocessing: what the network expects.

    Returns:
        One warning for each cause found, naming the pictures when it is not all of them; empty when nothing is odd.

    Raises:
        InvalidInput: the shape does not fit the preprocessing's channels.
    """
    depth = len(preprocessing.mean)
    if inputs.ndim != 4 or inputs.shape[1] != depth or inputs.numel() == 0:
        raise InvalidInput(f"Expected inputs of shape (N, {depth}, H, W), got {tuple(inputs.shape)}.")
    causes: dict[str, list[int]] = {}
    flat = inputs.detach().to("cpu", torch.float32).flatten(2)
    for number, picture in enumerate(flat):
        causes.setdefault(_odd(picture, preprocessing), []).append(number)
    causes.pop("", None)
    return [_sentence(cause, flat, members, preprocessing) for cause, members in causes.items()]


def _sentence(cause: str, flat: Tensor, members: list[int], preprocessing: Preprocessing) -> str:
    few = ", ".join(str(m) for m in members[:8]) + (", ..." if len(members) > 8 else "")
    which = "The input" if len(members) == len(flat) else f"The input (picture {few} of {len(flat)})"
    values = flat[members]
    mean, std = constants(preprocessing.mean, preprocessing.std, 0)
    low, high = float((-mean / std).min()), float(((preprocessing.value_range - mean) / std).max())
    return (
        f"{which} {cause}: its values run from {float(values.min()):.3g} to {float(values.max()):.3g}, "
        f"the network's preprocessing ({preprocessing.describe()}) gives {low:.3g} to {high:.3g}."
    )


def _odd(picture: Tensor, expected: Preprocessing) -> str:
    """What is wrong with a picture (C, H * W); empty when nothing is."""
    if not bool(torch.isfinite(picture).all()):
        return "has pixels that are NaN or infinite"
    if bool((picture == picture[:, :1]).all()):
        return "is one flat colour"
    levels = _levels(picture)
    own = _Convention("", expected.mean, expected.std, expected.value_range)
    if _whole_grey(levels, own):
        return ""
    swapped = _Convention(
        "this preprocessing with mean and deviation in the reverse order of channels",
        own.mean[::-1],
        own.std[::-1],
        own.value_range,
    )
    for convention in (*_CONVENTIONS, swapped):
        if len(convention.mean) in (1, len(levels)) and _whole_grey(levels, convention):
            return f"looks like {convention.name}"
    return _out_of_range(picture, expected)


def _levels(picture: Tensor) -> list[Tensor]:
    """Returns the distinct values of each channel, from a sample of its pixels."""
    step = max(1, picture.shape[1] // 4096)
    return [channel[::step].unique() for channel in picture]


def _whole_grey(levels: list[Tensor], convention: _Convention) -> bool:
    """Says whether (nearly) all values are whole grey levels of 0..255 when the convention is undone."""
    depth = len(levels)
    mean, std = (c if len(c) == depth else c * depth for c in (convention.mean, convention.std))
    greys = [
        255 * to_unit(v[None], (m,), (s,), convention.value_range) for v, m, s in zip(levels, mean, std, strict=True)
    ]
    grey = torch.cat(greys, dim=1)
    whole = ((grey - grey.round()).abs() < 0.02) & (grey > -0.5) & (grey < 255.5)
    # Few levels could be whole by chance; a few odd ones may be padding.
    return grey.numel() >= 8 and float(whole.float().mean()) > 0.97


def _out_of_range(picture: Tensor, expected: Preprocessing) -> str:
    unit = to_unit(picture, expected.mean, expected.std, expected.value_range)
    low, high = float(unit.min()), float(unit.max())
    outside = float(((unit < -0.02) | (unit > 1.02)).float().mean())
    # Bicubic and Lanczos filters overshoot, but in few pixels and not far.
    if outside > 0.05 or low < -0.35 or high > 1.35:
        bytes_like = float(picture.min()) > -1 and 10 < float(picture.max()) < 300
        return "looks like values of 0..255" if bytes_like else "lies outside the range of pictures"
    if high - low < 0.06:
        return "has hardly any contrast"
    bottom = -torch.tensor(expected.mean) / torch.tensor(expected.std)
    lowest, highest = picture.amin(dim=1), picture.amax(dim=1)
    if float(bottom.max()) < -0.2 and float(lowest.min()) >= 0 and float(highest.max()) <= 1:
        return "looks like values of 0..1"
    if float(bottom.max()) < -1.3 and float((lowest + 1).abs().max()) < 0.1 and float((highest - 1).abs().max()) < 0.1:
        return "looks like values of -1..1"
    return ""
