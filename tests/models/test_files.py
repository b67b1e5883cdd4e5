"""torch.export archives and TorchScript; weights given as a model; model files on the command line and in runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

import seewhy
from seewhy import cli
from seewhy.errors import CheckpointError, InvalidInput, MissingCapability, NoSpatialOutput
from seewhy.explainers import RISE, ActivationMap, GradCAM, Gradient, ReciproCAM, ViTReciproCAM
from seewhy.models import FeatureModel
from seewhy.models.exported.torch_export import ProgramScores
from seewhy.models.torch.model import TorchModel
from seewhy.runs.folder.identity import model_digest
from support.exports import Normalised, Tokens, X, close, to_onnx, to_xml
from support.networks import Dropout, Pooled, build


def archive(network: nn.Module, path: Path, *, free: bool = True, batch: int = 2) -> Path:
    shapes = ({0: torch.export.Dim("batch")},) if free else None
    torch.export.save(torch.export.export(network, (X[:batch],), dynamic_shapes=shapes), path)
    return path


def test_an_archive_with_a_free_batch_is_a_torch_network(tmp_path: Path) -> None:
    network = build(Pooled)
    model = seewhy.load(archive(network, tmp_path / "net.pt2"))
    assert isinstance(model, TorchModel)
    assert model.name == "net.pt2"
    assert "act2" in model.layers()
    close(model(X).classes, network(X).detach())
    for method in (GradCAM, ReciproCAM, Gradient):
        close(method(model).attribute(X, [0, 3, 4]), method(network).attribute(X, [0, 3, 4]))
    assert GradCAM(model).run(X).layer == "act2"


def test_an_archive_of_a_transformer(tmp_path: Path) -> None:
    network = build(Tokens)
    model = seewhy.load(archive(network, tmp_path / "vit.pt2"))
    close(model(X).classes, network(X).detach())
    got, want = (GradCAM(m, layer="blocks.0").attribute(X) for m in (model, network))
    close(got, want)
    with pytest.raises(NoSpatialOutput, match=r"No block with an attention among tokens was found in vit\.pt2"):
        ViTReciproCAM(model)(X)  # its modules are no longer those that have a known attention
    with pytest.raises(
        NoSpatialOutput, match=re.escape("vit.pt2 does not say which of its modules are a transformer's")
    ):
        ActivationMap(model)(X)
    close(ActivationMap(model, layer="blocks.0").attribute(X), ActivationMap(network).attribute(X))


def test_an_archive_whose_last_map_is_normalised(tmp_path: Path) -> None:
    network = build(Normalised)
    got, want = (ActivationMap(m).run(X) for m in (seewhy.load(archive(network, tmp_path / "norm.pt2")), network))
    assert got.layer == want.layer == "act2"
    close(got.raw, want.raw)


def test_an_archive_for_a_fixed_batch_gives_scores(tmp_path: Path) -> None:
    network = build(Pooled)
    model = seewhy.load(archive(network, tmp_path / "two.pt2", free=False))
    assert isinstance(model, ProgramScores)
    assert not isinstance(model, FeatureModel)
    assert model.notes == (
        "two.pt2 was exported for 2 images at a time: it gives scores only. For other methods export it with "
        "dynamic_shapes=({0: torch.export.Dim('batch')},).",
    )
    for n in (1, 2, 3):
        close(model(X[:n]).classes, network(X[:n]).detach())
    close(RISE(model, num_masks=10).attribute(X), RISE(network, num_masks=10).attribute(X))
    with pytest.raises(MissingCapability, match=re.escape("'two.pt2' gives scores only. Try RISE or Occlusion.")):
        GradCAM(model)(X)


def test_archives_that_cannot_be_used(tmp_path: Path) -> None:
    training = archive(build(Dropout).train(), tmp_path / "train.pt2")
    with pytest.raises(InvalidInput, match=re.escape("train.pt2 was exported in training mode (aten.")):
        seewhy.load(training)
    (tmp_path / "bad.pt2").write_bytes(b"PK nonsense")
    with pytest.raises(
        CheckpointError, match=re.escape("'bad.pt2' is not an archive that torch.export can read: ")[1:]
    ):
        seewhy.load(tmp_path / "bad.pt2")
    with pytest.raises(InvalidInput, match=re.escape("OpenVINO does not read .pt2 files; 'bad.pt2' is run by torch.")):
        seewhy.load(tmp_path / "bad.pt2", backend="openvino")
    vector = torch.export.export(nn.Linear(3, 2), (torch.zeros(2, 3),))
    torch.export.save(vector, tmp_path / "vector.pt2")
    with pytest.raises(InvalidInput, match=re.escape("vector.pt2 takes input (2, 3). Expected one input (N, C, H, W)")):
        seewhy.load(tmp_path / "vector.pt2")


@pytest.mark.parametrize("suffix", [".pt", ".torchscript"])
def test_torchscript(suffix: str, tmp_path: Path) -> None:
    network, path = build(Pooled), tmp_path / f"net{suffix}"
    torch.jit.trace(network, X).save(path)
    model = seewhy.load(path)
    close(model(X).classes, network(X).detach())
    close(RISE(model, num_masks=10).attribute(X), RISE(network, num_masks=10).attribute(X))
    close(Gradient(model).attribute(X), Gradient(network).attribute(X))
    said = (
        f"net{suffix} is TorchScript, which shows no layers. Use a method that looks at none, such as RISE or "
        "Occlusion, or load the network that"
    )
    for method in (GradCAM, ReciproCAM, ViTReciproCAM):
        with pytest.raises(NoSpatialOutput, match=re.escape(said)):
            method(model)(X)
    with pytest.raises(NoSpatialOutput, match="is TorchScript, which shows no layers"):
        GradCAM(torch.jit.trace(network, X), layer="conv2")(X)
    assert seewhy.explain(model, X[:1], progress=False, num_masks=10).method == "rise"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(CheckpointError):
        seewhy.load(path)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors"])
def test_weights_are_no_model(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    weights = build(Pooled).state_dict()
    save_file(weights, path) if suffix == ".safetensors" else torch.save(weights, path)
    said = (
        f"{str(path)!r} holds weights only, without a network. Name the network and pass the file as checkpoint: "
        f"seewhy.load('timm:NAME', checkpoint={str(path)!r}) (--model timm:NAME --checkpoint {path})."
    )
    with pytest.raises(CheckpointError, match=re.escape(said)):
        seewhy.load(path)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "pictures").mkdir()
    for i, name in enumerate(("a.png", "b.png")):
        noise = torch.randint(0, 256, (40, 60, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(i))
        Image.fromarray(noise.numpy()).save(tmp_path / "pictures" / name)
    return tmp_path


FLAGS = ("--mean", "0.5", "0.5", "0.5", "--std", "0.5", "0.5", "0.5", "--quiet")


def test_the_command_line_takes_a_file_as_checkpoint_alone(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = build(Pooled)
    path, out = to_xml(network, place / "model.xml", X), place / "out"
    given = ["--checkpoint", str(path), "--data-root", str(place / "pictures"), "--dump", "--out", str(out), *FLAGS]
    assert cli.main(["explain", *given]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert all("recipro_cam" in line for line in lines)
    assert sorted(p.suffix for p in out.iterdir()) == sorted([".json", ".npz", ".png"] * 2)
    assert cli.main(["explain", *given, "--method", "grad_cam"]) == 1
    assert (
        "GradCAM needs gradients; 'model.xml' gives scores and features. Try ReciproCAM, RISE or Occlusion."
        in capsys.readouterr().err
    )
    assert cli.main(["explain", str(place / "pictures" / "a.png"), *FLAGS]) == 2
    assert "Name the network: --model timm:NAME, or a model file" in capsys.readouterr().err


def test_runs_know_a_model_by_its_contents(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = to_onnx(build(Pooled), place / "model.onnx", X)
    given = ["run", "--model", str(path), "--data", str(place / "pictures"), "--explainers", "recipro_cam",
             "--threshold", "0.1", "--out", str(place / "run"), *FLAGS]  # fmt: skip
    assert cli.main(given) == 0
    assert "2 pictures computed" in capsys.readouterr().out
    assert cli.main(given) == 0
    assert "0 pictures computed in 0.0 s, 2 were there already" in re.sub(
        r"in \d+\.\d s", "in 0.0 s", capsys.readouterr().out
    )
    first = model_digest(seewhy.load(path))
    (place / "copy").mkdir()
    copy = place / "copy" / "other.onnx"
    copy.write_bytes(path.read_bytes())
    assert model_digest(seewhy.load(copy)) != model_digest(seewhy.load(path, backend="openvino"))
    assert model_digest(seewhy.load(copy)) == first
    to_onnx(build(Pooled, seed=1), path, X)
    assert model_digest(seewhy.load(path)) != first
