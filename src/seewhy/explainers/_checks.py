"""Looks at finished maps and says what their reader should know: degenerate maps and questions without an answer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from seewhy.boxes import share_inside
from seewhy.maps import FLAT
from seewhy.targets import BoxTarget, Detection, DRISETarget, MaskTarget, Request, TargetSet
from seewhy.types import Attribution

__all__ = ["beyond", "lost", "name", "review", "stepped", "unmatched", "unmoved"]

OUTSIDE = 0.1  # share of a box's area; detectors' own boxes often end a few pixels outside
STEPS, SOME = 3, 32  # so few values of a score are said, of so many masks or more
MOST = 8  # sentences of one kind; the rest is counted
_SENTENCES = (
    "the map is constant, nothing stands out",
    "nearly all of the map's energy is in one position",
    "the map is strong at the border only, which is often an artefact of padding",
)


def review(found: Attribution, kind: str, class_agnostic: bool) -> list[str]:
    """Warnings about the maps of one call, each a sentence.

    Args:
        found: the maps.
        kind: how the targets were asked for ("predicted", "all", "classes", "chosen", "targets").
        class_agnostic: True when the method gives every class the same map.
    """
    same = "The map is the same for every class: this method does not look at the target."
    warnings = [same] if class_agnostic else []
    degenerate = _degenerate(found.raw)
    for flags, sentence in zip(degenerate, _SENTENCES, strict=True) if bool(degenerate.any()) else ():
        warnings += _listed(flags, found, sentence)
    return warnings + (_unlikely(found) if kind in ("classes", "chosen") else [])


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


def stepped(scores: Sequence[Tensor], targets: TargetSet) -> list[str]:
    """Says which scores have three values or fewer under all random masks, as those of a network of 8 bits.

    Args:
        scores: (n, T, M) under M masks each, of one image after the other.
        targets: how the targets are called.
    """
    rows = [row for some in scores for row in some]  # (T, M) of each image
    where = [
        (i, t, count)
        for i, row in enumerate(rows)
        if row.shape[1] >= SOME
        for t in (_levels(row[:, :SOME]) <= STEPS).nonzero().flatten().tolist()
        if 1 < (count := int(_levels(row[t : t + 1]))) <= STEPS
    ]
    said = [
        f"Image {i}, {targets.names(i)[t]}: its score has {count} values under all {rows[i].shape[1]} masks, as where "
        "a network is rounded to 8 bits. The map cannot be finer than that."
        for i, t, count in where[:MOST]
    ]
    return said + ([f"... and {len(where) - MOST} more scores of so few values."] if len(where) > MOST else [])


def _levels(rows: Tensor) -> Tensor:
    """How many values each row has."""
    return (rows.sort(1).values.diff(dim=1) > 0).sum(1) + 1


def unmatched(request: Request, found: Attribution) -> list[str]:
    """Says which boxes and masks no candidate of the untouched image overlaps: their maps show nothing."""
    places = [
        (t, target)
        for t, target in enumerate(request.targets)
        if isinstance(target, BoxTarget | DRISETarget | MaskTarget | Detection)
    ]
    said = []
    for t, target in places:
        what = "mask" if isinstance(target, MaskTarget) else "box"
        said += [
            f"Image {i}, target {t}: no {what} matched. No candidate of the network with a score for class "
            f"{target.label} overlaps it, so the map shows nothing."
            for i in (target(found.outputs) <= 0).nonzero().flatten().tolist()
        ]
    return said[:MOST] + ([f"... and {len(said) - MOST} more that nothing matched."] if len(said) > MOST else [])


def lost(found: Attribution) -> list[str]:
    """Says how many candidates of a detector were left out, because their boxes are NaN or infinite."""
    if found.outputs.dropped is None:
        return []
    q = found.outputs.scores.shape[1]
    return [
        f"Image {i}: {count} of {q} boxes are NaN or infinite and were left out."
        for i, count in enumerate(found.outputs.dropped.tolist())
        if count
    ]


def beyond(request: Request, inputs: Tensor) -> list[str]:
    """Says which boxes reach out of the input by a tenth of their area or more: they may be meant in other pixels."""
    height, width = inputs.shape[2:]
    frame = torch.tensor([0.0, 0.0, width, height])
    boxes = [(t, getattr(target, "box", None)) for t, target in enumerate(request.targets)]
    out = [(t, box) for t, box in boxes if box is not None and share_inside(torch.tensor(box), frame) < 1 - OUTSIDE]
    return [
        f"Target {t}: its box ({', '.join(f'{side:g}' for side in box)}) leaves the input of {width} x {height} pixels "
        "(width x height). Boxes are in pixels of the input; for pixels of the picture pass BoxTarget(picture_box=...)."
        for t, box in out[:MOST]
    ] + ([f"... and {len(out) - MOST} more boxes that leave the input."] if len(out) > MOST else [])


def name(found: Attribution, image: int, target: int) -> str:
    """How one map is called."""
    if found.targets is None:
        return f"image {image}, target {target}"
    return f"image {image}, class {int(found.targets[image, target])}"


def _listed(flags: Tensor, found: Attribution, sentence: str) -> list[str]:
    where = flags.nonzero().tolist()
    named = [f"{name(found, i, t).capitalize()}: {sentence}." for i, t in where[:MOST]]
    return named + ([f"... and {len(where) - MOST} more maps: {sentence}."] if len(where) > MOST else [])


def _degenerate(raw: Tensor) -> Tensor:
    """(3, N, T) bool: constant, one spike, border only. Reductions alone: maps of all classes are too big to copy."""
    maps = raw.flatten(0, 1)
    h, w = maps.shape[1:]
    low, high = maps.amin((1, 2)), maps.amax((1, 2))
    largest = torch.maximum(high.abs(), low.abs())
    never = torch.zeros_like(high, dtype=torch.bool)
    energy = torch.linalg.vector_norm(maps, dim=(1, 2)).square()
    flat = (high - low) <= FLAT * largest
    spike = ~flat & (largest.square() > 0.9 * energy) if h * w >= 16 else never
    border = ~flat & (maps[:, 1:-1, 1:-1].amax((1, 2)) < 0.05 * high) if min(h, w) >= 5 else never
    return torch.stack([flat if h * w > 1 else never, spike, border]).view(3, *raw.shape[:2])


def _unlikely(found: Attribution) -> list[str]:
    if found.targets is None or found.outputs.num_classes == 1:
        return []
    scores = found.outputs.classes
    likely = scores if found.outputs.activated else scores.softmax(1)
    asked = likely.gather(1, found.targets)
    best, predicted = likely.max(1)
    where = ((asked < 0.01) & (found.targets != predicted[:, None])).nonzero().tolist()
    if not where:
        return []
    kind = "probability" if found.outputs.activated else "softmax probability"
    winners = list(zip(predicted.tolist(), best.tolist(), strict=True))
    classes, chances = found.targets.tolist(), asked.tolist()
    sentences = [
        f"Image {i}, class {classes[i][t]}: its {kind} is {chances[i][t]:.2g}; the network says class "
        f"{winners[i][0]} ({winners[i][1]:.2f})."
        for i, t in where[:MOST]
    ]
    rest = [f"... and {len(where) - MOST} more targets that the network does not see."] if len(where) > MOST else []
    return sentences + rest
