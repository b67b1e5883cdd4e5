"""The transformer in a torch network: its blocks, its tokens, and what can be done with them besides a forward pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from seewhy.errors import BadOutput, InputRefused, NoSpatialOutput
from seewhy.models import Attentions, Weightings
from seewhy.models.layout import Layout, choose_map
from seewhy.models.torch.anatomy import Look
from seewhy.models.torch.relevance import attentions
from seewhy.models.torch.reweighing import Impossible, Reweighed, put
from seewhy.models.torch.sampling import sampled, streams
from seewhy.models.torch.state import hooked, on
from seewhy.models.torch.trace import Block
from seewhy.models.turns import alone
from seewhy.types import Outputs

if TYPE_CHECKING:
    from seewhy.models.torch.model import TorchModel

__all__ = ["TorchTransformer", "transformer"]


@dataclass(frozen=True, eq=False)
class TorchTransformer:
    """A network's transformer, for one size of input.

    Attributes:
        model: the network.
        look: what is known about it.
        blocks: those with an attention from each token to each, in the order of execution.
        layout: of the tokens.
        reads: (L,) bool, which of the last block's tokens the scores depend on.
    """

    model: TorchModel
    look: Look
    blocks: list[Block]
    layout: Layout
    reads: Tensor

    @property
    def prefix(self) -> int:
        """How many tokens stand before those of the picture."""
        return self.layout.prefix

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w) of the picture's tokens."""
        return self.layout.grid

    @property
    def entered(self) -> str:
        """The layer whose output enters the last block.

        Raises:
            NoSpatialOutput: functional code stands between.
        """
        if (name := self.blocks[-1].entered) is None:
            raise NoSpatialOutput(
                f"The tokens that enter the last block, {self.blocks[-1].name!r}, are no layer's output. Name a layer."
            )
        return name

    def reweighted(self, inputs: Tensor, weightings: Weightings) -> tuple[Outputs, Outputs] | None:
        """The outputs, and those (N P rows, a picture's together) when the last block sees its tokens weighted.

        None where there is no shortcut: the head reads tokens of the picture, or the block is of an unknown kind. That
        it agrees with the whole network is checked at its first use.
        """
        key = ("reweighted", weightings.keep)
        if self.look.known.checked.get(key) is False or bool(self.reads[self.prefix :].any()):
            return None
        found = self._shortcut(inputs, weightings)
        if key not in self.look.known.checked:
            self.look.known.checked[key] = found is not None and self._agrees(inputs, weightings, *found)
        return found if self.look.known.checked[key] else None

    def _shortcut(self, inputs: Tensor, weightings: Weightings) -> tuple[Outputs, Outputs] | None:
        readers = self.reads[: self.prefix].nonzero().flatten().tolist()
        hook = Reweighed(weightings, self.prefix, readers)
        block = self.look.network.get_submodule(self.blocks[-1].name)
        try:
            own = on(block, before=hook.before, after=hook.after, with_kwargs=True)
            with alone(self.look.network), own, torch.no_grad():
                raw = self.model.run(inputs)
            outputs = self.model.read(raw, len(inputs) * (1 + len(weightings)))
        except (Impossible, InputRefused, BadOutput):
            return None
        return _split(outputs, len(inputs))

    def _agrees(self, inputs: Tensor, weightings: Weightings, own: Outputs, changed: Outputs) -> bool:
        """Whether the whole network says the same of the first picture, as it is and under three of the weightings."""
        which = torch.tensor(sorted({0, len(weightings) // 3, len(weightings) - 1}), device=inputs.device)
        rows = inputs[:1].expand(1 + len(which), -1, -1, -1)

        def weigh(_module: object, _args: object, output: Tensor) -> Tensor:
            return torch.cat([output[:1], put(weightings, output[1:], self.prefix, which)])

        with torch.no_grad(), hooked(self.look.network, self.entered, weigh):
            slow = self.model.read(self.look.run(rows), len(rows)).scores
        quick = torch.cat([own.scores[:1], changed.scores[which]])
        tolerance = 1e-4 if inputs.dtype in (torch.float32, torch.float64) else 5e-2
        return bool((quick - slow).abs().amax() <= tolerance * slow.abs().amax().clamp_min(1e-6))

    def attentions(self, inputs: Tensor, pick: Callable[[Outputs, Outputs], Tensor], alone: bool) -> Attentions:
        """See `Transformer`."""
        return attentions(self, inputs, pick, alone)

    def streams(self, inputs: Tensor) -> tuple[Outputs, Tensor]:
        """See `Transformer`."""
        return streams(self, inputs)

    def sampled(self, inputs: Tensor, kept: Tensor, rows: Tensor | None = None) -> Outputs:
        """See `Transformer`."""
        return sampled(self, inputs, kept, rows)


def _split(outputs: Outputs, n: int) -> tuple[Outputs, Outputs]:
    if outputs.boxes is not None or outputs.masks is not None:
        raise Impossible("boxes and masks")
    first, rest = outputs.scores[:n], outputs.scores[n:]
    return Outputs(scores=first, activated=outputs.activated), Outputs(scores=rest, activated=outputs.activated)


def transformer(model: TorchModel, inputs: Tensor) -> TorchTransformer:
    """The transformer in the network.

    Raises:
        NoSpatialOutput: there is none, or its tokens do not lie in the picture row by row.
    """
    look = model.look(inputs)
    maps = choose_map(look.seen()) is not None
    blocks = [] if maps else [b for b in look.traced().blocks if b.mixes]
    if not blocks:
        raise NoSpatialOutput(
            f"No block with an attention among tokens was found in {model.name}. Use a method for other networks: "
            f"{'ReciproCAM, ' if maps else ''}GradCAM, RISE or Occlusion."
        )
    found = look.traced()
    last = found.step(blocks[-1].name)
    length = last.shape[0]
    same = [b for b in blocks if found.step(b.name).shape == last.shape]
    return TorchTransformer(model, look, same, look.layout(length), last.matters)
