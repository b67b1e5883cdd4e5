"""Runs a model on many changed copies of each image, in batches that fit, and gives the targets' scores."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from seewhy.checks import is_count
from seewhy.errors import BadOutput, InvalidInput, out_of_memory
from seewhy.maps import places
from seewhy.models import Model, at
from seewhy.progress import report
from seewhy.targets import TargetSet
from seewhy.types import Activation, Note, Outputs, activation, as_they_are

__all__ = ["Perturb", "Settled", "batch_size", "chunked", "exclusive", "perturbed_scores", "probabilities", "settle"]

Perturb = Callable[[Tensor, Tensor], Tensor]
"""(rows (R,): which image, changes (R,): which change) -> changed images (R, C, H, W)."""


def perturbed_scores(
    model: Model, inputs: Tensor, perturb: Perturb, count: int, *, targets: TargetSet, activate: Activation | None,
    per_eval: int | str,
) -> Tensor:  # fmt: skip
    """(N, count, T) float32: the targets' scores of every image under every one of ``count`` changes.

    Args:
        model: gives scores.
        inputs: (N, C, H, W).
        perturb: makes the changed images.
        count: changes an image.
        targets: what is scored; all T come from the same passes.
        activate: scores -> probabilities.
        per_eval: images a forward pass, or "auto".
    """
    n = inputs.shape[0]
    scores = inputs.new_zeros((n * count, targets.count), dtype=torch.float32)

    def work(start: int, stop: int) -> None:
        flat = torch.arange(start, stop, device=inputs.device)
        rows, changes = flat // count, flat % count
        outputs = at(model, rows)(perturb(rows, changes))
        scores[start:stop] = targets.values(probabilities(outputs, targets, activate), rows)

    chunked(work, n * count, per_eval)
    return scores.view(n, count, targets.count)


def probabilities(outputs: Outputs, targets: TargetSet, activate: Activation | None) -> Outputs:
    """Returns the outputs with the activation put on them, where the targets want that."""
    return outputs.activate(activate) if targets.activates else outputs


def chunked(work: Callable[[int, int], Any], total: int, per_eval: int | str) -> None:
    """Calls ``work(start, stop)`` over 0..total in chunks; with "auto" of a size that is fast and fits in memory.

    The chunks are made equal, because a small one at the end would cost nearly as much as a full one.
    """
    sizes = _Auto() if per_eval == "auto" else None
    done = 0
    while done < total:
        most, left = sizes.size if sizes else int(per_eval), total - done
        trying = sizes is not None and not sizes.settled
        size = min(most, left) if trying else math.ceil(left / math.ceil(left / most))
        began = time.perf_counter()
        try:
            work(done, done + size)
        except (RuntimeError, MemoryError) as error:
            if sizes is None or not out_of_memory(error) or size == 1:
                raise
            sizes.halve(size)
            continue
        if sizes:
            sizes.note(size, time.perf_counter() - began)
        done += size
        report(done, total)


@dataclass
class _Auto:
    """Doubles the batch while that makes an image cheaper; never goes above a size that did not fit."""

    size: int = 4
    limit: int = 128
    times: dict[int, list[float]] = field(default_factory=dict)
    settled: bool = False

    def note(self, size: int, seconds: float) -> None:
        if self.settled or size != self.size:
            return
        tries = self.times.setdefault(size, [])
        tries.append(seconds / size)
        if len(tries) < 2:  # the first run at a size also pays for preparing its kernels
            return
        best = min(self.times, key=lambda s: min(self.times[s]))
        if best != size or 2 * size > self.limit:
            self.size, self.settled = best, True
        else:
            self.size = 2 * size

    def halve(self, size: int) -> None:
        self.size = self.limit = max(1, size // 2)
        self.settled = True


def batch_size(value: Any) -> int | str:
    """Checks ``perturbation_per_eval``: a positive int or "auto"."""
    if value == "auto" or is_count(value):
        checked: int | str = value
        return checked
    raise InvalidInput(f"perturbation_per_eval must be a positive integer or 'auto', got {value!r}.")


class Settled(NamedTuple):
    """What was decided about a network's scores when it had said what it says of the untouched images.

    Attributes:
        put: scores -> probabilities, for these outputs and all of changed copies; None leaves scores as they are.
        quantity: what the numbers are then: "probability", "logit" or "value".
        notes: what the reader should know.
        name: as ``activation_fn`` takes it, to be used again with the same network.
    """

    put: Activation | None
    quantity: str
    notes: tuple[Note, ...] = ()
    name: str | Activation | None = None


def settle(model: Model, inputs: Tensor, outputs: Outputs, function: str | Activation | None) -> Settled:
    """Decides which activation the scores want; every copy of the images then gets the same.

    Args:
        model: gave the outputs.
        inputs: (N, C, H, W) what it was given; where a few rows could look like probabilities by chance, it is asked
            about three other images.
        outputs: of the inputs.
        function: "auto", "softmax", "sigmoid", None or a callable.

    Raises:
        BadOutput: the softmax of a single score.
    """
    if outputs.meaning == "embedding":
        return Settled(None, "value")
    if outputs.activated:
        plain = outputs.boxes is None and function is not None
        said = f": {outputs.how}" if outputs.how else ""
        notes = (Note(text=f"The network's scores are probabilities already{said}. No activation was put on them."),)
        return Settled(as_they_are, "probability", notes if plain else (), as_they_are)
    single = outputs.scores.shape[2] == 1
    if single and _flattens(function):
        raise BadOutput(
            "The network has one output, and the softmax of one score is always 1. Use activation_fn='sigmoid' or None."
        )
    if function is None or (function == "auto" and outputs.meaning == "values"):
        return Settled(None, "value" if single or outputs.meaning == "values" else "logit")
    if function in ("auto", "softmax") and (told := _probabilities(model, inputs, outputs, function == "auto")):
        return Settled(as_they_are, "probability", (Note(text=told),), as_they_are)
    if function != "auto":
        return Settled(activation(function), "probability", (), function)
    if not single:
        return Settled(activation("softmax"), "probability", (), "softmax")
    return Settled(activation("sigmoid"), "probability", (Note(text=ONE_LOGIT),), "sigmoid")


ONE_LOGIT = (
    "The network has one output, which was taken as a logit: its sigmoid is the probability. For a regression pass "
    "activation_fn=None, for a probability a callable that returns it."
)


ALREADY = (
    "The network's scores are probabilities already: they are not negative, and those of an image sum to 1. No "
    "activation was put on them."
)
BOUNDED = (
    "The network's scores all lie between 0 and 1, so they were taken as probabilities. If they are logits, pass "
    "activation_fn='softmax' or 'sigmoid'."
)


def _flattens(function: Any) -> bool:
    """Says whether an activation is 1 for every single score."""
    if not callable(function):
        return bool(function == "softmax")
    try:
        found = function(torch.tensor([[-3.0], [0.0], [2.0]]))
    except (RuntimeError, TypeError, ValueError, IndexError):  # it is for scores of another shape or device
        return False
    return isinstance(found, Tensor) and bool((found == 1).all())


def _probabilities(model: Model, inputs: Tensor, outputs: Outputs, sigmoid: bool) -> str | None:
    """Says so where all that can be seen of the network's scores are probabilities; None where some are none."""
    if outputs.boxes is not None or (outputs.scores.shape[1] != 1 and outputs.dense is None):
        return None
    scores = outputs.scores.flatten(0, 1)
    if not _exclude(scores) and not (sigmoid and not outputs.seen and _bounded(scores)):
        return None
    if len(scores) < ENOUGH:
        one = inputs[:1]
        others = torch.cat([torch.zeros_like(one), -one, 2 * one.flip(places(one))])
        scores = torch.cat([scores, at(model, torch.zeros(3, dtype=torch.long, device="cpu"))(others).scores[:, 0]])
    if _exclude(scores):
        return ALREADY
    if sigmoid and not outputs.seen and _bounded(scores) and bool((scores != scores[:1]).any()):
        return BOUNDED
    return None


ENOUGH = 4  # rows that look like probabilities by chance are not so many


def exclusive(probabilities: Tensor, function: Any) -> bool:
    """Says whether the classes exclude each other: softmax, or rows that sum to 1."""
    if function in ("softmax", "sigmoid"):
        return bool(function == "softmax")
    sums = probabilities.sum(-1)
    return probabilities.shape[-1] > 1 and bool(torch.isclose(sums, torch.ones_like(sums), atol=1e-3).all())


def _exclude(scores: Tensor) -> bool:
    """Says whether the rows are probabilities of classes that exclude each other, to the rounding of 16 bits."""
    if scores.shape[1] < 2:
        return False
    return bool((scores >= 0).all()) and bool(((scores.sum(1) - 1).abs() < 4e-3).all())


def _bounded(scores: Tensor) -> bool:
    return bool((scores >= 0).all()) and bool((scores <= 1).all())
