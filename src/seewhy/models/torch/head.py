"""Runs the rest of a torch network from given feature maps: the cut graph where it is right, else the whole network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from seewhy.errors import out_of_memory
from seewhy.models import Features
from seewhy.models.layout import Layout
from seewhy.models.torch.cutting import Cut, cut
from seewhy.models.torch.detectors import Candidates
from seewhy.models.torch.state import hooked
from seewhy.models.turns import running
from seewhy.types import Outputs

__all__ = ["Head"]


@dataclass(eq=False)
class Head:
    """What follows a layer, made ready at the first use and kept for one call.

    Attributes:
        network: in evaluation mode.
        kwargs: the forward's further arguments; None where no cut is to be tried.
        run: one forward pass of the whole network: (images, which image each is a copy of).
        read: (the network's output, number of images) -> outputs.
        count: told how many images the trunk was run on.
        layout: how the layer's output lies in the picture.
        calls: how often the layer ran in one pass; the last call counts.
        prefix: (N, P, C) the tokens before those of the picture, where the layer gives tokens.
    """

    network: nn.Module
    kwargs: dict[str, Any] | None
    run: Callable[[Tensor, Tensor], Any]
    read: Callable[[Any, int], Outputs]
    count: Callable[[int], None]
    layout: Layout
    calls: int
    prefix: Tensor | None = None
    _cut: Cut | None = field(default=None, init=False)
    _rest: tuple[Any, ...] = field(default=(), init=False)
    _ready: bool = field(default=False, init=False)

    def __call__(self, features: Features, maps: Tensor, rows: Tensor) -> Outputs:
        """The outputs for ``maps`` (R, C, h, w), row r in the place of image ``rows[r]``'s own map."""
        if not self._ready:
            self._prepare(features)
        own = self._own(maps, rows, features.keep)
        if self._cut is None:
            return self._whole(features, own, rows)
        with running(self.network):
            return self.read(self._cut.run(own, rows, self._rest), len(own))

    def _own(self, maps: Tensor, rows: Tensor, keep: bool) -> Tensor:
        first = None if self.prefix is None else self.prefix[rows] * (1 if keep else 0)
        return self.layout.to_output(maps, first)

    def _prepare(self, features: Features) -> None:
        self._ready = True
        own = self._own(features.maps, torch.arange(len(features.maps), device=features.maps.device), True)
        shape, found = tuple(own.shape[1:]), None
        # The graphs of detectors depend on what they find, and trying takes long.
        if self.kwargs is not None and not isinstance(self.network, Candidates):
            found = cut(self.network, features.inputs, self.kwargs, features.layer, shape)
        if found is not None and self._agrees(found, features, own):
            self._cut = found
            return
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
        wanted = features.outputs.scores[rows]
        tolerance = 1e-4 if own.dtype in (torch.float32, torch.float64) else 2e-2
        return bool((again.scores - wanted).abs().amax() <= tolerance * wanted.abs().amax().clamp_min(1e-6))

    def _whole(self, features: Features, own: Tensor, rows: Tensor) -> Outputs:
        calls = 0

        def put(_module: nn.Module, _args: Any, _output: Any) -> Tensor | None:
            nonlocal calls
            calls += 1
            return own.clone() if calls == self.calls else None  # the network may change it in place

        with hooked(self.network, features.layer, put):
            return self.read(self.run(features.inputs.index_select(0, rows), rows), len(own))
