"""What YOLO networks return -> `Outputs`: the layouts of their versions and tasks, each told from the others.

The layouts are alike enough to be taken for one another, and every mistake gives boxes and scores that look possible.
So each reader looks at the values, too, and refuses what is another's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from seewhy.checks import check_count
from seewhy.errors import BadOutput, InvalidInput
from seewhy.models.box_formats import FORMS, are_shares, check_size, corners, grid_centres, in_pixels, tiles
from seewhy.models.head_readers import Place, likely_scores, tensor_at
from seewhy.models.reading import select
from seewhy.types import Grid, Outputs

__all__ = ["YOLOX", "EndToEnd", "YOLOv5", "YOLOv8"]

_TASKS = ("detect", "segment", "pose", "obb")
_OTHER = (
    "Columns that are no classes are key points (task='pose'), angles (task='obb') or masks (task='segment', and a "
    "second output); logits need a sigmoid."
)
_ROWS = "They look like rows of a network that suppresses itself: use heads.EndToEnd(num_classes=...)."
_UNDECODED = "They look like offsets within cells: use heads.YOLOX(size=...)."
_NEAR = 0.05  # share of the input within which no detector has all its candidates


@dataclass(frozen=True, kw_only=True)
class YOLOv5:
    """YOLOv5, v7 and decoded YOLOX: one tensor (N, Q, 5 + K) of centre, size, objectness and class probabilities.

    A candidate's score is objectness times class probability.

    Attributes:
        output: where the tensor is, if the network returns several.
        size: (height, width) of the input. Needed where boxes are shares of it, and for maps over its grids.
        normalised: True where boxes are shares of the input.
        strides: of the levels in their order; candidates of other grids are taken, too, but have no maps.
        anchors: candidates a position.
        classes: K, where it is known: another number of columns is an error then.
    """

    output: Place = 0
    size: tuple[int, int] | None = None
    normalised: bool = False
    strides: tuple[int, ...] = (8, 16, 32)
    anchors: int = 3
    classes: int | None = None

    def __post_init__(self) -> None:
        _check_yolo(self.size, self.normalised, self.classes)

    def __call__(self, raw: Any) -> Outputs:
        """Returns the network's output as `Outputs`; raises BadOutput where the shape or the values are others."""
        found = tensor_at(raw, self.output)
        if found.shape[2] < 6 or found.shape[1] < found.shape[2]:
            hint = " It looks like YOLOv8's." if found.shape[1] < found.shape[2] else ""
            raise BadOutput(f"YOLOv5's output has shape (N, Q, 5 + K), got {tuple(found.shape)}.{hint}")
        if _are_rows(found):
            raise BadOutput(f"The last column of {tuple(found.shape)} holds class numbers, no probabilities. {_ROWS}")
        _check_classes("YOLOv5", found.shape[2] - 5, self.classes)
        boxes = _placed(found[..., :4], self.size, self.normalised)
        likely = likely_scores(found[..., 4:], None, None, _OTHER)
        return Outputs(
            scores=likely[..., :1] * likely[..., 1:],
            boxes=boxes,
            activated=True,
            grids=_grids(found.shape[1], self.size, self.strides, self.anchors, anchors_first=True),
            objectness=likely[..., 0],
        )


@dataclass(frozen=True, kw_only=True)
class YOLOX:
    """YOLOX as it is exported: one tensor (N, Q, 5 + K) of offsets, log sizes, objectness and class probabilities.

    At a position a box has its centre at (position + offset) times the stride, and a size of exp(log size) strides (Ge
    et al. 2021, arXiv 2107.08430). A candidate's score is objectness times class probability.

    Attributes:
        size: (height, width) of the input in pixels.
        output: where the tensor is, if the network returns several.
        strides: of the levels in their order.
        classes: K, where it is known: another number of columns is an error then.
    """

    size: tuple[int, int]
    output: Place = 0
    strides: tuple[int, ...] = (8, 16, 32)
    classes: int | None = None

    def __post_init__(self) -> None:
        _check_yolo(self.size, False, self.classes)

    def __call__(self, raw: Any) -> Outputs:
        """Returns the network's output as `Outputs`; raises BadOutput where the shape or the values are others."""
        found = tensor_at(raw, self.output)
        levels = tiles(self.size, self.strides)
        if found.shape[2] < 6 or found.shape[1] != sum(h * w for h, w in levels):
            raise BadOutput(
                f"YOLOX's output has shape (N, {sum(h * w for h, w in levels)}, 5 + K) for an input of {self.size[0]} "
                f"x {self.size[1]} pixels and strides {', '.join(map(str, self.strides))}, got {tuple(found.shape)}."
            )
        _check_classes("YOLOX", found.shape[2] - 5, self.classes)
        if float(found[..., 2:4].amax()) > 16:
            raise BadOutput("YOLOX's sizes are logarithms, got values above 16: they are decoded. Use heads.YOLOv5.")
        corner, steps = (t.to(found) for t in grid_centres(self.size, self.strides, 0.0))
        boxes = torch.cat([corner + found[..., :2] * steps, found[..., 2:4].exp() * steps], -1)
        likely = likely_scores(found[..., 4:], None, None, _OTHER)
        return Outputs(
            scores=likely[..., :1] * likely[..., 1:],
            boxes=corners(boxes, "cxcywh"),
            activated=True,
            grids=tuple(Grid(h, w) for h, w in levels),
            objectness=likely[..., 0],
        )


@dataclass(frozen=True, kw_only=True)
class YOLOv8:
    """YOLOv8 and later heads without anchors: one tensor (N, 4 + K, Q) of centre, size and class probabilities.

    Further rows belong to other tasks. "segment": as many mask coefficients as the second output (N, M, h, w) has
    prototypes; a mask is the sigmoid of their product within its box, and of all candidates the likeliest are kept.
    "pose": key points, which are left out. "obb": an angle in radians; a box is the upright one around the turned one.

    Attributes:
        output: where the tensor is, if the network returns several.
        size: (height, width) of the input. Needed where boxes are shares of it, and for maps over its grids and masks.
        normalised: True where boxes are shares of the input.
        strides: of the levels in their order; candidates of other grids are taken, too, but have no maps.
        classes: K, where it is known: another number of rows is an error then. Key points need it unless it is 1.
        task: "detect", "segment", "pose" or "obb".
        prototypes: where the prototypes of masks are.
        candidates: of "segment": how many have masks.
    """

    output: Place = 0
    size: tuple[int, int] | None = None
    normalised: bool = False
    strides: tuple[int, ...] = (8, 16, 32)
    classes: int | None = None
    task: Literal["detect", "segment", "pose", "obb"] = "detect"
    prototypes: Place = 1
    candidates: int = 100

    def __post_init__(self) -> None:
        _check_yolo(self.size, self.normalised, self.classes)
        if self.task not in _TASKS:
            raise InvalidInput(f"task must be one of {', '.join(_TASKS)}, got {self.task!r}.")
        if self.task == "segment" and self.size is None:
            raise InvalidInput("Masks need the input's size=(height, width).")

    def __call__(self, raw: Any) -> Outputs:
        """Returns the network's output as `Outputs`; raises BadOutput where the shape or the values are others."""
        found = tensor_at(raw, self.output)
        if found.shape[1] < 5 or found.shape[2] < found.shape[1]:
            raise BadOutput(f"YOLOv8's output has shape (N, 4 + K, Q), got {tuple(found.shape)}.{_like(found)}")
        rows = found.transpose(1, 2)
        if _are_rows(rows):
            raise BadOutput(f"The last row of {tuple(found.shape)} holds class numbers, no probabilities. {_ROWS}")
        masks = self._prototypes(raw)
        k = self._count(rows.shape[2], masks)
        _check_classes("YOLOv8", k, self.classes)
        boxes = _placed(rows[..., :4], self.size, self.normalised)
        outputs = Outputs(
            scores=likely_scores(rows[..., 4 : 4 + k], None, None, _OTHER),
            boxes=_upright(boxes, rows[..., -1]) if self.task == "obb" else boxes,
            activated=True,
            grids=_grids(found.shape[2], self.size, self.strides),
        )
        return outputs if masks is None else self._with_masks(outputs, rows[..., 4 + k :], masks)

    def _prototypes(self, raw: Any) -> Tensor | None:
        beside = _beside(raw)
        if self.task != "segment":
            if len(beside) == 1:
                raise BadOutput(
                    f"Beside the boxes there are maps of shape {beside[0]}, as prototypes of masks are: pass "
                    "task='segment'."
                )
            return None
        found = select(raw, self.prototypes) if not isinstance(self.prototypes, tuple) else None
        found = torch.from_numpy(found) if isinstance(found, np.ndarray) else found
        if not isinstance(found, Tensor) or found.ndim != 4:
            got = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else f"a {type(found).__name__}"
            raise BadOutput(f"Prototypes of masks have shape (N, M, h, w), got {got} at {self.prototypes!r}.")
        return found.float()

    def _count(self, columns: int, masks: Tensor | None) -> int:
        """K, by what the other columns are."""
        if self.task == "pose":
            return 1 if self.classes is None else self.classes
        if masks is not None:
            return columns - 4 - masks.shape[1]
        return columns - (5 if self.task == "obb" else 4)

    def _with_masks(self, outputs: Outputs, coefficients: Tensor, prototypes: Tensor) -> Outputs:
        assert outputs.boxes is not None
        assert self.size is not None
        best = outputs.scores.amax(2).topk(min(self.candidates, outputs.scores.shape[1]), 1).indices[..., None]
        boxes, own = (t.gather(1, best.expand(-1, -1, t.shape[2])) for t in (outputs.boxes, coefficients))
        masks = torch.einsum("nqm,nmhw->nqhw", own, prototypes).sigmoid()
        y, x = (
            (torch.arange(cells, device=boxes.device) + 0.5) * (side / cells)
            for cells, side in zip(masks.shape[2:], self.size, strict=True)
        )
        x0, y0, x1, y1 = (side.unsqueeze(-1) for side in boxes.unbind(-1))
        inside = ((y >= y0) & (y < y1)).unsqueeze(-1) & ((x >= x0) & (x < x1)).unsqueeze(-2)
        scores = outputs.scores.gather(1, best.expand(-1, -1, outputs.scores.shape[2]))
        return Outputs(scores=scores, boxes=boxes, masks=masks * inside, activated=True)


@dataclass(frozen=True, kw_only=True)
class EndToEnd:
    """What is left after suppression: YOLOv10, YOLO26, and exports that suppress themselves.

    One tensor (N, Q, 6) of box, score and class number, or three of them; each image has its own number of boxes, and
    rows without a score or with a negative class are none. A file that gives rows without a first dimension for the
    images is run once for each image. Because a box vanishes when another one wins, maps are rougher than those of a
    network that gives all candidates.

    Attributes:
        num_classes: K.
        output: where the tensor is; not used where boxes, scores and classes are given.
        columns: what stands in a row, in this order: "box" (four numbers), "score", "class", "image" (not read).
        boxes: where the boxes (N, Q, 4) are, if they have a tensor of their own.
        scores: where the scores (N, Q) are then.
        classes: where the class numbers (N, Q) are then.
        form: of the boxes: "xyxy", "yxyx", "cxcywh" or "xywh".
        size: (height, width) of the input, where boxes are shares of it; None where they are in its pixels.
    """

    num_classes: int
    output: Place = 0
    columns: tuple[str, ...] = ("box", "score", "class")
    boxes: Place | None = None
    scores: Place | None = None
    classes: Place | None = None
    form: Literal["xyxy", "yxyx", "cxcywh", "xywh"] = "xyxy"
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        check_size(self.size)
        _check_yolo(self.size, False, self.num_classes)
        if self.form not in FORMS:
            raise InvalidInput(f"form must be one of {', '.join(FORMS)}, got {self.form!r}.")
        given = [place is not None for place in (self.boxes, self.scores, self.classes)]
        if any(given) != all(given):
            raise InvalidInput("boxes, scores and classes belong together: pass all three, or none.")
        if sorted(set(self.columns) - {"image"}) != ["box", "class", "score"] or len(self.columns) > 4:
            raise InvalidInput(f"columns must name box, score and class, and image if it is there, got {self.columns}.")

    def __call__(self, raw: Any) -> Outputs:
        """Returns the network's output as `Outputs`; raises BadOutput where the shapes or the values are others."""
        boxes, scores, labels = self._parts(raw)
        scores = likely_scores(scores, None, None, "Check where the scores are.")
        there = (labels >= 0) & (scores > 0)
        whole = (labels - labels.round()).abs() < 1e-3
        if not bool((whole | ~there).all()) or bool((labels[there] >= self.num_classes).any()):
            raise BadOutput(
                f"Class numbers must be whole, from 0 to {self.num_classes - 1}, got {float(labels.min()):.3g} to "
                f"{float(labels.max()):.3g}. Check num_classes and where the classes are."
            )
        known = labels.round().long().clamp(0, self.num_classes - 1)
        one_hot = torch.nn.functional.one_hot(known, self.num_classes).to(scores)
        boxes = corners(boxes, self.form)
        return Outputs(
            scores=one_hot * (scores * there).unsqueeze(-1),
            boxes=boxes if self.size is None else in_pixels(boxes, self.size),
            activated=True,
        )

    def _parts(self, raw: Any) -> tuple[Tensor, Tensor, Tensor]:
        """(N, Q, 4) boxes, (N, Q) scores and (N, Q) class numbers."""
        if self.boxes is not None:
            assert self.scores is not None
            assert self.classes is not None
            parts = [_rows_at(raw, place, wide) for place, wide in zip(self._places(), (4, 1, 1), strict=True)]
            if len({part.shape[:2] for part in parts}) > 1:
                shapes = ", ".join(str(tuple(part.shape)) for part in parts)
                raise BadOutput(f"Boxes, scores and classes must have as many rows each, got {shapes}.")
            return parts[0], parts[1][..., 0], parts[2][..., 0]
        wide = sum(4 if name == "box" else 1 for name in self.columns)
        rows = _rows_at(raw, self.output, wide)
        before = [sum(4 if n == "box" else 1 for n in self.columns[: self.columns.index(c)]) for c in _NAMES]
        return rows[..., before[0] : before[0] + 4], rows[..., before[1]], rows[..., before[2]]

    def _places(self) -> tuple[Any, Any, Any]:
        return self.boxes, self.scores, self.classes


_NAMES = ("box", "score", "class")


def _rows_at(raw: Any, place: Any, wide: int) -> Tensor:
    """(N, Q, wide) float32; of one image where there is no dimension for them."""
    found = raw if isinstance(raw, Tensor | np.ndarray) else select(raw, place)
    found = torch.from_numpy(found) if isinstance(found, np.ndarray) else found
    if isinstance(found, Tensor):
        rows = found.float()
        rows = rows.unsqueeze(-1) if wide == 1 and (rows.ndim < 3 or rows.shape[-1] != 1) else rows
        rows = rows.unsqueeze(0) if rows.ndim == 2 else rows
        if rows.ndim == 3 and rows.shape[2] == wide:
            return rows
    got = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else f"a {type(found).__name__}"
    want = "(N, Q)" if wide == 1 else f"(N, Q, {wide})"
    raise BadOutput(f"Suppressed boxes must have shape {want} at {place!r}, got {got}.")


def _placed(given: Tensor, size: tuple[int, int] | None, normalised: bool) -> Tensor:
    """Corners in pixels of centre and size; raises BadOutput where the numbers cannot be what they are said to be."""
    if not given.numel():
        return corners(given, "cxcywh")
    if float(given[..., 2:].amin()) < 0:
        raise BadOutput(f"The sizes of boxes go down to {float(given[..., 2:].amin()):.3g}. {_UNDECODED}")
    if normalised and size is not None:
        if not are_shares(given):
            most = float(given.amax())
            raise BadOutput(
                f"The boxes are said to be shares of the input, but go up to {most:.3g}: they are in its pixels. Pass "
                "normalised=False."
            )
        return in_pixels(corners(given, "cxcywh"), size)
    if are_shares(given):
        raise BadOutput(
            "The boxes lie in 0..1: they are shares of the input. Pass normalised=True and size=(height, width); rows "
            "(N, Q, 4 + K) without objectness are read by heads.RTDETR(size=...)."
        )
    if size is not None and given.shape[1] >= 20 and float(given.amax()) < _NEAR * min(size):
        raise BadOutput(
            f"All boxes lie within the first {float(given.amax()):.3g} pixels of an input of {size[0]} x {size[1]}. "
            f"{_UNDECODED}"
        )
    if size is not None and bool((given[..., :2] > given.new_tensor([size[1], size[0]])).any(-1).float().mean() > 0.5):
        raise BadOutput(
            f"Most boxes have their centre outside of an input of {size[0]} x {size[1]} pixels, the farthest at "
            f"{float(given[..., :2].amax()):.0f}. Pass the right size=(height, width)."
        )
    return corners(given, "cxcywh")


def _upright(boxes: Tensor, angle: Tensor) -> Tensor:
    """Corners of boxes turned about their centre -> corners of the upright boxes around them."""
    centre, half = (boxes[..., :2] + boxes[..., 2:]) / 2, (boxes[..., 2:] - boxes[..., :2]) / 2
    cos, sin = angle.cos().abs(), angle.sin().abs()
    wide = torch.stack([half[..., 0] * cos + half[..., 1] * sin, half[..., 0] * sin + half[..., 1] * cos], -1)
    return torch.cat([centre - wide, centre + wide], -1)


def _are_rows(found: Tensor) -> bool:
    """Says whether (N, Q, 6) rows are corners, score and class number, as they are after suppression."""
    if found.shape[2] != 6 or found.shape[1] < 2:
        return False
    scores, labels = found[..., 4], found[..., 5]
    ordered = bool((scores[:, 1:] <= scores[:, :-1]).all()) and bool((scores[:, 0] > scores[:, -1]).all())
    second = bool((found[..., 2:4] >= found[..., :2]).all()) and bool((found[..., 2:4] > 0).any())  # of two corners
    return bool((labels == labels.round()).all()) and (ordered or second or bool((labels > 1).any()))


def _like(found: Tensor) -> str:
    """What a tensor (N, Q, C) may be."""
    if found.shape[2] >= found.shape[1]:
        return ""
    if found.shape[2] == 6:
        return f" {_ROWS}"
    return " It looks like YOLOv5's, or RT-DETR's (heads.RTDETR)." if found.shape[2] > 6 else ""


def _beside(raw: Any) -> list[tuple[int, ...]]:
    """Returns the shapes of the maps (N, C, h, w) that stand beside the boxes."""
    members = list(raw.values()) if isinstance(raw, Mapping) else list(raw) if isinstance(raw, tuple | list) else []
    return [tuple(m.shape) for m in members if isinstance(m, Tensor | np.ndarray) and m.ndim == 4]


def _check_classes(who: str, got: int, classes: int | None) -> None:
    if got < 1 or (classes is not None and got != classes):
        want = "at least one class" if classes is None else f"{classes} classes"
        raise BadOutput(f"{who} should give {want}, its output has room for {got}. {_OTHER}")


def _grids(
    count: int, size: tuple[int, int] | None, strides: Sequence[int], anchors: int = 1, anchors_first: bool = False
) -> tuple[Grid, ...] | None:
    if size is None:
        return None
    grids = tuple(Grid(h, w, anchors, anchors_first) for h, w in tiles(size, strides))
    return grids if sum(g.count for g in grids) == count else None


def _check_yolo(size: tuple[int, int] | None, normalised: bool, classes: int | None) -> None:
    check_size(size)
    if normalised and size is None:
        raise InvalidInput("Boxes that are shares of the input need its size=(height, width).")
    if classes is not None:
        check_count("The number of classes", classes)
