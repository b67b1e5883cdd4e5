"""Averages for each label and over all labels, for the documented metrics that keep them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from seewhy.checks import check_count
from seewhy.errors import InvalidInput, InvalidTarget
from seewhy.metrics import Metric

__all__ = ["LabelledMetric"]


class _Tally:
    """Sums and counts, one for each label; grows when the number of labels was not given."""

    def __init__(self, num_labels: int | None) -> None:
        self.fixed = num_labels is not None
        self.sums: NDArray[np.float64] = np.zeros(num_labels or 0)
        self.counts: NDArray[np.int64] = np.zeros(num_labels or 0, dtype=np.int64)

    def add(self, value: float, label: int) -> None:
        if label < 0 or (self.fixed and label >= len(self.sums)):
            raise InvalidTarget(f"Label {label} is out of range: num_labels is {len(self.sums)}.")
        missing = max(0, label + 1 - len(self.sums))
        self.sums, self.counts = np.pad(self.sums, (0, missing)), np.pad(self.counts, (0, missing))
        if value == value:
            self.sums[label] += value
            self.counts[label] += 1


@dataclass(frozen=True, eq=False)
class LabelledMetric(Metric):
    """A metric that also averages what it is told with ``aggregate``.

    Attributes:
        num_labels: number of labels; None lets the tally grow with the labels that come.
    """

    num_labels: int | None = None
    _tally: _Tally = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_count("num_labels", self.num_labels, optional=True)
        self.reset()

    def reset(self) -> None:
        """Forgets everything that was aggregated."""
        object.__setattr__(self, "_tally", _Tally(self.num_labels))

    def aggregate(self, result: Any, targets: Any) -> None:
        """Adds results to the averages of their labels; NaN counts as no data.

        Args:
            result: a number or (N,).
            targets: an integer, or (N,) labels.

        Raises:
            InvalidInput: the numbers of results and labels differ.
            InvalidTarget: a label is out of range.
        """
        values = _numbers(result).astype(np.float64)
        labels = _numbers(targets)
        if labels.dtype.kind not in "iu":
            raise InvalidTarget(f"targets must be integers, got {labels.dtype}.")
        if len(labels) == 1:
            labels = labels.repeat(len(values))
        if len(values) != len(labels):
            raise InvalidInput(f"aggregate takes one label for each result, got {len(values)} and {len(labels)}.")
        for value, label in zip(values.tolist(), labels.tolist(), strict=True):
            self._tally.add(value, label)

    @property
    def counts(self) -> list[int]:
        """How many results each label's average has."""
        return [int(n) for n in self._tally.counts]

    @property
    def class_performances(self) -> list[float | None]:
        """The average of each label; None where there is no data."""
        return [s / n if n else None for s, n in zip(self._tally.sums.tolist(), self.counts, strict=True)]

    @property
    def performance(self) -> float | None:
        """The mean of the labels' averages, labels without data left out; None where there is no data at all."""
        known = [p for p in self.class_performances if p is not None]
        return sum(known) / len(known) if known else None

    def get_results(self) -> list[float | None]:
        """Returns the same as ``class_performances``."""
        return self.class_performances


def _numbers(values: Any) -> np.ndarray[Any, Any]:
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    return np.atleast_1d(array).ravel()
