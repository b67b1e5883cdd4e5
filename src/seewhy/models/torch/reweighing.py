"""Shows the last block of a transformer many weightings of its tokens at once.

A weighting is put on the output of the block's first LayerNorm, and on the residual beside it alike: the LayerNorm
itself would cancel it. So the block is run on weighted tokens while its norm is given them unweighted, and the norm's
output is weighted again.

A class token's output needs only its own query. Under a weighting every token t enters with one of a few weights, so
there are a few variants of every key and value; for each weighting the query picks its variant of each token:

    out(p) = sum_t softmax_t( q . k_t^(w_pt) ) v_t^(w_pt)

The block itself makes queries, keys and values of the variants (one run of its first part for each weight), and does
the rest on a row that has the class token in the place of every picture token, one for each weighting. Whatever the
block consists of besides its attention is so run as it is. Where the head reads tokens of the picture see `counted`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from seewhy.models import Weightings
from seewhy.models.tokens import Enough
from seewhy.models.torch.attention import Attention, Query, logits
from seewhy.models.torch.state import on

__all__ = ["Impossible", "Reweighed", "Weighted", "spread"]

_LARGEST = 2**24  # numbers in a table of attention


class Impossible(Exception):
    """The block is not of the kind for which there is a shortcut; never leaves this package."""


def spread(weightings: Weightings, which: Tensor, prefix: int) -> Tensor:
    """(R, prefix + h w, 1): the weight of every token under each of the weightings ``which`` (R,)."""
    weights = weightings.levels[weightings.index[which]].unsqueeze(2)
    first = weights.new_full((len(which), prefix, 1), 1.0 if weightings.keep else 0.0)
    return torch.cat([first, weights], 1)


@dataclass(eq=False)
class Weighted:
    """Hooks that put weights on a block's input, past its first norms.

    Attributes:
        block: the block.
        norms: its modules that normalise its own input.
    """

    block: nn.Module
    norms: list[nn.Module]

    @contextmanager
    def by(self, tokens: Tensor, weights: Tensor) -> Iterator[None]:
        """The block is given tokens (R, L, C) times weights (R, L, 1), its norms the tokens; then theirs are weighted.

        A norm that the block calls again later is left alone then.
        """
        done: set[nn.Module] = set()

        def unweighted(module: nn.Module, args: Any) -> Any:
            return None if module in done else (tokens, *args[1:])

        def weigh(module: nn.Module, _args: Any, output: Tensor) -> Tensor | None:
            if module in done:
                return None
            done.add(module)
            return output * weights.to(output)

        with ExitStack() as stack:
            for norm in self.norms:
                stack.enter_context(on(norm, before=unweighted, after=weigh))
            yield

    def run(self, tokens: Tensor, weights: Tensor, args: Any, kwargs: dict[str, Any]) -> Tensor:
        """Returns the block's output (R, L, C), without the hooks of the block itself."""
        with self.by(tokens, weights):
            given: Tensor = self.block.forward(tokens * weights.to(tokens), *args, **kwargs)
        return given


@dataclass(frozen=True, eq=False)
class _Seen:
    """Queries, keys and values (V, heads, L, d) of the variants."""

    query: Query

    @classmethod
    def of(cls, run: Callable[[], Any], length: int) -> _Seen:
        kept: list[Query] = []

        def keep(query: Query) -> None:
            kept.append(query)
            raise Enough

        try:
            with Attention(keep):
                run()
        except Enough:
            pass
        if not kept or kept[0].values is None or kept[0].size != (length, length):
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
    """What the block gives for the tokens before those of the picture, under every weighting.

    Attributes:
        block: the block and its norms.
        weightings: of the block's tokens.
        prefix: how many tokens stand before those of the picture.
        readers: which of them the head reads.
    """

    block: Weighted
    weightings: Weightings
    prefix: int
    readers: list[int]

    def rows(self, tokens: Tensor, output: Tensor, args: Any, kwargs: dict[str, Any]) -> Tensor:
        """(N P, prefix, C), a picture's rows together.

        Args:
            tokens: (N, L, C) what enters the block.
            output: (N, L, C) what it gives for them.
            args: what it is given beside its tokens.
            kwargs: what it is given by name.

        Raises:
            Impossible: it is not of the kind for which there is a shortcut.
        """

        def run(some: Tensor, weights: Tensor) -> Tensor:
            return self.block.run(some, weights, args, kwargs)

        return torch.cat([self._rows(run, tokens[n : n + 1], output[n : n + 1]) for n in range(len(output))])

    def _rows(self, run: _Run, tokens: Tensor, output: Tensor) -> Tensor:
        """(P, prefix, C): what the block gives for one picture's tokens (1, L, C), under each weighting."""
        levels, index = self.weightings.levels, self.weightings.index
        weights = levels.view(-1, 1, 1).repeat(1, tokens.shape[1], 1)
        weights[:, : self.prefix] = float(self.weightings.keep)
        seen = _Seen.of(lambda: run(tokens.expand(len(levels), -1, -1), weights), tokens.shape[1])
        variants = torch.cat([index.new_zeros((len(index), self.prefix)), index], 1)
        rows = output[:, : self.prefix].repeat(len(index), 1, 1)
        for reader in self.readers:
            rows[:, reader] = self._finish(run, tokens, reader, seen.attended(reader, variants))
        return rows

    def _finish(self, run: _Run, tokens: Tensor, reader: int, attended: Tensor) -> Tensor:
        """(P, C): the rest of the block, for a token that has attended (P, heads, d)."""
        weights = tokens.new_full((1, tokens.shape[1], 1), float(self.weightings.keep))
        made = []
        for some in attended.split(tokens.shape[1] - self.prefix):
            spread_out = tokens.clone()
            spread_out[:, self.prefix :] = tokens[:, reader : reader + 1]

            def answer(query: Query, some: Tensor = some) -> Tensor:
                assert query.values is not None
                out = torch.zeros_like(query.values)
                out[:, :, self.prefix : self.prefix + len(some)] = some.transpose(0, 1)
                return out

            with Attention(answer):
                made.append(run(spread_out, weights)[0, self.prefix : self.prefix + len(some)])
        return torch.cat(made)


_Run = Callable[[Tensor, Tensor], Tensor]
