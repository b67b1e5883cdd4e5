"""The quickest form of a network for methods that run it on many changed copies of a picture, measured on the picture.

    model, said = quickest(model, inputs, expected=500)

A torch network on a CPU has other forms that give the same scores to rounding: with channels last, and with every
BatchNorm folded into the convolution before it. Each is tried on copies of the picture of which random cells are
hidden, as masks of RISE hide them: for every class it must give the scores of the network itself, to a thousandth of
what those of the copies differ by, so that maps which are made of them agree to less than a hundredth. It is taken
where it is really faster. Trying takes at most two seconds, and a tenth of the time for which the form is wanted; its
passes are not counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from seewhy.errors import FAILURES, one_line
from seewhy.models import Model
from seewhy.models.accelerate import channels_last, reordered
from seewhy.models.folding import folded
from seewhy.models.torch.detectors import Candidates
from seewhy.models.torch.model import TorchModel
from seewhy.models.turns import alone
from seewhy.types import Passes

__all__ = ["PASSES", "Form", "quickest"]

PASSES = 200  # that a method which needs scores alone makes for an image, about
SECONDS, SHARE = 2.0, 0.1  # that trying may take, at most, and of the time for which a form is wanted
_BATCH, _ROUNDS, _CELLS = 16, 3, 7
_AGREES = 1e-3  # of what the scores of changed copies differ by
_FASTER = 0.93  # a form is taken where it takes less than this part of the time


class Form(NamedTuple):
    """What is run.

    Attributes:
        model: the form that is taken; the model itself where no other is.
        said: which, how fast it is and how far its scores differ, as a sentence.
        other: whether it is another form than the model itself.
    """

    model: Model
    said: str
    other: bool = False


def quickest(model: Model, inputs: Tensor, expected: int) -> Form:
    """Returns the quickest form that gives the same scores.

    Args:
        model: what is explained; bound to the inputs, where it has further ones.
        inputs: (N, C, H, W); the first is tried on.
        expected: images that will go through the network.
    """
    why = _unfit(model, inputs)
    if why is not None:
        return Form(model, f"Run as it is: {why}.")
    assert isinstance(model, TorchModel)
    with model.opened():
        model.check(inputs)
        own = replace(model, passes=Passes())  # what is tried is no part of what a result costs
        seconds = min(_timed(own, inputs[:1]) for _ in range(2))
        left = min(SECONDS, SHARE * expected * seconds)
        batch = min(_BATCH, int(left / (9 * seconds))) if seconds > 0 else _BATCH
        if batch < 1:
            wanted = f"{expected} {'pass' if expected == 1 else 'passes'}"
            return Form(model, f"Run as it is: for {wanted} of {1000 * seconds:.3g} ms trying would cost too much.")
        found = _Trial.of(own, inputs[:1], batch, time.perf_counter() + left).best()
    form: Any = found.model
    return found._replace(model=replace(form, passes=model.passes) if found.other else model)


def _unfit(model: Model, inputs: Tensor) -> str | None:
    """Says why there are no other forms; None where there may be some."""
    if not isinstance(model, TorchModel) or isinstance(model.module, Candidates):
        return f"{model.name} is no plain network of torch"
    if inputs.device.type != "cpu":
        return f"it runs on {inputs.device}, where other forms are not known to be faster"
    if model.forward_kwargs:
        return "its further inputs go with the pictures"
    if torch.is_autocast_enabled("cpu") or inputs.dtype != torch.float32:
        return "only networks in float32 are tried"
    return None


def _timed(model: Model, inputs: Tensor) -> float:
    began = time.perf_counter()
    model(inputs)
    return time.perf_counter() - began


def _copies(picture: Tensor, count: int) -> Tensor:
    """(count, C, H, W): one picture as it is, and with random cells hidden."""
    generator = torch.Generator().manual_seed(0)
    shown = (torch.rand((count, 1, _CELLS, _CELLS), generator=generator) < 0.5).float()
    shown[0] = 1
    return picture * torch.nn.functional.interpolate(shown, size=tuple(picture.shape[2:]), mode="nearest")


@dataclass(eq=False)
class _Trial:
    """The forms, tried one after the other until the time is over.

    Attributes:
        copies: of the picture.
        until: when the time is over.
        forms: name -> model.
        times: name -> the least seconds that the copies took.
        far: name -> how far the scores differ, as a share of what those of the copies differ by.
        against: what stands against other forms.
    """

    copies: Tensor
    until: float
    forms: dict[str, TorchModel]
    times: dict[str, float]
    far: dict[str, float]
    against: list[str]

    @classmethod
    def of(cls, model: TorchModel, picture: Tensor, batch: int, until: float) -> _Trial:
        """Tries every form."""
        trial = cls(_copies(picture, max(4, batch)), until, {_SELF: model}, {}, {_SELF: 0.0}, [])
        scores = trial._run(_SELF)
        for name, make in _FORMS.items():
            if trial._over(2):
                break
            try:
                trial._add(name, make(model, trial.copies[:1]), scores)
            except FAILURES as error:  # whatever a network's own code raises, the network itself is left
                trial.against.append(f"{name} not possible ({one_line(error).rstrip('.')})")
        for _ in range(_ROUNDS):
            for name in trial.forms:
                if not trial._over(1):
                    trial._run(name)
        return trial

    def _over(self, passes: int) -> bool:
        return time.perf_counter() + passes * self.times[_SELF] > self.until

    def _run(self, name: str) -> Tensor:
        began = time.perf_counter()
        found = self.forms[name](self.copies).scores
        seconds = time.perf_counter() - began
        self.times[name] = min(seconds, self.times.get(name, seconds))
        return found

    def _add(self, name: str, form: TorchModel | None, wanted: Tensor) -> None:
        if form is None:
            return
        self.forms[name] = form
        found = self._run(name)
        far = _distance(found, wanted)
        if not far <= _AGREES:
            self.against.append(f"{name} gives other scores ({far:.2g} of their range)")
            del self.forms[name], self.times[name]
            return
        self.far[name] = far

    def best(self) -> Form:
        """Returns the quickest."""
        own = self.times[_SELF]
        name = min(self.forms, key=lambda one: self.times[one])
        if self.times[name] > _FASTER * own:
            name = _SELF
        each = 1000 * self.times[name] / len(self.copies)
        if name == _SELF:
            tried = [*(f"{one} takes {self.times[one] / own:.2f} of the time" for one in self.forms if one != _SELF)]
            why = "; ".join([*tried, *self.against]) or "the time was over"
            return Form(self.forms[name], f"Run as it is, {each:.3g} ms an image: {why}.")
        return Form(
            self.forms[name],
            f"Run with {name}: {self.times[name] / own:.2f} of the time, {each:.3g} ms an image; on copies of the "
            f"picture with hidden cells the scores differ by {self.far[name]:.1g} of their range.",
            other=True,
        )


def _distance(found: Tensor, wanted: Tensor) -> float:
    """How far the scores differ, of what those of the copies differ by: the worst class; NaN and infinity count."""
    if found.shape != wanted.shape:
        return float("inf")
    span = wanted.amax(0) - wanted.amin(0)
    rounding = 8 * torch.finfo(torch.float32).eps * wanted.abs().amax()  # a class that does not change is not moved
    off = ((found - wanted).abs().amax(0) - rounding).clamp_min(0)
    return float((off / span.clamp_min(1e-30)).where(off > 0, off).amax())


_SELF = "the network as it is"


def _last(model: TorchModel, sample: Tensor) -> TorchModel:
    return channels_last(model)


def _folded(model: TorchModel, sample: Tensor) -> TorchModel | None:
    def run(network: nn.Module) -> Any:
        return replace(model, network=network)(sample)

    with alone(model.module):
        network = folded(model.module, run)
    return None if network is None else replace(model, network=reordered(network))


_FORMS: dict[str, Callable[[TorchModel, Tensor], TorchModel | None]] = {
    "channels last": _last, "channels last and BatchNorm folded": _folded,
}  # fmt: skip
