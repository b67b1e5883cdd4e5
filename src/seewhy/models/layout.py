"""Which layers have a map: names, and the order of a layer's dimensions.

An output has a map where it has more than one position and its height and width are the input's divided by one factor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from seewhy.errors import InvalidType, NoSpatialOutput, UnknownLayer, nearest
from seewhy.maps import PICTURE, VOLUME, size_of
from seewhy.models.torch.parts import walk

__all__ = [
    "FIRST", "LAST", "Layout", "Seen", "TokenGrids", "UnlocatedTokens", "check_name", "fingerprint", "fits",
    "is_tokens", "read_layout", "spatial", "without_heads",
]  # fmt: skip


class UnlocatedTokens(Exception):
    """Asks for a look at where tokens of this length lie; never leaves this package."""

    def __init__(self, length: int) -> None:
        super().__init__(length)
        self.length = length


@dataclass(frozen=True)
class Layout:
    """How a layer's output lies in the picture.

    Attributes:
        kind: "first" for (N, C, h, w), "last" for (N, h, w, C), "tokens" for (N, prefix + h w, C), row by row. Maps of
            volumes have d before h.
        prefix: how many tokens stand before those of the picture.
        grid: (h, w) of the tokens.
    """

    kind: str
    prefix: int = 0
    grid: tuple[int, int] = (0, 0)

    def to_maps(self, output: Tensor) -> Tensor:
        """(N, C, h, w) from the layer's output."""
        if self.kind == "tokens":
            rows = output[:, self.prefix :].transpose(1, 2)
            return rows.reshape(*rows.shape[:2], *self.grid)
        return output.movedim(-1, 1) if self.kind == "last" else output

    def to_output(self, maps: Tensor, prefix: Tensor | None = None) -> Tensor:
        """Returns the layer's output from maps (R, C, h, w) and the tokens (R, prefix, C) that stand before them."""
        if self.kind == "tokens":
            rows = maps.flatten(2).transpose(1, 2)
            return rows if prefix is None else torch.cat([prefix.to(rows.dtype), rows], 1)
        return maps.movedim(1, -1) if self.kind == "last" else maps

    def positions(self, rank: int = PICTURE) -> tuple[int, ...]:
        """The dimensions of the output, which has ``rank``, that hold the positions."""
        first = 2 if self.kind == "first" else 1
        return (1,) if self.kind == "tokens" else tuple(range(first, first + rank - 2))


FIRST, LAST = Layout("first"), Layout("last")
TokenGrids = Mapping[int, Layout]


@dataclass(frozen=True)
class Seen:
    """What one module gave in one call."""

    name: str
    kind: str  # "map", "tokens" or "other", and "enters" for tokens that a module is given
    shape: tuple[int, ...] = ()
    grid: tuple[int, ...] = ()  # height and width of a map, of a volume's with its depth before them
    call: int = 1  # which call of the module
    live: bool = True  # whether the picture moves it and the scores depend on it
    carries: bool = True  # whether everything that the scores know of the picture has passed through it
    value: str = ""  # the same for tensors that hold the same
    handed: bool = False  # whether it is what the module was given

    @property
    def last(self) -> bool:
        """Whether a map has its channels last."""
        return self.shape[1:-1] == self.grid and self.shape[2:] != self.grid

    @property
    def channels(self) -> int:
        """How many channels a map has."""
        return self.shape[-1] if self.last else self.shape[1]


def fingerprint(network: nn.Module) -> tuple[Any, ...]:
    """Changes when modules or parameters are replaced; training in place does not change it."""
    modules = walk(network)
    return (*map(id, modules), *[id(p) for m in modules for p in m._parameters.values()])


def check_name(network: nn.Module, layer: Any) -> None:
    """Raises UnknownLayer unless ``layer`` names a module of ``network``, "" or "auto"."""
    if not isinstance(layer, str):
        hint = _name_of(network, layer)
        raise InvalidType(f"layer is the name of a module, a string, got {type(layer).__name__}.{hint}")
    if layer in ("", "auto"):
        return
    try:
        network.get_submodule(layer)
    except AttributeError as error:
        known = [name for name, _ in network.named_modules() if name]
        raise UnknownLayer(f"The network has no layer {layer!r}. {nearest(layer, known)}") from error


def _name_of(network: nn.Module, module: Any) -> str:
    names = [name for name, found in network.named_modules() if found is module]
    return f" Pass {names[0]!r}." if names else ""


def spatial(output: Any, inputs: Tensor) -> str | None:
    """Says "first" for (N,C,h,w), "last" for (N,h,w,C), "both" where the shape fits either, None for neither.

    Maps of a volume have as many dimensions as the volume.
    """
    if not isinstance(output, Tensor) or output.ndim != inputs.ndim or not output.dtype.is_floating_point:
        return None
    if len(output) != len(inputs) or _is_attention(output):  # windows of a picture are no pictures
        return None
    first = fits(output.shape[2:], size_of(inputs))
    last = fits(output.shape[1:-1], size_of(inputs))
    return "both" if first and last else "first" if first else "last" if last else None


def _is_attention(output: Tensor) -> bool:
    """True for (N, heads, queries, keys) with rows that sum to 1: perhaps as high and wide as a map, but of tokens."""
    if output.shape[-1] == 1:
        return False
    first = output.detach()[(0,) * (output.ndim - 1)]
    if abs(float(first.float().sum()) - 1) >= 1e-2:  # most maps end here
        return False
    row = output[..., 0, :].detach()
    return bool((row >= 0).all()) and bool(((row.float().sum(-1) - 1).abs() < 1e-2).all())


def fits(size: tuple[int, ...], image: tuple[int, ...]) -> bool:
    """True when size is the image's divided by one factor, up to one position of rounding or padding at each border.

    Of a volume's or clip's three axes one may have a factor of its own: slices, or frames, seldom lie as close as
    pixels.
    """
    if len(image) == 3:
        smaller = all(s <= whole + 2 for s, whole in zip(size, image, strict=True)) and math.prod(size) > 1
        pairs = [(1, 2), (0, 1), (0, 2)]
        return smaller and any(_one_factor(*((s[a], s[b]) for s in (size, image))) for a, b in pairs)
    return size[0] * size[1] > 1 and _one_factor(size, image)


def _one_factor(size: tuple[int, ...], image: tuple[int, ...]) -> bool:
    h, w, height, width = *size, *image
    if h > height + 2 or w > width + 2:
        return False
    factor = math.sqrt((height / h) * (width / w))
    return abs(h - height / factor) <= 1.5 and abs(w - width / factor) <= 1.5


def read_layout(
    output: Any, inputs: Tensor, layer: str, tokens: Callable[[], TokenGrids]
) -> tuple[Layout, tuple[str, ...]]:
    """How a layer's output lies in the picture, and a warning where that had to be guessed.

    Args:
        output: of the layer.
        inputs: (N, C, H, W), or (N, C, D, H, W).
        layer: its name.
        tokens: gives what is known of rows of tokens, by their length.

    Raises:
        NoSpatialOutput: the layer has no height and width.
        UnlocatedTokens: it gives tokens of a length that was not yet looked into.
    """
    if is_tokens(output) and len(output) == len(inputs):
        if (known := tokens().get(output.shape[1])) is None:
            raise UnlocatedTokens(output.shape[1])
        return known, ()
    order = spatial(output, inputs)
    if order is None:
        raise NoSpatialOutput(
            f"Layer {layer!r} has no spatial map: it gives {_shape(output)} for an input of {tuple(inputs.shape)}. "
            f"Choose a layer with an output {_read(inputs, last=False)}, or layer='auto'."
        )
    if order != "both":
        return FIRST if order == "first" else LAST, ()
    first, last = (_divides(size, inputs) for size in (output.shape[2:], output.shape[1:-1]))
    if first and last:
        first, last = (_even(size, inputs) for size in (output.shape[2:], output.shape[1:-1]))
    if first and not last:
        return FIRST, ()
    last = last and not first
    read = _read(inputs, last=last)
    return LAST if last else FIRST, (f"The output of layer {layer!r}, {_shape(output)}, was read as {read}.",)


def _read(inputs: Tensor, *, last: bool) -> str:
    axes = "d, h, w" if inputs.ndim == VOLUME else "h, w"
    return f"(N, {axes}, C)" if last else f"(N, C, {axes})"


def _even(size: tuple[int, ...], inputs: Tensor) -> bool:
    """Whether all axes of a map have one factor."""
    return all(_one_factor(size[k : k + 2], size_of(inputs)[k : k + 2]) for k in range(len(size) - 1))


def _divides(size: tuple[int, ...], inputs: Tensor) -> bool:
    """True when the picture is ``size`` times a whole number, the same in height and width."""
    *front, (height, h), (width, w) = zip(size_of(inputs), size, strict=True)
    factor, rest = divmod(height, h)
    return rest == 0 and width == factor * w and all(whole % d == 0 for whole, d in front)


def _shape(output: Any) -> str:
    return str(tuple(output.shape)) if isinstance(output, Tensor) else f"a {type(output).__name__}"


def without_heads(seen: list[Seen]) -> list[Seen]:
    """Queries and keys (1, heads, L or 1, d) of tokens (1, L, heads d) are no maps, even where they look like one."""
    tokens = [i for i, s in enumerate(seen) if s.kind in ("tokens", "enters") and s.shape[0] == 1]
    lengths, widths = ({seen[i].shape[d] for i in tokens} for d in (1, 2))

    def heads(place: int, one: Seen) -> bool:
        after = one.kind == "map" and len(one.shape) == PICTURE and bool(tokens) and place > tokens[0]
        return after and one.shape[2] in {1, *lengths} and one.shape[1] * one.shape[3] in widths

    return [replace(s, kind="other", grid=()) if heads(i, s) else s for i, s in enumerate(seen)]


def is_tokens(output: Any) -> bool:
    """True for (N, L, C): a row of vectors, of which each may stand for a position."""
    return isinstance(output, Tensor) and output.ndim == 3 and output.shape[1] > 1
