"""Hierarchical occlusion: which few square windows, shown on a blurred image, suffice for the network's decision.

    1. Start from the image blurred all over. Of all windows of the coarsest layer, show the one that raises the
       target's probability most; repeat until it reaches the threshold.
    2. Inside each window that gained, search in the same way with windows of half the side, from what had been found
       before that window, until its gain is regained.
    3. Replay: a layer's image shows its own windows, and earlier ones that nothing was found inside. From the deepest
       up, layers that miss the threshold are cut off.

With ``mode="hide"`` the image starts untouched and windows are hidden until the probability falls below the
threshold: an edit after which the network drops the label.

The search is greedy, so the windows are sufficient, not the fewest that there are. A window counts as used when it
would change nothing. Windows whose probabilities differ by rounding only are tied, and the first wins, columns outer
and rows inner. No image is run twice, and all targets of an image share what is known.

The hierarchical search is the one that MindSpore XAI documents under this name. Showing what suffices and hiding what
is needed are the preservation and the deletion game of Fong and Vedaldi, "Interpretable Explanations of Black Boxes by
Meaningful Perturbation", 2017 (arXiv 1704.03296), played with squares.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from seewhy.baseline import blur
from seewhy.checks import check_choice, is_number
from seewhy.counterfactuals import _windows
from seewhy.counterfactuals._search import Found, Scene, Search
from seewhy.counterfactuals._tree import Counterfactuals, EditTree, Mode
from seewhy.counterfactuals._windows import Layer
from seewhy.errors import BadOutput, InvalidInput, UnknownParameter, nearest
from seewhy.foreign import as_torch
from seewhy.models import Model, at, bound
from seewhy.models.adapters import as_model
from seewhy.perturbation import batch_size, probabilities, settle
from seewhy.targets import Request, TargetSet
from seewhy.types import Activation, Outputs, check_activation, check_inputs

__all__ = ["HierarchicalOcclusion"]

MOST = 8  # warnings of one call; the rest is counted


@dataclass(frozen=True, eq=False, repr=False)
class HierarchicalOcclusion:
    """The few windows that suffice for a decision, or without which it falls, searched coarse to fine.

    Attributes:
        network: a torch module, a seewhy model, or a callable (N,C,H,W) -> (N,K).
        activation_fn: scores -> probabilities: "auto", "softmax", "sigmoid", None or a callable; see `seewhy.explain`.
        perturbation_per_eval: edited copies a forward pass, or "auto".
        threshold: the probability that has to be reached, or with mode "hide" undercut.
        mode: "show": windows shown on the filled image. "hide": windows filled on the untouched image.
        fill: what stands where the image does not: "blur", a number, one number a channel, or an image.
        num_layers: how many layers of windows; by default as long as windows have 28 pixels, at most three.
        window: side in pixels in the first layer, halved in each next one, or a side for each layer; by default half
            of the image's short side.
        stride: step in pixels in every layer, or one for each; by default a fifth of the window.

    Example:
        >>> found = HierarchicalOcclusion(network, window=16, num_layers=1, threshold=0.1)(inputs[:1], 1)
        >>> len(found)
        1
    """

    network: Any
    _: KW_ONLY
    activation_fn: str | Activation | None = "auto"
    perturbation_per_eval: int | str = 32
    threshold: float = 0.5
    mode: Mode = "show"
    fill: float | str | Sequence[float] | Tensor = "blur"
    num_layers: int | None = None
    window: int | Sequence[int] | None = None
    stride: int | Sequence[int] | None = None

    def __new__(cls, *args: Any, **parameters: Any) -> HierarchicalOcclusion:
        """Refuses parameters that the method does not have, naming the nearest."""
        known = [f.name for f in fields(cls)]
        for name in parameters:
            if name not in known:
                raise UnknownParameter(f"{cls.__name__} has no parameter {name!r}. {nearest(name, known[1:])}")
        if len(args) > 1:
            raise UnknownParameter(f"{cls.__name__} takes the network, and parameters by name: {', '.join(known[1:])}.")
        return super().__new__(cls)

    def __post_init__(self) -> None:
        check_activation(self.activation_fn)
        batch_size(self.perturbation_per_eval)
        _check_threshold(self.threshold, self.activation_fn)
        check_choice("mode", self.mode, ("show", "hide"))
        _check_fill(self.fill)
        _windows.check(self.window, self.stride, self.num_layers)

    def __call__(self, inputs: Tensor, targets: Any = None) -> list[list[EditTree]]:
        """Returns for each of N images a list of T trees; those with nothing found say why.

        Args:
            inputs: (N, C, H, W) float, as the network takes it; the short side at least 56 pixels, unless ``window``
                or ``num_layers`` is given.
            targets: None (each image's predicted class), an int, (N,), (N, T), "all", a `Target` or a list of them.

        Raises:
            InvalidInput, InvalidType: see the message.
        """
        return self.run(inputs, targets).trees

    def run(self, inputs: Tensor, targets: Any = None) -> Counterfactuals:
        """Returns the trees with the outputs, the cost and everything worth knowing about them."""
        model, inputs, targets = as_model(self.network), as_torch(inputs), as_torch(targets)
        check_inputs(inputs)
        model.check(inputs)
        request = Request.parse(targets, inputs.shape[0])
        layers = _windows.plan((inputs.shape[2], inputs.shape[3]), self.window, self.stride, self.num_layers)
        with model.opened():
            before = replace(model.passes)
            batch = _Batch.of(self, bound(model, inputs.detach()), inputs.detach(), request)
            trees = [self._trees(batch, image, layers) for image in range(len(inputs))]
            passes = model.passes.since(before)
        return Counterfactuals(
            trees=trees,
            outputs=batch.outputs,
            targets=batch.asked.classes,
            passes=passes,
            warnings=(*batch.notes, *_warnings(trees)),
        )

    @property
    def parameters(self) -> dict[str, Any]:
        """Name -> value of everything but the network."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "network"}

    def __repr__(self) -> str:
        """Returns the class, the network's class and the parameters."""
        values = "".join(f", {name}={value!r}" for name, value in self.parameters.items())
        return f"{type(self).__name__}({type(self.network).__name__}{values})"

    def _trees(self, batch: _Batch, image: int, layers: tuple[Layer, ...]) -> list[EditTree]:
        own, names = batch.own[image], batch.asked.names(image)
        wanted = (own.cpu().double() > self.threshold).nonzero().flatten().to(own.device)
        scene = Scene.of(
            at(batch.model, torch.tensor([image], device="cpu")),
            batch.inputs[image].clone(),  # trees outlive the batch, and must not change with the caller's tensor
            batch.fill[image].clone(),
            mode=self.mode,
            own=own[wanted],
            values=lambda outputs: batch.values(outputs, image)[:, wanted],
            per_eval=self.perturbation_per_eval,
        )
        found = [Found(None, self._unlikely(*one)) for one in zip(names, own.tolist(), strict=True)]
        for column, t in enumerate(wanted.tolist()):
            search = Search(scene=scene, column=column, name=names[t], threshold=self.threshold, layers=layers)
            found[t] = search.run()
        return [
            EditTree(
                **one._asdict(), target=name, mode=self.mode, threshold=self.threshold, probability=probability,
                picture=scene.picture, fill=scene.fill,
            )
            for one, name, probability in zip(found, names, own.tolist(), strict=True)
        ]  # fmt: skip

    def _unlikely(self, name: str, probability: float) -> str:
        return f"{name.capitalize()} is at {probability:.4g}, not above the threshold {self.threshold:g}."


@dataclass(frozen=True, kw_only=True, eq=False)
class _Batch:
    """What is known before the search.

    Attributes:
        model: gives scores.
        inputs: (N, C, H, W).
        fill: (N, C, H, W).
        outputs: on the untouched images.
        asked: T targets an image.
        activate: scores -> probabilities.
        own: (N, T) probabilities of the untouched images.
        notes: about the activation.
    """

    model: Model
    inputs: Tensor
    fill: Tensor
    outputs: Outputs
    asked: TargetSet
    activate: Activation | None
    own: Tensor
    notes: tuple[str, ...]

    @classmethod
    def of(cls, method: HierarchicalOcclusion, model: Model, inputs: Tensor, request: Request) -> _Batch:
        """Runs the model on the untouched images."""
        fill = _filled(method.fill, inputs)
        outputs = model(inputs)
        asked, settled = request.resolve(outputs), settle(model, inputs, outputs, method.activation_fn)
        activate = settled.put
        own = _finite(asked.values(probabilities(outputs, asked, activate)))
        return cls(
            model=model, inputs=inputs, fill=fill, outputs=outputs, asked=asked, activate=activate, own=own,
            notes=tuple(note.text for note in settled.notes),
        )  # fmt: skip

    def values(self, outputs: Outputs, image: int) -> Tensor:
        """(R, T) probabilities of edited copies of one image."""
        rows = torch.full((len(outputs.scores),), image, device=outputs.scores.device)
        return _finite(self.asked.values(probabilities(outputs, self.asked, self.activate), rows))


def _finite(values: Tensor) -> Tensor:
    if not bool(torch.isfinite(values).all()):
        raise BadOutput("The targets came to NaN or infinite probabilities. Check activation_fn, or the target.")
    return values


def _check_threshold(threshold: Any, function: Any) -> None:
    if not is_number(threshold):
        raise InvalidInput(f"threshold must be a number, got {threshold!r}.")
    if function in ("auto", "softmax", "sigmoid") and not 0 < threshold < 1:
        raise InvalidInput(f"threshold must lie between 0 and 1 for probabilities, got {threshold!r}.")


def _check_fill(fill: Any) -> None:
    numbers = fill if isinstance(fill, tuple | list) else (fill,)
    real = all(isinstance(v, int | float) and not isinstance(v, bool) for v in numbers) and len(numbers) > 0
    if not (real or isinstance(fill, Tensor) or (isinstance(fill, str) and fill == "blur")):
        raise InvalidInput(f"fill must be 'blur', a number, one number a channel, or a tensor, got {fill!r}.")
    if not isinstance(fill, str) and not bool(torch.isfinite(torch.as_tensor(fill)).all()):
        raise InvalidInput("fill has NaN or infinite values.")


def _filled(fill: float | str | Sequence[float] | Tensor, inputs: Tensor) -> Tensor:
    """(N, C, H, W) what stands where the images do not.

    Raises:
        InvalidInput: it does not fit the inputs.
    """
    if isinstance(fill, str):
        return blur(inputs)
    values = torch.as_tensor(fill).to(inputs)
    n, c, h, w = inputs.shape
    if tuple(values.shape) not in ((), (c,), (c, 1, 1), (c, h, w), (1, c, h, w), (n, c, h, w)):
        got = tuple(values.shape)
        raise InvalidInput(f"fill must be a number, {c} numbers or a picture {(c, h, w)}, got the shape {got}.")
    return (values.view(c, 1, 1) if values.ndim == 1 else values).expand_as(inputs)


def _warnings(trees: list[list[EditTree]]) -> tuple[str, ...]:
    said = [f"Image {image}: {text}" for image, row in enumerate(trees) for tree in row for text in _said(tree)]
    return tuple(said[:MOST] + ([f"... and {len(said) - MOST} more."] if len(said) > MOST else []))


def _said(tree: EditTree) -> list[str]:
    reached = ", ".join(f"{p:.4g}" for p in tree.cut_off)
    cut = f"{tree.target}: layers after {tree.layers - 1} were cut off, their windows alone come to {reached}."
    return ([tree.reason] if tree.reason else []) + ([cut.capitalize()] if tree.cut_off else [])
