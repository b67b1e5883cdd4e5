"""RISE: which pixels were shown when the class's probability was high, over many random masks.

A mask is a grid of s x s cells, each shown with probability p, enlarged bilinearly to (s+1) x (s+1) cells and moved by
a random offset of less than a cell. With f_i the probability under mask M_i, for each pixel:

    plain         sum_i f_i M_i / (N p)               (the paper)
    centred       cov(f, M) / var(M)                  (the same signal without the noise of the mean score;
                                                       the variance of a mask is known in closed form)
    regression    cov(g, M) / var(M)                  (what "centred" comes to with endless masks, if f is g: the
                                                       linear function of the mask, two weights a cell and side, that
                                                       ridge regression finds. A pixel's estimate is then free of the
                                                       noise that all other pixels make)

Masks come in pairs: what one shows the other hides, so that both sides of every cell are seen equally often.

Source: Petsiuk, Das and Saenko, "RISE: Randomized Input Sampling for Explanation of Black-box Models", 2018 (arXiv
1806.07421); with a DRISETarget it is D-RISE, Petsiuk et al. 2021. How many masks are enough: docs/cutouts.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from seewhy.attribution import Attribution
from seewhy.checks import check_inside, sides
from seewhy.explainers import Explainer
from seewhy.explainers import _masks as masking
from seewhy.explainers._checks import at_places, stepped, unmoved
from seewhy.explainers._masks import Masks
from seewhy.explainers._regression import noisy, regress
from seewhy.maps import full_precision
from seewhy.models import Model, at
from seewhy.perturbation import batch_size, perturbed_scores, settle
from seewhy.plain import Meaning
from seewhy.progress import part_of, report
from seewhy.targets import Request, TargetSet
from seewhy.types import Activation, Note, check_activation

__all__ = ["RISE"]

ROUND = 64  # masks between two looks at whether the map has converged


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class RISE(Explainer):
    """Covariance of the class's probability with random masks, for any black box (Petsiuk 2018).

    Attributes:
        activation_fn: scores -> probabilities: "auto", "softmax", "sigmoid", None or a callable; see `seewhy.explain`.
        perturbation_per_eval: masked copies a forward pass, or "auto".
        num_masks: masks an image, at most; all images and targets share them.
        grid: cells along each side, or (down, across).
        p: probability that a cell is shown.
        estimator: "regression", "centred" or "plain".
        paired: whether masks come in complementary pairs; None for all but the plain estimate, which is the paper's.
        tolerance: stops before num_masks when the map has converged: when two halves of the masks let expect that
            another set of as many masks would give a map with a correlation of at least 1 - tolerance. Of several
            targets the slowest counts.
        seed: of the masks; the global random state is neither read nor changed.

    Example:
        >>> RISE(network, num_masks=200)(inputs, [[0, 3], [1, 4]]).shape  # two classes an image, from the same passes
        torch.Size([2, 2, 32, 32])
    """

    activation_fn: str | Activation | None = "auto"
    perturbation_per_eval: int | str = 32
    num_masks: int = 500
    grid: int | tuple[int, int] = 7
    p: float = 0.5
    estimator: Literal["regression", "centred", "plain"] = "regression"
    paired: bool | None = None
    tolerance: float | None = None
    seed: int = 0

    values: ClassVar[Meaning] = "change"
    offered: ClassVar[int] = 3

    def __post_init__(self) -> None:
        check_activation(self.activation_fn)
        batch_size(self.perturbation_per_eval)
        masking.check(self)
        check_inside("tolerance", self.tolerance, optional=True)

    def _explain(self, model: Model, inputs: Tensor, request: Request) -> Attribution:
        n, (height, width) = inputs.shape[0], inputs.shape[2:]
        paired = self.estimator != "plain" if self.paired is None else self.paired
        masks = Masks.draw(
            self.num_masks, sides("grid", self.grid), self.p, self.seed, (height, width), paired=paired
        ).to(inputs.device)
        outputs = model(inputs)
        settled = settle(model, inputs, outputs, self.activation_fn)
        targets = request.resolve(outputs)
        if self.tolerance is None:
            found = [self._scores(model, inputs, masks, targets, settled.put)]
        else:
            own = [at(model, torch.tensor([i], device="cpu")) for i in range(n)]
            found = [
                self._until_steady(own[i], inputs[i : i + 1], masks, _of(targets, i), (i, n), settled.put)
                for i in range(n)
            ]
        made = [self._map(masks.take(torch.arange(s.shape[2], device=s.device)), s) for s in found]
        return Attribution(
            raw=torch.cat([m.raw for m in made]),
            outputs=outputs,
            targets=targets,
            quantity=settled.quantity,
            notes=(*settled.notes, *self._notes(found, made)),
        )

    def _scores(self, model: Model, inputs: Tensor, masks: Masks, targets: TargetSet, put: Activation | None) -> Tensor:
        """(N, T, M) scores under the masks."""

        def perturb(images: Tensor, index: Tensor) -> Tensor:
            return inputs[images] * masks.at(index).unsqueeze(1).to(inputs.dtype)

        return perturbed_scores(
            model, inputs, perturb, len(masks.grids), targets=targets, activate=put,
            per_eval=self.perturbation_per_eval,
        ).transpose(1, 2)  # fmt: skip

    def _until_steady(
        self, model: Model, image: Tensor, masks: Masks, targets: TargetSet, place: tuple[int, int],
        put: Activation | None,
    ) -> Tensor:  # fmt: skip
        """(1, T, M) scores of one image, in rounds until the map of each target has converged."""
        assert self.tolerance is not None
        known: list[Tensor] = []
        done, (i, n) = 0, place
        while done < self.num_masks:
            index = torch.arange(done, min(done + ROUND, self.num_masks), device=image.device)
            with part_of(i * self.num_masks + done, n * self.num_masks):
                known.append(self._scores(model, image, masks.take(index), targets, put))
            done += len(index)
            scores = torch.cat(known, 2)
            if done >= 2 * ROUND and bool((self._agreement(masks, scores) >= 1 - self.tolerance).all()):
                break
        report((i + 1) * self.num_masks, n * self.num_masks)
        return scores

    def _agreement(self, masks: Masks, scores: Tensor) -> Tensor:
        """(N, T): how well the map would agree with another one made from as many other masks.

        The correlation r of the maps of two halves, stepped up to the whole: 2 r / (1 + r) (Spearman 1910, Brown
        1910).
        """
        index = torch.arange(scores.shape[2], device=scores.device)
        halves = [index[(index // 2) % 2 == half] for half in (0, 1)]  # pairs stay together
        first, second = (self._map(masks.take(h), scores[:, :, h]).raw.flatten(2) for h in halves)
        r = torch.cosine_similarity(first - first.mean(2, keepdim=True), second - second.mean(2, keepdim=True), dim=2)
        return torch.where(r > 0, 2 * r / (1 + r), torch.zeros_like(r))

    def _map(self, masks: Masks, scores: Tensor) -> _Map:
        moved = scores - scores[..., :1]  # exactly zero where no mask changes the score
        centred = (moved - moved.mean(2, keepdim=True)).flatten(0, 1)
        size = (*scores.shape[:2], masks.rows.shape[2], masks.columns.shape[2])
        if self.estimator == "regression":
            fit = regress(masks.nodes(), centred)
            return _Map(masks.slopes(fit.weights).view(size), fit.explained.view(size[:2]))
        with full_precision(scores):
            total = masks.weighted_sum(centred if self.estimator == "centred" else scores.flatten(0, 1))
        # In place, because maps of all classes fill hundreds of megabytes.
        if self.estimator == "plain":
            return _Map(total.mul_(1 / (scores.shape[2] * self.p)).view(size), None)
        return _Map(total.div_(scores.shape[2] * masks.variance()).view(size), None)

    def _notes(self, scores: list[Tensor], made: list[_Map]) -> tuple[Note, ...]:
        changes = torch.cat([(s - s[..., :1]).abs().amax(2, keepdim=True) for s in scores])
        notes = [*unmoved(changes, "mask"), *stepped(scores)]
        if self.tolerance is not None:
            short = torch.tensor([s.shape[2] == self.num_masks for s in scores], device="cpu")
            text = f"its map may not have converged after {self.num_masks} masks. Raise num_masks."
            notes += at_places(short, "map that may not have converged", text)
        if self.estimator == "regression":
            notes += noisy(torch.cat([m.explained for m in made if m.explained is not None]), changes[..., 0] > 1e-7)
        return tuple(notes)


class _Map(NamedTuple):
    """(N, T, H, W) maps and, of a regression, the (N, T) share of the scores' variance that it explains."""

    raw: Tensor
    explained: Tensor | None


def _of(targets: TargetSet, image: int) -> TargetSet:
    if targets.classes is None:
        return targets
    return TargetSet(classes=targets.classes[image : image + 1])
