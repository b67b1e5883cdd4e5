"""Passes of a torch network that several explainers share; see `seewhy.models.sharing`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from seewhy.models import Features
from seewhy.models.sharing import Kept, Signature, kept
from seewhy.models.torch.parts import tensors
from seewhy.models.torch.state import frozen
from seewhy.models.turns import alone
from seewhy.types import Outputs, Passes

__all__ = ["Block", "signature"]


def signature(module: nn.Module, *about: Any) -> Signature:
    """What a pass depends on besides the images.

    Args:
        module: in evaluation mode.
        about: what makes its answer the model's.
    """
    half = [(kind, torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in ("cpu", "cuda")]
    versions = [(id(t), t._version) for t in tensors(module) if not t.is_inference()]
    return module, *about, half, versions


class Block:
    """What a pass that is differentiated shares with others; nothing outside of a block, and at the input itself.

    Args:
        module: the network.
        signature: gives that of the model; None where nothing is shared.
        passes: counts images whose pass was another's.
        inputs: (N, C, H, W).
        layer: a module's name, or "".
    """

    def __init__(
        self, module: nn.Module, signature: Callable[[], Signature | None], passes: Passes, inputs: Tensor, layer: str
    ) -> None:  # fmt: skip
        self.module, self.passes, self.inputs, self.layer = module, passes, inputs, layer
        self.kept: Kept | None = kept() if layer else None
        self.signature = None if self.kept is None else signature()

    @property
    def open(self) -> bool:
        """Whether passes are shared."""
        return self.signature is not None

    def again(self, pick: Callable[[Outputs], Tensor]) -> tuple[Features, Tensor, Tensor] | None:
        """A pass that was made, its maps as the leaf of a graph, and the values (N, T); None where that takes a pass.

        Args:
            pick: outputs -> the values.
        """
        if self.kept is None or self.signature is None:
            return None
        known = self.kept.get(self.signature, self.inputs, self.layer)
        if known is None or known.outputs.boxes is not None or known.outputs.masks is not None:
            return None  # a graph would have to lead to the boxes, too
        with alone(self.module), torch.enable_grad(), frozen(self.module):
            leaf = known.maps.detach().requires_grad_()
            scores = known.state.scores(known, leaf)
            values = None if scores is None else pick(replace(known.outputs, scores=scores))
        if values is None or not values.requires_grad:
            return None
        self.passes.shared += len(leaf)
        return known, leaf, values

    def keep(self, make: Callable[[], Features]) -> None:
        """Keeps a pass."""
        if self.kept is not None and self.signature is not None:
            self.kept.put(self.signature, make())
