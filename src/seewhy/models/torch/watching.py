"""What one forward hook sees of a layer, which may run several times in a pass, and what is said about that."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from seewhy.errors import InvalidInput, NoSpatialOutput, UnknownLayer
from seewhy.models.layout import FIRST, Seen, TokenGrids, read_layout
from seewhy.models.torch.pooled_head import Tape
from seewhy.models.torch.replay import Recorder, Recording
from seewhy.registry import instead

__all__ = ["Watch", "checkpointed", "several"]


def checkpointed(name: str) -> str:
    """Says that a network cannot be differentiated at a layer, because it saves memory in another way."""
    return (
        f"{name} computes its activations again in the backward pass (torch.utils.checkpoint), so it cannot be "
        "differentiated at a layer. Switch that off for explaining (gradient_checkpointing_disable() of Hugging "
        f"Face's models), or use {instead('features')}."
    )


class Watch:
    """What one forward hook saw of a layer; where a module is used several times, the call ``at``, or the last one."""

    def __init__(
        self, inputs: Tensor, layer: str, tokens: Callable[[], TokenGrids], at: int | None = None,
        recorder: Recorder | None = None,
    ) -> None:  # fmt: skip
        self.inputs, self.layer, self.tokens, self.at, self.recorder = inputs, layer, tokens, at, recorder
        self.layout, self.calls = FIRST, 0
        self.warnings: list[str] = []
        self.tape = Tape()
        self.failed: NoSpatialOutput | None = None
        self._maps: Tensor | None = None
        self._recording = ExitStack()

    def __enter__(self) -> Watch:
        if self.recorder is not None:
            self._recording.enter_context(self.recorder)
        return self

    def __exit__(self, *error: object) -> None:
        self._recording.close()

    def keep(self, _module: nn.Module, _args: Any, output: Any) -> None:
        """A hook that keeps the output and records what happens to it."""
        if not self._look(output):
            return
        self._maps = output.clone()  # an in-place activation may follow
        self._follow(output)

    def branch(self, _module: nn.Module, _args: Any, output: Any) -> Tensor | None:
        """Returns a hook that makes the output the leaf of a new graph."""
        if not self._look(output):
            return None
        if not torch.is_grad_enabled() and _checkpointing():
            raise InvalidInput(checkpointed(f"What runs layer {self.layer!r}"))
        copy = self.leaf(output)
        self._follow(copy)
        return copy

    def leaf(self, tensor: Tensor) -> Tensor:
        """Returns a copy of ``tensor`` from which the graph starts, to be given to the network."""
        self._maps = tensor.detach().requires_grad_()
        return self._maps.clone()  # a leaf must not be changed in place

    def recording(self) -> Recording | None:
        """What the modules before the layer gave, where that was written down."""
        return None if self.recorder is None else self.recorder.recording()

    def map(self) -> Tensor:
        """Returns the layer's output of the last call."""
        if self._maps is None:
            raise UnknownLayer(f"Layer {self.layer!r} did not run in the forward pass. Choose one that does.")
        return self._maps

    def _follow(self, output: Tensor) -> None:
        if self.layout.prefix:
            return  # a mean that takes in other tokens than the picture's is no mean over positions
        self.tape.spatial = self.layout.positions(output.ndim)
        self.tape.follow(output)
        if self.calls == (self.at or 1):
            self._recording.enter_context(self.tape)

    def _look(self, output: Any) -> bool:
        """Says whether this call counts."""
        self.calls += 1
        if self.at is not None and self.calls != self.at:
            return False
        self.failed = None
        try:
            self.layout, self.warnings[:] = read_layout(output, self.inputs, self.layer, self.tokens)
        except NoSpatialOutput as error:  # another call may be the one that counts
            self.failed = error
        return self.failed is None

    def check(self) -> None:
        """Raises what was wrong with the call that counts."""
        if self.failed is not None:
            raise self.failed


def _checkpointing() -> bool:
    """Says whether what runs now was called by torch.utils.checkpoint."""
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
        if frame.f_globals.get("__name__") == "torch.utils.checkpoint":
            return True
    return False


def several(name: str, calls: list[Seen], at: int) -> list[str]:
    """What is said of a layer that ran several times."""
    ran = f"Layer {name!r} ran {len(calls)} times in a pass; "
    live = [c for c in calls if c.live]
    if len(live) > 1 and not any(c.carries for c in live):
        beside = "the picture reaches the scores through several of them beside each other, and only output "
        return [f"{ran}{beside}{at} is explained. Choose a layer after they have come together."]
    return [f"{ran}its last output is explained." if at == len(calls) else f"{ran}output {at} is explained, the last "
            "one through which the picture reaches the scores."]  # fmt: skip
