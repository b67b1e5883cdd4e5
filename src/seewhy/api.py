"""The door: one call from a picture to an explanation."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import torch
from torch import Tensor

from seewhy import registry
from seewhy.attribution import Attribution, about_all
from seewhy.checks import check_choice
from seewhy.detection import MOST, OVERLAP, SCORE, BoxTarget, Detection, MaskTarget, check_sieve, detect
from seewhy.errors import InvalidInput, InvalidType, MissingCapability, NoSpatialOutput, UnknownParameter, nearest
from seewhy.explainers import Explainer
from seewhy.explanation import Explanation
from seewhy.inputs import Batch, count, opened, together, unpacked
from seewhy.joining import joined
from seewhy.maps import VOLUME, size_of, upsample
from seewhy.metrics import Case, explaining, resampling
from seewhy.metrics.trust_grade import TrustGrade
from seewhy.models import FeatureModel, GradientModel, Model, TokenModel, TransformerModel, at, bound
from seewhy.models.loading import load
from seewhy.models.quickest import PASSES, Form, quickest
from seewhy.models.torch.model import TorchModel
from seewhy.models.torch.towers import spoken
from seewhy.perturbation import Settled, settle
from seewhy.plain import class_name
from seewhy.progress import Bar, Listener, check_progress, listening
from seewhy.regions import RegionTarget
from seewhy.targets import ClassTarget, Request, TargetSet, one_at_a_time
from seewhy.trust import Trust
from seewhy.types import Activation, Note, Outputs, check_activation

__all__ = ["build", "detections", "explain"]


def explain(
    model: Any, image: Any, targets: Any = None, method: Any = "auto", *,
    activation_fn: str | Activation | None = "auto", progress: bool | Listener = True,
    accelerate: Literal["auto"] | None = None, **parameters: Any,
) -> Explanation:  # fmt: skip
    """Why the model says what it says about a picture.

    Args:
        model: what `seewhy.load` takes: a torch module, "timm:NAME", a callable, a loaded model.
        image: a path, a PIL image, an array (H, W, 3), a list of those; or a tensor (C,H,W) or (N,C,H,W), for volumes
            and clips (N,C,D,H,W), which is taken as the network's input and not preprocessed again; or a dictionary of
            such a tensor and further arguments of the network's forward, as Hugging Face's processors return it.
        targets: None (the predicted class; every box that a detector finds in one picture), class indices or names, one
            or a list; "all"; `Target` objects such as those of `detections`.
        method: a registry name ("grad_cam"), an explainer class, or "auto": for a detector's classes
            DetClassProbabilityMap and for its boxes RISE, ViTReciproCAM for a vision transformer, ReciproCAM where the
            network has a feature map, else RISE.
        activation_fn: scores -> probabilities: "softmax", "sigmoid", None or a callable; "auto": the softmax of several
            scores and the sigmoid of one. Scores that are probabilities already are left alone, which is said.
        progress: a bar on the terminal (with exact totals, in forward passes), False, or a callback (done, total).
        accelerate: "auto" runs methods that need scores alone with the form of a torch network that is measured to be
            the quickest here and gives the same scores; see `seewhy.models.quickest`. A note says what came of it.
        parameters: of the method; an unknown one is an error that names the nearest.

    Returns:
        The maps with everything that is needed to judge them.

    Raises:
        SeewhyError: see the message.

    Example:
        >>> model = seewhy.load(network, labels=list("abcde"), preprocessing=preprocessing)
        >>> explanation = explain(model, photo, "c", "grad_cam", progress=False)
        >>> explanation.labels, explanation.overlay().size
        ([['c']], (60, 40))
    """
    asked = _Asked(method, activation_fn, parameters, progress, accelerate)
    given = opened(image)
    if (known := count(given)) is not None:
        Request.check(targets, known)
    network, given = unpacked(load(model), given)
    network, targets = spoken(network, targets)
    n = count(given) or 0
    request = Request.named(targets, getattr(network, "labels", None), n)
    batches = together(network, given, apart=request.apart)
    network = _bound(network, batches, n)
    if len(batches) == 1:
        return _explained(network, batches[0][0], request, asked)
    if request.kind == "predicted" and _detects(network, batches[0][0].inputs):
        raise one_at_a_time(n)
    parts = [
        _explained(at(network, torch.tensor(places)), batch, request.rows(places), asked) for batch, places in batches
    ]
    return joined(parts, [places for _, places in batches])


@dataclass(frozen=True)
class _Asked:
    """How it is to be explained; what can be refused before there is a network is refused here."""

    method: Any
    activation_fn: Any
    parameters: dict[str, Any]
    progress: bool | Listener
    accelerate: str | None = None

    def __post_init__(self) -> None:
        check_activation(self.activation_fn)
        check_choice("accelerate", self.accelerate, [None, "auto"])
        check_progress(self.progress)
        if not self.automatic:
            self.build(self.method, None)
            return
        kinds = [registry.load("explainers", method) for method in _AUTO]
        known = dict.fromkeys(f.name for kind in kinds for f in fields(kind) if f.name != "network")
        if wrong := [name for name in self.parameters if name not in known]:
            raise UnknownParameter(
                f"No method that 'auto' may choose has a parameter {wrong[0]!r}. {nearest(wrong[0], known)}"
            )

    @property
    def automatic(self) -> bool:
        return isinstance(self.method, str) and self.method == "auto"

    def build(self, method: Any, network: Model | None) -> Explainer:
        return build(method, network, self.activation_fn, self.parameters)


def _bound(network: Model, batches: list[tuple[Batch, list[int]]], n: int) -> Model:
    """Returns the model for n pictures, whose further inputs may have one row for each."""
    if not getattr(network, "forward_kwargs", None):
        return network
    first = batches[0][0].inputs
    with network.opened():
        network.check(first)
        return bound(network, first) if len(batches) == 1 else bound(network, first[:1], n)


def _explained(network: Model, batch: Batch, request: Request, asked: _Asked) -> Explanation:
    """Pictures of one input size."""
    size = size_of(batch.inputs)
    request = request.placed(batch.views[0], (size[-2], size[-1]))
    chosen, reason = _choose(network, batch.inputs, request) if asked.automatic else (asked.method, ())
    explainer = asked.build(chosen, network)
    started = time.perf_counter()
    quick = _quick(network, batch.inputs, explainer) if asked.accelerate else None
    with Bar(type(explainer).__name__, asked.progress) as bar, listening(bar):
        try:
            found = (explainer if quick is None else replace(explainer, network=quick.model)).run(batch.inputs, request)
        except NoSpatialOutput as error:  # of tokens or candidates that no method above RISE can place
            if not asked.automatic:
                raise
            found, explainer, reason = _otherwise(network, batch.inputs, request, asked, error)
    seconds = time.perf_counter() - started
    with network.opened():
        said = _said(network, batch.inputs, found, asked.activation_fn)
    predicted = request.kind == "predicted"
    forms = () if quick is None else (quick.said,)
    known = about_all((*getattr(network, "notes", ()), *reason, *forms, *batch.warnings))
    unsure = _unsure(network, found.outputs) if predicted else []
    notes = tuple(dict.fromkeys([*known, *found.notes, *said.pop("notes"), *unsure]))
    return Explanation(
        raw=found.raw,
        error=None if found.error is None else found.error.detach(),
        size=size,
        targets=found.targets.classes,
        method=registry.name_of(explainer),
        parameters=explainer.parameters,
        model=network.name,
        layer=found.layer,
        passes=found.passes,
        seconds=seconds,
        notes=notes,
        pictures=batch.pictures,
        stacks=batch.stacks,
        views=batch.views,
        names=batch.names,
        values=explainer.values,
        asker=_Asker(network, explainer, batch.inputs, found.targets, asked.activation_fn),
        **said,
    )


def _quick(network: Model, inputs: Tensor, explainer: Explainer) -> Form:
    """Returns what a method is run with, where the quickest form is wanted."""
    if explainer.needs is not Model or explainer.chance:
        name = type(explainer).__name__
        return Form(network, f"Run as it is: {name} makes few passes, or looks at more than scores.")
    return quickest(network, inputs, PASSES * len(inputs))


@dataclass(frozen=True, eq=False)
class _Asker:
    """What `Explanation.trust` asks: the network that was explained, about the inputs that it was given."""

    network: Model
    explainer: Explainer
    inputs: Tensor
    targets: TargetSet
    activation_fn: Any

    def __call__(self, i: int, t: int, raw: Tensor) -> Trust:
        if self.inputs.ndim == VOLUME:
            raise MissingCapability(
                "How far a map can be trusted is asked with changed pictures (N, C, H, W); for volumes and clips that "
                "is not defined."
            )
        classes, image = self.targets.classes, self.inputs[i]
        model = at(self.network, torch.tensor([i], device="cpu"))
        explainer = replace(self.explainer, network=model)
        case = Case(
            model=model, image=image, target=self.targets.targets[t] if classes is None else int(classes[i, t]),
            saliency=upsample(raw[None, None].float(), (image.shape[1], image.shape[2]))[0, 0],
            explain=explaining(explainer, model), resample=resampling(explainer, model),
        )  # fmt: skip
        return TrustGrade(activation_fn=self.activation_fn).ask(case)


def detections(
    model: Any, image: Any, *, score_threshold: float = SCORE, nms_threshold: float | None = OVERLAP,
    max_detections: int = MOST,
) -> Any:  # fmt: skip
    """What a detector finds, to be looked at or to be given to `explain` as targets.

    Args:
        model: what `seewhy.load` takes.
        image: as in `explain`.
        score_threshold: boxes with a score above it are kept.
        nms_threshold: boxes of one class that overlap a better one by more are dropped; None keeps them, as DETR does.
        max_detections: at most so many an image.

    Returns:
        A list of `Detection`, the best first; for a list of pictures or a tensor (N,C,H,W) a list of such lists.

    Raises:
        InvalidTarget: the model gives no boxes.
        SeewhyError: see the message.

    Example:
        >>> found = detections(detector, inputs[0], score_threshold=0.1, max_detections=3)
        >>> len(found), found[0].score >= found[1].score
        (3, True)
    """
    check_sieve(score_threshold, nms_threshold, max_detections)
    given = opened(image)
    network, given = unpacked(load(model), given)
    labels: Sequence[str] | None = getattr(network, "labels", None)
    by_place: dict[int, list[Detection]] = {}
    for batch, places in together(network, given):
        network.check(batch.inputs)
        with network.opened():
            outputs = network(batch.inputs)
        objects = detect(
            outputs, score_threshold=score_threshold, nms_threshold=nms_threshold, max_detections=max_detections
        )
        by_place |= dict(zip(places, objects, strict=True))
    found = [[replace(one, name=class_name(one.label, labels)) for one in by_place[i]] for i in sorted(by_place)]
    many = isinstance(image, list | tuple) or (isinstance(image, Tensor) and image.ndim == 4)
    return found if many else found[0]


_AUTO = ("recipro_cam", "vit_recipro_cam", "grad_cam", "det_class_probability_map", "rise")


def _choose(network: Model, inputs: Tensor, request: Request) -> tuple[str, tuple[str, ...]]:
    """One of the methods that need no parameters and few passes, and why it was chosen."""
    if _detects(network, inputs):
        return _for_detector(request)
    if not isinstance(network, FeatureModel):
        return "rise", (f"Method 'auto' chose RISE: {network.name} gives scores only.",)
    if isinstance(network, TransformerModel | TokenModel):
        with contextlib.suppress(NoSpatialOutput), network.opened():
            body = network.blocks(inputs) if isinstance(network, TokenModel) else network.transformer(inputs)
            return "vit_recipro_cam", (f"Method 'auto' chose ViTReciproCAM at layer {body.last!r}.",)
    try:
        with network.opened():
            layer = network.auto_layer(inputs)
    except NoSpatialOutput as error:
        return "rise", (f"Method 'auto' chose RISE. {error}",)
    return "recipro_cam", (f"Method 'auto' chose ReciproCAM at layer {layer!r}.",)


def _otherwise(
    network: Model, inputs: Tensor, request: Request, asked: _Asked, error: NoSpatialOutput
) -> tuple[Attribution, Explainer, tuple[str, ...]]:
    """The map of a network whose tokens no method can show one by one: by gradients, or from its scores alone."""
    if isinstance(network, GradientModel) and not _detects(network, inputs):
        with contextlib.suppress(NoSpatialOutput, InvalidInput, UnknownParameter):
            explainer = asked.build("grad_cam", network)
            found = explainer.run(inputs, request)
            return found, explainer, (f"Method 'auto' chose GradCAM at layer {found.layer!r}. {error}",)
    explainer = asked.build("rise", network)
    return explainer.run(inputs, request), explainer, (f"Method 'auto' chose RISE. {error}",)


def _detects(network: Model, inputs: Tensor) -> bool:
    """Says whether the network gives boxes; only where that may be, and is not known, it is run to find out."""
    with network.opened():
        if isinstance(network, TorchModel):
            return network.detects(inputs)
        return callable(getattr(network, "output", None)) and network(inputs[:1]).boxes is not None


def _for_detector(request: Request) -> tuple[str, tuple[str, ...]]:
    if request.kind in ("classes", "all", "chosen"):
        return "det_class_probability_map", ("Method 'auto' chose DetClassProbabilityMap for a detector's classes.",)
    return "rise", ("Method 'auto' chose RISE for a detector's boxes, one by one (D-RISE).",)


def build(method: Any, network: Model | None, activation_fn: Any, parameters: dict[str, Any]) -> Explainer:
    """Makes an explainer from its registry name or class; the activation goes to the methods that have one.

    Args:
        method: a registry name or an `Explainer` class.
        network: what is explained; None to see whether the name and the parameters are right.
        activation_fn: scores -> probabilities.
        parameters: of the method.

    Raises:
        UnknownName, UnknownParameter, InvalidInput, InvalidType: see the message.
    """
    if isinstance(method, Explainer):
        raise InvalidType(f"method is a name or a class, got {method!r}. Call it directly: explainer(inputs, targets).")
    kind = registry.load("explainers", method) if isinstance(method, str) else method
    if not (isinstance(kind, type) and issubclass(kind, Explainer)):
        raise InvalidType(f"method is a registry name or an Explainer class, got {method!r}.")
    takes = {f.name for f in fields(kind)}
    made: Explainer = kind(
        network, **({"activation_fn": activation_fn} if "activation_fn" in takes else {}) | parameters
    )
    return made


def _said(network: Model, inputs: Tensor, found: Attribution, activation_fn: Any) -> dict[str, Any]:
    """What the network says about the pictures and the targets, in names and probabilities."""
    labels: Sequence[str] | None = getattr(network, "labels", None)
    outputs, targets = found.outputs, found.targets
    similar = not targets.activates
    settled = Settled(None, "similarity") if similar else settle(network, inputs, outputs, activation_fn)
    activated = outputs.activate(settled.put)
    best, predicted = (v.tolist() for v in activated.classes.max(1))
    preprocessing = getattr(network, "preprocessing", None)
    n = len(found.raw)
    if targets.classes is None:
        names = [_target_names(targets.targets, labels, outputs.word)] * n
    else:
        names = [[class_name(c, labels, outputs.word) for c in row] for row in targets.classes.tolist()]
    says = [(class_name(c, labels, outputs.word), p) for c, p in zip(predicted, best, strict=True)]
    boxes = [getattr(target, "box", None) for target in targets.targets]
    plain = tuple(one.box_target if isinstance(one, Detection) else one for one in targets.targets)
    shown = replace(targets, targets=plain)  # a detection's number is its probability, not a similarity
    return {
        "labels": names,
        "probabilities": shown.values(activated),
        "quantity": _quantity(shown, settled),
        "predicted": [None] * n if similar or outputs.meaning == "embedding" else says,
        "notes": settled.notes,
        "preprocessing": str(preprocessing) if preprocessing else None,
        "boxes": [boxes] * n if any(box is not None for box in boxes) else [],
    }


def _target_names(targets: Sequence[Any], labels: Sequence[str] | None, word: str) -> list[str]:
    """Returns the classes of boxes and masks, counted where there are several of one class."""
    given = [getattr(target, "label", None) for target in targets]
    texts = [getattr(target, "text", "") or f"target {t}" for t, target in enumerate(targets)]
    plain = [
        text if label is None else class_name(label, labels, word) for label, text in zip(given, texts, strict=True)
    ]
    before = [plain[:t].count(name) for t, name in enumerate(plain)]
    return [f"{name} {count + 1}" if count else name for name, count in zip(plain, before, strict=True)]


def _unsure(network: Model, outputs: Outputs) -> list[Note]:
    """Says so where nothing shows that the likeliest of a network's outputs is a class."""
    if getattr(network, "labels", None) or outputs.seen or not outputs.how or outputs.word != "class":
        return []
    return about_all([
        f"Of the network's {outputs.num_classes} outputs, {outputs.how}. If they are an embedding, pass "
        "targets=seewhy.SimilarityTarget(embedding=...)."
    ])  # fmt: skip


def _quantity(targets: TargetSet, settled: Settled) -> str:
    """What the targets' numbers are; a box's is the probability of its class times its overlap, which is 1."""
    kinds = BoxTarget | MaskTarget | Detection | ClassTarget | RegionTarget
    found = all(isinstance(one, kinds) for one in targets.targets)
    return settled.quantity if found or settled.quantity == "similarity" else "value"
