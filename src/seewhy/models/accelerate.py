"""The fastest faithful way to run a network on this machine's CPU, for methods that run it on many changed pictures.

Each candidate is made, its scores are compared with the network's own on sample inputs, also on masked ones, and the
fastest of those that agree is returned. Candidates: the network as it is; with channels last, which suits convolutions
on CPUs; OpenVINO in float32; OpenVINO in bfloat16, only where the tolerance has room for eight bits or on request.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from seewhy.checks import check_choice, check_inside
from seewhy.errors import InvalidInput, InvalidType, MissingDependency, one_line
from seewhy.images.preprocessing import Preprocessing
from seewhy.models import Model
from seewhy.models.exported.openvino import OpenVINOModel, capabilities, converted
from seewhy.models.loading import load
from seewhy.models.reading import select
from seewhy.models.torch.calling import calling
from seewhy.models.torch.further_inputs import plain, tables
from seewhy.models.torch.model import TorchModel
from seewhy.models.turns import alone
from seewhy.types import check_inputs

__all__ = ["accelerate", "channels_last", "reordered"]

_BFLOAT16 = 2.0**-8  # a smaller tolerance has no room for it
_ROUNDS, _BATCH = 3, 8


def accelerate(network: Any, backend: str = "auto", *, inputs: Tensor | None = None, tolerance: float = 1e-3) -> Model:
    """Returns the network, run by whatever is fastest here and gives the same scores.

    Args:
        network: what `seewhy.load` takes, as long as it is a torch network on the CPU.
        backend: "auto"; or "torch", "channels_last", "openvino", "openvino_bf16" to have that one. What is asked for by
            name is returned however fast it is; OpenVINO in float32 and channels last still have to agree.
        inputs: (N, C, H, W) samples on which scores and times are compared; by default noise of the network's size.
        tolerance: largest difference of any score, as a share of the largest score. From 2^-8 on, bfloat16 may be
            chosen.

    Returns:
        A model; its ``notes`` say what was chosen, what else there was, how fast each is and how far scores differ.

    Raises:
        InvalidInput: unknown backend, no samples, a network on an accelerator, or scores that differ too much.
        InvalidType: no torch network.
        MissingDependency: the backend asked for is not installed.

    Example:
        >>> model = accelerate(network, "channels_last", inputs=inputs)
        >>> torch.allclose(model(inputs).classes, network(inputs), rtol=1e-3, atol=1e-4)
        True
    """
    check_choice("backend", backend, ["auto", *_MAKERS])
    check_inside("tolerance", tolerance)
    model = load(network)
    if not isinstance(model, TorchModel):
        raise InvalidType(f"accelerate takes a torch network; {model.name!r} is none and is run as it is.")
    samples = _samples(model, inputs)
    found = _compare(model, samples, [*_MAKERS] if backend == "auto" else ["torch", backend], tolerance, backend)
    if backend != "auto":
        return _named(found, backend, tolerance)
    fair = [one for one in found.values() if one.model is not None and one.difference <= tolerance]
    best = min(fair, key=lambda one: one.seconds)
    return _noted(best, list(found.values()), tolerance)


@dataclass(frozen=True)
class _Candidate:
    """One way to run the network.

    Attributes:
        name: of the way.
        model: None where it could not be made.
        difference: of its scores from the network's own, as a share of the largest.
        seconds: an image.
        reason: why there is none.
    """

    name: str
    model: Model | None
    difference: float = 0.0
    seconds: float = float("inf")
    reason: str = ""

    def __str__(self) -> str:
        if self.model is None:
            return f"{self.name} not possible ({self.reason})"
        return f"{self.name} {1000 * self.seconds:.3g} ms an image, scores within {self.difference:.2g}"


def _samples(model: TorchModel, inputs: Tensor | None) -> Tensor:
    """Returns a batch in which some pictures are half hidden, as perturbation methods do."""
    if inputs is None:
        known = model.preprocessing
        if not isinstance(known, Preprocessing):
            raise InvalidInput(
                f"The input's size of {model.name} is not known. Pass inputs=, a few samples (N, C, H, W)."
            )
        generator = torch.Generator().manual_seed(0)
        inputs = torch.randn((2, len(known.mean), *known.size), generator=generator)
    check_inputs(inputs)
    if inputs.device.type != "cpu":
        raise InvalidInput(f"accelerate is for networks on the CPU, the samples are on {inputs.device}.")
    model.check(inputs)
    hidden = inputs.clone()
    hidden[:, :, : inputs.shape[2] // 2] = 0
    both = torch.cat([inputs, hidden])
    return both.repeat(-(-_BATCH // len(both)), 1, 1, 1)[: max(_BATCH, len(both))]


def _compare(
    model: TorchModel, samples: Tensor, names: list[str], tolerance: float, asked: str
) -> dict[str, _Candidate]:
    """Every candidate with its scores' difference and its time, measured in turns."""
    with model.opened():
        wanted = model(samples).scores
        largest = wanted.abs().amax().clamp_min(1e-12)
        found: dict[str, _Candidate] = {}
        for name in names:
            if name == "openvino_bf16" and asked != name and tolerance < _BFLOAT16:
                continue
            found[name] = _candidate(name, model, samples, wanted, float(largest))
        for _ in range(_ROUNDS):
            for name, one in found.items():
                if one.model is not None:
                    started = time.perf_counter()
                    one.model(samples)
                    seconds = (time.perf_counter() - started) / len(samples)
                    found[name] = replace(one, seconds=min(seconds, one.seconds))
    return found


def _candidate(name: str, model: TorchModel, samples: Tensor, wanted: Tensor, largest: float) -> _Candidate:
    try:
        made = _MAKERS[name](model, samples)
        with made.opened():
            scores = made(samples).scores
    except MissingDependency as error:
        return _Candidate(name, None, reason=f"{str(error).rstrip('.')}")
    except Exception as error:  # whatever a converter meets in a network, the other candidates are left
        return _Candidate(name, None, reason=one_line(error).rstrip("."))
    if scores.shape != wanted.shape:
        return _Candidate(name, None, reason=f"scores of shape {tuple(scores.shape)}")
    return _Candidate(name, made, float((scores - wanted).abs().amax()) / largest)


def _named(found: Mapping[str, _Candidate], backend: str, tolerance: float) -> Model:
    one = found[backend]
    if one.model is None:
        kind = MissingDependency if "pip install" in one.reason else InvalidInput
        raise kind(f"{backend} cannot run the network: {one.reason}.")
    if one.difference > tolerance and backend != "openvino_bf16":
        raise InvalidInput(
            f"{backend} gives scores that differ by {one.difference:.2g} of the largest, the tolerance is "
            f"{tolerance:g}. Use backend='torch', or a larger tolerance."
        )
    return _noted(one, list(found.values()), tolerance)


def _noted(chosen: _Candidate, found: list[_Candidate], tolerance: float) -> Model:
    assert chosen.model is not None
    others = "; ".join(str(one) for one in found if one is not chosen)
    threads = torch.get_num_threads()
    note = f"Run by {chosen} of the largest" + (f". Others: {others}" if others else "")
    note += f". Tolerance {tolerance:g}, measured with {threads} thread{'s' if threads > 1 else ''}."
    model: Any = chosen.model
    noted: Model = replace(model, notes=(*model.notes, note))
    return noted


# ---------------------------------------------------------------------------------------------------- the candidates


def _as_it_is(model: TorchModel, samples: Tensor) -> Model:
    return model


def _channels_last(model: TorchModel, samples: Tensor) -> Model:
    return channels_last(model)


def channels_last(model: TorchModel) -> TorchModel:
    """Returns a copy with channels last: the order of the weights in the user's own network is left alone."""
    with alone(model.module):
        return replace(model, network=reordered(copy.deepcopy(model.module)))


def reordered(network: nn.Module) -> nn.Module:
    """Returns the network itself, with its weights and whatever it is given in the order of channels last."""
    network = network.to(memory_format=torch.channels_last)
    network.register_forward_pre_hook(_reorder)
    return network


def _reorder(_network: nn.Module, args: Any) -> Any:
    return (args[0].contiguous(memory_format=torch.channels_last), *args[1:])


class _Scores(nn.Module):
    """The network with its further arguments and nothing but its scores."""

    def __init__(self, model: TorchModel) -> None:
        super().__init__()
        self.network, self.output, self.kwargs = model.module, model.output, dict(model.forward_kwargs)
        self.call = calling(model.module, model.name, model.input_name, self.kwargs)

    def forward(self, inputs: Tensor) -> Any:
        """(N, C, H, W) -> (N, K)."""
        return select(self.call(self.network, inputs, self.kwargs), self.output)


def _openvino(model: TorchModel, samples: Tensor, precision: Any = "f32") -> Model:
    if not plain(model.forward_kwargs, len(samples)) or tables(model.forward_kwargs, len(samples)):
        raise InvalidInput("its further inputs go with the images, and a graph would keep those of the samples")
    graph = converted(_Scores(model), samples[:2])
    return OpenVINOModel(
        graph, precision=precision, labels=model.labels, preprocessing=model.preprocessing, title=model.name,
        notes=model.notes,
    )  # fmt: skip


def _bfloat16(model: TorchModel, samples: Tensor) -> Model:
    if "BF16" not in capabilities():
        raise InvalidInput("this CPU has no bfloat16")
    return _openvino(model, samples, "bf16")


_MAKERS: Mapping[str, Callable[[TorchModel, Tensor], Model]] = {
    "torch": _as_it_is, "channels_last": _channels_last, "openvino": _openvino, "openvino_bf16": _bfloat16,
}  # fmt: skip
