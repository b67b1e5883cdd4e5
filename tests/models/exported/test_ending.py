"""What the scores of an exported graph are: the same as on torch, and in the same words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy.errors import InvalidTarget
from seewhy.models.exported.onnx import ONNXModel
from seewhy.models.exported.openvino import OpenVINOModel
from seewhy.models.torch.model import TorchModel
from support.exports import to_onnx, to_xml
from support.networks import Pooled, build, pictures

pytestmark = pytest.mark.slow
X = pictures(2)


class Ending(Pooled):
    """The pooled features, or a linear layer's numbers, through whatever comes last."""

    def __init__(self, end: Any, features: bool = False, count: int = 24) -> None:
        super().__init__()
        self.visual_projection = nn.Linear(16, count)
        self.end, self.bare = end, features

    def forward(self, x: Tensor) -> Tensor:
        maps = self.features(x)
        if self.bare:
            return self.end(maps)
        return self.end(self.fc(self.pool(maps).flatten(1)))


def _projected(network: Any) -> Any:
    network.fc = nn.Identity()
    network.end = network.visual_projection
    return network


MADE: dict[str, Any] = {
    "logits": lambda: build(Pooled),
    "temperature": lambda: build(Ending, lambda s: s / 0.07),
    "log softmax": lambda: build(Ending, nn.LogSoftmax(1)),
    "mean of class maps": lambda: build(Ending, nn.Sequential(nn.Conv2d(16, 9, 1), nn.AdaptiveAvgPool2d(1),
                                                             nn.Flatten()), features=True),
    "softmax": lambda: build(Ending, nn.Softmax(1)),
    "softmax, reshaped": lambda: build(Ending, lambda s: s.softmax(1).reshape(s.shape[0], -1)),
    "sigmoid": lambda: build(Ending, nn.Sigmoid()),
    "one sigmoid": lambda: build(Ending, lambda s: s[:, :1].sigmoid()),
    "relu": lambda: build(Ending, nn.ReLU()),
    "mean of features": lambda: build(Ending, lambda m: (m + 1).square().mean((2, 3)), features=True),
    "layer norm": lambda: build(Ending, nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(16)),
                               features=True),
    "tanh": lambda: build(Ending, lambda m: m.mean((2, 3)).tanh(), features=True),
    "length": lambda: build(Ending, lambda m: nn.functional.normalize(m.mean((2, 3)), dim=1), features=True),
    "length by hand": lambda: build(Ending, lambda m: m.mean((2, 3)) / m.mean((2, 3)).norm(dim=1, keepdim=True),
                                   features=True),
    "projection": lambda: _projected(build(Ending, nn.Identity())),
}  # fmt: skip


def opened(network: nn.Module, kind: str, folder: Path) -> Any:
    if kind == "xml":
        return OpenVINOModel(to_xml(network, folder / "net.xml", X, fused=True))
    return ONNXModel(to_onnx(network, folder / "net.onnx", X, opset_version=int(kind)))


@pytest.mark.parametrize("kind", ["13", "17", "xml"])  # a LayerNorm is written out, or one operation
@pytest.mark.parametrize("name", MADE)
def test_what_the_scores_are(name: str, kind: str, tmp_path: Path) -> None:
    network = MADE[name]()
    got, want = opened(network, kind, tmp_path)(X), TorchModel(network)(X)
    torch.testing.assert_close(got.scores, want.scores, atol=1e-5, rtol=1e-4)
    assert (got.meaning, got.activated, got.seen, got.how) == (want.meaning, want.activated, want.seen, want.how)


@pytest.mark.parametrize("kind", ["17", "xml"])
def test_an_embedding_has_no_class(kind: str, tmp_path: Path) -> None:
    model = opened(MADE["layer norm"](), kind, tmp_path)
    said = (
        r"^The network gives an embedding of 16 numbers and no classes: its last layer is a norm, and no classifier "
        r"follows\. Pass targets=seewhy\.SimilarityTarget"
    )
    with pytest.raises(InvalidTarget, match=said):
        seewhy.explain(model, X, method="occlusion")
    embedding = model(X).classes[0]
    found = seewhy.explain(model, X, targets=seewhy.SimilarityTarget(embedding=embedding), method="occlusion")
    assert found.predicted == [None, None]
    assert found.quantity == "similarity"
    assert float(found.probabilities[0, 0]) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("kind", ["17", "xml"])
def test_a_norm_that_was_folded_into_the_last_convolution_is_not_seen_and_that_is_said(
    kind: str, tmp_path: Path
) -> None:
    """1 x 1 convolution, BatchNorm, ReLU, mean: features on torch; in the file they may be class scores, too."""
    norm = nn.BatchNorm2d(40)
    nn.init.constant_(norm.weight, 9)
    end = nn.Sequential(nn.Conv2d(16, 40, 1), norm, nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network = build(Ending, end, features=True)
    assert TorchModel(network)(X).meaning == "embedding"
    found = seewhy.explain(opened(network, kind, tmp_path), X, method="occlusion")
    said = "Of the network's 40 outputs, whether they are scores of classes cannot be seen from what makes them."
    assert any(warning.startswith(said) for warning in found.warnings)


def test_names_in_the_file_say_that_the_numbers_are_classes(tmp_path: Path) -> None:
    import onnx

    path = to_onnx(MADE["mean of features"](), tmp_path / "net.onnx", X)
    assert seewhy.load(path)(X).meaning == "embedding"
    graph = onnx.load(path)
    graph.metadata_props.add(key="names", value=str({i: f"thing {i}" for i in range(16)}))
    onnx.save(graph, path)
    assert seewhy.load(path)(X).meaning == "classes"


def test_an_output_says_by_its_name_that_it_is_an_embedding(tmp_path: Path) -> None:
    path = to_onnx(MADE["relu"](), tmp_path / "net.onnx", X, output_names=["image_embeds"])
    found = ONNXModel(path)(X)
    assert (found.meaning, found.how) == ("embedding", "the network gives them as 'image_embeds'")
