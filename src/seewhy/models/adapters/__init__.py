"""Adapters: objects of other libraries as models. A file is one library, and is called as the library is imported.

An object is recognised by the modules of its classes: of a class of ``torchvision.models.detection`` that extends one
of ``torch.nn``, the adapter ``torchvision`` is asked first and ``torch`` afterwards. So no adapter is imported by
anybody who does not use its library. Packages outside add theirs under the entry point group ``seewhy.adapters``; the
entry point is called as the library is.
"""

from __future__ import annotations

from typing import Any, Protocol

from seewhy import registry
from seewhy.models import Model

__all__ = ["Adapter", "adapted"]


class Adapter(Protocol):
    """Knows the objects of one library."""

    def __call__(self, network: Any) -> Model | None:
        """The object as a model; None where it is none that this adapter knows."""
        ...


def adapted(network: Any) -> Model | None:
    """The object as a model; None where no adapter knows it."""
    known = registry.names("adapters")
    libraries = dict.fromkeys(cls.__module__.partition(".")[0] for cls in type(network).__mro__)
    for library in libraries:
        if library in known:
            adapter: Adapter = registry.load("adapters", library)()
            if (model := adapter(network)) is not None:
                return model
    return None
