"""SmoothGrad: the mean of a method's maps over copies of the image with noise on them.

    mean       E[ M(x + noise) ]           Smilkov et al. 2017
    square     E[ M(x + noise)^2 ]         Hooker et al. 2019
    variance   Var[ M(x + noise) ]         Adebayo et al. 2018

M is the raw map of any other method, reduced to one channel as that method does it. The paper has M the signed
gradient: that is ``inner=Gradient(network, reduce="sum")``; with the default of Gradient, the largest size over the
channels, sizes are averaged and no signs. The target of all copies is that of the image without noise, and every
image of a batch gets the same noise, in units of its own range of values.

Source: Smilkov et al., "SmoothGrad: removing noise by adding noise", 2017 (arXiv 1706.03825); Hooker et al., "A
Benchmark for Interpretability Methods in Deep Neural Networks", 2019; Adebayo et al., "Local Explanation Methods for
Deep Neural Networks Lack Sensitivity to Parameter Values", 2018.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from seewhy import registry
from seewhy.attribution import Attribution
from seewhy.checks import check_choice, check_count, check_number, check_seed
from seewhy.errors import InvalidInput, InvalidType
from seewhy.explainers import Explainer
from seewhy.explainers._checks import at_places
from seewhy.maps import over
from seewhy.models import GradientModel, Model, at
from seewhy.perturbation import batch_size, chunked
from seewhy.plain import Meaning
from seewhy.progress import listening
from seewhy.targets import Request, TargetSet
from seewhy.types import Note

__all__ = ["SmoothGrad"]

Variant = Literal["mean", "square", "variance"]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class SmoothGrad(Explainer):
    """Mean of another method's maps over copies of the image with noise on them (Smilkov 2017).

    Attributes:
        inner: the method: a registry name, an explainer class, or an explainer of the same network.
        samples: noisy copies an image, each explained once.
        noise: standard deviation, as a share of the range (maximum - minimum) of each image's values.
        variant: "mean", "square" (mean of squares) or "variance" of the copies' maps.
        perturbation_per_eval: noisy copies that are explained together, or "auto".
        seed: of the noise; the global random state is neither read nor changed.

    Example:
        >>> SmoothGrad(network, samples=8)(inputs, 1).shape
        torch.Size([2, 1, 32, 32])
    """

    inner: str | type[Explainer] | Explainer = "gradient"
    samples: int = 50
    noise: float = 0.15
    variant: Variant = "mean"
    perturbation_per_eval: int | str = 32
    seed: int = 0

    needs: ClassVar[type] = GradientModel
    pixelwise: ClassVar[bool] = True
    values: ClassVar[Meaning] = "slope"

    def __post_init__(self) -> None:
        batch_size(self.perturbation_per_eval)
        check_count("samples", self.samples)
        if self.samples == 1 and self.variant == "variance":
            raise InvalidInput("The variance of one sample is always 0. Use samples=2 or more.")
        check_number("noise", self.noise)
        check_choice("variant", self.variant, ("mean", "square", "variance"))
        check_seed(self.seed)
        method = self._method()
        for trait in (
            "needs",
            "class_agnostic",
            "pixelwise",
            "values",
            "caution",
            "volumes",
        ):  # a wrapper is what it wraps
            object.__setattr__(self, trait, getattr(method, trait))
        if self.variant != "mean":
            object.__setattr__(self, "values", "size")

    def _method(self) -> Explainer:
        """Returns the inner explainer, on the wrapper's own network."""
        if isinstance(self.inner, Explainer):
            if self.network is not None and _bare(self.inner.network) is not _bare(self.network):
                raise InvalidInput("The inner explainer is of another network. Make it with the network of SmoothGrad.")
            return replace(self.inner, network=self.network)
        kind = registry.load("explainers", self.inner) if isinstance(self.inner, str) else self.inner
        if not (isinstance(kind, type) and issubclass(kind, Explainer)):
            raise InvalidType(f"inner is a registry name, an Explainer class or an explainer, got {self.inner!r}.")
        return kind(network=self.network)

    def _explain(self, model: Model, inputs: Tensor, request: Request) -> Attribution:
        method, outputs = self._method(), model(inputs)
        targets = request.resolve(outputs)
        generator = torch.Generator("cpu").manual_seed(self.seed)
        shape = (self.samples, *inputs.shape[1:])
        noise = torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu")
        deviation = self.noise * (inputs.flatten(1).amax(1) - inputs.flatten(1).amin(1))
        sums, first, said = _Sums(len(inputs), self.samples), list[Attribution](), _Said()

        def work(start: int, stop: int) -> None:
            flat = torch.arange(start, stop, device=inputs.device)
            rows, which = flat // self.samples, flat % self.samples
            added = over(deviation[rows], inputs) * noise[which.to(noise.device)].to(inputs.device)
            with listening(None):  # the copies are counted here
                copies = (inputs[rows] + added).to(inputs.dtype)
                found = method._explain(at(model, rows), copies, _asked(targets, rows))
            sums.add(found.raw, rows, which)
            said.add(found.notes, rows.tolist())
            first[:] = first or [replace(found, raw=found.raw[:0])]

        chunked(work, len(inputs) * self.samples, self.perturbation_per_eval)
        plain = at_places(deviation == 0, "no noise", "all its values are equal, so no noise was added.")
        return Attribution(
            raw=sums.result(self.variant),
            outputs=outputs,
            targets=targets,
            layer=first[0].layer,
            quantity=first[0].quantity,
            notes=(*plain, *said.notes()),
        )


def _bare(network: Any) -> Any:
    """What a seewhy model wraps, so that a network and its model count as one."""
    if isinstance(network, nn.Module) or not isinstance(network, Model):
        return network
    return getattr(network, "network", getattr(network, "function", network))


def _asked(targets: TargetSet, rows: Tensor) -> Request:
    if targets.classes is None:
        return Request(kind="targets", n=len(rows), targets=targets.targets)
    return Request(kind="classes", n=len(rows), classes=targets.classes[rows])


class _Sums:
    """Mean and variance of each image's maps, from sums of their distances to its first one, which lose no digits."""

    def __init__(self, n: int, samples: int) -> None:
        self.n, self.samples = n, samples
        self._sums: Tensor | None = None

    def add(self, raw: Tensor, rows: Tensor, which: Tensor) -> None:
        """Adds maps (R, T, h, w) of images ``rows``; those of one image come in the order of the samples."""
        if self._sums is None:
            self._sums = raw.new_zeros((3, self.n, *raw.shape[1:]))
        first, total, squares = self._sums
        first[rows[which == 0]] = raw[which == 0]
        for image in rows.unique().tolist():
            moved = raw[rows == image] - first[image]
            total[image] += moved.sum(0)
            squares[image] += moved.square().sum(0)

    def result(self, variant: Variant) -> Tensor:
        """(N, T, h, w)."""
        assert self._sums is not None
        first, total, squares = self._sums
        variance = (squares / self.samples - (total / self.samples).square()).relu()
        mean = first + total / self.samples
        results: dict[str, Tensor] = {"mean": mean, "variance": variance, "square": variance + mean.square()}
        return results[variant]


class _Said:
    """The inner method's notes: those about all images once, of those about one image the first."""

    def __init__(self) -> None:
        self._general: dict[Note, None] = {}
        self._first: dict[int, Note] = {}

    def add(self, notes: Iterable[Note], rows: list[int]) -> None:
        """Takes the notes of one call, which count its noisy copies as images."""
        for note in notes:
            if note.image is None:
                self._general.setdefault(note)
            else:
                image = rows[note.image]
                text = f"{note.text} (On at least one noisy copy.)"
                self._first.setdefault(image, replace(note, text=text, image=image))

    def notes(self) -> list[Note]:
        """What the reader of the mean should know."""
        return [*self._general, *(note for _, note in sorted(self._first.items()))]
