"""Shows a transformer some of a picture's tokens and leaves out the rest.

Tokens are removed where they enter the first block, which also saves their cost. Where attention knows positions (a
relative bias, rotary embeddings) the row may not become shorter: there all tokens stay and no query may look at the
keys of those that are left out. Which of the two is right is tried out at the first use.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seewhy.errors import BadOutput, InputRefused, NoSpatialOutput
from seewhy.models.torch.attention import Attention, Query
from seewhy.models.torch.body import Body
from seewhy.models.torch.state import on
from seewhy.models.turns import alone
from seewhy.registry import instead
from seewhy.types import Outputs

__all__ = ["sampled", "streams"]


def streams(body: Body, inputs: Tensor) -> tuple[Outputs, Tensor]:
    """See `Transformer.streams`."""
    kept: list[Tensor] = []
    with alone(body.look.network), ExitStack() as stack, torch.no_grad():
        for block in body.blocks:
            _on(stack, body, block.name, lambda _m, _a, output: kept.append(body.layout.to_maps(output).float()))
        outputs = body.model.read(body.model.run(inputs), len(inputs))
    return outputs, torch.stack(kept, 1)


def sampled(body: Body, inputs: Tensor, kept: Tensor, rows: Tensor | None = None) -> Outputs:
    """See `Transformer.sampled`."""
    known = body.look.known.checked
    model = body.model if rows is None else body.model.at(rows)
    one = replace(body, model=model.at(torch.zeros(1, dtype=torch.long, device="cpu")))
    if "removed" not in known:
        known["removed"] = _removal_is_right(one, inputs[:1], kept[:1])
    if not known["removed"] and "hidden" not in known:
        known["hidden"] = _hiding_is_right(one, inputs[:1], kept[:1])
    way = _remove if known["removed"] else _hide
    if not known["removed"] and not known["hidden"]:
        raise NoSpatialOutput(
            f"{body.model.name} cannot be shown a part of its tokens: its attention knows positions, and its head "
            f"reads all tokens. Use {instead('scores')}."
        )
    with alone(body.look.network), ExitStack() as stack, torch.no_grad():
        way(stack, body, kept)
        return model.read(model.run(inputs), len(inputs))


def _on(stack: ExitStack, body: Body, name: str, hook: Callable[..., Any]) -> None:
    stack.enter_context(on(body.look.network.get_submodule(name), after=hook))


def _before_first(stack: ExitStack, body: Body, change: Callable[[Tensor], Tensor]) -> None:
    first = body.look.network.get_submodule(body.blocks[0].name)

    def hook(_module: nn.Module, args: Any) -> Any:
        return (change(args[0]), *args[1:])

    stack.enter_context(on(first, before=hook))


def _whole(body: Body, kept: Tensor) -> Tensor:
    """(R, prefix + k): the tokens before those of the picture, and the kept ones."""
    prefix = torch.arange(body.prefix, device=kept.device).expand(len(kept), -1)
    return torch.cat([prefix, kept + body.prefix], 1)


def _remove(stack: ExitStack, body: Body, kept: Tensor) -> None:
    index = _whole(body, kept).unsqueeze(2)
    _before_first(stack, body, lambda tokens: tokens.gather(1, index.expand(-1, -1, tokens.shape[2])))


def _hide(stack: ExitStack, body: Body, kept: Tensor) -> None:
    length = body.prefix + body.grid[0] * body.grid[1]
    shown = torch.zeros((len(kept), length), dtype=torch.bool, device=kept.device).scatter_(1, _whole(body, kept), True)

    def attend(query: Query) -> Tensor | None:
        if query.size != (length, length):
            return None
        mask = torch.zeros((len(kept), 1, 1, length), device=kept.device).masked_fill_(
            ~shown[:, None, None], -torch.inf
        )
        if query.scores is not None:
            return (query.scores + mask.to(query.scores)).softmax(-1)
        assert query.queries is not None
        assert query.keys is not None
        assert query.values is not None
        if query.mask is not None:
            own = query.mask
            mask = mask.masked_fill(~own, -torch.inf) if own.dtype == torch.bool else mask + own
        return F.scaled_dot_product_attention(
            query.queries, query.keys, query.values, mask.to(query.queries), scale=query.scale
        )

    stack.enter_context(Attention(attend))


def _last_tokens(body: Body, inputs: Tensor, *ways: Callable[[ExitStack], None]) -> Tensor | None:
    """Returns the last block's output (R, L, C), or None where the network raised an error."""
    found: list[Tensor] = []
    try:
        with alone(body.look.network), ExitStack() as stack, torch.no_grad():
            for way in ways:
                way(stack)
            _on(stack, body, body.blocks[-1].name, lambda _m, _a, output: found.append(output.clone()))
            body.model.read(body.model.run(inputs), len(inputs))
    except (InputRefused, BadOutput):
        return None
    return found[-1]


def _removal_is_right(body: Body, image: Tensor, kept: Tensor) -> bool:
    """Says whether the tokens that stay come out as if the others had been there but out of sight."""
    short = _last_tokens(body, image, lambda stack: _remove(stack, body, kept))
    whole = _last_tokens(body, image, lambda stack: _hide(stack, body, kept))
    if short is None or whole is None:
        return False
    return _alike(short, whole[:, _whole(body, kept)[0]])


def _hiding_is_right(body: Body, image: Tensor, kept: Tensor) -> bool:
    """What the head reads may not depend on the tokens that are out of sight."""
    shown = torch.zeros(int(body.reads.numel()), dtype=torch.bool, device=image.device)
    shown[_whole(body, kept)[0]] = True

    def spoil(tokens: Tensor) -> Tensor:
        return torch.where(shown[None, :, None], tokens, tokens.flip(1) + 1)

    read = body.reads.to(image.device)
    if bool((read & ~shown).any()):
        return False
    plain = _last_tokens(body, image, lambda stack: _hide(stack, body, kept))
    spoilt = _last_tokens(
        body, image, lambda stack: _hide(stack, body, kept), lambda stack: _before_first(stack, body, spoil)
    )
    return plain is not None and spoilt is not None and _alike(plain[:, read], spoilt[:, read])


def _alike(a: Tensor, b: Tensor) -> bool:
    tolerance = 1e-3 if a.dtype in (torch.float32, torch.float64) else 5e-2
    return bool((a - b).abs().amax() <= tolerance * b.abs().amax().clamp_min(1e-6))
