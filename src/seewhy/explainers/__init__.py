"""The protocol of an explainer: parameters are fields, data are arguments, nothing is remembered between calls.

    explainer = GradCAM(network, layer="layer4")
    saliency = explainer(inputs, targets)             # (N, T, H, W) in [0, 1]
    raw = explainer.attribute(inputs, targets)        # the same, signed and unscaled

A new explainer is one new file: a frozen dataclass that extends `Explainer`, states what it ``needs`` and says in
``_explain`` how raw maps are made. The registry finds it by the file's name.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from seewhy import registry
from seewhy.attribution import Attribution, about_all, faint
from seewhy.draw.figure import show_maps
from seewhy.errors import BadOutput, InvalidInput, MissingCapability, UnknownParameter, nearest
from seewhy.explainers._checks import beyond, lost, order_of_axes, review, unmatched
from seewhy.explainers._worth import negligible
from seewhy.foreign import as_torch
from seewhy.maps import VOLUME, scale, size_of, upsample
from seewhy.models import FeatureModel, GradientModel, Model, Noticing, bound
from seewhy.models.adapters import as_model
from seewhy.models.turns import Clash, alone, busy, network_of
from seewhy.plain import Meaning
from seewhy.targets import Request
from seewhy.types import Note, check_inputs, same

__all__ = ["Baseline", "Explainer"]


@dataclass(frozen=True, eq=False, repr=False)
class Explainer:
    """What every explainer can do.

    Attributes:
        network: a torch module, a cell of MindSpore, a seewhy model, or a callable (N,C,H,W) -> (N,K).

    A class also says whether its map is the same for every class (``class_agnostic``), whether it has a pixel's
    detail (``pixelwise``), so that it is better looked at beside the image than over it, what its raw values are
    (``values``, see `seewhy.plain.Meaning`), by which maps are drawn and those that show nothing are found, whether it
    explains classes and no boxes (``classes_only``), whether it looks at nothing and shows what chance gives
    (``chance``), whether a layer must have a spatial map (``spatial``), its place among the methods that messages
    offer where another cannot be used (``offered``; 0: not among them), what is to be known of every map that it
    makes (``caution``), whether it explains volumes and clips (N, C, D, H, W) as well as pictures (``volumes``), so
    that its maps are (N, T, D, H, W), and where the defaults of its authors' program are others (``published``), which
    is said where numbers are compared.
    """

    network: Any

    needs: ClassVar[type] = Model
    class_agnostic: ClassVar[bool] = False
    pixelwise: ClassVar[bool] = False
    values: ClassVar[Meaning] = "unknown"
    classes_only: ClassVar[bool] = False
    chance: ClassVar[bool] = False
    spatial: ClassVar[bool] = False
    offered: ClassVar[int] = 0
    caution: ClassVar[str] = ""
    volumes: ClassVar[bool] = False
    published: ClassVar[str] = ""

    def __new__(cls, *args: Any, **parameters: Any) -> Explainer:
        """Refuses parameters that the method does not have, naming the nearest."""
        known = [f.name for f in fields(cls)]
        for name in parameters:
            if name not in known:
                raise UnknownParameter(f"{cls.__name__} has no parameter {name!r}. {nearest(name, known[1:])}")
        if len(args) > 1:
            first = next(f.name for f in fields(cls) if not f.kw_only)
            others = ", ".join(n for n in known if n != first)
            raise UnknownParameter(f"{cls.__name__} takes the {first}, and parameters by name: {others}.")
        return super().__new__(cls)

    def __call__(self, inputs: Tensor, targets: Any = None, *, show: bool = False) -> Tensor:
        """Returns the saliency: (N, T, H, W) float32 in [0, 1] on the device of ``inputs``; of volumes (N, T, D, H, W).

        Args:
            inputs: (N, C, H, W) float, as the network takes it; (N, C, D, H, W) where the method has ``volumes``.
            targets: None (each image's predicted class), an int, (N,), (N, T), "all", a `Target` or a list of them.
            show: draws the maps over the inputs, in a notebook or a window.

        Raises:
            InvalidInput, InvalidType: see the message.
        """
        inputs = as_torch(inputs)
        found = self.run(inputs, targets)
        raw = upsample(found.raw, size_of(inputs))
        if show:
            show_maps(inputs, found.raw, self.values, faint(found.notes))
        return raw if self.values == "score" else scale(raw)

    def attribute(self, inputs: Tensor, targets: Any = None, *, native: bool = False) -> Tensor:
        """The raw map: (N, T, H, W) float32, signed and unscaled; with ``native`` at the method's own resolution."""
        inputs = as_torch(inputs)
        raw = self.run(inputs, targets).raw
        return raw if native else upsample(raw, size_of(inputs))

    def run(self, inputs: Tensor, targets: Any = None) -> Attribution:
        """Returns the raw map at its own resolution with the outputs, the cost and everything worth knowing about it.

        Threads may explain the same network: a method that needs more than scores has it to itself meanwhile.
        """
        inputs, targets = as_torch(inputs), as_torch(targets)
        model, others = self._model(), list[Any]()
        while True:
            try:
                with alone(*others) if others else nullcontext():
                    return self._run(model, inputs, targets)
            except Clash as clash:  # another thread holds what this call turned out to need, and waits for this one
                if busy() or all(any(owner is other for other in others) for owner in clash.owners):
                    raise
                others += [network_of(model), *clash.owners]

    def _run(self, model: Model, inputs: Tensor, targets: Any) -> Attribution:
        with nullcontext() if self.needs is Model else alone(network_of(model)), model.opened():
            check_inputs(inputs, volumes=True)
            self._check_axes(model, inputs)
            model.check(inputs)
            request = Request.parse(targets, inputs.shape[0])
            before = replace(model.passes)
            own = inputs.clone() if inputs.is_inference() else inputs.detach()
            model = bound(model, own)
            with model.listening(own) if isinstance(model, Noticing) else nullcontext():
                found = self._explain(model, own, request)
            noticed = model.noticed(own) if isinstance(model, Noticing) else ()
            found = replace(found, raw=found.raw.detach(), passes=model.passes.since(before))
            _check_finite(found.raw, type(self).__name__)
            notes = (
                *about_all(noticed), *found.notes, *review(found, request.kind, self.class_agnostic),
                *beyond(request, inputs), *order_of_axes(inputs),
                *lost(found), *unmatched(request, found), *negligible(found, self.values),
            )  # fmt: skip
            return replace(found, notes=notes)

    def _check_axes(self, model: Model, inputs: Tensor) -> None:
        """Raises InvalidInput for volumes where the method is defined for pictures alone."""
        if inputs.ndim == VOLUME and not self.volumes:
            raise InvalidInput(
                f"{type(self).__name__} is defined for pictures (N, C, H, W), and {tuple(inputs.shape)} are volumes or "
                f"clips (N, C, D, H, W). Use {registry.instead(_rung(model), volumes=True)}."
            )

    @property
    def parameters(self) -> dict[str, Any]:
        """Name -> value of everything but the network."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "network"}

    def _explain(self, model: Any, inputs: Tensor, request: Request) -> Attribution:
        raise MissingCapability(f"{type(self).__name__} does not say how it explains: define _explain.")

    def _model(self) -> Model:
        model = as_model(self.network)
        if not isinstance(model, self.needs):
            wanted = "gradients" if self.needs is GradientModel else "features"
            raise MissingCapability(
                f"{type(self).__name__} needs {wanted}; {model.name!r} gives {_gives(model)}. Try {_instead(model)}."
            )
        return model

    def __repr__(self) -> str:
        """Returns the class, the network's class and the parameters."""
        values = "".join(f", {name}={value!r}" for name, value in self.parameters.items())
        return f"{type(self).__name__}({type(self.network).__name__}{values})"

    def __eq__(self, other: object) -> bool:
        """Equal when the class, the network and all parameters are."""
        if type(self) is not type(other) or not isinstance(other, Explainer) or self.network is not other.network:
            return False
        return all(same(a, b) for a, b in zip(self.parameters.values(), other.parameters.values(), strict=True))

    def __hash__(self) -> int:
        """Hashes class and network alone: parameters may hold tensors."""
        return hash((type(self), id(self.network)))


_BLIND = "is a baseline: its map says nothing about the picture or the network."


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Baseline(Explainer):
    """An explainer that looks neither at the network nor at the class: what chance gives."""

    class_agnostic: ClassVar[bool] = True
    chance: ClassVar[bool] = True
    volumes: ClassVar[bool] = True
    values: ClassVar[Meaning] = "size"

    def drawn(self, inputs: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, H, W) the maps, without a network; of volumes (N, D, H, W)."""
        raise MissingCapability(f"{type(self).__name__} does not say what it draws: define drawn.")

    def _explain(self, model: Model, inputs: Tensor, request: Request) -> Attribution:
        outputs = model(inputs)
        targets = request.resolve(outputs)
        return Attribution(
            raw=torch.stack([self.drawn(inputs)] * targets.count, 1), outputs=outputs, targets=targets,
            notes=(Note(text=f"{type(self).__name__} {_BLIND}", kind="baseline"),),
        )  # fmt: skip


def _check_finite(raw: Tensor, method: str) -> None:
    axes = tuple(range(1, raw.ndim))
    low, high = raw.amin(axes), raw.amax(axes)  # NaN comes through, and no copy of the maps is made
    bad = (~torch.isfinite(low + high)).nonzero().flatten().tolist()
    if bad:
        raise BadOutput(
            f"{method} came to NaN or infinite values in image {', '.join(map(str, bad))}: the network's numbers "
            "overflow, or it has an operation without a finite gradient there. Try a float32 network, "
            f"{registry.instead('scores')}."
        )


def _gives(model: Model) -> str:
    if isinstance(model, GradientModel):
        return "scores, features and gradients"
    return "scores and features" if isinstance(model, FeatureModel) else "scores only"


def _instead(model: Model) -> str:
    return registry.instead("features" if isinstance(model, FeatureModel) else "scores")


def _rung(model: Model) -> str:
    return (
        "gradients" if isinstance(model, GradientModel) else "features" if isinstance(model, FeatureModel) else "scores"
    )


def __getattr__(name: str) -> Any:
    if name in registry.class_names("explainers"):
        return registry.load("explainers", name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *registry.class_names("explainers")])
