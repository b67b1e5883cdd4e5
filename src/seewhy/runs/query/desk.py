"""What a reviewer asks of a run, and says of its pictures: a part of `Run`."""

from __future__ import annotations

import time

from seewhy.errors import InvalidInput
from seewhy.runs.folder.reviews import Review, save
from seewhy.runs.query import totals
from seewhy.runs.query.overview import Overview, overview
from seewhy.runs.query.queues import Queue, missing, queues
from seewhy.runs.query.records import QueueCount
from seewhy.runs.query.snapshot import Base

__all__ = ["Desk"]


class Desk:
    """The reviewer's side of a run."""

    _base: Base

    def overview(self) -> Overview:
        """Says how often the network is right, how sure it is, and what it confuses."""
        with self._base.moment() as now:
            return overview(now, totals.counts(now).flags)

    @property
    def queues(self) -> dict[str, Queue]:
        """Queues of labels that are worth a look, by name; see `seewhy.runs.query.queues`."""
        return queues(self._base.state.plan)

    @property
    def missing_queues(self) -> dict[str, str]:
        """Kinds of queues that the run has no data for -> what has to be asked of it for them."""
        return missing(self._base.state.plan)

    def queue_counts(self) -> dict[str, QueueCount]:
        """Counts the labels in each queue, and their pictures."""
        with self._base.moment() as now:
            return totals.queue_counts(now)

    @property
    def reviews(self) -> dict[str, tuple[Review, ...]]:
        """Sample -> what reviewers say of it, in the order of time."""
        return self._base.state.reviews

    @property
    def unread_reviews(self) -> dict[str, str]:
        """Files of reviews that cannot be read, and why."""
        return self._base.state.unread

    def review(self, sample: str, author: str, verdict: str = "", text: str = "") -> Review:
        """Keeps in the run folder what a reviewer says of a picture.

        Args:
            sample: the picture's key.
            author: who says it.
            verdict: one of `seewhy.runs.folder.reviews.VERDICTS`, or "".
            text: a remark. Without verdict and text, what the author said before is taken back.

        Raises:
            InvalidInput: the run has no such picture, no such verdict, or a text that is too long.
            StorageError: it cannot be written.
        """
        if self._base.record(sample) is None:
            raise InvalidInput(f"The run in {self._base.store.address!r} has no picture {sample!r}.")
        made = Review(sample=sample, verdict=verdict, text=text.strip(), author=author, written=time.time())
        save(self._base.store, made)
        self._base.refresh()
        return made
