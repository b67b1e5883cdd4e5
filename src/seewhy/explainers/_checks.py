"""Looks at finished maps and says what their reader should know: degenerate maps and questions without an answer."""

from __future__ import annotations

import torch
from torch import Tensor

from seewhy.targets import TargetSet
from seewhy.types import Attribution

__all__ = ["name", "review", "unmoved"]

MOST = 8  # sentences of one kind; the rest is counted


def review(found: Attribution, kind: str, class_agnostic: bool) -> list[str]:
    """Warnings about the maps of one call, each a sentence.

    Args:
        found: the maps.
        kind: how the targets were asked for ("predicted", "all", "classes", "targets").
        class_agnostic: True when the method gives every class the same map.
    """
    warnings = ["The map is the same for every class: this method does not look at the target."] if class_agnostic else []
    warnings += _listed(_constant(found.raw), found, "the map is constant, nothing stands out")
    warnings += _listed(_spike(found.raw), found, "more than half of the map's weight is in one position")
    warnings += _listed(_border(found.raw), found, "the map is strong at the border only, which is often an artefact of padding")
    return warnings + (_unlikely(found) if kind == "classes" else [])


def unmoved(changes: Tensor, what: str, targets: TargetSet) -> tuple[str, ...]:
    """Says for which targets no perturbation changed the score.

    Args:
        changes: (N, T, P) by how much each perturbation changed the score.
        what: the name of one perturbation.
        targets: how the targets are called.
    """
    where = (changes.abs().amax(2) <= 1e-7).nonzero().tolist()
    said = [f"Image {i}, {targets.names(i)[t]}: its score did not change under any {what}." for i, t in where[:MOST]]
    return tuple(said + ([f"... and {len(where) - MOST} more."] if len(where) > MOST else []))


def name(found: Attribution, image: int, target: int) -> str:
    """How one map is called."""
    if found.targets is None:
        return f"image {image}, target {target}"
    return f"image {image}, class {int(found.targets[image, target])}"


def _listed(flags: Tensor, found: Attribution, sentence: str) -> list[str]:
    where = flags.nonzero().tolist()
    named = [f"{name(found, i, t).capitalize()}: {sentence}." for i, t in where[:MOST]]
    return named + ([f"... and {len(where) - MOST} more maps: {sentence}."] if len(where) > MOST else [])


def _flat(raw: Tensor) -> Tensor:
    high, low = raw.amax((-2, -1)), raw.amin((-2, -1))
    return (high - low) <= 1e-6 * torch.maximum(high.abs(), low.abs())


def _constant(raw: Tensor) -> Tensor:
    return _flat(raw) if raw[0, 0].numel() > 1 else torch.zeros_like(raw[..., 0, 0], dtype=torch.bool)


def _spike(raw: Tensor) -> Tensor:
    size = raw.abs()
    return (size.amax((-2, -1)) > 0.5 * size.sum((-2, -1))) & ~_flat(raw) & (raw[0, 0].numel() >= 16)


def _border(raw: Tensor) -> Tensor:
    h, w = raw.shape[2:]
    if min(h, w) < 5:
        return torch.zeros_like(raw[..., 0, 0], dtype=torch.bool)
    size = raw.clamp_min(0)
    whole, inner = size.sum((-2, -1)), size[..., 1:-1, 1:-1].sum((-2, -1))
    return (whole > 0) & (inner < 0.05 * whole) & ~_flat(raw)


def _unlikely(found: Attribution) -> list[str]:
    if found.targets is None or found.outputs.num_classes == 1:
        return []
    scores = found.outputs.classes
    likely = scores if found.outputs.activated else scores.softmax(1)
    asked = likely.gather(1, found.targets)
    best, predicted = likely.max(1)
    where = ((asked < 0.01) & (found.targets != predicted[:, None])).nonzero().tolist()
    sentences = [
        f"{name(found, i, t).capitalize()}: its probability is {float(asked[i, t]):.2g}; the network says class "
        f"{int(predicted[i])} ({float(best[i]):.2f})."
        for i, t in where[:MOST]
    ]
    return sentences + ([f"... and {len(where) - MOST} more targets that the network does not see."] if len(where) > MOST else [])
