"""What is known about a network and one size of input: its automatic layer, where its tokens lie, its blocks.

Everything is looked up once, with passes of one picture or a few, and remembered as long as the network lives.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from seewhy.errors import InvalidInput, NoSpatialOutput
from seewhy.models.layout import Layout, Seen, choose_map, fingerprint, watch
from seewhy.models.tokens import locate
from seewhy.models.torch.parts import tensors
from seewhy.models.torch.trace import Trace, trace
from seewhy.models.turns import alone
from seewhy.types import Passes

__all__ = ["Anatomy", "anatomy"]

_known: WeakKeyDictionary[nn.Module, dict[Any, Anatomy]] = WeakKeyDictionary()
_ENOUGH = 0.9  # share of a layer's tokens on which the scores must depend


@dataclass(eq=False)
class Anatomy:
    """What was found out so far.

    Attributes:
        tokens: layouts by the length of the row of tokens.
        astray: why tokens of a length have no layout.
        seen: what every module gives; None before it was looked.
        traced: tokens and blocks; None before it was looked.
        auto: the automatic layer.
        active: the one for methods that look at activations alone.
        boxes: whether the outputs have boxes; None before that was seen.
        checked: results of checks that are made once, by name.
    """

    tokens: dict[int, Layout] = field(default_factory=dict)
    astray: dict[int, str] = field(default_factory=dict)
    seen: list[Seen] | None = None
    traced: Trace | None = None
    auto: str | None = None
    active: str | None = None
    boxes: bool | None = None
    checked: dict[Any, bool] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Look:
    """Looks into a network.

    Attributes:
        network: in evaluation mode.
        inputs: (N, C, H, W); the first picture is used.
        run: one forward pass.
        scores: the network's output for n pictures -> scores.
        passes: counts the pictures that went through where ``run`` could not.
        known: what is known already; it grows.
    """

    network: nn.Module
    inputs: Tensor
    run: Callable[[Tensor], Any]
    scores: Callable[[Any], Tensor]
    passes: Passes
    known: Anatomy

    def seen(self) -> list[Seen]:
        """What every module gives."""
        with alone(self.network):
            if self.known.seen is None:
                self.known.seen = watch(self.network, self.inputs[:1], self.run)
            return self.known.seen

    def traced(self) -> Trace:
        """The network's tokens and blocks.

        Raises:
            InvalidInput: torch cannot differentiate the network.
        """
        with alone(self.network):
            if self.known.traced is None:
                self.known.traced = self._trace()
            return self.known.traced

    def _trace(self) -> Trace:
        if any(t.is_inference() for t in tensors(self.network)):
            raise InvalidInput(
                "The network was made inside torch.inference_mode(), so it cannot be found out which of its "
                "tokens matter. Make or load it outside, or use RISE or Occlusion."
            )
        found = trace(self.network, self.inputs[:1], self.run, self.scores)
        self.passes.backward += 1
        return found

    def layout(self, length: int) -> Layout:
        """Where tokens of this length lie.

        Raises:
            NoSpatialOutput: not in the picture row by row.
        """
        with alone(self.network):
            if (said := self.known.astray.get(length)) is not None:
                raise NoSpatialOutput(said)
            if length not in self.known.tokens:
                self._locate(length)
            return self.known.tokens[length]

    def _locate(self, length: int) -> None:
        try:
            self.known.tokens[length] = locate(self.network, self.inputs, length, self.seen(), self.run, self.passes)
        except NoSpatialOutput as error:
            self.known.astray[length] = str(error)
            raise

    def auto_layer(self) -> str:
        """The last layer with a map; among tokens the last one whose tokens matter to the scores.

        Raises:
            NoSpatialOutput: there is none.
        """
        if self.known.auto is None:
            self.known.auto = self._choose(lambda _: True)
        return self.known.auto

    def active_layer(self) -> str:
        """The same, but no LayerNorm (whose channels have the same mean everywhere) and no layer within a block."""
        if self.known.active is None:
            norms = {name for name, m in self.network.named_modules() if "LayerNorm" in type(m).__name__}
            blocks = () if choose_map(self.seen()) else tuple(f"{b.name}." for b in self.traced().blocks)
            self.known.active = self._choose(lambda name: name not in norms and not name.startswith(blocks))
        return self.known.active

    def _choose(self, wanted: Callable[[str], bool]) -> str:
        last = choose_map(self.seen())
        if last is None and self._pooled_by_attention():
            last = [s.name for s in self.seen() if s.kind == "map"][-1]
        if last is None:
            return self._token_layer(wanted)
        return next((s.name for s in reversed(self.seen()) if s.kind == "map" and wanted(s.name)), last)

    def _pooled_by_attention(self) -> bool:
        """True where the tokens after the last map are no more than one attention that sums it up."""
        found = self.traced()
        return not found.blocks and found.attentions == 1 and any(s.kind == "map" for s in self.seen())

    def _token_layer(self, wanted: Callable[[str], bool]) -> str:
        found = self.traced()
        inner = tuple(f"{b.attention}." for b in found.blocks)
        length, width = _stream(found)
        prefix = self.layout(length).prefix
        for step in reversed(found.steps):
            if step.shape != (length, width) or step.name.startswith(inner) or not wanted(step.name):
                continue
            if int(step.matters[prefix:].sum()) >= _ENOUGH * (length - prefix):
                return step.name
        raise NoSpatialOutput(
            f"The network's scores do not depend on its tokens ({length} of them, {length - prefix} of the picture) "
            "after any of its layers. Name a layer, or use Occlusion or RISE."
        )


def _stream(found: Trace) -> tuple[int, int]:
    """(L, C) of the residual stream: that of the last block, or where there are none the most common at the end."""
    if not found.steps:
        raise NoSpatialOutput("No layer of the network has a spatial map or tokens. Use Occlusion or RISE.")
    whole = [b for b in found.blocks if b.size[0] == b.size[1]] or found.blocks  # one class token is no stream
    if whole:
        return found.step(whole[-1].name).shape
    return Counter(s.shape for s in found.steps[-12:]).most_common(1)[0][0]


def anatomy(network: nn.Module, inputs: Tensor) -> Anatomy:
    """What is known about the network for inputs of this size."""
    half = torch.is_autocast_enabled(inputs.device.type)
    key = (fingerprint(network), tuple(inputs.shape[1:]), inputs.dtype, inputs.device, half)
    return _known.setdefault(network, {}).setdefault(key, Anatomy())
