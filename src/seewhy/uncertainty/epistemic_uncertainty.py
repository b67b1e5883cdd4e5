"""How sure a network is of what it says, by Monte-Carlo dropout: its answers while it drops units as in training.

With p_s the probabilities of sample s, drawn with dropout switched on, and S samples:

    mean                 m = sum_s p_s / S
    deviation            d = sqrt(sum_s (p_s - m)^2 / (S - 1))
    interval             the middle 95 % of the Beta distribution with mean m and variance d^2
    entropy              H(m), in nats: all uncertainty about the answer
    mutual information   H(m) - sum_s H(p_s) / S: the part that comes from not knowing the network better

H is the entropy of the classes where they exclude each other (softmax), else the sum over the classes of the entropy
of yes and no (sigmoid).

Only dropout is switched on; BatchNorm keeps its statistics, and stochastic depth, which is not dropout, stays off. One
sample drops the same units for every image, so an image's result does not depend on the others.

Source: Gal and Ghahramani, "Dropout as a Bayesian Approximation: Representing Model Uncertainty in Deep Learning",
2016 (arXiv 1506.02142); mutual information after Houlsby, Huszar, Ghahramani and Lengyel, 2011 (arXiv 1112.5745).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import betaincinv
from torch import Tensor, nn

from seewhy.checks import check_count, check_inside, check_seed
from seewhy.errors import BadOutput, InvalidInput, MissingCapability
from seewhy.foreign import as_torch
from seewhy.models import at, bound
from seewhy.models.adapters import as_model
from seewhy.models.mindspore.model import MindSporeModel
from seewhy.models.torch.model import TorchModel
from seewhy.models.torch.state import on
from seewhy.models.turns import alone
from seewhy.perturbation import Settled, batch_size, chunked, settle
from seewhy.types import Activation, Outputs, Passes, check_activation, check_inputs
from seewhy.uncertainty._dropout import Dropouts, Trunk, idle

__all__ = ["EpistemicUncertainty", "Uncertainty", "beta_quantile"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Uncertainty:
    """What was found for N images and K classes; all tensors are float32, on the inputs' device.

    Attributes:
        mean: (N, K) probabilities.
        std: (N, K) their standard deviation over the samples.
        interval: (N, K, 2) lower and upper end of the 95 % interval.
        entropy: (N,) in nats.
        mutual_information: (N,) in nats.
        plain: (N, K) the probabilities without dropout.
        passes: what it cost.
        warnings: what the reader should know.
    """

    mean: Tensor
    std: Tensor
    interval: Tensor
    entropy: Tensor
    mutual_information: Tensor
    plain: Tensor
    passes: Passes
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class EpistemicUncertainty:
    """Mean, deviation and interval of each class's probability by Monte-Carlo dropout (Gal and Ghahramani 2016).

    Attributes:
        network: a torch module, a cell of MindSpore, or a seewhy model of one.
        activation_fn: scores -> probabilities: "auto", "softmax", "sigmoid", None or a callable; see `seewhy.explain`.
        samples: how often each image is looked at with dropout.
        perturbation_per_eval: images a forward pass, or "auto".
        rate: of the dropout that is placed before the last linear layer of a network without any.
        seed: of the units that are dropped; the global random state is neither read nor changed.

    Example:
        >>> found = EpistemicUncertainty(network, samples=4)(inputs)
        >>> found.mean.shape, bool((found.std >= 0).all())
        (torch.Size([2, 5]), True)
    """

    network: Any
    _: KW_ONLY
    activation_fn: str | Activation | None = "auto"
    samples: int = 10
    perturbation_per_eval: int | str = 32
    rate: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        check_activation(self.activation_fn)
        batch_size(self.perturbation_per_eval)
        check_count("samples", self.samples, 2)
        check_inside("rate", self.rate)
        check_seed(self.seed)

    def __call__(self, inputs: Tensor) -> Uncertainty:
        """How sure the network is of each image.

        Where dropout acts only behind the last feature vector, the part before runs once: N passes; otherwise it is
        N (1 + samples).

        Args:
            inputs: (N, C, H, W) float, as the network takes it.

        Raises:
            InvalidInput, InvalidType, MissingCapability: see the message.
        """
        model, inputs = as_model(self.network), as_torch(inputs)
        if isinstance(model, MindSporeModel):
            model = model.in_torch()
        if not isinstance(model, TorchModel):
            raise MissingCapability(
                f"EpistemicUncertainty needs a torch module, whose dropout can be switched on; {model.name!r} is none."
            )
        check_inputs(inputs)
        model.check(inputs)
        with alone(model.module), model.opened():
            before = replace(model.passes)
            own = inputs.clone() if inputs.is_inference() else inputs.detach()
            draws = _Draws(bound(model, own), self, own)
            drawn, plain = draws()
            return self._summary(drawn, plain, model.passes.since(before), tuple(draws.warnings))

    def _summary(self, drawn: Tensor, plain: Tensor, passes: Passes, warnings: tuple[str, ...]) -> Uncertainty:
        """From (S, N, K) probabilities."""
        device, values = drawn.device, drawn.cpu().double()
        mean, variance = values.mean(0), values.var(0)
        ends = [torch.from_numpy(beta_quantile(s, mean.numpy(), variance.numpy())) for s in (0.025, 0.975)]
        entropy = self._entropy(values, mean)
        found = {
            "mean": mean, "std": variance.sqrt(), "interval": torch.stack(ends, -1), "entropy": entropy,
            "mutual_information": (entropy - self._entropy(values, values).mean(0)).clamp_min(0),
        }  # fmt: skip
        return Uncertainty(
            **{name: value.float().to(device) for name, value in found.items()}, plain=plain, passes=passes,
            warnings=warnings,
        )  # fmt: skip

    def _entropy(self, drawn: Tensor, probabilities: Tensor) -> Tensor:
        """(..., K) -> (...); whether classes exclude each other is seen from ``drawn``, unless it is known."""
        terms = torch.special.entr(probabilities)
        sums = drawn.sum(-1)
        exclusive = self.activation_fn != "sigmoid" and bool(((sums - 1).abs() < 1e-2).all())
        found: Tensor = terms if exclusive else terms + torch.special.entr(1 - probabilities)
        return found.sum(-1)


class _Draws:
    """The probabilities of one call: (S, N, K) with dropout and (N, K) without.

    Attributes:
        warnings: what was decided on the way.
    """

    def __init__(self, model: TorchModel, asked: EpistemicUncertainty, inputs: Tensor) -> None:
        self.model, self.asked, self.inputs = model, asked, inputs
        self.warnings: list[str] = []
        self.settled: Settled | None = None
        generator = torch.Generator("cpu").manual_seed(asked.seed)
        seeds = torch.randint(2**31, (asked.samples,), generator=generator, device="cpu").tolist()
        self.dropouts, self.trunk = Dropouts(seeds), Trunk(model.module)
        self.placed = False  # a dropout of ours before the last linear layer
        self.apart = False  # dropout acts behind the last feature vector only
        self.last: tuple[str, nn.Linear | None] = ("", None)
        self.entered: tuple[int, ...] = ()  # what the last linear layer got in the latest look
        self.drawn = self.plain = inputs.new_empty(0, dtype=torch.float32)

    def __call__(self) -> tuple[Tensor, Tensor]:
        n, samples = len(self.inputs), self.asked.samples
        with self.dropouts, _before_last_linear(self.model.module, self._enter) as self.last:
            chunked(self._look, n, self.asked.perturbation_per_eval)
            if not self.apart:
                chunked(self._draw, n * samples, self.asked.perturbation_per_eval)
        self._note()
        return self.drawn.view(samples, n, -1), self.plain

    def _look(self, start: int, stop: int) -> None:
        """Runs the network without dropout, and with it where it acts behind the features alone."""
        images, n = self.inputs[start:stop], len(self.inputs)
        model = at(self.model, torch.arange(start, stop))
        self.dropouts.watch(self.trunk.close)
        self.entered = ()
        with self.trunk.keeping():
            outputs = model(images)
        if start == 0:
            self.settled = settle(model, images, outputs, self.asked.activation_fn)
            self.warnings += [note.text for note in self.settled.notes]
        found = self._probabilities(outputs)
        if start == 0:
            self.plain = found.new_empty(n, found.shape[1])
            self.drawn = found.new_empty(self.asked.samples * n, found.shape[1])
            self._decide(model, images, outputs)
        self.plain[start:stop] = found
        for sample in range(self.asked.samples if self.apart else 0):
            self.drawn[sample * n + start : sample * n + stop] = self._probabilities(
                self._behind(model, images, sample)
            )

    def _draw(self, start: int, stop: int) -> None:
        flat, n = torch.arange(start, stop, device=self.inputs.device), len(self.inputs)
        with self.dropouts.drawing((flat // n).cpu()):
            self.drawn[start:stop] = self._probabilities(at(self.model, flat % n)(self.inputs[flat % n]))

    def _behind(self, model: TorchModel, images: Tensor, sample: int | None) -> Outputs:
        """What comes behind the kept results, with a sample's dropout or none; that is no forward pass."""
        before = self.model.passes.forward
        with self.trunk.replaying():
            if sample is None:
                outputs = model(images)
            else:
                with self.dropouts.drawing(torch.full((len(images),), sample, device="cpu")):
                    outputs = model(images)
        self.model.passes.forward = before
        return outputs

    def _decide(self, model: TorchModel, images: Tensor, outputs: Outputs) -> None:
        """Decides where dropout acts, and what need not run again."""
        if not self.dropouts.shapes:
            self._place(outputs)
        first = self.dropouts.shapes[0] if self.dropouts.shapes else self.entered
        vector = first[0] == len(images) and first[2:].count(1) == len(first[2:])
        self.apart = vector and not self.trunk.empty and self._agrees(model, images, outputs)

    def _place(self, outputs: Outputs) -> None:
        name, module = self.last
        if not self.entered or module is None or module.out_features != outputs.num_classes:
            raise MissingCapability(
                f"{self.model.name} has no dropout that acts, and does not end in a linear layer before which one "
                "could be placed. Put nn.Dropout into the network and train it so."
            )
        self.placed = True
        self.warnings.append(
            f"The network has no dropout that acts: one of rate {self.asked.rate}, with which it was never trained, "
            f"was placed before its last linear layer, {name!r}. Take the result as a rough guess."
        )

    def _agrees(self, model: TorchModel, images: Tensor, outputs: Outputs) -> bool:
        """What is behind the kept results must come to the outputs of the pass in which they were kept."""
        again, size = self._behind(model, images, None).scores, outputs.scores.abs().amax().clamp_min(1e-6)
        tolerance = 1e-4 if images.dtype in (torch.float32, torch.float64) else 2e-2
        if bool((again - outputs.scores).abs().amax() <= tolerance * size):
            return True
        self.warnings.append("The part before the dropout gave another result the second time; all of it is run.")
        return False

    def _enter(self, features: Tensor) -> Tensor:
        """What the last linear layer gets."""
        if self.placed:
            return self.dropouts.drop(features, self.asked.rate)
        if not self.dropouts.shapes:
            self.trunk.close()
        self.entered = tuple(features.shape)
        return features

    def _probabilities(self, outputs: Outputs) -> Tensor:
        if outputs.scores.shape[1] != 1 and outputs.dense is None:
            raise InvalidInput("EpistemicUncertainty is for classifiers; this model gives several candidates an image.")
        if outputs.meaning == "embedding":
            raise InvalidInput(
                f"EpistemicUncertainty is for classifiers; this model gives an embedding: {outputs.how}."
            )
        assert self.settled is not None
        found = outputs.activate(self.settled.put).classes
        low, high = float(found.amin()), float(found.amax())
        if low < -1e-3 or high > 1 + 1e-3:
            raise BadOutput(
                f"Probabilities lie in [0, 1], got {low:.3g} to {high:.3g}. Use activation_fn='softmax' or 'sigmoid'."
            )
        return found.clamp(0, 1)

    def _note(self) -> None:
        if names := idle(self.model.module, self.trunk.ran):
            shown = ", ".join(map(repr, names[:8])) + (", ..." if len(names) > 8 else "")
            self.warnings.append(
                f"Dropout that did not act, inside attention or in a part that did not run: {shown}. The uncertainty "
                "is the rest's."
            )
        if self.dropouts.mixed:
            self.warnings.append(
                f"Dropout acts on tensors such as {min(self.dropouts.mixed)}, which do not begin with the images: the "
                "draws depend on how many images go through at a time."
            )


@contextmanager
def _before_last_linear(
    network: nn.Module, change: Callable[[Tensor], Tensor]
) -> Iterator[tuple[str, nn.Linear | None]]:
    """``change`` is put on what the last linear layer gets; gives its name and itself."""
    linear = [(name, module) for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    if not linear:
        yield "", None
        return
    with on(linear[-1][1], before=lambda _module, args: (change(args[0]), *args[1:])):
        yield linear[-1]


def beta_quantile(share: float, mean: NDArray[np.float64], variance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the value below which ``share`` of the Beta distribution with this mean and variance lies, elementwise.

    Where the variance is 0 it is the mean. Where it is as large as a mean allows, mean (1 - mean), or larger, all mass
    is at 0 and 1.

    Args:
        share: between 0 and 1.
        mean: in [0, 1], of any shape.
        variance: not negative, of the same shape.
    """
    found, spread = mean.copy(), mean * (1 - mean)
    wide = (variance > 1e-16) & (spread > 1e-16)
    size = np.maximum(spread[wide] / variance[wide] - 1, 1e-6)
    found[wide] = betaincinv(mean[wide] * size, (1 - mean[wide]) * size, share)
    return found
