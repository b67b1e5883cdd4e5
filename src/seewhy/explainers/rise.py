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

Masks come in pairs: what one shows the other hides, so that both sides of every cell are seen equally often. Unless a
number of masks is asked for, there are as many as each map needs: after every 32 it is looked whether it has converged.

Source: Petsiuk, Das and Saenko, "RISE: Randomized Input Sampling for Explanation of Black-box Models", 2018 (arXiv
1806.07421); with a DRISETarget it is D-RISE, Petsiuk et al. 2021. How many masks are enough: docs/cutouts.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from seewhy.attribution import Attribution
from seewhy.checks import check_flag, check_inside, sides_of
from seewhy.explainers import Explainer
from seewhy.explainers import _masks as masking
from seewhy.explainers._checks import at_places, stepped, unmoved
from seewhy.explainers._masks import Masks
from seewhy.explainers._regression import noisy, regress
from seewhy.explainers._sureness import agreement, standard_error
from seewhy.maps import full_precision, size_of
from seewhy.models import Model, at
from seewhy.perturbation import batch_size, perturbed_scores, settle
from seewhy.plain import Meaning
from seewhy.progress import part_of, report
from seewhy.targets import Request, TargetSet
from seewhy.types import Activation, Note, check_activation

__all__ = ["RISE"]

ROUND = 32  # masks between two looks at whether the map has converged
MOST = 500  # masks, where no number is asked for
TOLERANCE = 0.2  # where no number of masks is asked for: what it is worth stands in docs/cutouts.md


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class RISE(Explainer):
    """Covariance of the class's probability with random masks, for any black box (Petsiuk 2018).

    Attributes:
        activation_fn: scores -> probabilities: "auto", "softmax", "sigmoid", None or a callable; see `seewhy.explain`.
        perturbation_per_eval: masked copies a forward pass, or "auto".
        num_masks: masks an image; all images and targets share them. "auto" for as many as each map needs, at most 500;
            of the plain estimate, which no map converges with so soon, 500.
        grid: cells along each side, or (down, across); of volumes (deep, down, across).
        p: probability that a cell is shown.
        estimator: "regression", "centred" or "plain".
        paired: whether masks come in complementary pairs; None for all but the plain estimate, which is the paper's.
        tolerance: a map is made of fewer than ``num_masks`` when it has converged: when two halves of the masks let
            expect that another set of as many masks would give a map with a correlation of at least 1 - tolerance.
            None for 0.2 with num_masks="auto", and for all masks where their number is given. A map does not depend
            on what else is explained.
        error: also gives the standard error of each pixel, `seewhy.Explanation.error`; costs no passes.
        seed: of the masks; the global random state is neither read nor changed.

    Example:
        >>> RISE(network, num_masks=200)(inputs, [[0, 3], [1, 4]]).shape  # two classes an image, from the same passes
        torch.Size([2, 2, 32, 32])
    """

    activation_fn: str | Activation | None = "auto"
    perturbation_per_eval: int | str = 32
    num_masks: int | Literal["auto"] = "auto"
    grid: int | tuple[int, ...] = 7
    p: float = 0.5
    estimator: Literal["regression", "centred", "plain"] = "regression"
    paired: bool | None = None
    tolerance: float | None = None
    error: bool = False
    seed: int = 0

    values: ClassVar[Meaning] = "change"
    volumes: ClassVar[bool] = True
    offered: ClassVar[int] = 3

    def __post_init__(self) -> None:
        check_activation(self.activation_fn)
        batch_size(self.perturbation_per_eval)
        masking.check(self, automatic=True)
        check_inside("tolerance", self.tolerance, optional=True)
        check_flag("error", self.error)

    @property
    def _budget(self) -> tuple[int, float | None]:
        """The most masks, and the tolerance with which fewer do; None for all of them."""
        if self.num_masks != "auto":
            return self.num_masks, self.tolerance
        return MOST, TOLERANCE if self.tolerance is None and self.estimator != "plain" else self.tolerance

    def _explain(self, model: Model, inputs: Tensor, request: Request) -> Attribution:
        n, size = len(inputs), size_of(inputs)
        most, tolerance = self._budget
        paired = self.estimator != "plain" if self.paired is None else self.paired
        grid = sides_of("grid", self.grid, len(size))
        masks = Masks.draw(most, grid, self.p, self.seed, size, paired=paired).to(inputs.device)
        outputs = model(inputs)
        settled = settle(model, inputs, outputs, self.activation_fn)
        targets = request.resolve(outputs)
        if tolerance is None:
            found = [_Seen(self._scores(model, inputs, masks, targets, settled.put))]
        else:
            found = [
                self._until_steady(
                    at(model, torch.tensor([i], device="cpu")), inputs[i : i + 1], masks, _of(targets, i), (i, n),
                    settled.put, tolerance,
                ) for i in range(n)
            ]  # fmt: skip
        made = [self._maps(masks, seen) for seen in found]
        return Attribution(
            raw=torch.cat([m.raw for m in made]),
            error=torch.cat([self._errors(masks, seen) for seen in found]) if self.error else None,
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
        put: Activation | None, tolerance: float,
    ) -> _Seen:  # fmt: skip
        """Returns the scores of one image, in rounds until the map of each target has converged."""
        most, (i, n) = len(masks.grids), place
        known: list[Tensor] = []
        counts = torch.full((targets.count,), most, device=image.device)
        open_ = torch.ones_like(counts, dtype=torch.bool)
        done = 0
        while done < most and bool(open_.any()):
            index = torch.arange(done, min(done + ROUND, most), device=image.device)
            with part_of(i * most + done, n * most):
                known.append(self._scores(model, image, masks.take(index), targets, put))
            done += len(index)
            scores = torch.cat(known, 2)
            if done >= 2 * ROUND:
                steady = agreement(self._estimate(masks), scores[:, open_])[0] >= 1 - tolerance
                counts[open_.nonzero()[steady, 0]] = done
                open_[open_.nonzero()[steady, 0]] = False
        report((i + 1) * most, n * most)
        return _Seen(scores, counts, open_)

    def _estimate(self, masks: Masks) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda index, scores: self._map(masks.take(index), scores).raw

    def _maps(self, masks: Masks, seen: _Seen) -> _Map:
        """Returns the maps, each made of as many masks as its target took."""
        made = [self._map(_first(masks, some), some) for some in seen.parts()]
        explained = [one.explained for one in made if one.explained is not None]
        return _Map(seen.joined([one.raw for one in made]), seen.joined(explained) if explained else None)

    def _errors(self, masks: Masks, seen: _Seen) -> Tensor:
        """(N, T, H, W) standard errors of the maps."""
        return seen.joined([standard_error(self._estimate(masks), some) for some in seen.parts()])

    def _map(self, masks: Masks, scores: Tensor) -> _Map:
        moved = scores - scores[..., :1]  # exactly zero where no mask changes the score
        centred = (moved - moved.mean(2, keepdim=True)).flatten(0, 1)
        size = (*scores.shape[:2], *masks.size)
        if self.estimator == "regression":
            fit = regress(masks.nodes(), centred)
            return _Map(masks.slopes(fit.weights).view(size), fit.explained.view(size[:2]))
        with full_precision(scores):
            total = masks.weighted_sum(centred if self.estimator == "centred" else scores.flatten(0, 1))
        # In place, because maps of all classes fill hundreds of megabytes.
        if self.estimator == "plain":
            return _Map(total.mul_(1 / (scores.shape[2] * self.p)).view(size), None)
        return _Map(total.div_(scores.shape[2] * masks.variance()).view(size), None)

    def _notes(self, found: list[_Seen], made: list[_Map]) -> tuple[Note, ...]:
        scores = [seen.scores for seen in found]
        changes = torch.cat([(s - s[..., :1]).abs().amax(2, keepdim=True) for s in scores])
        notes = [*unmoved(changes, "mask"), *stepped(scores)]
        if found[0].short is not None:
            short = torch.stack([seen.short for seen in found if seen.short is not None]).cpu()
            text = f"its map may not have converged after {self._budget[0]} masks. Raise num_masks."
            notes += at_places(short & (changes[..., 0].cpu() > 0), "map that may not have converged", text)
        if self.estimator == "regression":
            notes += noisy(torch.cat([m.explained for m in made if m.explained is not None]), changes[..., 0] > 1e-7)
        return tuple(notes)


class _Seen(NamedTuple):
    """What was seen under the masks.

    Attributes:
        scores: (N, T, M).
        counts: (T,) with how many of them each target's map has converged; None where all are taken.
        short: (T,) bool, which maps have not.
    """

    scores: Tensor
    counts: Tensor | None = None
    short: Tensor | None = None

    def _groups(self) -> list[tuple[Tensor, int]]:
        """Which targets take how many masks."""
        if self.counts is None:
            return [(torch.arange(self.scores.shape[1], device=self.scores.device), self.scores.shape[2])]
        return [((self.counts == count).nonzero()[:, 0], int(count)) for count in self.counts.unique()]

    def parts(self) -> list[Tensor]:
        """(N, t, m) each: the scores of the targets that take m masks."""
        return [self.scores[:, which, :count] for which, count in self._groups()]

    def joined(self, found: list[Tensor]) -> Tensor:
        """What was made of the parts, in the order of the targets."""
        order = torch.cat([which for which, _ in self._groups()]).argsort()
        return found[0] if len(found) == 1 else torch.cat(found, 1)[:, order]


class _Map(NamedTuple):
    """(N, T, H, W) maps and, of a regression, the (N, T) share of the scores' variance that it explains."""

    raw: Tensor
    explained: Tensor | None


def _first(masks: Masks, scores: Tensor) -> Masks:
    """Returns the masks of (N, T, M) scores."""
    return masks.take(torch.arange(scores.shape[2], device=scores.device))


def _of(targets: TargetSet, image: int) -> TargetSet:
    if targets.classes is None:
        return targets
    return TargetSet(classes=targets.classes[image : image + 1])
