"""Which layer has a map: names, the automatic choice, and the order of a layer's dimensions.

The automatic layer is the last one (in the order of execution, outermost module first) whose output has more than one
position and whose height and width are the input's divided by one factor. Where tokens are produced after it, the
network is a vision transformer and its last map is only the patch embedding: that is an error, not a choice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from seewhy.errors import InvalidType, NoSpatialOutput, UnknownLayer, nearest

__all__ = ["channels_last", "check_name", "find_layer", "fingerprint", "spatial"]

_found: WeakKeyDictionary[nn.Module, dict[Any, str]] = WeakKeyDictionary()


@dataclass(frozen=True)
class _Seen:
    name: str
    kind: str  # "map", "tokens" or "other"


def fingerprint(network: nn.Module) -> tuple[Any, ...]:
    """Changes when modules or parameters are replaced; training in place does not change it."""
    modules = list(network.modules())
    return (*map(id, modules), *(id(p) for m in modules for p in m._parameters.values()))


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
    """Says "first" for (N,C,h,w), "last" for (N,h,w,C), "both" where the shape fits either, None for neither."""
    if not isinstance(output, Tensor) or output.ndim != 4 or not output.dtype.is_floating_point:
        return None
    if len(output) != len(inputs) or _is_attention(output):  # windows of a picture are no pictures
        return None
    first = _fits(output.shape[2:], inputs.shape[2:])
    last = _fits(output.shape[1:3], inputs.shape[2:])
    return "both" if first and last else "first" if first else "last" if last else None


def _is_attention(output: Tensor) -> bool:
    """True for (N, heads, L, L) with rows that sum to 1: as high and wide as a map, but of tokens by tokens."""
    if output.shape[2] != output.shape[3] or output.shape[3] == 1:
        return False
    row = output[:, :, 0].detach()
    return bool((row >= 0).all()) and bool(((row.float().sum(-1) - 1).abs() < 1e-2).all())


def _fits(size: tuple[int, ...], image: tuple[int, ...]) -> bool:
    """True when size is the image's divided by one factor, up to one position of rounding or padding at each border."""
    h, w, height, width = *size, *image
    if h * w <= 1 or h > height + 2 or w > width + 2:
        return False
    factor = math.sqrt((height / h) * (width / w))
    return abs(h - height / factor) <= 1.5 and abs(w - width / factor) <= 1.5


def channels_last(output: Any, inputs: Tensor, layer: str) -> tuple[bool, tuple[str, ...]]:
    """Whether the layer gives (N,h,w,C), and a warning where that had to be guessed.

    Raises:
        NoSpatialOutput: the layer has no height and width.
    """
    order = spatial(output, inputs)
    if order is None:
        raise NoSpatialOutput(
            f"Layer {layer!r} has no spatial map: it gives {_shape(output)} for an input of {tuple(inputs.shape)}. "
            "Choose a layer with an output (N, C, h, w), or layer='auto'."
        )
    if order != "both":
        return order == "last", ()
    first, last = _divides(output.shape[2:], inputs), _divides(output.shape[1:3], inputs)
    if first and not last:
        return False, ()
    last = last and not first
    read = "(N, h, w, C)" if last else "(N, C, h, w)"
    return last, (f"The output of layer {layer!r}, {_shape(output)}, was read as {read}.",)


def _divides(size: tuple[int, ...], inputs: Tensor) -> bool:
    """True when the picture is ``size`` times a whole number, the same in height and width."""
    factor, rest = divmod(inputs.shape[2], size[0])
    return rest == 0 and inputs.shape[3] == factor * size[1]


def _shape(output: Any) -> str:
    return str(tuple(output.shape)) if isinstance(output, Tensor) else f"a {type(output).__name__}"


def find_layer(network: nn.Module, inputs: Tensor, run: Any) -> str:
    """The last layer with a spatial map, found with one forward pass of one image and remembered for the network.

    Args:
        network: the module.
        inputs: (N, C, H, W).
        run: called once with inputs of one image.

    Raises:
        NoSpatialOutput: there is none, or only a transformer's patch embedding.
    """
    known = _found.setdefault(network, {})
    key = (fingerprint(network), tuple(inputs.shape[1:]))
    if key not in known:
        known[key] = _choose(_watch(network, inputs[:1], run))
    return known[key]


def _watch(network: nn.Module, inputs: Tensor, run: Any) -> list[_Seen]:
    seen: list[_Seen] = []

    def hook(name: str) -> Any:
        def note(_module: nn.Module, _args: Any, output: Any) -> None:
            kind = "map" if spatial(output, inputs) else "tokens" if _is_tokens(output) else "other"
            seen.append(_Seen(name, kind))

        return note

    handles = [m.register_forward_hook(hook(name)) for name, m in network.named_modules() if name]
    try:
        with torch.no_grad():
            run(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _is_tokens(output: Any) -> bool:
    return isinstance(output, Tensor) and output.ndim == 3 and output.shape[1] > 1


def _choose(seen: list[_Seen]) -> str:
    maps = [i for i, s in enumerate(seen) if s.kind == "map"]
    if not maps:
        raise NoSpatialOutput(
            "No layer of the network has a spatial map (N, C, h, w). Use a method that needs scores only: "
            "Occlusion or RISE."
        )
    tokens = sum(s.kind == "tokens" for s in seen[maps[-1] + 1 :])
    if tokens > 2:
        raise NoSpatialOutput(
            f"The last spatial map of the network is {seen[maps[-1]].name!r}, and tokens follow it: this is a vision "
            "transformer. Name the layer if you mean that one, or use Occlusion or RISE."
        )
    return seen[maps[-1]].name
