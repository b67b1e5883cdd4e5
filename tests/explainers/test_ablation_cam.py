"""AblationCAM: the closed form, the cut network and the whole network must agree with brute force."""

from __future__ import annotations

import re
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn

from seewhy.errors import InvalidInput
from seewhy.explainers import AblationCAM, HiResCAM
from seewhy.explainers.ablation_cam import _size, without_rounding
from seewhy.models.torch import head
from seewhy.models.torch.model import TorchModel
from seewhy.targets import SimilarityTarget
from support import networks
from support.networks import CLASSES, build, pictures

close = torch.testing.assert_close


def brute_force(network: nn.Module, layer: str, x: Tensor, target: int, last: bool = False) -> tuple[Tensor, Tensor]:
    """Maps (N, C, h, w) and weights (N, C): one picture and one channel at a time, through the whole network."""
    kept: list[Tensor] = []
    module = network.get_submodule(layer)
    handle = module.register_forward_hook(lambda _m, _a, out: kept.append(out.clone()))
    before = network(x)[:, target].detach()
    handle.remove()
    maps = kept[-1].detach().permute(0, 3, 1, 2) if last else kept[-1].detach()
    weights = torch.zeros(maps.shape[:2])
    for image in range(len(x)):
        for k in range(maps.shape[1]):

            def ablate(_m: Any, _a: Any, out: Tensor, k: int = k) -> Tensor:
                out = out.clone()
                (out[..., k] if last else out[:, k]).zero_()
                return out

            handle = module.register_forward_hook(ablate)
            after = network(x[image : image + 1])[0, target].detach()
            handle.remove()
            weights[image, k] = (before[image] - after) / before[image].abs()
    return maps, weights


def slow(network: nn.Module, layer: str, x: Tensor, target: int, last: bool = False) -> Tensor:
    maps, weights = brute_force(network, layer, x, target, last)
    return torch.einsum("nc,nchw->nhw", weights, maps).relu().unsqueeze(1)


CASES = [(networks.Pooled, "act2", False), (networks.Pooled, "act1", False), (networks.Inplace, "bn1", False),
         (networks.Residual, "conv2", False), (networks.Deep, "body", False), (networks.Deep, "body.1", False),
         (networks.ChannelsLast, "stage", True)]  # fmt: skip


@pytest.mark.parametrize(("kind", "layer", "last"), CASES)
@pytest.mark.slow
def test_it_is_brute_force_with_and_without_a_cut(kind: Any, layer: str, last: bool) -> None:
    network, x = build(kind), pictures(3, height=16, width=24)
    want = torch.cat([slow(network, layer, x, c, last) for c in range(CLASSES)], 1)
    found = AblationCAM(network, layer=layer).run(x, "all")
    close(found.raw, want, atol=1e-4 * float(want.max()), rtol=1e-4)
    assert found.passes.forward == 3
    with (
        mock.patch.object(head.Head, "_planned", return_value=None),
        mock.patch.object(head, "cut", return_value=None),
        mock.patch("seewhy.models.torch.pooled_head.Tape.head", return_value=None),
    ):
        whole = AblationCAM(network, layer=layer).run(x, "all")
    close(whole.raw, want, atol=1e-4 * float(want.max()), rtol=1e-4)
    assert whole.passes.forward > 3 * 4


def test_the_closed_form_is_the_rerun() -> None:
    network, x = build(networks.Pooled), pictures(3, height=32, width=48)
    with mock.patch.object(TorchModel, "from_features", side_effect=AssertionError):
        quick = AblationCAM(network).attribute(x, "all", native=True)
    functions = [lambda o, c=c: o.classes[:, c] for c in range(CLASSES)]  # no classes: the head is run again
    close(AblationCAM(network).attribute(x, functions, native=True), quick, atol=1e-4, rtol=1e-4)


def test_of_two_channels_the_one_that_matters_gives_the_map() -> None:
    network, x = build(networks.Linear, channels=2), torch.zeros(1, 2, 8, 12)
    x[0, 0, 5, 9], x[0, 1, 2, 3] = 2.0, -4.0  # a channel with nothing above 0 has its say, too
    with torch.no_grad():
        network.weight.zero_()
        network.weight[0, 0], network.weight[1, 1] = 1.0, 1.0
    maps = AblationCAM(network, layer="").attribute(x, [[0, 1]])
    close(maps[0], x[0].abs())  # the sizes of the falls, over the sizes of the logits, are 1


def test_a_negative_logit_does_not_turn_the_map() -> None:
    network, x = build(networks.Pooled), pictures(1)
    with torch.no_grad():
        network.fc.bias.fill_(20.0)
        above = AblationCAM(network).attribute(x, "all")[0] * network(x).view(-1, 1, 1)
        network.fc.bias.fill_(-20.0)
        below = AblationCAM(network).attribute(x, "all")[0] * -network(x).view(-1, 1, 1)
        assert float(network(x).max()) < 0
    close(above, below, atol=1e-5, rtol=1e-4)
    assert float(above.max()) > 0


def test_a_logit_of_zero_gives_the_same_picture() -> None:
    network, x = build(networks.Pooled), pictures(1)
    want = AblationCAM(network)(x, 1)
    with torch.no_grad():
        network.fc.bias[1] -= network(x)[0, 1]
    found = AblationCAM(network).run(x, 1)
    assert bool(found.raw.isfinite().all())
    close(AblationCAM(network)(x, 1), want, atol=1e-5, rtol=1e-4)


def test_on_a_linear_head_it_is_as_hires_cam_with_the_mean_of_each_channel() -> None:
    """w_k |y| is W_ck mean(A_k): the share of the logit that HiResCAM puts on channel k's positions."""
    network, x = build(networks.Pooled), pictures(2)
    with torch.no_grad():
        network.fc.weight.zero_()
        network.fc.weight[:, 3] = 1.0  # one channel speaks
        network.fc.bias.zero_()
    maps = network.features(x).detach()[:, 3]
    want = (maps.mean((1, 2)) / network(x)[:, 0].detach()).view(-1, 1, 1) * maps
    close(AblationCAM(network).attribute(x, 0, native=True)[:, 0], want)
    close(AblationCAM(network)(x, 0), HiResCAM(network)(x, 0), atol=1e-5, rtol=1e-5)


def test_channels_that_are_zero_are_not_run() -> None:
    network, x = build(networks.Deep), pictures(2)
    with torch.no_grad():
        network.body[0].bias[:5] = -100.0
    with mock.patch.object(head.Head, "_planned", return_value=None), mock.patch.object(head, "cut", return_value=None):
        found = AblationCAM(network, layer="body.1").run(x, 1)
    assert found.passes.forward == 2 + 2 * 3  # three channels are left
    close(found.raw, slow(network, "body.1", x, 1), atol=1e-5, rtol=1e-4)


def test_a_score_that_no_channel_changes() -> None:
    network = build(networks.Deep)
    with torch.no_grad():
        network.head[6].weight[2] = 0.0
    found = AblationCAM(network, layer="body.1").run(pictures(1), [[2, 3]])
    said = "Image 0, class {}: its score did not change under any channel set to 0."
    assert said.format(2) in found.warnings
    assert said.format(3) not in found.warnings
    assert float(found.raw[:, 0].abs().max()) == 0


def test_falls_of_the_size_of_rounding_are_none() -> None:
    scores, eps = torch.tensor([[[1.0, -50.0]]]), torch.finfo(torch.float32).eps
    falls = torch.tensor([[[4.0, -7.0], [4.0, -9.0]]]) * 50 * eps
    close(without_rounding(falls, scores, torch.float32), falls * torch.tensor([[[0.0], [1.0]]]), atol=0, rtol=0)


def test_a_logit_of_next_to_nothing_does_not_blow_the_map_up() -> None:
    close(_size(torch.tensor([[1e-30, 0.0, -2.0]]), torch.tensor([[[1.0, -3.0], [0.0, 0.0], [1.0, 0.0]]])),
          torch.tensor([[3e-6, 1.0, 2.0]]), atol=0, rtol=1e-6)  # fmt: skip


def test_a_direction_of_an_embedding() -> None:
    network, x = build(networks.Pooled), pictures(2)
    target = SimilarityTarget(embedding=torch.tensor([1.0, -1.0, 0.5, 0.0, 2.0]))
    found = AblationCAM(network).run(x, target)
    maps = network.features(x).detach()
    with torch.no_grad():
        before = torch.cosine_similarity(network(x), target.embedding[None])
        weights = torch.zeros(2, 16)
        for k in range(16):
            without = maps.clone()
            without[:, k] = 0
            after = torch.cosine_similarity(network.fc(without.mean((2, 3))), target.embedding[None])
            weights[:, k] = (before - after) / before.abs()
    close(found.raw[:, 0], torch.einsum("nc,nchw->nhw", weights, maps).relu(), atol=1e-5, rtol=1e-4)
    assert found.targets.classes is None


def test_its_weights_are_grad_cams_after_a_relu() -> None:
    """Where a batch's smallest activation is not 0 grad-cam puts in -1e7 and not 0, so layers before a ReLU differ."""
    library = pytest.importorskip("pytorch_grad_cam")
    targets = pytest.importorskip("pytorch_grad_cam.utils.model_targets")
    network, x = build(networks.Deep), pictures(2, height=16, width=24)
    with torch.no_grad():
        network.head[6].bias.fill_(5.0)  # logits above 0: grad-cam divides by them with their sign
    maps, _ = brute_force(network, "body.1", x, 1)
    cam = library.AblationCAM(network, [network.body[1]], batch_size=4)
    weights = cam.get_cam_weights(x, network.body[1], [targets.ClassifierOutputTarget(1)] * 2, maps, None)
    cam.activations_and_grads.release()
    want = torch.einsum("nc,nchw->nhw", torch.from_numpy(weights), maps).relu()
    close(AblationCAM(network, layer="body.1").attribute(x, 1, native=True)[:, 0], want, atol=1e-5, rtol=1e-4)


def test_wrong_parameters() -> None:
    said = "perturbation_per_eval must be a positive integer or 'auto', got 0."
    with pytest.raises(InvalidInput, match="^" + re.escape(said) + "$"):
        AblationCAM(build(networks.Pooled), perturbation_per_eval=0)
