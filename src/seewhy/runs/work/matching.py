"""Compares the boxes that a detector finds in a picture with the true boxes.

A box that was found is a true positive where it is a true box of its class (`seewhy.boxes.matched`). All others that
were found are false positives, and true boxes that nothing matched false negatives: they are explained, too. A box on
a crowd or on a difficult object counts neither way and has no flag. This is the matching of Pascal VOC and COCO at 0.5.

Source: Everingham et al., "The Pascal Visual Object Classes (VOC) Challenge", 2010.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor

from seewhy.boxes import Box, matched
from seewhy.detection import BoxTarget, MaskTarget, detect
from seewhy.errors import InvalidTarget
from seewhy.images.view import View
from seewhy.runs.folder.rows import DetectionRow, LabelRow
from seewhy.types import Outputs, Sample

__all__ = ["Found", "Sieve", "alike", "found", "targets", "true_box"]

_SAME = 0.1  # pixels of the original


class Found(NamedTuple):
    """What a detector finds in a picture, and what it misses.

    Attributes:
        rows: what was found, the best first, then the true boxes that nothing matched.
        labels: their scores and flags.
        ignored: numbers of the boxes that lie on a crowd or a difficult object, which count neither way.
        masks: number -> the instance mask of what was found, where masks are explained; an empty one counts as none.
    """

    rows: list[DetectionRow]
    labels: list[LabelRow]
    ignored: list[int]
    masks: dict[int, Tensor]


@dataclass(frozen=True, kw_only=True)
class Sieve:
    """Which boxes of a detector are explained; see `seewhy.detection.detect`.

    With ``masks`` each object's instance mask is, not its box. That is no part of the sieve's own identity, by which
    runs over boxes have always been known.
    """

    score_threshold: float
    nms_threshold: float | None
    max_detections: int
    masks: bool = field(default=False, compare=False)


def found(outputs: Outputs, image: int, sample: Sample, view: View, size: tuple[int, int], sieve: Sieve) -> Found:
    """Returns the boxes of one picture with their scores and flags, what was found first.

    Args:
        outputs: of several images, with probabilities.
        image: which of them.
        sample: with the truth.
        view: which part of the picture the input covers.
        size: height and width of the input.
        sieve: which boxes count as found.

    Raises:
        InvalidTarget: a class of the truth is none of the network's, or masks are asked for and there are none.
    """
    assert outputs.boxes is not None
    if sieve.masks and outputs.masks is None:
        raise InvalidTarget("The network gives boxes without instance masks. Run with instances='boxes'.")
    here = slice(image, image + 1)
    masks = outputs.masks[here] if sieve.masks and outputs.masks is not None else None
    own = Outputs(scores=outputs.scores[here], boxes=outputs.boxes[here], masks=masks, activated=True)
    there = detect(
        own, score_threshold=sieve.score_threshold, nms_threshold=sieve.nms_threshold,
        max_detections=sieve.max_detections,
    )[0]  # fmt: skip
    _check_truth(sample, outputs.num_classes)
    boxes = [view.box_to_original(one.box, size) for one in there]
    truth = matched(boxes, [one.label for one in there], sample.boxes, sample.crowds, sample.difficult)
    rows, labels = [], []
    for n, (one, box, match) in enumerate(zip(there, boxes, truth, strict=True)):
        overlap = match.overlap
        if overlap is None and not match.ignored and _surely_none(one.label, sample):
            overlap = 0.0
        rows.append(DetectionRow(n, one.label, *box, overlap, match.true))
        true = None if overlap is None else match.true is not None
        labels.append(LabelRow(n, one.score, true, None if true is None else "TP" if true else "FP"))
    passed = {match.true for match in truth} | set(sample.crowds) | set(sample.difficult)
    for n, (label, *sides) in enumerate(sample.boxes):
        if n not in passed:
            x0, y0, x1, y1 = map(float, sides)
            row = DetectionRow(len(rows), label, x0, y0, x1, y1, 1.0, n)
            rows.append(row)
            labels.append(LabelRow(row.number, float(_target(row, view, size)(own)[0]), True, "FN"))
    instances = {n: one.mask for n, one in enumerate(there) if one.mask is not None and bool((one.mask > 0).any())}
    return Found(rows, labels, [n for n, match in enumerate(truth) if match.ignored], instances)


def targets(
    rows: Sequence[DetectionRow], masks: Mapping[int, Tensor], view: View, size: tuple[int, int]
) -> list[BoxTarget | MaskTarget]:
    """Returns what is explained: of each row its instance mask, where there is one, else its box in the input."""
    return [
        MaskTarget(mask=masks[row.number], label=row.class_index) if row.number in masks else _target(row, view, size)
        for row in rows
    ]


def alike(known: Sequence[DetectionRow], again: Sequence[DetectionRow]) -> bool:
    """Says whether what was found before is what is found again: the same classes, and boxes to a tenth of a pixel."""
    return len(known) == len(again) and all(
        a.class_index == b.class_index and max(abs(p - q) for p, q in zip(a.box, b.box, strict=True)) < _SAME
        for a, b in zip(known, again, strict=True)
    )


def true_box(row: DetectionRow, sample: Sample) -> Box | None:
    """Returns the true box that a detection matches, in pixels of the picture; None where there is none or no truth."""
    return None if row.match is None else sample.boxes[row.match][1:]


def _target(row: DetectionRow, view: View, size: tuple[int, int]) -> BoxTarget:
    return BoxTarget(box=view.box_to_input(row.box, size), label=row.class_index)


def _check_truth(sample: Sample, k: int) -> None:
    wrong = [label for label, *_ in sample.boxes if not 0 <= label < k]
    if wrong:
        raise InvalidTarget(f"Class {wrong[0]} is said to be there, but the network has {k} classes, 0 to {k - 1}.")


def _surely_none(label: int, sample: Sample) -> bool:
    """Says whether it is known that there is no object of a class that has no true box."""
    return sample.labels is not None and label not in sample.labels
