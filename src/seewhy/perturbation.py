"""Runs a model on many changed copies of each image, in batches that fit, and gives the targets' scores."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from seewhy.errors import BadOutput, InvalidInput, out_of_memory
from seewhy.models import Model, at
from seewhy.progress import report
from seewhy.targets import TargetSet
from seewhy.types import Activation, Outputs

__all__ = ["Perturb", "batch_size", "check_activation", "chunked", "perturbed_scores", "probabilities"]

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
    """The outputs with the activation put on them, where the targets want that."""
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
    if value == "auto" or (isinstance(value, int) and not isinstance(value, bool) and value > 0):
        checked: int | str = value
        return checked
    raise InvalidInput(f"perturbation_per_eval must be a positive integer or 'auto', got {value!r}.")


def check_activation(outputs: Outputs, function: Any) -> None:
    """Raises where the softmax of a single score would be 1 for every input."""
    if function == "softmax" and outputs.num_classes == 1 and not outputs.activated:
        raise BadOutput(
            "The network has one output, and the softmax of one score is always 1. Use activation_fn='sigmoid' or None."
        )
