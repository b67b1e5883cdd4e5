"""What the network says of changed copies of an image, remembered while the image's maps are judged.

Curves begin and end with the same two copies, and maps that rank pixels alike (GradCAM and ReciproCAM of a pooled head,
a method that gives every class one map) ask for the same copies all along: each is run once. A copy is known by a
digest of all that it is made of; nothing is known after the block.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from seewhy.models import Model
from seewhy.types import Outputs

__all__ = ["Name", "ask", "copies", "remembering"]

Name = Callable[[int], tuple[Any, ...]]
"""Number of a change -> what the changed copy is made of."""

_MOST = 2**22  # numbers that are remembered: 16 MB
_here = threading.local()


@dataclass(eq=False)
class _Memory:
    """Answers by model and name of the copy.

    Attributes:
        rows: (Q, K) scores.
        models: keep their identities from being given to others.
        about: what is the same for all answers of a model.
    """

    rows: dict[tuple[Any, ...], Tensor] = field(default_factory=dict)
    models: dict[int, Model] = field(default_factory=dict)
    about: dict[int, Outputs] = field(default_factory=dict)

    def keep(self, model: Model, keys: Sequence[tuple[Any, ...]], outputs: Outputs) -> None:
        """Keeps the answers of a classifier; boxes and masks go with theirs alone."""
        parts = (outputs.boxes, outputs.masks, outputs.dense, outputs.grids, outputs.objectness, outputs.dropped)
        if any(part is not None for part in parts) or len(self.rows) * outputs.scores[0].numel() > _MOST:
            return
        self.models[id(model)], self.about[id(model)] = model, outputs
        self.rows |= dict(zip(keys, outputs.scores, strict=True))


@contextmanager
def remembering() -> Iterator[None]:
    """Remembers answers for the time of a block in which maps of one image are judged.

    The network must not be changed in it. Threads remember their own.

    Example:
        >>> from seewhy import ActivationMap
        >>> from seewhy.metrics import DeletionAUC, remembering
        >>> with remembering():  # the second class has the same map, so that nothing is run for it
        ...     one, two = (DeletionAUC().evaluate(ActivationMap(network), inputs[:1], c) for c in (1, 2))
    """
    before = getattr(_here, "memory", None)
    _here.memory = _Memory()
    try:
        yield
    finally:
        _here.memory = before


def copies(start: Tensor, end: Tensor, group: Tensor, together: bool) -> Name | None:
    """Returns the names of the copies between two images (C, H, W); None where nothing is remembered.

    Args:
        start: copy 0.
        end: of which copies have more and more.
        group: (H, W) of each pixel the number of the copy from which on it is the end's.
        together: otherwise that of the only copy in which it is.
    """
    if getattr(_here, "memory", None) is None:
        return None
    first, last, curve, count = _digest(start), _digest(end), _digest(start, end, group), int(group.max())

    def name(k: int) -> tuple[Any, ...]:
        if k == 0:
            return (first,)
        return (last,) if together and k == count else (curve, together, k)

    return name


def _digest(*parts: Tensor) -> bytes:
    found = hashlib.sha256()
    for part in parts:
        found.update(repr((tuple(part.shape), part.dtype)).encode())
        found.update(part.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return found.digest()


def ask(model: Model, change: Callable[[Tensor], Tensor], numbers: Tensor, name: Name | None) -> Outputs:
    """What the model says of changed copies, of which those are run that were not run in this block.

    Args:
        model: gives scores.
        change: numbers of changes (R,) -> changed images (R, C, H, W).
        numbers: (R,).
        name: of each copy; None where copies are not remembered.
    """
    memory: _Memory | None = getattr(_here, "memory", None)
    if memory is None or name is None:
        return model(change(numbers))
    keys = [(id(model), *name(k)) for k in numbers.tolist()]
    known = {key: memory.rows[key] for key in keys if key in memory.rows}
    new = [i for i, key in enumerate(keys) if key not in known]
    if new:
        outputs = model(change(numbers[new]))
        memory.keep(model, [keys[i] for i in new], outputs)
        if not known:
            return outputs
        known |= dict(zip([keys[i] for i in new], outputs.scores, strict=True))
    return replace(memory.about[id(model)], scores=torch.stack([known[key] for key in keys]))
