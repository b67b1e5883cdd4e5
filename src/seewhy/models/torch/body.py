"""A network's transformer as data: its blocks, how its tokens lie, and the network that runs them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from seewhy.models.layout import Layout
from seewhy.models.torch.anatomy import Look
from seewhy.models.torch.trace import Block
from seewhy.types import Outputs, Passes

__all__ = ["Body", "Network"]


class Network(Protocol):
    """What runs the blocks: a `TorchModel`."""

    @property
    def passes(self) -> Passes:
        """What it has cost so far."""
        ...

    @property
    def name(self) -> str:
        """What the network is called."""
        ...

    def at(self, rows: Tensor) -> Network:
        """Returns the network for copies of the images ``rows``."""
        ...

    def run(self, inputs: Tensor) -> Any:
        """One forward pass: whatever the network returns."""
        ...

    def again(self, inputs: Tensor, rows: Tensor) -> Any:
        """Returns a pass that is a replay, of copies of the images ``rows``: nothing is copied or counted."""
        ...

    def read(self, output: Any, n: int) -> Outputs:
        """What the network returned for ``n`` inputs, as outputs."""
        ...

    def look(self, inputs: Tensor) -> Look:
        """What is known about the network for this size of input."""
        ...


@dataclass(frozen=True, eq=False)
class Body:
    """A network's transformer, for one size of input.

    Attributes:
        model: the network.
        look: what is known about it.
        blocks: those with an attention from each token to each, in the order of execution.
        layout: of the tokens.
        reads: (L,) bool, which of the last block's tokens the scores depend on.
    """

    model: Network
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
