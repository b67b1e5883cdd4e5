"""Files of YOLO exporters: what their metadata say about the head, and how a picture becomes the input.

The metadata are "task", "names", "imgsz" and "stride", in ONNX files, in the text config.txt within TorchScript files,
and in OpenVINO's model_info, where older exporters write model_type "YOLO" alone.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from torch import Tensor

from seewhy.images.preprocessing import Preprocessing
from seewhy.models.archives import records
from seewhy.models.head_readers import RTDETR
from seewhy.models.reading import select
from seewhy.models.yolo import EndToEnd, YOLOv5, YOLOv8
from seewhy.types import Outputs

__all__ = ["YOLOFile", "notes", "of_script", "preprocessing", "reader"]

Task = Literal["detect", "segment", "pose", "obb"]
_TASKS = ("detect", "segment", "pose", "obb")
_KEPT = 300  # rows that exporters keep after suppression


@dataclass(frozen=True, kw_only=True)
class YOLOFile:
    """The reader of the head that a file has, chosen by the shape of what comes out.

    Attributes:
        task: what the file says; "detect" also stands for "segment" where prototypes of masks come out, too.
        size: (height, width) of the input.
        classes: how many names the file has.
        strides: of the levels.
    """

    task: Task
    size: tuple[int, int]
    classes: int
    strides: tuple[int, ...] = (8, 16, 32)

    def __call__(self, raw: Any) -> Outputs:
        """Returns the network's output as `Outputs`; raises BadOutput where it is none of the heads that are known."""
        found: Outputs = self.chosen(raw)(raw)
        return found

    def chosen(self, raw: Any) -> Any:
        """Returns the reader for what comes out."""
        found = raw if isinstance(raw, Tensor | np.ndarray) else select(raw, 0)
        rows, columns = found.shape[1:] if found.ndim == 3 else (0, 0)
        if self.task == "detect" and columns == 6 and (rows <= _KEPT or self.classes > 1):
            return EndToEnd(num_classes=self.classes)
        if self.task == "detect" and rows > columns and columns == 5 + self.classes:
            return YOLOv5(size=self.size, strides=self.strides, classes=self.classes)
        if self.task == "detect" and rows > columns and columns == 4 + self.classes:
            return RTDETR(size=self.size)
        task: Task = "segment" if self.task == "detect" and _prototypes(raw) else self.task
        return YOLOv8(size=self.size, strides=self.strides, classes=self.classes, task=task)


def reader(metadata: Mapping[str, Any], size: tuple[int, int] | None, classes: int) -> YOLOFile | None:
    """Returns the reader for a file with boxes, or None for others.

    Args:
        metadata: of the file.
        size: (height, width) of the input, where the graph takes one size only.
        classes: how many class names the file has.
    """
    task, size = _task(metadata), size or _size(metadata)
    if task not in _TASKS or size is None or not classes:
        return None
    try:
        largest = max(32, int(metadata.get("stride", 32)))
    except (TypeError, ValueError):
        largest = 32
    strides = tuple(8 << level for level in range(8) if 8 << level <= largest)
    return YOLOFile(task=cast(Task, task), size=size, classes=classes, strides=strides)


def preprocessing(metadata: Mapping[str, Any], size: tuple[int, int] | None) -> Preprocessing | None:
    """How a picture becomes the input: letterboxed on grey, or for a classifier cut at the centre; RGB in 0..1."""
    task, size = _task(metadata), size or _size(metadata)
    if size is None or task not in (*_TASKS, "classify"):
        return None
    plain: dict[str, Any] = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "interpolation": "bilinear"}
    if task == "classify":
        return Preprocessing(size=size, fit="crop", crop_fraction=1.0, **plain)
    return Preprocessing(size=size, fit="letterbox", crop_fraction=1.0, pad=114 / 255, **plain)


def notes(found: YOLOFile | None) -> tuple[str, ...]:
    """What was decided, for the reader."""
    if found is None:
        return ()
    height, width = found.size
    return (
        f"Read as its file says: {found.task}, {found.classes} classes, pictures letterboxed to {width} x {height} "
        "pixels (width x height).",
    )


def of_script(path: Path) -> dict[str, Any]:
    """Returns the metadata in a TorchScript file; empty where it has none."""
    parts = records(path) or {}
    name = next((name for name in parts if name.endswith("extra/config.txt")), None)
    try:
        found = json.loads(parts[name]) if name is not None else {}
    except (ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    names = found.get("names")
    if isinstance(names, dict):  # whose keys are texts in JSON
        found["names"] = {int(key): value for key, value in names.items() if str(key).isdecimal()}
    return found


def _task(metadata: Mapping[str, Any]) -> str:
    """What the file is for; "" where it is of no YOLO exporter."""
    if "names" in metadata and "task" in metadata:
        return str(metadata["task"])
    return "detect" if str(metadata.get("model_type", "")).upper().startswith("YOLO") else ""


def _size(metadata: Mapping[str, Any]) -> tuple[int, int] | None:
    try:
        height, width = ast.literal_eval(str(metadata["imgsz"]))
        return (int(height), int(width)) if int(height) > 0 and int(width) > 0 else None
    except (KeyError, SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        return None


def _prototypes(raw: Any) -> bool:
    members = raw.values() if isinstance(raw, Mapping) else raw if isinstance(raw, tuple | list) else ()
    return any(isinstance(one, Tensor | np.ndarray) and one.ndim == 4 for one in members)
