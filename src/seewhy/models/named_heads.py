"""Readers of heads by their names, as the command line gives them: what they need besides is the model's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from seewhy.checks import check_choice
from seewhy.errors import InvalidInput
from seewhy.models.head_readers import DETR, RTDETR, NanoDet
from seewhy.models.yolo import YOLOX, EndToEnd, YOLOv5, YOLOv8

__all__ = ["HEADS", "named_head"]

Size = tuple[int, int]
_MAKERS: dict[str, Callable[[Size, int | None], Any]] = {
    "detr": lambda size, _: DETR(size=size),
    "nanodet": lambda size, _: NanoDet(size=size),
    "rtdetr": lambda size, _: RTDETR(size=size),
    "yolov5": lambda size, count: YOLOv5(size=size, classes=count),
    "yolov8": lambda size, count: YOLOv8(size=size, classes=count),
    "yolov8-obb": lambda size, count: YOLOv8(size=size, classes=count, task="obb"),
    "yolov8-pose": lambda size, count: YOLOv8(size=size, classes=count, task="pose"),
    "yolov8-segment": lambda size, count: YOLOv8(size=size, classes=count, task="segment"),
    "yolox": lambda size, count: YOLOX(size=size, classes=count),
}
HEADS = ("detr", "endtoend", "nanodet", "rtdetr", "ssd", *(name for name in _MAKERS if name.startswith("yolo")))


def named_head(name: str, title: str, size: Size | None, classes: int | None) -> Any:
    """Returns the reader of a head.

    Args:
        name: one of `HEADS`.
        title: of the model, for messages.
        size: (height, width) of its input.
        classes: how many class names it has.

    Raises:
        InvalidInput: there is no such head, or it needs what is not known.
    """
    check_choice("head", name, HEADS)
    if name == "ssd":
        raise InvalidInput(
            "An SSD's boxes are told from its anchors, which a name does not give: make the model in a module, "
            "seewhy.load(file, output=seewhy.heads.SSD(anchors=...)), and name that (--model package.module:factory)."
        )
    if name == "endtoend":
        if not classes:
            raise InvalidInput(f"Head 'endtoend' needs the class names of {title}: pass labels (--labels FILE).")
        return EndToEnd(num_classes=classes)
    if size is None:
        raise InvalidInput(f"Head {name!r} needs the size of {title}'s input, which is open: pass it (--size H W).")
    return _MAKERS[name](size, classes)
