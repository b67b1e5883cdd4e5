"""What a run does, as a worker needs it: the model, the data, the explainers and metrics, and how each is called."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from seewhy import judging, registry, specs
from seewhy.checks import check_below_one, check_choice, check_count
from seewhy.counterfactuals.hierarchical_occlusion import HierarchicalOcclusion
from seewhy.datasets import Data, open_data
from seewhy.detection import MOST, OVERLAP, SCORE, check_sieve
from seewhy.errors import FAILURES, InvalidInput, InvalidTarget, SeewhyError, one_line
from seewhy.explainers import Explainer
from seewhy.inputs import prepare
from seewhy.metrics import Metric
from seewhy.models import Model, at, bound
from seewhy.models.function import FunctionModel
from seewhy.models.loading import load
from seewhy.models.torch.model import TorchModel
from seewhy.perturbation import exclusive, settle
from seewhy.runs.folder import tasks
from seewhy.runs.folder.codec import Precision
from seewhy.runs.folder.identity import identity, model_digest, plain
from seewhy.runs.folder.store import FORMAT, PLAIN, Store
from seewhy.runs.work import vectors
from seewhy.runs.work.labels import identify, labelled, parameters
from seewhy.runs.work.limits import Limit
from seewhy.runs.work.matching import Sieve
from seewhy.types import AS_THEY_ARE, Activation, as_they_are, check_activation
from seewhy.uncertainty.epistemic_uncertainty import EpistemicUncertainty

__all__ = ["Job", "Tools"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """A run as it was asked for: names and parameters, or objects. It can be sent to another process.

    Attributes:
        place: the run folder.
        model: what `seewhy.load` takes.
        model_options: its keyword arguments.
        data: what `seewhy.datasets.open_data` takes.
        data_options: its keyword arguments.
        explainers: names with parameters, classes or explainers; one, a list, or a dict that labels them.
        metrics: the same for metrics.
        baselines: adds a random map and a map of the centre to what the metrics judge; their maps are not kept. False
            for neither, or the names of those that are wanted: "random", "centre".
        uncertainty: parameters of `EpistemicUncertainty`, or None to leave it out.
        counterfactual: parameters of `HierarchicalOcclusion`, or None to leave it out.
        features: {} keeps vectors of layers' features (`seewhy.runs.work.vectors`), or None to leave them out.
        activation_fn: scores -> probabilities: "auto", "softmax", "sigmoid", None or a callable; see `seewhy.explain`.
        threshold: classes above this probability are explained, and count as predicted.
        score_threshold: of a detector: boxes with a score above it are explained.
        nms_threshold: of a detector: boxes of one class that overlap a better one by more are dropped; None keeps them.
        max_detections: of a detector: at most so many boxes a picture.
        instances: of a detector: "boxes" explains each box, "masks" each object's instance mask, where the network
            gives them. A true box that was not found is explained as a box.
        chunk: pictures that are committed together.
        batch: pictures that go through the network together.
        precision: of the maps that are kept; see `seewhy.runs.folder.codec.encode`.
        copy_originals: keeps the original files in the run folder, too.
        device: where the network runs; None leaves it where it is.
        threads: of torch on the CPU, in each worker; None leaves that to torch.
        timeout: seconds that a picture may take in being read, in one explainer, one metric, and so on; a batch may
            take that for each of its pictures. What takes longer is a failure. None waits.
        accelerate: "auto" runs what needs scores alone with the form of a torch network that each worker measures, on
            its first picture, to be the quickest and to give the same scores; the summary says what came of it.
    """

    place: str | os.PathLike[str]
    model: Any
    model_options: Mapping[str, Any] = field(default_factory=dict)
    data: Any = None
    data_options: Mapping[str, Any] = field(default_factory=dict)
    explainers: Any = ()
    metrics: Any = ()
    baselines: bool | Sequence[str] = True
    uncertainty: Mapping[str, Any] | None = None
    counterfactual: Mapping[str, Any] | None = None
    features: Mapping[str, Any] | None = None
    activation_fn: str | Activation | None = "auto"
    threshold: float = 0.5
    score_threshold: float = SCORE
    nms_threshold: float | None = OVERLAP
    max_detections: int = MOST
    instances: Literal["boxes", "masks"] = "boxes"
    chunk: int = 32
    batch: int = 16
    precision: Precision = "auto"
    copy_originals: bool = False
    device: str | None = None
    threads: int | None = None
    timeout: float | None = None
    accelerate: Literal["auto"] | None = None

    def __post_init__(self) -> None:
        for name in ("chunk", "batch"):
            value = getattr(self, name)
            check_count(name, value)
        check_below_one("threshold", self.threshold)
        if self.timeout is not None and not (isinstance(self.timeout, int | float) and 0 < self.timeout < 1e7):
            raise InvalidInput(f"timeout must be a positive number of seconds, got {self.timeout!r}.")
        check_sieve(self.score_threshold, self.nms_threshold, self.max_detections)
        check_choice("instances", self.instances, ("boxes", "masks"))
        check_choice("accelerate", self.accelerate, (None, "auto"))
        check_choice("precision", self.precision, ("auto", "float32", "float16"))
        if isinstance(self.activation_fn, nn.Softmax | nn.Sigmoid):
            object.__setattr__(self, "activation_fn", type(self.activation_fn).__name__.lower())
        check_activation(self.activation_fn)
        check_count("threads", self.threads, optional=True)
        _check_device(self.device)


@dataclass(frozen=True, kw_only=True, eq=False)
class Tools:
    """What a job names, loaded and built: network, data, explainers and metrics.

    Attributes:
        job: what was asked for.
        store: the run folder.
        model: the network.
        data: the pictures.
        classes: names, where there are any.
        explainers: label -> explainer.
        metrics: label -> metric.
        uncertainty: the estimator, or None where the job asks for none.
        counterfactual: the method, or None where the job asks for none.
        features: which vectors are kept, or None.
        sieve: which boxes of a detector are explained; None for a classifier.
        notes: about the activation.
        ids: (kind, label) -> identity, for "explainer" and "metric"; ("run", "") and the like for what there is one of.
        unkept: labels of explainers whose maps are judged and not kept.
        exclusive: whether the classes exclude each other, so that the likeliest is the prediction.
        quantity: what the network's numbers are: "probability", "logit" or "value".
        quick: a quicker form of the network for what needs scores alone, once a worker has found one.
    """

    job: Job
    store: Store
    model: Model
    data: Data
    classes: tuple[str, ...] | None
    explainers: dict[str, Explainer]
    metrics: dict[str, Metric]
    uncertainty: EpistemicUncertainty | None
    counterfactual: HierarchicalOcclusion | None
    features: vectors.Vectors | None
    sieve: Sieve | None
    ids: dict[tuple[str, str], str]
    notes: tuple[str, ...] = ()
    unkept: frozenset[str] = frozenset()
    exclusive: bool = False
    quantity: str = "probability"
    quick: Model | None = None

    @classmethod
    def of(cls, job: Job, known: Mapping[str, Any] | None = None) -> Tools:
        """Loads and builds everything.

        Args:
            job: what is wanted.
            known: what stands in run.json: explainers and metrics keep the labels that they have there.

        Raises:
            SeewhyError: a name, a parameter or a file that does not exist.
        """
        known, data = known or {}, open_data(job.data, **job.data_options)
        _check(job)
        model = _placed(load(job.model, **job.model_options), job.device)
        limit, digest = Limit(job.timeout, getattr(model, "module", None)), model_digest(model)
        model = _rows(model, data, limit)
        model, data, classes = _bound(model, data, known, limit)
        sieve = _sieve(job, model, data, known, limit)
        scores = _scores(job, model, data, known, limit)
        function = scores.activation
        job = replace(job, activation_fn=function)
        methods, metrics = specs.explainers(model, job.explainers, function), specs.metrics(job.metrics, function)
        chance = judging.baselines(model, methods, job.baselines) if methods and metrics else {}
        explainers = labelled(methods | chance, known.get("explainers", {}))
        metrics = labelled(metrics, known.get("metrics", {}))
        sure, what_if = _sure(job, model), _what_if(job, model)
        kept = {label: one for label, one in explainers.items() if one not in chance.values()}
        features = vectors.chosen(job.features, model, kept, known)
        ids = {("explainer", label): identify(one) for label, one in explainers.items()}
        ids |= {("metric", label): identify(one) for label, one in metrics.items()}
        ids |= {("uncertainty", ""): identify(sure)} if sure else {}
        ids |= {("counterfactual", ""): identify(what_if)} if what_if else {}
        weights = ids.get(("explainer", features.explainer or "")) if features else None
        ids |= {(tasks.FEATURES, ""): identity(tasks.FEATURES, weights, features.depths)} if features else {}
        ids["model", ""] = digest
        chosen = (PLAIN, float(job.threshold)) if sieve is None else (FORMAT, sieve)
        masks = ("masks",) if sieve is not None and sieve.masks else ()
        ids["run", ""] = identity(chosen[0], ids["model", ""], _named(function), chosen[1], *masks)
        return cls(
            job=job, store=Store(job.place), model=model, data=data, classes=classes, explainers=explainers,
            metrics=metrics, uncertainty=sure, counterfactual=what_if, features=features, sieve=sieve,
            ids=ids,            unkept=frozenset(label for label, one in explainers.items() if one in chance.values()),
            notes=scores.notes, exclusive=scores.exclusive and sieve is None, quantity=scores.quantity,
        )  # fmt: skip

    def named(self, known: Mapping[str, Any]) -> Tools:
        """Returns these tools with the labels that run.json gives to the same things and to no others.

        Args:
            known: what stands in run.json.
        """
        explainers, metrics = labelled(self.explainers, known["explainers"]), labelled(self.metrics, known["metrics"])
        ids = {key: one for key, one in self.ids.items() if key[0] not in ("explainer", "metric")}
        ids |= {("explainer", label): identify(one) for label, one in explainers.items()}
        ids |= {("metric", label): identify(one) for label, one in metrics.items()}
        return dataclasses.replace(self, explainers=explainers, metrics=metrics, ids=ids)

    @property
    def threshold(self) -> float:
        """The probability or score above which a class, or a detector's box, counts as found."""
        return self.job.threshold if self.sieve is None else self.sieve.score_threshold

    @property
    def run(self) -> str:
        """The identity of model, activation and threshold: parts with another one are not mixed in."""
        return self.ids["run", ""]

    def tasks(self) -> tuple[str, ...]:
        """Returns the identities of everything that is to be done for each picture."""
        found = [tasks.PREDICT, *(self.explain_task(label) for label in self.explainers)]
        found += [self.score_task(e, m) for e in self.explainers for m in self.metrics]
        found += [self.single_task(tasks.UNCERTAINTY)] if self.uncertainty else []
        found += [self.single_task(tasks.COUNTERFACTUAL)] if self.counterfactual else []
        found += [self.single_task(tasks.FEATURES)] if self.features else []
        return tuple(found)

    def explain_task(self, label: str) -> str:
        """Returns the identity of an explainer's maps."""
        return tasks.explain(self.ids["explainer", label])

    def score_task(self, explainer: str, metric: str) -> str:
        """Returns the identity of a metric's scores of an explainer's maps."""
        return tasks.score(self.ids["explainer", explainer], self.ids["metric", metric])

    def single_task(self, kind: str) -> str:
        """Returns the identity of the uncertainty, or of the counterfactual."""
        return tasks.single(kind, self.ids[kind, ""])

    def settings(self, command: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """What stands in run.json."""
        job = self.job
        preprocessing = getattr(self.model, "preprocessing", None)
        return {
            "format": PLAIN if self.sieve is None else FORMAT, "id": self.run,
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "seewhy": version("seewhy"), "torch": torch.__version__,
            "model": {
                "name": self.model.name, "digest": self.ids["model", ""],
                "preprocessing": str(preprocessing) if preprocessing else None,
                "notes": [*getattr(self.model, "notes", ()), *self.notes],
            },
            "activation": _named(job.activation_fn), "threshold": self.threshold,
            "exclusive": self.exclusive, "quantity": self.quantity,
            **({} if self.sieve is None else {"detection": _kept(self.sieve)}),
            "classes": list(self.classes) if self.classes else None,
            "explainers": {label: self._explainer(label) for label in self.explainers},
            "metrics": {label: self._metric(label) for label in self.metrics},
            "uncertainty": _described(self.uncertainty, self.ids.get(("uncertainty", ""))),
            "counterfactual": _described(self.counterfactual, self.ids.get(("counterfactual", ""))),
            "features": _described(self.features, self.ids.get((tasks.FEATURES, ""))),
            "data": {**self.data.describe(), "length": len(self.data), "notes": list(self.data.notes)},
            "chunk": job.chunk, "batch": job.batch, "precision": job.precision,
            "command": dict(command) if command else None,
        }  # fmt: skip

    def _explainer(self, label: str) -> dict[str, Any]:
        one = self.explainers[label]
        traits = ("class_agnostic", "pixelwise", "chance", "values", "caution", "published")
        about = {name: getattr(one, name) for name in traits}
        return {**_what(one), **about, "maps": label not in self.unkept, "id": self.ids["explainer", label]}

    def _metric(self, label: str) -> dict[str, Any]:
        one = self.metrics[label]
        ends = [end if abs(end) != float("inf") else None for end in one.range]
        about = {"better": one.better, "range": ends, "concision": one.concision}
        return {**_what(one), **about, "id": self.ids["metric", label]}


def _check_device(device: str | None) -> None:
    """Raises InvalidInput where nothing can be computed: the name is wrong, or there is no such device here."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, ValueError, TypeError) as error:
        raise InvalidInput(f"device {device!r} cannot be used: {one_line(error).rstrip('.')}.") from error


def _check(job: Job) -> None:
    """Raises for a name or a parameter that is wrong, before a model is waited for."""
    methods = specs.explainers(None, job.explainers, job.activation_fn)
    if specs.metrics(job.metrics, job.activation_fn) and methods:
        judging.baselines(None, methods, job.baselines)
    _sure(job, None)
    _what_if(job, None)
    vectors.chosen(job.features, None, {}, {})


def _sure(job: Job, model: Model | None) -> EpistemicUncertainty | None:
    if job.uncertainty is None:
        return None
    return EpistemicUncertainty(model, **({"activation_fn": job.activation_fn} | dict(job.uncertainty)))


def _what_if(job: Job, model: Model | None) -> HierarchicalOcclusion | None:
    if job.counterfactual is None:
        return None
    shared = {"activation_fn": job.activation_fn, "threshold": max(job.threshold, 0.01)}
    return HierarchicalOcclusion(model, **(shared | dict(job.counterfactual)))


def _rows(model: Model, data: Data, limit: Limit) -> Model:
    """Returns the model for the data, whose further inputs may have one row for each of its pictures.

    Raises:
        InvalidInput: the further inputs do not fit the data.
    """
    first = _first(model, data, limit) if getattr(model, "forward_kwargs", None) else None
    if first is None:
        return model
    with limit(), model.opened():
        return bound(model, first[1][:1], len(data))


def _bound(
    model: Model, data: Data, known: Mapping[str, Any], limit: Limit
) -> tuple[Model, Data, tuple[str, ...] | None]:
    """Returns the data with truth in the network's classes, and the classes' names; those of the data where they fit.

    A network with one score is one for two classes, where the data have two.
    """
    labels: tuple[str, ...] | None = getattr(model, "labels", None)
    if labels or not data.classes:
        return model, data.bind(labels, None), labels
    count = len(known["classes"]) if known.get("classes") else _count(model, data, limit)
    if len(data.classes) == 2 and hasattr(model, "labels") and _count(model, data, limit) == 1:
        named: Any = model
        return replace(named, labels=data.classes), data.bind(data.classes, None), data.classes
    return model, data.bind(None, count), data.classes if count == len(data.classes) else None


def _count(model: Model, data: Data, limit: Limit) -> int | None:
    """Returns how many classes the network has, from one pass with the first picture that can be read."""
    first = _first(model, data, limit)
    if first is None:
        return None
    own, inputs = first
    with limit(), own.opened():
        return own(inputs[:1]).num_classes


class _Scores(NamedTuple):
    """The activation of the network's scores in the whole run, and what follows from it; see `Tools`."""

    activation: str | Activation | None
    exclusive: bool
    quantity: str = "probability"
    notes: tuple[str, ...] = ()


def _scores(job: Job, model: Model, data: Data, known: Mapping[str, Any], limit: Limit) -> _Scores:
    """Returns the activation of the whole run, and what the numbers are then. A run goes on as it began.

    Raises:
        InvalidTarget: the network gives an embedding, which has no classes that a run could explain.
        BadOutput: the softmax of a single score.
    """
    if known and job.activation_fn == "auto":
        stands = known.get("activation")
        stood = as_they_are if stands == AS_THEY_ARE else stands
        return _Scores(stood, bool(known.get("exclusive")), known.get("quantity", "probability"))
    first = _first(model, data, limit)
    unseen = _Scores(
        job.activation_fn, job.activation_fn == "softmax", "logit" if job.activation_fn is None else "probability"
    )
    if first is None:
        return unseen
    own, inputs = first
    with own.opened():
        try:
            with limit():
                outputs = own(inputs[:1])
        except FAILURES:  # whose reason will stand beside the picture
            return unseen
        if outputs.meaning == "embedding":
            raise InvalidTarget(
                f"A run explains classes, and {model.name} gives an embedding of {outputs.num_classes} numbers: "
                f"{outputs.how}. Use seewhy.explain with a SimilarityTarget, or a network with its classifier."
            )
        found = settle(own, inputs[:1], outputs, job.activation_fn)
        said = outputs.activate(found.put).classes
    function = found.name if job.activation_fn == "auto" else job.activation_fn
    notes = tuple(note.text for note in found.notes)
    return _Scores(function, outputs.pair or exclusive(said, found.name), found.quantity, notes)


def _first(model: Model, data: Data, limit: Limit) -> tuple[Model, Tensor] | None:
    """Returns the input of the first picture that can be read, and the model for it."""
    for index in range(len(data)):
        try:
            with limit():
                inputs = prepare(model, data[index].image).inputs
            return at(model, torch.tensor([index], device="cpu")), inputs
        except (SeewhyError, OSError, SystemExit):
            continue
    return None


def _sieve(job: Job, model: Model, data: Data, known: Mapping[str, Any], limit: Limit) -> Sieve | None:
    """Returns which boxes are explained, if the model is a detector; run.json, where there is one, says whether it is.

    Raises:
        InvalidInput: something is asked for that is about classes.
    """
    if not (bool(known.get("detection")) if known else _finds_boxes(model, data, limit)):
        return None
    if job.uncertainty is not None or job.counterfactual is not None:
        what = "Uncertainty" if job.uncertainty is not None else "Hierarchical occlusion"
        raise InvalidInput(f"{what} is about classes, and {model.name} is a detector. Leave it out.")
    return Sieve(
        score_threshold=float(job.score_threshold), max_detections=job.max_detections,
        nms_threshold=None if job.nms_threshold is None else float(job.nms_threshold), masks=job.instances == "masks",
    )  # fmt: skip


def _kept(sieve: Sieve) -> dict[str, Any]:
    """Returns what run.json keeps of the sieve."""
    return {name: value for name, value in dataclasses.asdict(sieve).items() if name != "masks" or value}


def _finds_boxes(model: Model, data: Data, limit: Limit) -> bool:
    """Says whether the network gives boxes; one that fails at a picture will say so when it is explained."""
    asked = isinstance(model, TorchModel | FunctionModel) or callable(getattr(model, "output", None))
    first = _first(model, data, limit) if asked else None
    if first is None:
        return False
    own, inputs = first
    try:
        with limit(), own.opened():
            found = own.detects(inputs[:1]) if isinstance(own, TorchModel) else own(inputs[:1]).boxes is not None
    except FAILURES:
        return False
    return found


def _placed(model: Model, device: str | None) -> Model:
    module = getattr(model, "module", None)
    if device is None or module is None:
        return model
    module.to(device)
    return model


def _what(one: Any) -> dict[str, Any]:
    return {"class": type(one).__name__, "name": registry.name_of(one), "parameters": plain(parameters(one))}


def _described(one: Any, identity_: str | None) -> dict[str, Any] | None:
    return None if one is None else {"parameters": plain(parameters(one)), "id": identity_}


def _named(function: str | Activation | None) -> str | None:
    if function is as_they_are:
        return AS_THEY_ARE
    return function if function is None or isinstance(function, str) else str(plain(function))
