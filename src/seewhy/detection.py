"""Boxes and masks that a detector finds, and targets made of them.

A detector's outputs are all its candidates with their full rows of class scores. What it *detects* is what is left
of the pairs (candidate, class) after two sieves: a least score, and greedy suppression class by class (the best
box stays, boxes of its class that overlap it by more than a threshold go, and so on).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from seewhy.boxes import Box, box_iou, box_mask, suppress
from seewhy.checks import check_count, check_fraction
from seewhy.errors import InvalidTarget
from seewhy.images.view import View
from seewhy.types import Outputs

__all__ = [
    "BoxTarget", "DRISETarget", "Detection", "MaskTarget", "box_iou", "box_mask", "check_label",
    "check_sieve", "detect", "in_range",
]  # fmt: skip

SCORE, OVERLAP, MOST = 0.5, 0.5, 20


@dataclass(frozen=True, kw_only=True)
class BoxTarget:
    """The best product of class probability and overlap with a box (intersection over union).

    It has either a box or a picture_box.

    Attributes:
        box: x0, y0, x1, y1 in input pixels.
        label: the class index.
        picture_box: instead of ``box``, x0, y0, x1, y1 in pixels of the original picture, for `seewhy.explain`.

    Example:
        >>> outputs = seewhy.Outputs(scores=torch.tensor([[[0.2, 0.8]]]), boxes=torch.tensor([[[0.0, 0, 4, 4]]]))
        >>> BoxTarget(box=(0, 0, 4, 8), label=1)(outputs)  # 0.8 times an overlap of 1/2
        tensor([0.4000])
    """

    box: Box | None = None
    label: int
    picture_box: Box | None = None

    def __post_init__(self) -> None:
        check_label(self.label)
        if (self.box is None) == (self.picture_box is None):
            raise InvalidTarget("A BoxTarget has either a box, in pixels of the input, or a picture_box.")
        _check_box(self.box or self.picture_box or ())

    def __call__(self, outputs: Outputs) -> Tensor:
        """(N,) scores of the box; 0 where no candidate overlaps it."""
        if outputs.boxes is None:
            raise InvalidTarget("BoxTarget needs a detector: this model's outputs have no boxes. Use ClassTarget.")
        if self.box is None:
            raise InvalidTarget(
                "Where a picture_box lies in the network's input is known to seewhy.explain(model, picture, target) "
                "alone. Pass box=(x0, y0, x1, y1) in pixels of the input."
            )
        label = in_range(self.label, outputs)
        boxes = outputs.boxes if outputs.boxes.ndim == 3 else outputs.boxes[:, :, label]
        return (outputs.scores[..., label] * box_iou(boxes, boxes.new_tensor(self.box))).amax(1)

    def placed(self, view: View, size: tuple[int, int]) -> BoxTarget:
        """Returns the same with a box in pixels of the input of ``size`` (height, width)."""
        if self.picture_box is None:
            return self
        return BoxTarget(box=view.box_to_input(self.picture_box, size), label=self.label)


@dataclass(frozen=True, kw_only=True, eq=False)
class MaskTarget:
    """The best product of class probability and overlap with an instance mask.

    Attributes:
        mask: (h, w) bool or in [0, 1], at the resolution of the model's masks.
        label: the class index.

    Example:
        >>> masks = torch.zeros(1, 1, 4, 4)
        >>> masks[..., :2] = 1
        >>> outputs = seewhy.Outputs(scores=torch.tensor([[[0.2, 0.8]]]), masks=masks)
        >>> MaskTarget(mask=torch.ones(4, 4), label=1)(outputs)  # 0.8 times an overlap of 1/2
        tensor([0.4000])
    """

    mask: Tensor
    label: int

    def __post_init__(self) -> None:
        check_label(self.label)
        if self.mask.ndim != 2 or not bool((self.mask > 0).any()):
            raise InvalidTarget(f"A mask is (h, w) and not empty, got shape {tuple(self.mask.shape)}.")

    def __call__(self, outputs: Outputs) -> Tensor:
        """(N,) scores of the mask; 0 where no candidate overlaps it."""
        if outputs.masks is None:
            raise InvalidTarget("MaskTarget needs instance masks: this model's outputs have none. Use BoxTarget.")
        if outputs.masks.shape[2:] != self.mask.shape:
            got, want = tuple(self.mask.shape), tuple(outputs.masks.shape[2:])
            raise InvalidTarget(f"The mask must have the size of the model's masks, {want}, got {got}.")
        mask = self.mask.to(outputs.masks)
        shared = torch.minimum(outputs.masks, mask).sum((-2, -1))
        overlap = shared / torch.maximum(outputs.masks, mask).sum((-2, -1))
        return (outputs.scores[..., in_range(self.label, outputs)] * overlap).amax(1)


@dataclass(frozen=True, kw_only=True, eq=False)
class DRISETarget:
    """D-RISE's similarity: the best product of overlap with a box, cosine of class vectors, and objectness.

    Unlike `BoxTarget` it asks for all classes at once: a candidate counts as far as its whole row of scores points the
    way of the detection's own. Where a head has no objectness of its own, which is how sure it is that there is
    anything at all, the probability of the candidate's likeliest class stands for it.

    Source: Petsiuk et al., "Black-box Explanation of Object Detectors via Saliency Maps", 2021 (arXiv 2006.03204).

    Attributes:
        box: x0, y0, x1, y1 in input pixels.
        scores: (K,) the class vector.
        label: the class index.

    Example:
        >>> outputs = seewhy.Outputs(scores=torch.tensor([[[0.6, 0.8]]]), boxes=torch.tensor([[[0.0, 0, 4, 4]]]))
        >>> DRISETarget(box=(0, 0, 4, 8), scores=torch.tensor([0.6, 0.8]), label=1)(outputs)  # 1/2 x 1 x 0.8
        tensor([0.4000])
    """

    box: Box
    scores: Tensor
    label: int

    def __post_init__(self) -> None:
        check_label(self.label)
        _check_box(self.box)
        if self.scores.ndim != 1 or not bool(self.scores.any()):
            raise InvalidTarget(f"A class vector is (K,) and not zero, got shape {tuple(self.scores.shape)}.")

    def __call__(self, outputs: Outputs) -> Tensor:
        """(N,) similarities of the most similar candidate."""
        if outputs.boxes is None:
            raise InvalidTarget("DRISETarget needs a detector: this model's outputs have no boxes. Use ClassTarget.")
        if len(self.scores) != outputs.num_classes:
            raise InvalidTarget(
                f"The class vector must be as long as the model's rows of scores, {outputs.num_classes}, got "
                f"{len(self.scores)}."
            )
        label = in_range(self.label, outputs)
        boxes = outputs.boxes if outputs.boxes.ndim == 3 else outputs.boxes[:, :, label]
        alike = F.cosine_similarity(outputs.scores, self.scores.to(outputs.scores), dim=-1)
        sure = outputs.scores.amax(-1) if outputs.objectness is None else outputs.objectness
        return (box_iou(boxes, boxes.new_tensor(self.box)) * alike * sure).amax(1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Detection:
    """One object that a detector found; as a target it is D-RISE's similarity with it.

    Attributes:
        label: the class index.
        score: its probability.
        box: x0, y0, x1, y1 in input pixels.
        mask: (h, w) in [0, 1] at the resolution of the model's masks, or None.
        name: of the class, where the model has names.
        scores: (K,) the candidate's row of class scores; without it the target is the box alone.

    Example:
        >>> found = seewhy.detections(detector, inputs[0], score_threshold=0.1)[0]
        >>> found.score > 0.1, len(found.box), float(found(seewhy.load(detector)(inputs[:1]))) > 0
        (True, 4, True)
    """

    label: int
    score: float
    box: Box
    mask: Tensor | None = field(default=None, repr=False)
    name: str = ""
    scores: Tensor | None = field(default=None, repr=False)

    def __call__(self, outputs: Outputs) -> Tensor:
        """(N,) similarities with this detection; scores of the box where its class vector is not known."""
        return (self.box_target if self.scores is None else self.similarity_target)(outputs)

    @property
    def similarity_target(self) -> DRISETarget:
        """Asks for this box with its class vector, as D-RISE does; raises InvalidTarget where there is none."""
        if self.scores is None:
            raise InvalidTarget("This detection has no class vector: it was made without scores. Use its box_target.")
        return DRISETarget(box=self.box, scores=self.scores, label=self.label)

    @property
    def box_target(self) -> BoxTarget:
        """Asks for its class in this box: class probability times overlap."""
        return BoxTarget(box=self.box, label=self.label)

    @property
    def mask_target(self) -> MaskTarget:
        """Asks for this mask; raises InvalidTarget where there is none."""
        if self.mask is None:
            raise InvalidTarget("This detection has no mask: the model gives boxes only. Use its box_target.")
        return MaskTarget(mask=self.mask, label=self.label)


def detect(
    outputs: Outputs, *, score_threshold: float = SCORE, nms_threshold: float | None = OVERLAP,
    max_detections: int = MOST,
) -> list[list[Detection]]:  # fmt: skip
    """What a detector finds in each image, the best first.

    Args:
        outputs: of N images, with probabilities and boxes.
        score_threshold: pairs of candidate and class with a score above it are kept.
        nms_threshold: boxes of one class that overlap a better one by more are dropped; None keeps them, as DETR does.
        max_detections: at most so many an image.

    Raises:
        InvalidInput: a threshold that cannot be.
        InvalidTarget: the outputs have no boxes.
    """
    check_sieve(score_threshold, nms_threshold, max_detections)
    if outputs.boxes is None:
        raise InvalidTarget("Only a detector detects: this model's outputs have no boxes.")
    return [_one(outputs, i, score_threshold, nms_threshold, max_detections) for i in range(len(outputs.scores))]


def _one(outputs: Outputs, i: int, least: float, overlap: float | None, most: int) -> list[Detection]:
    assert outputs.boxes is not None
    scores = outputs.scores[i].detach()
    rows, labels = (scores > least).nonzero(as_tuple=True)
    found, every = scores[rows, labels], outputs.boxes[i].detach()
    boxes = every[rows] if every.ndim == 2 else every[rows, labels]
    real = (boxes[:, 2:] > boxes[:, :2]).all(1)
    rows, labels, found, boxes = rows[real], labels[real], found[real], boxes[real]
    return [
        Detection(
            label=int(labels[j]), score=float(found[j]), box=tuple(boxes[j].tolist()),
            mask=None if outputs.masks is None else outputs.masks[i, rows[j]].detach(), scores=scores[rows[j]].clone(),
        )
        for j in suppress(boxes, found, labels, overlap, most)
    ]  # fmt: skip


def check_sieve(score_threshold: Any, nms_threshold: Any, max_detections: Any) -> None:
    """Raises InvalidInput unless they say which boxes are kept; see `detect`."""
    check_fraction("score_threshold", score_threshold)
    if nms_threshold is not None:
        check_fraction("nms_threshold", nms_threshold)
    check_count("max_detections", max_detections)


def _check_box(box: Sequence[float]) -> None:
    if len(box) != 4 or not (box[0] < box[2] and box[1] < box[3]) or not all(map(math.isfinite, box)):
        raise InvalidTarget(f"A box is (x0, y0, x1, y1) with x0 < x1 and y0 < y1, got {tuple(box)}.")


def check_label(label: int) -> None:
    """Raises unless ``label`` is an integer that counts from 0."""
    if isinstance(label, bool) or not isinstance(label, int | np.integer):
        raise InvalidTarget(f"A label is an integer, got {label!r}.")
    if label < 0:
        raise InvalidTarget(f"Target {label} is negative. Classes are counted from 0.")


def in_range(label: int, outputs: Outputs) -> int:
    """Returns the label; raises where the network has no such class."""
    if label >= (k := outputs.num_classes):
        raise InvalidTarget(f"Target {label} is out of range: the network has {k} classes, 0 to {k - 1}.")
    return label
