"""The protocol of a metric: a frozen dataclass that gives one number to one map.

    metric = DeletionAUC()
    metric(case)                                      # one map, with everything a metric may need to judge it
    metric.evaluate(explainer, inputs, targets)       # (N,): the explainer's maps of a batch

NaN means that there is nothing to judge ("no data"); it is counted, never averaged as 0. A new metric is one new file:
a class that extends `Metric`, says which end is better and within which range it lies, and gives the number in
``_judge``. The registry finds it by the file's name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, cast

import torch
from torch import Tensor

from seewhy import registry
from seewhy.errors import BadOutput, InvalidInput, InvalidType, UnknownParameter, nearest
from seewhy.foreign import as_torch
from seewhy.metrics._answers import Name, ask, remembering
from seewhy.models import Model, at, bound
from seewhy.models.adapters import as_model
from seewhy.perturbation import Settled, chunked, probabilities, settle
from seewhy.targets import BoxTarget, Request, Target, TargetSet
from seewhy.types import Activation, check_activation, check_inputs, same

__all__ = ["Case", "Cost", "Mapper", "Metric", "Said", "cases", "explaining", "remembering", "resampling", "scores"]


class Mapper(Protocol):
    """What a metric needs of an explainer."""

    @property
    def network(self) -> Any:
        """What is explained."""
        ...

    def attribute(self, inputs: Tensor, targets: Any = None) -> Tensor:
        """(N, C, H, W) -> (N, T, H, W) raw maps."""
        ...


class Cost(NamedTuple):
    """What one map costs to judge, besides making it.

    Attributes:
        forward: images that go through the network.
        explanations: further maps that the explainer has to make.
    """

    forward: int = 0
    explanations: int = 0


class Said(NamedTuple):
    """A metric's number and what the metric says beside it, in a line; "" where it says nothing."""

    value: float
    text: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """One map to be judged.

    Attributes:
        model: what was explained.
        image: (C, H, W) the network's input.
        target: a class index or a `Target`.
        saliency: (H, W) float, raw: signed and unscaled. A map scaled to [0, 1] can be judged too.
        truth: (H, W) bool, where the object is; None when that is not known.
        explain: ((R, C, H, W), target or R class indices) -> (R, H, W) raw maps by the same method of the same
            network, which a metric may have changed; None when only the map is there.
        resample: the same with another seed; None where the method draws nothing at random.
    """

    model: Model
    image: Tensor
    target: int | Target
    saliency: Tensor
    truth: Tensor | None = None
    explain: Callable[[Tensor, Any], Tensor] | None = field(default=None, repr=False)
    resample: Callable[[Tensor, Any], Tensor] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.image.ndim != 3:
            raise InvalidInput(f"A case's image must have shape (C, H, W), got {tuple(self.image.shape)}.")
        size = tuple(self.image.shape[1:])
        if tuple(self.saliency.shape) != size:
            raise InvalidInput(f"The map must have the image's size, {size}, got {tuple(self.saliency.shape)}.")
        if not bool(torch.isfinite(self.saliency).all()):
            raise InvalidInput("The map has NaN or infinite values.")
        if self.truth is not None and tuple(self.truth.shape) != size:
            raise InvalidInput(f"The ground truth must have the image's size, {size}, got {tuple(self.truth.shape)}.")


@dataclass(frozen=True, kw_only=True, eq=False)
class Metric:
    """What every metric can do.

    A class says which end of its scale is ``better``, the scale's ``range``, and whether it ``needs_truth`` (a mask of
    the object) or ``needs_explainer`` (it explains other images, too). ``concision``: it says how few pixels
    a map needs, be they the right ones or not, and has no weight in a verdict unless it is given one.
    """

    better: ClassVar[Literal["higher", "lower"]] = "higher"
    range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    needs_truth: ClassVar[bool] = False
    needs_explainer: ClassVar[bool] = False
    concision: ClassVar[bool] = False

    def __new__(cls, *args: Any, **parameters: Any) -> Metric:
        """Refuses parameters that the metric does not have, naming the nearest."""
        known = [f.name for f in fields(cls) if f.init]
        for name in parameters:
            if name not in known:
                raise UnknownParameter(f"{cls.__name__} has no parameter {name!r}. {nearest(name, known)}")
        return super().__new__(cls)

    def __call__(self, case: Case) -> float:
        """Returns the number; NaN when there is nothing to judge.

        Raises:
            InvalidInput: the case lacks something that the metric needs, or its ground truth is empty.
        """
        return self.said(case).value

    def said(self, case: Case) -> Said:
        """Returns the number with what the metric says beside it; raises as a call does."""
        name = type(self).__name__
        if self.needs_truth:
            if case.truth is None:
                raise InvalidInput(f"{name} compares the map with the truth. Pass mask=..., (N, H, W) bool.")
            if not bool(case.truth.any()):
                raise InvalidInput(f"The ground truth is empty: {name} needs at least one pixel of the object.")
        if self.needs_explainer and case.explain is None:
            raise InvalidInput(f"{name} explains other images too. Pass the explainer.")
        with case.model.opened():
            found = self._judge(case)
        value, text = found if isinstance(found, Said) else (float(found), "")
        low, high = self.range
        if value == value and not low - 1e-4 <= value <= high + 1e-4:
            raise BadOutput(f"{name} came to {value}, outside of its range {low} to {high}.")
        return Said(min(max(value, low), high) if value == value else value, text)

    def evaluate(
        self, explainer: Mapper, inputs: Tensor, targets: Any = None, mask: Any = None, saliency: Any = None
    ) -> Tensor:
        """(N,) float64: one number for each image; NaN where there is nothing to judge.

        Args:
            explainer: whose maps are judged.
            inputs: (N, C, H, W) as the network takes it.
            targets: None (each image's predicted class), an int, (N,), a `Target`; one an image.
            mask: (N, H, W) or (N, 1, H, W), true where the object is, for metrics that compare with the truth.
            saliency: (N, H, W) or (N, 1, H, W) the explainer's maps, if they are there already.

        Raises:
            InvalidInput, InvalidType: see the message.
        """
        found = cases(explainer, inputs, targets, mask=mask, saliency=saliency)
        return torch.tensor([self(case) for case in found], dtype=torch.float64)

    def cost(self, height: int, width: int) -> Cost:
        """What judging one map of an image of this size costs, besides making the map."""
        return Cost()

    def __eq__(self, other: object) -> bool:
        """Equal when the class and all parameters are."""
        if type(self) is not type(other):
            return False
        own = [f.name for f in fields(self) if f.compare]
        return all(same(getattr(self, name), getattr(other, name)) for name in own)

    def __hash__(self) -> int:
        """Hashes the class alone: parameters may hold tensors."""
        return hash(type(self))

    def _judge(self, case: Case) -> float | Said:
        raise InvalidType(f"{type(self).__name__} does not say how it judges: define _judge.")


def cases(
    explainer: Mapper, inputs: Tensor, targets: Any = None, *, mask: Any = None, saliency: Any = None
) -> list[Case]:
    """One case for each image; see `Metric.evaluate`.

    Raises:
        InvalidInput: the shapes do not fit, or there is more than one target an image.
    """
    inputs, targets, mask, saliency = (as_torch(given) for given in (inputs, targets, mask, saliency))
    check_inputs(inputs)
    model = as_model(explainer.network)
    model.check(inputs)
    n = inputs.shape[0]
    request = Request.parse(targets, n)
    with model.opened():
        model = bound(model, inputs)
        chosen = TargetSet(classes=request.classes, targets=request.targets)
        if request.kind == "predicted" or chosen.is_open:
            chosen = request.resolve(model(inputs))
    if request.kind == "all" or chosen.count != 1:
        raise InvalidInput("A metric judges one map an image: pass one target for each, not several.")
    asked: list[Any] = [*chosen.targets] * n if chosen.classes is None else chosen.classes[:, 0].tolist()
    maps = explainer.attribute(inputs, _asked(asked)) if saliency is None else saliency
    maps = _per_image(maps, inputs, "saliency").float()
    truths = None if mask is None else _per_image(mask, inputs, "mask") > 0

    own = [at(model, torch.tensor([i], device="cpu")) for i in range(n)]
    return [
        Case(
            model=own[i], image=inputs[i].detach(), target=asked[i], saliency=maps[i],
            truth=None if truths is None else truths[i], explain=explaining(explainer, own[i]),
            resample=resampling(explainer, own[i]),
        )
        for i in range(n)
    ]  # fmt: skip


def explaining(explainer: Mapper, model: Model) -> Callable[[Tensor, Any], Tensor]:
    """What `Case.explain` asks for: (images, targets) -> (R, H, W) raw maps.

    Args:
        explainer: whose maps.
        model: what it explains, for the case's own image: further inputs go with that one.

    Raises:
        InvalidInput: the model has further inputs, and the explainer cannot be told so.
    """
    own = _of_network(explainer, model) if getattr(model, "forward_kwargs", None) else explainer

    def explain(images: Tensor, targets: Any) -> Tensor:
        return own.attribute(images, targets.label if _of_its_class(own, targets) else targets)[:, 0]

    return explain


def resampling(explainer: Any, model: Model) -> Callable[[Tensor, Any], Tensor] | None:
    """Returns the same with another seed, for `Case.resample`; None where the method has none."""
    seed = getattr(explainer, "seed", None)
    if not is_dataclass(explainer) or isinstance(seed, bool) or not isinstance(seed, int):
        return None
    other: Any = replace(cast(Any, explainer), seed=seed ^ 1)
    return explaining(other, model)


def _of_its_class(explainer: Any, targets: Any) -> bool:
    """Says whether a box is asked of a method that knows classes alone: then its class is meant."""
    return isinstance(targets, BoxTarget) and bool(getattr(explainer, "classes_only", False))


def _of_network(explainer: Any, model: Model) -> Mapper:
    if not is_dataclass(explainer):
        raise InvalidInput(
            f"{type(explainer).__name__} cannot be given a network whose further inputs are those of one image. Use a "
            "seewhy explainer, or metrics that need no explainer."
        )
    found: Any = replace(explainer, network=model)  # type: ignore[type-var]  # a dataclass, as was looked at
    own: Mapper = found
    return own


def _asked(targets: list[Any]) -> Any:
    return torch.tensor(targets) if all(isinstance(t, int) for t in targets) else targets[0]


def _per_image(values: Any, inputs: Tensor, what: str) -> Tensor:
    """(N, H, W) from what the caller passed, on the inputs' device."""
    found = torch.as_tensor(values, device=inputs.device).detach()
    if found.ndim == 4 and found.shape[1] == 1:
        found = found[:, 0]
    want = (inputs.shape[0], *inputs.shape[2:])
    if found.ndim == 2 and inputs.shape[0] == 1:
        found = found[None]
    if tuple(found.shape) != want:
        raise InvalidInput(f"{what} must have shape {want}, one for each image, got {tuple(found.shape)}.")
    return found


def scores(
    case: Case, change: Callable[[Tensor], Tensor], count: int, *, activation_fn: str | Activation | None = "auto",
    per_eval: int | str = 32, name: Name | None = None,
) -> Tensor:  # fmt: skip
    """(count,) float32: the target's score under each of ``count`` changes of the image, in batches that fit.

    Args:
        case: the image and its target.
        change: numbers of changes (R,) -> changed images (R, C, H, W).
        count: how many changes there are.
        activation_fn: scores -> probabilities: "auto", "softmax", "sigmoid", None or a callable; see `seewhy.explain`.
        per_eval: images a forward pass, or "auto".
        name: number of a change -> what the changed image is made of, so that it is run once for all maps of an image.

    Raises:
        InvalidTarget: the network has no such class.
    """
    check_activation(activation_fn)
    own, settled = case.image.unsqueeze(0), list[Settled]()
    found = case.image.new_zeros(count, dtype=torch.float32)

    def work(start: int, stop: int) -> None:
        outputs = ask(case.model, change, torch.arange(start, stop, device=found.device), name)
        if not settled:  # a network that gives probabilities gives them for every image, changed ones, too
            settled.append(settle(case.model, own, outputs, activation_fn))
        targets = Request.parse(case.target, stop - start).resolve(outputs)
        found[start:stop] = targets.values(probabilities(outputs, targets, settled[0].put))[:, 0]

    chunked(work, count, per_eval)
    return found


def __getattr__(name: str) -> Any:
    if name in registry.class_names("metrics"):
        return registry.load("metrics", name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *registry.class_names("metrics")])
