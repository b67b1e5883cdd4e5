"""Compares explainers on the same images by the same metrics, beside a random map and a map of the centre."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from importlib.metadata import version
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from seewhy import judging, specs, statistics
from seewhy.checks import check_choice, check_seed
from seewhy.comparison import Comparison, Failure, Floats
from seewhy.datasets import Data, open_data
from seewhy.errors import FAILURES, InvalidInput, InvalidType
from seewhy.explainers import Explainer
from seewhy.inputs import Batch, prepare
from seewhy.metrics import Metric
from seewhy.models import Model, at, bound
from seewhy.models.loading import load
from seewhy.models.quickest import Form, quickest
from seewhy.progress import Bar, Listener, check_progress
from seewhy.targets import Request
from seewhy.types import Activation, Sample, check_activation

__all__ = ["compare"]


def compare(
    network: Any, data: Any, explainers: Any, metrics: Any, *,
    activation_fn: str | Activation | None = "auto", baselines: bool | Iterable[str] = True,
    confidence: float = 0.95, resamples: int = 10_000, seed: int = 0, progress: bool | Listener = True,
    accelerate: Literal["auto"] | None = None,
) -> Comparison:  # fmt: skip
    """Judges explainers by metrics on the same images and says which differences are real.

    Args:
        network: what `seewhy.load` takes.
        data: `Sample` objects, (image, target) or (image, target, mask) tuples, or images alone. A target that is None
            is what the network predicts; a mask has the image's size and is true where the object is. Or whatever
            `seewhy.datasets.open_data` takes: a path, a data set, a loader, a data frame ...; there the class of an
            image with one label is its target.
        explainers: registry names, also with parameters ("rise(num_masks=500)"), classes or explainers; a list, or a
            dict that gives them labels.
        metrics: the same for metrics.
        activation_fn: scores -> probabilities, for the explainers and metrics that have one and are given by name or
            class.
        baselines: adds a random map and a map of the centre as rows; False for neither, or the names of those that are
            wanted: "random", "centre". Where there are any, what does not really beat all of them is not called best.
        confidence: of the intervals, and 1 - confidence the level at which a difference is called real.
        resamples: how often signs are flipped to test the differences.
        seed: of the flips.
        progress: a bar on the terminal, False, or a callback (done, total).
        accelerate: "auto" runs what needs scores alone with the form of a torch network that is measured, on the first
            picture, to be the quickest here and gives the same scores; ``settings["accelerate"]`` says what came of it.

    Returns:
        The table with intervals, differences, costs and failures. An image or map that fails is a recorded failure,
        and the others are done.

    Raises:
        SeewhyError: a name or parameter that does not exist, or no images.

    Example:
        >>> data = [(image, 1, mask) for image, mask in zip(inputs, masks)]
        >>> table = compare(network, data, ["grad_cam", "gradient"], ["relevance_mass"], progress=False)
        >>> table.explainers, table.values.shape
        (('grad_cam', 'gradient', 'random', 'centre'), (4, 1, 2))
    """
    methods, chance, judges = check(
        explainers, metrics, activation_fn=activation_fn, baselines=baselines, confidence=confidence,
        resamples=resamples, seed=seed, progress=progress,
    )  # fmt: skip
    check_choice("accelerate", accelerate, [None, "auto"])
    known = [label for label, one in methods.items() if one.chance] + [*chance]
    methods |= chance
    listed = isinstance(data, list | tuple | Iterator | np.ndarray)
    given = [_sample(one, i) for i, one in enumerate(data)] if listed else open_data(data)
    if not len(given):
        raise InvalidInput("There is no picture to compare on: the data are empty.")
    model = load(network)
    samples = given if isinstance(given, list) else _of_data(given, model)
    table = _Table.empty(methods, judges, len(samples))
    table.accelerate = accelerate is not None
    model = _bound(model, samples)
    with Bar("compare", progress, unit="picture") as bar:
        for i, sample in enumerate(samples):
            with judging.remembering():
                table.fill(at(model, torch.tensor([i], device="cpu")), i, sample)
            bar(i + 1, len(samples))
    return Comparison(
        explainers=tuple(methods), metrics=tuple(judges), better=tuple(m.better for m in judges.values()),
        values=table.values, forward=table.forward, backward=table.backward, seconds=table.seconds,
        judging=table.judging, pictures=tuple(s.name for s in samples), baselines=tuple(known),
        failures=tuple(table.failures), ranges=tuple(m.range for m in judges.values()),
        confidence=confidence, resamples=resamples, seed=seed,
        settings={
            **_settings(model, methods, judges, confidence, resamples, seed),
            "activation": getattr(activation_fn, "__name__", activation_fn),
            "preprocessing": str(getattr(model, "preprocessing", None)),
            **({} if table.form is None else {"accelerate": table.form.said}),
        },
    )  # fmt: skip


def _of_data(data: Data, model: Model) -> list[Sample]:
    """Returns the samples of a data set, each with its class where it has one."""
    bound = data.bind(getattr(model, "labels", None), None)
    return [_chosen(bound[i]) for i in range(len(bound))]


def _chosen(sample: Sample) -> Sample:
    if sample.target is not None or sample.labels is None or len(sample.labels) != 1:
        return sample
    (label,) = sample.labels
    return replace(sample, target=label, mask=sample.masks.get(label, sample.mask))


def check(
    explainers: Any, metrics: Any, *, activation_fn: str | Activation | None = "auto",
    baselines: bool | Iterable[str] = True, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0,
    progress: bool | Listener = True,
) -> tuple[dict[str, Explainer], dict[str, Explainer], dict[str, Metric]]:  # fmt: skip
    """Refuses what `compare` refuses before there is a network.

    Returns:
        Label -> explainer, label -> baseline, both without a network, and label -> metric.

    Raises:
        SeewhyError: a name or parameter that does not exist, or none at all.
    """
    statistics.check(confidence, resamples)
    check_seed(seed)
    check_progress(progress)
    check_activation(activation_fn)
    methods = specs.explainers(None, explainers, activation_fn)
    judges = specs.metrics(metrics, activation_fn)
    chance = judging.baselines(None, methods, baselines)
    if empty := [what for what, made in (("explainer", methods | chance), ("metric", judges)) if not made]:
        raise InvalidInput(f"There is no {empty[0]} to compare: the list is empty.")
    return methods, chance, judges


@dataclass(kw_only=True)
class _Table:
    """The numbers, as they come in."""

    methods: Mapping[str, Explainer]
    judges: Mapping[str, Metric]
    values: Floats
    forward: Floats
    backward: Floats
    seconds: Floats
    judging: Floats
    failures: list[Failure] = field(default_factory=list)
    accelerate: bool = False
    form: Form | None = None

    @classmethod
    def empty(cls, methods: Mapping[str, Explainer], judges: Mapping[str, Metric], n: int) -> _Table:
        one, cells = (len(methods), n), (len(methods), len(judges), n)
        nothing = [np.full(one, np.nan) for _ in range(3)]
        return cls(
            methods=methods, judges=judges, values=np.full(cells, np.nan), judging=np.zeros(len(judges)),
            forward=nothing[0], backward=nothing[1], seconds=nothing[2],
        )  # fmt: skip

    def fill(self, model: Model, i: int, sample: Sample) -> None:
        """One image: every explainer's map of it, judged by every metric."""
        try:
            batch, target = _ready(model, sample)
        except FAILURES as error:
            self._failed(sample, error)
            return
        inputs, view = batch.inputs, batch.views[0]
        size = (inputs.shape[2], inputs.shape[3])
        needed = any(metric.needs_truth for metric in self.judges.values())
        if self.accelerate and self.form is None:
            wanted = judging.passes([*self.methods.values()], self.judges.values())
            self.form = quickest(model, inputs, wanted * self.seconds.shape[1])
        quick = self.form.model if self.form is not None and self.form.other else None
        for e, (label, method) in enumerate(self.methods.items()):
            explainer = replace(method, network=model)
            try:
                found, self.seconds[e, i] = judging.explain(judging.quickly(explainer, quick), inputs, target)
            except FAILURES as error:
                self._failed(sample, error, explainer=label)
                continue
            self.forward[e, i], self.backward[e, i] = found.passes.forward, found.passes.backward
            about = judging.case(
                model, explainer, inputs, target, found.raw[0, 0],
                lambda: judging.truth_of_target(sample, view, target, size) if needed else None,
            )  # fmt: skip
            for m, one in enumerate(judging.judge(about, self.judges, quick=quick)):
                self.values[e, m, i] = one.value
                self.judging[m] += one.forward
                if one.error is not None:
                    self._failed(sample, one.error, explainer=label, metric=one.metric)

    def _failed(self, sample: Sample, error: BaseException, **about: str) -> None:
        self.failures.append(Failure(picture=sample.name, reason=judging.reason(error), **about))


def _bound(model: Model, samples: list[Sample]) -> Model:
    """Returns the model for the samples, whose further inputs may have one row for each."""
    for sample in samples if getattr(model, "forward_kwargs", None) else ():
        try:
            inputs = prepare(model, sample.image).inputs
        except FAILURES:  # the others are compared
            continue
        with model.opened():
            return bound(model, inputs[:1], len(samples))
    return model


def _ready(model: Model, sample: Sample) -> tuple[Batch, Any]:
    """Returns the network's input and the one target."""
    batch = prepare(model, sample.image)
    if len(batch.inputs) != 1:
        raise InvalidInput(f"A sample is one picture, got {len(batch.inputs)}.")
    return batch, _target(model, batch.inputs, sample.target)


def _target(model: Model, inputs: Tensor, asked: Any) -> Any:
    request = Request.named(asked, getattr(model, "labels", None), 1)
    with model.opened():
        chosen = request.resolve(model(inputs))
    if chosen.count != 1:
        raise InvalidInput(f"A comparison has one target a picture, got {chosen.count}.")
    return int(chosen.classes[0, 0]) if chosen.classes is not None else chosen.targets[0]


def _sample(one: Any, number: int) -> Sample:
    if isinstance(one, tuple):
        if not 1 <= len(one) <= 3:
            raise InvalidType(f"A sample is (image, target, mask), the last two optional, got {len(one)} values.")
        one = Sample(**dict(zip(("image", "target", "mask"), one, strict=False)))
    sample = one if isinstance(one, Sample) else Sample(image=one)
    if sample.name:
        return sample
    path = sample.image if isinstance(sample.image, str) else getattr(sample.image, "filename", None)
    return replace(sample, name=str(path or getattr(sample.image, "name", None) or f"image {number}"))


def _settings(
    model: Model, methods: Mapping[str, Explainer], judges: Mapping[str, Metric], *chance: float
) -> dict[str, Any]:
    confidence, resamples, seed = chance
    return {
        "model": model.name,
        "explainers": {label: _described(e) for label, e in methods.items()},
        "metrics": {label: repr(m) for label, m in judges.items()},
        "published": {label: e.published for label, e in methods.items() if e.published},
        "confidence": confidence, "resamples": resamples, "seed": seed,
        "seewhy": version("seewhy"), "torch": torch.__version__,
    }  # fmt: skip


def _described(explainer: Explainer) -> str:
    values = ", ".join(f"{f.name}={getattr(explainer, f.name)!r}" for f in fields(explainer) if f.name != "network")
    return f"{type(explainer).__name__}({values})"
