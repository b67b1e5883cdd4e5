"""The transformer in a torch network: its blocks, its tokens, and what can be done with them besides a forward pass."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from seewhy.errors import BadOutput, InputRefused, NoSpatialOutput
from seewhy.models import Attentions, WeightedBlock, Weightings
from seewhy.models.torch.body import Body, Network
from seewhy.models.torch.relevance import attentions
from seewhy.models.torch.reweighing import Impossible, Replaced, Reweighed, Weighted, spread
from seewhy.models.torch.sampling import sampled, streams
from seewhy.models.torch.state import on, widened
from seewhy.models.torch.trace import Block
from seewhy.models.turns import alone
from seewhy.registry import instead
from seewhy.types import Outputs

__all__ = ["TorchTransformer", "transformer"]


class TorchTransformer(Body):
    """A network's transformer, for one size of input: see `Transformer`."""

    @property
    def entered(self) -> tuple[str | None, ...]:
        """The layers whose outputs enter blocks."""
        return tuple(block.entered for block in self.blocks)

    @property
    def last(self) -> str:
        """The layer from which the last block is run: its first norm, or where it has none the block itself.

        Raises:
            NoSpatialOutput: its residual is added outside of it.
        """
        self._check(self.blocks[-1])
        return self.layer_of(self.blocks[-1])

    def layer_of(self, block: Block) -> str:
        """The layer from which a block is run."""
        return block.norms[0] if block.norms else block.name

    def weighted(self, inputs: Tensor, layer: str, weightings: Weightings) -> WeightedBlock | None:
        """The block that is run from ``layer`` on, ready to be shown its tokens weighted; None where none is."""
        block = next((b for b in self.blocks if self.layer_of(b) == layer), None)
        if block is None:
            return None
        self._check(block)
        return TorchBlock(self, block, inputs, weightings)

    def _check(self, block: Block) -> None:
        if not self.look.carries(block.name):
            raise NoSpatialOutput(
                f"What passes around block {block.name!r} is added outside of it, so it cannot be shown a part of its "
                f"tokens. Use {instead('gradients', tokens=True)}."
            )

    def attentions(self, inputs: Tensor, pick: Callable[[Outputs, Outputs], Tensor], alone: bool) -> Attentions:
        """See `Transformer`."""
        return attentions(self, inputs, pick, alone)

    def streams(self, inputs: Tensor) -> tuple[Outputs, Tensor]:
        """See `Transformer`."""
        return streams(self, inputs)

    def sampled(self, inputs: Tensor, kept: Tensor, rows: Tensor | None = None) -> Outputs:
        """See `Transformer`."""
        return sampled(self, inputs, kept, rows)


@dataclass(eq=False)
class TorchBlock:
    """A block and what follows it, to be run on weighted tokens of pictures (N, C, H, W).

    The quickest way that agrees with the definition is taken; which that is, is tried out at the first use.
    """

    body: TorchTransformer
    block: Block
    inputs: Tensor
    weightings: Weightings
    warnings: list[str] = field(default_factory=list)

    def all(self) -> tuple[Outputs, Outputs] | None:
        """The outputs, and those of all weightings (N P rows, a picture's together), in one pass.

        None where there is no such shortcut: the head reads tokens of the picture, or an earlier block is asked for,
        or the block is of an unknown kind.
        """
        last = self.block is self.body.blocks[-1]
        if not last or bool(self.body.reads[self.body.prefix :].any()):
            return None
        key = ("reweighted", self.weightings.keep, len(self.weightings.levels))
        known = self.body.look.known.checked
        found = None if known.get(key) is False else self._shortcut()
        if key not in known:
            known[key] = found is not None and self._agrees(found[1].scores)
        return found if known[key] else None

    def some(self, rows: Tensor, which: Tensor) -> Outputs:
        """The outputs (R rows) of the pictures ``rows`` (R,), each under the weighting ``which`` (R,)."""
        key, known = ("replaced", self.block.name, self.weightings.keep), self.body.look.known.checked
        if key not in known:
            known[key] = self._replacing_is_right(rows, which)
        return self._replaced(rows, which) if known[key] else self._whole(rows, which)

    def _shortcut(self) -> tuple[Outputs, Outputs] | None:
        body = self.body
        readers = body.reads[: body.prefix].nonzero().flatten().tolist()
        hook = Reweighed(self._hooks(), self.weightings, body.prefix, readers)
        n = len(self.inputs)
        outputs = self._hooked(hook, torch.arange(n, device=self.inputs.device), n * (1 + len(self.weightings)))
        if outputs is None or outputs.boxes is not None or outputs.masks is not None:
            return None
        return replace(outputs, scores=outputs.scores[:n]), replace(outputs, scores=outputs.scores[n:])

    def _replaced(self, rows: Tensor, which: Tensor) -> Outputs:
        pictures, own = rows.unique(return_inverse=True)
        hook = Replaced(self._hooks(), spread(self.weightings, which, self.body.prefix), own)
        found = self._hooked(hook, pictures, len(rows))
        return self._whole(rows, which) if found is None else found

    def _replacing_is_right(self, rows: Tensor, which: Tensor) -> bool:
        """Whether two rows for one picture give what the whole network says of them."""
        some, picture = torch.stack([which[0], which[-1]]), rows[:1]
        hook = Replaced(self._hooks(), spread(self.weightings, some, self.body.prefix), picture.new_zeros(2))
        found = self._hooked(hook, picture, 2)
        return found is not None and _alike(found.scores, self._whole(picture.expand(2), some).scores, self.inputs)

    def _hooked(self, hook: Reweighed | Replaced, rows: Tensor, count: int) -> Outputs | None:
        """What the network says of some pictures where ``hook`` changed the number of rows; None where it cannot."""
        module = hook.block.block
        try:
            own = on(module, before=hook.before, after=hook.after, with_kwargs=True)
            with alone(self.body.look.network), own, torch.no_grad():
                return self.body.model.read(self._run(rows), count)
        except (Impossible, InputRefused, BadOutput):
            return None

    def _whole(self, rows: Tensor, which: Tensor) -> Outputs:
        """By the definition: the whole network on every row."""
        hooks = self._hooks()
        weights = spread(self.weightings, which, self.body.prefix)

        def weigh(_module: object, args: Any) -> Any:
            stack.enter_context(hooks.by(args[0].clone(), weights))
            return (args[0] * weights.to(args[0]), *args[1:])

        with alone(self.body.look.network), ExitStack() as stack, torch.no_grad():
            stack.enter_context(on(hooks.block, before=weigh))
            return self.body.model.read(self._run(rows), len(rows))

    def _run(self, rows: Tensor) -> Any:
        """What the network returns for some pictures; in float32 where a network of half precision can be run so.

        What a few tokens say differs by a few hundredths of a logit, which is about what half precision can tell apart.
        """
        model, inputs = self.body.model.at(rows), self.inputs[rows]
        network, known = self.body.look.network, self.body.look.known.checked
        if inputs.dtype in (torch.half, torch.bfloat16) and known.get("widened") is not False:
            try:
                with alone(network), widened(network):
                    found = model.run(inputs.float())
                known["widened"] = True
                return found
            except InputRefused:
                known["widened"] = False
        return model.run(inputs)

    def _agrees(self, shown: Tensor) -> bool:
        """Whether the whole network says the same of the first picture, under three of the weightings."""
        count = len(self.weightings)
        which = torch.tensor(sorted({0, count // 3, count - 1}), device=shown.device)
        slow = self._whole(torch.zeros_like(which), which).scores
        return _alike(shown[which], slow, self.inputs)

    def _hooks(self) -> Weighted:
        network = self.body.look.network
        return Weighted(network.get_submodule(self.block.name), [network.get_submodule(n) for n in self.block.norms])


def _alike(quick: Tensor, slow: Tensor, kind: Tensor) -> bool:
    tolerance = 1e-4 if kind.dtype in (torch.float32, torch.float64) else 5e-2
    return bool((quick - slow).abs().amax() <= tolerance * slow.abs().amax().clamp_min(1e-6))


def transformer(model: Network, inputs: Tensor) -> TorchTransformer:
    """The transformer in the network.

    Raises:
        NoSpatialOutput: there is none, or its tokens do not lie in the picture row by row.
    """
    look = model.look(inputs)
    stream = look.stream()
    found = look.traced() if stream is not None else None
    same = [] if found is None else [b for b in found.blocks if b.mixes and found.step(b.name).shape == stream]
    if found is None or not same:
        raise NoSpatialOutput(
            f"No block with an attention among tokens was found in {model.name}. Use a method for other networks: "
            f"{instead('gradients', tokens=stream is not None)}."
        )
    last = found.step(same[-1].name)
    return TorchTransformer(model, look, same, look.layout(last.shape[0]), last.matters)
