"""Hugging Face's networks, small and with random weights: the layer and tokens that are found, the map by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seewhy.errors import NoSpatialOutput
from seewhy.explainers import GradCAM, ReciproCAM, ViTReciproCAM
from seewhy.models.torch.model import TorchModel
from support.networks import pictures

hf = pytest.importorskip("transformers")
close = torch.testing.assert_close

PLAIN = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
VIT = {**PLAIN, "image_size": 64, "patch_size": 16}
TEXT = {**PLAIN, "vocab_size": 50, "bos_token_id": 1, "eos_token_id": 2}
PYRAMID = {"hidden_sizes": [8, 16, 16, 32], "depths": [1, 1, 1, 1], "num_labels": 5}
HEADS = {**PYRAMID, "num_attention_heads": [1, 1, 2, 2]}
SWIN = {"embed_dim": 24, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 2, 2], "num_labels": 5}
TOWERS = {"vision_config": VIT, "text_config": TEXT, "num_labels": 5}


def make(model: str, config: str, **options: Any) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return getattr(hf, model)(getattr(hf, config)(**options)).eval()


# (model, configuration, its options, side of the picture, layer, prefix or None for a map, grid)
LAYERS = [
    ("ViTForImageClassification", "ViTConfig", {**VIT, "num_labels": 5}, 64, "vit.layers.1.layernorm_before", 1, 4),
    ("DeiTForImageClassification", "DeiTConfig", {**VIT, "num_labels": 5}, 64, "deit.layers.1.layernorm_before", 2, 4),
    ("BeitForImageClassification", "BeitConfig", {**VIT, "num_labels": 5}, 64, "beit.layernorm", 1, 4),
    ("CLIPForImageClassification", "CLIPConfig", TOWERS, 64, "vision_model.encoder.layers.1", 1, 4),
    ("SiglipForImageClassification", "SiglipConfig", TOWERS, 64, "vision_model.post_layernorm", 0, 4),
    ("SwinForImageClassification", "SwinConfig", {**SWIN, "image_size": 224}, 224, "swin.layernorm", 0, 7),
    ("ResNetForImageClassification", "ResNetConfig", {**PYRAMID, "embedding_size": 8, "layer_type": "basic"}, 64,
     "resnet.encoder.stages.3", None, 2),
    ("SegformerForImageClassification", "SegformerConfig", HEADS, 64, "segformer.stages.3", None, 2),
    ("PoolFormerForImageClassification", "PoolFormerConfig", PYRAMID, 64, "norm", None, 2),
]  # fmt: skip


@pytest.mark.parametrize(("model", "config", "options", "side", "layer", "prefix", "grid"), LAYERS)
def test_the_automatic_layer_and_grad_cam_by_hand(
    model: str, config: str, options: dict[str, Any], side: int, layer: str, prefix: int | None, grid: int
) -> None:
    network, x = make(model, config, **options), pictures(2, height=side, width=side)
    found = GradCAM(network).run(x, [1, 3])
    assert (found.layer, tuple(found.raw.shape)) == (layer, (2, 1, grid, grid))
    kept: list[Tensor] = []
    handle = network.get_submodule(layer).register_forward_hook(lambda _m, _a, out: kept.append(out))
    scores = network(x).logits
    handle.remove()
    (gradient,) = torch.autograd.grad(scores[0, 1] + scores[1, 3], kept[-1])
    maps, slopes = kept[-1], gradient
    if prefix is not None:
        maps, slopes = (t[:, prefix:].transpose(1, 2).unflatten(2, (grid, grid)) for t in (maps, slopes))
    want = (slopes.mean((2, 3), keepdim=True) * maps).sum(1, keepdim=True).relu()
    close(found.raw, want.detach(), atol=1e-5 * float(want.detach().amax().clamp_min(1e-3)), rtol=1e-4)


def test_clip_by_the_definition_of_vit_recipro_cam() -> None:
    network: Any = make("CLIPForImageClassification", "CLIPConfig", **TOWERS)
    x = pictures(1, height=64, width=64)
    found = ViTReciproCAM(network).run(x, "all")
    assert found.layer == "vision_model.encoder.layers.1.layer_norm1"
    kept: list[Tensor] = []
    block = network.vision_model.encoder.layers[1]
    handle = block.register_forward_pre_hook(lambda _m, args: kept.append(args[0].clone()))
    network(x)
    handle.remove()
    weight = torch.zeros(1, 17, 1)
    weight[:, 0] = 1
    for a, row in enumerate(((1, 2, 1), (2, 4, 2), (1, 2, 1))):
        for b, part in enumerate(row):
            weight[:, 1 + (1 + a - 1) * 4 + (2 + b - 1)] = part / 16
    normed = block.layer_norm1(kept[0]) * weight
    y = kept[0] * weight + block.self_attn(hidden_states=normed, attention_mask=None)[0]
    y = y + block.mlp(block.layer_norm2(y))
    close(found.raw[0, :, 1, 2], network.classifier(y[:, 1:].mean(1))[0].detach(), atol=1e-5, rtol=1e-4)


def test_no_method_names_another_that_refuses_too() -> None:
    network = make("SwinForImageClassification", "SwinConfig", **SWIN, image_size=224)
    x = pictures(1, height=224, width=224)
    said = (
        r"^ReciproCAM is defined for a spatial map; layer 'swin\.layernorm' gives tokens\. Use GradCAM, RISE or Occlu"
    )
    with pytest.raises(NoSpatialOutput, match=said):
        ReciproCAM(network)(x)
    with pytest.raises(NoSpatialOutput, match=r"Use a method for other networks: GradCAM, RISE or Occlusion\.$"):
        ViTReciproCAM(network)(x)


def _region(pick: Callable[[Any], Tensor]) -> Callable[[Any], Tensor]:
    return lambda raw: pick(raw)[:, :, :4, :4].mean((2, 3))


@pytest.mark.parametrize("ends", ["logits", "softmax"])
def test_the_class_score_map_of_a_segmentation_is_not_explained_by_itself(ends: str) -> None:
    network = make("SegformerForSemanticSegmentation", "SegformerConfig", **HEADS, decoder_hidden_size=16)
    pick = _region(lambda raw: raw.logits if ends == "logits" else raw.logits.softmax(1))
    model = TorchModel(network, output=pick)
    assert model.auto_layer(pictures(1, height=64, width=64)) == "decode_head.dropout"


def test_queries_are_no_places_and_the_backbones_tokens_are() -> None:
    backbone = hf.ResNetConfig(**PYRAMID, embedding_size=8, layer_type="basic", out_features=["stage4"])
    network = make(
        "DetrForObjectDetection", "DetrConfig", use_timm_backbone=False, backbone_config=backbone, d_model=32,
        encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=32,
        decoder_ffn_dim=32, num_queries=16, num_labels=5,
    )  # fmt: skip
    model, x = TorchModel(network, output=lambda raw: raw.logits.amax(1)), pictures(1, height=128, width=128)
    with model.opened():
        found = model.features(x, "auto")
    assert (found.layer, found.prefix, tuple(found.maps.shape)) == ("model.encoder.layers.0", 0, (1, 32, 4, 4))
