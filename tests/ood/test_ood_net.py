"""OoDNet: data of every form, saving, errors and progress."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from seewhy.errors import BadOutput, InputRefused, InvalidInput, InvalidType, MissingCapability, UnknownParameter
from seewhy.models.adapters import as_model
from seewhy.ood.ood_net import OoDNet
from support import networks
from support.networks import CLASSES, build, pictures
from support.ood_cases import Asked, Headless, close, patches, refuses
from support.typed import unchecked


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
        ood_net.train(unchecked(data))
    with refuses(InvalidType, said.format("TensorDataset, CrossEntropyLoss, int")):
        ood_net.train(unchecked(data), nn.CrossEntropyLoss(), epoch=3)
    with refuses(InvalidType, said.format("bool, CrossEntropyLoss")):
        ood_net.train(True, nn.CrossEntropyLoss())
    assert not ood_net.training


def test_what_cannot_be_made() -> None:
    with refuses(InvalidType, "underlying must be a torch.nn.Module, got TorchModel. Pass its module."):
        OoDNet(unchecked(as_model(build(networks.Pooled))), CLASSES)
    with refuses(InvalidType, "underlying must be a torch.nn.Module, got function."):
        OoDNet(unchecked(pictures), CLASSES)
    for wrong in (0, 5.0, True):
        with refuses(InvalidInput, f"num_classes must be a positive integer, got {wrong!r}."):
            OoDNet(build(networks.Pooled), unchecked(wrong))
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
    for width in (0, "16"):
        with refuses(InvalidInput, f"underlying.num_features must be a positive integer, got {width!r}."):
            OoDNet(build(Asked, width), CLASSES)


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
