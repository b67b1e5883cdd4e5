"""TIS: which tokens were there when the class's probability was high; tokens are left out, not painted over.

    map(t) = sum_m p_c(tokens of m alone) [t in m]  /  sum_m [t in m]

Each m keeps a share p of the image's tokens. What belongs together is shown together: every channel after every
block is a map over the tokens, these maps are put into num_masks clusters (k-means), and m keeps the tokens where the
centre of a cluster is highest. A token that no m keeps has the value of the mean. A transformer takes any number of
tokens, so nothing has to be put in place of those that are gone, and each pass costs about p of a whole one.

Where numbers are compared with the authors' program: that one takes 1024 sets by default, here they are 256.

Source: Englebert et al., "Explaining through Transformer Input Sampling", 2023 (ICCV workshops).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from seewhy.attribution import Attribution
from seewhy.checks import check_count, check_inside, check_seed
from seewhy.explainers import Explainer
from seewhy.explainers._checks import unmoved
from seewhy.explainers._transformer import inside
from seewhy.maps import full_precision
from seewhy.models import FeatureModel
from seewhy.perturbation import batch_size, chunked, probabilities, settle
from seewhy.plain import Meaning
from seewhy.targets import Request
from seewhy.types import Activation, check_activation

__all__ = ["TIS"]

_ROUNDS = 10  # of k-means; more change the masks hardly


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class TIS(Explainer):
    """Mean probability of the class over the sets of tokens that hold a token (Englebert 2023).

    Attributes:
        activation_fn: scores -> probabilities: "auto", "softmax", "sigmoid", None or a callable; see `seewhy.explain`.
        perturbation_per_eval: sets of tokens a forward pass, or "auto".
        num_masks: sets of tokens an image, at most; no more than there are channels in all blocks.
        p: share of the image's tokens that a set keeps.
        seed: of the clusters' first centres; the global random state is neither read nor changed.

    Example:
        >>> TIS(transformer, num_masks=16)(inputs, 1).shape
        torch.Size([2, 1, 32, 32])
    """

    activation_fn: str | Activation | None = "auto"
    perturbation_per_eval: int | str = 32
    num_masks: int = 256
    p: float = 0.5
    seed: int = 0

    needs: ClassVar[type] = FeatureModel
    values: ClassVar[Meaning] = "level"
    published: ClassVar[str] = "num_masks=1024"

    def __post_init__(self) -> None:
        check_activation(self.activation_fn)
        batch_size(self.perturbation_per_eval)
        check_count("num_masks", self.num_masks, 2)
        check_inside("p", self.p)
        check_seed(self.seed)

    def _explain(self, model: FeatureModel, inputs: Tensor, request: Request) -> Attribution:
        body = inside(model, inputs, type(self).__name__)
        outputs, maps = body.streams(inputs)
        settled = settle(model, inputs, outputs, self.activation_fn)
        targets, activate = request.resolve(outputs), settled.put
        kept = torch.stack([self._sets(image) for image in maps.flatten(1, 2).flatten(2)])  # (N, M, k)
        n, count, _ = kept.shape
        scores = torch.zeros((n * count, targets.count), device=inputs.device)

        def work(start: int, stop: int) -> None:
            flat = torch.arange(start, stop, device=inputs.device)
            rows = flat // count
            shown = body.sampled(inputs[rows], kept.flatten(0, 1)[flat], rows)
            scores[start:stop] = targets.values(probabilities(shown, targets, activate), rows)

        chunked(work, n * count, self.perturbation_per_eval)
        found = scores.view(n, count, -1).transpose(1, 2)
        return Attribution(
            raw=_mean_where_kept(found, kept, body.grid),
            outputs=outputs,
            targets=targets,
            quantity=settled.quantity,
            notes=(*settled.notes, *unmoved(found - found[..., :1], "set of tokens")),
        )

    def _sets(self, maps: Tensor) -> Tensor:
        """(M, k): the tokens of each set, from one image's maps (channels, positions)."""
        centres = _clusters(maps, min(self.num_masks, len(maps)), self.seed)
        keep = min(max(1, round(self.p * maps.shape[1])), maps.shape[1] - 1)
        return centres.topk(keep, 1).indices.sort(1).values


def _clusters(maps: Tensor, count: int, seed: int) -> Tensor:
    """(count, positions): the centres that k-means finds among maps (channels, positions); empty ones keep theirs."""
    if count == len(maps):
        return maps
    first = torch.randperm(len(maps), generator=torch.Generator().manual_seed(seed))[:count]
    centres = maps[first.to(maps.device)]
    with full_precision(maps):
        for _ in range(_ROUNDS):
            nearest = (centres.square().sum(1) - 2 * maps @ centres.T).argmin(1)
            sums = torch.zeros_like(centres).index_add_(0, nearest, maps)
            sizes = torch.bincount(nearest, minlength=count).unsqueeze(1)
            centres = torch.where(sizes > 0, sums / sizes.clamp_min(1), centres)
    return centres


def _mean_where_kept(scores: Tensor, kept: Tensor, grid: tuple[int, int]) -> Tensor:
    """(N, T, h, w): for each token the mean of scores (N, T, M) over the sets (N, M, k) that hold it."""
    n, _, count = scores.shape
    shown = torch.zeros((n, count, grid[0] * grid[1]), device=scores.device).scatter_(2, kept, 1.0)
    times = shown.sum(1, keepdim=True)
    centred = scores - scores.mean(2, keepdim=True)
    with full_precision(scores):
        mean = centred @ shown / times.clamp_min(1)
    return (mean + scores.mean(2, keepdim=True)).view(n, -1, *grid)
