"""The job over a data set: finds out what is missing in the run folder, has it computed, and says what came of it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from seewhy.engines import Engine
from seewhy.engines.local import Local
from seewhy.errors import InvalidInput, StorageError
from seewhy.progress import Bar, Listener, check_progress
from seewhy.runs.folder.rows import FailureRow, told
from seewhy.runs.folder.settings import SINGLE
from seewhy.runs.folder.store import Store
from seewhy.runs.query.means import summed
from seewhy.runs.stopping import stoppable
from seewhy.runs.work.job import Job, Tools
from seewhy.runs.work.plan import Plan, check_shard, plan
from seewhy.runs.work.worker import ChunkWorker, Done

__all__ = ["ImageClassificationRunner", "Runner", "Summary"]

_SHOWN = 20  # failures that a summary lists
_TRIES = 64  # tries to add explainers while other processes do the same
COMPACTED = 64  # chunks after which the rows are put together
_KEPT = ("chunk", "batch", "precision")  # a run goes on as it began


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What one call of ``run`` did, and what the folder has now.

    Attributes:
        place: the run folder.
        pictures: in the data.
        computed: in this call.
        skipped: pictures that were complete before.
        left: pictures that are yet to be done: the run was interrupted, or it was one shard of several.
        failed: pictures of this call of which nothing could be done.
        failures: (picture, failure) of this call, all of them.
        maps: how many were made in this call.
        forward: images that went forward through the network in this call.
        seconds: how long this call took.
        interrupted: Ctrl-C was pressed.
        notes: what was decided on the way.
        scores: explainer -> metric -> mean over all maps of the folder; None where there are no data.
        remarks: in how many pictures of the folder something is to be known of them or of their maps, and what.
    """

    place: str
    pictures: int
    computed: int
    skipped: int
    left: int
    failed: int
    failures: tuple[tuple[str, FailureRow], ...]
    maps: int
    forward: int
    seconds: float
    interrupted: bool
    notes: tuple[str, ...]
    scores: Mapping[str, Mapping[str, float | None]]
    remarks: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [
            f"{self.place}: {self.computed} pictures computed in {self.seconds:.1f} s, {self.skipped} were there "
            f"already, {self.left} left, {self.maps} maps, {self.forward} forward passes."
        ]
        lines += [f"  {explainer}: {_line(values)}" for explainer, values in self.scores.items() if values]
        lines += [f"  note: {text}" for text in self.notes]
        lines += [f"  {text}" for text in self.remarks[:_SHOWN]]
        if (rest := len(self.remarks) - _SHOWN) > 0:
            lines.append(f"  ... and {rest} more kinds: seewhy status {self.place}")
        if self.failures:
            lines.append(f"  {len(self.failures)} failures, {self.failed} pictures of which nothing could be done:")
            lines += [f"    {name}: {told(one)}" for name, one in self.failures[:_SHOWN]]
            if (rest := len(self.failures) - _SHOWN) > 0:
                lines.append(f"    ... and {rest} more: seewhy status {self.place}")
        if self.interrupted:
            lines.append(f"  Interrupted. Nothing is lost; go on with: seewhy resume {self.place}")
        return "\n".join(lines)


@dataclass(frozen=True, kw_only=True, eq=False)
class Runner:
    """A job, and how it is run.

    Attributes:
        job: what is to be done.
        engine: where; by default in this process.
        shard: (i, n): the i-th of n parts of the work.
        retry: does again what failed.
        progress: a bar on the terminal, False, or a callback (pictures done, pictures in all).
        command: how the run was asked for on the command line, so that it can be resumed there.
    """

    job: Job
    engine: Engine | None = None
    shard: tuple[int, int] = (1, 1)
    retry: bool = False
    progress: bool | Listener = True
    command: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        check_progress(self.progress)
        check_shard(self.shard)

    def run(self) -> Summary:
        """Computes what is missing.

        May be called again at any time: what is in the folder is not computed again. Ctrl-C finishes the chunk in hand.

        Raises:
            SeewhyError: the job cannot be done at all: a name that does not exist, a folder of another model.
            StorageError: the folder cannot be written (any more); what was finished is kept.
        """
        began, store = time.perf_counter(), Store(self.job.place)
        known = store.settings() if store.exists() else None
        if known is None:  # in a run that is complete, nothing is to be written
            store.files.check()
        job = self.job if known is None else replace(self.job, **{n: known[n] for n in _KEPT})
        tools = Tools.of(job, known)
        tools, settings = _settle(tools, known, self.command)
        store.sweep()
        todo = plan(tools, retry=self.retry, shard=self.shard)
        notes = [*tools.data.notes, *getattr(tools.model, "notes", ())]
        if todo.foreign:
            notes.append(f"{todo.foreign} parts of other settings lie in the folder and are not read.")
        finished, interrupted = self._work(todo, partial(_worker, job, settings, _Once(tools)), store)
        notes += _compacted(store)
        todo.chunks.clear()  # the summary reads the whole folder: what is done need not lie beside it
        return _summary(store, todo, finished, notes, time.perf_counter() - began, interrupted)

    def _work(self, todo: Plan, factory: Callable[[int], ChunkWorker], store: Store) -> tuple[list[Done], bool]:
        finished: list[Done] = []
        if not todo.chunks:
            return finished, False
        ready = todo.total - todo.chunks.pictures
        engine = self.engine or Local()
        lanes = getattr(engine, "workers", 1)
        with (
            Bar("run", self.progress, "picture", before=ready, total=todo.total) as bar,
            stoppable(lanes if isinstance(lanes, int) else 1, bar.tell) as stop,
        ):
            for done in engine.map(factory, todo.chunks, stop):
                finished.append(done)
                ready += done.pictures
                bar(ready, todo.total)
                if len(finished) % COMPACTED == 0:
                    _compacted(store)
            return finished, stop.pressed.is_set()


def _compacted(store: Store) -> list[str]:
    """Puts the rows together, so that reading stays fast; an error becomes a note, because all results are there."""
    try:
        store.compact()
    except StorageError as error:
        return [f"The index was not written: {error}"]
    return []


class _Once:
    """The planner's own tools, handed to a worker in the same process, so that no network is loaded twice."""

    def __init__(self, tools: Tools | None) -> None:
        self.tools = tools

    def __getstate__(self) -> dict[str, Any]:
        return {"tools": None}


def _worker(job: Job, settings: Mapping[str, Any], here: _Once, lane: int) -> ChunkWorker:
    if job.threads is not None:
        torch.set_num_threads(job.threads)
    if here.tools is not None:
        return ChunkWorker(here.tools)
    return ChunkWorker(Tools.of(_on_device(job, lane), settings), alone=True)


def _on_device(job: Job, lane: int) -> Job:
    """Gives each lane a device of its own, where the job asks for "cuda" and there are several."""
    count = torch.cuda.device_count()
    return replace(job, device=f"cuda:{lane % count}") if job.device == "cuda" and count > 1 else job


def _settle(
    tools: Tools, known: dict[str, Any] | None, command: Mapping[str, Any] | None
) -> tuple[Tools, dict[str, Any]]:
    """Returns the tools with the labels that they have in the run, and run.json, new or with what was added.

    Raises:
        InvalidInput: the folder has a run of another model, activation or threshold.
    """
    store, wanted = tools.store, tools.settings(command)
    if known is None:
        if store.create(wanted):
            return tools, wanted
        known = store.settings()  # another writer was first
    if known["id"] != wanted["id"]:
        raise InvalidInput(_other(tools, known, wanted))
    taken: dict[str, dict[str, Any]] = {"explainers": {}, "metrics": {}}
    for _ in range(_TRIES):
        tools = tools.named({kind: known[kind] | labels for kind, labels in taken.items()})
        wanted = tools.settings(command)
        if not _add(store, known, wanted, taken):
            break
        known = store.settings()  # another writer may have been first with a label, or with the same thing
    else:
        raise InvalidInput(f"Too many others add to the run in {store.address!r} at once. Try again.")
    latest = {name: wanted[name] for name in ("data", "command") if wanted[name] not in (None, known[name])}
    if latest:
        store.tell(**latest)
    return tools, known | latest


def _add(store: Store, known: Mapping[str, Any], wanted: Mapping[str, Any], taken: dict[str, dict[str, Any]]) -> bool:
    """Adds what the run does not have yet, and notes labels that others have; says whether there was anything."""
    missing = [
        (kind, label, about)
        for kind in ("explainers", "metrics")
        for label, about in wanted[kind].items()
        if known[kind].get(label, {}).get("id") != about["id"]
    ]
    for name in SINGLE:
        if wanted[name] is not None and known[name] is not None and wanted[name]["id"] != known[name]["id"]:
            raise InvalidInput(
                f"The run in {store.address!r} has {name} with {known[name]['parameters']}, now it is asked for "
                f"with {wanted[name]['parameters']}. Use the same parameters, or another folder."
            )
        missing += [(name, "", wanted[name])] if wanted[name] is not None and known[name] is None else []
    for kind, label, about in missing:
        if (holder := store.add(kind, label, about)) is not None:
            taken[kind][label] = {"id": holder}
    return bool(missing)


def _other(tools: Tools, known: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    names = (("model", "digest"), ("activation", None), ("threshold", None), ("detection", None))
    differs = [name for name, part in names if (known[name][part] if part else known.get(name)) != (
        wanted[name][part] if part else wanted.get(name))]  # fmt: skip
    said = {
        "model": f"the model {known['model']['name']!r} with other weights, structure or preprocessing",
        "activation": f"activation {known['activation']!r}, not {wanted['activation']!r}",
        "threshold": f"threshold {known['threshold']}, not {wanted['threshold']}",
        "detection": f"detections by {known.get('detection')}, not {wanted.get('detection')}",
    }
    what = " and ".join(said[name] for name in differs) or "other settings"
    return f"{tools.store.address!r} has a run of {what}. Results are not mixed: use another folder."


def _summary(
    store: Store, todo: Plan, finished: Sequence[Done], notes: Sequence[str], seconds: float, interrupted: bool
) -> Summary:
    computed = sum(done.pictures for done in finished)
    if unfound := sum(done.unfound for done in finished):
        notes = [*notes, f"In {unfound} pictures the detector finds nothing: see the pages, or lower score_threshold."]
    totals = summed(store)
    return Summary(
        place=store.address, pictures=todo.total, computed=computed, skipped=todo.done,
        left=todo.total - todo.done - computed, failed=sum(done.lost for done in finished),
        failures=tuple(failure for done in finished for failure in done.failures),
        maps=sum(done.maps for done in finished), forward=sum(done.forward for done in finished), seconds=seconds,
        interrupted=interrupted, scores=totals.scores, remarks=totals.remarks,
        notes=tuple(dict.fromkeys([*notes, *(text for done in finished for text in done.notes)])),
    )  # fmt: skip


def _line(values: Mapping[str, float | None]) -> str:
    return ", ".join(f"{metric} {'no data' if value is None else f'{value:.3f}'}" for metric, value in values.items())


class ImageClassificationRunner:
    """Explains a classifier's predictions on a data set, and judges the explanations.

    Args:
        summary_dir: the run folder; results that are there already are not computed again.
        network: what `seewhy.load` takes.
        activation_fn: scores -> probabilities: "auto", "softmax", "sigmoid", ``nn.Softmax()``, ``nn.Sigmoid()``, a
            callable.
        data: (data set, class names), or the data set alone: a torch ``Dataset`` or ``DataLoader``, an iterable of
            (image), (image, labels) or (image, labels, boxes), a folder, see `seewhy.datasets.open_data`.
        threshold: classes above this probability are explained, with those that truly are there.
        data_options: keyword arguments of `seewhy.datasets.open_data` (``box_format="xyxy"``).
        options: of `Job` and `Runner`: batch, chunk, precision, engine, progress, ...

    Example:
        >>> import tempfile
        >>> runner = ImageClassificationRunner(tempfile.mkdtemp(), network, data=(inputs, [1, 2]), progress=False)
        >>> runner.register_saliency(["grad_cam"], ["sparseness"])
        >>> summary = runner.run()
        >>> summary.failed, summary.maps > 0
        (0, True)
    """

    def __init__(
        self, summary_dir: str | os.PathLike[str], network: Any, activation_fn: Any = "auto", data: Any = None, *,
        threshold: float = 0.5, data_options: Mapping[str, Any] | None = None, **options: Any,
    ) -> None:  # fmt: skip
        pair = isinstance(data, tuple) and len(data) == 2 and _names(data[1])
        source, classes = data if pair else (data, None)
        if source is None:
            raise InvalidInput("data must be a data set, or (data set, class names).")
        own = {name: options.pop(name) for name in ("engine", "shard", "retry", "progress") if name in options}
        model_options = dict(options.pop("model_options", {}))
        if classes is not None:
            model_options["labels"] = classes
        self._job = Job(
            place=summary_dir, model=network, model_options=model_options, data=source,
            data_options=dict(data_options or {}), activation_fn=activation_fn, threshold=threshold, **options,
        )  # fmt: skip
        self._own = own

    def register_saliency(self, explainers: Any, benchmarkers: Any = ()) -> None:
        """Adds explainers (names, classes or objects) and the metrics that judge them."""
        self._job = replace(self._job, explainers=explainers, metrics=benchmarkers or ())

    def register_uncertainty(self, **parameters: Any) -> None:
        """Adds how sure the network is of each probability; parameters of `seewhy.EpistemicUncertainty`."""
        self._job = replace(self._job, uncertainty=parameters)

    def register_hierarchical_occlusion(self, **parameters: Any) -> None:
        """Adds which few regions suffice for each label; parameters of `seewhy.HierarchicalOcclusion`."""
        self._job = replace(self._job, counterfactual=parameters)

    def register_features(self, **parameters: Any) -> None:
        """Adds vectors of layers' features, for `seewhy.neighbours`; ``explainer`` says whose maps weigh them."""
        self._job = replace(self._job, features=parameters)

    def run(self) -> Summary:
        """Computes what is missing; see `Runner.run`.

        Raises:
            InvalidInput: nothing was registered.
        """
        job = self._job
        if not job.explainers and all(one is None for one in (job.uncertainty, job.counterfactual, job.features)):
            raise InvalidInput(
                "There is nothing to do: call register_saliency(), register_uncertainty(), "
                "register_hierarchical_occlusion() or register_features() first."
            )
        return Runner(job=job, **self._own).run()


def _names(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) > 0 and all(isinstance(one, str) for one in value)
