"""Gradient, GuidedBackprop and Deconvolution against closed forms, slow twins and Captum."""

from __future__ import annotations

import re
import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from captum import attr
from torch import Tensor, nn

from seewhy.errors import InvalidInput, NoReLURule
from seewhy.explainers import Deconvolution, Gradient, GuidedBackprop
from support import networks
from support.networks import CLASSES, build, pictures

close = torch.testing.assert_close


def test_gradient_of_a_linear_network_is_its_weights() -> None:
    network = build(networks.Linear)
    weight, x = network.weight.detach(), pictures(height=8, width=12)
    want = {"max_abs": weight.abs().amax(1), "sum": weight.sum(1), "mean_abs": weight.abs().mean(1)}
    for reduce, maps in want.items():
        close(Gradient(network, reduce=reduce).attribute(x, "all"), maps.expand(2, -1, -1, -1))


def test_gradient_is_what_small_steps_show() -> None:
    network, x, step = build(networks.Pooled, nn.GELU).double(), pictures(1, height=6, width=5).double(), 1e-5
    slow = torch.zeros(3, 6, 5)
    for c in range(3):
        for i in range(6):
            for j in range(5):
                up, down = x.clone(), x.clone()
                up[0, c, i, j] += step
                down[0, c, i, j] -= step
                slow[c, i, j] = ((network(up) - network(down))[0, 2] / (2 * step)).detach()
    close(Gradient(network, reduce="sum").attribute(x, 2)[0, 0], slow.sum(0), atol=1e-5, rtol=1e-4)
    close(Gradient(network).attribute(x, 2)[0, 0], slow.abs().amax(0), atol=1e-5, rtol=1e-4)


def test_gradient_is_captums_saliency() -> None:
    network, x = build(networks.Residual), pictures(3)
    want = (
        attr.Saliency(network).attribute(x.clone().requires_grad_(), target=[0, 1, 2], abs=True).amax(1, keepdim=True)
    )
    close(Gradient(network).attribute(x, [0, 1, 2]), want, atol=1e-6, rtol=1e-5)


def _captum(method: type, network: nn.Module, x: Tensor, target: int) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return method(network).attribute(x.clone().requires_grad_(), target=target).detach()


@pytest.mark.parametrize(
    ("ours", "theirs"), [(GuidedBackprop, attr.GuidedBackprop), (Deconvolution, attr.Deconvolution)]
)
def test_the_rules_are_captums(ours: Any, theirs: Any) -> None:
    network, x = build(networks.Pooled), pictures(3)
    close(
        ours(network, reduce="sum").attribute(x, 1),
        _captum(theirs, network, x, 1).sum(1, keepdim=True),
        atol=1e-6,
        rtol=1e-5,
    )


class _Rule(torch.autograd.Function):
    """ReLU or ReLU6 with the rule of the paper written out."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rule: str, top: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.rule, ctx.top = rule, top
        return x.clamp(0, top)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        passes = (g > 0) if ctx.rule == "deconvolution" else (g > 0) & (x > 0) & (x < ctx.top)
        return torch.where(passes, g, torch.zeros_like(g)), None, None


def _twin(network: networks.Pooled, rule: str, top: float, x: Tensor, target: int) -> Tensor:
    x = x.clone().requires_grad_()
    first = _Rule.apply(network.bn1(network.conv1(x)), rule, top)
    second = _Rule.apply(network.bn2(network.conv2(first)), rule, top)
    scores = network.fc(second.mean((2, 3)))
    (gradient,) = torch.autograd.grad(scores[:, target].sum(), x)
    return gradient.abs().amax(1, keepdim=True)


KINDS = [networks.Pooled, networks.Functional, networks.Inplace, networks.Shared]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("method", "rule"), [(GuidedBackprop, "guided"), (Deconvolution, "deconvolution")])
def test_the_rules_reach_every_kind_of_relu(kind: Any, method: Any, rule: str) -> None:
    network, x = build(kind), pictures() * 3
    want = _twin(network, rule, float("inf"), x, 3)
    close(method(network).attribute(x, 3), want, atol=1e-6, rtol=1e-5)
    assert not torch.allclose(want, Gradient(network).attribute(x, 3))


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize(("method", "rule"), [(GuidedBackprop, "guided"), (Deconvolution, "deconvolution")])
def test_the_rules_reach_relu6(inplace: bool, method: Any, rule: str) -> None:
    network, x = build(networks.Pooled, nn.ReLU6, inplace=inplace), pictures() * 20
    assert network.act1(network.bn1(network.conv1(x))).amax().item() == 6
    close(method(network).attribute(x, 3), _twin(network, rule, 6.0, x, 3), atol=1e-6, rtol=1e-5)


def test_every_target_gets_the_rule() -> None:
    network, x = build(networks.Pooled), pictures(1)
    maps = GuidedBackprop(network).attribute(x, "all")
    for t in range(CLASSES):
        close(maps[:, t : t + 1], _twin(network, "guided", float("inf"), x, t), atol=1e-6, rtol=1e-5)


class _Mixed(networks.Pooled):
    """ReLU in one place, another activation in the other."""

    def __init__(self, other: Any) -> None:
        super().__init__()
        self.other = other

    def features(self, x: Tensor) -> Tensor:
        return self.act2(self.bn2(self.conv2(self.other(self.bn1(self.conv1(x))))))


class _Swish(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x.sigmoid()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        s = ctx.saved_tensors[0].sigmoid()
        return g * (s + ctx.saved_tensors[0] * s * (1 - s))


OTHERS = [(nn.GELU(), "GELU"), (nn.SiLU(), "SiLU"), (nn.Hardswish(), "Hardswish"), (nn.Mish(), "Mish"),
          (nn.ELU(), "ELU"),
          (nn.SELU(), "ELU"), (nn.LeakyReLU(), "LeakyReLU"), (nn.PReLU(), "PReLU"),
          (nn.Tanh(), "Tanh"), (nn.Softplus(), "Softplus"),
          (nn.Hardtanh(), "Hardtanh"), (lambda x: x.clamp(min=0), "clamp"),
          (lambda x: F.threshold(x, 0.1, 0), "Threshold"),
          (_Swish.apply, "the custom function _Swish")]  # fmt: skip


@pytest.mark.parametrize(("other", "title"), OTHERS, ids=[t + str(i) for i, (_, t) in enumerate(OTHERS)])
@pytest.mark.parametrize("method", [GuidedBackprop, Deconvolution])
def test_activations_without_a_rule(other: Any, title: str, method: Any) -> None:
    network = build(_Mixed, other)
    said = (
        f"{method.__name__} is defined for ReLU; the network also has {title}. Use Gradient, GradCAM or "
        f"ReciproCAM, or pass "
        "allow_other_activations=True to differentiate these as they are."
    )
    with pytest.raises(NoReLURule, match=re.escape(said) + "$"):
        method(network)(pictures())
    assert method(network, allow_other_activations=True)(pictures()).shape == (2, 1, 32, 32)


@pytest.mark.parametrize("method", [GuidedBackprop, Deconvolution])
def test_networks_without_relu(method: Any) -> None:
    network = build(networks.Linear)
    said = (
        f"{method.__name__} is defined for ReLU, and the network has none. Use Gradient, GradCAM or ReciproCAM, "
        f"or pass "
        "allow_other_activations=True for the plain gradient."
    )
    x = pictures(height=8, width=12)
    with pytest.raises(NoReLURule, match=re.escape(said) + "$"):
        method(network)(x)
    close(method(network, allow_other_activations=True).attribute(x), Gradient(network).attribute(x))


@pytest.mark.parametrize("method", [Gradient, GuidedBackprop, Deconvolution])
def test_reduce_is_checked(method: Any) -> None:
    with pytest.raises(
        InvalidInput, match=re.escape("reduce must be 'max_abs', 'sum' or 'mean_abs', got 'max'.") + "$"
    ):
        method(build(networks.Pooled), reduce="max")


class _Small(networks.Linear):
    """Its gradient is 1e-4 times the weights, which are 1e-4 themselves: half precision holds both, not the product."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x * 1e-4)


def test_small_gradients_survive_half_precision() -> None:
    network, x = build(_Small), pictures(height=8, width=12)
    with torch.no_grad():
        network.weight.mul_(1e-4)
    want = (network.weight.detach()[1] * 1e-4).sum(0).expand(2, 1, -1, -1)
    got = Gradient(network.half(), reduce="sum").run(x.half(), 1)
    close(got.raw, want, atol=1e-10, rtol=0.02)
    assert got.warnings == ()


def test_underflow_is_said() -> None:
    network = build(networks.Linear)
    with torch.no_grad():
        network.weight[..., 6:] = 0
    x = pictures(height=8, width=12).half()
    said = "50% of the gradient is exactly zero in float16. Use a float32 or bfloat16 network to be sure."
    assert said in Gradient(network.half()).run(x, 1).warnings
    assert Gradient(network.float()).run(x.float(), 1).warnings == ()


class _Norm(networks.Pooled):
    """The length of the features has no finite gradient where they are all zero."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + x.flatten(1).square().sum(1, keepdim=True).sqrt()


def test_a_gradient_that_is_not_finite_is_an_error() -> None:
    x = torch.cat([pictures(1), torch.zeros(1, 3, 32, 32)])
    said = (
        "Gradient came to NaN or infinite values in image 1: the network's numbers overflow, or it has an operation "
        "without a finite gradient there. Try a float32 network, RISE or Occlusion."
    )
    with pytest.raises(InvalidInput, match=re.escape(said) + "$"):
        Gradient(build(_Norm))(x)
