"""Looks at finished maps and says what their reader should know: degenerate maps and questions without an answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from seewhy.attribution import Attribution
from seewhy.boxes import share_inside
from seewhy.maps import FLAT, VOLUME, size_of
from seewhy.targets import BoxTarget, Detection, DRISETarget, MaskTarget, Request
from seewhy.types import Note

__all__ = ["at_places", "beyond", "lost", "order_of_axes", "review", "stepped", "unmatched", "unmoved"]

OUTSIDE = 0.1  # share of a box's area; detectors' own boxes often end a few pixels outside
STEPS, SOME = 3, 32  # so few values of a score are said, of so many masks or more
_DEGENERATE = (
    ("constant map", "the map is constant, nothing stands out."),
    ("one position", "nearly all of the map's energy is in one position."),
    ("border only", "the map is strong at the border only, which is often an artefact of padding."),
)

_ONE_DEEP = (
    "The maps{} have one position along the depth (or time), so they are the same in every slice. A layer that is "
    "earlier in the network tells slices apart."
)


def review(found: Attribution, kind: str, class_agnostic: bool) -> list[Note]:
    """Notes about the maps of one call.

    Args:
        found: the maps.
        kind: how the targets were asked for ("predicted", "all", "classes", "chosen", "targets").
        class_agnostic: True when the method gives every class the same map.
    """
    same = "The map is the same for every class: this method does not look at the target."
    notes = [Note(text=same, kind="same for every class")] if class_agnostic else []
    degenerate = _degenerate(found.raw)
    if bool(degenerate.any()):
        for flags, (name, text) in zip(degenerate, _DEGENERATE, strict=True):
            notes += at_places(flags, name, text)
    if found.raw.ndim == VOLUME and found.raw.shape[2] == 1:
        notes.append(Note(text=_ONE_DEEP.format(f" of layer {found.layer!r}" if found.layer else ""), kind="one deep"))
    return notes + (_unlikely(found) if kind in ("classes", "chosen") else [])


def at_places(flags: Tensor, kind: str, text: str | Callable[[int, int], str]) -> list[Note]:
    """Returns a note for each place that is set.

    Args:
        flags: (N, T) bool, or (N,) where it is about whole images.
        kind: of the notes.
        text: what is said, or (image, target) -> what is said.
    """
    found = []
    for image, *target in flags.nonzero().tolist():
        said = text if isinstance(text, str) else text(image, *(target or [0]))
        found.append(Note(text=said, kind=kind, image=image, target=target[0] if target else None))
    return found


def unmoved(changes: Tensor, what: str) -> tuple[Note, ...]:
    """Says for which targets no perturbation changed the score.

    Args:
        changes: (N, T, P) by how much each perturbation changed the score.
        what: the name of one perturbation.
    """
    still = changes.abs().amax(2) <= 1e-7
    return tuple(at_places(still, "score that did not change", f"its score did not change under any {what}."))


def stepped(scores: Sequence[Tensor]) -> list[Note]:
    """Says which scores have three values or fewer under all random masks, as those of a network of 8 bits.

    Args:
        scores: (n, T, M) under M masks each, of one image after the other.
    """
    rows = [row for some in scores for row in some]  # (T, M) of each image
    return [
        Note(
            text=f"its score has {count} values under all {row.shape[1]} masks, as where a network is rounded to 8 "
            "bits. The map cannot be finer than that.",
            kind="score of few values",
            image=i,
            target=t,
        )
        for i, row in enumerate(rows)
        if row.shape[1] >= SOME
        for t in (_levels(row[:, :SOME]) <= STEPS).nonzero().flatten().tolist()
        if 1 < (count := int(_levels(row[t : t + 1]))) <= STEPS
    ]


def _levels(rows: Tensor) -> Tensor:
    """How many values each row has."""
    return (rows.sort(1).values.diff(dim=1) > 0).sum(1) + 1


def unmatched(request: Request, found: Attribution) -> list[Note]:
    """Says which boxes and masks no candidate of the untouched image overlaps: their maps show nothing."""
    notes = []
    for t, target in enumerate(request.targets):
        if isinstance(target, BoxTarget | DRISETarget | MaskTarget | Detection):
            what = "mask" if isinstance(target, MaskTarget) else "box"
            text = (
                f"no {what} matched. No candidate of the network with a score for class {target.label} overlaps it, so "
                "the map shows nothing."
            )
            missed = (target(found.outputs) <= 0).nonzero().flatten().tolist()
            notes += [Note(text=text, kind="nothing matched", image=i, target=t) for i in missed]
    return notes


def lost(found: Attribution) -> list[Note]:
    """Says how many candidates of a detector were left out, because their boxes are NaN or infinite."""
    if (dropped := found.outputs.dropped) is None:
        return []
    q = found.outputs.scores.shape[1]
    text = "{} of {} boxes are NaN or infinite and were left out."
    return at_places(dropped > 0, "boxes that were left out", lambda i, _: text.format(int(dropped[i]), q))


def beyond(request: Request, inputs: Tensor) -> list[Note]:
    """Says which boxes reach out of the input by a tenth of their area or more: they may be meant in other pixels."""
    height, width = size_of(inputs)[-2:]
    frame = torch.tensor([0.0, 0.0, width, height])
    boxes = [(t, getattr(target, "box", None)) for t, target in enumerate(request.targets)]
    out = [(t, box) for t, box in boxes if box is not None and share_inside(torch.tensor(box), frame) < 1 - OUTSIDE]
    return [
        Note(
            text=f"Target {t}: its box ({', '.join(f'{side:g}' for side in box)}) leaves the input of {width} x "
            f"{height} pixels (width x height). Boxes are in pixels of the input; for pixels of the picture pass "
            "BoxTarget(picture_box=...).",
            kind="box that leaves the input",
        )
        for t, box in out
    ]


def order_of_axes(inputs: Tensor) -> list[Note]:
    """Says so where a volume (N, C, D, H, W) has as many slices as pictures have colours: frames may stand first."""
    if inputs.ndim != VOLUME or inputs.shape[2] not in (1, 3) or inputs.shape[1] <= 3:
        return []
    channels, slices = inputs.shape[1:3]
    text = (
        f"The input has {channels} channels and {slices} slices. Volumes and clips are (N, C, D, H, W); if these are "
        f"{channels} frames, explain a network that takes x.transpose(1, 2)."
    )
    return [Note(text=text, kind="order of axes")]


def _degenerate(raw: Tensor) -> Tensor:
    """(3, N, T) bool: constant, one spike, border only. Reductions alone: maps of all classes are too big to copy."""
    maps = raw.flatten(0, 1)
    size = maps.shape[1:]
    axes = tuple(range(1, maps.ndim))
    low, high = maps.amin(axes), maps.amax(axes)
    largest = torch.maximum(high.abs(), low.abs())
    never = torch.zeros_like(high, dtype=torch.bool)
    energy = torch.linalg.vector_norm(maps, dim=axes).square()
    flat = (high - low) <= FLAT * largest
    spike = ~flat & (largest.square() > 0.9 * energy) if size.numel() >= 16 else never
    inner = maps[(slice(None), *[slice(1, -1)] * len(size))]
    border = ~flat & (inner.amax(axes) < 0.05 * high) if min(size) >= 5 else never
    return torch.stack([flat if size.numel() > 1 else never, spike, border]).view(3, *raw.shape[:2])


def _unlikely(found: Attribution) -> list[Note]:
    asked = found.targets.classes
    outputs = found.outputs
    if asked is None or outputs.word != "class":
        return []
    likely = outputs.activate(torch.sigmoid).classes if outputs.pair else outputs.classes
    if outputs.dense is not None:
        likely = outputs.activate(lambda scores: scores.softmax(-1)).classes
    elif not (outputs.activated or outputs.pair):
        likely = likely.softmax(1)
    chances = likely.gather(1, asked)
    best, predicted = likely.max(1)
    kind = "probability" if outputs.activated or outputs.pair else "softmax probability"

    def text(i: int, t: int) -> str:
        return (
            f"its {kind} is {float(chances[i, t]):.2g}; the network says class {int(predicted[i])} "
            f"({float(best[i]):.2f})."
        )

    return at_places((chances < 0.01) & (asked != predicted[:, None]), "unlikely target", text)
