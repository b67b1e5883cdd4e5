"""Mistakes and situations that other tools answer with a silently wrong picture: right here, or a clear error.

Many have their tests beside the module that deals with them; those that concern a whole call are here.
"""

from __future__ import annotations

import copy
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from seewhy.attribution import Attribution
from seewhy.errors import (
    InputRefused,
    InvalidInput,
    InvalidTarget,
    InvalidType,
    NoSpatialOutput,
    UnknownLayer,
    UnknownParameter,
)
from seewhy.explainers import (
    RISE,
    ActivationMap,
    Deconvolution,
    GradCAM,
    Gradient,
    GuidedBackprop,
    Occlusion,
    ReciproCAM,
)
from seewhy.explainers._checks import review
from seewhy.targets import TargetSet
from seewhy.types import Outputs
from support import networks
from support.networks import CLASSES, build, pictures

close = torch.testing.assert_close
QUICK: list[Any] = [
    Gradient, GuidedBackprop, Deconvolution, GradCAM, ActivationMap, ReciproCAM,
    lambda net, **k: RISE(net, num_masks=8, **k), lambda net, **k: Occlusion(net, window=16, **k),
]  # fmt: skip
every = pytest.mark.parametrize(
    "method", QUICK, ids=["gradient", "guided", "deconvolution", "cam", "activation", "recipro", "rise", "occlusion"]
)


def refuses(error: type[Exception], said: str) -> Any:
    return pytest.raises(error, match="^" + re.escape(said) + "$")


@every
def test_targets_that_do_not_exist_or_do_not_fit(method: Any) -> None:
    explainer, x = method(build(networks.Pooled)), pictures(4)
    with refuses(InvalidTarget, "Target -1 is negative. Classes are counted from 0."):
        explainer(x, -1)
    with refuses(InvalidTarget, "Target 5000 is out of range: the network has 5 classes, 0 to 4."):
        explainer(x, 5000)
    for wrong in ([1, 2], [1, 2, 3, 4, 0]):
        said = f"targets must be one class, (4,) for one an image or (4, T) for T an image, got shape ({len(wrong)},)."
        with refuses(InvalidTarget, said):
            explainer(x, wrong)
    with refuses(InvalidTarget, "targets looks one-hot, shape (4, 5). Pass targets.argmax(1)."):
        explainer(x, torch.eye(5).long()[:4])


@pytest.mark.parametrize("method", [Gradient, GuidedBackprop, GradCAM, ReciproCAM])
def test_one_target_object_holds_for_the_whole_batch(method: Any) -> None:
    explainer, x = method(build(networks.Pooled)), pictures(4)
    maps = explainer.attribute(x, lambda outputs: outputs.classes[:, 2])
    close(maps, explainer.attribute(x, 2), atol=1e-5, rtol=1e-5)
    assert bool((maps.abs().amax((1, 2, 3)) > 0).all())


INPUTS = [
    (lambda x: x[0], InvalidInput, "inputs must have shape (N, C, H, W), got (3, 32, 32). For one image use "
     "inputs.unsqueeze(0)."),
    (lambda x: x[0, 0], InvalidInput, "inputs must have shape (N, C, H, W), got (32, 32)."),
    (lambda x: (x * 255).to(torch.uint8), InvalidInput,
     "inputs must be floating point, got uint8. Scale it as the network was trained: x.float() / 255."),
    (lambda x: x.long(), InvalidInput, "inputs must be floating point, got int64."),
    (lambda x: x[:0], InvalidInput, "inputs is empty: its shape is (0, 3, 32, 32)."),
    (lambda x: x.numpy(), InvalidType,
     "inputs must be a torch tensor (N, C, H, W), got ndarray. For pictures and files use seewhy.explain."),
    (lambda x: x.index_put((torch.tensor(1),) * 4, torch.tensor(float("nan"))), InvalidInput,
     "inputs has NaN or infinite values in image 1."),
    (lambda x: x / 0, InvalidInput, "inputs has NaN or infinite values in image 0, 1."),
    (lambda x: x.double(), InvalidInput, "The network is float32, the input float64. Use inputs.to(torch.float32)."),
]  # fmt: skip


@every
@pytest.mark.parametrize(("spoil", "error", "said"), INPUTS)
def test_inputs_that_cannot_be_used(method: Any, spoil: Any, error: type[Exception], said: str) -> None:
    with refuses(error, said):
        method(build(networks.Pooled))(spoil(pictures()))


@every
def test_an_input_that_the_network_refuses(method: Any) -> None:
    said = "channels x 32 x 40 pixels. Its first convolution takes 3 channels. It says: Given groups=1"
    with pytest.raises(InputRefused, match="^Pooled refuses an input of [12] x 1 " + re.escape(said)):
        method(build(networks.Pooled))(pictures(channels=1, height=32, width=40), 0)


@pytest.mark.parametrize("method", [GradCAM, ReciproCAM, ActivationMap])
def test_layers_without_a_map(method: Any) -> None:
    network = build(networks.Pooled)
    said = (
        "Layer 'fc' has no spatial map: it gives (1, 5) for an input of (1, 3, 32, 32). Choose a "
        "layer with an output "
        "(N, C, h, w), or layer='auto'."
    )
    with refuses(NoSpatialOutput, said):
        method(network, layer="fc")(pictures(1))
    with refuses(InvalidType, "layer is the name of a module, a string, got Conv2d. Pass 'conv1'."):
        method(pooled := build(networks.Pooled), layer=pooled.conv1)(pictures())
    with refuses(InvalidType, "layer is the name of a module, a string, got list."):
        method(build(networks.Pooled), layer=["act2"])(pictures())
    with refuses(UnknownLayer, "The network has no layer 'conv3'. Did you mean 'conv2' or 'conv1'?"):
        method(build(networks.Pooled), layer="conv3")(pictures())


@every
def test_a_network_in_training_mode_keeps_its_statistics(method: Any) -> None:
    network = build(networks.Dropout).train()
    before = copy.deepcopy(network.state_dict())
    method(network)(pictures())
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    assert all(m.training for m in network.modules())


@every
def test_parameters_get_no_gradient(method: Any) -> None:
    network = build(networks.Pooled)
    method(network)(pictures())
    assert all(p.grad is None for p in network.parameters())


def test_a_confident_network_does_not_turn_the_map_round() -> None:
    weight = torch.zeros(2, 1, 16, 16)
    weight[0, :, 2:6, 2:6], weight[1, :, 10:14, 10:14] = 1.0, 1.0
    x = torch.zeros(1, 1, 16, 16)
    x[..., 2:6, 2:6] = 1.0
    for strength in (0.1, 1.0, 3.0):

        def network(inputs: Tensor, strength: float = strength) -> Tensor:
            return strength * torch.einsum("nchw,kchw->nk", inputs, weight)

        for method in (RISE(network, num_masks=400), Occlusion(network, window=4, stride=2)):
            raw = method.attribute(x, 0)[0, 0]
            assert float(raw[2:6, 2:6].mean()) > 5 * abs(float(raw[9:, 9:].mean()))


@pytest.mark.parametrize("size", [(28, 84), (84, 28)])
@pytest.mark.parametrize("method", [lambda n: RISE(n, num_masks=1500), Occlusion, Gradient])
def test_pictures_that_are_not_square_are_not_transposed(method: Any, size: tuple[int, int]) -> None:
    where = torch.zeros(1, 1, *size)
    where[..., 4:12, -12:-4] = 1.0

    class Spot(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            bright = (x * where).sum((1, 2, 3)) / 64
            return torch.stack([bright, -bright], 1)

    raw = method(Spot()).attribute(torch.ones(1, 1, *size), 0)[0, 0]
    i, j = divmod(int(raw.argmax()), size[1])
    assert 3 <= i < 13
    assert size[1] - 13 <= j < size[1] - 3


def test_values_over_one_are_no_problem() -> None:
    network = build(networks.Pooled)
    with torch.no_grad():
        network.fc.weight.mul_(1e4)
    small, large = GradCAM(build(networks.Pooled)), GradCAM(network)
    close(large(pictures(), 1), small(pictures(), 1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_keeps_the_gradient(dtype: torch.dtype) -> None:
    network = build(networks.Pooled)
    want = Gradient(network).attribute(pictures(), 1)
    got = Gradient(copy.deepcopy(network).to(dtype)).attribute(pictures().to(dtype), 1)
    assert float((got == 0).float().mean()) < 0.02
    assert float(torch.corrcoef(torch.stack([got.flatten(), want.flatten()]))[0, 1]) > 0.99


@pytest.mark.parametrize("method", [Gradient, GuidedBackprop, Deconvolution, GradCAM])
def test_a_frozen_backbone(method: Any) -> None:
    network = build(networks.Pooled).requires_grad_(False)
    network.fc.requires_grad_(True)
    close(method(network).attribute(pictures(), 1), method(build(networks.Pooled)).attribute(pictures(), 1))
    assert [p.requires_grad for p in network.parameters()].count(True) == 2


@every
@pytest.mark.parametrize("form", ["dict", "object", "tuple"])
def test_scores_in_a_dict_an_object_or_a_tuple(method: Any, form: str) -> None:
    want = method(build(networks.Pooled)).attribute(pictures(), 1)
    close(method(build(networks.Wrapped, form)).attribute(pictures(), 1), want, atol=1e-5, rtol=1e-5)


def test_unknown_keywords() -> None:
    with refuses(UnknownParameter, "GradCAM has no parameter 'layers'. Did you mean 'layer'?"):
        GradCAM(build(networks.Pooled), layers="act2")
    with refuses(UnknownParameter, "RISE has no parameter 'n_masks'. Did you mean 'num_masks'?"):
        RISE(build(networks.Pooled), n_masks=3)
    with refuses(UnknownParameter, "GradCAM takes the network, and parameters by name: layer."):
        GradCAM(build(networks.Pooled), "act2")


@every
def test_without_targets_the_predicted_class_is_explained(method: Any) -> None:
    network, x = build(networks.Pooled), pictures(3)
    found = method(network).run(x)
    assert found.targets.classes.tolist() == network(x).argmax(1, keepdim=True).tolist()
    close(found.raw, method(network).run(x, found.targets.classes).raw)


@every
def test_under_autocast(method: Any) -> None:
    network, x = build(networks.Pooled), pictures()
    want = method(network)(x, 1)
    with torch.autocast("cpu", torch.bfloat16):
        got = method(network)(x, 1)
    assert float((got - want).abs().mean()) < 0.2
    assert torch.equal(method(network)(x, 1), want)  # nothing of it is remembered


@pytest.mark.parametrize("wrap", [nn.DataParallel, nn.Sequential])
@every
def test_wrapped_networks(method: Any, wrap: Any) -> None:
    network = build(networks.Pooled)
    close(
        method(wrap(network)).attribute(pictures(), 1), method(network).attribute(pictures(), 1), atol=1e-5, rtol=1e-5
    )


# What the maps themselves give away


def said(
    raw: Tensor, scores: Tensor | None = None, targets: Tensor | None = None, kind: str = "predicted"
) -> list[str]:
    outputs = Outputs.of_classes(torch.zeros(len(raw), CLASSES) if scores is None else scores)
    targets = torch.zeros(raw.shape[:2]).long() if targets is None else targets
    found = Attribution(raw=raw, outputs=outputs, targets=TargetSet(classes=targets))
    return list(replace(found, notes=tuple(review(found, kind, class_agnostic=False))).warnings)


def test_degenerate_maps_are_named() -> None:
    x = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert said(x) == []
    assert said(torch.full_like(x, 3.0)) == ["Image 0, class 0: the map is constant, nothing stands out."]
    spike = torch.full_like(x, 0.001)
    spike[0, 0, 4, 4] = 1.0
    assert said(spike) == ["Image 0, class 0: nearly all of the map's energy is in one position."]
    border = torch.ones_like(x)
    border[..., 1:-1, 1:-1] = 0
    assert said(border) == [
        "Image 0, class 0: the map is strong at the border only, which is often an artefact of padding."
    ]
    assert said(torch.zeros(1, 1, 1, 1)) == []
    many = said(torch.zeros(2, 6, 8, 8))
    assert len(many) == 9
    assert many[-1] == "... and 4 more: constant map."
    assert many[7] == "Image 1, class 0: the map is constant, nothing stands out."


def test_a_class_that_the_network_does_not_see_is_named() -> None:
    scores, map_ = torch.tensor([[9.0, 0.0, 0.0, 0.0, 0.0]]), torch.rand(1, 1, 8, 8)
    found = said(map_, scores, torch.tensor([[3]]), "classes")
    assert found == ["Image 0, class 3: its softmax probability is 0.00012; the network says class 0 (1.00)."]
    assert said(map_, scores, torch.tensor([[0]]), "classes") == []
    assert said(map_, scores, torch.tensor([[3]]), "all") == []


def test_targets_as_numpy_arrays() -> None:
    explainer = Gradient(build(networks.Pooled))
    close(explainer.attribute(pictures(), np.array([2, 1])), explainer.attribute(pictures(), [2, 1]))
