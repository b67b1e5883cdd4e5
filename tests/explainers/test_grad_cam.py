"""GradCAM against hand-made hooks and Captum."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from captum import attr
from torch import Tensor, nn

from seewhy.explainers import GradCAM
from support import networks
from support.networks import CLASSES, build, pictures
from support.typed import present

close = torch.testing.assert_close


def slow(network: nn.Module, layer: str, x: Tensor, target: int) -> Tensor:
    """One picture at a time, one channel at a time, with hooks on the module."""
    maps = []
    for one in x:
        kept: list[Tensor] = []

        def hook(_m: Any, _a: Any, out: Tensor, kept: list[Tensor] = kept) -> Tensor:
            kept.append(out.clone())
            kept[0].retain_grad()
            return kept[0].clone()

        handle = network.get_submodule(layer).register_forward_hook(hook)
        network(one[None].clone().requires_grad_())[0, target].backward()
        handle.remove()
        values, gradient = kept[0][0].detach(), present(kept[0].grad)[0]
        cam = torch.zeros_like(values[0])
        for k in range(len(values)):
            cam += gradient[k].mean() * values[k]
        maps.append(cam.clamp(min=0)[None])
    return torch.stack(maps)


@pytest.mark.parametrize("kind", [networks.Pooled, networks.Inplace, networks.Residual, networks.Deep])
def test_it_is_the_definition_at_every_layer(kind: Any) -> None:
    network, x = build(kind), pictures(2, height=32, width=48)
    layers = [name for name, m in network.named_modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d)]
    assert layers
    for layer in layers:
        for target in range(CLASSES):
            got = GradCAM(network, layer=layer).attribute(x, target, native=True)
            close(got, slow(network, layer, x, target), atol=1e-6, rtol=1e-4)


def test_closed_form_of_a_pooled_linear_head() -> None:
    network, x = build(networks.Pooled), pictures(3)
    maps = network.features(x).detach()
    want = torch.einsum("kc,nchw->nkhw", network.fc.weight.detach(), maps).relu() / (8 * 8)
    close(GradCAM(network).attribute(x, "all", native=True), want, atol=1e-6, rtol=1e-4)


def test_it_is_captums() -> None:
    network, x = build(networks.Residual), pictures(3)
    grad_cam = attr.LayerGradCam(network, network.conv2)
    want = grad_cam.attribute(x.clone().requires_grad_(), target=2, relu_attributions=True, attr_dim_summation=True)
    close(GradCAM(network, layer="conv2").attribute(x, 2, native=True), want.detach(), atol=1e-6, rtol=1e-4)


def test_the_input_as_the_layer() -> None:
    network = build(networks.Linear)
    x = pictures(height=8, width=12)
    weights = network.weight.detach()[1].mean((1, 2))
    close(GradCAM(network, layer="").attribute(x, 1), torch.einsum("c,nchw->nhw", weights, x).relu()[:, None])


def test_a_layer_with_the_channels_last() -> None:
    network, x = build(networks.ChannelsLast), pictures(height=32, width=48)
    values = network.stage(network.embed(x).permute(0, 2, 3, 1)).detach().requires_grad_()
    scores = network.fc(F.relu(network.norm(values)).mean((1, 2)))
    (gradient,) = torch.autograd.grad(scores[:, 1].sum(), values)
    want = torch.einsum("nc,nhwc->nhw", gradient.mean((1, 2)), values.detach()).relu()[:, None]
    found = GradCAM(network, layer="stage").run(x, 1)
    close(found.raw, want)
    assert found.layer == "stage"


def test_nothing_below_the_layer_is_differentiated() -> None:
    network, asked = build(networks.Pooled), []
    network.conv1.register_forward_hook(lambda _m, _a, out: asked.append(out.requires_grad))
    GradCAM(network, layer="conv2")(pictures())
    assert asked == [False]


def test_an_empty_map_says_why() -> None:
    network, x = build(networks.Pooled), pictures(1)
    with torch.no_grad():
        network.fc.weight[2] = -1.0
    found = GradCAM(network, layer="act2").run(x, 2)
    said = "Image 0, class 2: its CAM is negative everywhere at layer 'act2', so the map is empty."
    assert said in found.warnings
    assert float(found.raw.abs().max()) == 0
    with torch.no_grad():
        network.fc.weight[2] = 1.0
    assert not any("negative everywhere" in w for w in GradCAM(network, layer="act2").run(x, 2).warnings)


def test_a_layer_that_runs_twice() -> None:
    network, x = build(networks.Shared), pictures()
    found = GradCAM(network, layer="act1").run(x, 1)
    assert "Layer 'act1' ran 2 times in a pass; its last output is explained." in found.warnings
    close(found.raw, GradCAM(network).attribute(x, 1, native=True))
    assert re.search("act1", found.layer)
