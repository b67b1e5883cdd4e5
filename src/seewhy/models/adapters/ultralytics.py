"""Objects shaped as Ultralytics' are: ``.model``, ``.names``, ``.task``; and the networks inside them.

That library is not imported, and nothing of it is used: an object says itself what it is for, its class names, its
stride and the size that it was made for. How boxes are read is what its exported files need, too (`yolo_file`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from seewhy.errors import BadOutput, InvalidInput, InvalidType
from seewhy.models import Model
from seewhy.models.head_readers import RTDETR
from seewhy.models.torch.model import TorchModel
from seewhy.models.yolo_file import Task, YOLOFile, preprocessing
from seewhy.types import Outputs

__all__ = ["Detector", "Ultralytics"]

_BOXES = ("detect", "segment", "pose", "obb")
_SIZE = 640  # for which an object is made that says nothing else


class Ultralytics:
    """``ultralytics.YOLO``, ``RTDETR`` and others with a network, names and a task; or that network alone."""

    def __call__(self, network: Any) -> Model | None:
        """See `seewhy.models.adapters.Adapter`."""
        inner, task = getattr(network, "model", None), _task(network)
        if isinstance(inner, str | Path):
            raise InvalidType(
                f"This {type(network).__name__} runs the file {str(inner)!r}: pass that, seewhy.load({str(inner)!r})."
            )
        whole = isinstance(inner, nn.Module) and not isinstance(inner, nn.Sequential)
        module = inner if whole else network
        if not isinstance(module, nn.Module) or not hasattr(module, "names") or task is None:
            return None
        if task not in (*_BOXES, "classify"):
            raise InvalidInput(
                f"The task of this {type(network).__name__} is {task!r}, which is not known: expected "
                f"{', '.join(_BOXES)} or classify. Pass its network and where the scores are: "
                "seewhy.load(network.model, output=...)."
            )
        return _model(module, network, task)


class Detector(nn.Module):
    """A network with boxes, whatever the size of its input. Its parts have their own names.

    Attributes:
        title: the class of the network.
        task: "detect", "segment", "pose" or "obb".
        strides: of its levels.
        classes: how many.
    """

    def __init__(self, network: nn.Module, task: str, strides: tuple[int, ...], classes: int) -> None:
        super().__init__()
        for name, part in network.named_children():
            self.add_module(name, part)
        self.title, self.task = type(network).__name__, cast(Task, task)
        self.strides, self.classes = strides, classes
        self.own = [network]  # in a list, since its parts are ours already
        self.train(network.training)

    @property
    def whole(self) -> nn.Module:
        """The network itself, whose output has its own form."""
        return self.own[0]

    def forward(self, images: Tensor) -> Outputs:
        """(N, 3, H, W) in 0..1 -> every candidate.

        Raises:
            InvalidInput: height or width are no multiples of the largest stride.
        """
        size, largest = (images.shape[2], images.shape[3]), max(self.strides)
        if size[0] % largest or size[1] % largest:
            raise InvalidInput(
                f"{self.title} takes inputs whose height and width are multiples of its largest stride, {largest}, got "
                f"{size[0]} x {size[1]}."
            )
        raw = self.whole(images)
        if (found := _queries(raw)) is not None:
            return RTDETR(size=size)(found)
        first = raw[0] if isinstance(raw, tuple | list) else raw
        return YOLOFile(task=self.task, size=size, classes=self.classes, strides=self.strides)(first)


def _model(module: nn.Module, network: Any, task: str) -> TorchModel:
    names = _names(network if hasattr(network, "names") else module)
    metadata = {"task": task, "names": names, "imgsz": _size(network, module)}
    about: dict[str, Any] = {"preprocessing": preprocessing(metadata, None), "title": type(module).__name__}
    made_up = all(name == str(i) for i, name in enumerate(names))
    about["labels"] = None if made_up else names
    if task == "classify":
        return TorchModel(module, output=_logits, **about)
    return TorchModel(Detector(module, task, _strides(module), len(names)), **about)


def _logits(raw: Any) -> Tensor:
    """Returns a classifier's scores: where it gives probabilities and logits beside them, the logits."""
    found = raw[1] if isinstance(raw, tuple | list) and len(raw) == 2 else raw
    if not isinstance(found, Tensor):
        raise BadOutput(f"A classifier's output is a tensor, or probabilities and logits, got {type(raw).__name__}.")
    return found


def _queries(raw: Any) -> Tensor | None:
    """(N, Q, 4 + K) of a transformer's last decoder layer: boxes as shares and probabilities; None for others."""
    beside = raw[1] if isinstance(raw, tuple | list) and len(raw) == 2 else None
    if not isinstance(beside, tuple | list) or len(beside) < 2:
        return None
    boxes, scores = beside[:2]
    if not isinstance(boxes, Tensor) or not isinstance(scores, Tensor) or boxes.ndim != 4 or scores.ndim != 4:
        return None
    return torch.cat([boxes[-1], scores[-1].sigmoid()], -1)


def _task(network: Any) -> str | None:
    for one in (network, getattr(network, "model", None)):
        arguments = getattr(one, "args", None)
        own = arguments.get("task") if isinstance(arguments, dict) else getattr(arguments, "task", None)
        for task in (getattr(one, "task", None), own):
            if isinstance(task, str):
                return task
    return None


def _names(network: Any) -> tuple[str, ...]:
    names = network.names
    return tuple(str(names[i]) for i in sorted(names)) if isinstance(names, dict) else tuple(map(str, names))


def _size(network: Any, module: nn.Module) -> list[int]:
    """(height, width) that it says, the wrapper's own settings first."""
    for known in (getattr(network, "overrides", None), getattr(module, "args", None)):
        given = known.get("imgsz") if isinstance(known, dict) else getattr(known, "imgsz", None)
        if isinstance(given, int):
            return [given, given]
        if isinstance(given, tuple | list) and len(given) in (1, 2):
            return [int(given[0]), int(given[-1])]
    return [_SIZE, _SIZE]


def _strides(module: nn.Module) -> tuple[int, ...]:
    found = getattr(module, "stride", None)
    known = [int(one) for one in found.flatten().tolist()] if isinstance(found, Tensor) else []
    return tuple(known) or (8, 16, 32)
