"""Networks for semantic segmentation and key points of three libraries: what they say, the layer, the map by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import seewhy
from seewhy import RegionTarget
from seewhy.explainers import RISE, GradCAM

hf = pytest.importorskip("transformers")
PYRAMID = {"hidden_sizes": [8, 16, 16, 32], "depths": [1, 1, 1, 1]}


def segformer() -> nn.Module:
    config = hf.SegformerConfig(**PYRAMID, num_attention_heads=[1, 1, 2, 2], num_labels=5, decoder_hidden_size=32)
    return hf.SegformerForSemanticSegmentation(config)


def upernet() -> nn.Module:
    backbone = hf.ConvNextConfig(**PYRAMID, num_stages=4, out_features=["stage1", "stage2", "stage3", "stage4"])
    config = hf.UperNetConfig(backbone_config=backbone, hidden_size=16, pool_scales=[1, 2], num_labels=5,
                              use_auxiliary_head=True, auxiliary_in_channels=16, auxiliary_channels=8)  # fmt: skip
    return hf.UperNetForSemanticSegmentation(config)


def maskformer() -> nn.Module:
    backbone = hf.SwinConfig(image_size=64, embed_dim=16, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=2,
                             out_features=["stage1", "stage2", "stage3", "stage4"])  # fmt: skip
    decoder = hf.DetrConfig(d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, num_queries=6,
                            decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32)  # fmt: skip
    config = hf.MaskFormerConfig(backbone_config=backbone, decoder_config=decoder, fpn_feature_size=32,
                                 mask_feature_size=32, num_labels=3)  # fmt: skip
    return hf.MaskFormerForInstanceSegmentation(config)


def of_torchvision(name: str) -> nn.Module:
    models = pytest.importorskip("torchvision.models.segmentation")
    return getattr(models, name)(
        weights=None, weights_backbone=None, num_classes=4, aux_loss="lraspp" not in name or None
    )


def unet() -> nn.Module:
    library = pytest.importorskip("segmentation_models_pytorch")
    return library.Unet("resnet18", encoder_weights=None, classes=3)


def vitpose() -> nn.Module:
    backbone = hf.VitPoseBackboneConfig(image_size=[64, 48], patch_size=[16, 16], hidden_size=32, num_hidden_layers=2,
                                        num_attention_heads=2, out_indices=[2])  # fmt: skip
    return hf.VitPoseForPoseEstimation(hf.VitPoseConfig(backbone_config=backbone, num_labels=4, scale_factor=2))


# name -> the network, and its own map (N, K, h, w) of what it returns
NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[Any], Tensor]]] = {
    "SegFormer": (segformer, lambda raw: raw.logits),
    "UperNet": (upernet, lambda raw: raw.logits),
    "FCN": (lambda: of_torchvision("fcn_resnet50"), lambda raw: raw["out"]),
    "LR-ASPP": (lambda: of_torchvision("lraspp_mobilenet_v3_large"), lambda raw: raw["out"]),
    "U-Net": (unet, lambda raw: raw),
    "ViTPose": (vitpose, lambda raw: raw.heatmaps),
}


def made(build: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build().eval()


def image(name: str) -> Tensor:
    size = (64, 48) if name == "ViTPose" else (64, 64)
    return torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", NETWORKS)
def test_classes_and_regions_are_those_of_the_networks_own_map(name: str) -> None:
    build, own = NETWORKS[name]
    network, x = made(build), image(name)
    with torch.no_grad():
        scores = own(network(x))
    outputs = seewhy.load(network)(x)
    torch.testing.assert_close(outputs.classes, scores.mean((2, 3)), atol=1e-5, rtol=1e-5)
    region = torch.zeros(scores.shape[2:])
    region[1:3, 2:5] = 1
    value = RegionTarget(label=1, region=region)(outputs)
    torch.testing.assert_close(value, scores[:, 1, 1:3, 2:5].mean((1, 2)), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_grad_cam_of_a_region_by_hand(name: str) -> None:
    build, own = NETWORKS[name]
    network, x = made(build), image(name)
    size = own(network(x)).shape[2:]
    region = torch.zeros(size)
    region[: size[0] // 2] = 1
    found = GradCAM(network).run(x, RegionTarget(label=2, region=region))
    assert found.layer
    kept: list[Tensor] = []
    handle = network.get_submodule(found.layer).register_forward_hook(lambda _m, _a, out: kept.append(_first(out)))
    value = own(network(x))[0, 2][region > 0].mean()
    handle.remove()
    (slope,) = torch.autograd.grad(value, kept[0])
    maps, slope = (_as_maps(t, found.raw.shape[2:]) for t in (kept[0].detach(), slope))
    by_hand = (maps * slope.mean((2, 3), keepdim=True)).sum(1).relu()
    torch.testing.assert_close(found.raw[:, 0], by_hand, atol=1e-4 * float(by_hand.max()), rtol=1e-3)


def _first(out: Any) -> Tensor:
    return out if isinstance(out, Tensor) else out[0]


def _as_maps(found: Tensor, size: Any) -> Tensor:
    return found if found.ndim == 4 else found[:, -size[0] * size[1] :].transpose(1, 2).unflatten(2, tuple(size))


def test_the_layer_is_not_the_networks_own_answer() -> None:
    for name in ("SegFormer", "UperNet", "FCN", "U-Net"):
        build, own = NETWORKS[name]
        network, x = made(build), image(name)
        layer = GradCAM(network).run(x, RegionTarget(label=0, region=torch.ones(4, 4))).layer
        channels: list[int] = []
        handle = network.get_submodule(str(layer)).register_forward_hook(
            lambda _m, _a, out, into=channels: into.append(_first(out).shape[1])
        )
        scores = own(network(x))
        handle.remove()
        assert channels[0] != scores.shape[1], (name, layer)


def test_the_scores_of_mask_queries_are_those_of_the_processor() -> None:
    network, x = made(maskformer), image("MaskFormer")
    model = seewhy.load(network)
    with torch.no_grad():
        raw = network(pixel_values=x)
    own = hf.MaskFormerImageProcessor().post_process_semantic_segmentation(raw)[0]
    outputs = model(x)
    assert outputs.dense is not None
    scores = outputs.scores.transpose(1, 2).unflatten(2, outputs.dense)
    shown = F.interpolate(scores, own.shape, mode="bilinear", align_corners=False)[0].argmax(0)
    assert float((shown == own).float().mean()) > 0.98  # it enlarges the masks before their sigmoid
    raw_map = RISE(model, num_masks=4).attribute(x, RegionTarget(label=1, region=(40, 20), size=(64, 64)))
    assert bool(torch.isfinite(raw_map).all())
