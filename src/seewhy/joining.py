"""Explanations of pictures that were explained apart become one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from seewhy.explanation import Explanation
from seewhy.images.view import View
from seewhy.maps import places as axes_of
from seewhy.maps import upsample
from seewhy.trust import Trust
from seewhy.types import Note, Passes

__all__ = ["joined"]


def joined(parts: Sequence[Explanation], places: Sequence[Sequence[int]]) -> Explanation:
    """One explanation of pictures that were explained apart because their inputs have several sizes.

    Each input becomes the upper left corner of one that is as high as the highest and as wide as the widest of them.
    What is added lies outside of the picture, as in a letter box, and the map is as low there as its lowest value.

    Args:
        parts: of one network by one method, with equally many targets.
        places: where each picture of each part stands in the whole.
    """
    order = [(p, i) for _, p, i in sorted((n, p, i) for p, some in enumerate(places) for i, n in enumerate(some))]
    size = tuple(map(max, zip(*(part.size for part in parts), strict=True)))
    maps = [_on_canvas(part.raw, part.size, size) for part in parts]
    errors = [None if part.error is None else _on_canvas(part.error, part.size, size) for part in parts]
    targets = [part.targets for part in parts]
    notes = [_renumbered(note, some) for part, some in zip(parts, places, strict=True) for note in part.notes]

    def each(name: str) -> list[Any]:
        return [getattr(parts[p], name)[i] for p, i in order if getattr(parts[p], name)]

    return replace(
        parts[0],
        raw=torch.stack([maps[p][i] for p, i in order]),
        error=None if any(e is None for e in errors) else torch.stack([_row(errors[p], i) for p, i in order]),
        size=size,
        targets=None if any(t is None for t in targets) else torch.stack([_row(targets[p], i) for p, i in order]),
        probabilities=torch.stack([parts[p].probabilities[i] for p, i in order]),
        passes=Passes(sum(part.passes.forward for part in parts), sum(part.passes.backward for part in parts)),
        seconds=sum(part.seconds for part in parts),
        notes=tuple(dict.fromkeys(notes)),
        views=[_wider(parts[p].views[i], parts[p].size, size) for p, i in order],
        labels=each("labels"),
        predicted=each("predicted"),
        pictures=each("pictures"),
        stacks=each("stacks"),
        names=each("names"),
        boxes=each("boxes"),
        asker=_Joined(parts, order),
    )


@dataclass(frozen=True, eq=False)
class _Joined:
    """Asks the part that an image came from, of its own map: the one on the canvas is larger."""

    parts: Sequence[Explanation]
    order: list[tuple[int, int]]

    def __call__(self, i: int, t: int, _raw: Tensor) -> Trust:
        part, image = self.order[i]
        return self.parts[part].trust(image, t)


def _row(targets: Tensor | None, i: int) -> Tensor:
    assert targets is not None
    return targets[i]


def _on_canvas(raw: Tensor, own: tuple[int, ...], size: tuple[int, ...]) -> Tensor:
    """(N, T, H, W) maps at the input's own size, in the upper left corner of a larger one."""
    maps = upsample(raw, own)
    canvas = maps.amin(axes_of(maps), keepdim=True).repeat(1, 1, *size)
    within: list[Any] = [slice(n) for n in own]
    canvas[(..., *within)] = maps
    return canvas


def _wider(view: View, size: tuple[int, ...], canvas: tuple[int, ...]) -> View:
    corners = (0.0, 0.0, float(canvas[-1]), float(canvas[-2]))
    return View(original=view.original, box=view.box_to_original(corners, (size[-2], size[-1])))


def _renumbered(note: Note, places: Sequence[int]) -> Note:
    """Returns a note of a part, with the image's number in the whole."""
    return note if note.image is None else replace(note, image=places[note.image])
