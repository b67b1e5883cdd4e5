"""Max-sensitivity: how far the map moves at most when noise is put on the image, in units of the map's own size.

    max over d of  |S(x + d) - S(x)| / |S(x)|        d uniform within +-radius

S is the raw map of the class that was asked for on the clean image, so that a map twice as loud moves as far. With
``scaled`` all maps are first scaled to [0, 1]; whoever judges maps that are scaled already has to say so. The norm is
Euclidean over the pixels. A map that is zero everywhere is no data.

Source: Yeh et al., "On the (In)fidelity and Sensitivity of Explanations", 2019 (arXiv 1901.09392), whose experiments
divide by the size of the map and take 50 samples within +-0.2; the division makes methods comparable.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from seewhy.metrics import Case, Cost, Metric, _sensitivity

__all__ = ["MaxSensitivity"]


@dataclass(frozen=True, kw_only=True, eq=False)
class MaxSensitivity(Metric):
    """Largest relative change of the map under noise on the image (Yeh 2019).

    Attributes:
        perturbation_per_eval: noisy images that are explained together, or "auto".
        radius: the noise is uniform within +-radius, in the network's input space.
        samples: noisy images, each of which is explained.
        seed: of the noise; the global random state is neither read nor changed.
        scaled: scales all maps to [0, 1] first; needed where the map that is judged is not the explainer's raw one.

    Example:
        >>> MaxSensitivity(samples=4).evaluate(seewhy.GradCAM(network), inputs, 1).shape
        torch.Size([2])
    """

    perturbation_per_eval: int | str = 32
    radius: float = 0.2
    samples: int = 50
    seed: int = 0
    scaled: bool = False

    better: ClassVar[Literal["higher", "lower"]] = "lower"
    range: ClassVar[tuple[float, float]] = (0.0, float("inf"))
    needs_explainer: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _sensitivity.check(self)

    def cost(self, height: int, width: int) -> Cost:
        """One further map for each noisy image."""
        return Cost(explanations=self.samples)

    def _judge(self, case: Case) -> float:
        return _sensitivity.largest_change(self, case)
