"""MPRT, model parameter randomisation test: does the map change when the network forgets what it learned?

    mean over the steps of |similarity of the map and the map after the step's layers got random weights|

Step k of n draws new weights for the top k/n of the layers ("cascading"), the last one for all, or for the k-th n-th of
them alone ("independent"). Layers are those with weights of their own, in the order in which they run; a module that
does not run by itself belongs to the one that it is in. Weights are drawn from a normal distribution with the mean and
deviation of the tensor they replace; a tensor whose values are all equal has nothing to forget and stays, and so do
buffers. With fewer layers than steps a layer's turn comes more than once, each time with new draws. The weights are put
back bit by bit, after errors too. A map that is flat is no data; one that became flat is unlike the first: 0.

Source: Adebayo et al., "Sanity Checks for Saliency Maps", 2018 (arXiv 1810.03292).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from seewhy.checks import check_choice, check_count, check_seed
from seewhy.metrics import Case, Cost, Metric
from seewhy.metrics._chance import seeds
from seewhy.metrics._correlation import is_flat, pearson, spearman
from seewhy.metrics._weights import layers_of, randomised
from seewhy.models.turns import alone, network_of

__all__ = ["MPRT"]


@dataclass(frozen=True, kw_only=True, eq=False)
class MPRT(Metric):
    """How alike the map stays when the network's layers get random weights, from the top down (Adebayo 2018).

    Attributes:
        order: "cascading" (from the top, more at each step) or "independent" (each step other layers alone).
        steps: maps that are made, each with other layers changed.
        similarity: "spearman" (of the ranks) or "pearson".
        seed: of the weights; the global random state is neither read nor changed.

    Example:
        >>> MPRT(steps=2).evaluate(seewhy.GradCAM(network), inputs, 1).shape
        torch.Size([2])
    """

    order: Literal["cascading", "independent"] = "cascading"
    steps: int = 5
    similarity: Literal["spearman", "pearson"] = "spearman"
    seed: int = 0

    better: ClassVar[Literal["higher", "lower"]] = "lower"
    needs_explainer: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_choice("order", self.order, ("cascading", "independent"))
        check_count("steps", self.steps)
        check_choice("similarity", self.similarity, ("spearman", "pearson"))
        check_seed(self.seed)

    def cost(self, height: int, width: int) -> Cost:
        """One pass to see the order of the layers, and a map for each step."""
        return Cost(forward=1, explanations=self.steps)

    def _judge(self, case: Case) -> float:
        assert case.explain is not None
        with alone(network_of(case.model)):
            return self._mean(case, case.explain)

    def _mean(self, case: Case, explain: Callable[..., Tensor]) -> float:
        layers = layers_of(case, "MPRT")
        found = []
        for step, seed in enumerate(seeds(self.seed, self.steps)):
            with randomised([weight for layer in self._chosen(layers, step) for weight in layer], seed):
                changed = explain(case.image.unsqueeze(0), case.target)[0]
            found.append(self._alike(changed, case.saliency))
        return float("nan") if is_flat(case.saliency) else sum(found) / self.steps

    def _chosen(self, layers: list[list[Tensor]], step: int) -> list[list[Tensor]]:
        first = len(layers) * step // self.steps
        stop = max(first + 1, len(layers) * (step + 1) // self.steps)
        return layers[:stop] if self.order == "cascading" else layers[first:stop]

    def _alike(self, changed: Tensor, saliency: Tensor) -> float:
        r = spearman(changed, saliency) if self.similarity == "spearman" else pearson(changed, saliency)
        return abs(r) if r == r else 0.0
