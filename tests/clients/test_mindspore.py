"""Cells of MindSpore against torch networks with the same weights; the shapes network is a trained one."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

import seewhy
from seewhy import cli, errors
from seewhy.datasets import shapes
from seewhy.datasets.shapes import NAMES
from seewhy.models.mindspore.model import MindSporeModel
from seewhy.runs.query import Run
from support import shape_networks

ms = pytest.importorskip("mindspore")
nn: Any = ms.nn
ops: Any = ms.ops
Cell: Any = nn.Cell
EXAMPLES = Path(__file__).parents[2] / "examples"
CLOSE: dict[str, Any] = {"atol": 1e-4, "rtol": 1e-4}
METHODS: dict[str, dict[str, Any]] = {
    "GradCAM": {}, "ReciproCAM": {}, "ActivationMap": {}, "LayerCAM": {}, "GradCAMPlusPlus": {}, "EigenCAM": {},
    "Gradient": {}, "InputXGradient": {}, "GuidedBackprop": {}, "Deconvolution": {"allow_other_activations": True},
    "IntegratedGradients": {"steps": 4}, "Occlusion": {"window": 16, "stride": 16}, "RISE": {"num_masks": 20},
}  # fmt: skip


class Block(Cell):
    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, out, 3, stride, pad_mode="pad", padding=1), nn.BatchNorm2d(out)
        self.conv2, self.bn2 = nn.Conv2d(out, out, 3, 1, pad_mode="pad", padding=1), nn.BatchNorm2d(out)
        self.act1, self.act2 = nn.ReLU(), nn.ReLU()
        around = nn.Conv2d(channels, out, 1, stride, pad_mode="valid")
        self.downsample = nn.SequentialCell(around, nn.BatchNorm2d(out))

    def construct(self, x: Any) -> Any:
        out = self.bn2(self.conv2(self.act1(self.bn1(self.conv1(x)))))
        return self.act2(out + self.downsample(x))


class Stem(Cell):
    def __init__(self) -> None:
        super().__init__()
        first, second, third, _ = shape_networks.WIDTHS
        self.conv1, self.bn1 = nn.Conv2d(3, first, 3, 2, pad_mode="pad", padding=1), nn.BatchNorm2d(first)
        self.act1, self.layer1, self.layer2 = nn.ReLU(), Block(first, second, 1), Block(second, third, 2)

    def construct(self, x: Any) -> Any:
        return self.layer2(self.layer1(self.act1(self.bn1(self.conv1(x)))))


class Shapes(Cell):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.layer3 = Stem(), Block(*shape_networks.WIDTHS[2:], 2)
        self.fc = nn.Dense(shape_networks.WIDTHS[3], len(NAMES))

    def construct(self, x: Any) -> Any:
        return self.fc(self.layer3(self.stem(x)).mean((2, 3)))


class Functional(Cell):
    """ReLUs as functions, a branch beside the map, and dropout."""

    def __init__(self, activation: Any = ops.relu, beside: bool = False, drop: bool = False) -> None:
        super().__init__()
        self.conv, self.again = nn.Conv2d(3, 6, 3, has_bias=True), nn.Conv2d(6, 8, 3, stride=2, has_bias=True)
        self.fc, self.activation, self.beside = nn.Dense(8, 4), activation, beside
        self.drop = nn.Dropout(p=0.5) if drop else None

    def construct(self, x: Any) -> Any:
        found = self.activation(self.again(self.activation(self.conv(x)))).mean((2, 3))
        if self.beside:
            found = found + x.mean((1, 2, 3)).reshape(-1, 1)
        return self.fc(found if self.drop is None else self.drop(found))


def save(network: torch.nn.Module, path: Path) -> str:
    """A checkpoint of MindSpore with a torch network's weights."""
    names = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
    norms = {n for n, m in network.named_modules() if isinstance(m, torch.nn.BatchNorm2d)}
    found = []
    for name, value in network.state_dict().items():
        module, _, last = name.rpartition(".")
        if last != "num_batches_tracked":
            own = f"{module}.{names[last]}" if module in norms else name
            found.append({"name": own, "data": ms.Tensor(value.float().numpy())})
    ms.save_checkpoint(found, str(path))
    return str(path)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, torch.nn.Module, Tensor]:
    network, cell = shape_networks.trained("cnn"), Shapes()
    MindSporeModel(cell).with_weights(Path(save(network, tmp_path_factory.mktemp("ckpt") / "shapes.ckpt")))
    return cell, network, shape_networks.inputs(shapes.Shapes(seed=3).batch(range(2)).pixels)


@pytest.mark.parametrize("name", METHODS)
def test_a_cell_has_the_maps_of_the_torch_network_with_its_weights(name: str, pair: Any) -> None:
    cell, network, inputs = pair
    kind = getattr(seewhy, name)
    targets = [[0, 4], [2, 1]]
    ours = kind(network, **METHODS[name]).run(inputs, targets)
    theirs = kind(cell, **METHODS[name]).run(inputs, targets)
    assert (theirs.layer is None) == (ours.layer is None)
    scale = float(ours.raw.abs().amax())
    assert scale > 1e-6
    torch.testing.assert_close(theirs.raw / scale, ours.raw / scale, **CLOSE)
    torch.testing.assert_close(theirs.outputs.scores, ours.outputs.scores, **CLOSE)


@pytest.mark.parametrize("layer", ["stem.layer1", "stem.act1", "layer3.conv2", ""])
def test_any_layer_is_explained_and_found_again_in_torch(layer: str, pair: Any) -> None:
    cell, network, inputs = pair
    ours, theirs = (seewhy.GradCAM(n, layer=layer).attribute(inputs, 1, native=True) for n in (network, cell))
    torch.testing.assert_close(theirs / ours.amax(), ours / ours.amax(), **CLOSE)


def test_the_pooled_head_is_recognised_and_costs_no_passes(pair: Any) -> None:
    cell, network, inputs = pair
    seewhy.ReciproCAM(cell)(inputs)
    found = seewhy.ReciproCAM(cell).run(inputs, "all")
    assert found.layer == "layer3"
    assert found.passes.forward == len(inputs)
    ours = seewhy.ReciproCAM(network).run(inputs, "all").raw
    torch.testing.assert_close(found.raw, ours, atol=1e-3, rtol=1e-3)


def test_weights_that_are_changed_later_count(pair: Any, tmp_path: Path) -> None:
    _, network, inputs = pair
    cell = Shapes()
    for kind in (seewhy.ReciproCAM, seewhy.GradCAM):
        kind(cell).run(inputs, 1)  # with random weights
    ms.load_param_into_net(cell, ms.load_checkpoint(save(network, tmp_path / "later.ckpt")))
    for kind in (seewhy.ReciproCAM, seewhy.GradCAM):
        ours = kind(network).run(inputs[1:], "all").raw
        found = kind(cell).run(inputs[1:], "all").raw
        torch.testing.assert_close(found / ours.amax(), ours / ours.amax(), **CLOSE)


def test_tensors_of_mindspore_are_taken_and_everything_is_left_as_it_was(pair: Any) -> None:
    cell, _, inputs = pair
    cell.set_train(True)
    cell.layer3.set_train(False)
    modes = [one.training for _, one in cell.cells_and_names()]
    state = ms.get_rng_state().asnumpy().copy()
    ms.set_context(mode=ms.GRAPH_MODE)
    try:
        given = ms.Tensor(inputs.numpy())
        found = seewhy.GradCAM(cell)(given, ms.Tensor([[0], [3]]))
        assert ms.get_context("mode") == ms.GRAPH_MODE
    finally:
        ms.set_context(mode=ms.PYNATIVE_MODE)
    torch.testing.assert_close(found, seewhy.GradCAM(cell)(inputs, [[0], [3]]))
    assert [one.training for _, one in cell.cells_and_names()] == modes
    assert np.array_equal(ms.get_rng_state().asnumpy(), state)
    assert not any(one._forward_hook for _, one in cell.cells_and_names())
    cell.set_train(False)


def test_explain_takes_a_cell_and_a_picture(pair: Any, tmp_path: Path) -> None:
    _, network, _ = pair
    preprocessing = seewhy.Preprocessing(size=(64, 64), mean=(0.5,) * 3, std=(0.5,) * 3)
    picture = Image.fromarray(shapes.Shapes(seed=3)[4].pixels)
    ckpt = save(network, tmp_path / "w.ckpt")
    model = seewhy.load(Shapes(), checkpoint=ckpt, labels=NAMES, preprocessing=preprocessing)
    known = seewhy.load(network, labels=NAMES, preprocessing=preprocessing)
    found = seewhy.explain(model, picture, NAMES[2], progress=False)
    assert (found.method, found.layer, found.labels) == ("recipro_cam", "layer3", [[NAMES[2]]])
    torch.testing.assert_close(found.raw, seewhy.explain(known, picture, NAMES[2], progress=False).raw, **CLOSE)


def test_guided_rules_reach_relus_that_are_functions() -> None:
    cell, inputs = Functional(), torch.randn(2, 3, 16, 16)
    weights = {k: torch.from_numpy(v.asnumpy()) for k, v in cell.parameters_dict().items()}

    class Twin(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            x = F.conv2d(x, weights["conv.weight"], weights["conv.bias"], padding=1).relu()
            x = F.conv2d(F.pad(x, (0, 1, 0, 1)), weights["again.weight"], weights["again.bias"], stride=2).relu()
            return F.linear(x.mean((2, 3)), weights["fc.weight"], weights["fc.bias"])

    for kind in (seewhy.GuidedBackprop, seewhy.Deconvolution, seewhy.Gradient):
        ours, theirs = (kind(n, reduce="sum").attribute(inputs, 2) for n in (Twin(), cell))
        torch.testing.assert_close(theirs, ours, atol=1e-5, rtol=1e-4)
    guided, plain = (k(cell).attribute(inputs, 2) for k in (seewhy.GuidedBackprop, seewhy.Gradient))
    assert not torch.allclose(guided, plain)


@pytest.mark.parametrize(("activation", "said"), [(ops.silu, "SiLU"), (ops.gelu, "GELU"), (ops.tanh, "Tanh")])
def test_activations_without_a_rule_are_refused(activation: Any, said: str) -> None:
    with pytest.raises(errors.NoReLURule, match=f"defined for ReLU; the network also has {said}"):
        seewhy.GuidedBackprop(Functional(activation))(torch.rand(1, 3, 16, 16), 0)


def test_a_map_that_others_go_around_is_not_chosen() -> None:
    inputs = torch.rand(1, 3, 16, 16)
    assert MindSporeModel(Functional()).auto_layer(inputs) == "again"
    with pytest.raises(errors.NoSpatialOutput, match=r"several beside each other.*'again'"):
        MindSporeModel(Functional(beside=True)).auto_layer(inputs)
    found = seewhy.load(Functional(beside=True))
    assert seewhy.explain(found, inputs, 0, progress=False, num_masks=20).method == "rise"


class Halves(Cell):
    """A map that is cut in two, of which one half goes around a layer; nothing but functions follow."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, has_bias=True), nn.BatchNorm2d(8)
        self.half, self.fc = nn.Conv2d(4, 4, 3, has_bias=True), nn.Dense(8, 4)
        self.relu = nn.ReLU()

    def construct(self, x: Any) -> Any:
        one, other = ops.split(self.relu(self.norm(self.first(x))), 4, axis=1)
        return self.fc(ops.concat((one, self.relu(self.half(other))), 1).mean((2, 3)))


def test_where_a_map_is_cut_in_two_the_last_whole_one_is_chosen() -> None:
    cell = Halves()
    found = seewhy.GradCAM(cell).run(torch.rand(1, 3, 16, 16), 0)
    assert (found.layer, found.raw.shape) == ("relu", (1, 1, 16, 16))  # its first call; the second sees one half
    assert MindSporeModel(cell).look(torch.rand(1, 3, 16, 16)).auto().call == 1
    assert seewhy.GradCAM(cell, layer="half").run(torch.rand(1, 3, 16, 16), 0).layer == "half"


def test_what_a_cell_cannot_do_is_said() -> None:
    cell, inputs = Functional(), torch.rand(1, 3, 16, 16)
    with pytest.raises(errors.UnknownLayer, match=r"Functional has no layer 'agan'\. Did you mean 'again'"):
        seewhy.GradCAM(cell, layer="agan")(inputs)
    with pytest.raises(errors.NoSpatialOutput, match="Layer 'fc' has no spatial map"):
        seewhy.GradCAM(cell, layer="fc")(inputs)
    with pytest.raises(errors.InvalidInput, match=r"The network is float32, the inputs are float64"):
        seewhy.GradCAM(cell)(inputs.double())
    with pytest.raises(errors.InvalidInput, match=r"Functional raised on an input of shape \(1, 4, 16, 16\)"):
        seewhy.Gradient(cell)(torch.rand(1, 4, 16, 16), 0)
    with pytest.raises(errors.InvalidInput, match="uses the statistics of the batch"):
        seewhy.Gradient(nn.SequentialCell(nn.BatchNorm2d(3, use_batch_statistics=True), nn.Flatten()))(inputs, 0)


def test_a_factory_of_cells_takes_a_checkpoint_on_the_command_line(
    pair: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = type(sys)("cells_of_mine")
    module.make = Shapes  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cells_of_mine", module)
    Image.fromarray(shapes.Shapes(seed=3)[4].pixels).save(tmp_path / "a.png")
    half = ["0.5"] * 3
    words = ["explain", str(tmp_path / "a.png"), "--model", "cells_of_mine:make", "--size", "64", "64"]
    words += [
        "--mean",
        *half,
        "--std",
        *half,
        "--checkpoint",
        save(pair[1], tmp_path / "w.ckpt"),
        "--out",
        str(tmp_path / "out"),
    ]
    words += ["--targets", "2", "--method", "grad_cam", "--dump"]
    assert cli.main(words) == 0
    found = seewhy.Explanation.load(tmp_path / "out")
    ours = seewhy.GradCAM(pair[1]).attribute(
        shape_networks.inputs(shapes.Shapes(seed=3).batch([4]).pixels), 2, native=True
    )
    torch.testing.assert_close(found.raw, ours, atol=1e-4 * float(ours.amax()), rtol=1e-4)


def test_a_checkpoint_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    ms.save_checkpoint(Functional(), str(tmp_path / "other.ckpt"))
    with pytest.raises(errors.CheckpointError, match=r"other.ckpt has no weights for \d+ of the \d+ parameters of Sha"):
        seewhy.load(Shapes(), checkpoint=tmp_path / "other.ckpt")
    (tmp_path / "broken.ckpt").write_bytes(b"no checkpoint")
    with pytest.raises(errors.CheckpointError, match=r"MindSpore cannot read broken\.ckpt"):
        seewhy.load(Shapes(), checkpoint=tmp_path / "broken.ckpt")


def test_rise_plus_and_the_ood_net_have_the_maps_of_torch(pair: Any) -> None:
    cell, network, inputs = pair
    found = []
    for one in (network, cell):
        torch.manual_seed(0)
        ood_net = seewhy.OoDNet(one, len(NAMES))
        data = [(inputs, torch.tensor([0, 3]))]
        loss = nn.SoftmaxCrossEntropyWithLogits(sparse=True) if one is cell else torch.nn.CrossEntropyLoss()
        losses = ood_net.fit(data, loss, epoch=3, progress=False)
        activation = nn.Softmax() if one is cell else torch.nn.Softmax(dim=1)
        attributed = seewhy.RISEPlus(ood_net, network=one, activation_fn=activation, num_masks=30).run(inputs, 1)
        found.append((losses, attributed.raw, attributed.passes.forward))
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-4)
    torch.testing.assert_close(found[1][1], found[0][1], atol=1e-3, rtol=1e-3)
    assert found[0][2] == found[1][2]


def test_uncertainty_is_by_the_cells_own_dropout() -> None:
    inputs = torch.rand(2, 3, 16, 16)
    found = seewhy.EpistemicUncertainty(Functional(drop=True), samples=8)(inputs)
    assert float(found.std.amax()) > 0
    assert not any("no dropout" in text for text in found.warnings)
    placed = seewhy.EpistemicUncertainty(Functional(), samples=8)(inputs)
    assert any("dropout" in text for text in placed.warnings)


def test_a_network_that_ends_in_a_softmax_has_no_known_features() -> None:
    cell = nn.SequentialCell(Functional(), nn.Softmax())
    with pytest.raises(errors.MissingCapability, match=r"are not what its last nn\.Dense gives"):
        seewhy.OoDNet(cell, 4).features(torch.rand(1, 3, 16, 16))


@pytest.mark.parametrize("batch", [0, 2])
def test_a_run_over_a_data_set_of_mindspore(batch: int, pair: Any, tmp_path: Path) -> None:
    cell, _, inputs = pair
    rows = ([*inputs.numpy(), inputs[0].numpy()], [0, 3, 1])
    data = ms.dataset.NumpySlicesDataset(rows, ["image", "label"], shuffle=False)
    runner = seewhy.ImageClassificationRunner(
        summary_dir=tmp_path, data=(data.batch(batch) if batch else data, list(NAMES)), network=cell,
        activation_fn=nn.Sigmoid(), progress=False,
    )  # fmt: skip
    runner.register_saliency(explainers=[seewhy.GradCAM(cell), "rise(num_masks=10)"], benchmarkers=["sparseness"])
    runner.register_uncertainty()
    done = runner.run()
    assert (done.pictures, done.computed, done.failures) == (3, 3, ())
    assert set(done.scores) >= {"grad_cam", "rise(num_masks=10)"}
    assert [len(record.uncertainty) > 0 for record in Run(tmp_path).records()] == [True] * 3


def test_the_example_runs_and_both_frameworks_agree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torchvision")
    monkeypatch.setattr(sys, "argv", ["05_mindspore.py", str(tmp_path), "64"])
    runpy.run_path(str(EXAMPLES / "05_mindspore.py"))
    said = capsys.readouterr().out
    assert float(said.split("differs by ")[1].split(".\n")[0]) < 1e-4
    assert "2 pictures computed" in said
    assert Image.open(tmp_path / "mindspore_and_torch.png").size == (128, 64)
