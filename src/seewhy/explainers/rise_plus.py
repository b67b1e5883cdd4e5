"""RISE in which a masked copy counts by how familiar it is, so that strange copies cannot speak for the image.

Most masked copies look like nothing that the network was trained on, and what it says about them means little. With
S(x) the largest score of an out-of-distribution network, high for familiar images, copy i gets the inlier score

    s_i = (S(x * M_i) - S(blank)) / (S(x) - S(blank)), clipped to [0, 1]

1 where it is as familiar as the image itself, 0 where it is no more so than a blank one. With f_i the probability of
the class under mask M_i, for each pixel:

    plain         sum_i s_i f_i M_i / (N p)                      (the paper)
    centred       sum_i s_i (f_i - f) M_i / (sum_i s_i var(M))   with f = sum_i s_i f_i / sum_i s_i: the covariance
                                                                 over copies that count s_i times each
    regression    cov(g, M) / var(M)                             with g the linear function of the mask that ridge
                                                                 regression finds when copy i counts s_i times

If all s_i are 1, each is RISE's estimate of that name. The plain sum is also bright where familiarity alone depends on
a pixel; the others are not: if all f_i are the same, they are zero. The weights mend much of what is wrong with the
plain sum; the other estimates they change little (benchmarks/ood.py).

Source: Qiu, Yang, Cao, Liu, Zheng, Ngai, Hsiao and Chen, "Resisting Out-of-Distribution Data Problem in Perturbation
of XAI", 2021 (arXiv 2107.14000), on RISE by Petsiuk, Das and Saenko, 2018 (arXiv 1806.07421).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from seewhy.attribution import Attribution
from seewhy.checks import sides
from seewhy.errors import InvalidType
from seewhy.explainers import Explainer
from seewhy.explainers import _masks as masking
from seewhy.explainers._checks import at_places, unmoved
from seewhy.explainers._masks import ESTIMATORS, Masks
from seewhy.explainers._regression import Fit, noisy, regress
from seewhy.foreign import is_cell
from seewhy.maps import full_precision
from seewhy.models import Model, at, varies
from seewhy.models.torch.model import TorchModel
from seewhy.ood.ood_net import OoDNet
from seewhy.perturbation import batch_size, chunked, probabilities, settle
from seewhy.plain import Meaning
from seewhy.targets import Request, TargetSet
from seewhy.types import Activation, Note, Outputs, check_activation

__all__ = ["RISEPlus"]

MARGIN = 1e-3  # cosines that differ by less tell nothing
FEW = 0.05  # share of the masks below which the reader is told that few count


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class RISEPlus(Explainer):
    """RISE with each masked copy weighted by how familiar it is to an out-of-distribution network (Qiu et al. 2021).

    Attributes:
        ood_net: a trained ``OoDNet``; the only argument that may be given by position.
        network: what is explained; by default the classifier under ``ood_net``. With that one a single forward pass
            gives both scores; another one costs a second pass of each copy, through the classifier.
        activation_fn: scores -> probabilities: "auto", "softmax", "sigmoid", None or a callable; see `seewhy.explain`.
        perturbation_per_eval: masked copies a forward pass, or "auto".
        num_masks: masks an image; all images and targets share them, and RISE with the same parameters has the same.
        grid: cells along each side, or (down, across).
        p: probability that a cell is shown.
        estimator: "regression", "centred" or "plain".
        paired: whether masks come in complementary pairs; None for all but the plain estimate, which is the paper's.
        seed: of the masks; the global random state is neither read nor changed.

    Example:
        >>> ood_net = seewhy.OoDNet(network, 5)  # trained by its fit()
        >>> RISEPlus(ood_net, num_masks=100)(inputs, 1).shape
        torch.Size([2, 1, 32, 32])
    """

    ood_net: Any = field(default=None, kw_only=False)
    network: Any = None
    activation_fn: str | Activation | None = "auto"
    perturbation_per_eval: int | str = 32
    num_masks: int = 500
    grid: int | tuple[int, int] = 7
    p: float = 0.5
    estimator: Literal["regression", "centred", "plain"] = "regression"
    paired: bool | None = None
    seed: int = 0

    values: ClassVar[Meaning] = "change"

    def __post_init__(self) -> None:
        if not isinstance(self.ood_net, OoDNet):
            raise InvalidType(
                f"RISEPlus takes a trained OoDNet first, got {type(self.ood_net).__name__}. Make one: "
                "ood_net = OoDNet(network, num_classes); ood_net.fit(dataset, loss_fn); RISEPlus(ood_net)."
            )
        if self.network is None:
            object.__setattr__(self, "network", self.ood_net.underlying)
        elif is_cell(self.network) and self.network is getattr(self.ood_net.underlying, "cell", None):
            object.__setattr__(self, "network", self.ood_net.underlying)  # one pass gives both
        check_activation(self.activation_fn)
        batch_size(self.perturbation_per_eval)
        masking.check(self)

    def _explain(self, model: Model, inputs: Tensor, request: Request) -> Attribution:
        masks = self._masks(inputs)
        look = _Eyes(model, self.ood_net, inputs)
        outputs, photo = look(inputs)
        settled = settle(model, inputs, outputs, self.activation_fn)
        targets = request.resolve(outputs)
        _, blank = look(torch.zeros_like(inputs if varies(model) else inputs[:1]))
        scores, familiar = self._scores(look, inputs, masks, targets, settled.put)
        weights, unlike = _inlier_scores(familiar, photo, blank)
        moved = scores - scores[..., :1]  # exactly zero where no mask changes the score
        raw, explained = self._estimate(masks, scores if self.estimator == "plain" else moved, weights)
        moves = (moved.abs().amax(2) > 1e-7) & (weights.sum(1, keepdim=True) > 0)
        notes = (*settled.notes, *unlike, *unmoved(moved, "mask"), *noisy(explained, moves))
        return Attribution(raw=raw, outputs=outputs, targets=targets, notes=notes, quantity=settled.quantity)

    def _masks(self, inputs: Tensor) -> Masks:
        paired = self.estimator != "plain" if self.paired is None else self.paired
        size = (inputs.shape[2], inputs.shape[3])
        masks = Masks.draw(self.num_masks, sides("grid", self.grid), self.p, self.seed, size, paired=paired)
        return masks.to(inputs.device)

    def _scores(
        self, look: _Eyes, inputs: Tensor, masks: Masks, targets: TargetSet, put: Activation | None
    ) -> tuple[Tensor, Tensor]:
        """(N, T, masks) the targets' scores and (N, masks) how familiar each copy is, from the same passes."""
        n, count = len(inputs), self.num_masks
        scores = inputs.new_zeros((n * count, targets.count), dtype=torch.float32)
        familiar = inputs.new_zeros(n * count, dtype=torch.float32)

        def work(start: int, stop: int) -> None:
            flat = torch.arange(start, stop, device=inputs.device)
            images, index = flat // count, flat % count
            copies = inputs[images] * masks.at(index).unsqueeze(1).to(inputs.dtype)
            outputs, familiar[start:stop] = look(copies, images)
            scores[start:stop] = targets.values(probabilities(outputs, targets, put), images)

        chunked(work, n * count, self.perturbation_per_eval)
        return scores.view(n, count, -1).transpose(1, 2), familiar.view(n, count)

    def _estimate(self, masks: Masks, scores: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """(N, T, masks) scores and (N, masks) weights -> (N, T, H, W), and the (N, T) share of the scores explained.

        The latter is 1 where there is no regression.
        """
        size = (*scores.shape[:2], *masks.size)
        if self.estimator == "regression":
            nodes = masks.nodes()
            fits = [_regressed(nodes, y, w) for y, w in zip(scores, weights, strict=True)]
            raw = masks.slopes(torch.cat([fit.weights for fit in fits])).view(size)
            return raw, torch.stack([fit.explained for fit in fits])
        weights = weights.unsqueeze(1)
        with full_precision(scores):
            if self.estimator == "plain":
                total = masks.weighted_sum((weights * scores).flatten(0, 1)).mul_(1 / (self.num_masks * self.p))
            else:
                share = weights / weights.sum(2, keepdim=True).clamp_min(1e-12)  # where no copy counts, zero
                centred = share * (scores - (share * scores).sum(2, keepdim=True))
                total = masks.weighted_sum(centred.flatten(0, 1)).div_(masks.variance())
        return total.view(size), scores.new_ones(size[:2])


def _regressed(nodes: Tensor, scores: Tensor, weights: Tensor) -> Fit:
    """(M, P) masks, (T, M) scores and (M,) weights -> the regression in which mask i counts weights[i] times.

    That is the plain regression of rows times sqrt(weight), with the direction sqrt(weights) taken out of all columns
    instead of their mean. The rows are turned, which changes no fit, so that this direction becomes the one in which
    all rows are equal: what the plain regression takes away as the mean is then the weighted mean.
    """
    known = weights > 0
    count = int(known.sum())
    if count < ESTIMATORS["regression"]:
        return Fit(scores.new_zeros(len(scores), nodes.shape[1]), scores.new_zeros(len(scores)))
    columns = torch.cat([nodes, scores.T], 1)[known].cpu().double()
    share = (weights[known] / weights[known].sum()).cpu().double().unsqueeze(1)
    columns *= (count * share).sqrt()
    across = share.sqrt() - count**-0.5
    turned = columns - across * (across * columns).sum(0) * (2 / across.square().sum().clamp_min(1e-30))
    fit = regress(turned[:, : nodes.shape[1]], turned[:, nodes.shape[1] :].T)
    return Fit(*(value.to(scores.device) for value in fit))


class _Eyes:
    """Both networks: images (R, C, H, W) -> the model's outputs, and (R,) how familiar each image is."""

    def __init__(self, model: Model, ood_net: OoDNet, inputs: Tensor) -> None:
        self.model, self.ood_net = model, ood_net
        same = isinstance(model, TorchModel) and model.module is ood_net.underlying and ood_net.layer is not None
        self.together = same and (not ood_net.asks or self._agree(inputs[:1]))

    def __call__(self, images: Tensor, rows: Tensor | None = None) -> tuple[Outputs, Tensor]:
        """``rows``: which image of the batch each is a copy of; by default they are the batch, or one for all."""
        model = self.model if rows is None else at(self.model, rows)
        outputs, features = (self._once if self.together else self._twice)(model, images)
        return outputs, self.ood_net.scores(features).amax(1).float()

    def _once(self, model: Model, images: Tensor) -> tuple[Outputs, Tensor]:
        return self.ood_net.overhear(lambda: model(images))

    def _twice(self, model: Model, images: Tensor) -> tuple[Outputs, Tensor]:
        return model(images), self._features(model, images)

    def _features(self, model: Model, images: Tensor) -> Tensor:
        """The classifier's own; it gets the model's further inputs, where it is the network that is explained."""
        if isinstance(model, TorchModel) and model.module is self.ood_net.underlying:
            return self.ood_net.features_of(model, images)
        model.passes.forward += len(images)
        return self.ood_net.features(images)

    def _agree(self, images: Tensor) -> bool:
        """Says whether the features that the classifier gives when asked are those that its last layer takes."""
        model = at(self.model, torch.zeros(1, dtype=torch.long, device="cpu"))
        return torch.equal(self._features(model, images), self._once(model, images)[1])


def _inlier_scores(familiar: Tensor, photo: Tensor, blank: Tensor) -> tuple[Tensor, list[Note]]:
    """(N, masks) in [0, 1], and what is wrong with them; all 0 where photo and blank image cannot be told apart."""
    blank = blank.expand_as(photo)
    span = (photo - blank).unsqueeze(1)
    told = span > MARGIN
    weights = torch.where(told, (familiar - blank.unsqueeze(1)) / span, 0.0).clamp(0, 1)
    count = weights.sum(1).square() / weights.square().sum(1).clamp_min(1e-12)
    enough = max(FEW * weights.shape[1], min(4, weights.shape[1]))

    def blind(i: int, _: int) -> str:
        return (
            f"to the out-of-distribution network it is no more familiar ({float(photo[i]):.3f}) than a blank one "
            f"({float(blank[i]):.3f}), so no masked copy can be weighted and its maps are zero. Train that network on "
            "such pictures, or use RISE."
        )

    def few(i: int, _: int) -> str:
        return (
            f"its masked copies are so unfamiliar that only about {float(count[i]):.0f} of {weights.shape[1]} count, "
            "and the map is noisy. Use more masks, or a larger p."
        )

    seen = told.flatten()
    return weights, [
        *at_places(~seen, "image that is not familiar", blind),
        *at_places(seen & (count < enough), "few masked copies count", few),
    ]
