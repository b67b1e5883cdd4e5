"""Attention of every block and the gradients of scores with respect to it, in one forward pass for all targets."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from seewhy.errors import BadOutput, InputRefused, NoSpatialOutput, one_line
from seewhy.models import Attentions
from seewhy.models.torch.attention import Attention, Query
from seewhy.models.torch.body import Body
from seewhy.models.torch.gradients import gradients
from seewhy.models.torch.state import frozen, on
from seewhy.models.turns import alone
from seewhy.registry import instead
from seewhy.types import Outputs

__all__ = ["attentions"]


@dataclass(eq=False)
class _Blocks:
    """Hooks on all blocks that keep their attention; with ``alone`` they also let each block speak for itself.

    Attributes:
        alone: every block starts from its input as given, and its output goes to the head beside the last block's.
        count: of the blocks.
        weights: (N, heads, L, L) for each block, made the start of a graph.
    """

    alone: bool
    count: int
    weights: list[Tensor] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)
    inside: bool = False

    def before(self, _module: nn.Module, args: Any) -> Any:
        self.inside = True
        return (args[0].detach(), *args[1:]) if self.alone else None

    def after(self, _module: nn.Module, _args: Any, output: Any) -> Tensor | None:
        self.inside = False
        if not self.alone:
            return None
        self.outputs.append(output)
        return torch.cat(self.outputs) if len(self.outputs) == self.count else None

    def attend(self, query: Query) -> Tensor | None:
        if not self.inside:
            return None
        weights = query.weights()
        own = weights.detach().requires_grad_() if self.alone or not weights.requires_grad else weights
        self.weights.append(own)
        return own if query.values is None else own.to(query.values.dtype) @ query.values


def attentions(body: Body, inputs: Tensor, pick: Callable[..., Tensor], alone: bool) -> Attentions:
    """See `Transformer.attentions`."""
    n, blocks = len(inputs), _Blocks(alone, len(body.blocks))
    try:
        with torch.enable_grad():
            outputs = body.model.read(_run(body, inputs, blocks), n * len(body.blocks) if alone else n)
    except (InputRefused, BadOutput) as error:
        if not alone:
            raise
        raise NoSpatialOutput(
            "The network's head cannot be put on the tokens of its earlier blocks, so they cannot be compared. Use "
            f"{instead('gradients', tokens=True)}. It says: {one_line(error.__cause__ or error)}"
        ) from error
    own = Outputs(scores=outputs.scores[-n:].detach(), activated=outputs.activated)
    with torch.enable_grad():
        values = pick(own, outputs)
    if not values.requires_grad:
        raise NoSpatialOutput(
            "The scores do not depend on the attention through operations that torch can differentiate. Use "
            f"{instead('features', tokens=True)}."
        )

    def of(t: int) -> list[Tensor]:
        body.model.passes.backward += n
        with torch.enable_grad():
            return gradients(values[:, t].sum(), blocks.weights, t + 1 < values.shape[1])

    return Attentions(outputs=own, weights=[w.detach() for w in blocks.weights], count=values.shape[1], of=of)


def _run(body: Body, inputs: Tensor, blocks: _Blocks) -> Any:
    with alone(body.look.network), ExitStack() as stack:
        for block in body.blocks:
            module = body.look.network.get_submodule(block.name)
            stack.enter_context(on(module, before=blocks.before, after=blocks.after))
        stack.enter_context(frozen(body.look.network))
        stack.enter_context(Attention(blocks.attend))
        return body.model.run(inputs)
