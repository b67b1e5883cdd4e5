"""A network's own output -> Outputs, with errors that name what came."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from seewhy.errors import BadOutput, InvalidInput
from seewhy.maps import PICTURE, VOLUME
from seewhy.types import Outputs

__all__ = ["Selector", "check_picture", "check_size", "maps_in", "select", "to_outputs"]

DENSE = (
    " If it is a map of scores for each class, pass seewhy.load(network, output=seewhy.heads.Segmentation()); for key "
    "points seewhy.heads.Heatmaps()."
)
DENSE_VOLUME = (
    " If it is a map of scores for each class, say of which part of the volume they are meant: seewhy.load(network, "
    "output=lambda raw: raw[:, :, 4:8].mean((2, 3, 4)))."
)
Selector = str | int | Callable[[Any], Any] | None


def to_outputs(raw: Any, n: int, selector: Selector = None, labels: Sequence[str] | None = None) -> Outputs:
    """Finds the scores in what the network returned for ``n`` images.

    Args:
        raw: a tensor (N, K), an ``Outputs``, or a tuple, dict or object that holds the tensor.
        n: the number of images that went in.
        selector: a name, an index or a callable that picks the scores; None looks for them.
        labels: class names; what a reader of boxes gives must have as many classes, and with two of them one score
            stands for both classes.

    Raises:
        BadOutput: no scores of shape (N, K) were found, they are not finite, or there are other classes than names.
    """
    chosen = select(raw, selector)
    outputs = chosen if isinstance(chosen, Outputs) else Outputs.of_classes(_checked(chosen, n))
    if outputs.scores.shape[0] != n:
        raise BadOutput(f"The network returned scores for {outputs.scores.shape[0]} images, {n} went in.")
    if outputs.boxes is not None:
        outputs = _with_places(outputs)
        if callable(selector) and labels and len(labels) != outputs.num_classes:
            raise BadOutput(
                f"{getattr(type(selector), '__name__', 'The reader')} gives {outputs.num_classes} classes, and there "
                f"are {len(labels)} class names, {labels[0]!r} to {labels[-1]!r}. Check the reader (other columns are "
                "no classes), or pass the right labels."
            )
    if not bool(torch.isfinite(outputs.scores).all()):
        raise BadOutput("The network returned NaN or infinite scores. Its weights or the input are out of range.")
    if labels is not None and len(labels) == 2 and outputs.scores.shape[1:] == (1, 1) and outputs.boxes is None:
        return replace(outputs, pair=True)
    return outputs


def _with_places(outputs: Outputs) -> Outputs:
    """Silences candidates whose boxes are NaN or infinite: their boxes get no area and their scores say nothing."""
    assert outputs.boxes is not None
    lost = ~torch.isfinite(outputs.boxes).all(-1)
    if not bool(lost.any()):
        return outputs
    if bool(lost.all()):
        raise BadOutput("All boxes that the network returned are NaN or infinite. Check its weights and the input.")
    rows = lost if lost.ndim == 3 else lost.unsqueeze(-1)
    known = outputs.scores.masked_fill(rows, 0)
    void = 0.0 if outputs.activated else float(known.detach().amin())
    gone = lost.all(-1) if lost.ndim == 3 else lost
    return replace(
        outputs,
        scores=outputs.scores.masked_fill(rows, void),
        boxes=outputs.boxes.masked_fill(lost.unsqueeze(-1), 0),
        masks=None if outputs.masks is None else outputs.masks.masked_fill(gone[..., None, None], 0),
        objectness=None if outputs.objectness is None else outputs.objectness.masked_fill(gone, 0),
        dropped=lost.flatten(1).sum(1),
    )


def check_size(inputs: Tensor, selector: Selector) -> None:
    """Raises where the selector was made for inputs of another size, so that its boxes would lie elsewhere."""
    size, got = getattr(selector, "size", None), tuple(inputs.shape[2:])
    if callable(selector) and isinstance(size, tuple) and size != got:
        raise InvalidInput(
            f"{type(selector).__name__} was made for inputs of {size[0]} x {size[1]} pixels, got {got[0]} x {got[1]}. "
            f"Use size={got} or give it inputs of its size."
        )


def check_picture(inputs: Tensor, name: str) -> None:
    """Raises where a model that takes pictures alone is given volumes or clips."""
    if inputs.ndim == VOLUME:
        raise InvalidInput(
            f"{name} takes pictures (N, C, H, W), got {tuple(inputs.shape)}. Volumes and clips are explained of torch "
            "modules and of callables."
        )


def select(raw: Any, selector: Selector) -> Any:
    """What the selector picks of the network's output; None looks for the scores."""
    if callable(selector):
        return selector(raw)
    if selector is None:
        return _find(raw)
    try:
        if isinstance(selector, int) and isinstance(raw, Mapping) and selector not in raw:
            return list(raw.values())[selector]
        named = isinstance(selector, str) and not isinstance(raw, Mapping)
        return getattr(raw, str(selector)) if named else raw[selector]
    except (AttributeError, KeyError, IndexError, TypeError) as error:
        raise BadOutput(f"The network's output has no {selector!r}: it is {_describe(raw)}.") from error


def maps_in(raw: Any) -> list[Tensor]:
    """Returns the tensors of four dimensions in what a network returned."""
    if isinstance(raw, Tensor):
        return [raw] if raw.ndim == 4 and raw.dtype.is_floating_point else []
    if isinstance(raw, Outputs):
        return []
    members = raw.values() if isinstance(raw, Mapping) else raw if isinstance(raw, tuple | list) else ()
    return [t for member in members for t in maps_in(member)]


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
        dense = {PICTURE: DENSE, VOLUME: DENSE_VOLUME}.get(scores.ndim, "")
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
