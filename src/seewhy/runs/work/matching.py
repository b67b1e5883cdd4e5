"""What a detector finds in a picture of a run, and which of it is true.

A box that was found is a true positive where it is a true box of its class (`seewhy.boxes.matched`). All others that
were found are false positives, and true boxes that nothing matched false negatives: they are explained, too. A box on
a crowd or on a difficult object counts neither way and has no flag. This is the matching of Pascal VOC and COCO at 0.5.

Source: Everingham et al., "The Pascal Visual Object Classes (VOC) Challenge", 2010.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from seewhy.boxes import Box, matched
from seewhy.detection import BoxTarget, detect
from seewhy.errors import InvalidTarget
from seewhy.images.view import View
from seewhy.runs.folder.rows import DetectionRow, LabelRow
from seewhy.types import Outputs, Sample

__all__ = ["Found", "Sieve", "found", "targets", "true_box"]


class Found(NamedTuple):
    """What a detector finds in a picture, and what it misses.

    Attributes:
        rows: what was found, the best first, then the true boxes that nothing matched.
        labels: their scores and flags.
        ignored: numbers of those that lie on a crowd or a difficult object, which count neither way.
    """

    rows: list[DetectionRow]
    labels: list[LabelRow]
    ignored: list[int]


@dataclass(frozen=True, kw_only=True)
class Sieve:
    """Which boxes of a detector are explained; see `seewhy.detection.detect`."""

    score_threshold: float
    nms_threshold: float | None
    max_detections: int


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
        InvalidTarget: a class of the truth is none of the network's.
    """
    assert outputs.boxes is not None
    here = slice(image, image + 1)
    own = Outputs(scores=outputs.scores[here], boxes=outputs.boxes[here], activated=True)
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
    return Found(rows, labels, [n for n, match in enumerate(truth) if match.ignored])


def targets(rows: Sequence[DetectionRow], view: View, size: tuple[int, int]) -> list[BoxTarget]:
    """Returns the boxes as targets, in pixels of the network's input."""
    return [_target(row, view, size) for row in rows]


def true_box(row: DetectionRow, sample: Sample) -> Box | None:
    """Returns the true box that a detection is, in pixels of the picture; None where it is none, or nobody knows."""
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
