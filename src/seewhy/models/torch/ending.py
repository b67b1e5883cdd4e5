"""What a torch network's scores are, seen from the operations of one forward pass, which are written down.

What the network says about itself comes first: ``num_classes`` of timm, the name of the output and the configuration of
Hugging Face.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from seewhy.models.ending import EMBEDDINGS, Ending, likely, read
from seewhy.models.torch.parts import tensors_in

__all__ = ["Recorder", "keep", "known"]

_endings: WeakKeyDictionary[nn.Module, dict[Any, Ending]] = WeakKeyDictionary()


@dataclass(eq=False)
class _Node:
    """An operation: its name, the operations that it takes from, and the other tensors that it takes; see `Step`."""

    name: str
    sources: list[_Node]
    others: list[Tensor]
    shape: tuple[int, ...]
    held: dict[int, str] = field(default_factory=dict)  # names of the network's parameters
    folded: bool = False

    def weights(self) -> list[str]:
        """Names of the parameters that it takes."""
        return [self.held[id(t)] for t in self.others if id(t) in self.held]

    def kernel(self) -> tuple[int, ...]:
        """Height and width of a convolution's."""
        return next((tuple(t.shape[2:]) for t in self.others if t.ndim == 4), (1, 1))


@dataclass
class Recorder(TorchDispatchMode):
    """A dispatch mode that writes operations down; a tensor is known by where it lies in memory."""

    nodes: dict[tuple[int, int], _Node] = field(default_factory=dict)
    held: dict[int, str] = field(default_factory=dict)  # names of the network's parameters, known at the end

    def __post_init__(self) -> None:
        TorchDispatchMode.__init__(self)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs the operation and writes it down."""
        result = func(*args, **(kwargs or {}))
        taken = tensors_in(args, kwargs)
        places = [self.nodes.get(_place(t)) for t in taken]
        sources = [node for node in places if node is not None]
        others: list[Tensor] = [t for t, node in zip(taken, places, strict=True) if node is None]
        name = str(func._schema.name).removeprefix("aten::")
        for t in tensors_in(result):
            self.nodes[_place(t)] = _Node(name, sources, others, tuple(t.shape), self.held)
        return result

    def ending(self, network: nn.Module, raw: Any, scores: Tensor) -> Ending:
        """What the scores (N, K) in the network's output are."""
        if (told := _told(network, raw, scores)) is not None:
            return replace(told, count=scores.shape[1])
        self.held.update((id(parameter), name) for name, parameter in network.named_parameters())
        return read(self.nodes.get(_place(scores)), scores)


def known(network: nn.Module, selector: Any) -> Ending | None:
    """What was seen of the network with the head that it has now."""
    return _endings.get(network, {}).get(_key(network, selector))


def keep(network: nn.Module, selector: Any, found: Ending) -> None:
    """Remembers the operation."""
    kept = _endings.setdefault(network, {})
    for old in list(kept)[:-8]:
        kept.pop(old, None)
    kept[_key(network, selector)] = found


def _key(network: nn.Module, selector: Any) -> tuple[Any, ...]:
    """Changes where the last parts of a network are replaced, as people do with its classifier."""
    parts: list[int] = []
    inner: nn.Module | None = network
    while inner is not None:
        children = [child for child in inner._modules.values() if child is not None]
        parts += map(id, children)
        inner = children[-1] if children else None
    return (selector if isinstance(selector, str | int | None) else id(selector), *parts)


def _place(tensor: Tensor) -> tuple[int, int]:
    try:
        return tensor.data_ptr(), tensor.numel()
    except RuntimeError:  # a tensor without memory of its own
        return id(tensor), -1


def _told(network: nn.Module, raw: Any, scores: Tensor) -> Ending | None:
    """What the network itself says."""
    count = getattr(network, "num_classes", None)
    if isinstance(count, int) and not isinstance(count, bool):
        if count == 0:
            return Ending("embedding", "the network was made with num_classes=0")
        if count == scores.shape[1]:
            return Ending("logits") if not likely(scores) else None
    config = getattr(network, "config", None)
    if getattr(config, "problem_type", None) == "regression":
        return Ending("values", "its configuration says problem_type='regression'")
    named = dict(raw) if isinstance(raw, Mapping) else getattr(raw, "__dict__", {})
    name = next((key for key, value in named.items() if value is scores), None)
    if name in EMBEDDINGS:
        return Ending("embedding", f"the network gives them as {name!r}")
    return None
