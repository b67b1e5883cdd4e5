"""A TorchScript network as a model: scores and gradients with respect to its input; it shows no layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from torch import Tensor

from seewhy.errors import NoSpatialOutput
from seewhy.models.torch.model import TorchModel
from seewhy.registry import instead

__all__ = ["ScriptModel"]


@dataclass(frozen=True, eq=False)
class ScriptModel(TorchModel):
    """A ``torch.jit.ScriptModule`` as a model."""

    def layers(self) -> list[str]:
        """Returns no layers: torch does not let anybody look into a script."""
        return []

    def detects(self, inputs: Tensor) -> bool:
        """Says whether its outputs have boxes."""
        return callable(self.output) and self(inputs[:1]).boxes is not None

    def look(self, inputs: Tensor) -> NoReturn:
        """Raises NoSpatialOutput: a script has no layers to look at."""
        raise NoSpatialOutput(
            f"{self.name} is TorchScript, which shows no layers. Use a method that looks at none, such as "
            f"{instead('scores')}, or load the network that it was made from."
        )

    def _watched(self, inputs: Tensor, name: str, hook: Callable[..., Any], recorder: Any = None) -> NoReturn:
        self.look(inputs)
