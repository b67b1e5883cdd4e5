"""Boxes x0, y0, x1, y1: how far they overlap, which of them stay, which true box each is, which pixels they hold.

Everybody who asks one of these questions asks here, so that a map that is judged by hand and the same map in a run have
the same truth. Positions are in pixels with the half-pixel convention: pixel i covers i to i + 1, its centre is at
i + 0.5.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from seewhy.plain import Box

__all__ = ["MATCH", "Box", "Match", "box_iou", "box_mask", "matched", "share_inside", "suppress"]

MATCH = 0.5  # the least intersection over union with the true box that a box is
_FIRST = 4096  # boxes that are suppressed in the first go; the better ones do not depend on the others


class Match(NamedTuple):
    """What is true of a box.

    Attributes:
        overlap: intersection over union with the best true box of its class; None where there is none, or it is
            ignored.
        true: the number of the true box that it is, or None.
        ignored: whether it counts neither way.
    """

    overlap: float | None
    true: int | None
    ignored: bool


def box_iou(boxes: Tensor, box: Tensor) -> Tensor:
    """Intersection over union of (..., 4) boxes with a box (4,).

    torchvision's box_iou takes no batch dimension, and torchvision is optional here.
    """
    shared = _shared(boxes, box)
    return shared / (_area(boxes) + (box[2:] - box[:2]).prod() - shared)


def share_inside(boxes: Tensor, frame: Tensor) -> Tensor:
    """Returns the share of the area of (..., 4) boxes that lies in a frame (4,)."""
    return _shared(boxes, frame) / _area(boxes)


def _area(boxes: Tensor) -> Tensor:
    return (boxes[..., 2:] - boxes[..., :2]).clamp_min(0).prod(-1)


def _shared(boxes: Tensor, box: Tensor) -> Tensor:
    low, high = torch.maximum(boxes[..., :2], box[:2]), torch.minimum(boxes[..., 2:], box[2:])
    return (high - low).clamp_min(0).prod(-1)


def box_mask(boxes: Any, size: tuple[int, int]) -> Tensor:
    """(H, W) bool: the pixels of an input that lie in a box, as the truth for metrics such as `PointingGame`.

    A pixel lies in a box when its centre does; a centre on the left or upper side counts and one on the right or lower
    side does not, so that boxes which share a side share no pixel.

    Args:
        boxes: x0, y0, x1, y1 in input pixels, or several such boxes, of which each pixel has to lie in one.
        size: (H, W) of the input.
    """
    places = torch.as_tensor(boxes, dtype=torch.float64).reshape(-1, 4, 1)
    y, x = (torch.arange(side, dtype=torch.float64) + 0.5 for side in size)
    down, across = (y >= places[:, 1]) & (y < places[:, 3]), (x >= places[:, 0]) & (x < places[:, 2])
    return (down.unsqueeze(2) & across.unsqueeze(1)).any(0)


def matched(
    boxes: Sequence[Box], labels: Sequence[int], truth: Sequence[Any], crowds: Sequence[int] = (),
    difficult: Sequence[int] = (),
) -> list[Match]:  # fmt: skip
    """Which true box each box is, as Pascal VOC and COCO match at an overlap of one half.

    Each box, the best first, takes of the true boxes of its class that no better one has taken the one that it overlaps
    most, if that is at least one half (intersection over union). Two kinds of true boxes count neither way, whether
    they are found or not: a box that overlaps a difficult one by at least one half, and no other by as much, is ignored
    (VOC), and so is one without a match that lies with at least one half of its own area in a crowd (COCO).

    Sources: Everingham et al., "The Pascal Visual Object Classes (VOC) Challenge", 2010; Lin et al., "Microsoft COCO:
    Common Objects in Context", 2014 (arXiv 1405.0312).

    Args:
        boxes: the best first.
        labels: their classes.
        truth: (label, x0, y0, x1, y1) of the true boxes.
        crowds: which of these are crowds.
        difficult: which of these are difficult.
    """
    taken: set[int] = set()
    found = []
    for box, label in zip(boxes, labels, strict=True):
        one = _match(box, {n: true[1:] for n, true in enumerate(truth) if true[0] == label}, taken, crowds, difficult)
        taken |= {one.true} if one.true is not None else set()
        found.append(one)
    return found


def _match(
    box: Box, truth: Mapping[int, Any], taken: Container[int], crowds: Container[int], difficult: Container[int]
) -> Match:
    """Against the true boxes of one class, by their numbers."""
    own, around = torch.tensor(box, dtype=torch.float64), torch.tensor(list(truth.values()), dtype=torch.float64)
    if not truth:
        return Match(None, None, False)
    shared = dict(zip(truth, box_iou(around, own).tolist(), strict=True))
    inside = dict(zip(truth, (_shared(around, own) / _area(own)).tolist(), strict=True))
    real = {n: value for n, value in shared.items() if n not in crowds and n not in difficult}
    best = max(real.values(), default=0.0)
    if any(value >= MATCH and value > best for n, value in shared.items() if n in difficult and n not in crowds):
        return Match(None, None, True)
    free = {n: value for n, value in real.items() if n not in taken and value >= MATCH}
    if not free and any(value >= MATCH for n, value in inside.items() if n in crowds):
        return Match(None, None, True)
    return Match(best, max(free, key=lambda n: free[n]) if free else None, False)


def suppress(boxes: Tensor, scores: Tensor, labels: Tensor, overlap: float | None, most: int) -> list[int]:
    """Which of the boxes stay, the best first: greedy suppression, class by class.

    The best box stays, boxes of its class that overlap it by more go, and so on with the best of those that are left.
    Of equal scores the first is the better one. torchvision does the work where it is installed.

    Args:
        boxes: (M, 4), finite.
        scores: (M,).
        labels: (M,).
        overlap: a box that overlaps a better one of its class by more goes; None keeps all.
        most: boxes that stay, at most.
    """
    boxes, scores, labels = boxes.detach().cpu().double(), scores.detach().cpu(), labels.cpu()
    order = scores.argsort(descending=True, stable=True)
    if overlap is None:
        return [int(i) for i in order[:most]]
    step = _suppressor()
    count = min(_FIRST, len(order))
    while True:  # what stays of the best boxes does not depend on the others
        first = order[:count]
        kept = step(boxes[first], labels[first], overlap, most)
        if len(kept) >= most or count == len(order):
            return [int(i) for i in first[kept[:most]]]
        count = min(4 * count, len(order))


@cache
def _suppressor() -> Callable[[Tensor, Tensor, float, int], Sequence[int]]:
    try:
        from torchvision.ops import nms
    except (ImportError, RuntimeError):  # RuntimeError: built for another torch
        return _greedy

    def by_torchvision(boxes: Tensor, labels: Tensor, overlap: float, _most: int) -> Sequence[int]:
        # Each class is moved to a place of its own. torchvision's batched_nms does so, too, but supposes that no box
        # begins left of 0, and rounds to float32, so that boxes far from 0 overlap by a little more or less.
        if not len(boxes):
            return []
        span = boxes.max() - boxes.min() + 1
        moved = boxes + (labels.to(boxes) * span).unsqueeze(1)
        falling = torch.arange(len(boxes), 0, -1, dtype=boxes.dtype)  # they come in order
        return nms(moved, falling, overlap).tolist()  # type: ignore[no-any-return]  # torchvision has no types

    return by_torchvision


def _greedy(boxes: Tensor, labels: Tensor, overlap: float, most: int) -> Sequence[int]:
    """Which of the boxes, the best first, stay."""
    left, kept = torch.arange(len(boxes)), list[int]()
    while len(left) and len(kept) < most:
        best, left = left[0], left[1:]
        kept.append(int(best))
        left = left[(labels[left] != labels[best]) | (box_iou(boxes[left], boxes[best]) <= overlap)]
    return kept
