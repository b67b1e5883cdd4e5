"""Quicker forms of a network: the same scores, the network left alone, and never taken where they say other things."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import seewhy
from seewhy.metrics import DeletionAUC
from seewhy.models import quickest as quick
from seewhy.models.folding import folded
from seewhy.models.quickest import quickest
from seewhy.models.torch.model import TorchModel
from support.networks import CLASSES, Functional, Inplace, Pooled, build, pictures
from support.run_jobs import rows, run

MANY = 10**9


class Twice(Pooled):
    """One convolution runs twice, before two norms."""

    def __init__(self) -> None:
        super().__init__()
        self.same, self.one, self.two = nn.Conv2d(8, 8, 3, 1, 1), nn.BatchNorm2d(8), nn.BatchNorm2d(8)

    def features(self, x: Tensor) -> Tensor:
        first = self.one(self.same(self.act1(self.bn1(self.conv1(x))))).relu()
        return self.act2(self.bn2(self.conv2(self.two(self.same(first)))))


class Between(Pooled):
    """Something changes in place what a norm is given."""

    def features(self, x: Tensor) -> Tensor:
        return self.act2(self.bn2(self.conv2(self.act1(self.bn1(self.conv1(x).relu_())))))


class Looking(Pooled):
    """Something else looks at what a convolution gives, before its norm."""

    def features(self, x: Tensor) -> Tensor:
        first = self.conv1(x)
        return self.act2(self.bn2(self.conv2(self.act1(self.bn1(first)) + 3 * first)))


class Own(nn.BatchNorm2d):
    """A norm that does more, and nobody knows what."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).tanh()


def _owned() -> nn.Module:
    network = build(Pooled)
    network.bn2 = Own(16).eval()
    return network


def _timm() -> nn.Module:
    timm = pytest.importorskip("timm")
    network: nn.Module = timm.create_model("test_efficientnet", pretrained=False, num_classes=CLASSES).eval()
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            module.running_mean.normal_(0, 0.1, generator=generator)
    return network


def _left(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


@pytest.mark.parametrize(
    ("make", "left"),
    [(Pooled, 0), (Inplace, 0), (Functional, 0), (Twice, 2), (Between, 1), (_owned, 1), (_timm, 0)],
)
def test_folded_gives_the_same_scores_and_leaves_the_network_alone(make: Any, left: int) -> None:
    network, inputs = build(make) if isinstance(make, type) else make(), pictures(3, height=64, width=64)
    before, modules = {n: v.clone() for n, v in network.state_dict().items()}, [*network.modules()]
    with torch.no_grad():
        wanted = network(inputs)
        own = folded(network, lambda copy: copy(inputs))
        assert own is not None
        torch.testing.assert_close(own(inputs), wanted, rtol=1e-5, atol=1e-5)
    assert _left(own) == left < _left(network)
    assert all(a is b for a, b in zip(network.modules(), modules, strict=True))
    assert all(bool((before[n] == v).all()) for n, v in network.state_dict().items())


def test_without_a_norm_there_is_nothing_to_fold() -> None:
    network = nn.Sequential(nn.Conv2d(3, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    assert folded(network, lambda copy: copy(pictures(1))) is None


def test_a_form_that_says_other_things_is_never_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    network, inputs = build(Looking), pictures(1)
    with torch.no_grad():
        own = folded(network, lambda copy: copy(inputs))
        assert own is not None
        assert float((own(inputs) - network(inputs)).abs().max()) > 1e-2
    monkeypatch.setattr(quick, "_FASTER", 100.0)  # whatever agrees would be taken
    monkeypatch.setattr(quick, "_FORMS", {name: make for name, make in quick._FORMS.items() if "folded" in name})
    found = quickest(seewhy.load(network), inputs, MANY)
    assert not found.other
    assert "channels last and BatchNorm folded gives other scores" in found.said


def test_what_is_not_faster_is_not_taken_and_what_is_faster_is(monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = seewhy.load(build(Pooled)), pictures(1)
    monkeypatch.setattr(quick, "_FASTER", 0.0)
    found = quickest(model, inputs, MANY)
    assert (found.other, found.model is model) == (False, True)
    assert "of the time" in found.said
    monkeypatch.setattr(quick._Trial, "best", _folded_best)
    found = quickest(model, inputs, MANY)
    before = model.passes.forward
    with found.model.opened():
        torch.testing.assert_close(found.model(inputs).scores, model(inputs).scores, rtol=1e-5, atol=1e-5)
    assert model.passes.forward - before == 2  # both count for the model


def test_trying_costs_no_more_than_its_share() -> None:
    model, inputs = seewhy.load(build(Pooled)), pictures(1)
    before = model.passes.forward
    found = quickest(model, inputs, 1)
    assert found.said.startswith("Run as it is: for 1 pass of ")
    assert model.passes.forward == before


def test_what_is_no_plain_network_in_float32_is_run_as_it_is() -> None:
    inputs = pictures(1)
    for model, x in (
        (seewhy.load(lambda x: x.mean((2, 3))), inputs),
        (seewhy.load(build(Pooled).double()), inputs.double()),
        (TorchModel(build(Pooled), forward_kwargs={"weight": torch.ones(1)}), inputs),
    ):
        found = quickest(model, x, MANY)
        assert found.model is model
        assert found.said.startswith("Run as it is: ")


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever agrees is taken, so that the test is about a form."""
    monkeypatch.setattr(quick, "_FASTER", 1e9)
    monkeypatch.setattr(quick, "SHARE", 1e9)
    monkeypatch.setattr(quick._Trial, "best", _folded_best)


def _folded_best(trial: Any) -> quick.Form:
    (name,) = [one for one in trial.forms if "folded" in one]
    return quick.Form(trial.forms[name], f"Run with {name}.", other=True)


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("method", ["rise", "occlusion"])
def test_explain_gives_the_same_map_and_says_with_what(method: str) -> None:
    network, inputs = build(Pooled), pictures(1)
    plain = seewhy.explain(network, inputs, 1, method, progress=False)
    quickly = seewhy.explain(network, inputs, 1, method, progress=False, accelerate="auto")
    torch.testing.assert_close(quickly.saliency, plain.saliency, rtol=0, atol=1e-2)
    assert "Run with channels last and BatchNorm folded." in quickly.warnings
    assert quickly.passes.forward == plain.passes.forward


def test_methods_that_look_inside_are_run_as_they_are() -> None:
    network, inputs = build(Pooled), pictures(1)
    found = seewhy.explain(network, inputs, 1, "grad_cam", progress=False, accelerate="auto")
    assert "Run as it is: GradCAM makes few passes, or looks at more than scores." in found.warnings
    assert torch.equal(found.raw, seewhy.explain(network, inputs, 1, "grad_cam", progress=False).raw)


def test_a_wrong_word_is_refused() -> None:
    with pytest.raises(seewhy.errors.InvalidInput, match="accelerate must be None or 'auto', got 'fast'"):
        seewhy.explain(build(Pooled), pictures(1), accelerate="fast")  # type: ignore[arg-type]


@pytest.mark.usefixtures("always")
def test_a_comparison_says_with_what_and_its_numbers_are_the_same() -> None:
    network, data = build(Pooled), [(image, 1) for image in pictures(2)]
    about: dict[str, Any] = {
        "explainers": ["rise(num_masks=40)", "grad_cam"], "metrics": [DeletionAUC(steps=8), "max_sensitivity"],
        "progress": False,
    }  # fmt: skip
    plain, quickly = seewhy.compare(network, data, **about), seewhy.compare(network, data, accelerate="auto", **about)
    torch.testing.assert_close(*(torch.from_numpy(one.values) for one in (plain, quickly)), atol=1e-4, rtol=1e-4,
                               equal_nan=True)  # fmt: skip
    assert quickly.how[-2] == quickly.settings["accelerate"] == "Run with channels last and BatchNorm folded."
    assert "accelerate" not in plain.settings


@pytest.mark.usefixtures("always")
def test_a_run_says_with_what_and_its_maps_and_scores_are_the_same(tmp_path: Path) -> None:
    about: dict[str, Any] = {"n": 4, "precision": "float32", "counterfactual": {"num_layers": 1, "window": 8}}
    plain, quickly = run(tmp_path / "a", **about), run(tmp_path / "b", accelerate="auto", **about)
    assert "Run with channels last and BatchNorm folded." in quickly.notes
    assert quickly.forward == plain.forward
    for one, other in zip(rows(tmp_path / "a"), rows(tmp_path / "b"), strict=True):
        assert [s["value"] for s in one["scores"]] == pytest.approx([s["value"] for s in other["scores"]], abs=1e-4)
        assert [t["label"] for t in one["trees"]] == [t["label"] for t in other["trees"]]


def test_networks_whose_scores_waver_are_not_replaced() -> None:
    class Noisy(Pooled):
        def forward(self, x: Tensor) -> Any:
            return F.dropout(self.scores(x), 0.5, training=True)

    assert not quickest(seewhy.load(build(Noisy)), pictures(1), MANY).other
