"""Hugging Face's networks, small and with random weights: the layer and tokens that are found, the map by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seewhy.errors import InvalidTarget, NoSpatialOutput
from seewhy.explainers import GradCAM, Occlusion, ReciproCAM, ViTReciproCAM
from seewhy.models.torch.model import TorchModel
from support.networks import pictures
from support.slow_twins import Client, Place, Twin, check, say_pixels

hf = pytest.importorskip("transformers")
close = torch.testing.assert_close

PLAIN = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
VIT = {**PLAIN, "image_size": 64, "patch_size": 16}
TEXT = {**PLAIN, "vocab_size": 50, "bos_token_id": 1, "eos_token_id": 2}
PYRAMID = {"hidden_sizes": [8, 16, 16, 32], "depths": [1, 1, 1, 1], "num_labels": 5}
HEADS = {**PYRAMID, "num_attention_heads": [1, 1, 2, 2]}
SWIN = {"embed_dim": 24, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 2, 2], "num_labels": 5}
SWIN_64 = {**SWIN, "image_size": 64}
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
    network = make("SwinForImageClassification", "SwinConfig", **SWIN, image_size=128, window_size=2)
    x = pictures(1, height=128, width=128)  # 4 x 4 tokens at the end, in windows of 2 x 2
    said = (
        r"^ReciproCAM is defined for a spatial map; layer 'swin\.layernorm' gives tokens\. Use GradCAM, RISE or Occlu"
    )
    with pytest.raises(NoSpatialOutput, match=said):
        ReciproCAM(network)(x)
    with pytest.raises(NoSpatialOutput, match=r"Use a method for other networks: GradCAM, RISE or Occlusion\.$"):
        ViTReciproCAM(network)(x)


def test_a_window_as_large_as_the_picture_is_an_attention_among_all_tokens() -> None:
    network = make("SwinForImageClassification", "SwinConfig", **SWIN, image_size=224)  # 7 x 7 at the end, as windows
    x = pictures(1, height=224, width=224)
    found = ViTReciproCAM(network).run(x, 1)
    assert found.layer == "swin.encoder.layers.3.blocks.0.layernorm_before"
    place = Place(layer="swin.layernorm", prefix=0, grid=(7, 7))
    twin = Twin(network, lambda own, images: own(pixel_values=images).logits, x, 1)
    want = twin.vit_recipro_cam(place, "swin.encoder.layers.3.blocks.0", found.layer, [(0, 1), (5, 3)])
    close(torch.stack([found.raw[:, 0, 0, 1], found.raw[:, 0, 5, 3]], 1), want, atol=1e-5, rtol=1e-4)


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


def classifier(kind: str, layer: str, grid: int, given: dict[str, Any], **more: Any) -> Client:
    """A network for classes, by the first part of its classes' names."""
    model, config = more.pop("model", f"{kind}ForImageClassification"), f"{kind}Config"
    return Client(
        name=more.pop("title", kind), make=lambda: make(model, config, **given), layer=layer, grid=grid,
        say=more.pop("say", say_pixels), **more,
    )  # fmt: skip


def picked(name: str, pick: Callable[[Any], Tensor], build: Callable[[], nn.Module], **more: Any) -> Client:
    """A network with other outputs, of which the user picks scores."""
    return Client(
        name=name, make=build, say=lambda network, x: pick(network(pixel_values=x)), options={"output": pick}, **more
    )


def resnet(**more: Any) -> Any:
    return hf.ResNetConfig(**PYRAMID, embedding_size=8, layer_type="basic", **more)


def swin() -> Any:
    return hf.SwinConfig(
        **{**SWIN, "image_size": 64, "window_size": 2}, out_features=[f"stage{i}" for i in (1, 2, 3, 4)]
    )


def best(raw: Any) -> Tensor:
    return raw.logits.amax(1)


def best_class(raw: Any) -> Tensor:
    return raw.class_queries_logits.amax(1)


def corner(raw: Any) -> Tensor:
    return raw.logits[:, :, :4, :4].mean((2, 3))


def upernet() -> nn.Module:
    levels = resnet(out_features=["stage1", "stage2", "stage3", "stage4"])
    config = hf.UperNetConfig(
        backbone_config=levels, hidden_size=16, pool_scales=[1, 2], use_auxiliary_head=True, auxiliary_in_channels=16,
        auxiliary_channels=16, num_labels=5,
    )  # fmt: skip
    return hf.UperNetForSemanticSegmentation(config)


def mask2former() -> nn.Module:
    config = hf.Mask2FormerConfig(
        backbone_config=swin(), feature_size=32, mask_feature_size=32, hidden_dim=32, encoder_feedforward_dim=32,
        encoder_layers=1, decoder_layers=2, num_attention_heads=2, dim_feedforward=32, num_queries=16, num_labels=5,
    )  # fmt: skip
    return hf.Mask2FormerForUniversalSegmentation(config)


DETR = {
    "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32, "decoder_ffn_dim": 32,
}  # fmt: skip


def maskformer() -> nn.Module:
    config = hf.MaskFormerConfig(
        backbone_config=swin(), decoder_config=hf.DetrConfig(**DETR, num_queries=16), fpn_feature_size=32,
        mask_feature_size=32, num_attention_heads=2, num_labels=5,
    )  # fmt: skip
    return hf.MaskFormerForInstanceSegmentation(config)


def rt_detr() -> nn.Module:
    backbone = hf.RTDetrResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16, 16, 32], depths=[1, 1, 1, 1], layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = hf.RTDetrConfig(
        **DETR, backbone_config=backbone, encoder_hidden_dim=32, encoder_in_channels=[16, 16, 32], num_queries=12,
        decoder_in_channels=[32, 32, 32], decoder_n_points=2, num_labels=5,
    )  # fmt: skip
    return hf.RTDetrForObjectDetection(config)


DINO = {**VIT, "num_labels": 5, "mlp_ratio": 2}
TEXTS = torch.tensor([[3, 4, 2], [5, 6, 2], [7, 8, 2]])
DUAL = {"output": "logits_per_image", "forward_kwargs": {"input_ids": TEXTS}}


def dual(network: Any, x: Tensor) -> Tensor:
    return network(input_ids=TEXTS, pixel_values=x).logits_per_image


BLOCK = "vision_model.encoder.layers.1"
FIRST = (BLOCK, f"{BLOCK}.layer_norm1")
SIDES = {"image_size": 64, "depths": [1, 1, 1, 1], "num_labels": 5}
LEVIT = {
    "image_size": 64, "hidden_sizes": [16, 32, 48], "num_attention_heads": [2, 2, 3], "depths": [1, 1, 1],
    "key_dim": [8, 8, 8], "drop_path_rate": 0, "num_labels": 5,
}  # fmt: skip
PVT = {**SIDES, "hidden_sizes": [8, 16, 16, 32], "num_attention_heads": [1, 2, 2, 4]}
NETWORKS = [
    classifier("Dinov2", "dinov2.layernorm", 4, DINO, prefix=1,
               block=("dinov2.encoder.layer.1", "dinov2.encoder.layer.1.norm1")),
    classifier("Dinov2WithRegisters", "dinov2_with_registers.layernorm", 4, DINO, prefix=5),
    classifier("DINOv3ViT", "model.layer.1.norm1", 4, {**VIT, "num_register_tokens": 4}, prefix=5, carries=False,
               model="DINOv3ViTModel", say=lambda network, x: network(pixel_values=x).pooler_output,
               options={"output": "pooler_output", "labels": tuple("abcdefgh" * 4)},
               block=("model.layer.1", "model.layer.1.norm1")),
    classifier("ViTMSN", "vit.layers.1.layernorm_before", 4, {**VIT, "num_labels": 5}, prefix=1, carries=False),
    # Its blocks give tuples.
    classifier("Data2VecVision", "data2vec_vision.layernorm", 4, {**VIT, "num_labels": 5}, prefix=1,
               block=("data2vec_vision.encoder.layer.1", "data2vec_vision.encoder.layer.1.layernorm_before")),
    classifier("Hiera", "hiera.encoder.stages.3", 2, {
        "embed_dim": 16, "image_size": [64, 64], "depths": [1, 1, 1, 1], "num_heads": [1, 2, 2, 2], "num_labels": 5,
    }, prefix=0),
    classifier("IJepa", "ijepa.layernorm", 4, {**VIT, "num_labels": 5}, prefix=0),
    classifier("Swinv2", "swinv2.layernorm", 2, {**SWIN_64, "window_size": 4}, prefix=0),
    classifier("ConvNextV2", "convnextv2.encoder.stages.3", 2, PYRAMID),
    classifier("Levit", "levit.encoder.stages.0.layers.1", 4, LEVIT, prefix=0,
               block=("levit.encoder.stages.0.layers.0", "")),
    classifier("Pvt", "pvt.encoder.block.3.0.layer_norm_1", 2, PVT, prefix=1),
    classifier("PvtV2", "pvt_v2.encoder.layers.3.layer_norm", 2, PVT, prefix=0),
    classifier("FocalNet", "focalnet.layernorm", 2, {**SIDES, "embed_dim": 16}, prefix=0),
    classifier("RegNet", "regnet.encoder.stages.3", 2, {**PYRAMID, "embedding_size": 8, "groups_width": 8}),
    classifier("Bit", "bit.norm", 2, {
        "embedding_size": 8, "hidden_sizes": [32, 32, 64, 64], "depths": [1, 1, 1, 1], "num_groups": 4, "num_labels": 5,
    }),
    classifier("SwiftFormer", "norm", 2, {**SIDES, "embed_dims": [8, 16, 32, 48]}),
    classifier("CLIP", FIRST[1], 4, {**TOWERS, "projection_dim": 16}, model="CLIPModel", say=dual, options=DUAL,
               prefix=1, carries=False, block=FIRST, title="CLIP, both towers"),
    classifier("Siglip", "vision_model.post_layernorm", 4, TOWERS, model="SiglipModel", say=dual, options=DUAL,
               prefix=0, block=FIRST, title="SigLIP, both towers"),
    picked("UperNet", corner, upernet, layer="decode_head.fpn_bottleneck", grid=16),
    picked("BeitForSemanticSegmentation", corner, lambda: make(
        "BeitForSemanticSegmentation", "BeitConfig", **{**VIT, "num_hidden_layers": 4}, num_labels=5,
        pool_scales=[1, 2], out_indices=[1, 2, 3, 4], use_auxiliary_head=False,
    ), layer="decode_head.fpn_bottleneck", grid=16),
    # Its decoder reads all stages, so the first is the last through which everything passes.
    picked("Mask2Former", best_class, mask2former, prefix=0, grid=16,
           layer="model.pixel_level_module.encoder.swin.encoder.layers.0.blocks.0"),
    picked("MaskFormer", best_class, maskformer, layer="model.pixel_level_module.encoder.hidden_states_norms.3",
           prefix=0, grid=2),
    picked("RT-DETR", best, rt_detr, layer="model.backbone.model.encoder.stages.1", grid=8),
    # Eight detection tokens stand behind those of the picture.
    picked("YOLOS", best, lambda: make(
        "YolosForObjectDetection", "YolosConfig", **{**VIT, "image_size": [64, 64]}, num_detection_tokens=8,
        initializer_range=0.2,
        num_labels=5,
    ), layer="vit.embeddings.patch_embeddings.projection", grid=4),
]  # fmt: skip


@pytest.mark.parametrize("one", NETWORKS, ids=lambda one: one.name)
def test_by_hand(one: Client) -> None:
    check(one)


def test_image_embeds_are_no_classes() -> None:
    network = make("CLIPVisionModelWithProjection", "CLIPVisionConfig", **VIT, projection_dim=16)
    x = pictures(1, height=64, width=64)
    said = (
        "The network gives an embedding of 16 numbers and no classes: the network gives them as 'image_embeds'. Pass "
    )
    with pytest.raises(InvalidTarget, match=f"^{said}"):
        GradCAM(TorchModel(network, output="image_embeds"))(x)


def test_tokens_in_a_random_order_are_no_map_and_the_randomness_is_noted() -> None:
    network = make("ViTMAEModel", "ViTMAEConfig", **VIT, mask_ratio=0.0)
    model = TorchModel(network, output=lambda raw: raw.last_hidden_state[:, 0])
    x = pictures(1, height=64, width=64)
    found = GradCAM(model).run(x, 0)
    assert found.layer == "embeddings.patch_embeddings.projection"  # before they are shuffled
    assert found.warnings[0] == (
        "ViTMAEModel draws random numbers in evaluation mode (rand): it says something else of the same picture in "
        "each pass, so this map is one of many. Let it draw none, or the same numbers in each pass."
    )
    with pytest.raises(NoSpatialOutput, match=r"^The network's tokens \(17 of them"):
        GradCAM(model, layer="layers.1")(x)


def test_a_tower_without_gradients_is_said_and_explained_without_them() -> None:
    network = make(
        "CLIPSegForImageSegmentation", "CLIPSegConfig", vision_config=VIT, text_config=TEXT, projection_dim=16,
        reduce_dim=16, extract_layers=[1], decoder_num_attention_heads=2, decoder_intermediate_size=32,
    )  # fmt: skip
    model = TorchModel(
        network, output=lambda raw: raw.logits.flatten(1).mean(1, keepdim=True), forward_kwargs={"input_ids": TEXTS[:1]}
    )
    x = pictures(1, height=64, width=64)
    with pytest.raises(
        Exception, match=r"^The scores do not depend on layer 'clip.vision_model.embeddings.patch_embed"
    ):
        GradCAM(model)(x)
    covered = x.clone()
    covered[:, :, 16:32, :16] = 0
    own, other = (
        network(pixel_values=p, input_ids=TEXTS[:1]).logits.flatten(1).mean(1).sigmoid().item() for p in (x, covered)
    )
    found = Occlusion(model, window=16, stride=16).run(x, 0)
    assert float(found.raw[0, 0, 20, 5]) == pytest.approx(own - other, rel=1e-3)
