"""What a detector finds in a picture of a run, and which of it is true.

A box that was found is a true positive where it overlaps a true box of its class by at least one half (intersection
over union); each true box is matched once, by the best box that overlaps it so, which takes the true box that it
overlaps most. All others that were found are false positives, and true boxes that nothing matched false negatives:
they are explained, too. This is the matching of Pascal VOC and COCO at 0.5.

Source: Everingham et al., "The Pascal Visual Object Classes (VOC) Challenge", 2010.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from seewhy.boxes import Box, box_iou
from seewhy.detection import BoxTarget, Detection, detect
from seewhy.errors import InvalidTarget
from seewhy.images.view import View
from seewhy.runs.folder.rows import DetectionRow, LabelRow
from seewhy.types import Outputs, Sample

__all__ = ["MATCH", "Sieve", "found", "targets", "true_box"]

MATCH = 0.5


@dataclass(frozen=True, kw_only=True)
class Sieve:
    """Which boxes of a detector are explained; see `seewhy.detection.detect`."""

    score_threshold: float
    nms_threshold: float | None
    max_detections: int


def found(
    outputs: Outputs, image: int, sample: Sample, view: View, size: tuple[int, int], sieve: Sieve
) -> tuple[list[DetectionRow], list[LabelRow]]:
    """The boxes of one picture with their scores and flags, what was found first.

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
    overlaps, matches = _matched(there, boxes, sample)
    rows = [
        DetectionRow(n, one.label, *box, overlap, match)
        for n, (one, box, overlap, match) in enumerate(zip(there, boxes, overlaps, matches, strict=True))
    ]
    labels = []
    for row, one in zip(rows, there, strict=True):
        truth = None if row.overlap is None else row.match is not None
        labels.append(LabelRow(row.number, one.score, truth, None if truth is None else "TP" if truth else "FP"))
    for n, (label, *box) in enumerate(sample.boxes):
        if n not in matches:
            x0, y0, x1, y1 = map(float, box)
            row = DetectionRow(len(rows), label, x0, y0, x1, y1, 1.0, n)
            rows.append(row)
            score = float(_target(row, view, size)(own)[0])
            labels.append(LabelRow(row.number, score, True, "FN"))
    return rows, labels


def targets(rows: Sequence[DetectionRow], view: View, size: tuple[int, int]) -> list[BoxTarget]:
    """The boxes as targets, in pixels of the network's input."""
    return [_target(row, view, size) for row in rows]


def true_box(row: DetectionRow, sample: Sample) -> Box | None:
    """The true box that a detection is, in pixels of the picture; None where it is none, or nobody knows."""
    return None if row.match is None else sample.boxes[row.match][1:]


def _target(row: DetectionRow, view: View, size: tuple[int, int]) -> BoxTarget:
    return BoxTarget(box=view.box_to_input(row.box, size), label=row.class_index)


def _check_truth(sample: Sample, k: int) -> None:
    wrong = [label for label, *_ in sample.boxes if not 0 <= label < k]
    if wrong:
        raise InvalidTarget(f"Class {wrong[0]} is said to be there, but the network has {k} classes, 0 to {k - 1}.")


def _matched(
    there: Sequence[Detection], boxes: Sequence[Box], sample: Sample
) -> tuple[list[float | None], list[int | None]]:
    """For each box, the best first: its best overlap, None where that is not known, and the true box that it is."""
    overlaps: list[float | None] = []
    matches: list[int | None] = []
    for one, box in zip(there, boxes, strict=True):
        shared = {n: _overlap(box, true[1:]) for n, true in enumerate(sample.boxes) if true[0] == one.label}
        free = {n: value for n, value in shared.items() if n not in matches and value >= MATCH}
        overlaps.append(max(shared.values()) if shared else 0.0 if _surely_none(one.label, sample) else None)
        matches.append(max(free, key=lambda n: free[n]) if free else None)
    return overlaps, matches


def _surely_none(label: int, sample: Sample) -> bool:
    """Whether it is known that there is no object of a class that has no true box."""
    return sample.labels is not None and label not in sample.labels


def _overlap(a: Box, b: Sequence[float]) -> float:
    return float(box_iou(torch.tensor([a], dtype=torch.float64), torch.tensor(b, dtype=torch.float64))[0])
