"""The door: one call from a picture to an explanation."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from seewhy import registry
from seewhy.attribution import Attribution, about_all
from seewhy.checks import check_inputs
from seewhy.detection import MOST, OVERLAP, SCORE, BoxTarget, Detection, MaskTarget, detect
from seewhy.errors import InvalidInput, InvalidTarget, InvalidType, NoSpatialOutput, nearest
from seewhy.explainers import Explainer
from seewhy.explanation import Explanation, joined
from seewhy.images.images import Preprocessing, stretched
from seewhy.images.reading import read
from seewhy.images.statistics import check_statistics
from seewhy.images.view import View
from seewhy.models import FeatureModel, Model, TokenModel, TransformerModel, at, bound
from seewhy.models.loading import load
from seewhy.models.torch.model import TorchModel
from seewhy.models.torch.towers import spoken
from seewhy.perturbation import Settled, settle
from seewhy.progress import Listener, listening
from seewhy.targets import ClassTarget, Request, TargetSet, one_at_a_time
from seewhy.types import Activation, Note, Outputs

__all__ = ["Bar", "Batch", "build", "detections", "explain", "prepare", "resolve_labels", "together"]


@dataclass(frozen=True)
class Batch:
    """Pictures as the network takes them, and the way back.

    Attributes:
        inputs: (N, C, H, W).
        pictures: the originals.
        views: where each was seen by the network.
        names: what each is called.
        warnings: about the inputs.
    """

    inputs: Tensor
    pictures: list[Image.Image]
    views: list[View]
    names: list[str]
    warnings: tuple[str, ...] = ()


def explain(
    model: Any, image: Any, targets: Any = None, method: Any = "auto", *,
    activation_fn: str | Activation | None = "auto", progress: bool | Listener = True, **parameters: Any,
) -> Explanation:  # fmt: skip
    """Why the model says what it says about a picture.

    Args:
        model: what `seewhy.load` takes: a torch module, "timm:NAME", a callable, a loaded model.
        image: a path, a PIL image, an array (H, W, 3), a list of those; or a tensor (C,H,W) or (N,C,H,W), which is
            taken as the network's input and not preprocessed again; or a dictionary of such a tensor and further
            arguments of the network's forward, as Hugging Face's processors return it.
        targets: None (the predicted class; every box that a detector finds in one picture), class indices or names, one
            or a list; "all"; `Target` objects such as those of `detections`.
        method: a registry name ("grad_cam"), an explainer class, or "auto": for a detector's classes
            DetClassProbabilityMap and for its boxes RISE, ViTReciproCAM for a vision transformer, ReciproCAM where the
            network has a feature map, else RISE.
        activation_fn: scores -> probabilities: "softmax", "sigmoid", None or a callable; "auto": the softmax of several
            scores and the sigmoid of one. Scores that are probabilities already are left alone, which is said.
        progress: a bar on the terminal (with exact totals, in forward passes), False, or a callback (done, total).
        parameters: of the method; an unknown one is an error that names the nearest.

    Returns:
        The maps with everything that is needed to judge them.

    Raises:
        SeewhyError: see the message.
    """
    network, image = _unpacked(load(model), image)
    network, targets = spoken(network, targets)
    batches = together(network, image, apart=_in_pictures(targets))
    n = sum(len(batch.names) for batch, _ in batches)
    asked = resolve_labels(targets, getattr(network, "labels", None), n)
    request = Request.parse(asked, n)
    network = _bound(network, batches, n)
    if len(batches) == 1:
        return _explained(network, batches[0][0], asked, method, activation_fn, progress, parameters)
    if request.kind == "predicted" and _detects(network, batches[0][0].inputs):
        raise one_at_a_time(n)
    parts = [
        _explained(
            at(network, torch.tensor(places)), batch, _rows(request, asked, places), method, activation_fn, progress,
            parameters,
        )
        for batch, places in batches
    ]  # fmt: skip
    return joined(parts, [places for _, places in batches])


def _bound(network: Model, batches: list[tuple[Batch, list[int]]], n: int) -> Model:
    """The model for n pictures, whose further inputs may have one row for each."""
    if not getattr(network, "forward_kwargs", None):
        return network
    first = batches[0][0].inputs
    with network.opened():
        network.check(first)
        return bound(network, first) if len(batches) == 1 else bound(network, first[:1], n)


def _in_pictures(targets: Any) -> bool:
    """Whether a target is a box in pixels of the picture, so that it is another one for each picture's input."""
    several = targets if isinstance(targets, list | tuple) else [targets]
    return any(isinstance(one, BoxTarget) and one.picture_box is not None for one in several)


def _rows(request: Request, asked: Any, places: list[int]) -> Any:
    """What was asked for some of the pictures."""
    return asked if request.classes is None else request.classes[places]


def _explained(
    network: Model, batch: Batch, asked: Any, method: Any, activation_fn: Any, progress: bool | Listener,
    parameters: dict[str, Any],
) -> Explanation:  # fmt: skip
    """Pictures of one input size."""
    size = (batch.inputs.shape[2], batch.inputs.shape[3])
    asked = _placed_boxes(asked, batch.views[0], size)
    request = Request.parse(asked, len(batch.inputs))
    chosen, reason = _choose(network, batch.inputs, method, request)
    explainer = build(chosen, network, activation_fn, parameters)
    started = time.perf_counter()
    with Bar(type(explainer).__name__, progress) as listener, listening(listener):
        try:
            found = explainer.run(batch.inputs, request)
        except NoSpatialOutput as error:  # of tokens or candidates that no method above RISE can place
            if not isinstance(method, str) or method != "auto":
                raise
            reason, explainer = (
                (f"Method 'auto' chose RISE. {error}",),
                build("rise", network, activation_fn, parameters),
            )
            found = explainer.run(batch.inputs, request)
    seconds = time.perf_counter() - started
    with network.opened():
        said = _said(network, batch.inputs, found, activation_fn)
    predicted = request.kind == "predicted"
    known = about_all((*getattr(network, "notes", ()), *reason, *batch.warnings))
    unsure = _unsure(network, found.outputs) if predicted else []
    notes = tuple(dict.fromkeys([*known, *found.notes, *said.pop("notes"), *unsure]))
    return Explanation(
        raw=found.raw,
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
        views=batch.views,
        names=batch.names,
        values=explainer.values,
        **said,
    )


def _placed_boxes(asked: Any, view: View, size: tuple[int, int]) -> Any:
    """The targets; boxes in pixels of the picture as boxes in pixels of its input."""
    if not _in_pictures(asked):
        return asked
    several = asked if isinstance(asked, list | tuple) else [asked]
    return [one.placed(view, size) if isinstance(one, BoxTarget) else one for one in several]


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
    """
    network, image = _unpacked(load(model), image)
    labels: Sequence[str] | None = getattr(network, "labels", None)
    by_place: dict[int, list[Detection]] = {}
    for batch, places in together(network, image):
        network.check(batch.inputs)
        with network.opened():
            outputs = network(batch.inputs)
        objects = detect(
            outputs, score_threshold=score_threshold, nms_threshold=nms_threshold, max_detections=max_detections
        )
        by_place |= dict(zip(places, objects, strict=True))
    found = [[replace(one, name=_label(one.label, labels)) for one in by_place[i]] for i in sorted(by_place)]
    many = isinstance(image, list | tuple) or (isinstance(image, Tensor) and image.ndim == 4)
    return found if many else found[0]


def resolve_labels(targets: Any, labels: Sequence[str] | None, n: int) -> Any:
    """Class names -> indices; a flat list for a single image becomes its several targets.

    Raises:
        InvalidTarget: the name is unknown (the nearest are offered), ambiguous, or the model has no class names.
    """
    if isinstance(targets, str) and targets != "all":
        return _label_index(targets, labels)
    if isinstance(targets, list | tuple) and targets and not callable(targets[0]):
        indices = [_label_index(t, labels) if isinstance(t, str) else t for t in targets]
        flat = not any(isinstance(t, list | tuple | np.ndarray | Tensor) for t in indices)
        return [indices] if n == 1 and flat else indices
    return targets


def _label_index(name: str, labels: Sequence[str] | None) -> int:
    if name.isdecimal():
        return int(name)
    if not labels:
        raise InvalidTarget(f"The model has no class names, so {name!r} cannot be looked up. Pass the class's index.")
    wanted = name.strip().casefold()
    exact = [i for i, label in enumerate(labels) if label.casefold() == wanted]
    found = exact or [i for i, label in enumerate(labels) if wanted in label.casefold().split(", ")]
    if len(found) == 1:
        return found[0]
    if found:
        raise InvalidTarget(f"{name!r} names several classes: {', '.join(map(str, found))}. Pass an index.")
    raise InvalidTarget(f"The model has no class {name!r}. {nearest(name, labels)}")


def _unpacked(network: Model, image: Any) -> tuple[Model, Any]:
    """The pictures in a dictionary of a forward's arguments, and the model with the others."""
    if not isinstance(image, Mapping):
        return network, image
    if not isinstance(network, TorchModel):
        raise InvalidType(f"A dictionary of arguments is for torch modules; {network.name} takes the pictures alone.")
    name = network.picture_in(image)
    others = {key: value for key, value in image.items() if key != name}
    return replace(network, forward_kwargs={**network.forward_kwargs, **others}, input_name=name), image[name]


def prepare(network: Model, image: Any) -> Batch:
    """The network's input from whatever form of picture the caller has; see `explain`.

    Raises:
        InvalidInput: how a picture becomes an input is not known, or pictures become inputs of several sizes.
    """
    found = together(network, image)
    if len(found) > 1:
        sizes = ", ".join(f"{b.inputs.shape[2]} x {b.inputs.shape[3]}" for b, _ in found)
        raise InvalidInput(f"The pictures become inputs of several sizes: {sizes}. Pass them one by one.")
    return found[0][0]


def together(network: Model, image: Any, *, apart: bool = False) -> list[tuple[Batch, list[int]]]:
    """The pictures whose inputs have one size, and where each stands among all; see `explain`.

    Args:
        network: whose preprocessing is used.
        image: as in `explain`.
        apart: each picture alone.
    """
    if isinstance(image, Tensor):
        batch = _prepared_already(network, image)
        return [(batch, list(range(len(batch.names))))]
    many = isinstance(image, list | tuple)
    pictures = [read(one) for one in image] if many else [read(image)]
    if not pictures:
        raise InvalidInput("There is no picture to explain: the list is empty.")
    preprocessing: Preprocessing | None = getattr(network, "preprocessing", None)
    if preprocessing is None:
        raise InvalidInput(
            f"How a picture becomes an input of {network.name} is not known. Pass "
            "seewhy.load(model, preprocessing=seewhy.Preprocessing(size=..., mean=..., std=...)), or a tensor that is "
            "ready for the network."
        )
    made = [preprocessing(picture) for picture in pictures]
    names = [_name(one, i) for i, one in enumerate(image if many else [image])]
    alike: dict[Any, list[int]] = {}
    for i, (tensor, _) in enumerate(made):
        alike.setdefault(i if apart else tensor.shape, []).append(i)
    return [
        (
            Batch(
                _placed(network, torch.cat([made[i][0] for i in places])), [pictures[i] for i in places],
                [made[i][1] for i in places], [names[i] for i in places],
            ),
            places,
        )
        for places in alike.values()
    ]  # fmt: skip


def _prepared_already(network: Model, image: Tensor) -> Batch:
    inputs = image.unsqueeze(0) if image.ndim == 3 else image
    check_inputs(inputs)
    preprocessing: Preprocessing | None = getattr(network, "preprocessing", None)
    fits = preprocessing is not None and len(preprocessing.mean) == inputs.shape[1]
    warnings = check_statistics(inputs, preprocessing) if preprocessing is not None and fits else []
    show = preprocessing.denormalise if preprocessing is not None and fits else stretched
    n, _, height, width = inputs.shape
    names = [f"image {i}" for i in range(n)]
    return Batch(inputs, [show(one) for one in inputs], [View.identity(height, width)] * n, names, tuple(warnings))


def _placed(network: Model, inputs: Tensor) -> Tensor:
    """Pictures go where the network is; tensors that the caller made are left alone."""
    module = getattr(network, "module", None)
    first = next((p for p in module.parameters() if p.dtype.is_floating_point), None) if module is not None else None
    return inputs if first is None else inputs.to(first.device, first.dtype)


def _name(image: Any, number: int) -> str:
    path = image if isinstance(image, str | Path) else getattr(image, "filename", None)
    return Path(path).name if path else f"image {number}"


def _choose(network: Model, inputs: Tensor, method: Any, request: Request) -> tuple[Any, tuple[str, ...]]:
    if not isinstance(method, str) or method != "auto":
        return method, ()
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


def _detects(network: Model, inputs: Tensor) -> bool:
    """Whether the network gives boxes; only where that may be, and is not known, it is run to find out."""
    with network.opened():
        if isinstance(network, TorchModel):
            return network.detects(inputs)
        return callable(getattr(network, "output", None)) and network(inputs[:1]).boxes is not None


def _for_detector(request: Request) -> tuple[str, tuple[str, ...]]:
    if request.kind in ("classes", "all", "chosen"):
        return "det_class_probability_map", ("Method 'auto' chose DetClassProbabilityMap for a detector's classes.",)
    return "rise", ("Method 'auto' chose RISE for a detector's boxes, one by one (D-RISE).",)


def build(method: Any, network: Model, activation_fn: Any, parameters: dict[str, Any]) -> Explainer:
    """An explainer from its registry name or class; the activation goes to the methods that have one."""
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
        names = [_target_names(targets.targets, labels)] * n
    else:
        names = [[_label(c, labels, outputs.word) for c in row] for row in targets.classes.tolist()]
    says = [(_label(c, labels, outputs.word), p) for c, p in zip(predicted, best, strict=True)]
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


def _target_names(targets: Sequence[Any], labels: Sequence[str] | None) -> list[str]:
    """The classes of boxes and masks, counted where there are several of one class."""
    given = [getattr(target, "label", None) for target in targets]
    texts = [getattr(target, "text", "") or f"target {t}" for t, target in enumerate(targets)]
    plain = [text if label is None else _label(label, labels) for label, text in zip(given, texts, strict=True)]
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
    found = all(isinstance(one, BoxTarget | MaskTarget | Detection | ClassTarget) for one in targets.targets)
    return settled.quantity if found or settled.quantity == "similarity" else "value"


def _label(index: int, labels: Sequence[str] | None, word: str = "class") -> str:
    return labels[index] if labels and index < len(labels) else f"{word} {index}"


class Bar:
    """A progress bar that appears with the first report and only on a terminal, or the caller's own listener."""

    def __init__(self, title: str, progress: bool | Listener, unit: str = "pass") -> None:
        self.title, self.progress, self.unit = title, progress, unit
        self.bar: tqdm[Any] | None = None

    def __enter__(self) -> Listener | None:
        if isinstance(self.progress, bool):
            return self._draw if self.progress else None
        return self.progress

    def __exit__(self, *error: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def _draw(self, done: int, total: int) -> None:
        if self.bar is None:
            self.bar = tqdm(total=total, desc=self.title, unit=self.unit, leave=False, disable=None)
        self.bar.update(done - self.bar.n)
