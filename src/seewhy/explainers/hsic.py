"""HSIC: how strongly the class's probability depends on whether a cell of the image is shown.

The image is divided into a grid; in each of n copies every cell is shown with probability p, else covered. With
m_k the (n,) 0 or 1 of cell k and y the (n,) probabilities, the map at cell k is the Hilbert-Schmidt independence
criterion between them,

    HSIC(m_k, y) = trace(K H L H) / (n - 1)^2,   H = 1 - 1/n
    K_ij = [m_ki = m_kj],   L_ij = exp(-(y_i - y_j)^2 / (2 sigma^2)),   sigma the median of the distances |y_i - y_j|

For 0 and 1 every kernel is, once centred, a multiple of this K, and H K H = 2 c c' with c = m_k - mean(m_k), so the
trace is 2 c' L c: one matrix product for all cells. Distances of zero (but for rounding) do not enter the median:
otherwise a score that most masks leave as it is would have no bandwidth.

HSIC is never negative: it tells how much a cell matters, not whether it speaks for the class or against it. It does
not change when the scores are shifted or scaled, so a class that hardly moves may have as clear a map as one that
moves much.

The masks come from a scrambled Sobol sequence (as in the authors' library), which spreads them more evenly than
chance. A map's own resolution is the grid's.

Source: Novello, Fel and Vigouroux, "Making Sense of Dependence: Efficient Black-box Explanations Using Dependence
Measure", 2022 (arXiv 2206.06219); Gretton et al., "Measuring Statistical Dependence with Hilbert-Schmidt Norms", 2005.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

from seewhy import baseline as baselines
from seewhy.attribution import Attribution
from seewhy.checks import check_choice, check_count, check_inside, check_seed, sides
from seewhy.errors import InvalidInput
from seewhy.explainers import Explainer
from seewhy.explainers._checks import unmoved
from seewhy.explainers._superpixels import cells, part_scores
from seewhy.maps import FLAT, full_precision
from seewhy.models import Model
from seewhy.perturbation import batch_size, settle
from seewhy.plain import Meaning
from seewhy.targets import Request
from seewhy.types import Activation, check_activation

__all__ = ["HSIC"]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class HSIC(Explainer):
    """Dependence between the class's probability and each cell being shown, of any form but unsigned (Novello 2022).

    Attributes:
        activation_fn: scores -> probabilities: "auto", "softmax", "sigmoid", None or a callable; see `seewhy.explain`.
        perturbation_per_eval: masked copies a forward pass, or "auto".
        num_masks: masks an image; all images and targets share them. The paper takes 1500, or 750 to save time.
        grid: cells along each side, or (down, across).
        p: probability that a cell is shown.
        sampler: "sobol" (evenly spread masks) or "random".
        baseline: what covers a cell: a number, "mean", "blur" or a tensor that broadcasts to the inputs.
        seed: of the masks; the global random state is neither read nor changed.

    Example:
        >>> HSIC(network, num_masks=64, grid=4)(inputs, 1).shape
        torch.Size([2, 1, 32, 32])
    """

    activation_fn: str | Activation | None = "auto"
    perturbation_per_eval: int | str = 32
    num_masks: int = 1500
    grid: int | tuple[int, int] = 7
    p: float = 0.5
    sampler: Literal["sobol", "random"] = "sobol"
    baseline: float | str | Tensor = 0.0
    seed: int = 0

    values: ClassVar[Meaning] = "size"

    def __post_init__(self) -> None:
        check_activation(self.activation_fn)
        batch_size(self.perturbation_per_eval)
        check_count("num_masks", self.num_masks, 2)
        sides("grid", self.grid)
        check_inside("p", self.p)
        check_choice("sampler", self.sampler, ("sobol", "random"))
        baselines.check(self.baseline)
        check_seed(self.seed)
        if self.sampler == "sobol" and self._count > SobolEngine.MAXDIM:
            raise InvalidInput(
                f"grid {self.grid!r} has more cells than a Sobol sequence has dimensions, {SobolEngine.MAXDIM}. "
                "Use sampler='random'."
            )

    def _explain(self, model: Model, inputs: Tensor, request: Request) -> Attribution:
        labels = cells(sides("grid", self.grid), inputs).expand(len(inputs), -1, -1)
        cover = baselines.make(self.baseline, inputs)
        shown = self._masks().to(inputs.device)
        outputs = model(inputs)
        settled = settle(model, inputs, outputs, self.activation_fn)
        activate = settled.put
        targets = request.resolve(outputs)
        found = part_scores(
            model, inputs, (labels, [shown] * len(inputs), cover), targets=targets, activate=activate,
            per_eval=self.perturbation_per_eval,
        )  # fmt: skip
        scores = torch.stack(found).transpose(1, 2)
        centred = shown.float() - shown.float().mean(0)
        with full_precision(scores):
            widths = _median_distances(scores.flatten(0, 1))
            rows = zip(scores.flatten(0, 1), widths, strict=True)
            raw = torch.stack([_dependence(row, width, centred) for row, width in rows])
        return Attribution(
            raw=raw.view(*scores.shape[:2], *sides("grid", self.grid)),
            outputs=outputs,
            targets=targets,
            quantity=settled.quantity,
            notes=(*settled.notes, *unmoved(scores - scores[..., :1], "mask")),
        )

    @property
    def _count(self) -> int:
        down, across = sides("grid", self.grid)
        return down * across

    def _masks(self) -> Tensor:
        """(n, cells) bool, drawn on the host, so that every device gets the same."""
        if self.sampler == "sobol":
            with torch.device("cpu"):
                engine = SobolEngine(self._count, scramble=True, seed=self.seed)
                return engine.draw(self.num_masks, dtype=torch.float32) < self.p
        generator = torch.Generator("cpu").manual_seed(self.seed)
        size = (self.num_masks, self._count)
        return torch.rand(size, generator=generator, dtype=torch.float32, device="cpu") < self.p


def _dependence(scores: Tensor, width: float, centred: Tensor) -> Tensor:
    """(n,) scores, the kernel's sigma, (n, cells) masks less their means -> (cells,) HSIC."""
    if width == 0:
        return centred.new_zeros(centred.shape[1])
    gram = (scores.unsqueeze(1) - scores).square_().mul_(-0.5 / width**2).exp_()
    return (centred * (gram @ centred)).sum(0) * (2 / (len(scores) - 1) ** 2)


def _median_distances(scores: Tensor) -> list[float]:
    """For each row of (R, n) scores the median distance of two that differ by more than rounding; 0 without any.

    Found by halving an interval: how many pairs lie within a distance is quickly counted in sorted scores, whereas
    the n^2 / 2 distances themselves take longer to search than everything else.
    """
    ordered = scores.cpu().double().contiguous().sort(1).values
    n = ordered.shape[1]

    def within(distance: Tensor) -> Tensor:
        upto = torch.searchsorted(ordered, ordered + distance.unsqueeze(1), right=True)
        return upto.sum(1) - n * (n + 1) // 2

    low, high = FLAT * ordered.abs().amax(1), ordered[:, -1] - ordered[:, 0]
    same, every = within(low), n * (n - 1) // 2
    middle = same + (every - same + 1) // 2
    for _ in range(50):
        guess = (low + high) / 2
        enough = within(guess) >= middle
        low, high = torch.where(enough, low, guess), torch.where(enough, guess, high)
    return torch.where(same < every, high, torch.zeros_like(high)).tolist()
