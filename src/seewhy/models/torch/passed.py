"""One pass of a network, seen at a transformer's block: what entered and left it, and how what follows is replayed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from seewhy.errors import BadOutput, InputRefused, out_of_memory
from seewhy.models.layout import is_tokens
from seewhy.models.torch.body import Body
from seewhy.models.torch.head import WRITTEN
from seewhy.models.torch.replay import Plan, Recorder, Recording, discover, replay, slim
from seewhy.models.torch.reweighing import Impossible, Weighted
from seewhy.models.torch.state import on
from seewhy.models.turns import alone
from seewhy.types import Outputs

__all__ = ["Passed", "alike"]


@dataclass(eq=False)
class Passed:
    """What was seen of a pass of N images, and what follows the block.

    Attributes:
        body: the transformer.
        block: the block and its norms.
        name: of the block.
        inputs: (N, C, H, W).
        outputs: of the pass.
        tokens: (N, L, C) what entered the block.
        output: (N, L, C) what left it.
        args: what the block was given beside its tokens.
        kwargs: what it was given by name.
        recording: what the modules before the block gave.
        plan: how it is replayed.
    """

    body: Body
    block: Weighted
    name: str
    inputs: Tensor
    outputs: Outputs
    tokens: Tensor
    output: Tensor
    args: Any
    kwargs: dict[str, Any]
    recording: Recording
    plan: Plan
    _sure: bool = field(default=False, init=False)

    @classmethod
    def of(cls, body: Body, name: str, block: Weighted, inputs: Tensor) -> Passed | None:
        """Runs the network once; None where what follows the block cannot be replayed.

        The first time it is found out how; of many images with two of them, in one more pass.
        """
        plans, key = body.look.known.heads.plans, (name, 1)
        if key not in plans and len(inputs) > WRITTEN:
            cls.of(body, name, block, inputs[:2])
        if plans.get(key, ()) is None:
            return None
        try:
            found = cls._run(body, name, block, inputs, plans.get(key))
        except Impossible:
            plans[key] = None
            return None
        if found is not None and found.plan.cloned and key not in plans:  # copies have to be made in the pass
            found = cls._run(body, name, block, inputs, found.plan)
        plans[key] = None if found is None else found.plan
        return found

    @classmethod
    def _run(cls, body: Body, name: str, block: Weighted, inputs: Tensor, plan: Plan | None) -> Passed | None:
        network, seen = body.look.network, _Seen()
        hooks = on(block.block, before=seen.enter, after=seen.leave, named=True)
        recorder = Recorder(network, name, inputs, None, plan)
        with alone(network), torch.no_grad(), hooks:
            with recorder:
                raw = body.model.run(inputs)
            outputs, recording = body.model.read(raw, len(inputs)), recorder.recording()
            if seen.given is None or seen.output is None or recording is None:
                return None
            if plan is None:
                plan = cls._plan(body, name, recording, seen.output, outputs)
        if plan is None or not (recording.serves(plan, inputs) or plan.cloned):
            return None
        tokens, args, kwargs = seen.given
        kept = slim(recording, plan, inputs)
        return cls(body, block, name, inputs, outputs, tokens, seen.output, args, kwargs, kept, plan)

    @staticmethod
    def _plan(body: Body, name: str, recording: Recording, output: Tensor, outputs: Outputs) -> Plan | None:
        rows = torch.cat([torch.arange(len(output)), torch.zeros(2, dtype=torch.long)]).to(output.device)

        def right(raw: Any) -> bool:
            return alike(body.model.read(raw, len(rows)).scores, outputs.scores[rows], output)

        return discover(body.look.network, name, recording, output[rows], rows, body.model.again, right)

    def run(self, rows: Tensor, weights: Tensor) -> Tensor:
        """(R, L, C): what the block gives for the tokens of the images ``rows``, under the weights (R, L, 1)."""
        return self.block.run(self.tokens[rows], weights, self.args, self.kwargs)

    def put(self, own: Tensor, rows: Tensor) -> Outputs | None:
        """The outputs if the block had given ``own`` (R, K, C), row r for image ``rows[r]``; None where that fails."""
        return self._put(own, rows) if self.verify() else None

    def verify(self) -> bool:
        """Says whether the network says again what it said, when the block gives what it gave; looked at once."""
        if not self._sure:
            again = self._put(self.output, torch.arange(len(self.output), device=self.output.device))
            self._sure = again is not None and alike(again.scores, self.outputs.scores, self.output)
        return self._sure

    def _put(self, own: Tensor, rows: Tensor) -> Outputs | None:
        network, model = self.body.look.network, self.body.model
        try:
            with alone(network), torch.no_grad():
                raw = replay(network, self.name, self.recording, self.plan, own, rows, model.again)
                return model.read(raw, len(own))
        except (RuntimeError, ValueError, IndexError, TypeError, AttributeError, BadOutput, InputRefused) as error:
            if out_of_memory(error):
                raise
            return None


@dataclass(eq=False)
class _Seen:
    """Hooks of a block."""

    given: tuple[Tensor, Any, dict[str, Any]] | None = None
    output: Tensor | None = None

    def enter(self, _module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        if self.given is not None:
            return
        if not args or not is_tokens(args[0]):
            raise Impossible("the block is not given its tokens first")
        self.given = (args[0].clone(), args[1:], kwargs)  # the block may change its input in place

    def leave(self, _module: nn.Module, _args: Any, output: Any) -> None:
        if self.output is not None:
            return
        if not is_tokens(output):
            raise Impossible("the block does not give tokens")
        self.output = output.clone()


def alike(quick: Tensor, slow: Tensor, kind: Tensor) -> bool:
    """Says whether two ways to the same scores agree, as far as numbers of this type can."""
    tolerance = 1e-4 if kind.dtype in (torch.float32, torch.float64) else 5e-2
    return quick.shape == slow.shape and bool(
        (quick - slow).abs().amax() <= tolerance * slow.abs().amax().clamp_min(1e-6)
    )
