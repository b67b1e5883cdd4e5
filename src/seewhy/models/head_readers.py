"""What the heads of detectors return -> `Outputs`: every candidate before suppression, with its full row of classes.

Each adapter is given to `seewhy.load` as ``output=``. Class indices stay the network's own: where a head has a
background class, that column is kept and set to 0, so that every other class is found at its documented index.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from seewhy.checks import check_choice
from seewhy.errors import BadOutput, InvalidInput
from seewhy.models.box_formats import FORMS, are_shares, check_size, corners, grid_centres, in_pixels, tiles
from seewhy.models.reading import select
from seewhy.types import Grid, Outputs, activation

__all__ = ["DETR", "RTDETR", "SSD", "DenseBoxes", "NanoDet", "Place", "likely_scores", "pair_at", "tensor_at"]

SLACK = 0.01  # by which rounding in 8 or 16 bits may overshoot
LOGITS = "Logits need activation_fn='sigmoid' or 'softmax'."
Place = str | int | tuple[str | int, ...]
"""Where a tensor is in what the network returns: a name, an index; several of them are laid end to end."""


@dataclass(frozen=True, kw_only=True)
class DenseBoxes:
    """Scores (N, Q, K) and finished boxes (N, Q, 4).

    Attributes:
        scores: where the scores are.
        boxes: where the boxes are.
        form: of the boxes: "xyxy", "yxyx" (corners), "cxcywh" (centre and size) or "xywh" (corner and size).
        size: (height, width) of the input, where boxes are shares of it; None where they are in its pixels.
        activation_fn: "softmax" or "sigmoid" where the scores are logits; None where they are probabilities.
        background: the index of a class that means "nothing here"; its scores become 0.
    """

    scores: Place = 0
    boxes: Place = 1
    form: Literal["xyxy", "yxyx", "cxcywh", "xywh"] = "xyxy"
    size: tuple[int, int] | None = None
    activation_fn: Literal["softmax", "sigmoid"] | None = None
    background: int | None = None

    def __post_init__(self) -> None:
        activation(self.activation_fn)
        check_size(self.size)
        if self.form not in FORMS:
            raise InvalidInput(f"form must be one of {', '.join(FORMS)}, got {self.form!r}.")

    def __call__(self, raw: Any) -> Outputs:
        """Returns the network's output as `Outputs`; raises BadOutput where the shapes are others."""
        scores, boxes = pair_at(raw, self.scores, self.boxes, 4)
        boxes = corners(boxes, self.form)
        return Outputs(
            scores=likely_scores(scores, self.activation_fn, self.background),
            boxes=boxes if self.size is None else in_pixels(boxes, self.size),
            activated=True,
        )


@dataclass(frozen=True, kw_only=True)
class DETR:
    """DETR and its family: logits (N, Q, K + 1) and boxes (N, Q, 4), centre and size as shares of the input.

    The last class of the softmax means "no object" and is dropped (Carion et al. 2020, arXiv 2005.12872); heads that
    are trained with a sigmoid have none. Names are looked for as in the published code ("pred_logits") and in
    Hugging Face's ("logits").

    Attributes:
        size: (height, width) of the input in pixels.
        activation_fn: "softmax", or "sigmoid" for Deformable DETR, DINO, RT-DETR.
        scores: where the logits are, if under another name.
        boxes: where the boxes are, if under another name.
    """

    size: tuple[int, int]
    activation_fn: Literal["softmax", "sigmoid"] = "softmax"
    scores: Place | None = None
    boxes: Place = "pred_boxes"

    def __post_init__(self) -> None:
        activation(self.activation_fn)
        check_size(self.size)

    def __call__(self, raw: Any) -> Outputs:
        """Returns the network's output as `Outputs`; raises BadOutput where the shapes are others."""
        named = self.scores if self.scores is not None else "pred_logits" if _has(raw, "pred_logits") else "logits"
        scores, boxes = pair_at(raw, named, self.boxes, 4)
        likely = likely_scores(scores, self.activation_fn, None)
        return Outputs(
            scores=likely[..., :-1] if self.activation_fn == "softmax" else likely,
            boxes=in_pixels(corners(boxes, "cxcywh"), self.size),
            activated=True,
        )


@dataclass(frozen=True, kw_only=True)
class RTDETR:
    """RT-DETR as YOLO exporters write it: one tensor (N, Q, 4 + K) of centre and size as shares, and probabilities.

    Attributes:
        size: (height, width) of the input in pixels.
        output: where the tensor is, if the network returns several.
    """

    size: tuple[int, int]
    output: Place = 0

    def __post_init__(self) -> None:
        check_size(self.size)

    def __call__(self, raw: Any) -> Outputs:
        """Returns the network's output as `Outputs`; raises BadOutput where the shape or the values are others."""
        found = tensor_at(raw, self.output)
        if found.shape[2] < 5:
            raise BadOutput(f"RT-DETR's output has shape (N, Q, 4 + K), got {tuple(found.shape)}.")
        scores = likely_scores(found[..., 4:], None, None)
        if not are_shares(found[..., :4]):
            raise BadOutput(
                "RT-DETR's boxes are shares of the input, from 0 to 1, got values up to "
                f"{float(found[..., :4].amax()):.3g}. For boxes in pixels use another reader."
            )
        return Outputs(scores=scores, boxes=in_pixels(corners(found[..., :4], "cxcywh"), self.size), activated=True)


@dataclass(frozen=True, kw_only=True, eq=False)
class SSD:
    """SSD: encodings (N, Q, 4) of boxes against anchors, and class predictions (N, Q, K).

    With an anchor of centre a and size s a box has its centre at a + s t / scale and the size s exp(t / scale) (Liu et
    al. 2016, arXiv 1512.02325). The defaults are those of TensorFlow's object detection models.

    Attributes:
        anchors: (Q, 4) centre and size: x, y, width, height.
        size: (height, width) of the input, where anchors are shares of it; None where they are in its pixels.
        boxes: where the encodings are.
        scores: where the class predictions are.
        order: of an encoding: "yxhw" or "xywh".
        scales: four numbers in that order.
        activation_fn: "sigmoid" or "softmax" where the predictions are logits; None where they are probabilities.
        background: the index of the class that means "nothing here", or None where there is none.
        grids: how the candidates lie in the picture, for `DetClassProbabilityMap`.
    """

    anchors: Tensor
    size: tuple[int, int] | None = None
    boxes: Place = 0
    scores: Place = 1
    order: Literal["yxhw", "xywh"] = "yxhw"
    scales: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0)
    activation_fn: Literal["softmax", "sigmoid"] | None = "sigmoid"
    background: int | None = 0
    grids: tuple[Grid, ...] | None = None

    def __post_init__(self) -> None:
        activation(self.activation_fn)
        check_size(self.size)
        if self.anchors.ndim != 2 or self.anchors.shape[1] != 4 or not bool((self.anchors[:, 2:] > 0).all()):
            got = tuple(self.anchors.shape)
            raise InvalidInput(f"anchors must be (Q, 4): x and y of the centre, width and height above 0, got {got}.")
        check_choice("order", self.order, ("yxhw", "xywh"))

    def __call__(self, raw: Any) -> Outputs:
        """Returns the network's output as `Outputs`; raises BadOutput where the shapes are others."""
        scores, codes = pair_at(raw, self.scores, self.boxes, 4)
        if codes.shape[1] != len(self.anchors):
            raise BadOutput(f"There are {len(self.anchors)} anchors, but encodings of {codes.shape[1]} boxes.")
        codes = codes / codes.new_tensor(self.scales)
        codes = codes[..., [1, 0, 3, 2]] if self.order == "yxhw" else codes
        anchors = self.anchors.to(codes)
        centre = anchors[:, :2] + codes[..., :2] * anchors[:, 2:]
        boxes = corners(torch.cat([centre, anchors[:, 2:] * codes[..., 2:].exp()], -1), "cxcywh")
        return Outputs(
            scores=likely_scores(scores, self.activation_fn, self.background),
            boxes=boxes if self.size is None else in_pixels(boxes, self.size),
            activated=True,
            grids=self.grids,
        )


@dataclass(frozen=True, kw_only=True)
class NanoDet:
    """NanoDet and other heads with distance distributions: scores (N, Q, K) and logits (N, Q, 4 (R + 1)) of distances.

    A position's distance to each side of its box (left, top, right, bottom) is the mean of 0..R under the softmax of
    R + 1 logits, in strides (Li et al., "Generalized Focal Loss", 2020, arXiv 2006.04388). Boxes end at the input's
    border. One tensor (N, Q, K + 4 (R + 1)) is taken, too.

    Attributes:
        size: (height, width) of the input in pixels.
        scores: where the scores are; several places for several levels.
        boxes: where the distributions are.
        strides: of the levels in their order.
        reg_max: R.
        offset: of a position's centre, in strides: 0.5, or 0 for NanoDet-Plus.
        activation_fn: "sigmoid" where the scores are logits; None where they are probabilities.
    """

    size: tuple[int, int]
    scores: Place = 0
    boxes: Place = 1
    strides: tuple[int, ...] = (8, 16, 32)
    reg_max: int = 7
    offset: float = 0.5
    activation_fn: Literal["softmax", "sigmoid"] | None = None

    def __post_init__(self) -> None:
        activation(self.activation_fn)
        check_size(self.size)

    def __call__(self, raw: Any) -> Outputs:
        """Returns the network's output as `Outputs`; raises BadOutput where the shapes are others."""
        width = 4 * (self.reg_max + 1)
        if isinstance(raw, Tensor | np.ndarray) and raw.ndim == 3 and raw.shape[2] > width:
            raw = {self.scores: raw[..., :-width], self.boxes: raw[..., -width:]}
        scores, logits = pair_at(raw, self.scores, self.boxes, width)
        levels = tiles(self.size, self.strides)
        if (held := sum(h * w for h, w in levels)) != scores.shape[1]:
            raise BadOutput(
                f"An input of {self.size[0]} x {self.size[1]} pixels has {held} positions at strides "
                f"{', '.join(map(str, self.strides))}, the head gives {scores.shape[1]}. "
                "Pass the right size and strides."
            )
        return Outputs(
            scores=likely_scores(scores, self.activation_fn, None),
            boxes=self._boxes(logits),
            activated=True,
            grids=tuple(Grid(h, w) for h, w in levels),
        )

    def _boxes(self, logits: Tensor) -> Tensor:
        n, q = logits.shape[:2]
        centres, steps = (t.to(logits) for t in grid_centres(self.size, self.strides, self.offset))
        share = logits.reshape(n, q, 4, self.reg_max + 1).softmax(-1)
        distance = (share * torch.arange(self.reg_max + 1).to(logits)).sum(-1) * steps
        boxes = torch.cat([centres - distance[..., :2], centres + distance[..., 2:]], -1)
        height, width = self.size
        return torch.minimum(boxes.clamp_min(0), boxes.new_tensor([width, height, width, height]))


def likely_scores(scores: Tensor, function: str | None, background: int | None, hint: str = "") -> Tensor:
    """Probabilities (N, Q, K), 0 for the background.

    Raises:
        BadOutput: scores that are said to be probabilities and are none; ``hint`` says what they may be.
    """
    put = activation(function)
    likely = scores if put is None else put(scores)
    if put is None and likely.numel() and (float(likely.amin()) < -SLACK or float(likely.amax()) > 1 + SLACK):
        raise BadOutput(
            f"The scores of a detector must be probabilities, from 0 to 1, got {float(likely.amin()):.3g} to "
            f"{float(likely.amax()):.3g}. {hint or LOGITS}"
        )
    if background is None:
        return likely
    if not 0 <= background < scores.shape[2]:
        raise BadOutput(f"There is no background class {background}: the head has {scores.shape[2]} classes.")
    return likely.index_fill(2, torch.tensor([background], device=scores.device), 0)


def pair_at(raw: Any, scores: Place, boxes: Place, width: int) -> tuple[Tensor, Tensor]:
    """Scores (N, Q, K) and what describes the boxes (N, Q, width)."""
    first, second = tensor_at(raw, scores), tensor_at(raw, boxes)
    if first.shape[:2] != second.shape[:2] or second.shape[2] != width:
        swapped = first.shape[2] == width and second.shape[2] != width
        hint = f" They seem to be swapped: pass scores={boxes!r}, boxes={scores!r}." if swapped else ""
        raise BadOutput(
            f"The head must give scores (N, Q, K) and boxes (N, Q, {width}), got {tuple(first.shape)} at {scores!r} "
            f"and {tuple(second.shape)} at {boxes!r}.{hint}"
        )
    return first, second


def tensor_at(raw: Any, place: Place) -> Tensor:
    """(N, Q, ...) float32 from one place, or from several laid end to end."""
    if isinstance(place, tuple):
        return torch.cat([tensor_at(raw, one) for one in place], 1)
    found = raw if isinstance(raw, Tensor | np.ndarray) else select(raw, place)
    found = torch.from_numpy(found) if isinstance(found, np.ndarray) else found
    if not isinstance(found, Tensor) or found.ndim != 3:
        got = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else f"a {type(found).__name__}"
        raise BadOutput(f"The head must give a tensor (N, Q, ...) at {place!r}, got {got}.")
    return found.float()


def _has(raw: Any, name: str) -> bool:
    try:
        select(raw, name)
    except BadOutput:
        return False
    return True
