"""SmoothGrad against the methods it wraps, run on each noisy copy by hand."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seewhy.errors import InvalidInput, InvalidType, MissingCapability, UnknownName
from seewhy.explainers import ActivationMap, GradCAM, Gradient, InputXGradient, Occlusion, SmoothGrad
from seewhy.explainers.smooth_grad import _Sums
from seewhy.models import FeatureModel, GradientModel, Model
from seewhy.models.torch.model import TorchModel
from seewhy.progress import listening
from seewhy.targets import BoxTarget
from support import networks
from support.networks import CLASSES, build, detector, pictures

close = torch.testing.assert_close


def noisy(x: Tensor, samples: int, share: float, seed: int) -> Tensor:
    """(S, N, C, H, W) every image with the same noise, in units of its own range."""
    noise = torch.randn((samples, *x.shape[1:]), generator=torch.Generator().manual_seed(seed))
    return torch.stack([torch.stack([i + share * (i.max() - i.min()) * one for i in x]) for one in noise])


@pytest.mark.parametrize("variant", ["mean", "square", "variance"])
def test_it_is_the_definition(variant: str) -> None:
    network, x = build(networks.Pooled), pictures(3, height=24, width=32)
    x[1] *= 5  # another range, and so other noise
    maps = torch.stack([Gradient(network).attribute(one, [0, 1, 2]) for one in noisy(x, 7, 0.2, 3)])
    want = {"mean": maps.mean(0), "square": maps.square().mean(0), "variance": maps.var(0, correction=0)}[variant]
    got = SmoothGrad(network, samples=7, noise=0.2, seed=3, variant=variant).attribute(x, [0, 1, 2])
    close(got, want, atol=1e-7, rtol=1e-4)


@pytest.mark.parametrize(
    ("inner", "name"), [(GradCAM, "grad_cam"), (Occlusion, "occlusion"), (InputXGradient, "input_x_gradient")]
)
def test_it_wraps_any_method(inner: Any, name: str) -> None:
    network, x = build(networks.Pooled), pictures(2)
    want = torch.stack([inner(network).attribute(one, "all", native=True) for one in noisy(x, 5, 0.15, 0)]).mean(0)
    for form in (name, inner.__name__, inner, inner(network)):
        close(SmoothGrad(network, inner=form, samples=5).attribute(x, "all", native=True), want, atol=1e-6, rtol=1e-4)


def test_parameters_of_the_inner_method_are_kept() -> None:
    network, x = build(networks.Pooled), pictures(2)
    wrapped = SmoothGrad(network, inner=GradCAM(network, layer="act1"), samples=4)
    want = torch.stack([GradCAM(network, layer="act1").attribute(one, 1) for one in noisy(x, 4, 0.15, 0)]).mean(0)
    found = wrapped.run(x, 1)
    assert found.raw.shape == (2, 1, 16, 16)
    assert found.layer == "act1"
    close(wrapped.attribute(x, 1), want, atol=1e-6, rtol=1e-4)


def test_the_papers_signed_gradient_of_a_quadratic_network() -> None:
    """d/dx of w x^2 is 2 w x: the mean is that at the mean copy, the variance 4 w^2 times the copies' own."""

    class Square(networks.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x**2)

    network, x = build(Square, channels=1), pictures(2, 1, 8, 12)
    copies, weight = noisy(x, 30, 0.15, 0), network.weight.detach()[1]
    inner = Gradient(network, reduce="sum")
    mean, variance = (
        SmoothGrad(network, inner=inner, samples=30, variant=v).attribute(x, 1) for v in ("mean", "variance")
    )
    close(mean, 2 * weight * copies.mean(0), atol=1e-5, rtol=1e-4)
    close(variance, 4 * weight**2 * copies.var(0, correction=0), atol=1e-5, rtol=1e-3)


def test_the_gradient_of_a_linear_network_has_no_noise() -> None:
    network, x = build(networks.Linear), pictures(2, height=8, width=12)
    close(SmoothGrad(network).attribute(x, "all"), Gradient(network).attribute(x, "all"), atol=1e-6, rtol=1e-5)
    assert float(SmoothGrad(network, variant="variance").attribute(x, "all").abs().max()) < 1e-10


def test_small_variances_of_large_maps_are_right() -> None:
    maps = 1e4 + torch.randn((60, 2, 1, 5, 5), generator=torch.Generator().manual_seed(0))
    sums = _Sums(2, 60)
    rows, which = torch.arange(120) // 60, torch.arange(120) % 60
    flat = maps.transpose(0, 1).flatten(0, 1)
    for part in torch.arange(120).split(7):
        sums.add(flat[part], rows[part], which[part])
    close(sums.result("variance"), maps.double().var(0, correction=0).float(), atol=0, rtol=1e-3)


def test_the_target_is_that_of_the_picture_without_noise() -> None:
    class Close(nn.Module):
        """Two classes that noise often swaps, each looking at one half of the picture."""

        def __init__(self) -> None:
            super().__init__()
            self.gain = nn.Parameter(torch.tensor(1.0))

        def forward(self, x: Tensor) -> Tensor:
            return self.gain * torch.stack([x[..., :4].sum((1, 2, 3)) + 0.01, x[..., 4:].sum((1, 2, 3))], 1)

    network, x = build(Close), torch.zeros(1, 1, 8, 8)
    x[..., 0, ::4] = 1.0
    predictions = network(noisy(x, 50, 0.15, 0)[:, 0]).argmax(1)
    assert 0 < int(predictions.sum()) < 50
    found = SmoothGrad(network).run(x)
    assert found.targets.classes.tolist() == [[0]]
    close(found.raw[0, 0], torch.tensor([1.0] * 4 + [0.0] * 4).expand(8, -1))


def test_boxes_of_a_black_box() -> None:
    x = torch.zeros(1, 3, 32, 48)
    x[:, 0, :16, :24], x[:, 1, 16:, 24:] = 0.6, 0.6
    boxes = [BoxTarget(box=(0, 0, 24, 16), label=0), BoxTarget(box=(24, 16, 48, 32), label=1)]
    inner = Occlusion(detector, window=8, stride=8, activation_fn=None)
    found = SmoothGrad(detector, inner=inner, samples=6).run(x, boxes)
    want = torch.stack([inner.attribute(one, boxes) for one in noisy(x, 6, 0.15, 0)]).mean(0)
    close(found.raw, want, atol=1e-6, rtol=1e-4)
    assert found.targets.classes is None
    assert float(found.raw[0, 0, :16, :24].mean()) > 5 * float(found.raw[0, 0, 16:, 24:].abs().mean())


def test_passes_and_progress() -> None:
    network, x, heard = build(networks.Pooled), pictures(2), []
    with listening(lambda done, total: heard.append((done, total))):
        found = SmoothGrad(
            network, inner=Occlusion(network, window=16, stride=16), samples=5, perturbation_per_eval=4
        ).run(x)
    assert found.passes.forward == 2 + 2 * 5 * (1 + 4)
    assert heard == [(4, 10), (7, 10), (10, 10)]


def test_a_wrapper_is_what_it_wraps() -> None:
    network = build(networks.Pooled)
    nested = SmoothGrad(network, inner=ActivationMap)
    cases = [("gradient", GradientModel, False, True), ("activation_map", FeatureModel, True, False),
             ("occlusion", Model, False, False), (nested, FeatureModel, True, False)]  # fmt: skip
    for inner, needs, agnostic, pixelwise in cases:
        made = SmoothGrad(network, inner=inner)
        assert (made.needs, made.class_agnostic, made.pixelwise) == (needs, agnostic, pixelwise)
    said = SmoothGrad(network, inner="activation_map", samples=2).run(pictures()).warnings
    assert "The map is the same for every class: this method does not look at the target." in said


def test_a_model_and_its_network_count_as_one() -> None:
    network, x = build(networks.Pooled), pictures()
    want = SmoothGrad(network, samples=3).attribute(x)
    close(SmoothGrad(TorchModel(network), inner=Gradient(network), samples=3).attribute(x), want)


def test_what_the_inner_method_says_is_said_about_the_right_image() -> None:
    network, x = build(networks.Shared), pictures(3)
    with torch.no_grad():
        network.fc.weight[2] = -1.0
    found = SmoothGrad(network, inner="grad_cam", samples=4, perturbation_per_eval=3).run(x, [0, 2, 2])
    empty = [w for w in found.warnings if "negative everywhere" in w]
    said = (
        "Image {}, class 2: its CAM is negative everywhere at layer 'act1', so the map is empty. (On at least one "
        "noisy copy.)"
    )
    assert [w for w in empty if "class 2" in w] == [said.format(1), said.format(2)]
    twice = "Layer 'act1' ran 2 times in a pass; its last output is explained."
    assert found.warnings.count(twice) == 1


def test_a_flat_image_has_no_noise() -> None:
    network, x = build(networks.Pooled), pictures(2)
    x[1] = 0.5
    found = SmoothGrad(network, samples=3, variant="variance").run(x)
    assert "Image 1: all its values are equal, so no noise was added." in found.warnings
    assert not any("Image 0: all its values" in w for w in found.warnings)
    assert float(found.raw[1].abs().max()) == 0


def test_the_seed_decides() -> None:
    network, x = build(networks.Pooled), pictures()
    maps = [SmoothGrad(network, samples=3, seed=s).attribute(x) for s in (0, 0, 1)]
    assert torch.equal(maps[0], maps[1])
    assert not torch.allclose(maps[0], maps[2])


def test_a_model_without_gradients() -> None:
    said = "SmoothGrad needs gradients; 'detector' gives scores only. Try RISE or Occlusion."
    with pytest.raises(MissingCapability, match="^" + re.escape(said) + "$"):
        SmoothGrad(detector)(pictures())


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"samples": 0}, "samples must be a positive integer, got 0."),
    ({"samples": True}, "samples must be a positive integer, got True."),
    ({"samples": 1, "variant": "variance"}, "The variance of one sample is always 0. Use samples=2 or more."),
    ({"noise": 0}, "noise must be a positive number, got 0."),
    ({"noise": float("inf")}, "noise must be a positive number, got inf."),
    ({"noise": "much"}, "noise must be a positive number, got 'much'."),
    ({"variant": "median"}, "variant must be 'mean', 'square' or 'variance', got 'median'."),
    ({"seed": None}, "seed must be an integer, got None."),
    ({"perturbation_per_eval": -1}, "perturbation_per_eval must be a positive integer or 'auto', got -1."),
    ({"inner": Gradient(build(networks.Pooled))},
     "The inner explainer is of another network. Make it with the network of SmoothGrad."),
]  # fmt: skip


@pytest.mark.parametrize(("parameters", "said"), WRONG, ids=[str(next(iter(p.items())))[:40] for p, _ in WRONG])
def test_wrong_parameters(parameters: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match="^" + re.escape(said) + "$"):
        SmoothGrad(build(networks.Pooled), **parameters)


def test_an_inner_method_that_is_none() -> None:
    network = build(networks.Pooled)
    with pytest.raises(UnknownName, match=re.escape("There is no explainer 'gradiant'. Did you mean 'gradient'")):
        SmoothGrad(network, inner="gradiant")
    for inner in (3, nn.Linear, len):
        said = f"inner is a registry name, an Explainer class or an explainer, got {inner!r}."
        with pytest.raises(InvalidType, match="^" + re.escape(said) + "$"):
            SmoothGrad(network, inner=inner)


def test_all_classes_at_once() -> None:
    assert SmoothGrad(build(networks.Pooled), samples=2)(pictures(), "all").shape == (2, CLASSES, 32, 32)
