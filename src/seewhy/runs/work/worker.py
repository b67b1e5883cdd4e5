"""A worker: built once, given chunks, commits a part for each. Reading, computing and writing overlap.

    worker = ChunkWorker(tools)
    for chunk in chunks:
        finished = worker(chunk)       # the chunks that were committed meanwhile
    finished = worker.flush()

While a chunk is computed, the next one is read and the one before is encoded and written. A picture, a map or a score
that fails is a failure row with its reason, and everything else is done.
"""

from __future__ import annotations

import os
from collections import defaultdict
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from seewhy import judging
from seewhy.errors import FAILURES, InvalidInput
from seewhy.models.quickest import PASSES, quickest
from seewhy.models.torch.parts import like
from seewhy.runs.folder.rows import FailureRow
from seewhy.runs.folder.tasks import EXPLAIN, PREDICT, READ
from seewhy.runs.work import explaining
from seewhy.runs.work.batches import Batches
from seewhy.runs.work.committing import commit
from seewhy.runs.work.job import Tools
from seewhy.runs.work.limits import Limit, Readers, Reading
from seewhy.runs.work.picture import Picture
from seewhy.runs.work.plan import Chunk
from seewhy.runs.work.reading import load

__all__ = ["ChunkWorker", "Done"]


@dataclass(frozen=True, kw_only=True)
class Done:
    """A chunk that was committed.

    Attributes:
        chunk: its name.
        part: the part's name.
        pictures: how many pictures are in it.
        maps: how many maps were made.
        forward: images that went forward through the network.
        failures: (name of the picture, failure).
        lost: pictures of which nothing could be done.
        unfound: pictures in which a detector finds nothing.
        notes: what was decided on the way.
    """

    chunk: str
    part: str
    pictures: int
    maps: int = 0
    forward: int = 0
    failures: tuple[tuple[str, FailureRow], ...] = ()
    lost: int = 0
    unfound: int = 0
    notes: tuple[str, ...] = ()


class ChunkWorker:
    """Computes chunks of a job and commits them.

    Args:
        tools: what is done, and with what.
        alone: the process has nothing else to do; it is ended when a picture hangs and nothing else helps.
    """

    def __init__(self, tools: Tools, *, alone: bool = False) -> None:
        self.tools = tools
        limit = Limit(tools.job.timeout, getattr(tools.model, "module", None), alone=alone)
        self.batches = Batches(tools.job.batch, limit)
        # A user's data set is asked by one thread; files can be read by several.
        files = len(self.tools.data) > 0 and self.tools.data.source(0) is not None
        self._reader = Readers(_readers(self.tools.model) if files else 1, tools.job.timeout)
        self._writer = ThreadPoolExecutor(1, "seewhy-write")
        self._ahead: dict[str, list[Reading]] = {}
        self._writing: list[Future[Done]] = []
        self._hurried = False

    def __call__(self, chunk: Chunk, upcoming: Chunk | None = None) -> list[Done]:
        """Computes a chunk; returns the chunks that have been committed since the last call.

        Args:
            chunk: what to do now.
            upcoming: the chunk that will come next; it is read meanwhile.
        """
        reading = self._ahead.pop(chunk.name, None) or self._read(chunk)
        if upcoming is not None and upcoming.name not in self._ahead:
            self._ahead = {upcoming.name: self._read(upcoming)}
        before = self.tools.model.passes.forward
        pictures = self._compute(chunk, reading)
        forward = self.tools.model.passes.forward - before
        finished = self.flush()
        self._writing.append(self._writer.submit(self._commit, chunk, pictures, forward, self.batches.notes()))
        return finished

    def flush(self) -> list[Done]:
        """Waits until everything computed is committed."""
        finished = [writing.result() for writing in self._writing]
        self._writing = []
        return finished

    def close(self) -> None:
        """Ends the threads; what was read ahead is dropped."""
        self._reader.close()
        self._writer.shutdown()

    def give_up(self, chunk: Chunk, why: str) -> Done:
        """Commits a chunk as failed, unless it was committed before its worker was lost."""
        if (part := self.tools.store.has(chunk.name)) is not None:
            return Done(chunk=chunk.name, part=part, pictures=len(chunk.items))
        pictures = [Picture(item=item) for item in chunk.items]
        for picture in pictures:
            picture.fail_all(why, EXPLAIN)
        return self._commit(chunk, pictures)

    def _read(self, chunk: Chunk) -> list[Reading]:
        tools = self.tools
        keep = tools.job.copy_originals
        return [self._reader.submit(load, tools.model, tools.data, item.index, keep) for item in chunk.items]

    def _compute(self, chunk: Chunk, reading: list[Reading]) -> list[Picture]:
        pictures = [Picture(item=item) for item in chunk.items]
        for picture, ahead in zip(pictures, reading, strict=True):
            try:
                picture.loaded = ahead.result()
                _check_same(picture)
            except FAILURES as error:  # whatever a user's data set raises, the other pictures are done
                picture.loaded = None
                picture.fail_all(error, READ)
        alike: dict[tuple[int, ...], list[Picture]] = defaultdict(list)
        for picture in pictures:
            if picture.loaded is not None:
                alike[tuple(picture.loaded.inputs.shape)].append(picture)
        for group in alike.values():
            self._hurry(group[0])
            explaining.everything(self.tools, self.batches, group)
        return pictures

    def _hurry(self, picture: Picture) -> None:
        """Looks for the quickest form of the network, once, where that is wanted."""
        tools, (self._hurried, done) = self.tools, (True, self._hurried)
        if done or tools.job.accelerate is None or picture.loaded is None:
            return
        wanted = judging.passes([*tools.explainers.values()], tools.metrics.values())
        wanted += PASSES if tools.counterfactual is not None else 0
        try:
            with self.batches.limit():
                form = quickest(tools.model, picture.loaded.inputs, wanted * len(tools.data))
        except FAILURES as error:  # the explainers will raise the error for this picture
            self.batches.note(f"Run as it is: {judging.reason(error)}")
            return
        self.batches.note(form.said)
        self.tools = replace(tools, quick=form.model if form.other else None)

    def _commit(self, chunk: Chunk, pictures: list[Picture], forward: int = 0, notes: tuple[str, ...] = ()) -> Done:
        part, maps = commit(self.tools, chunk.name, pictures)
        failures = tuple((picture.item.key, one) for picture in pictures for one in picture.failures)
        lost = sum(set(picture.item.tasks) == picture.failed for picture in pictures)
        return Done(
            chunk=chunk.name, part=part, pictures=len(pictures), maps=maps, forward=forward, failures=failures,
            lost=lost, unfound=sum(picture.unfound for picture in pictures), notes=notes,
        )  # fmt: skip


def _check_same(picture: Picture) -> None:
    """Checks a picture that may have changed since the plan: a new one is done as it is now, an old one is refused.

    Raises:
        InvalidInput: the folder's results under this key are of another picture.
    """
    item, loaded = picture.item, picture.loaded
    assert loaded is not None
    if PREDICT in item.tasks:
        if loaded.stamp is not None and loaded.stamp != item.stamp:
            said = "The picture was changed after the run had begun: this is about the new one."
            picture.loaded = replace(loaded, warnings=(*loaded.warnings, said))
    elif item.digest is not None and item.digest != loaded.digest:
        raise InvalidInput(
            "The picture is not the one that was explained before: it was changed after the run had begun, or the data "
            "set gives another one each time. Run again: then it is computed anew."
        )


def _readers(model: Any) -> int:
    """Returns how many threads read: many beside an accelerator, few where the network needs the cores itself."""
    module = getattr(model, "module", None)
    first = None if module is None else like(module)
    return min(8, os.cpu_count() or 1) if first is not None and first.device.type != "cpu" else 2
