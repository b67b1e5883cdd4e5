"""seewhy.accelerate: whatever runs the network, its scores are the network's, and it is said what was chosen."""

from __future__ import annotations

import copy
import re
import time

import openvino as ov
import pytest
import torch
from torch import nn
from torch.testing import assert_close

import seewhy
from seewhy.errors import InvalidInput, InvalidType, MissingCapability
from seewhy.explainers import RISE, GradCAM, Occlusion, ReciproCAM
from seewhy.models import Model
from seewhy.models.exported.model import ExportedModel
from seewhy.models.exported.openvino import OpenVINOModel
from seewhy.models.torch.model import TorchModel
from support.networks import Deep, Pooled, Wrapped, build, pictures
from support.typed import loaded, unchecked

pytestmark = pytest.mark.slow

X = pictures(3, height=32, width=48)
BFLOAT16 = "BF16" in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@pytest.mark.parametrize("backend", ["auto", "torch", "channels_last", "openvino"])
@pytest.mark.parametrize("kind", [Pooled, Deep])
def test_maps_are_those_of_the_network(backend: str, kind: type[nn.Module]) -> None:
    network = build(kind).train()
    before = {name: (value.clone(), value.stride()) for name, value in network.state_dict().items()}
    model = seewhy.accelerate(network, backend, inputs=X[:2])
    for method, options in ((RISE, {"num_masks": 20}), (Occlusion, {"window": 16, "stride": 16}), (ReciproCAM, {})):
        if method is ReciproCAM and kind is Deep:
            continue  # its last module is a linear layer, so that graph and modules may differ in what is the last map
        got, want = (method(m, **options).attribute(X, "all") for m in (model, network))
        assert_close(got, want, atol=2e-5, rtol=1e-3)
    after = network.state_dict()
    assert all(torch.equal(v, after[n]) and s == after[n].stride() for n, (v, s) in before.items())
    assert not network._forward_pre_hooks
    assert all(module.training for module in network.modules())


def notes(model: Model) -> tuple[str, ...]:
    assert isinstance(model, TorchModel | ExportedModel)
    return model.notes


def test_it_says_what_was_chosen_and_what_else_there_was() -> None:
    (note,) = notes(seewhy.accelerate(build(Pooled), inputs=X))
    number = r"[\d.e+-]+"
    one = rf"(torch|channels_last|openvino) {number} ms an image, scores within {number}"
    assert re.fullmatch(
        rf"Run by {one} of the largest\. Others: {one}; {one}\. Tolerance 0\.001, measured with .*", note
    )
    alone = notes(seewhy.accelerate(build(Pooled), "openvino", inputs=X))[0]
    assert (alone.count("torch"), alone.count("channels")) == (1, 0)


def test_the_chosen_backend_is_the_fastest_of_those_measured() -> None:
    (note,) = notes(seewhy.accelerate(build(Deep), inputs=X))
    times = [float(t) for t in re.findall(r"([\d.e+-]+) ms an image", note)]
    assert len(times) == 3
    assert times[0] == min(times)


def test_bfloat16_only_where_the_tolerance_has_room_or_on_request() -> None:
    network = build(Pooled)
    assert "bf16" not in notes(seewhy.accelerate(network, inputs=X))[0]
    (note,) = notes(seewhy.accelerate(network, inputs=X, tolerance=0.05))
    assert ("openvino_bf16" in note) or not BFLOAT16
    if BFLOAT16:
        model = seewhy.accelerate(network, "openvino_bf16", inputs=X)
        assert isinstance(model, OpenVINOModel)
        assert model.precision == "bf16"
        assert "Run by openvino_bf16" in model.notes[0]


class Fickle(Pooled):
    """Gives other scores when it is traced than when it is run: a graph of it would be wrong."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores = super().forward(x)
        if torch.jit.is_tracing():
            return scores * 2
        time.sleep(0.02)  # so that the wrong graph would be the fastest
        return scores


class Untraceable(Pooled):
    """Cannot become a graph."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if torch.jit.is_tracing():
            raise RuntimeError("no graphs, please")
        return super().forward(x)


def test_what_gives_other_scores_is_not_taken() -> None:
    network = build(Fickle)
    model = seewhy.accelerate(network, inputs=X)
    assert isinstance(model, TorchModel)
    assert_close(model(X).classes, network(X).detach())
    said = "openvino gives scores that differ by 1 of the largest, the tolerance is 0.001. Use backend='torch', or a"
    with pytest.raises(InvalidInput, match=re.escape(said)):
        seewhy.accelerate(network, "openvino", inputs=X)
    model = seewhy.accelerate(build(Untraceable), inputs=X)
    assert isinstance(model, TorchModel)
    assert "openvino not possible (" in model.notes[0]
    with pytest.raises(InvalidInput, match="openvino cannot run the network: "):
        seewhy.accelerate(build(Untraceable), "openvino", inputs=X)


def test_outputs_labels_and_preprocessing_are_kept() -> None:
    network = build(Wrapped, "dict")
    known = loaded(
        TorchModel, network, output="logits", labels=list("abcde"),
        preprocessing=seewhy.Preprocessing(size=(32, 48), mean=(0.5,) * 3, std=(0.5,) * 3),
    )  # fmt: skip
    for backend in ("openvino", "channels_last"):
        model = unchecked(seewhy.accelerate(known, backend))  # the size is known, so that noise can be made
        assert model.labels == tuple("abcde")
        assert model.preprocessing == known.preprocessing
        assert model.name == "Wrapped"
        assert_close(model(X).classes, network(X)["logits"].detach(), atol=2e-5, rtol=1e-4)


def test_errors() -> None:
    network = build(Pooled)
    names = "'torch', 'channels_last', 'openvino' or 'openvino_bf16'"
    with pytest.raises(InvalidInput, match=re.escape(f"backend must be 'auto', {names}, got 'fast'.")):
        seewhy.accelerate(network, "fast", inputs=X)
    with pytest.raises(InvalidInput, match=re.escape("The input's size of Pooled is not known. Pass inputs=")):
        seewhy.accelerate(network)
    with pytest.raises(InvalidInput, match=re.escape("tolerance must lie between 0 and 1, both excluded, got 0.")):
        seewhy.accelerate(network, inputs=X, tolerance=0)
    with pytest.raises(InvalidType, match="accelerate takes a torch network; '<lambda>' is none and is run as it is"):
        seewhy.accelerate(lambda x: x.mean((2, 3)), inputs=X)
    model = seewhy.accelerate(network, "openvino", inputs=X)
    with pytest.raises(MissingCapability, match="GradCAM needs gradients; 'Pooled' gives scores and features"):
        GradCAM(model)(X)
    assert copy.deepcopy(network.state_dict()).keys() == network.state_dict().keys()
