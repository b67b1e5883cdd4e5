"""One pass for several explainers: what layers gave for a batch is kept for the time of a block.

    with sharing():
        GradCAM(network)(inputs)
        ReciproCAM(network)(inputs)     # the pass that GradCAM made
        LayerCAM(network)(inputs)       # the same; only what follows the layer is run for its gradient

A pass is another's where model, layer, parameters and images are the same; images are compared, number by number. What
is kept is of one batch, of at most two layers, and of this thread: another batch takes its place.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from seewhy.models import Features
from seewhy.types import Passes

__all__ = ["Kept", "Signature", "kept", "shared", "sharing"]

_LAYERS = 2  # a transformer's methods use two

Signature = tuple[Any, ...]
"""What a pass depends on besides the images; compared part by part."""


@dataclass(eq=False)
class Kept:
    """The passes of the last batch.

    Attributes:
        found: signature, versions of what must not be changed, and what the pass gave; the latest last.
    """

    found: list[tuple[Signature, list[int], Features]] = field(default_factory=list)

    def get(self, signature: Signature, inputs: Tensor, layer: str) -> Features | None:
        """What a pass gave for this layer and these images (N, C, H, W), with warnings of its own; None: there is none.

        Args:
            signature: of the model.
            inputs: the batch.
            layer: a module's name.
        """
        for known, versions, one in self.found:
            meant = one.layer == layer and known == signature and _equal(one.inputs, inputs)
            if meant and versions == _versions(one):
                anew = getattr(one.state, "anew", None)  # what it says when it is made ready is said to each
                state = anew() if callable(anew) else one.state
                return replace(one, warnings=list(one.warnings), state=state)
        return None

    def put(self, signature: Signature, features: Features) -> None:
        """Keeps what a pass gave, and nothing of other images."""
        others = [kept for kept in self.found if _equal(kept[2].inputs, features.inputs)]
        one = replace(features, warnings=list(features.warnings))
        self.found = [*others[1 - _LAYERS :], (signature, _versions(one), one)]


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and a.device == b.device and torch.equal(a, b)


def _versions(features: Features) -> list[int]:
    own = (features.inputs, features.maps, features.outputs.scores)
    return [tensor._version for tensor in own if not tensor.is_inference()]


_here = threading.local()


def kept() -> Kept | None:
    """The passes of the block around; None where there is none."""
    found: Kept | None = getattr(_here, "kept", None)
    return found


@contextmanager
def sharing() -> Iterator[None]:
    """For the time of a block, this thread's passes to a layer are made once for the same model and images.

    A block inside another has passes of its own. Parameters that are changed in place make new passes necessary, and
    are noticed; what hooks do is not looked at.

    Example:
        >>> from seewhy import ActivationMap, GradCAM
        >>> with sharing():
        ...     first = GradCAM(network, layer="act2").run(inputs).passes
        ...     second = ActivationMap(network, layer="act2").run(inputs).passes
        >>> first.forward, second.forward, second.shared
        (2, 0, 2)
    """
    before = kept()
    _here.kept = Kept()
    try:
        yield
    finally:
        _here.kept = before


def shared(
    find: Callable[[], Features], describe: Callable[[], Signature | None], inputs: Tensor, layer: str, passes: Passes
) -> Features:
    """What a pass gives, or gave in this block.

    Args:
        find: makes the pass.
        describe: gives the model's signature; None where passes are not shared.
        inputs: (N, C, H, W).
        layer: a module's name.
        passes: of the model, which count images whose pass was another's.
    """
    block = kept()
    signature = None if block is None else describe()
    if block is None or signature is None:
        return find()
    if (known := block.get(signature, inputs, layer)) is not None:
        passes.shared += len(inputs)
        return known
    found = find()
    block.put(signature, found)
    return found
