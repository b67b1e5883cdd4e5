"""Any callable (N, C, H, W) -> (N, K): a black box that gives scores and nothing else.

Takes other frameworks' models behind a small function (``lambda x: torch.from_numpy(other(x.numpy()))``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seewhy.errors import InputRefused, SeewhyError, out_of_memory
from seewhy.models.reading import Selector, check_size, to_outputs
from seewhy.models.torch.state import kept_random
from seewhy.models.turns import running, using
from seewhy.types import Outputs, Passes

__all__ = ["FunctionModel"]


@dataclass(frozen=True, eq=False)
class FunctionModel:
    """A callable as a model.

    Attributes:
        function: (N, C, H, W) float tensor -> (N, K) tensor or array, or an ``Outputs``.
        output: where the scores are in what it returns (a name, an index, a callable), if that is not obvious.
        labels: class names.
        preprocessing: how a picture becomes its input.

    Example:
        >>> model = FunctionModel(lambda inputs: inputs.mean((2, 3)), labels=("red", "green", "blue"))
        >>> model(inputs).classes.shape
        torch.Size([2, 3])
    """

    function: Callable[[Tensor], Any]
    output: Selector = field(default=None, kw_only=True)
    labels: tuple[str, ...] | None = field(default=None, kw_only=True, repr=False)
    preprocessing: Any = field(default=None, kw_only=True)
    passes: Passes = field(default_factory=Passes, kw_only=True, repr=False)

    @property
    def name(self) -> str:
        """The function's own name."""
        return getattr(self.function, "__name__", type(self.function).__name__)

    @contextmanager
    def opened(self) -> Iterator[None]:
        """No gradients; the global random state is put back. What else the callable changes is its own affair.

        Where it cannot be read from the callable's code that calls may go side by side, threads wait for each other.
        """
        with using(self.function), kept_random(()), torch.no_grad():
            yield

    def check(self, inputs: Tensor) -> None:
        """A callable may take any type and device; its output may be read for inputs of one size only."""
        check_size(inputs, self.output)

    def __call__(self, inputs: Tensor) -> Outputs:
        """One call of the function."""
        try:
            with running(self.function):
                raw = self.function(inputs.clone())  # it may change its input in place
        except (RuntimeError, ValueError, IndexError, AssertionError, TypeError) as error:
            if isinstance(error, SeewhyError) or out_of_memory(error):
                raise
            raise InputRefused(f"{self.name} raised on an input of shape {tuple(inputs.shape)}: {error}") from error
        self.passes.forward += inputs.shape[0]
        if isinstance(raw, np.ndarray):
            raw = torch.from_numpy(raw).to(inputs.device)
        return to_outputs(raw, inputs.shape[0], self.output, self.labels)
