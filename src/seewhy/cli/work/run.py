"""Carries out a run, new or gone on with."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from seewhy import registry, specs
from seewhy.cli.flags import activation, changes, emit, parameter, say, sieve, source, split
from seewhy.cli.origin import here, import_from, noted
from seewhy.cli.runs import How, RunCommand
from seewhy.errors import InvalidInput
from seewhy.gates import bars, missed
from seewhy.runs.runner import Runner
from seewhy.runs.work.job import Job

__all__ = ["carry_out", "run"]


def run(command: RunCommand) -> int:
    """Carries out what was typed, and gives the exit code."""
    remembered = _remembered(command)
    noted(command.out, json.loads(json.dumps(remembered)))
    import_from(command.model, remembered["cwd"])
    return carry_out(command, command, command.out, remembered)


def carry_out(command: RunCommand, how: How, place: str, remembered: Mapping[str, Any] | None) -> int:
    """Carries a run out, and gives the exit code."""
    job = Job(
        place=place, model=source(command)[0], model_options=_model_options(command), data=command.data,
        data_options=dict(parameter(text) for text in command.data_set), explainers=split(command.explainers),
        metrics=_metrics(command), baselines=command.baselines, uncertainty={} if command.uncertainty else None,
        counterfactual={} if command.counterfactual else None, features={} if command.features else None,
        activation_fn=activation(command),
        threshold=command.threshold, **sieve(command), instances=command.instances,
        chunk=command.chunk, batch=command.batch,
        precision=command.precision, copy_originals=command.copy_originals, device=command.device, threads=how.threads,
        timeout=how.timeout, accelerate="auto" if how.accelerate else None,
    )  # fmt: skip
    _check_something(job)
    judges = specs.metrics(job.metrics, None)
    floors = bars(command.fail_under, list(judges))
    kind = registry.load("engines", how.engine)
    asked = {"workers": how.workers, "address": how.address, "apart": how.timeout is not None}
    engine: Any = kind(**{f.name: asked[f.name] for f in dataclasses.fields(kind) if f.name in asked})
    quiet = bool(getattr(how, "quiet", False))
    if not quiet:
        say(f"reading {job.data}, loading {job.model} ...")
    found = Runner(
        job=job, engine=engine, shard=_shard(how.shard), retry=how.retry, progress=not quiet, command=remembered
    ).run()
    emit(str(found))
    if found.interrupted:
        return 130
    lost = found.computed > 0 and found.failed == found.computed
    mine = {label: found.scores.get(label, {}) for label in specs.explainers(None, job.explainers, None)}
    below = missed(floors, mine, {label: metric.better for label, metric in judges.items()})
    for sentence in below:
        say(sentence)
    return 1 if lost or below or (how.strict and found.failures) else 0


def _metrics(command: RunCommand) -> list[str]:
    named = split(command.metrics)
    asked = command.trust_grade and not any(one.partition("(")[0].strip() == "trust_grade" for one in named)
    return [*named, "trust_grade"] if asked else named


def _check_something(job: Any) -> None:
    if not job.explainers and all(one is None for one in (job.uncertainty, job.counterfactual, job.features)):
        raise InvalidInput(
            "There is nothing to do: name --explainers, or ask for --uncertainty, --counterfactual or --features."
        )


def _model_options(command: RunCommand) -> dict[str, Any]:
    options = {
        "checkpoint": source(command)[1], "trust": command.trust, "num_classes": command.num_classes,
        "labels": command.labels, "changes": changes(command),
        "backend": None if command.backend == "auto" else command.backend, "texts": list(command.texts),
        "head": command.head,
    }  # fmt: skip
    return {name: value for name, value in options.items() if value}


def _shard(text: str) -> tuple[int, int]:
    first, slash, second = text.partition("/")
    if not slash or not first.isdecimal() or not second.isdecimal() or not 1 <= int(first) <= int(second):
        raise InvalidInput(f"--shard is i/n with i from 1 to n, got {text!r}.")
    return int(first), int(second)


def _remembered(command: RunCommand) -> dict[str, Any]:
    """What run.json keeps of the command, so that it can be resumed."""
    how = {f.name for f in dataclasses.fields(How)} | {"config", "quiet", "out", "max_pixels", "fail_under"}
    fields = [f for f in dataclasses.fields(command) if f.name not in how]
    values = {f.name: getattr(command, f.name) for f in fields if getattr(command, f.name) != f.default}
    plain = {n: str(v) if isinstance(v, Path) else list(v) if isinstance(v, tuple) else v for n, v in values.items()}
    return {"cwd": here(), **plain}
