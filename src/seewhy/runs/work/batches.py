"""Puts pictures through the network together, in batches that fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from seewhy.errors import FAILURES, out_of_memory
from seewhy.runs.work.limits import Limit
from seewhy.runs.work.picture import Picture

__all__ = ["Batches"]


@dataclass
class Batches:
    """Puts pictures through the network together, in batches that fit into memory.

    Attributes:
        size: pictures at a time; halved when memory runs out, for good.
        limit: how long a batch may take.
    """

    size: int
    limit: Limit = field(default_factory=lambda: Limit(None))
    _notes: list[str] = field(default_factory=list)

    def notes(self) -> tuple[str, ...]:
        """Returns the notes that came since the last call, and forgets them."""
        said, self._notes = tuple(self._notes), []
        return said

    def note(self, text: str) -> None:
        """Notes something that the summary of the run is to say."""
        self._notes.append(text)

    def each(
        self, pictures: Sequence[Picture], work: Callable[[list[Picture]], None],
        failed: Callable[[Picture, BaseException], None],
    ) -> None:  # fmt: skip
        """Does the work on all pictures.

        A batch that fails is tried again picture by picture, so that only pictures fail that cause an error; a batch
        that does not fit into memory is halved.
        """
        waiting = self.parts(pictures)
        while waiting:
            batch = waiting.pop(0)
            try:
                with self.limit(len(batch)):
                    work(batch)
            except FAILURES as error:  # an explainer, a metric, a network: whatever it is, the run goes on
                if len(batch) == 1:
                    failed(batch[0], error)
                elif out_of_memory(error):
                    self._halve(len(batch))
                    waiting = self.parts([picture for rest in (batch, *waiting) for picture in rest])
                else:
                    waiting[:0] = [[picture] for picture in batch]

    def parts(self, pictures: Sequence[Picture], size: int | None = None) -> list[list[Picture]]:
        """Yields the pictures in batches, by default of the size that fits into memory."""
        step = size or self.size
        return [list(pictures[i : i + step]) for i in range(0, len(pictures), step)]

    def _halve(self, tried: int) -> None:
        self.size = max(1, tried // 2)
        self._notes.append(f"Memory did not suffice for {tried} pictures at a time: from here on {self.size}.")
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
