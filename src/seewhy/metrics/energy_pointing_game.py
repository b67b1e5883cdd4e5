"""Energy-based pointing game: the share of the saliency, as it is shown, that lies on the object.

    sum of L over the object / sum of L over the image        L = (S - min S) / (max S - min S)

The paper scores maps that end in a ReLU and are scaled to [0, 1]; so is every map here. `RelevanceMass` differs in what
it does to a map with negative values or a minimum above 0: it cuts off what is negative and moves nothing. On a map
whose minimum is 0 the two are equal. The paper's truth is the bounding box; a mask is taken as well.

Source: Wang et al., "Score-CAM: Score-Weighted Visual Explanations for Convolutional Neural Networks", 2020
(arXiv 1910.01279).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from seewhy.maps import scale
from seewhy.metrics import Case, Metric

__all__ = ["EnergyPointingGame"]


@dataclass(frozen=True, kw_only=True, eq=False)
class EnergyPointingGame(Metric):
    """Share of the saliency scaled to zero and one that lies on the object (Wang 2020); no data where it is flat.

    Example:
        >>> EnergyPointingGame().evaluate(seewhy.GradCAM(network), inputs, 1, mask=masks).shape
        torch.Size([2])
    """

    needs_truth: ClassVar[bool] = True

    def _judge(self, case: Case) -> float:
        assert case.truth is not None
        energy = scale(case.saliency.double())
        total = float(energy.sum())
        return float(energy[case.truth].sum()) / total if total > 0 else float("nan")
