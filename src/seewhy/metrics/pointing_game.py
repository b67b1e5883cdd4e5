"""Pointing game: is the map's highest point on the object?

    1 where the distance from the map's maximum to the nearest pixel of the object is at most the tolerance, else 0

Where several pixels share the maximum, the number is the mean over them; a flat map has its maximum everywhere. The
published accuracy is the mean over classes of each class's mean: `Localization` keeps those, or average by class.

Source: Zhang et al., "Top-Down Neural Attention by Excitation Backprop", 2018 (arXiv 1608.00507); 15 pixels there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from seewhy.checks import check_distance
from seewhy.metrics import Case, Metric
from seewhy.metrics._localization import pointing

__all__ = ["PointingGame"]


@dataclass(frozen=True, kw_only=True, eq=False)
class PointingGame(Metric):
    """Whether the map's maximum lies on the object or within a tolerance of it (Zhang 2018).

    Attributes:
        tolerance: how far from the object the maximum may be, in pixels of the network's input.

    Example:
        >>> PointingGame(tolerance=2).evaluate(seewhy.GradCAM(network), inputs, 1, mask=masks).shape
        torch.Size([2])
    """

    tolerance: float = 15

    needs_truth: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_distance("tolerance", self.tolerance)

    def _judge(self, case: Case) -> float:
        assert case.truth is not None
        return pointing(case.saliency, case.truth, self.tolerance)
