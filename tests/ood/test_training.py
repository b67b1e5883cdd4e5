"""OoDNet: the formula, what it learns and what training leaves alone."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from seewhy.errors import InvalidInput
from seewhy.models.adapters import as_model
from seewhy.ood.ood_net import OoDNet
from support import networks
from support.networks import CLASSES, build, pictures
from support.ood_cases import Asked, Headless, close, patches, refuses, vector
from support.typed import of_kind, present, unchecked


class Stripes(nn.Module):
    """Its features are the mean brightness of the stripes; it is right on ``patches``."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.drop, self.fc = nn.BatchNorm1d(CLASSES), nn.Dropout(0.5), nn.Linear(CLASSES, CLASSES)
        nn.init.eye_(self.fc.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.drop(self.norm(x.mean((1, 2)).unflatten(1, (CLASSES, 2)).mean(2))))


def snapshot(network: nn.Module) -> dict[str, Any]:
    return {
        "weights": {name: value.clone() for name, value in network.state_dict().items()},
        "training": [m.training for m in network.modules()],
        "grad": [p.grad for p in network.parameters()],
        "requires": [p.requires_grad for p in network.parameters()],
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in network.modules()],
    }


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    weights = all(torch.equal(a["weights"][k], b["weights"][k]) for k in a["weights"])
    return weights and all(a[k] == b[k] for k in ("training", "grad", "requires", "hooks"))


@pytest.mark.parametrize("kind", [networks.Pooled, Asked, Headless])
def test_the_formula(kind: type[nn.Module]) -> None:
    network, x = build(kind), pictures(6)
    ood_net = OoDNet(network, CLASSES)
    z, w = vector(network, x), ood_net.class_vectors.detach()
    h = torch.stack([torch.stack([z[n] @ w[i] / z[n].norm() / w[i].norm() for i in range(CLASSES)]) for n in range(6)])
    close(ood_net(x).detach(), h)
    first = of_kind(nn.Linear, ood_net.g[0])
    linear = z @ first.weight.T + present(first.bias)
    g = torch.sigmoid((linear - linear.mean()) / (linear.var(unbiased=False) + 1e-5).sqrt()).detach()
    close(ood_net.train()(x).detach(), h / g, atol=1e-4, rtol=1e-4)


def test_it_starts_in_evaluation_mode_and_leaves_the_classifiers() -> None:
    network = build(networks.Pooled).train()
    before = snapshot(network)
    ood_net = OoDNet(network, CLASSES)
    assert not ood_net.training
    assert not any(m.training for m in ood_net.g.modules())
    assert ood_net.underlying is network
    assert ood_net.num_classes == CLASSES
    ood_net(pictures())
    assert same(before, snapshot(network))


def test_features_without_an_image_have_score_0() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, CLASSES))
    assert torch.equal(OoDNet(network, CLASSES)(torch.zeros(2, 3, 2, 2)), torch.zeros(2, CLASSES))


def test_features_and_logits_come_from_one_pass() -> None:
    network, x = build(networks.Pooled), pictures()
    model, ood_net = as_model(network), OoDNet(network, CLASSES)
    outputs, features = ood_net.overhear(lambda: model(x))
    assert model.passes.forward == 2
    close(features, vector(network, x))
    close(outputs.classes, network(x).detach())
    assert all(not m._forward_hooks for m in network.modules())


def test_features_are_a_copy() -> None:
    class Later(networks.Pooled):
        def forward(self, x: Tensor) -> Tensor:
            z = self.pool(self.features(x)).flatten(1)
            scores = self.fc(z)
            z.zero_()
            return scores

    close(OoDNet(build(Later), CLASSES).features(pictures()), vector(build(networks.Pooled), pictures()))


def test_the_last_linear_layer_with_that_many_scores_is_taken() -> None:
    linear = (nn.Linear(i, o) for i, o in ((12, CLASSES), (CLASSES, 7), (7, CLASSES)))
    network = nn.Sequential(nn.Flatten(), *linear)
    ood_net = OoDNet(network, CLASSES)
    assert ood_net.layer == "3"
    assert ood_net.class_vectors.shape == (CLASSES, 7)


@pytest.mark.compile
def test_one_that_is_compiled() -> None:
    network, x = build(networks.Pooled), pictures()
    ood_net = OoDNet(unchecked(torch.compile(network, backend="eager")), CLASSES)
    assert ood_net.underlying is network
    close(ood_net.features(x), vector(unchecked(network), x))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_inside_no_grad_and_inference_mode(mode: Any) -> None:
    ood_net, x = OoDNet(build(networks.Pooled), CLASSES), pictures()
    want = ood_net(x)
    with mode():
        assert torch.equal(ood_net(x), want)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floating_point_types(dtype: torch.dtype) -> None:
    network = build(networks.Pooled)
    ood_net = OoDNet(network, CLASSES)
    want = ood_net(pictures()).detach()
    network.to(dtype)
    found = ood_net(pictures().to(dtype)).detach()
    assert found.dtype == torch.float32
    close(found, want, atol=0.03, rtol=0)


def test_it_learns_what_is_familiar() -> None:
    (x, labels), (new, truth) = patches(), patches(60, seed=1)
    ood_net = OoDNet(build(Stripes), CLASSES)
    losses = ood_net.fit(TensorDataset(x, labels), nn.CrossEntropyLoss(), epoch=15, batch_size=32, progress=False)
    assert losses[-1] < 0.2 * losses[0]
    known = ood_net(new).detach()
    assert float((known.argmax(1) == truth).float().mean()) > 0.95
    strange = torch.randn(60, 3, 10, 10, generator=torch.Generator().manual_seed(2)) * 0.1 + 0.2  # no stripe
    higher = known.amax(1).unsqueeze(1) > ood_net(strange).detach().amax(1)
    assert float(higher.float().mean()) > 0.95  # the AUROC


def test_fitting_leaves_the_classifier_as_it_was_found() -> None:
    """BatchNorm's statistics, modes, gradients and all; Dropout is off."""
    network = build(Stripes).train()
    network.norm.eval()
    network.fc.weight.requires_grad_(False)
    before = snapshot(network)
    ood_net = OoDNet(network, CLASSES)
    start = copy.deepcopy(ood_net.state_dict())
    ood_net.fit(TensorDataset(*patches(40)), nn.CrossEntropyLoss(), epoch=2, progress=False)
    assert same(before, snapshot(network))
    assert not ood_net.training
    assert not ood_net.g.training
    changed = [k for k, v in ood_net.state_dict().items() if not torch.equal(v, start[k])]
    own = ["class_vectors", "g.0.weight", "g.1.weight", "g.1.bias", "g.1.running_mean", "g.1.running_var"]
    assert set(own) <= set(changed)
    assert not any(name.startswith("underlying") for name in changed)


def test_fitting_leaves_the_classifier_as_it_was_found_after_an_error() -> None:
    network = build(Stripes).train()
    before = snapshot(network)
    ood_net = OoDNet(network, CLASSES)

    def broken(_logits: Tensor, _labels: Tensor) -> Tensor:
        raise RuntimeError("broken on purpose")

    with pytest.raises(RuntimeError, match="broken on purpose"):
        ood_net.fit(TensorDataset(*patches(40)), broken, progress=False)
    assert same(before, snapshot(network))
    assert not ood_net.training


def test_the_classifier_can_be_trained_too() -> None:
    network = build(networks.Pooled)
    ood_net, before = OoDNet(network, CLASSES), snapshot(network)
    said = (
        "The classifier is trained, too, but not its own last layer, which will no longer fit. Train that again before "
        "the classifier's answers are used or explained."
    )
    data = [(pictures(8), torch.arange(8) % CLASSES)]
    with pytest.warns(UserWarning, match="^" + re.escape(said) + "$"):
        ood_net.fit(data, nn.CrossEntropyLoss(), epoch=2, train_underlying=True, progress=False)
    after = snapshot(network)
    changed = [k for k in before["weights"] if not torch.equal(before["weights"][k], after["weights"][k])]
    assert {"conv1.weight", "bn1.running_mean"} <= set(changed)
    assert not any(name.startswith("fc") for name in changed)
    assert before["training"] == after["training"]
    assert ood_net.train_underlying is False
    assert all(p.grad is None for p in ood_net.parameters())
    network.requires_grad_(False)
    with refuses(InvalidInput, "train_underlying=True, but no parameter of the classifier requires a gradient."):
        ood_net.fit(data, nn.CrossEntropyLoss(), train_underlying=True, progress=False)


def test_a_loop_of_ones_own() -> None:
    """With ``train()``, which switches the classifier's modules: its statistics stay all the same."""
    network = build(networks.Pooled)
    ood_net = OoDNet(network, CLASSES)
    weights = {k: v.clone() for k, v in network.state_dict().items()}
    optimizer, scheduler = ood_net.prepare_train(learning_rate=0.5)
    ood_net.train()
    assert network.training
    vectors = ood_net.class_vectors.detach().clone()
    F.cross_entropy(ood_net(pictures(8)), torch.arange(8) % CLASSES).backward()
    optimizer.step()
    scheduler.step()
    assert all(torch.equal(v, weights[k]) for k, v in network.state_dict().items())
    assert all(p.grad is None for p in network.parameters())
    assert not torch.equal(ood_net.class_vectors, vectors)


def test_parameters_and_their_decay() -> None:
    ood_net = OoDNet(build(networks.Pooled), CLASSES)
    own = ood_net.get_train_parameters()
    assert {id(p) for p in own} == {id(ood_net.class_vectors), *(id(p) for p in ood_net.g.parameters())}
    ood_net.underlying.conv1.requires_grad_(False)
    both = ood_net.get_train_parameters(train_underlying=True)
    frozen = {id(p) for p in of_kind(networks.Pooled, ood_net.underlying).conv1.parameters()}
    assert {id(p) for p in both} == {id(p) for p in ood_net.parameters()} - frozen
    optimizer, scheduler = ood_net.prepare_train(
        learning_rate=0.2, momentum=0.8, weight_decay=0.01, lr_base_factor=0.5, lr_epoch_denom=2
    )
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decay == {id(p): 0.0 if p is ood_net.class_vectors else 0.01 for p in own}
    rates = []
    for _ in range(5):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates == [0.2, 0.2, 0.1, 0.1, 0.05]
    assert optimizer.param_groups[1]["momentum"] == 0.8


def test_the_documented_defaults() -> None:
    optimizer, scheduler = OoDNet(build(networks.Pooled), CLASSES).prepare_train()
    group = optimizer.param_groups[1]
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.1, 0.9, 1e-4)
    assert (scheduler.step_size, scheduler.gamma) == (30, 0.1)
