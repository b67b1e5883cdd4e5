"""Loading: names, factories, checkpoints, and the refusal to guess or to run code."""

from __future__ import annotations

import contextlib
import pickle
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

import seewhy
from seewhy.errors import CheckpointError, InvalidInput, InvalidType, UnknownName
from seewhy.images.preprocessing import Preprocessing
from seewhy.models import Model
from seewhy.models.function import FunctionModel
from seewhy.models.loading import FORMS, load, read_labels
from seewhy.models.torch.model import TorchModel
from seewhy.types import Outputs, Passes
from support.typed import loaded, present, unchecked


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)
    )


class Other(nn.Module):
    """The same network under other names."""

    def __init__(self) -> None:
        super().__init__()
        self.body = small()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)


class Renamed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.norm(self.first(x)).relu().mean((2, 3)))


X = torch.randn(2, 3, 16, 16)


def scores(model: Model) -> torch.Tensor:
    with model.opened():
        return model(X).classes


def test_a_module_a_callable_and_a_model_are_taken_as_they_are() -> None:
    net = small()
    assert isinstance(load(net), TorchModel)
    assert loaded(TorchModel, net).network is net
    assert isinstance(load(lambda x: x.mean((2, 3))), FunctionModel)
    model = FunctionModel(lambda x: x.mean((2, 3)))
    assert loaded(FunctionModel, model).function is model.function


def test_names_that_nobody_knows() -> None:
    with pytest.raises(InvalidInput, match=re.escape(f"There is no model 'resnet50'. {FORMS}")):
        load("resnet50")
    with pytest.raises(UnknownName, match=re.escape("timm has no model 'resnet5'. Did you mean")):
        load("timm:resnet5")
    with pytest.raises(UnknownName, match=re.escape("torchvision has no model 'resnet500'. Did you mean")):
        load("torchvision:resnet500")
    with pytest.raises(CheckpointError, match=re.escape("There is no model file 'net.onnx'.")):
        load("net.onnx")
    with pytest.raises(InvalidType, match=r"A network is a torch\.nn\.Module, a seewhy model or a callable"):
        load(3)


def test_published_weights_out_of_reach_are_an_error_not_random_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    def unreachable(*_: object, pretrained: bool, **__: object) -> nn.Module:
        assert pretrained
        raise OSError("no route")

    monkeypatch.setattr(timm, "create_model", unreachable)
    message = (
        "The published weights of 'resnet18' could not be fetched: no route. "
        "Pass a file: checkpoint=PATH (--checkpoint)."
    )
    with pytest.raises(CheckpointError, match=re.escape(message)):
        load("timm:resnet18")


def test_factory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_nets.py").write_text(
        "import torch\ndef make():\n    return torch.nn.Linear(2, 2)\ndef bad():\n    return 3\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert load("my_nets:make").name == "my_nets:make"
    with pytest.raises(UnknownName, match=re.escape("Module 'my_nets' has no 'maker'. Did you mean 'make'?")):
        load("my_nets:maker")
    with pytest.raises(InvalidType, match=re.escape("my_nets:bad must return a network, got int.")):
        load("my_nets:bad")
    with pytest.raises(UnknownName, match=re.escape("There is no model 'no_such_module:make'")):
        load("no_such_module:make")
    sys.modules.pop("my_nets", None)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("prefix", ["", "module.", "model."])
def test_checkpoint_by_name(tmp_path: Path, suffix: str, prefix: str) -> None:
    net, blank = small(), small()
    for p in blank.parameters():
        nn.init.zeros_(p)
    state = {prefix + k: v for k, v in net.state_dict().items()}
    path = tmp_path / f"w{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save({"state_dict": state, "epoch": 3}, path)
    model = loaded(TorchModel, blank, checkpoint=path)
    assert torch.equal(scores(model), scores(load(net)))
    assert model.notes == ()


def test_checkpoint_by_order_is_said(tmp_path: Path) -> None:
    net, path = small(), tmp_path / "w.pth"
    torch.save(net.state_dict(), path)
    model = loaded(TorchModel, Renamed(), checkpoint=path)
    assert torch.allclose(scores(model), scores(load(net)), atol=1e-6)
    said = "The names in 'w.pth' are not those of Renamed; its 9 of 9 tensors were fitted by order, kind and shape."
    assert model.notes == (said,)
    assert said in seewhy.explain(model, X, 1, method="gradient").warnings


def test_checkpoint_that_does_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save({k: v for k, v in small().state_dict().items() if not k.startswith("5")}, path)
    with pytest.raises(
        CheckpointError,
        match=re.escape("'w.pth' does not fit Sequential: 2 of 9 tensors are missing ('5.weight', '5.bias')."),
    ):
        load(small(), checkpoint=path)
    net = small()
    unchecked(net)[5] = nn.Linear(4, 7)
    torch.save(net.state_dict(), path)
    message = (
        "'w.pth': '5.weight' has shape (7, 4), the network expects (5, 4). "
        "If it was trained for 7 classes pass num_classes=7."
    )
    with pytest.raises(CheckpointError, match=re.escape(message)):
        load(small(), checkpoint=path)
    swapped = dict(reversed(list(small().state_dict().items())))
    torch.save({f"x{k}": v for k, v in swapped.items()}, path)
    with pytest.raises(CheckpointError, match="does not fit"):
        load(Renamed(), checkpoint=path)


def test_checkpoint_that_would_run_code(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save(Other(), path)
    with pytest.raises(
        CheckpointError,
        match=re.escape(
            "Reading it would run code from the file. If you trust where it comes from, pass trust=True (--trust)"
        ),
    ):
        load(Other(), checkpoint=path)
    assert isinstance(load(Other(), checkpoint=path, trust=True), TorchModel)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", pickle.dumps([1, 2])])
def test_damaged_checkpoints(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"w\.pth"):
        load(small(), checkpoint=path)
    with pytest.raises(CheckpointError, match="There is no checkpoint"):
        load(small(), checkpoint=tmp_path / "none.pth")


def test_metadata_of_timm_and_torchvision(tmp_path: Path) -> None:
    import timm
    import torchvision

    torch.save(timm.create_model("mobilenetv3_small_050").state_dict(), tmp_path / "t.pth")
    model = loaded(TorchModel, "timm:mobilenetv3_small_050", checkpoint=tmp_path / "t.pth")
    shown, labels = present(model.preprocessing), present(model.labels)
    assert shown.size == (224, 224)
    assert shown.crop_fraction == 0.875
    assert labels[282] == "tiger cat"
    assert len(labels) == 1000
    torch.save(torchvision.models.shufflenet_v2_x0_5().state_dict(), tmp_path / "v.pth")
    model = loaded(TorchModel, "torchvision:shufflenet_v2_x0_5", checkpoint=tmp_path / "v.pth")
    shown, labels = present(model.preprocessing), present(model.labels)
    assert shown.mean == (0.485, 0.456, 0.406)
    assert shown.crop_fraction == pytest.approx(224 / 256)
    assert labels[282] == "tiger cat"


def test_options_override_metadata_and_labels_come_from_a_file(tmp_path: Path) -> None:
    own = Preprocessing(size=(32, 48), mean=(0, 0, 0), std=(1, 1, 1))
    (tmp_path / "names.txt").write_text("a\nb, c\n", encoding="utf-8")
    model = loaded(TorchModel, small(), preprocessing=own, labels=tmp_path / "names.txt", output=0)
    assert (model.preprocessing, model.labels, model.output) == (own, ("a", "b, c"), 0)
    assert read_labels(["x", "y"]) == ("x", "y")
    with pytest.raises(InvalidInput, match="There is no file of class names"):
        read_labels(tmp_path / "none.txt")
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(InvalidInput, match="is empty"):
        read_labels(tmp_path / "empty.txt")


# ------------------------------------------------------------------------------------------- somebody's own model


SQUARE = Preprocessing(size=(8, 8), mean=(0.5,) * 3, std=(0.25,) * 3)


class Own:
    """A model of a stranger's backend: scores, and nothing else."""

    name = "own"

    def __init__(self) -> None:
        self.passes = Passes()

    def opened(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def check(self, inputs: Tensor) -> None:
        pass

    def __call__(self, inputs: Tensor) -> Outputs:
        self.passes.forward += len(inputs)
        return Outputs.of_classes(inputs.mean((2, 3)))


@dataclass(frozen=True)
class Frozen(Own):
    """The same as a dataclass that has class names, and no preprocessing."""

    passes: Passes = field(default_factory=Passes)
    labels: tuple[str, ...] | None = None


def test_what_is_said_about_a_strangers_model_counts() -> None:
    own = Own()
    loaded = load(own, preprocessing=SQUARE, labels=["red", "green", "blue"])
    assert isinstance(loaded, Own)
    assert not hasattr(own, "preprocessing")
    picture = Image.new("RGB", (8, 8), (0, 200, 0))
    found = seewhy.explain(loaded, picture, "blue", "rise", num_masks=8, progress=False)
    assert found.labels == [["blue"]]
    assert found.predicted[0] is not None
    assert found.predicted[0][0] == "green"
    assert not hasattr(load(own), "labels")
    changed = load(loaded, changes={"size": (4, 4)})
    assert changed.preprocessing.size == (4, 4)  # type: ignore[attr-defined]  # a model may have one


def test_what_a_strangers_model_cannot_be_told_is_refused() -> None:
    assert load(Frozen(), labels=["a", "b", "c"]).labels == ("a", "b", "c")  # type: ignore[attr-defined]  # it has them
    with pytest.raises(InvalidInput, match=r"^preprocessing cannot be given to own: Frozen has no 'prep"):
        load(Frozen(), preprocessing=SQUARE)
    strange: dict[str, Any] = {"output": 0, "forward_kwargs": {"a": 1}, "input_name": "x"}
    for name, value in strange.items():
        with pytest.raises(InvalidInput, match=rf"^{name} cannot be given to own: Own has no '{name}' of its own\."):
            load(Own(), **{name: value})
