"""A cell as a module of torch: the cell up to its last linear layer, and that layer as torch's own.

For what is trained on a classifier's features (`seewhy.OoDNet`) and wants torch's modules. The cell is not trained.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from seewhy.errors import MissingCapability
from seewhy.foreign import as_torch, to_mindspore
from seewhy.models.mindspore.library import eager, hooked, pull_back
from seewhy.models.torch.state import kept_random
from seewhy.models.turns import alone

__all__ = ["CellModule", "differentiable"]

_CLOSE = 1e-4  # of the largest score


class CellModule(nn.Module):
    """A classifier of MindSpore as a module of torch; its weights are those of the cell when this was made.

    Attributes:
        cell: (N, C, H, W) -> (N, K).
        head: its last linear layer.
        dropouts: one for each ``nn.Dropout`` of the cell, whose output goes through it.
    """

    def __init__(self, cell: Any) -> None:
        """Takes a cell whose scores are what its last ``nn.Dense`` gives.

        Raises:
            MissingCapability: it has none.
        """
        super().__init__()
        from mindspore.nn import Dense, Dropout

        parts = [part for _, part in cell.cells_and_names()]
        dense = [part for part in parts if isinstance(part, Dense)]
        drops = [part for part in parts if isinstance(part, Dropout)]
        if not dense:
            raise MissingCapability(
                f"{type(cell).__name__} has no nn.Dense, so where its features are is not known. Pass a classifier "
                "that ends in one."
            )
        self._held = [cell, dense[-1], drops]  # cells are no modules
        self.dropouts = nn.ModuleList(nn.Dropout(1 - float(one.keep_prob)) for one in drops)
        weight: Tensor = as_torch(dense[-1].weight).float()
        biased = bool(dense[-1].has_bias)
        self.head: nn.Linear = skip_init(nn.Linear, weight.shape[1], weight.shape[0], bias=biased)  # draws no numbers
        with torch.no_grad():
            self.head.weight.copy_(weight)
            if biased:
                self.head.bias.copy_(as_torch(dense[-1].bias).float())
        self.requires_grad_(False)
        self.eval()
        self._checked = False

    @property
    def cell(self) -> Any:
        """The classifier itself."""
        return self._held[0]

    def forward(self, inputs: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, K).

        Raises:
            MissingCapability: the scores are not what the last linear layer gives.
        """
        features, scores = self._run(inputs)
        found: Tensor = self.head(features)
        if not self._checked:
            if found.shape != scores.shape or float((found - scores).abs().amax()) > _CLOSE * float(
                scores.abs().amax()
            ):
                raise MissingCapability(
                    f"The scores of {type(self.cell).__name__} are not what its last nn.Dense gives, so its features "
                    "are not known. Pass the classifier without what comes after (a softmax goes to activation_fn)."
                )
            self._checked = True
        return found

    def _run(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        given: list[Any] = []
        cell, dense, drops = self._held

        def enter(_cell: Any, args: Any) -> None:
            given.append(args[0])

        with ExitStack() as stack:
            for context in (alone(cell), kept_random(()), eager(cell)):
                stack.enter_context(context)
            for one, ours in zip(drops, self.dropouts, strict=True):
                stack.enter_context(hooked(one, partial(_through, ours)))
            stack.callback(dense.register_forward_pre_hook(enter).remove)
            scores = as_torch(cell(to_mindspore(inputs)))
        return as_torch(given[-1]).float(), scores.float()

    def __repr__(self) -> str:
        """Says in one line what it is."""
        return f"CellModule({type(self.cell).__name__})"


def _through(module: nn.Module, output: Any) -> Any:
    return to_mindspore(module(as_torch(output)))


def differentiable(function: Any) -> Callable[..., Tensor]:
    """Returns a cell as a function of torch's tensors that torch can differentiate by the first of them; a loss.

    What it gives an image is averaged, because a loss that is trained on is one number.
    """

    def run(first: Tensor, *others: Tensor) -> Tensor:
        found: Tensor = _Differentiable.apply(first, function, others)
        return found.mean()

    return run


class _Differentiable(torch.autograd.Function):
    """A cell in torch's graph."""

    @staticmethod
    def forward(ctx: Any, first: Tensor, function: Any, others: tuple[Tensor, ...]) -> Tensor:
        """Runs the cell, and keeps its way back."""
        rest = [to_mindspore(one) for one in others]
        found, ctx.back = pull_back(lambda given: function(given, *rest), to_mindspore(first))
        result: Tensor = as_torch(found[0])
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Returns the gradient of the first argument."""
        return as_torch(ctx.back(to_mindspore(gradients[0]))), None, None
