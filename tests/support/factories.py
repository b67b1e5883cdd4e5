"""Factories of models for "module:name", which tell when they were called."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

made: list[str] = []


def recorded() -> Callable[[Tensor], Tensor]:
    """Three scores: the means of the channels."""
    made.append("recorded")
    return lambda images: images.mean((2, 3))
