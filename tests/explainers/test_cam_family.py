"""GradCAM++, LayerCAM, HiResCAM and EigenCAM against hand-made hooks, closed forms, each other and grad-cam."""

from __future__ import annotations

from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from seewhy.explainers import EigenCAM, GradCAM, GradCAMPlusPlus, HiResCAM, LayerCAM, ReciproCAM
from seewhy.targets import SimilarityTarget
from support import networks
from support.networks import CLASSES, build, pictures
from support.typed import of_kind, present

close = torch.testing.assert_close
GRADIENT = [GradCAM, GradCAMPlusPlus, LayerCAM, HiResCAM]


def maps_and_gradients(network: nn.Module, layer: str, x: Tensor, target: int) -> tuple[Tensor, Tensor]:
    """(N, C, h, w) what the layer gives and the gradient of the logit there, with a hook on the module."""
    kept: list[Tensor] = []

    def hook(_m: Any, _a: Any, out: Tensor) -> Tensor:
        kept.append(out.clone())
        kept[0].retain_grad()
        return kept[0].clone()

    handle = network.get_submodule(layer).register_forward_hook(hook)
    network(x.clone().requires_grad_())[:, target].sum().backward()
    handle.remove()
    network.zero_grad()
    return kept[0].detach(), present(kept[0].grad)


def slow(method: type, maps: Tensor, gradients: Tensor) -> Tensor:
    """(N, 1, h, w) one picture, one channel and one position at a time, as the papers have it."""
    n, channels, h, w = maps.shape
    cam = torch.zeros(n, 1, h, w)
    for image in range(n):
        for k in range(channels):
            a, g = maps[image, k], gradients[image, k]
            weight = torch.zeros(h, w)
            for i in range(h):
                for j in range(w):
                    if method is HiResCAM:
                        weight[i, j] = g[i, j]
                    elif method is LayerCAM:
                        weight[i, j] = max(float(g[i, j]), 0)
                    elif g[i, j] > 0:  # GradCAM++: alpha times ReLU(g), for now at its own place
                        alpha = g[i, j] ** 2 / (2 * g[i, j] ** 2 + a.sum() * g[i, j] ** 3)
                        weight[i, j] = alpha * g[i, j]
            cam[image, 0] += a * (weight.sum() if method is GradCAMPlusPlus else weight)
    return cam if method is HiResCAM else cam.clamp(min=0)


PLACES = [(networks.Pooled, "act2"), (networks.Pooled, "act1"), (networks.Inplace, "act1"), (networks.Deep, "body.1")]
SIGNED = [(networks.Residual, "conv2"), (networks.Inplace, "bn2"), (networks.Deep, "body")]


@pytest.mark.parametrize(
    ("method", "kind", "layer"),
    [(m, *place) for m in (LayerCAM, HiResCAM) for place in PLACES + SIGNED]
    + [(GradCAMPlusPlus, *place) for place in PLACES],
)
def test_it_is_the_definition(method: type, kind: Any, layer: str) -> None:
    network, x = build(kind), pictures(2, height=16, width=24)
    everything = method(network, layer=layer).attribute(x, "all", native=True)
    for target in (0, 3):
        want = slow(method, *maps_and_gradients(network, layer, x, target))
        close(method(network, layer=layer).attribute(x, target, native=True), want, atol=1e-6, rtol=1e-4)
        close(everything[:, target : target + 1], want, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("method", GRADIENT)
def test_the_closed_form_of_a_pooled_linear_head_is_what_differentiating_gives(method: type) -> None:
    network, x = build(networks.Pooled), pictures(3, height=32, width=48)
    quick = method(network).run(x, "all")
    with mock.patch("seewhy.models.torch.pooled_head.Tape.head", return_value=None):
        slower = method(network).run(x, "all")
    assert (quick.passes.backward, slower.passes.backward) == (0, 3 * CLASSES)
    close(quick.raw, slower.raw, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("method", GRADIENT)
def test_targets_that_are_not_classes(method: type) -> None:
    network, x = build(networks.Pooled), pictures(2)
    want = method(network).attribute(x, [[1, 4]] * 2)  # in closed form
    got = method(network).attribute(x, [lambda o: o.classes[:, 1], lambda o: o.classes[:, 4]])  # differentiated
    close(got, want, atol=1e-6, rtol=1e-4)
    direction = SimilarityTarget(embedding=torch.tensor([0.0, 1.0, 0.0, 0.0, 0.0]))
    found = method(network).run(x, direction)
    assert found.targets.classes is None
    assert found.raw.shape == (2, 1, 8, 8)


def test_what_the_methods_have_in_common_on_a_pooled_linear_head() -> None:
    network, x = build(networks.Pooled), pictures(3, height=32, width=48)
    signed = HiResCAM(network).attribute(x, "all", native=True)
    bias, logits = network.fc.bias.detach(), network(x).detach()
    close(GradCAM(network).attribute(x, "all", native=True), signed.relu())
    close(ReciproCAM(network).attribute(x, "all", native=True), signed + bias.view(1, -1, 1, 1), atol=1e-5, rtol=1e-5)
    close(signed.sum((2, 3)) + bias, logits, atol=1e-5, rtol=1e-5)  # it adds up to the logit
    with torch.no_grad():
        network.fc.weight.abs_()  # then no channel speaks against the class, and LayerCAM leaves nothing out
    close(LayerCAM(network).attribute(x, "all"), HiResCAM(network).attribute(x, "all"), atol=1e-6, rtol=1e-5)


def test_hires_cam_keeps_places_that_grad_cam_mixes_up() -> None:
    """One channel, linear in each place with a weight of its own: only HiResCAM says what each place contributed."""
    network, x = build(networks.Linear, channels=1), pictures(2, channels=1, height=8, width=12)
    want = network.weight.detach()[2] * x
    got = HiResCAM(network, layer="").attribute(x, 2)
    close(got, want)
    close(got.sum((1, 2, 3)), network(x).detach()[:, 2], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(GradCAM(network, layer="").attribute(x, 2), want.relu(), atol=0.1)


def test_grad_cam_plus_plus_is_made_of_the_derivatives_of_exp() -> None:
    """Its alphas come from the first three derivatives of exp(logit), taken here one position at a time."""
    network, x = build(networks.Pooled).double(), pictures(1, height=8, width=12).double()
    maps = network.features(x)[0].detach()
    weight, bias = network.fc.weight.detach()[1] * 5, network.fc.bias.detach()[1]
    with torch.no_grad():
        network.fc.weight[1] *= 5
    cam, factor = torch.zeros(2, 3, dtype=torch.float64), torch.exp(weight @ maps.mean((1, 2)) + bias)
    for k in range(len(maps)):
        total = 0.0
        for place in [(k, i, j) for i in range(2) for j in range(3)]:
            value = maps[place].clone().requires_grad_()
            y = torch.exp(weight @ maps.index_put(tuple(map(torch.tensor, place)), value).mean((1, 2)) + bias)
            (first,) = torch.autograd.grad(y, value, create_graph=True)
            (second,) = torch.autograd.grad(first, value, create_graph=True)
            (third,) = torch.autograd.grad(second, value)
            alpha = second / (2 * second + maps[k].sum() * third)
            total += float((alpha * first.relu()).detach())
        cam += total * maps[k]
    got = GradCAMPlusPlus(network).attribute(x, 1, native=True)[0, 0]
    close(got.double() * factor, cam.relu(), atol=1e-5, rtol=1e-5)


def test_grad_cam_plus_plus_counts_small_places_like_large_ones() -> None:
    """Two channels, one active at one position and one at nine; each position speaks for the class alike."""
    x = torch.zeros(1, 2, 8, 8)
    x[0, 0, 1, 1] = 1.0
    x[0, 1, 4:7, 4:7] = 1.0
    network = nn.Sequential(nn.Flatten(), nn.Linear(128, 2, bias=False))
    weight = of_kind(nn.Linear, network[1]).weight
    nn.init.zeros_(weight)
    with torch.no_grad():
        weight[0] = 8 * x.flatten()
    small, large = (float(GradCAMPlusPlus(network, layer="").attribute(x, 0)[0, 0][p]) for p in [(1, 1), (5, 5)])
    plain = GradCAM(network, layer="").attribute(x, 0)[0, 0]
    assert float(plain[5, 5] / plain[1, 1]) == pytest.approx(9)
    assert small == pytest.approx(8 / (2 + 8))
    assert large == pytest.approx(9 * 8 / (2 + 72))
    assert large / small < 1.3


def test_grad_cam_plus_plus_on_a_layer_without_relu() -> None:
    network, x = build(networks.Linear, channels=2), torch.ones(1, 2, 8, 12)
    x[:, 1] = -1 / 48  # 2 + g * sum is 0 at g = 1: the paper's formula divides by zero
    with torch.no_grad():
        network.weight[0] = 1.0
        network.weight[0, 1, :4] = 0.0
    found = GradCAMPlusPlus(network, layer="").run(x, 0)
    said = (
        "1 of 2 channels of layer '' sum to less than 0. GradCAM++ is defined for a layer after a ReLU; their sums "
        "were taken as 0."
    )
    assert said in found.warnings
    close(found.raw[0, 0], torch.full((8, 12), 96 / (2 + 96) - 48 / 2 / 48))
    assert said not in GradCAMPlusPlus(network, layer="").run(x.abs(), 0).warnings


@pytest.mark.parametrize("method", [GradCAMPlusPlus, LayerCAM])
def test_an_empty_map_says_why(method: type) -> None:
    network, x = build(networks.Linear), -pictures(1, height=8, width=12).abs()
    x[..., 0, 0] = 0.0
    with torch.no_grad():
        network.weight.abs_()
    found = method(network, layer="").run(x, "all")
    said = "Image 0, class {}: its CAM is negative everywhere at layer '', so the map is empty."
    assert [w for w in found.warnings if "negative everywhere" in w] == [said.format(c) for c in range(CLASSES)]
    assert float(found.raw.abs().max()) == 0


def test_only_the_first_empty_maps_are_named() -> None:
    network, x = build(networks.Linear), -pictures(3, height=8, width=12).abs()
    with torch.no_grad():
        network.weight.abs_()
    said = LayerCAM(network, layer="").run(x, "all").warnings
    assert sum("its CAM is negative everywhere" in w for w in said) == 8
    assert "... and 7 more: CAM negative everywhere." in said
    nothing = LayerCAM(network, layer="").run(torch.zeros_like(x), "all").warnings
    assert not any("negative everywhere" in w for w in nothing)


@pytest.mark.parametrize("size", [(8, 12), (2, 1)])
def test_eigen_cam_is_the_first_singular_vector(size: tuple[int, int]) -> None:
    """More positions than channels, and fewer."""
    network, x = build(networks.Linear, 3, *size), pictures(4, 3, *size).double()
    found = EigenCAM(network.double(), layer="").run(x, "all")
    for i in range(4):
        _, _, v = np.linalg.svd(x[i].flatten(1).T.numpy(), full_matrices=False)
        want = torch.from_numpy(x[i].flatten(1).T.numpy() @ v[0]).view(size)
        want = want if float((want * want.abs()).sum()) > 0 else -want
        close(found.raw[i], want.float().expand(CLASSES, -1, -1), atol=1e-5, rtol=1e-4)


def test_eigen_cam_finds_a_planted_component_with_its_sign() -> None:
    """Channels that share one picture, most of them upside down, over a weak slope of the other sign."""
    network, picture = build(networks.Linear, channels=6), torch.full((8, 12), -0.2)
    picture[2:4, 7:10] = 3.0
    strengths = torch.tensor([1.0, -2.0, -3.0, -1.0, -4.0, 0.5])
    x = (strengths.view(-1, 1, 1) * picture)[None]
    got = EigenCAM(network, layer="").attribute(x, 0)[0, 0]
    close(got, picture * strengths.norm(), atol=1e-4, rtol=1e-4)
    close(EigenCAM(network, layer="").attribute(-x, 0)[0, 0], got)


def test_eigen_cam_is_light_all_over_after_a_relu() -> None:
    raw = EigenCAM(build(networks.Pooled)).attribute(pictures(4), native=True)
    assert float(raw.min()) >= -1e-6
    assert float(raw.max()) > 0


def test_eigen_cam_says_when_its_sign_means_nothing() -> None:
    network, x = build(networks.Linear, channels=2), torch.ones(2, 2, 8, 12)
    x[0, :, :, 6:] = -0.97
    x[1, :, :, 6:] = -0.8
    found = EigenCAM(network, layer="").run(x, 0)
    said = "Image {}: the light and the dark side of its map are equally strong, so which is light means nothing."
    assert said.format(0) in found.warnings
    assert said.format(1) not in found.warnings
    assert "The map is the same for every class: this method does not look at the target." in found.warnings


def test_eigen_cam_of_nothing_is_nothing() -> None:
    found = EigenCAM(build(networks.Linear), layer="").run(torch.zeros(1, 3, 8, 12), 0)
    assert torch.equal(found.raw, torch.zeros(1, 1, 8, 12))


def theirs(method: str, network: nn.Module, layer: str, x: Tensor, target: int) -> Tensor:
    """grad-cam's map before it is scaled and enlarged."""
    library = pytest.importorskip("pytorch_grad_cam")
    maps, gradients = (t.numpy() for t in maps_and_gradients(network, layer, x, target))
    module = network.get_submodule(layer)
    cam = getattr(library, method)(network, [module])
    image = cam.get_cam_image(x, module, None, maps, gradients, False)
    cam.activations_and_grads.release()
    return torch.from_numpy(image).float().unsqueeze(1)


@pytest.mark.parametrize("method", [GradCAMPlusPlus, LayerCAM, HiResCAM])
def test_it_is_grad_cams(method: type) -> None:
    network, x = build(networks.Deep), pictures(3, height=32, width=48)
    with torch.no_grad():
        network.head[6].weight *= 100  # grad-cam adds 1e-6 to a denominator of squared gradients
    want = theirs(method.__name__, network, "body.1", x, 2)
    want = want if method is HiResCAM else want.relu()  # grad-cam puts the ReLU on later, on HiResCAM too
    got = method(network, layer="body.1").attribute(x, 2, native=True)
    close(got, want, atol=1e-4 * float(want.abs().max()), rtol=1e-3)


def test_eigen_cam_is_grad_cams_where_channels_have_no_mean() -> None:
    """grad-cam subtracts the mean, which the paper does not, and leaves the sign to chance."""
    network = nn.Sequential(nn.Conv2d(3, 8, 3, 4, 1), nn.InstanceNorm2d(8), nn.Flatten(), nn.Linear(8 * 96, CLASSES))
    network, x = network.eval(), pictures(3, height=32, width=48)
    want = theirs("EigenCAM", network, "1", x, 0)
    got = EigenCAM(network, layer="1").attribute(x, 0, native=True)
    signs = torch.sign((got * want).sum((2, 3), keepdim=True))
    close(got, want * signs, atol=1e-4, rtol=1e-4)
