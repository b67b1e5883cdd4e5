"""IoSR, intersection over salient region: the share of the salient pixels that lie on the object.

    area(salient and object) / area(salient)        salient = map > threshold * maximum of the map

A map with negative values is first moved up until its minimum is 0. A map without a salient pixel (zero everywhere, or
flat and negative) is no data; a flat positive one is salient everywhere.

Source: the Localization benchmark of MindSpore XAI, 2021; the region above half of the maximum is that of Zhou et al.,
"Learning Deep Features for Discriminative Localization", 2016 (arXiv 1512.04150), who take a fifth.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from seewhy.checks import check_below_one
from seewhy.metrics import Case, Metric
from seewhy.metrics._localization import iosr

__all__ = ["IoSR"]


@dataclass(frozen=True, kw_only=True, eq=False)
class IoSR(Metric):
    """Share of the salient pixels that lie on the object (MindSpore XAI 2021).

    Attributes:
        threshold: pixels above this share of the map's maximum are salient.

    Example:
        >>> IoSR().evaluate(seewhy.GradCAM(network), inputs, 1, mask=masks).shape
        torch.Size([2])
    """

    threshold: float = 0.5

    needs_truth: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_below_one("threshold", self.threshold)

    def _judge(self, case: Case) -> float:
        assert case.truth is not None
        return iosr(case.saliency, case.truth, self.threshold)
