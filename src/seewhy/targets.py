"""What is explained: a target turns a model's outputs into one number an image.

Because the target carries the task, a method that can explain a class can explain a detected box, an instance mask
or a direction in an embedding with no code of its own for them (RISE with a `DRISETarget` is D-RISE, Petsiuk 2021).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from seewhy.detection import SCORE, BoxTarget, Detection, DRISETarget, MaskTarget, check_label, detect, in_range
from seewhy.errors import InvalidTarget, nearest
from seewhy.images.view import View
from seewhy.regions import KeypointTarget, RegionTarget
from seewhy.registry import instead
from seewhy.types import Outputs

__all__ = [
    "BoxTarget", "Chosen", "ClassTarget", "DRISETarget", "Detection", "KeypointTarget", "MaskTarget", "RegionTarget",
    "Request", "SimilarityTarget", "Target", "TargetSet", "TextTarget", "one_at_a_time",
]  # fmt: skip


@runtime_checkable
class Target(Protocol):
    """Outputs of N images -> (N,) numbers, differentiable where the model is."""

    def __call__(self, outputs: Outputs) -> Tensor:
        """Returns the number that is explained, for each image."""
        ...


@dataclass(frozen=True, kw_only=True)
class ClassTarget:
    """The score of one class; with several candidates, that of the best one.

    Example:
        >>> ClassTarget(label=1)(seewhy.Outputs.of_classes(torch.tensor([[0.2, 0.7, 0.1]])))
        tensor([0.7000])
    """

    label: int

    def __post_init__(self) -> None:
        check_label(self.label)

    def __call__(self, outputs: Outputs) -> Tensor:
        """(N,) scores of the class."""
        return outputs.classes[:, in_range(self.label, outputs)]


@dataclass(frozen=True, kw_only=True, eq=False)
class SimilarityTarget:
    """The cosine between the model's output and a given embedding (of a text, of another picture).

    Attributes:
        embedding: (K,) as long as the model's output.
        text: what it is the embedding of, for reports.

    Example:
        >>> SimilarityTarget(embedding=torch.tensor([3.0, 4.0]))(seewhy.Outputs.of_classes(torch.tensor([[4.0, 3.0]])))
        tensor([0.9600])
    """

    embedding: Tensor
    text: str = ""

    def __call__(self, outputs: Outputs) -> Tensor:
        """(N,) cosines in [-1, 1]."""
        if tuple(self.embedding.shape) != (outputs.num_classes,):
            got, want = tuple(self.embedding.shape), (outputs.num_classes,)
            raise InvalidTarget(f"The embedding must have the shape of the model's output, {want}, got {got}.")
        return F.cosine_similarity(outputs.classes, self.embedding.to(outputs.scores), dim=-1)


@dataclass(frozen=True)
class TextTarget:
    """How well an image fits a text, for networks of images and texts (CLIP, SigLIP, open_clip).

    `seewhy.explain` reads the text with the network's own text tower and explains the cosine between the two
    embeddings. An explainer that is called directly takes the `SimilarityTarget` that ``seewhy.spoken`` makes of it.

    Attributes:
        text: any text.

    Raises:
        InvalidTarget: not a text, or an empty one.

    Example:
        >>> TextTarget("a rusty bolt").text
        'a rusty bolt'
    """

    text: str

    def __post_init__(self) -> None:
        if not isinstance(self.text, str) or not self.text.strip():
            raise InvalidTarget(f"TextTarget: expected a text, got {self.text!r}.")

    def __call__(self, outputs: Outputs) -> Tensor:
        """Raises InvalidTarget: a text has to be read by the model first."""
        raise InvalidTarget(
            f"The text {self.text!r} has not been read by the model. Pass the target to seewhy.explain, or make it a "
            "SimilarityTarget: model, target = seewhy.spoken(model, target)."
        )


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
        word: what stands before the index of a class in messages.
    """

    classes: Tensor | None = None
    targets: tuple[Target, ...] = ()
    word: str = "class"

    @property
    def count(self) -> int:
        """T, how many targets each image has."""
        return len(self.targets) if self.classes is None else self.classes.shape[1]

    @property
    def is_open(self) -> bool:
        """Whether some target has yet to be settled by what the network says of the image."""
        return any(getattr(target, "is_open", False) for target in self.targets)

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
            return [f"{self.word} {c}" for c in self.classes[image].tolist()]
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
        """Reads every documented form of ``targets`` for a batch of ``n`` images; what is parsed already stays so.

        Raises:
            InvalidTarget: negative, of the wrong length or type, a float.
        """
        if isinstance(targets, Request):
            return targets
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

    @classmethod
    def named(cls, targets: Any, names: Sequence[str] | None, n: int) -> Request:
        """Reads ``targets`` in which classes may be called by name; a flat list for one image is its several targets.

        Args:
            targets: every documented form.
            names: those of the classes, where there are any.
            n: the number of images.

        Raises:
            InvalidTarget: as `parse`; a name is unknown (the nearest are offered), ambiguous, or there are no names.
        """
        return cls.parse(_indexed(targets, n, lambda name: _index_of(name, names)), n)

    @classmethod
    def check(cls, targets: Any, n: int) -> None:
        """Raises InvalidTarget for what can be refused before there are a network and names of classes."""
        cls.parse(_indexed(targets, n, lambda _: 0), n)

    @property
    def apart(self) -> bool:
        """Whether a target is another one for each image: in pixels of the original, or where the network sees it."""
        return any(
            isinstance(one, RegionTarget | KeypointTarget)
            or (isinstance(one, BoxTarget) and one.picture_box is not None)
            for one in self.targets
        )

    def placed(self, view: View, size: tuple[int, int]) -> Request:
        """Returns the same with all boxes and regions in pixels of an input of ``size`` (height, width)."""
        if not self.apart:
            return self
        placed = [one.placed(view, size) if isinstance(one, BoxTarget | RegionTarget) else one for one in self.targets]
        return replace(self, targets=tuple(placed))

    def rows(self, places: list[int]) -> Request:
        """What was asked for some of the images."""
        return replace(self, n=len(places), classes=None if self.classes is None else self.classes[places])

    def classes_only(self, outputs: Outputs, method: str) -> TargetSet:
        """The same for a method that explains classes: of a detector the likeliest class where nothing was asked.

        Raises:
            InvalidTarget: boxes, masks or other targets that are no classes were asked for.
        """
        if self.kind == "predicted":
            return _predicted(outputs)
        found = self.resolve(outputs)
        if found.classes is None:
            raise InvalidTarget(
                f"{method} explains classes. For a box, a mask or another target use {instead('scores')}."
            )
        return found

    def resolve(self, outputs: Outputs) -> TargetSet:
        """Returns the targets, now that the number of classes and the predictions are known.

        Raises:
            InvalidTarget: out of range, or one-hot rows where indices are expected.
        """
        device, k = outputs.scores.device, outputs.num_classes
        if self.kind == "predicted":
            return _predicted(outputs) if outputs.boxes is None else TargetSet(targets=_detected(outputs))
        if self.kind == "all":
            return TargetSet(classes=torch.arange(k, device=device).expand(self.n, -1), word=outputs.word)
        if self.chosen is not None:
            return TargetSet(classes=self.chosen.choose(outputs).to(device))
        if self.classes is None:
            return TargetSet(targets=tuple(_settled(target, outputs) for target in self.targets))
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
        own = classes.clone() if classes.is_inference() else classes
        return TargetSet(classes=own.to(device), word=outputs.word)


def _settled(target: Target, outputs: Outputs) -> Target:
    """The target for good: where the network sees a class or a key point must not move while the image is changed."""
    return target.settled(outputs) if isinstance(target, RegionTarget | KeypointTarget) else target


def _predicted(outputs: Outputs) -> TargetSet:
    if outputs.meaning == "embedding":
        raise InvalidTarget(
            f"The network gives an embedding of {outputs.num_classes} numbers and no classes: {outputs.how}. Pass "
            "targets=seewhy.SimilarityTarget(embedding=...), such as that of a text or of another picture; the index "
            "of one number; or class names, seewhy.load(network, labels=...), if its numbers are classes."
        )
    return TargetSet(classes=outputs.classes.argmax(1, keepdim=True), word=outputs.word)


def _detected(outputs: Outputs) -> tuple[Detection, ...]:
    """What a detector finds in one picture, in several there would not be equally much."""
    if len(outputs.scores) > 1:
        raise one_at_a_time(len(outputs.scores))
    if not (found := detect(outputs)[0]):
        score, label = outputs.classes[0].max(0)
        raise InvalidTarget(
            f"The detector finds nothing with a score above {SCORE}; the likeliest is class {int(label)} with "
            f"{float(score):.2g}. Pass targets=seewhy.detections(model, image, score_threshold=...)."
        )
    return tuple(found)


def one_at_a_time(n: int) -> InvalidTarget:
    """Explains image after image where a detector finds different numbers of things."""
    return InvalidTarget(
        f"What a detector finds is explained one picture at a time, got {n}. Pass targets that hold for all of them, "
        "or one picture."
    )


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


def _indexed(targets: Any, n: int, index: Callable[[str], int]) -> Any:
    """Returns the targets with an index in place of each class name."""
    if isinstance(targets, str) and targets != "all":
        return index(targets)
    if isinstance(targets, list | tuple) and targets and not callable(targets[0]):
        indices = [index(t) if isinstance(t, str) else t for t in targets]
        flat = not any(isinstance(t, list | tuple | np.ndarray | Tensor) for t in indices)
        return [indices] if n == 1 and flat else indices
    return targets


def _index_of(name: str, names: Sequence[str] | None) -> int:
    if name.isdecimal():
        return int(name)
    if not names:
        raise InvalidTarget(f"The model has no class names, so {name!r} cannot be looked up. Pass the class's index.")
    wanted = name.strip().casefold()
    exact = [i for i, own in enumerate(names) if own.casefold() == wanted]
    found = exact or [i for i, own in enumerate(names) if wanted in own.casefold().split(", ")]
    if len(found) == 1:
        return found[0]
    if found:
        raise InvalidTarget(f"{name!r} names several classes: {', '.join(map(str, found))}. Pass an index.")
    raise InvalidTarget(f"The model has no class {name!r}. {nearest(name, names)}")


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
