"""A network's own output -> Outputs, with errors that name what came."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from seewhy.errors import BadOutput, InvalidInput
from seewhy.types import Outputs

__all__ = ["Selector", "check_size", "select", "to_outputs"]

Selector = str | int | Callable[[Any], Any] | None


def to_outputs(raw: Any, n: int, selector: Selector = None) -> Outputs:
    """Finds the scores in what the network returned for ``n`` images.

    Args:
        raw: a tensor (N, K), an ``Outputs``, or a tuple, dict or object that holds the tensor.
        n: the number of images that went in.
        selector: a name, an index or a callable that picks the scores; None looks for them.

    Raises:
        BadOutput: no scores of shape (N, K) were found, or they are not finite.
    """
    chosen = select(raw, selector)
    outputs = chosen if isinstance(chosen, Outputs) else Outputs.of_classes(_checked(chosen, n))
    if outputs.scores.shape[0] != n:
        raise BadOutput(f"The network returned scores for {outputs.scores.shape[0]} images, {n} went in.")
    if not bool(torch.isfinite(outputs.scores).all()):
        raise BadOutput("The network returned NaN or infinite scores. Its weights or the input are out of range.")
    return outputs


def check_size(inputs: Tensor, selector: Selector) -> None:
    """Raises where the selector was made for inputs of another size, so that its boxes would lie elsewhere."""
    size, got = getattr(selector, "size", None), tuple(inputs.shape[2:])
    if callable(selector) and isinstance(size, tuple) and size != got:
        raise InvalidInput(
            f"{type(selector).__name__} was made for inputs of {size[0]} x {size[1]} pixels, got {got[0]} x {got[1]}. "
            f"Use size={got} or give it inputs of its size."
        )


def select(raw: Any, selector: Selector) -> Any:
    """What the selector picks of the network's output; None looks for the scores."""
    if callable(selector):
        return selector(raw)
    if selector is None:
        return _find(raw)
    try:
        named = isinstance(selector, str) and not isinstance(raw, Mapping)
        return getattr(raw, str(selector)) if named else raw[selector]
    except (AttributeError, KeyError, IndexError, TypeError) as error:
        raise BadOutput(f"The network's output has no {selector!r}: it is {_describe(raw)}.") from error


def _find(raw: Any) -> Any:
    if isinstance(raw, Tensor | Outputs):
        return raw
    if isinstance(raw, Mapping) and isinstance(raw.get("logits"), Tensor):
        return raw["logits"]
    if isinstance(getattr(raw, "logits", None), Tensor):
        return raw.logits
    members = list(raw.values()) if isinstance(raw, Mapping) else list(raw) if isinstance(raw, tuple | list) else []
    matrices = [m for m in members if isinstance(m, Tensor) and m.ndim == 2]
    if len(matrices) == 1:
        return matrices[0]
    found = f"{len(matrices)} matrices could be the scores" if matrices else "no scores of shape (N, K) were found"
    raise BadOutput(
        f"The network returned {_describe(raw)}, in which {found}. "
        "Wrap it with seewhy.load(network, output=NAME, INDEX or CALLABLE)."
    )


def _checked(scores: Any, n: int) -> Tensor:
    if not isinstance(scores, Tensor):
        raise BadOutput(f"The network must return a tensor of scores (N, K), got {_describe(scores)}.")
    if scores.ndim != 2 or scores.shape[0] != n or scores.shape[1] == 0:
        hint = " One score an image: return scores.unsqueeze(1)." if tuple(scores.shape) == (n,) else ""
        dense = " For a map of scores pick a region: seewhy.load(network, output=CALLABLE)." if scores.ndim == 4 else ""
        raise BadOutput(f"The network must return scores of shape ({n}, K), got {tuple(scores.shape)}.{hint}{dense}")
    if not scores.dtype.is_floating_point:
        raise BadOutput(f"The network must return floating-point scores, got {scores.dtype}.")
    return scores


def _describe(raw: Any) -> str:
    if isinstance(raw, Tensor):
        return f"a tensor of shape {tuple(raw.shape)}"
    if isinstance(raw, Mapping):
        return f"a {type(raw).__name__} with {', '.join(repr(k) for k in raw)}"
    if isinstance(raw, tuple | list):
        return f"a {type(raw).__name__} of {len(raw)}: " + ", ".join(_describe(m) for m in raw[:3])
    return f"a {type(raw).__name__}"
