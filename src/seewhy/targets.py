"""What is explained: a target turns a model's outputs into one number an image.

Because the target carries the task, a method that can explain a class can explain a detected box, an instance mask
or a direction in an embedding with no code of its own for them (RISE with a `BoxTarget` is D-RISE, Petsiuk 2021).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from seewhy.errors import InvalidTarget
from seewhy.types import Outputs

__all__ = ["BoxTarget", "Chosen", "ClassTarget", "MaskTarget", "Request", "SimilarityTarget", "Target", "TargetSet"]


@runtime_checkable
class Target(Protocol):
    """Outputs of N images -> (N,) numbers, differentiable where the model is."""

    def __call__(self, outputs: Outputs) -> Tensor:
        """The number that is explained, for each image."""
        ...


@dataclass(frozen=True, kw_only=True)
class ClassTarget:
    """The score of one class; with several candidates, that of the best one."""

    label: int

    def __post_init__(self) -> None:
        _check_label(self.label)

    def __call__(self, outputs: Outputs) -> Tensor:
        """(N,) scores of the class."""
        return outputs.classes[:, _in_range(self.label, outputs)]


@dataclass(frozen=True, kw_only=True)
class BoxTarget:
    """The best product of class probability and overlap with a box (intersection over union).

    Attributes:
        box: x0, y0, x1, y1 in input pixels.
        label: the class index.
    """

    box: tuple[float, float, float, float]
    label: int

    def __post_init__(self) -> None:
        _check_label(self.label)
        if len(self.box) != 4 or not (self.box[0] < self.box[2] and self.box[1] < self.box[3]):
            raise InvalidTarget(f"A box is (x0, y0, x1, y1) with x0 < x1 and y0 < y1, got {tuple(self.box)}.")

    def __call__(self, outputs: Outputs) -> Tensor:
        """(N,) scores of the box; 0 where no candidate overlaps it."""
        if outputs.boxes is None:
            raise InvalidTarget("BoxTarget needs a detector: this model's outputs have no boxes. Use ClassTarget.")
        overlap = _box_iou(outputs.boxes, outputs.boxes.new_tensor(self.box))
        return (outputs.scores[..., _in_range(self.label, outputs)] * overlap).amax(1)


@dataclass(frozen=True, kw_only=True, eq=False)
class MaskTarget:
    """The best product of class probability and overlap with an instance mask.

    Attributes:
        mask: (h, w) bool or in [0, 1], at the resolution of the model's masks.
        label: the class index.
    """

    mask: Tensor
    label: int

    def __post_init__(self) -> None:
        _check_label(self.label)
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
        return (outputs.scores[..., _in_range(self.label, outputs)] * overlap).amax(1)


@dataclass(frozen=True, kw_only=True, eq=False)
class SimilarityTarget:
    """The cosine between the model's output and a given embedding (of a text, of another picture).

    Attributes:
        embedding: (K,) as long as the model's output.
    """

    embedding: Tensor

    def __call__(self, outputs: Outputs) -> Tensor:
        """(N,) cosines in [-1, 1]."""
        if tuple(self.embedding.shape) != (outputs.num_classes,):
            got, want = tuple(self.embedding.shape), (outputs.num_classes,)
            raise InvalidTarget(f"The embedding must have the shape of the model's output, {want}, got {got}.")
        return F.cosine_similarity(outputs.classes, self.embedding.to(outputs.scores), dim=-1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Chosen:
    """Classes that are chosen when the network has spoken, so that asking what it says costs no pass of its own.

    Attributes:
        choose: outputs of N images -> (N, T) class indices.
    """

    choose: Callable[[Outputs], Tensor]


@dataclass(frozen=True, kw_only=True, eq=False)
class TargetSet:
    """T targets for each of N images, checked: exactly one of the two fields is set.

    Attributes:
        classes: (N, T) class indices.
        targets: T targets that hold for every image.
    """

    classes: Tensor | None = None
    targets: tuple[Target, ...] = ()

    @property
    def count(self) -> int:
        """T."""
        return len(self.targets) if self.classes is None else self.classes.shape[1]

    @property
    def activates(self) -> bool:
        """False where an activation would spoil the target (the direction of an embedding)."""
        return not any(isinstance(t, SimilarityTarget) for t in self.targets)

    def values(self, outputs: Outputs, rows: Tensor | None = None) -> Tensor:
        """(R, T) numbers; ``rows[r]`` says to which image row r of the outputs belongs (default: row r to image r)."""
        if self.classes is not None:
            classes = self.classes if rows is None else self.classes[rows]
            return outputs.classes.gather(1, classes)
        return torch.stack([self._one(t, outputs) for t in self.targets], 1)

    @staticmethod
    def _one(target: Target, outputs: Outputs) -> Tensor:
        value, n = target(outputs), outputs.scores.shape[0]
        if not isinstance(value, Tensor) or tuple(value.shape) != (n,):
            got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise InvalidTarget(f"A target must return one number an image, shape ({n},), got {got}.")
        return value.float()

    def names(self, image: int) -> list[str]:
        """How the targets of one image are called in messages."""
        if self.classes is not None:
            return [f"class {c}" for c in self.classes[image].tolist()]
        return [f"target {t}" for t in range(self.count)]


@dataclass(frozen=True, kw_only=True, eq=False)
class Request:
    """What the caller asked for, checked as far as it can be before the model has run.

    Attributes:
        kind: "predicted", "all", "classes", "chosen" or "targets".
        n: the number of images.
        classes: (N, T) indices when kind is "classes".
        targets: when kind is "targets".
        chosen: when kind is "chosen".
    """

    kind: str
    n: int
    classes: Tensor | None = None
    targets: tuple[Target, ...] = ()
    chosen: Chosen | None = None

    @classmethod
    def parse(cls, targets: Any, n: int) -> Request:
        """Reads every documented form of ``targets`` for a batch of ``n`` images.

        Raises:
            InvalidTarget: negative, of the wrong length or type, a float.
        """
        if targets is None:
            return cls(kind="predicted", n=n)
        if isinstance(targets, Chosen):
            return cls(kind="chosen", n=n, chosen=targets)
        if isinstance(targets, str):
            if targets != "all":
                raise InvalidTarget(f"targets as a string can only be 'all', got {targets!r}.")
            return cls(kind="all", n=n)
        if (objects := _objects(targets)) is not None:
            if all(isinstance(t, ClassTarget) for t in objects):
                labels = torch.tensor([t.label for t in objects if isinstance(t, ClassTarget)])
                return cls(kind="classes", n=n, classes=labels.expand(n, -1))
            _check_mixture(objects)
            return cls(kind="targets", n=n, targets=objects)
        return cls(kind="classes", n=n, classes=_indices(targets, n))

    def resolve(self, outputs: Outputs) -> TargetSet:
        """The targets, now that the number of classes and the predictions are known.

        Raises:
            InvalidTarget: out of range, or one-hot rows where indices are expected.
        """
        device, k = outputs.scores.device, outputs.num_classes
        if self.kind == "predicted":
            return TargetSet(classes=outputs.classes.argmax(1, keepdim=True))
        if self.kind == "all":
            return TargetSet(classes=torch.arange(k, device=device).expand(self.n, -1))
        if self.chosen is not None:
            return TargetSet(classes=self.chosen.choose(outputs).to(device))
        if self.classes is None:
            return TargetSet(targets=self.targets)
        classes = self.classes
        if k > 2 and classes.shape[1] == k and int(classes.max()) <= 1:  # K > 2 columns, and classes 0 and 1 only
            once = bool((classes.sum(1) == 1).all())
            looks, hint = ("one-hot", "targets.argmax(1)") if once else ("multi-hot", "the indices of the ones")
            raise InvalidTarget(f"targets looks {looks}, shape {tuple(classes.shape)}. Pass {hint}.")
        if int(classes.max()) >= k:
            raise InvalidTarget(
                f"Target {int(classes.max())} is out of range: the network has {k} classes, 0 to {k - 1}."
            )
        # A tensor made in inference mode cannot take part in a graph; its copy can.
        return TargetSet(classes=classes.clone().to(device) if classes.is_inference() else classes.to(device))


def _objects(targets: Any) -> tuple[Target, ...] | None:
    if callable(targets) and not isinstance(targets, Tensor):
        return (targets,)
    if isinstance(targets, Sequence) and len(targets) and all(callable(t) for t in targets):
        return tuple(targets)
    return None


def _check_mixture(targets: tuple[Any, ...]) -> None:
    """An activation is put on the scores of all targets or of none, so an embedding needs a call of its own."""
    embeddings = sum(isinstance(t, SimilarityTarget) for t in targets)
    if 0 < embeddings < len(targets):
        raise InvalidTarget("A SimilarityTarget cannot stand beside other targets. Explain them in two calls.")


def _indices(targets: Any, n: int) -> Tensor:
    try:
        found = targets if isinstance(targets, Tensor) else torch.as_tensor(np.array(targets, order="C"))
    except (TypeError, ValueError) as error:
        raise InvalidTarget(f"targets must be class indices, 'all' or Target objects, got {targets!r}.") from error
    if found.numel() == 0:
        raise InvalidTarget("targets is empty. Pass None for the predicted class.")
    if found.dtype.is_floating_point or found.dtype.is_complex or found.dtype == torch.bool:
        hint = " If they are one-hot, pass targets.argmax(1)." if found.ndim and found.shape[-1] > 1 else ""
        raise InvalidTarget(f"targets must be integers, got {str(found.dtype).removeprefix('torch.')}.{hint}")
    found = found.long()
    if int(found.min()) < 0:
        raise InvalidTarget(f"Target {int(found.min())} is negative. Classes are counted from 0.")
    return _shaped(found, n)


def _shaped(found: Tensor, n: int) -> Tensor:
    if found.ndim == 0:
        return found.expand(n, 1)
    if found.ndim == 1 and len(found) == n:
        return found.unsqueeze(1)
    if found.ndim == 2 and len(found) == n:
        return found
    several = f" For several targets of one image pass shape (1, {len(found)})." if n == 1 and found.ndim == 1 else ""
    raise InvalidTarget(
        f"targets must be one class, ({n},) for one an image or ({n}, T) for T an image, got shape "
        f"{tuple(found.shape)}.{several}"
    )


def _check_label(label: int) -> None:
    if isinstance(label, bool) or not isinstance(label, int | np.integer):
        raise InvalidTarget(f"A label is an integer, got {label!r}.")
    if label < 0:
        raise InvalidTarget(f"Target {label} is negative. Classes are counted from 0.")


def _in_range(label: int, outputs: Outputs) -> int:
    if label >= (k := outputs.num_classes):
        raise InvalidTarget(f"Target {label} is out of range: the network has {k} classes, 0 to {k - 1}.")
    return label


def _box_iou(boxes: Tensor, box: Tensor) -> Tensor:
    """(..., 4) against (4,): torchvision's box_iou takes no batch dimension, and torchvision is optional here."""
    low, high = torch.maximum(boxes[..., :2], box[:2]), torch.minimum(boxes[..., 2:], box[2:])
    shared = (high - low).clamp_min(0).prod(-1)
    areas = (boxes[..., 2:] - boxes[..., :2]).clamp_min(0).prod(-1) + (box[2:] - box[:2]).prod()
    return shared / (areas - shared)
