"""Localization: does the map point at the object, with averages for each label?

    PointingGame    1 where the map's maximum is at most `tolerance` pixels from the object, else 0; mean over ties
    IoSR            area(salient and object) / area(salient), salient = map > threshold * maximum

Every image counts in the average of its label, and `performance` is the mean of the labels' averages, as in the
published pointing game. A map with negative values is moved up until its minimum is 0 before IoSR.

Source: the benchmark of this name in MindSpore XAI, 2021; Zhang et al., "Top-Down Neural Attention by Excitation
Backprop", 2018 (arXiv 1608.00507).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from seewhy.checks import check_below_one, check_choice, check_distance
from seewhy.metrics import Case
from seewhy.metrics._labelled import LabelledMetric
from seewhy.metrics._localization import iosr, pointing

__all__ = ["Localization"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Localization(LabelledMetric):
    """Whether the map lies on the object, by the pointing game or the salient region, averaged by label (Zhang 2018).

    Attributes:
        num_labels: number of labels; None lets the averages grow with the labels that come.
        metric: "PointingGame" or "IoSR".
        tolerance: of the pointing game, in pixels of the network's input.
        threshold: of IoSR: pixels above this share of the map's maximum are salient.

    Example:
        >>> Localization().evaluate(seewhy.GradCAM(network), inputs, 1, mask=masks).shape
        torch.Size([2])
    """

    metric: Literal["PointingGame", "IoSR"] = "PointingGame"
    tolerance: float = 15
    threshold: float = 0.5

    needs_truth: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("metric", self.metric, ("PointingGame", "IoSR"))
        check_distance("tolerance", self.tolerance)
        check_below_one("threshold", self.threshold)

    def _judge(self, case: Case) -> float:
        assert case.truth is not None
        if self.metric == "IoSR":
            return iosr(case.saliency, case.truth, self.threshold)
        return pointing(case.saliency, case.truth, self.tolerance)
