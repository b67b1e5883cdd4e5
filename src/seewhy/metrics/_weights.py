"""What MPRT and TrustGrade share: a network's layers in the order in which they run, and random weights in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.jit import ScriptModule

from seewhy.errors import InvalidInput, MissingCapability
from seewhy.metrics import Case
from seewhy.models.torch.state import on

__all__ = ["layers_of", "randomised"]


def layers_of(case: Case, who: str) -> list[list[Tensor]]:
    """Returns the weights of each layer, the one that runs last first; what two layers share belongs to the later one.

    Args:
        case: whose model.
        who: asks, for the message where there are none.

    Raises:
        MissingCapability: the network shows no weights.
        InvalidInput: it has none that could be replaced.
    """
    module = getattr(case.model, "module", None)
    if not isinstance(module, nn.Module) or any(isinstance(part, ScriptModule) for part in module.modules()):
        raise MissingCapability(
            f"{who} gives the layers of a torch module random weights, and {case.model.name!r} shows none. Load the "
            "network in torch: a callable, a TorchScript and another backend's file hide theirs."
        )
    ran = _order(case, module)
    place: dict[Tensor, int] = {}
    for name, weight in module.named_parameters(remove_duplicate=False):
        owner = name.rpartition(".")[0]
        while owner and owner not in ran:
            owner = owner.rpartition(".")[0]
        if weight.dtype.is_floating_point and bool(weight.min() < weight.max()):
            place[weight] = max(place.get(weight, 0), ran.get(owner, 0))
    if not place:
        raise InvalidInput(f"{who} gives the network random weights, and {case.model.name!r} has none to replace.")
    return [[w for w, at in place.items() if at == number] for number in sorted(set(place.values()), reverse=True)]


def _order(case: Case, module: nn.Module) -> dict[str, int]:
    """Name -> number of each module in the order in which they begin to run."""
    ran: dict[str, int] = {}

    def noting(name: str) -> Callable[..., None]:
        def note(*_: Any) -> None:
            ran.setdefault(name, len(ran))

        return note

    with ExitStack() as stack:
        for name, part in module.named_modules():
            stack.enter_context(on(part, before=noting(name)))
        case.model(case.image.unsqueeze(0))
    return ran


@contextmanager
def randomised(weights: list[Tensor], seed: int) -> Iterator[None]:
    """Random weights for the time of the block; then the old ones, also on errors."""
    generator = torch.Generator("cpu").manual_seed(seed)
    kept = [weight.detach().clone() for weight in weights]
    try:
        for weight, old in zip(weights, kept, strict=True):
            _write(weight, _like(old.float(), generator))
        yield
    finally:
        try:
            _write_all(weights, kept)
        except BaseException:  # interrupted: what is put back twice is still put back
            _write_all(weights, kept)
            raise


def _write_all(weights: list[Tensor], values: list[Tensor]) -> None:
    for weight, value in zip(weights, values, strict=True):
        _write(weight, value)


def _like(old: Tensor, generator: torch.Generator) -> Tensor:
    drawn = torch.randn(old.shape, generator=generator, dtype=torch.float32, device="cpu").to(old.device)
    return old.mean() + old.std(correction=0) * drawn


def _write(weight: Tensor, values: Tensor) -> None:
    weight.data.copy_(values)  # through .data a graph of the user's stays valid, and inference tensors can be written
