"""What a network's scores are, seen from the operations that made them: logits, probabilities or an embedding.

The scores are followed back through what changes no values (reshaping, a scale, a bias) to the operation that they come
from:

    softmax, sigmoid                                       probabilities
    a linear layer, or a mean over positions of one        logits, unless the layer is called a projection
    a norm, a division by the length, a mean over          an embedding: there is no classifier
    positions of anything else, tanh or GELU at the end
    anything else                                          not known

The operations have torch's names here; those of exported graphs are translated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from torch import Tensor

from seewhy.types import Outputs

__all__ = ["EMBEDDINGS", "FEW", "SAME", "UNKNOWN", "Ending", "Step", "applied", "likely", "read"]

Kind = Literal["logits", "probabilities", "embedding", "values", "unknown"]

EMBEDDINGS = ("pooler_output", "image_embeds", "text_embeds", "embeddings", "embedding", "features")
SAME = {
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
_BENT = {"relu", "relu_", "hardtanh", "hardtanh_"}
_THROUGH = SAME | _RESIZED | _BENT | {"cat", "stack"}


@dataclass(frozen=True)
class Ending:
    """What the scores are, how that was seen, in words, and how many there were."""

    kind: Kind
    how: str = ""
    count: int = 0


UNKNOWN = Ending("unknown", "whether they are scores of classes cannot be seen from what makes them")
FEW = 8  # numbers that are too few for an embedding


class Step(Protocol):
    """An operation on the way to the scores.

    Attributes:
        name: torch's own.
        shape: of its result; () where it is not known.
        sources: the operations that it takes from.
        folded: whether a norm may have been folded into a linear layer, where nobody sees it any more.
    """

    @property
    def name(self) -> str:
        """See above."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """See above."""
        ...

    @property
    def sources(self) -> Sequence[Step]:
        """See above."""
        ...

    @property
    def folded(self) -> bool:
        """See above."""
        ...

    def weights(self) -> list[str]:
        """What people call the weights that it takes, or the layer that it is."""
        ...

    def kernel(self) -> tuple[int, ...]:
        """Height and width of a convolution's kernel; (1, 1) for other linear layers."""
        ...


def read(step: Step | None, scores: Tensor) -> Ending:
    """What the operations say of scores (N, K)."""
    found = _read(step, scores)
    if found.kind == "embedding" and scores.shape[1] < FEW:
        found = UNKNOWN
    return replace(found, count=scores.shape[1])


def applied(outputs: Outputs, found: Ending | None, named: bool) -> Outputs:
    """Returns the outputs with what is known of them; ``named`` where each score has a class name."""
    other = found is None or found.count != outputs.scores.shape[2]  # a network may have several answers
    if found is None or other or outputs.boxes is not None or outputs.activated or outputs.scores.shape[1] != 1:
        return outputs
    kind = "logits" if named and found.kind == "embedding" else found.kind
    return replace(
        outputs, how=found.how, seen=kind != "unknown", activated=kind == "probabilities",
        meaning=kind if kind in ("embedding", "values") else "classes",
    )  # fmt: skip


def _read(node: Step | None, scores: Tensor) -> Ending:
    """What the operations say."""
    node = _back(node)
    if node is None:
        return UNKNOWN
    if node.name in _LIKELY:
        name = node.name.strip("_").removeprefix("safe_")
        return Ending("probabilities", f"it ends in a {name}") if _bounded(scores) else UNKNOWN
    if node.name in _LINEAR:
        return _of_linear(node)
    if node.name in _NORMS:
        return Ending("embedding", "its last layer is a norm, and no classifier follows")
    if node.name in _POOLS:
        return _of_pool(node)
    if node.name in _CURVES and scores.shape[1] > 2:
        return Ending("embedding", f"it ends in {node.name.strip('_')}, and no classifier follows")
    if node.name in ("div", "div_") and any(_is_length(source) for source in node.sources):
        return Ending("embedding", "they are divided by their length")
    if node.name in _SCALED and len(node.sources) > 1:
        each = [_read(source, scores) for source in node.sources if source.shape == node.shape]
        return each[0] if each and all(one.kind == each[0].kind for one in each) else UNKNOWN
    return UNKNOWN


def _back(node: Step | None) -> Step | None:
    """Returns the operation that the values come from."""
    while node is not None:
        if node.name in SAME:
            node = node.sources[0] if node.sources else None
        elif node.name in _SCALED and len(alike := [s for s in node.sources if s.shape == node.shape]) == 1:
            if any(_is_length(source) for source in node.sources):
                return node
            node = alike[0]
        else:
            return node
    return None


def _is_length(node: Step) -> bool:
    """Says whether it is the length of a vector, kept away from 0."""
    steps = 0
    while (
        node.name in SAME | {"clamp_min", "clamp", "clamp_min_", "hardtanh", "add", "sqrt", "maximum"} and node.sources
    ):
        node, steps = node.sources[0], steps + 1
        if steps > 8:
            return False
    return node.name in ("linalg_vector_norm", "norm", "linalg_norm")


def _of_linear(node: Step) -> Ending:
    """Returns a classifier, or a projection into a space that several networks share."""
    names = list(node.weights())
    for source in node.sources:  # a weight that was turned or cast before it came here
        names += _turned(source)
    if any("proj" in part or "embed" in part for name in names for part in name.lower().split(".")[-2:]):
        told = next((name for name in names if name.endswith("weight")), names[0])
        return Ending("embedding", f"they come from {told!r}")
    return Ending("logits")


def _turned(node: Step) -> list[str]:
    while node.name in SAME and node.sources:
        node = node.sources[0]
    return node.weights() if node.name in SAME else []


def _of_pool(node: Step) -> Ending:
    """Returns a mean over positions: of class scores (a 1 x 1 convolution), or of features."""
    below: Step | None = node
    bent = False
    while below is not None and (
        below.name in _THROUGH | _POOLS or (below.name in _SCALED and len(below.sources) == 1)  # a bias, for example
    ):
        bent = bent or below.name in _BENT
        below = below.sources[0] if below.sources else None
    if below is None:
        return Ending("unknown")
    if below.name in _LIKELY:
        return Ending("probabilities", "they are means of probabilities")
    if below.name in _LINEAR:
        return Ending("logits") if below.kernel() == (1, 1) and not (bent and below.folded) else UNKNOWN
    return Ending("embedding", "they are a mean over positions, and no classifier follows")


def _bounded(scores: Tensor) -> bool:
    return bool((scores >= 0).all()) and bool((scores <= 1 + 1e-3).all())


def likely(scores: Tensor) -> bool:
    """Says whether every row looks like probabilities that exclude each other."""
    return _bounded(scores) and bool(((scores.float().sum(1) - 1).abs() < 4e-3).all())
