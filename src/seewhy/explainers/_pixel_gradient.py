"""What the methods that differentiate with respect to the input's pixels have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from seewhy.attribution import Attribution, about_all
from seewhy.checks import check_choice
from seewhy.explainers import Explainer
from seewhy.models import GradientModel, Gradients
from seewhy.plain import Meaning
from seewhy.targets import Request, TargetSet
from seewhy.types import Note

__all__ = ["PixelGradient", "Reduce", "check_reduce", "lost", "pick", "underflow"]

Reduce = Literal["max_abs", "sum", "mean_abs"]
_REDUCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "max_abs": lambda g: g.abs().amax(1),
    "sum": lambda g: g.sum(1),
    "mean_abs": lambda g: g.abs().mean(1),
}


def check_reduce(reduce: Any) -> None:
    """Raises InvalidInput unless ``reduce`` names a way to reduce the channels."""
    check_choice("reduce", reduce, tuple(_REDUCTIONS))


def pick(request: Request, chosen: list[TargetSet]) -> Callable[[Any], Tensor]:
    """Outputs -> (N, T) values to differentiate; the resolved targets are put into ``chosen``."""

    def values(outputs: Any) -> Tensor:
        chosen[:] = [request.resolve(outputs)]
        return chosen[0].values(outputs)

    return values


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class PixelGradient(Explainer):
    """The gradient of each target with respect to the pixels: one forward pass, one backward pass a target.

    Attributes:
        reduce: how the channels become one map: "max_abs", "sum" or "mean_abs".
    """

    reduce: Reduce = "max_abs"

    needs: ClassVar[type] = GradientModel
    pixelwise: ClassVar[bool] = True
    volumes: ClassVar[bool] = True
    values: ClassVar[Meaning] = "slope"

    def __post_init__(self) -> None:
        check_reduce(self.reduce)

    def _prepare(self, found: Gradients) -> list[Note]:
        """Called before anything is differentiated."""
        return []

    def _told(self, gradient: Tensor, inputs: Tensor) -> Tensor:
        """(N, C, H, W): what is reduced, from the gradient of one target."""
        return gradient

    def _explain(self, model: GradientModel, inputs: Tensor, request: Request) -> Attribution:
        chosen: list[TargetSet] = []
        gradients = model.gradients(inputs, pick(request, chosen), "")
        notes = [*about_all(gradients.warnings), *self._prepare(gradients)]
        maps, share = [], 0.0
        for t in range(chosen[0].count):
            gradient = gradients.of(t)
            share = max(share, lost(gradient, inputs))
            maps.append(_REDUCTIONS[self.reduce](self._told(gradient, inputs)))
        notes += underflow(share)
        return Attribution(raw=torch.stack(maps, 1), outputs=gradients.outputs, targets=chosen[0], notes=tuple(notes))


def lost(gradient: Tensor, inputs: Tensor) -> float:
    """Returns the share of a float16 gradient that is exactly zero; 0 for other types, which do not underflow."""
    return float((gradient == 0).float().mean()) if inputs.dtype == torch.float16 else 0.0


def underflow(share: float) -> list[Note]:
    """Returns a note where much of a gradient is exactly zero."""
    if share < 0.2:
        return []
    text = f"{share:.0%} of the gradient is exactly zero in float16. Use a float32 or bfloat16 network to be sure."
    return [Note(text=text, kind="underflow")]
