"""The transformer in a torch network: its blocks, its tokens, and what can be done with them besides a forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from seewhy.errors import InputRefused, NoSpatialOutput, out_of_memory
from seewhy.models import Attentions, WeightedBlock, Weightings
from seewhy.models.torch.body import Body, Network
from seewhy.models.torch.counted import counted
from seewhy.models.torch.passed import Passed, alike
from seewhy.models.torch.relevance import attentions
from seewhy.models.torch.reweighing import Impossible, Reweighed, Weighted, spread
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
        """Returns the layer from which a block is run."""
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
    _passed: Passed | None = field(default=None, init=False)

    def all(self) -> tuple[Outputs, Outputs] | None:
        """Returns the outputs, and those of all weightings (N P rows, a picture's together), in one pass.

        None where there is no such shortcut: an earlier block is asked for, or tokens that are hidden differ from each
        other by their places and the head reads them.
        """
        if self.block is not self.body.blocks[-1]:
            return None
        reads = bool(self.body.reads[self.body.prefix :].any())
        key = ("counted" if reads else "reweighted", self.weightings.keep, len(self.weightings.levels))
        known = self.body.look.known.checked
        if known.get(key) is False:
            return None
        with self._wide() as inputs:
            passed = self._pass(inputs)
            found = None if passed is None else self._shortcut(passed, reads)
            if key not in known:
                known[key] = passed is not None and found is not None and self._agrees(passed, found.scores)
        return (passed.outputs, found) if known[key] and passed is not None and found is not None else None

    def some(self, rows: Tensor, which: Tensor) -> Outputs:
        """Returns the outputs (R rows) of the pictures ``rows`` (R,), each under the weighting ``which`` (R,)."""
        key, known = ("continued", self.block.name, self.weightings.keep), self.body.look.known.checked
        with self._wide() as inputs:
            passed = self._pass(inputs) if known.get(key) is not False else None
            if key not in known:
                known[key] = passed is not None and self._continues(passed, rows, which)
            found = self._defined(passed, rows, which) if passed is not None and known[key] else None
            if found is None:
                self._say(f"The network could not be cut at layer {self.block.name!r}; the whole network was run for "
                          "each change.")  # fmt: skip
            return self._whole(inputs, rows, which) if found is None else found

    def _say(self, warning: str) -> None:
        if warning not in self.warnings:
            self.warnings.append(warning)

    def _pass(self, inputs: Tensor) -> Passed | None:
        """Returns the pictures' own pass, made once."""
        if self._passed is None:
            self._passed = Passed.of(self.body, self.block.name, self._hooks(), inputs)
        return self._passed

    def _shortcut(self, passed: Passed, reads: bool) -> Outputs | None:
        """Returns the outputs of all weightings."""
        if passed.outputs.boxes is not None or passed.outputs.masks is not None:
            return None
        try:
            if reads:
                parts = counted(passed, self.weightings, self.body.prefix)
                return replace(parts[0], scores=torch.cat([part.scores for part in parts]))
            body = self.body
            readers = body.reads[: body.prefix].nonzero().flatten().tolist()
            own = Reweighed(passed.block, self.weightings, body.prefix, readers).rows(
                passed.tokens, passed.output, passed.args, passed.kwargs
            )
        except (Impossible, RuntimeError, ValueError, IndexError) as error:  # the block may ask for all its tokens
            if out_of_memory(error):
                raise
            return None
        rows = torch.arange(len(passed.tokens), device=own.device).repeat_interleave(len(self.weightings))
        return passed.put(own, rows)

    def _defined(self, passed: Passed, rows: Tensor, which: Tensor) -> Outputs | None:
        """Runs the definition from the block on."""
        with torch.no_grad():
            own = passed.run(rows, spread(self.weightings, which, self.body.prefix))
            return passed.put(own, rows)

    def _continues(self, passed: Passed, rows: Tensor, which: Tensor) -> bool:
        """Says whether two rows for one picture, from the block on, are what the whole network says of them."""
        some, picture = torch.stack([which[0], which[-1]]), rows[:1].expand(2)
        found = self._defined(passed, picture, some)
        return found is not None and alike(found.scores, self._whole(passed.inputs, picture, some).scores, self.inputs)

    def _whole(self, inputs: Tensor, rows: Tensor, which: Tensor) -> Outputs:
        """Runs the definition: the whole network on every row."""
        hooks = self._hooks()
        weights = spread(self.weightings, which, self.body.prefix)

        def weigh(_module: object, args: Any) -> Any:
            stack.enter_context(hooks.by(args[0].clone(), weights))
            return (args[0] * weights.to(args[0]), *args[1:])

        with alone(self.body.look.network), ExitStack() as stack, torch.no_grad():
            stack.enter_context(on(hooks.block, before=weigh))
            return self.body.model.read(self.body.model.at(rows).run(inputs[rows]), len(rows))

    @contextmanager
    def _wide(self) -> Iterator[Tensor]:
        """The pictures, and the network with them, in float32 where they are of half precision and can be run so.

        What a few tokens say differs by a few hundredths of a logit, which is about what half precision can tell apart.
        """
        network, known, inputs = self.body.look.network, self.body.look.known.checked, self.inputs
        if inputs.dtype not in (torch.half, torch.bfloat16) or known.get("widened") is False:
            yield inputs
            return
        with alone(network), widened(network):
            if "widened" not in known:
                try:
                    self.body.model.run(inputs[:1].float())
                    known["widened"] = True
                except InputRefused:
                    known["widened"] = False
            if known["widened"]:
                yield inputs.float()
                return
        yield inputs

    def _agrees(self, passed: Passed, shown: Tensor) -> bool:
        """Says whether the definition says the same of the first picture, under three of the weightings."""
        count = len(self.weightings)
        which = torch.tensor(sorted({0, count // 3, count - 1}), device=shown.device)
        slow = self._defined(passed, torch.zeros_like(which), which)
        return slow is not None and alike(shown[which], slow.scores, self.inputs)

    def _hooks(self) -> Weighted:
        network = self.body.look.network
        return Weighted(network.get_submodule(self.block.name), [network.get_submodule(n) for n in self.block.norms])


def transformer(model: Network, inputs: Tensor) -> TorchTransformer:
    """Returns the transformer in the network.

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
    look.check_order(last.name, last.shape[0])
    return TorchTransformer(model, look, same, look.layout(last.shape[0]), last.matters)
