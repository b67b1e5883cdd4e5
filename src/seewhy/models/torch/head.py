"""Runs the rest of a torch network from given feature maps: what follows the layer alone, else the whole network.

What follows is replayed with what the modules before the layer gave in the pass (see `replay`); where a network cannot
be replayed it is exported and its graph cut (see `cutting`). Either must say of the pass's own maps what the pass said,
in every call again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seewhy.errors import BadOutput, out_of_memory
from seewhy.models import Features, PooledLinear
from seewhy.models.layout import Layout
from seewhy.models.torch.ablated import Ablated
from seewhy.models.torch.cutting import Cut, cut
from seewhy.models.torch.detectors import Candidates
from seewhy.models.torch.replay import Plan, Recorder, Recording, Unfit, discover, replay, slim
from seewhy.models.torch.state import hooked
from seewhy.models.turns import alone, running
from seewhy.types import Outputs

__all__ = ["WRITTEN", "Head", "Memory"]

WRITTEN = 8  # the most images of whose pass everything is written down: of a ResNet-50 that is 13 MB each
_OTHERWISE = (RuntimeError, ValueError, IndexError, TypeError, AttributeError, KeyError, Unfit, BadOutput)
_NEAR = 1e-5  # of the largest score
_TRIED = 2  # images with which it is found out how a network is replayed, where there are more


@dataclass(eq=False)
class Memory:
    """What is known of what follows the layers of a network, for one size of input.

    Attributes:
        plans: by layer and call how it is replayed; None where it cannot be.
        closed: layers after which a mean and a matrix follow, so that nothing has to be replayed.
        idle: layers whose pass was written down in vain.
    """

    plans: dict[tuple[str, int], Plan | None] = field(default_factory=dict)
    closed: set[str] = field(default_factory=set)
    idle: set[str] = field(default_factory=set)

    def recorder(self, network: nn.Module, layer: str, inputs: Tensor, at: int | None) -> Recorder | None:
        """What writes a pass down, where that will be of use and does not take much memory."""
        known = [key for key in self.plans if key[0] == layer and at in (None, key[1])]
        plan = self.plans[known[0]] if known else None
        if layer in self.closed or (plan is None and (known or layer in self.idle or len(inputs) > WRITTEN)):
            return None
        if plan is None:
            self.idle.add(layer)
        return Recorder(network, layer, inputs, at, plan)


@dataclass(eq=False)
class Head:
    """What follows a layer, made ready at the first use and kept for one call.

    Attributes:
        network: in evaluation mode.
        kwargs: the forward's further arguments; None where no graph is to be tried.
        run: one forward pass of the whole network: (images, which image each is a copy of).
        read: (the network's output, number of images) -> outputs.
        count: told how many images the trunk was run on.
        layout: how the layer's output lies in the picture.
        calls: which call of the layer in one pass counts.
        again: as ``run``, for replays: no picture is copied and none is counted.
        memory: of the network.
        recording: of the pass that gave the maps, where it was written down.
        prefix: (N, P, C) the tokens before those of the picture, where the layer gives tokens.
    """

    network: nn.Module
    kwargs: dict[str, Any] | None
    run: Callable[[Tensor, Tensor], Any]
    read: Callable[[Any, int], Outputs]
    count: Callable[[int], None]
    layout: Layout
    calls: int
    again: Callable[[Tensor, Tensor], Any]
    memory: Memory
    recording: Recording | None = None
    prefix: Tensor | None = None
    _plan: Plan | None = field(default=None, init=False)
    _cut: Cut | None = field(default=None, init=False)
    _rest: tuple[Any, ...] = field(default=(), init=False)
    _ready: bool = field(default=False, init=False)
    _sure: bool = field(default=False, init=False)
    _linear: bool | None = field(default=None, init=False)
    _known: dict[int, Any] = field(default_factory=dict, init=False)

    def __call__(self, features: Features, maps: Tensor, rows: Tensor) -> Outputs:
        """Returns the outputs for ``maps`` (R, C, h, w), row r in the place of image ``rows[r]``'s own map."""
        if not self._ready:
            self._prepare(features)
        own = self._own(maps, rows, features.keep)
        if self._plan is not None and (found := self._replayed(features, own, rows)) is not None:
            return found
        if self._cut is None:
            return self._whole(features, own, rows)
        with running(self.network):
            return self.read(self._cut.run(own, rows, self._rest), len(own))

    def without(self, features: Features, rows: Tensor, channels: Tensor) -> Outputs:
        """The outputs with channel ``channels[r]`` of image ``rows[r]``'s maps set to 0; linear operations run once."""
        if not self._ready:
            self._prepare(features)
        lazy = self.layout.kind == "first" and self._plan is not None and not self._plan.spoils
        if lazy and self._linear is None:
            self._linear = self._begins_linearly(features, rows[:_TRIED], channels[:_TRIED])
        maps = Ablated.of(features.maps, rows, channels, self._known)
        if lazy and self._linear:
            return self._replay(features.layer, maps, rows)
        return self(features, maps.written(), rows)

    def _begins_linearly(self, features: Features, rows: Tensor, channels: Tensor) -> bool:
        """Says whether stand-ins for changed maps are taken, and give what the maps themselves give."""
        maps = Ablated.of(features.maps, rows, channels, self._known)
        wanted = self(features, maps.written(), rows).scores
        if self._plan is None:
            return False
        try:
            found = self._replay(features.layer, maps, rows).scores
        except _OTHERWISE as error:
            if out_of_memory(error):
                raise
            return False
        near = _NEAR * wanted.abs().amax().clamp_min(1e-30)
        return found.shape == wanted.shape and bool((found - wanted).abs().amax() <= near)

    def anew(self) -> Head:
        """The same, to be made ready once more."""
        return replace(self)

    def scores(self, features: Features, maps: Tensor) -> Tensor | None:
        """The scores (N, Q, K) of the pass, in a graph that begins at its own maps (N, C, h, w); None: it takes a pass.

        Their values are those of the pass, to the last bit: what follows the layer is run for the graph alone.
        """
        if features.linear is not None and len(features.linear.weight) == features.outputs.scores.shape[2]:
            again = _pooled(features.linear, maps).view_as(features.outputs.scores)
        else:
            found = self._graph(features, maps)
            if found is None:
                return None
            again = found
        difference = again - again.detach()
        return features.outputs.scores + difference if bool(torch.isfinite(again).all()) else None

    def _graph(self, features: Features, maps: Tensor) -> Tensor | None:
        rows = torch.arange(len(maps), device=maps.device)
        self._plan = self._planned(features, self._given(features))
        if self._plan is None:
            return None
        try:
            found = self._replay(features.layer, self._own(maps, rows, True), rows)
            return found.scores if self._same(found, features, rows) else None
        except _OTHERWISE as error:
            if out_of_memory(error):
                raise
            return None

    def _own(self, maps: Tensor, rows: Tensor, keep: bool) -> Tensor:
        first = None if self.prefix is None else self.prefix[rows] * (1 if keep else 0)
        return self.layout.to_output(maps, first)

    def _given(self, features: Features) -> Tensor:
        """What the layer gave in the pass."""
        return self._own(features.maps, torch.arange(len(features.maps), device=features.maps.device), True)

    def _prepare(self, features: Features) -> None:
        self._ready = True
        own = self._given(features)
        self._plan = self._planned(features, own)
        if self._plan is None:
            self._export(features, own)

    def _planned(self, features: Features, own: Tensor) -> Plan | None:
        """How the network is replayed, with a recording of all images."""
        key = (features.layer, self.calls)
        if key not in self.memory.plans:
            self.memory.plans[key] = self._discovered(features, own)
            self.memory.idle.discard(features.layer)
        plan = self.memory.plans[key]
        if plan is None:
            return None
        if self.recording is None or not self.recording.serves(plan, features.inputs):
            self.recording = self._recorded(features, features.inputs, plan)
        if self.recording is None or not self.recording.serves(plan, features.inputs):
            return None
        self.recording = slim(self.recording, plan, features.inputs)
        return plan

    def _discovered(self, features: Features, own: Tensor) -> Plan | None:
        """Found out with the pass itself, or with one more of a few images."""
        if self.recording is None:
            self.recording = self._recorded(features, features.inputs[:_TRIED], None)
        if self.recording is None:
            return None
        n = self.recording.n
        rows = torch.cat([torch.arange(n), torch.zeros(2, dtype=torch.long)]).to(own.device)
        recording = self.recording

        def right(raw: Any) -> bool:
            return self._same(self.read(raw, len(rows)), features, rows)

        with alone(self.network):
            return discover(self.network, features.layer, recording, own[rows], rows, self._again, right)

    def _recorded(self, features: Features, images: Tensor, plan: Plan | None) -> Recording | None:
        """One more pass, written down."""
        with alone(self.network), Recorder(self.network, features.layer, images, self.calls, plan) as recorder:
            self.run(images, torch.arange(len(images), device=images.device))
        return recorder.recording()

    def _again(self, images: Tensor, rows: Tensor) -> Any:
        with running(self.network):
            return self.again(images, rows)

    def _replayed(self, features: Features, own: Tensor, rows: Tensor) -> Outputs | None:
        """The outputs; None where what is said of the pass's own maps, looked at once, is not what the pass said."""
        try:
            if not self._sure:
                all_rows = torch.arange(len(features.maps), device=rows.device)
                again = self._replay(features.layer, self._given(features), all_rows)
                self._sure = self._same(again, features, all_rows)
            found = self._replay(features.layer, own, rows) if self._sure else None
        except _OTHERWISE as error:
            if out_of_memory(error):
                raise
            found = None
        if found is None:  # it goes another way than it did: from here on the whole of it is run
            self._plan = self.recording = None
            self._warn(features)
        return found

    def _replay(self, layer: str, own: Tensor, rows: Tensor) -> Outputs:
        assert self._plan is not None
        assert self.recording is not None
        with alone(self.network):
            raw = replay(self.network, layer, self.recording, self._plan, own, rows, self._again)
            return self.read(raw, len(own))

    def _export(self, features: Features, own: Tensor) -> None:
        shape, found = tuple(own.shape[1:]), None
        # The graphs of detectors depend on what they find, and trying takes long.
        if self.kwargs is not None and not isinstance(self.network, Candidates):
            found = cut(self.network, features.inputs, self.kwargs, features.layer, shape)
        if found is not None and self._agrees(found, features, own):
            self._cut = found
            return
        self._warn(features)

    def _warn(self, features: Features) -> None:
        features.warnings.append(
            f"The network could not be cut at layer {features.layer!r}; the whole network was run for each change."
        )

    def _agrees(self, found: Cut, features: Features, own: Tensor) -> bool:
        """The cut must reproduce the outputs of the pass that gave the maps: an export may have fixed a branch."""
        with running(self.network):
            self._rest = found.rest(features.inputs)
        self.count(len(own) if self._rest else 0)
        rows = torch.cat([torch.arange(len(own)), torch.zeros(2, dtype=torch.long)]).to(own.device)
        try:  # with two rows more than there are images, so that a batch size that the export fixed is noticed
            with running(self.network):
                again = self.read(found.run(own[rows], rows, self._rest), len(rows))
        except RuntimeError as error:
            if out_of_memory(error):
                raise
            return False
        return self._same(again, features, rows)

    def _same(self, again: Outputs, features: Features, rows: Tensor) -> bool:
        """Says whether these are the outputs of the pass."""
        wanted = features.outputs.scores[rows]
        if again.scores.shape != wanted.shape:
            return False
        tolerance = 1e-4 if features.maps.dtype in (torch.float32, torch.float64) else 2e-2
        return bool((again.scores - wanted).abs().amax() <= tolerance * wanted.abs().amax().clamp_min(1e-6))

    def _whole(self, features: Features, own: Tensor, rows: Tensor) -> Outputs:
        calls = 0

        def put(_module: nn.Module, _args: Any, _output: Any) -> Tensor | None:
            nonlocal calls
            calls += 1
            return own.clone() if calls == self.calls else None  # the network may change it in place

        with hooked(self.network, features.layer, put):
            return self.read(self.run(features.inputs.index_select(0, rows), rows), len(own))


def _pooled(linear: PooledLinear, maps: Tensor) -> Tensor:
    """(N, K): a mean over positions, and a linear layer."""
    weight, bias = linear.weight.to(maps.dtype), linear.bias
    return F.linear(maps.mean((2, 3)), weight, None if bias is None else bias.to(maps.dtype)).float()
