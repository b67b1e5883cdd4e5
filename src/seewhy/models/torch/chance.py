"""Random numbers in a network that is in evaluation mode: where they can be seen, and what is said of them.

Torch's own are seen among the operations of a pass. Those of numpy and Python are seen by their generators, whose state
changes, or by the code, which calls one; then two passes of the same picture show whether they matter.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from seewhy.models.torch.conduct import conduct
from seewhy.types import Outputs

__all__ = ["WAVERS", "generators", "random_numbers", "wavers"]

_DROPOUT = ("native_dropout", "dropout", "bernoulli", "feature_dropout", "alpha_dropout")
WAVERS = (
    "{name} says something else of the same picture in each pass, so this map is one of many. Torch draws no random "
    "numbers in it: look for those of numpy or Python, or for what it keeps from pass to pass."
)


class _Model(Protocol):
    def at(self, rows: Tensor) -> Any: ...


def generators() -> tuple[Any, ...]:
    """Returns the states of the generators that everybody shares, of Python and numpy."""
    name, keys, *rest = np.random.get_state(legacy=True)
    return random.getstate(), (name, np.asarray(keys).tobytes(), *rest)


def wavers(network: nn.Module, drawn: bool, known: dict[Any, bool], model: Callable[[], _Model], image: Tensor) -> bool:
    """Says whether two passes of one picture differ; they are made once, where random numbers may have been drawn.

    Args:
        network: in evaluation mode.
        drawn: whether numpy's or Python's generator was used in a pass.
        known: results of checks that are made once, by name.
        model: gives the network as a model that knows how further inputs go with pictures.
        image: (1, C, H, W).
    """
    if "wavers" not in known:
        known["wavers"] = (drawn or conduct(network).draws) and _differ(model(), image)
    return known["wavers"]


def _differ(model: _Model, image: Tensor) -> bool:
    one = model.at(torch.zeros(1, dtype=torch.long, device="cpu"))
    first: Outputs
    first, second = one(image), one(image)
    if first.scores.shape != second.scores.shape:
        return True
    size = first.scores.abs().amax().clamp_min(1e-6)
    return bool((first.scores - second.scores).abs().amax() > 1e-4 * size)


def random_numbers(name: str, operations: tuple[str, ...]) -> str:
    """What is said of a network that draws random numbers of torch's."""
    dropout = all(operation.rstrip("_") in _DROPOUT for operation in operations)
    advice = (
        "Give F.dropout training=self.training." if dropout else "Let it draw none, or the same numbers in each pass."
    )
    return (
        f"{name} draws random numbers in evaluation mode ({', '.join(operations)}): it says something else of the same "
        f"picture in each pass, so this map is one of many. {advice}"
    )
