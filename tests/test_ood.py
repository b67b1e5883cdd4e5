"""The out-of-distribution network against its formula, and trained on pictures that it must then know."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import networks
from networks import CLASSES, build, pictures
from seewhy.errors import BadOutput, InputRefused, InvalidInput, InvalidType, MissingCapability, UnknownParameter
from seewhy.models import as_model
from seewhy.ood import OoDNet

close = torch.testing.assert_close


class Asked(networks.Pooled):
    """The documented protocol."""

    def __init__(self, width: Any = 16, channels: int = 3) -> None:
        super().__init__(channels=channels)
        self.num_features, self.output_features = width, False

    def forward(self, x: Tensor) -> Tensor:
        vector = self.pool(self.features(x)).flatten(1)
        return vector if self.output_features else self.fc(vector)


class Headless(Asked):
    """The same without a linear layer that gives the scores."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.fc = self.fc.weight, nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        vector = super().forward(x)
        return vector if self.output_features else vector @ self.weight.T


def vector(network: networks.Pooled, x: Tensor) -> Tensor:
    with torch.no_grad():
        return network.pool(network.features(x)).flatten(1)


def patches(n: int = 120, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Pictures in which the brightest of five stripes tells the class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (n,), generator=generator)
    x = torch.randn((n, 3, 10, 10), generator=generator) * 0.1
    for i, label in enumerate(labels):
        x[i, :, :, 2 * label : 2 * label + 2] += 1
    return x, labels


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
    linear = z @ ood_net.g[0].weight.T + ood_net.g[0].bias
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


def test_one_that_is_compiled() -> None:
    network, x = build(networks.Pooled), pictures()
    ood_net = OoDNet(torch.compile(network, backend="eager"), CLASSES)
    assert ood_net.underlying is network
    close(ood_net.features(x), vector(network, x))


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
    frozen = {id(p) for p in ood_net.underlying.conv1.parameters()}
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


def fit_once(data: Any, loss: Any, **options: Any) -> Tensor:
    torch.manual_seed(4)
    ood_net = OoDNet(build(networks.Pooled), CLASSES)
    ood_net.fit(data, loss, epoch=2, progress=False, **options)
    return ood_net.class_vectors.detach()


def test_labels_of_every_form_are_the_same() -> None:
    x, labels = pictures(12), torch.arange(12) % CLASSES
    hot = F.one_hot(labels, CLASSES)
    for losses in [
        (nn.CrossEntropyLoss(), F.cross_entropy),
        (nn.BCEWithLogitsLoss(), F.binary_cross_entropy_with_logits),
    ]:
        want = fit_once([(x, labels)], losses[0])
        for form in (labels.int(), labels.numpy(), hot, hot.double(), hot.tolist()):
            for loss in losses:
                close(fit_once([(x, form)], loss), want, atol=1e-6, rtol=1e-5)


def test_data_of_every_form() -> None:
    x, labels = pictures(12), torch.arange(12) % CLASSES
    want = fit_once([(x[:6], labels[:6]), (x[6:], labels[6:])], nn.CrossEntropyLoss())
    loader = DataLoader(TensorDataset(x, labels), 6)
    close(fit_once(loader, nn.CrossEntropyLoss()), want)
    single = TensorDataset(x, labels)
    one, again, other = (fit_once(single, nn.CrossEntropyLoss(), batch_size=6, seed=s) for s in (0, 0, 1))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    close(fit_once([(x[:6], labels[:6]), (x[6:], labels[6:]), (x[:1], labels[:1])], nn.CrossEntropyLoss()), want)


def test_fitting_a_data_set_does_not_touch_the_global_random_state() -> None:
    ood_net = OoDNet(build(networks.Pooled), CLASSES)
    state = torch.get_rng_state()
    ood_net.fit(TensorDataset(pictures(8), torch.arange(8) % CLASSES), nn.CrossEntropyLoss(), epoch=2, progress=False)
    assert torch.equal(state, torch.get_rng_state())


def test_callbacks_optimizers_and_schedulers() -> None:
    ood_net, data = OoDNet(build(networks.Pooled), CLASSES), [(pictures(8), torch.arange(8) % CLASSES)]
    seen: list[Any] = []
    losses = ood_net.fit(data, nn.CrossEntropyLoss(), lambda *args: seen.append(args), 3, progress=False)
    assert seen == [(1, losses[0]), (2, losses[1]), (3, losses[2])]
    ood_net.fit(
        data, nn.CrossEntropyLoss(), [lambda *_: seen.append("a"), lambda *_: seen.append("b")], 1, progress=False
    )
    assert seen[3:] == ["a", "b"]
    optimizer = torch.optim.Adam(ood_net.get_train_parameters(), 0.01)
    ood_net.fit(data, nn.CrossEntropyLoss(), None, 4, optimizer, lr_epoch_denom=2, lr_base_factor=0.1, progress=False)
    close(optimizer.param_groups[0]["lr"], 0.0001)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=0.5, patience=0, threshold=9.0, threshold_mode="abs"
    )
    ood_net.fit(data, nn.CrossEntropyLoss(), None, 3, scheduler=plateau, progress=False)
    close(optimizer.param_groups[0]["lr"], 0.0001 * 0.25)
    before = ood_net.class_vectors.detach().clone()
    still = torch.optim.lr_scheduler.StepLR(torch.optim.SGD(ood_net.get_train_parameters(), 0.0), 1)
    ood_net.fit(data, nn.CrossEntropyLoss(), None, 1, scheduler=still, progress=False)
    assert torch.equal(ood_net.class_vectors, before)  # the scheduler's own optimizer took the steps


def test_saving_and_loading() -> None:
    x = pictures()
    ood_net = OoDNet(build(networks.Pooled), CLASSES)
    ood_net.fit([(pictures(8), torch.arange(8) % CLASSES)], nn.CrossEntropyLoss(), epoch=2, progress=False)
    other = OoDNet(build(networks.Pooled, seed=9), CLASSES)
    assert not torch.equal(other(x), ood_net(x))
    other.load_state_dict(ood_net.state_dict())
    assert torch.equal(other(x), ood_net(x))
    assert torch.equal(other.train()(x), ood_net.train()(x))


def test_train_keeps_its_meaning() -> None:
    ood_net = OoDNet(build(networks.Pooled), CLASSES)
    assert ood_net.train() is ood_net
    assert all(m.training for m in ood_net.modules())
    ood_net.train(False)
    assert not any(m.training for m in ood_net.modules())
    said = (
        "train(mode) switches training mode on or off, as every torch module's does, and takes one bool, got {}. To "
        "train on a data set: fit(dataset, loss_fn)."
    )
    data = TensorDataset(*patches(8))
    with refuses(InvalidType, said.format("TensorDataset")):
        ood_net.train(data)
    with refuses(InvalidType, said.format("TensorDataset, CrossEntropyLoss, int")):
        ood_net.train(data, nn.CrossEntropyLoss(), epoch=3)
    with refuses(InvalidType, said.format("bool, CrossEntropyLoss")):
        ood_net.train(True, nn.CrossEntropyLoss())
    assert not ood_net.training


def refuses(error: type[Exception], said: str) -> Any:
    return pytest.raises(error, match="^" + re.escape(said) + "$")


def test_what_cannot_be_made() -> None:
    with refuses(InvalidType, "underlying must be a torch.nn.Module, got TorchModel. Pass its module."):
        OoDNet(as_model(build(networks.Pooled)), CLASSES)
    with refuses(InvalidType, "underlying must be a torch.nn.Module, got function."):
        OoDNet(pictures, CLASSES)
    for wrong in (0, 5.0, True):
        with refuses(InvalidInput, f"num_classes must be a positive integer, got {wrong!r}."):
            OoDNet(build(networks.Pooled), wrong)
    said = (
        "Pooled has no linear layer that gives 10 scores (its last one, 'fc', gives 5), so where its features are is "
        "not known. Check num_classes, or give the classifier the attributes num_features and output_features."
    )
    with refuses(MissingCapability, said):
        OoDNet(build(networks.Pooled), 10)
    said = (
        "Linear has no linear layer that gives 5 scores (it has none), so where its features are is not known. Check "
        "num_classes, or give the classifier the attributes num_features and output_features."
    )
    with refuses(MissingCapability, said):
        OoDNet(build(networks.Linear), CLASSES)
    for wrong in (0, "16"):
        with refuses(InvalidInput, f"underlying.num_features must be a positive integer, got {wrong!r}."):
            OoDNet(build(Asked, wrong), CLASSES)


def test_features_of_the_wrong_form() -> None:
    with refuses(BadOutput, "The classifier's features must have shape (N, 12), got (2, 16)."):
        OoDNet(build(Asked, 12), CLASSES)(pictures())
    per_token = nn.Sequential(nn.Conv2d(3, 6, 8, 8), nn.Flatten(2), nn.Linear(16, CLASSES), nn.Flatten()).eval()
    with refuses(BadOutput, "The classifier's features must have shape (N, 16), got (2, 6, 16)."):
        OoDNet(per_token, CLASSES)(pictures())

    class Idle(networks.Pooled):
        def forward(self, x: Tensor) -> Tensor:
            return self.features(x).mean((2, 3))

    with refuses(BadOutput, "Layer 'fc' did not run in the forward pass, so there are no features."):
        OoDNet(build(Idle), CLASSES)(pictures())
    with refuses(MissingCapability, "Headless gives its features only when asked for them."):
        OoDNet(build(Headless), CLASSES).overhear(lambda: None)


def test_the_switch_is_put_back_after_an_error() -> None:
    network = build(Asked)
    with pytest.raises(InputRefused):
        OoDNet(network, CLASSES)(pictures(channels=1))
    assert network.output_features is False


def _labels(labels: Any) -> Any:
    return [(pictures(4), labels)]


DATA = [
    (_labels(torch.tensor([0, 1, 2, 5])), InvalidInput, "Label 5 is out of range: there are 5 classes, 0 to 4."),
    (_labels(torch.tensor([0, 1, -1, 4])), InvalidInput, "Label -1 is out of range: there are 5 classes, 0 to 4."),
    (_labels(torch.zeros(4)), InvalidInput,
     "Labels must be class indices of shape (4,) or rows of shape (4, 5), got float32 of shape (4,)."),
    (_labels(torch.zeros(4, 3)), InvalidInput,
     "Labels must be class indices of shape (4,) or rows of shape (4, 5), got float32 of shape (4, 3)."),
    ([pictures(4)], InvalidType, "The data set must give pairs (images, labels), got Tensor."),
    ([(pictures(4)[0], 1)], InvalidInput,
     "The data set's images must be a tensor (N, C, H, W), got shape (3, 32, 32)."),
    ([("a.png", 1)], InvalidInput, "The data set's images must be a tensor (N, C, H, W), got str."),
    (3, InvalidType, "dataset must give batches (images, labels), such as a DataLoader, got int."),
]  # fmt: skip


@pytest.mark.parametrize(("data", "error", "said"), DATA, ids=[said[-30:] for *_, said in DATA])
def test_wrong_data(data: Any, error: type[Exception], said: str) -> None:
    with refuses(error, said):
        OoDNet(build(networks.Pooled), CLASSES).fit(data, nn.CrossEntropyLoss(), progress=False)


def test_data_that_can_be_walked_only_once() -> None:
    def once() -> Iterator[tuple[Tensor, Tensor]]:
        yield pictures(4), torch.arange(4)

    said = (
        "The data set gave no batch of two or more pictures in epoch {}. Pass one that can be walked several times and "
        "gives batches, such as a DataLoader."
    )
    for data, epoch in ((once(), 2), ([(pictures(1), torch.zeros(1).long())], 1)):
        with refuses(InvalidInput, said.format(epoch)):
            OoDNet(build(networks.Pooled), CLASSES).fit(data, nn.CrossEntropyLoss(), progress=False)


def test_wrong_parameters_of_fit() -> None:
    ood_net, data = OoDNet(build(networks.Pooled), CLASSES), [(pictures(4), torch.arange(4))]
    with refuses(UnknownParameter, "fit has no parameter 'learning_rat'. Did you mean 'learning_rate'?"):
        ood_net.fit(data, nn.CrossEntropyLoss(), learning_rat=1)
    with refuses(InvalidInput, "epoch must be a positive integer, got 0."):
        ood_net.fit(data, nn.CrossEntropyLoss(), epoch=0)
    with refuses(BadOutput, "The loss became nan in epoch 1. Use a smaller learning_rate."):
        ood_net.fit(data, lambda logits, _labels: logits.sum() * float("nan"), progress=False)


def test_progress(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal a bar that names the epoch, the total and the loss; else nothing."""
    ood_net, data = OoDNet(build(networks.Pooled), CLASSES), [(pictures(4), torch.arange(4))] * 3
    ood_net.fit(data, nn.CrossEntropyLoss(), epoch=2)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    losses = ood_net.fit(data, nn.CrossEntropyLoss(), epoch=2)
    shown = capsys.readouterr().err
    assert "OoDNet epoch 2/2" in shown
    assert "/6 [" in shown
    assert f"loss={losses[0]:.4f}" in shown
    ood_net.fit(data, nn.CrossEntropyLoss(), epoch=2, progress=False)
    assert capsys.readouterr().err == ""


def test_repr() -> None:
    assert repr(OoDNet(build(networks.Pooled), CLASSES)) == "OoDNet(Pooled, num_classes=5)"
