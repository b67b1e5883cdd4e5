"""Adapters: objects of other libraries as models. A file is one library, and is called as the library is imported.

An object is recognised by the modules of its classes: of a class of ``torchvision.models.detection`` that extends one
of ``torch.nn``, the adapter ``torchvision`` is asked first and ``torch`` afterwards. So no adapter is imported by
anybody who does not use its library. Packages outside add theirs under the entry point group ``seewhy.adapters``; the
entry point is called as the library is.
"""

from __future__ import annotations

from typing import Any, Protocol

from torch import nn

from seewhy import registry
from seewhy.errors import InvalidType
from seewhy.models import Model
from seewhy.models.function import FunctionModel

__all__ = ["Adapter", "adapted", "as_model", "unwrapped"]


class Adapter(Protocol):
    """Knows the objects of one library."""

    def __call__(self, network: Any) -> Model | None:
        """Returns the object as a model; None where it is none that this adapter knows."""
        ...


def adapted(network: Any) -> Model | None:
    """Returns the object as a model; None where no adapter knows it.

    What torch has compiled or spread over devices is asked about first without that: another library may know it.
    """
    inner = unwrapped(network)
    if inner is not network and (model := _known(inner, without="torch")) is not None:
        return model
    return _known(network)


def unwrapped(network: Any) -> Any:
    """Returns the object within torch.compile's wrapper, DataParallel and DistributedDataParallel."""
    while True:
        made_in = type(network).__module__
        name = "_orig_mod" if made_in.startswith("torch._dynamo") else "module"
        if not made_in.startswith(("torch._dynamo", "torch.nn.parallel")) or not hasattr(network, name):
            return network
        network = getattr(network, name)


def _known(network: Any, without: str = "") -> Model | None:
    known = registry.names("adapters")
    for library in dict.fromkeys(cls.__module__.partition(".")[0] for cls in type(network).__mro__):
        if library in known and library != without:
            adapter: Adapter = registry.load("adapters", library)()
            if (model := adapter(network)) is not None:
                return model
    return None


def as_model(network: Any) -> Model:
    """Returns a seewhy model for whatever the caller has: a torch module, a callable (N,C,H,W) -> (N,K), or a model.

    Raises:
        InvalidType: for anything else.
    """
    plain = isinstance(network, nn.Module) and not hasattr(type(network), "opened")  # to ask a module for what it
    if not plain and isinstance(network, Model):  # does not have takes long
        return network
    if (found := adapted(network)) is not None:
        return found
    if callable(network):
        return FunctionModel(network)
    raise InvalidType(
        "A network is a torch.nn.Module, a seewhy model or a callable (N,C,H,W) -> (N,K), got "
        f"{type(network).__name__}."
    )
