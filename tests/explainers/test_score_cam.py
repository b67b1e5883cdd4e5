"""ScoreCAM against the paper's algorithm written out slowly, and grad-cam."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seewhy.errors import InvalidInput
from seewhy.explainers import ScoreCAM
from seewhy.targets import ClassTarget
from support import networks
from support.networks import CLASSES, build, pictures
from support.typed import of_kind

close = torch.testing.assert_close


def layer_maps(network: nn.Module, layer: str, x: Tensor) -> Tensor:
    kept: list[Tensor] = []
    handle = network.get_submodule(layer).register_forward_hook(lambda _m, _a, out: kept.append(out.clone()))
    network(x)
    handle.remove()
    return kept[-1].detach()


def slow(network: nn.Module, maps: Tensor, x: Tensor, target: int) -> Tensor:
    """Algorithm 1 of the paper, with the black picture's logit, for one picture and one channel at a time."""
    cams = []
    for image in range(len(x)):
        scores, used = [], []
        black = network(torch.zeros_like(x[:1]))[0, target]
        for k in range(maps.shape[1]):
            mask = F.interpolate(maps[None, None, image, k], x.shape[2:], mode="bilinear", align_corners=False)
            if maps[image, k].max() == maps[image, k].min():
                continue
            mask = (mask - mask.min()) / (mask.max() - mask.min())
            scores.append(network(x[image : image + 1] * mask)[0, target] - black)
            used.append(k)
        weights = torch.stack(scores).softmax(0)
        cams.append(sum(w * maps[image, k] for w, k in zip(weights, used, strict=True)).relu())
    return torch.stack(cams).unsqueeze(1).detach()


@pytest.mark.parametrize(
    ("kind", "layer"), [(networks.Pooled, "act2"), (networks.Inplace, "bn1"), (networks.Deep, "body")]
)
def test_it_is_the_paper(kind: Any, layer: str) -> None:
    network, x = build(kind), pictures(2, height=24, width=32)
    maps = layer_maps(network, layer, x)
    found = ScoreCAM(network, layer=layer).run(x, "all")
    for c in range(CLASSES):
        close(found.raw[:, c : c + 1], slow(network, maps, x, c), atol=1e-5, rtol=1e-4)
    flat = int((maps.amax((2, 3)) == maps.amin((2, 3))).sum())
    assert found.passes.forward == 2 + 2 * maps.shape[1] - flat  # all classes come from the same passes


def test_flat_channels_weigh_nothing_and_cost_nothing() -> None:
    network, x = build(networks.Deep), pictures(2, height=24, width=32)
    with torch.no_grad():
        network.body[0].weight[2:5] = 0.0
        network.body[0].bias[2:5] = torch.tensor([3.0, 0.0, -1.0])
    maps = layer_maps(network, "body.1", x)
    found = ScoreCAM(network, layer="body.1").run(x, 1)
    assert found.passes.forward == 2 + 2 * 5
    close(found.raw, slow(network, maps, x, 1), atol=1e-5, rtol=1e-4)


def test_a_layer_of_flat_channels_gives_no_map() -> None:
    found = ScoreCAM(build(networks.Constant), layer="relu").run(torch.ones(2, 3, 32, 32), "all")
    assert torch.equal(found.raw, torch.zeros(2, CLASSES, 8, 8))
    assert found.passes.forward == 2
    assert "Image 0, class 0: the map is constant, nothing stands out." in found.warnings


class _Channels(nn.Module):
    """The input is the layer: the logit of class c is ten times the mean of channel c, so much as is shown of it."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(100.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x.mean((2, 3))


def test_each_class_has_the_channel_that_raises_it() -> None:
    x = torch.zeros(1, 2, 24, 40)
    x[0, 0, 2:8, 30:38], x[0, 1, 14:20, 4:16] = 1.0, 1.0
    red, green = ScoreCAM(_Channels(), layer="").attribute(x, "all")[0]
    close(red, x[0, 0], atol=0.02, rtol=0)
    close(green, x[0, 1], atol=0.02, rtol=0)


def test_weights_that_are_all_alike_are_said() -> None:
    network = build(networks.Pooled)
    with torch.no_grad():
        network.fc.weight[2] *= 1e-3
        network.fc.weight[3] *= 100
    found = ScoreCAM(network).run(pictures(1), [[2, 3]])
    said = [w for w in found.warnings if "weigh alike" in w]
    assert len(said) == 1
    assert re.fullmatch(
        r"Image 0, class 2: its score is the same under all channels to within \d\.?\d*(e-\d+)?, so they weigh alike "
        r"and the map hardly depends on the target\.",
        said[0],
    )


def test_targets_that_are_not_classes() -> None:
    network, x = build(networks.Pooled), pictures(2)
    want = ScoreCAM(network).attribute(x, [[1, 4]] * 2)
    close(ScoreCAM(network).attribute(x, [ClassTarget(label=1), lambda o: o.classes[:, 4]]), want)


def test_its_weights_are_grad_cams() -> None:
    """On a layer of the picture's own size: grad-cam enlarges masks with aligned corners, which moves them."""
    library = pytest.importorskip("pytorch_grad_cam")
    torch.manual_seed(3)
    head = (nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, CLASSES))
    network, x = nn.Sequential(nn.Conv2d(3, 6, 3, 1, 1), nn.Tanh(), *head).eval(), pictures(2, height=16, width=24)
    with torch.no_grad():
        of_kind(nn.Linear, network[4]).weight *= 30
    maps = layer_maps(network, "1", x)
    cam = library.ScoreCAM(network, [network[1]])
    weights = cam.get_cam_weights(x, network[1], [lambda scores: scores[2]] * 2, maps.numpy(), None)
    cam.activations_and_grads.release()
    want = torch.einsum("nc,nchw->nhw", torch.from_numpy(weights), maps).relu()
    close(ScoreCAM(network, layer="1").attribute(x, 2)[:, 0], want, atol=1e-5, rtol=1e-4)


def test_wrong_parameters() -> None:
    said = "perturbation_per_eval must be a positive integer or 'auto', got 'all'."
    with pytest.raises(InvalidInput, match="^" + re.escape(said) + "$"):
        ScoreCAM(build(networks.Pooled), perturbation_per_eval="all")
