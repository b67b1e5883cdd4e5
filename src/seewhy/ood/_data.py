"""What an out-of-distribution network is trained on: batches in every form that callers have, and labels that fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from seewhy.checks import check_count
from seewhy.errors import InvalidInput, InvalidType
from seewhy.foreign import as_torch
from seewhy.progress import Bar

__all__ = ["Batches", "TrainingBatch", "as_labels"]

_BINARY = (nn.BCEWithLogitsLoss, nn.MultiLabelSoftMarginLoss)
_BINARY_FUNCTIONS = (F.binary_cross_entropy_with_logits, F.multilabel_soft_margin_loss)


class Batches:
    """A data set as batches that can be walked several times.

    Args:
        dataset: an iterable of batches, or a torch Dataset of single pairs, which is shuffled.
        epochs: how often it is walked.
        batch_size: for a Dataset.
        seed: of the order of a Dataset; the global random state is not read.
    """

    def __init__(self, dataset: Any, epochs: int, batch_size: int, seed: int) -> None:
        for name, value in (("epoch", epochs), ("batch_size", batch_size)):
            check_count(name, value)
        if isinstance(dataset, Dataset) and not isinstance(dataset, IterableDataset):
            generator = torch.Generator("cpu").manual_seed(seed)
            dataset = DataLoader(dataset, batch_size, shuffle=True, generator=generator)
        if not hasattr(dataset, "__iter__"):
            raise InvalidType(
                f"dataset must give batches (images, labels), such as a DataLoader, got {type(dataset).__name__}."
            )
        self.batches, self.epochs, self.done = dataset, epochs, 0
        self.total = len(dataset) * epochs if hasattr(dataset, "__len__") else None

    def walk(self, epoch: int, bar: Bar) -> Iterator[TrainingBatch]:
        """Returns the batches of one epoch with more than one image.

        Raises:
            InvalidInput, InvalidType: there is none, or one has not the form (images, labels).
        """
        bar.say(f"OoDNet epoch {epoch}/{self.epochs}")
        used = 0
        for batch in self.batches:
            found = _parts(batch)
            self.done += 1
            bar(self.done, self.total)
            if len(found.images) > 1:
                used += 1
                yield found
        if not used:
            raise InvalidInput(
                f"The data set gave no batch of two or more pictures in epoch {epoch}. Pass one that can be walked "
                "several times and gives batches, such as a DataLoader."
            )


class TrainingBatch(NamedTuple):
    """Images (N, C, H, W), their labels, and further arguments of the classifier's forward."""

    images: Tensor
    labels: Any
    further: Mapping[str, Any]


def _parts(batch: Any) -> TrainingBatch:
    whole = isinstance(batch, tuple | list) and len(batch) == 3 and isinstance(batch[1], Mapping)
    if not whole and (not isinstance(batch, tuple | list) or len(batch) != 2):
        raise InvalidType(f"The data set must give pairs (images, labels), got {type(batch).__name__}.")
    batch = as_torch(batch)
    images = batch[0]
    if not isinstance(images, Tensor) or images.ndim != 4:
        got = f"shape {tuple(images.shape)}" if isinstance(images, Tensor) else type(images).__name__
        raise InvalidInput(f"The data set's images must be a tensor (N, C, H, W), got {got}.")
    return TrainingBatch(images, batch[-1], batch[1] if whole else {})


def as_labels(labels: Any, logits: Tensor, loss_fn: Any) -> Tensor:
    """Labels in the form that the loss takes beside ``logits`` (N, K): indices (N,), or rows (N, K) of numbers.

    Raises:
        InvalidInput: of the wrong shape, or out of range.
    """
    found, (n, k) = torch.as_tensor(labels, device=logits.device), logits.shape
    if tuple(found.shape) == (n, k):
        return found.to(logits.dtype)
    if tuple(found.shape) != (n,) or found.dtype.is_floating_point or found.dtype == torch.bool:
        kind = str(found.dtype).removeprefix("torch.")
        raise InvalidInput(
            f"Labels must be class indices of shape ({n},) or rows of shape ({n}, {k}), got {kind} of shape "
            f"{tuple(found.shape)}."
        )
    low, high = int(found.min()), int(found.max())
    if low < 0 or high >= k:
        wrong = low if low < 0 else high
        raise InvalidInput(f"Label {wrong} is out of range: there are {k} classes, 0 to {k - 1}.")
    if isinstance(loss_fn, _BINARY) or loss_fn in _BINARY_FUNCTIONS:
        return F.one_hot(found.long(), k).to(logits.dtype)
    return found.long()
