"""Sees every attention of a network while it runs, whoever wrote it, and may put something else in its place.

Attention is recognised by what it calls: torch's ``scaled_dot_product_attention``, ``multi_head_attention_forward``
(torch's and torchvision's transformers), or a softmax over the last dimension of scores (N, heads, queries, keys).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["Attend", "Attention", "Query", "attend", "logits"]


@dataclass(frozen=True, eq=False)
class Query:
    """One call of attention.

    Attributes:
        queries, keys, values: (N, heads, L, d); None where only the finished scores are seen.
        mask: what is added to the scores or says which count, or None.
        scale: of the scores.
        scores: (N, heads, queries, keys) before the softmax, where the network made them itself.
    """

    queries: Tensor | None = None
    keys: Tensor | None = None
    values: Tensor | None = None
    mask: Tensor | None = None
    scale: float = 1.0
    scores: Tensor | None = None

    @property
    def size(self) -> tuple[int, int]:
        """How many queries and keys."""
        if self.scores is not None:
            return self.scores.shape[-2], self.scores.shape[-1]
        assert self.queries is not None
        assert self.keys is not None
        return self.queries.shape[-2], self.keys.shape[-2]

    def weights(self) -> Tensor:
        """(N, heads, queries, keys) summing to 1 over the keys."""
        if self.scores is not None:
            return self.scores.softmax(-1)
        assert self.queries is not None
        assert self.keys is not None
        return logits(self.queries, self.keys, self.mask, self.scale).softmax(-1).to(self.queries.dtype)


Attend = Callable[[Query], Tensor | None]
"""What is called for each attention: its answer is (N, heads, L, d) in place of the attention's output (the weights
themselves where ``scores`` is set), or None to leave it alone."""


def logits(queries: Tensor, keys: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """(N, heads, queries, keys) in float32."""
    scores = (queries.float() * scale) @ keys.float().mT
    if mask is None:
        return scores
    return scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask.float()


class Attention(TorchFunctionMode):
    """Calls ``attend`` for every attention that runs in its block."""

    def __init__(self, attend: Attend) -> None:
        super().__init__()
        self.attend = attend

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs the function, unless it is an attention that is answered otherwise."""
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            return self._fused(func, args, kwargs)
        if func is F.multi_head_attention_forward and _is_plain(args, kwargs):
            return self._multi_head(args, kwargs)
        if func in (F.softmax, torch.softmax, Tensor.softmax) and _over_keys(args, kwargs):
            found = self.attend(Query(scores=args[0].to(kwargs.get("dtype") or args[0].dtype)))
            return func(*args, **kwargs) if found is None else found
        return func(*args, **kwargs)

    def _fused(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        if given.get("is_causal") or given.get("enable_gqa"):
            return func(*args, **kwargs)
        query = given["query"]
        scale = given.get("scale") or 1 / math.sqrt(query.shape[-1])
        found = self.attend(Query(query, given["key"], given["value"], given.get("attn_mask"), scale))
        return func(*args, **kwargs) if found is None else found

    def _multi_head(self, args: Any, kwargs: dict[str, Any]) -> tuple[Tensor, Tensor | None]:
        tokens, heads, weight, bias = args[0], args[4], args[5], args[6]
        length, n, width = tokens.shape
        split = F.linear(tokens, weight, bias).view(length, n, 3, heads, width // heads).permute(2, 1, 3, 0, 4)
        query, key, value = split.unbind(0)
        asked = Query(query, key, value, None, 1 / math.sqrt(width // heads))
        found = attend(self.attend, asked)
        weights = asked.weights().mean(1) if kwargs.get("need_weights", True) else None
        return F.linear(found.permute(2, 0, 1, 3).reshape(-1, n, width), args[11], args[12]), weights


def attend(attend: Attend, query: Query) -> Tensor:
    """What ``attend`` says, or else the attention's own output."""
    found = attend(query)
    if found is not None:
        return found
    assert query.queries is not None
    assert query.keys is not None
    assert query.values is not None
    return F.scaled_dot_product_attention(query.queries, query.keys, query.values, query.mask, scale=query.scale)


def _over_keys(args: Any, kwargs: dict[str, Any]) -> bool:
    """True for a softmax over the last of four dimensions, which attention takes over its keys."""
    dim = args[1] if len(args) > 1 else kwargs.get("dim")
    scores = args[0] if args else None
    return isinstance(scores, Tensor) and scores.ndim == 4 and dim in (-1, 3)


def _is_plain(args: Any, kwargs: dict[str, Any]) -> bool:
    """True for self-attention with one weight for queries, keys and values, no mask and nothing added to the keys."""
    if len(args) < 13 or args[0] is not args[1] or args[1] is not args[2] or args[0].ndim != 3:
        return False
    extras = (*args[7:9], kwargs.get("attn_mask"), kwargs.get("key_padding_mask"))
    averaged = kwargs.get("average_attn_weights", True)
    return args[5] is not None and all(e is None for e in extras) and averaged and not args[9]
