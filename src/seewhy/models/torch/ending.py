"""What a torch network's scores are, seen from the operations that made them: logits, probabilities or an embedding.

The operations of one forward pass are written down, without their results, and the scores are followed back through
what changes no values (reshaping, a scale, a bias) to the operation that they come from:

    softmax, sigmoid                                       probabilities
    a linear layer, or a mean over positions of one        logits, unless the layer is called a projection
    a norm, a division by the length, a mean over          an embedding: there is no classifier
    positions of anything else, tanh or GELU at the end
    anything else                                          not known

What the network says about itself comes first: ``num_classes`` of timm, the name of the output and the configuration of
Hugging Face.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal
from weakref import WeakKeyDictionary

from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["Ending", "Recorder", "keep", "known"]

Kind = Literal["logits", "probabilities", "embedding", "values", "unknown"]

_endings: WeakKeyDictionary[nn.Module, dict[Any, Ending]] = WeakKeyDictionary()
_EMBEDDINGS = ("pooler_output", "image_embeds", "text_embeds", "embeddings", "embedding", "features")
_SAME = {
    "view", "_unsafe_view", "reshape", "clone", "detach", "alias", "squeeze", "unsqueeze", "flatten", "expand", "t",
    "transpose", "permute", "_to_copy", "slice", "select", "contiguous", "lift_fresh", "copy_", "split", "unbind",
    "as_strided", "as_strided_",
    "_log_softmax", "log_softmax", "dropout", "native_dropout",
}  # fmt: skip
_SCALED = {"mul", "div", "add", "sub", "mul_", "div_", "add_", "sub_"}
_LINEAR = {"addmm", "mm", "bmm", "baddbmm", "linear", "matmul", "convolution", "_convolution", "mkldnn_linear"}
_LIKELY = {"_softmax", "softmax", "sigmoid", "sigmoid_", "hardsigmoid", "_safe_softmax"}
_NORMS = {"native_layer_norm", "layer_norm", "_fused_rms_norm", "rms_norm", "native_group_norm"}
_POOLS = {
    "mean", "adaptive_avg_pool2d", "_adaptive_avg_pool2d", "avg_pool2d", "adaptive_max_pool2d", "amax", "max", "sum",
    "max_pool2d_with_indices",
}  # fmt: skip
_CURVES = {"tanh", "gelu", "silu", "hardswish", "elu", "tanh_"}
_RESIZED = {"upsample_bilinear2d", "upsample_nearest2d"}
_THROUGH = _SAME | _RESIZED | {"relu", "relu_", "cat", "stack", "hardtanh", "hardtanh_"}


@dataclass(frozen=True)
class Ending:
    """What the scores are, how that was seen, in words, and how many there were."""

    kind: Kind
    how: str = ""
    count: int = 0


UNKNOWN = Ending("unknown", "whether they are scores of classes cannot be seen from what makes them")
FEW = 8  # numbers that are too few for an embedding


@dataclass(eq=False)
class _Node:
    """An operation: its name, the operations that it takes from, and the other tensors that it takes."""

    name: str
    sources: list[_Node]
    others: list[Tensor]
    shape: tuple[int, ...]


@dataclass
class Recorder(TorchDispatchMode):
    """A dispatch mode that writes operations down; a tensor is known by where it lies in memory."""

    nodes: dict[tuple[int, int], _Node] = field(default_factory=dict)

    def __post_init__(self) -> None:
        TorchDispatchMode.__init__(self)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs the operation and writes it down."""
        result = func(*args, **(kwargs or {}))
        taken = [t for t in pytree.tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        places = [self.nodes.get(_place(t)) for t in taken]
        sources = [node for node in places if node is not None]
        others: list[Tensor] = [t for t, node in zip(taken, places, strict=True) if node is None]
        for t in pytree.tree_leaves(result):
            if isinstance(t, Tensor):
                name = func.name().removeprefix("aten::").partition(".")[0]
                self.nodes[_place(t)] = _Node(name, sources, others, tuple(t.shape))
        return result

    def ending(self, network: nn.Module, raw: Any, scores: Tensor) -> Ending:
        """What the scores (N, K) in the network's output are."""
        told = _told(network, raw, scores)
        found = told if told is not None else _read(network, self.nodes.get(_place(scores)), scores)
        if told is None and found.kind == "embedding" and scores.shape[1] < FEW:
            found = UNKNOWN
        return replace(found, count=scores.shape[1])


def known(network: nn.Module, selector: Any) -> Ending | None:
    """What was seen of the network with the head that it has now."""
    return _endings.get(network, {}).get(_key(network, selector))


def keep(network: nn.Module, selector: Any, found: Ending) -> None:
    """Remembers it."""
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
            return Ending("logits") if not _likely(scores) else None
    config = getattr(network, "config", None)
    if getattr(config, "problem_type", None) == "regression":
        return Ending("values", "its configuration says problem_type='regression'")
    named = dict(raw) if isinstance(raw, Mapping) else getattr(raw, "__dict__", {})
    name = next((key for key, value in named.items() if value is scores), None)
    if name in _EMBEDDINGS:
        return Ending("embedding", f"the network gives them as {name!r}")
    return None


def _read(network: nn.Module, node: _Node | None, scores: Tensor) -> Ending:
    """What the operations say."""
    node = _back(node)
    if node is None:
        return UNKNOWN
    if node.name in _LIKELY:
        name = node.name.strip("_").removeprefix("safe_")
        return Ending("probabilities", f"it ends in a {name}") if _bounded(scores) else UNKNOWN
    if node.name in _LINEAR:
        return _of_linear(network, node)
    if node.name in _NORMS:
        return Ending("embedding", "its last layer is a norm, and no classifier follows")
    if node.name in _POOLS:
        return _of_pool(node)
    if node.name in _CURVES and scores.shape[1] > 2:
        return Ending("embedding", f"it ends in {node.name.strip('_')}, and no classifier follows")
    if node.name in ("div", "div_") and any(_is_length(source) for source in node.sources):
        return Ending("embedding", "they are divided by their length")
    if node.name in _SCALED and len(node.sources) > 1:
        each = [_read(network, source, scores) for source in node.sources if source.shape == node.shape]
        return each[0] if each and all(one.kind == each[0].kind for one in each) else UNKNOWN
    return UNKNOWN


def _back(node: _Node | None) -> _Node | None:
    """The operation that the values come from."""
    while node is not None:
        if node.name in _SAME:
            node = node.sources[0] if node.sources else None
        elif node.name in _SCALED and len(alike := [s for s in node.sources if s.shape == node.shape]) == 1:
            if any(_is_length(source) for source in node.sources):
                return node
            node = alike[0]
        else:
            return node
    return None


def _is_length(node: _Node) -> bool:
    """Whether it is the length of a vector, kept away from 0."""
    steps = 0
    while node.name in _SAME | {"clamp_min", "clamp", "clamp_min_", "add", "sqrt", "maximum"} and node.sources:
        node, steps = node.sources[0], steps + 1
        if steps > 8:
            return False
    return node.name in ("linalg_vector_norm", "norm", "linalg_norm")


def _of_linear(network: nn.Module, node: _Node) -> Ending:
    """A classifier, or a projection into a space that several networks share."""
    held = {id(parameter): name for name, parameter in network.named_parameters()}
    names = [held[id(t)] for t in node.others if id(t) in held]
    names += [name for source in node.sources for name in _names(source, held)]
    if any("proj" in part or "embed" in part for name in names for part in name.lower().split(".")[-2:]):
        return Ending("embedding", f"they come from {names[0]!r}")
    return Ending("logits")


def _names(node: _Node, held: Mapping[int, str]) -> list[str]:
    """The parameter that was turned or cast before it came here."""
    while node.name in _SAME and node.sources:
        node = node.sources[0]
    return [held[id(t)] for t in node.others if id(t) in held] if node.name in _SAME else []


def _of_pool(node: _Node) -> Ending:
    """A mean over positions: of class scores (a 1 x 1 convolution), or of features."""
    below: _Node | None = node
    while below is not None and below.name in _THROUGH | _POOLS:
        below = below.sources[0] if below.sources else None
    if below is None:
        return Ending("unknown")
    if below.name in _LIKELY:
        return Ending("probabilities", "they are means of probabilities")
    if below.name in _LINEAR:
        kernel = next((tuple(t.shape[2:]) for t in below.others if t.ndim == 4), (1, 1))
        return Ending("logits") if kernel == (1, 1) else Ending("unknown")
    return Ending("embedding", "they are a mean over positions, and no classifier follows")


def _bounded(scores: Tensor) -> bool:
    return bool((scores >= 0).all()) and bool((scores <= 1 + 1e-3).all())


def _likely(scores: Tensor) -> bool:
    """Whether every row looks like probabilities that exclude each other."""
    return _bounded(scores) and bool(((scores.float().sum(1) - 1).abs() < 4e-3).all())
