"""Shows the last block of a transformer a few tokens that stand for many.

Behind the mask of a weighting all hidden tokens of a picture are the same token: zero past the norm, and zero in the
residual. So for each weighting the block and what follows it are run on the tokens that are left and *one* hidden
token, which counts as many times as there are hidden ones: in an attention its logit grows by log(count), and a mean
over tokens takes it with that weight. Nothing is left out. Where a token's place enters what tokens say to each other
(a relative position, a rotation, a convolution) hidden tokens differ and this would be wrong; the caller compares it
with the whole network.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from seewhy.models import Weightings
from seewhy.models.torch.attention import Attention, Query
from seewhy.models.torch.passed import Passed
from seewhy.models.torch.reweighing import Impossible
from seewhy.types import Outputs

__all__ = ["counted"]

_CHUNK = 128  # weightings at a time
_MEANS = (torch.mean, Tensor.mean)
_SUMS = (torch.sum, Tensor.sum)


def counted(passed: Passed, weightings: Weightings, prefix: int) -> list[Outputs]:
    """Returns the outputs under every weighting of every image (N P rows), some at a time.

    Raises:
        Impossible: there are hardly any hidden tokens, or the network cannot be shown fewer tokens.
    """
    shown = weightings.levels[weightings.index]  # (P, h w)
    most = int((shown != 0).sum(1).max())
    if 2 * (most + 1) > shown.shape[1]:
        raise Impossible("too few tokens are hidden")
    order = (shown == 0).to(torch.int8).argsort(stable=True, dim=1)[:, :most]
    weights = shown.gather(1, order)
    return [
        _chunk(passed, image, order[some], weights[some], shown.shape[1], prefix, weightings.keep)
        for image in range(len(passed.tokens))
        for some in torch.arange(len(shown), device=shown.device).split(_CHUNK)
    ]


def _chunk(passed: Passed, image: int, order: Tensor, weights: Tensor, size: int, prefix: int, keep: bool) -> Outputs:
    """Some weightings of one image: ``order`` (P, k) tells tokens of the picture, ``weights`` (P, k) their weights."""
    count, alive = len(order), (weights != 0).to(weights)
    first = torch.arange(prefix, device=order.device).expand(count, -1)
    hidden = order.new_full((count, 1), prefix)  # any token will do: it is multiplied by 0
    places = torch.cat([first, prefix + order, hidden], 1)
    kept = weights.new_full((count, prefix), float(keep))
    each = torch.cat([kept, weights, torch.zeros_like(weights[:, :1])], 1).unsqueeze(2)
    counts = torch.cat([torch.ones_like(kept), alive, size - alive.sum(1, keepdim=True)], 1)
    rows = torch.full((count,), image, device=order.device)
    passed.verify()
    with _Counted(counts, prefix):
        out = passed.block.run(passed.tokens[image][places], each, passed.args, passed.kwargs)
        outputs = passed.put(out, rows)
    if outputs is None:
        raise Impossible("what follows cannot be shown fewer tokens")
    return outputs


class _Counted(Attention):
    """In this block every operation over tokens (R, K, ...) takes token k of row r ``counts[r, k]`` times."""

    def __init__(self, counts: Tensor, prefix: int) -> None:
        super().__init__(self._attend)
        self.counts, self.prefix = counts, prefix

    def _attend(self, query: Query) -> Tensor | None:
        """Attention with the tokens' numbers as weights of their exponentials."""
        found = query.scores if query.scores is not None else query.queries
        assert found is not None
        counts = self._fitting(found.shape[0], query.size[1])
        if counts is None:
            return None
        more = counts.log()[:, None, None]
        if query.scores is not None:
            return (query.scores + more).softmax(-1)
        if query.mask is not None and query.mask.dtype == torch.bool:
            raise Impossible("a mask says which tokens count")
        mask = more if query.mask is None else more + query.mask
        assert query.queries is not None
        assert query.keys is not None
        assert query.values is not None
        return F.scaled_dot_product_attention(
            query.queries, query.keys, query.values, mask.to(query.queries.dtype), scale=query.scale
        )

    def _fitting(self, rows: int, length: int) -> Tensor | None:
        """(R, length) how often each token counts; tokens that are put before them, as a class token is, count once."""
        count, own = self.counts.shape
        if rows != count or length < own - self.prefix or length > own + 16:
            return None
        if length <= own:
            return self.counts[:, own - length :] if length in (own, own - self.prefix) else None
        return torch.cat([self.counts.new_ones(count, length - own), self.counts], 1)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs the function, unless it adds tokens up."""
        if func in _MEANS or func in _SUMS:
            found = self._added(func in _MEANS, args, kwargs or {})
            if found is not None:
                return found
        return super().__torch_function__(func, types, args, kwargs)

    def _added(self, mean: bool, args: Any, kwargs: dict[str, Any]) -> Tensor | None:
        """Returns a mean or a sum over the tokens (R, K, C), or over those of the picture; None for anything else."""
        tokens = args[0]
        dim = args[1] if len(args) > 1 else kwargs.get("dim")
        dim = dim[0] if isinstance(dim, list | tuple) and len(dim) == 1 else dim
        if tokens.ndim != 3 or not isinstance(dim, int) or dim % 3 != 1:
            return None
        counts = self._fitting(len(tokens), tokens.shape[1])
        if counts is None:
            return None
        total: Tensor = torch.matmul(counts.to(tokens).unsqueeze(1), tokens)
        total = total / counts.sum(1).to(tokens)[:, None, None] if mean else total
        keep = kwargs.get("keepdim", args[2] if len(args) > 2 else False)
        return total if keep else total.squeeze(1)
