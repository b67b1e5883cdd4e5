"""What a worker knows of one picture while it works on it, and the row that this becomes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from seewhy.errors import InvalidTarget
from seewhy.judging import reason
from seewhy.runs.folder.rows import DetectionRow, FailureRow, Findings, LabelRow
from seewhy.runs.folder.tasks import SCORE
from seewhy.runs.work.plan import Item
from seewhy.runs.work.reading import Loaded
from seewhy.runs.work.vectors import Vector

__all__ = ["Picture", "choose", "flag"]


@dataclass(kw_only=True, eq=False)
class Picture(Findings):
    """One picture in work.

    Attributes:
        item: what is to be done.
        loaded: what was read, or None where that failed.
        probabilities: (K,), once the network has run.
        classes: what is explained, once that is known: class indices, or the numbers of a detector's boxes.
        detections: of a detector, once that is known; None for a classifier.
        masks: instance masks by the number of their box, where masks are explained.
        flagged: scores and flags of these boxes, once the detector has run.
        maps: (class or number, explainer) -> (h, w) raw.
        notes: what the reader should know, besides what reading it told.
        failed: tasks that failed.
        vectors: features that are kept.
    """

    item: Item
    loaded: Loaded | None = None
    probabilities: Tensor | None = None
    classes: tuple[int, ...] | None = None
    detections: list[DetectionRow] | None = None
    masks: dict[int, Tensor] = field(default_factory=dict)
    flagged: list[LabelRow] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    maps: dict[tuple[int, str], NDArray[np.float32]] = field(default_factory=dict)
    kept: set[tuple[int, str]] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)
    vectors: list[Vector] = field(default_factory=list)

    @property
    def unfound(self) -> bool:
        """Whether a detector has run and found nothing."""
        return (
            self.detections is not None
            and self.probabilities is not None
            and not any(label.flag != "FN" for label in self.flagged)
        )

    def wants(self, task: str) -> bool:
        """Says whether a task is to be done and can be done, because the picture was read."""
        return task in self.item.tasks and self.loaded is not None and task not in self.failed

    def fail(
        self, tasks: Iterable[str], error: BaseException | str, task: str, explainer: str | None = None,
        metric: str | None = None, label: int | None = None,
    ) -> None:  # fmt: skip
        """Records what could not be done."""
        self.failed.update(set(tasks) & set(self.item.tasks))
        why = error if isinstance(error, str) else reason(error)
        self.failures.append(FailureRow(task=task, explainer=explainer, metric=metric, label=label, reason=why))

    def fail_judging(self, tasks: Iterable[str], error: BaseException, about: tuple[int, str, str]) -> None:
        """Records that a metric could not judge a map; of a detector's box its class stands in the row."""
        key, explainer, metric = about
        if self.detections is None:
            self.fail(tasks, error, SCORE, explainer, metric, key)
            return
        why = f"Box {key + 1}: {reason(error)}"
        self.fail(tasks, why, SCORE, explainer, metric, self.detections[key].class_index)

    def fail_all(self, error: BaseException | str, task: str) -> None:
        """Records that nothing of this picture can be done."""
        self.fail(self.item.tasks, error, task)

    def labels(self, threshold: float) -> list[LabelRow]:
        """Returns the classes that are explained, or a detector's boxes, with their flags."""
        if self.probabilities is None or self.loaded is None:
            return []
        if self.detections is not None:
            return self.flagged
        true = self.loaded.sample.labels
        found = []
        for label in self.classes or ():
            p = float(self.probabilities[label])
            there = None if true is None else label in true
            found.append(LabelRow(label=label, probability=p, truth=there, flag=flag(there, p > threshold)))
        return found

    def row(self, threshold: float) -> dict[str, Any]:
        """Returns the fields of the row that follow from what was found."""
        found: dict[str, Any] = {
            **self.findings(), "labels": self.labels(threshold), "done": list(self.item.tasks),
            "failed": [task for task in self.item.tasks if task in self.failed],
        }  # fmt: skip
        if self.probabilities is not None:
            best, where = self.probabilities.max(0)
            found |= {"predicted": int(where), "probability": float(best), "detections": self.detections or []}
        if self.loaded is not None:
            one, view = self.loaded, self.loaded.view
            found |= {
                "digest": one.digest, "content": one.content, "size": view.original,
                "input": tuple(one.inputs.shape[2:]), "box": view.box,
                "truth": one.sample.labels, "boxes": one.sample.boxes,
                "crowds": one.sample.crowds, "difficult": one.sample.difficult,
                "warnings": [*one.warnings, *self.notes],
            }  # fmt: skip
        return found


def flag(there: bool | None, predicted: bool) -> str | None:
    """One of "TP", "FN", "FP" and "TN"; None where the truth is not known."""
    if there is None:
        return None
    return ("TP" if predicted else "FN") if there else ("FP" if predicted else "TN")


def choose(probabilities: Tensor, truth: tuple[int, ...] | None, threshold: float, exclusive: bool) -> tuple[int, ...]:
    """Returns the classes to explain: what is there and what is above the threshold; if nothing is, the likeliest.

    Args:
        probabilities: (K,).
        truth: classes that are there, or None.
        threshold: probability above which a class is explained.
        exclusive: the classes exclude each other, so that one of them is always meant.

    Raises:
        InvalidTarget: a class of the truth is none of the network's.
    """
    above = (probabilities > threshold).nonzero().flatten().tolist()
    if not above and exclusive:
        above = [int(probabilities.argmax())]
    wrong = [label for label in truth or () if not 0 <= label < len(probabilities)]
    if wrong:
        k = len(probabilities)
        raise InvalidTarget(f"Class {wrong[0]} is said to be there, but the network has {k} classes, 0 to {k - 1}.")
    return tuple(sorted({*above, *(truth or ())}))
