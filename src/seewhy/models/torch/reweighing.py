"""Shows the last block of a transformer many weightings of its tokens at once, where only a few outputs are needed.

A class token's output needs only its own query. Under a weighting every token t enters with one of a few weights, so
there are a few variants of every key and value; for each weighting the query picks its variant of each token:

    out(p) = sum_t softmax_t( q . k_t^(w_pt) ) v_t^(w_pt)

The block itself makes queries, keys and values of the variants (one run of its first part for each weight), and does
the rest on a row that has the class token in the place of every picture token, one for each weighting. Whatever the
block consists of besides its attention is so run as it is; its rows join the batch for the head, in the same pass.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from seewhy.models import Weightings
from seewhy.models.layout import is_tokens
from seewhy.models.tokens import Enough
from seewhy.models.torch.attention import Attention, Query, logits

__all__ = ["Impossible", "Reweighed", "put"]

_LARGEST = 2**24  # numbers in a table of attention


class Impossible(Exception):
    """The block is not of the kind for which there is a shortcut; never leaves this package."""


def put(weightings: Weightings, tokens: Tensor, prefix: int, which: Tensor) -> Tensor:
    """(R, L, C): tokens (R, L, C), each row under one of the weightings ``which`` (R,)."""
    weights = weightings.levels.to(tokens)[weightings.index[which]].unsqueeze(2)
    first = tokens[:, :prefix] if weightings.keep else torch.zeros_like(tokens[:, :prefix])
    return torch.cat([first, tokens[:, prefix:] * weights], 1)


@dataclass(frozen=True, eq=False)
class _Seen:
    """Queries, keys and values (V, heads, L, d) of the variants."""

    query: Query

    @classmethod
    def of(cls, run: Callable[[Tensor], Any], variants: Tensor) -> _Seen:
        kept: list[Query] = []

        def keep(query: Query) -> None:
            kept.append(query)
            raise Enough

        try:
            with Attention(keep):
                run(variants)
        except Enough:
            pass
        if not kept or kept[0].values is None or kept[0].size != (variants.shape[1],) * 2:
            raise Impossible("the block's attention is not among its tokens")
        return cls(kept[0])

    def attended(self, row: int, index: Tensor) -> Tensor:
        """(P, heads, d): what the query in this row sees when key t is of variant ``index[p, t]`` (P, L)."""
        query = self.query
        assert query.queries is not None
        assert query.keys is not None
        assert query.values is not None
        mask = query.mask if query.mask is None or query.mask.shape[-2] == 1 else query.mask[..., row : row + 1, :]
        table = logits(query.queries[:, :, row : row + 1], query.keys, mask, query.scale)[:, :, 0].permute(1, 2, 0)
        heads, length, variants = table.shape
        step = max(1, _LARGEST // (heads * length))
        values = query.values.float()
        parts = []
        for some in index.split(step):
            scores = table.unsqueeze(1).expand(-1, len(some), -1, -1)
            weights = scores.gather(3, some.view(1, *some.shape, 1).expand(heads, -1, -1, 1)).squeeze(3).softmax(2)
            parts.append(sum((weights * (some == v)) @ values[v] for v in range(variants)))
        return torch.cat(parts, 1).transpose(0, 1).to(query.values.dtype)


@dataclass(eq=False)
class Reweighed:
    """A forward hook of a block: its output becomes (N + N P, prefix, C), the pictures' own rows first.

    Attributes:
        weightings: of the block's input.
        prefix: how many tokens stand before those of the picture.
        readers: which of them the head reads.
    """

    weightings: Weightings
    prefix: int
    readers: list[int]
    _tokens: Tensor | None = field(default=None, init=False)

    def before(self, _module: nn.Module, args: Any) -> None:
        """A pre-hook that keeps the input; the block may change it in place."""
        if self._tokens is None:
            self._tokens = args[0].clone()

    def after(self, module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> Tensor:
        """The hook."""
        if self._tokens is None or not is_tokens(output):
            raise Impossible("the block does not give tokens")

        def run(tokens: Tensor) -> Tensor:
            given: Tensor = module.forward(tokens, *args[1:], **kwargs)  # without the hooks of the module itself
            return given

        rows = [self._rows(run, self._tokens[n : n + 1], output[n : n + 1]) for n in range(len(output))]
        return torch.cat([output[:, : self.prefix], *rows])

    def _rows(self, run: Callable[[Tensor], Tensor], tokens: Tensor, output: Tensor) -> Tensor:
        """(P, prefix, C): what the block gives for one picture's tokens (1, L, C), under each weighting."""
        count, positions = self.weightings.index.shape
        some = torch.arange(len(self.weightings.levels), device=tokens.device)
        levels = replace(self.weightings, index=some.unsqueeze(1).expand(-1, positions))
        seen = _Seen.of(run, put(levels, tokens.expand(len(some), -1, -1), self.prefix, some))
        index = torch.cat([self.weightings.index.new_zeros((count, self.prefix)), self.weightings.index], 1)
        rows = output[:, : self.prefix].repeat(count, 1, 1)
        for reader in self.readers:
            rows[:, reader] = self._finish(run, tokens, reader, seen.attended(reader, index))
        return rows

    def _finish(self, run: Callable[[Tensor], Tensor], tokens: Tensor, reader: int, attended: Tensor) -> Tensor:
        """(P, C): the rest of the block, for a token that has attended (P, heads, d)."""
        own = tokens[:, reader : reader + 1] * (1 if self.weightings.keep else 0)
        positions = tokens.shape[1] - self.prefix
        made = []
        for some in attended.split(positions):
            spread = tokens.clone()
            spread[:, self.prefix :] = own

            def answer(query: Query, some: Tensor = some) -> Tensor:
                assert query.values is not None
                out = torch.zeros_like(query.values)
                out[:, :, self.prefix : self.prefix + len(some)] = some.transpose(0, 1)
                return out

            with Attention(answer):
                made.append(run(spread)[0, self.prefix : self.prefix + len(some)])
        return torch.cat(made)
