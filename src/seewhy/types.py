"""The vocabulary: what flows between models, targets and explainers. Shapes and invariants, nothing else.

Letters in shapes: N images, C channels, H x W input pixels, T targets, K classes, Q candidates of a detector,
h x w a map's own resolution.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from seewhy.errors import BadOutput, InvalidInput, InvalidType, raised_by
from seewhy.foreign import callable_in_torch
from seewhy.maps import PICTURE, VOLUME

__all__ = [
    "AS_THEY_ARE", "Activation", "Grid", "Note", "Outputs", "Passes", "Sample", "activation", "as_they_are",
    "check_activation", "check_inputs", "same",
]  # fmt: skip

Activation = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Grid:
    """How the candidates of one level of a detector lie in the picture: row by row.

    Attributes:
        height: positions down.
        width: positions across.
        anchors: candidates a position.
        anchors_first: True where all positions of one anchor stand together; else all anchors of one position do.
        reach: how far the grid goes, in heights and widths of the input: above 1 where the network pads it.
    """

    height: int
    width: int
    anchors: int = 1
    anchors_first: bool = False
    reach: tuple[float, float] = (1.0, 1.0)

    @property
    def count(self) -> int:
        """How many candidates the level has."""
        return self.height * self.width * self.anchors


@dataclass(frozen=True, kw_only=True, eq=False)
class Outputs:
    """What a model says about N images: a classifier is a detector with one candidate and no box.

    Attributes:
        scores: (N, Q, K) float32, one row for each candidate. Detectors with fewer candidates in one image than in
            another pad with rows of zeros and empty boxes.
        boxes: (N, Q, 4) as x0, y0, x1, y1 in input pixels, (N, Q, K, 4) where each class has a box of its own, or None.
        masks: (N, Q, h, w) in [0, 1], or None.
        activated: True when the scores are probabilities already, so that no activation may be put on them again.
        meaning: "classes"; "values" where they are no scores of classes (a regression); "embedding" where they are a
            vector, of which no entry is a class.
        how: what shows that, in words.
        seen: whether the operations that made the scores were looked at, so that no probability goes unnoticed.
        pair: whether one score an image stands for two classes: class 1 is the score, class 0 its complement.
        grids: for a detector whose candidates lie on grids, those grids, one level after the other; or None.
        dense: (h, w) where the candidates are the places of a map, row by row (semantic segmentation, key points), each
            with its scores; None otherwise. Then a class means its mean over all places.
        objectness: (N, Q) probability that a candidate is an object of any class, where the head says it; or None.
        dropped: (N,) how many candidates were left out because their boxes are NaN or infinite; None where none was.

    Example:
        >>> outputs = Outputs(scores=torch.rand(2, 9, 5), boxes=torch.rand(2, 9, 4))  # 9 candidates, 5 classes
        >>> outputs.classes.shape  # the best candidate of each class
        torch.Size([2, 5])
    """

    scores: Tensor
    boxes: Tensor | None = None
    masks: Tensor | None = None
    activated: bool = False
    meaning: Literal["classes", "values", "embedding"] = "classes"
    how: str = ""
    seen: bool = False
    pair: bool = False
    grids: tuple[Grid, ...] | None = None
    dense: tuple[int, int] | None = None
    objectness: Tensor | None = None
    dropped: Tensor | None = None

    def __post_init__(self) -> None:
        if self.scores.ndim != 3:
            raise BadOutput(f"Outputs.scores must have shape (N, Q, K), got {tuple(self.scores.shape)}.")
        n, q, k = self.scores.shape
        if self.boxes is not None and tuple(self.boxes.shape) not in ((n, q, 4), (n, q, k, 4)):
            raise BadOutput(f"Outputs.boxes must have shape {(n, q, 4)}, got {tuple(self.boxes.shape)}.")
        if self.grids is not None and (held := sum(grid.count for grid in self.grids)) != q:
            raise BadOutput(f"Outputs.grids must hold the {q} candidates of the scores, got room for {held}.")
        if self.dense is not None and self.dense[0] * self.dense[1] != q:
            raise BadOutput(f"Outputs.dense must hold the {q} candidates of the scores, got {self.dense}.")
        if self.objectness is not None and tuple(self.objectness.shape) != (n, q):
            raise BadOutput(f"Outputs.objectness must have shape {(n, q)}, got {tuple(self.objectness.shape)}.")
        if self.masks is not None and (self.masks.ndim != 4 or tuple(self.masks.shape[:2]) != (n, q)):
            raise BadOutput(f"Outputs.masks must have shape ({n}, {q}, h, w), got {tuple(self.masks.shape)}.")

    @classmethod
    def of_classes(cls, scores: Tensor) -> Outputs:
        """Returns the outputs of a classifier from its (N, K) scores."""
        return cls(scores=scores.float().unsqueeze(1))

    @property
    def num_classes(self) -> int:
        """K, the length of a score row; 2 where one score stands for two classes."""
        return 2 if self.pair else self.scores.shape[2]

    @property
    def word(self) -> str:
        """What one entry of a score row is called, before its number."""
        if self.meaning == "embedding":
            return "number"
        return "output" if self.meaning == "values" or self.num_classes == 1 else "class"

    @property
    def classes(self) -> Tensor:
        """(N, K): for each class the best candidate's score (for a classifier, its scores; of a map, the mean)."""
        if self.pair:
            second = self.scores[:, 0]
            return torch.cat([1 - second if self.activated else -second, second], 1)
        if self.dense is not None:
            return self.scores.mean(1)
        return self.scores[:, 0] if self.scores.shape[1] == 1 else self.scores.amax(1)

    def activate(self, function: Activation | None) -> Outputs:
        """Returns the same with ``function`` put on the scores, unless they are probabilities already."""
        if function is None or self.activated:
            return self
        n, q, k = self.scores.shape
        with raised_by(f"The activation {getattr(function, '__name__', type(function).__name__)!r}"):
            scores = function(self.scores.reshape(n * q, k)).reshape(n, q, k)
        return replace(self, scores=scores, activated=True)


@dataclass
class Passes(threading.local):
    """How many images went forward through a model, and how many went backward.

    Each thread counts its own, so that what a call cost can be told while others run; a thread that sees the object for
    the first time starts with the numbers with which it was made.

    Attributes:
        forward: images that went forward.
        backward: images that went backward.
        shared: images that did not have to go forward, because they had for another explainer; see `sharing`.
    """

    forward: int = 0
    backward: int = 0
    shared: int = 0

    def __reduce__(self) -> tuple[Any, ...]:
        """Sends the numbers of this thread along."""
        return type(self), (self.forward, self.backward, self.shared)

    def since(self, earlier: Passes) -> Passes:
        """Returns the passes made after ``earlier`` was noted."""
        pairs = [(getattr(self, name), getattr(earlier, name)) for name in ("forward", "backward", "shared")]
        return Passes(*(now - before for now, before in pairs))


@dataclass(frozen=True, kw_only=True, eq=False)
class Sample:
    """One picture of a data set.

    Attributes:
        image: a path, a PIL image, an array (H, W, 3), or a tensor (C, H, W) that is ready for the network.
        target: a class index or name, or a `Target`; None for what the network predicts.
        mask: (H, W) of the picture's size, above 0 where the object is, or the path of such a picture; None when
            that is not known.
        name: how it is called in reports.
        labels: the classes that are truly there; () says that none is, None that nobody knows.
        boxes: where objects are: (label, x0, y0, x1, y1) in pixels of the picture.
        masks: label -> (H, W) mask of the picture's size, or the path of such a picture.
        crowds: which of the boxes, by their place, are around many objects (COCO's iscrowd).
        difficult: which of the boxes, by their place, need not be found (Pascal VOC's difficult).

    Example:
        >>> Sample(image="cat.jpg", target="tabby", mask="cat-mask.png").target
        'tabby'
    """

    image: Any
    target: Any = None
    mask: Any = None
    name: str = ""
    labels: tuple[int, ...] | None = None
    boxes: tuple[tuple[int, float, float, float, float], ...] = ()
    masks: Mapping[int, Any] = field(default_factory=dict)
    crowds: tuple[int, ...] = ()
    difficult: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Note:
    """Something that the reader of a result should know, as data: sentences are made of it at the end.

    Attributes:
        text: what is said; where it is about one image or target, without naming it ("the map is constant.").
        kind: by which notes of one kind are counted, in a few words ("constant map").
        image: the index of the image in its batch, or None where it is about all.
        target: the index of the image's target, or None where it is about the whole image.
    """

    text: str
    kind: str = "remark"
    image: int | None = None
    target: int | None = None


AS_THEY_ARE = "as they are"  # stands in run.json for the activation of scores that are probabilities already


def as_they_are(scores: Tensor) -> Tensor:
    """Returns the activation of scores that are probabilities already."""
    return scores


def activation(function: str | Activation | None) -> Activation | None:
    """Returns the function (R, K) -> (R, K) meant by "softmax", "sigmoid", None or a callable.

    Raises:
        InvalidInput: for anything else.
    """
    named: dict[str, Activation] = {"softmax": lambda scores: scores.softmax(-1), "sigmoid": torch.sigmoid}
    if isinstance(function, str) and function in named:
        return named[function]
    if isinstance(function, str) or (function is not None and not callable(function)):
        raise InvalidInput(f"activation_fn must be 'softmax', 'sigmoid', None or a callable, got {function!r}.")
    found: Activation | None = callable_in_torch(function)
    return found


def check_activation(function: Any) -> None:
    """Raises InvalidInput unless it is "auto" (settled when the network has spoken), or what `activation` takes."""
    if function == "auto" and isinstance(function, str):
        return
    try:
        activation(function)
    except InvalidInput as error:
        raise InvalidInput(
            f"activation_fn must be 'auto', 'softmax', 'sigmoid', None or a callable, got {function!r}."
        ) from error


_NO_VOLUMES = " This is defined for pictures; volumes and clips (N, C, D, H, W) are explained by seewhy.explain."


def check_inputs(inputs: Any, *, volumes: bool = False) -> None:
    """Raises unless ``inputs`` is a finite float tensor (N, C, H, W), or with ``volumes`` (N, C, D, H, W) as well."""
    if not isinstance(inputs, Tensor):
        raise InvalidType(
            f"inputs must be a torch tensor (N, C, H, W), got {type(inputs).__name__}. "
            "For pictures and files use seewhy.explain."
        )
    if inputs.ndim != PICTURE and not (volumes and inputs.ndim == VOLUME):
        hint = " For one image use inputs.unsqueeze(0)." if inputs.ndim == 3 else _NO_VOLUMES * (inputs.ndim == VOLUME)
        raise InvalidInput(f"inputs must have shape (N, C, H, W), got {tuple(inputs.shape)}.{hint}")
    if inputs.dtype == torch.uint8:
        raise InvalidInput(
            "inputs must be floating point, got uint8. Scale it as the network was trained: x.float() / 255."
        )
    if not inputs.dtype.is_floating_point:
        raise InvalidInput(f"inputs must be floating point, got {str(inputs.dtype).removeprefix('torch.')}.")
    if 0 in inputs.shape:
        raise InvalidInput(f"inputs is empty: its shape is {tuple(inputs.shape)}.")
    # The sum is finite where every value is, and one pass cheaper; where it overflows every value is looked at.
    if not bool(inputs.sum().isfinite()) and not bool(torch.isfinite(inputs).all()):
        bad = (~torch.isfinite(inputs)).flatten(1).any(1).nonzero().flatten().tolist()
        raise InvalidInput(f"inputs has NaN or infinite values in image {', '.join(map(str, bad))}.")


def same(a: Any, b: Any) -> bool:
    """Says whether two parameters are equal; tensors are by type, shape and values."""
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return isinstance(a, Tensor) and isinstance(b, Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    return bool(a == b)
