"""timm's networks, small and with random weights: one of every kind that is built in another way."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from seewhy.errors import InvalidTarget
from seewhy.explainers import GradCAM, Occlusion
from seewhy.targets import SimilarityTarget
from support.networks import pictures
from support.slow_twins import Client, check, same

timm = pytest.importorskip("timm")
VIT = {"depth": 2, "embed_dim": 48, "num_heads": 3}
CLASSES = 5


def network(name: str, options: dict[str, Any]) -> nn.Module:
    return timm.create_model(name, num_classes=CLASSES, **options)


def client(name: str, layer: str, grid: int, options: dict[str, Any] | None = None, **more: Any) -> Client:
    own = dict(options or {})
    title = more.pop("title", name)
    return Client(name=title, make=lambda: network(name, own), layer=layer, grid=grid, **more)


def tokens(name: str, layer: str, prefix: int | None, options: dict[str, Any] | None = None, **more: Any) -> Client:
    own = {"img_size": more.get("side", 64), **VIT, **(options or {})}
    return client(name, layer, more.pop("grid", 4), own, prefix=prefix, **more)


FIRST = ("blocks.1", "blocks.1.norm1")
SWIN = {"img_size": 64, "window_size": 4, "depths": (1, 1, 1, 1), "embed_dim": 24, "num_heads": (1, 2, 2, 2)}
BESIDE = (
    "No layer with a spatial map carries all of the picture's influence on the scores: it passes through several "
    "beside each other. Layers that come into question: 'blocks.0.fusion.1.norm1', 'blocks.0.fusion.0.norm1'. Name "
    "one, layer='blocks.0.fusion.1.norm1' for example, or use RISE or Occlusion."
)
NETWORKS = [
    tokens("vit_tiny_patch16_224", "blocks.1.norm1", 1, carries=False, block=FIRST),
    tokens("deit_tiny_distilled_patch16_224", "blocks.1.norm1", 2, carries=False, block=FIRST),
    tokens("vit_small_patch14_dinov2", "blocks.1.norm1", 1, carries=False, block=FIRST, side=56),
    tokens("vit_small_patch14_reg4_dinov2", "blocks.1.norm1", 5, carries=False, block=FIRST, side=56),
    tokens("vit_small_patch16_dinov3", "norm", 5, block=FIRST),
    tokens("vit_base_patch16_siglip_224", "norm", 0, block=FIRST),
    tokens("beit_base_patch16_224", "norm", 1, block=FIRST),
    tokens(
        "beit_base_patch16_224",
        "blocks.1.norm1",
        1,
        {"global_pool": "token"},
        carries=False,
        block=FIRST,
        title="beit_base_patch16_224, class token",
    ),
    tokens("eva02_tiny_patch14_224", "norm", 1, block=FIRST, side=56),
    tokens("cait_xxs24_224", "blocks", 0, block=FIRST),
    tokens("convit_tiny", "blocks.1.norm1", 1, {"local_up_to_layer": 1}, block=FIRST),
    tokens("samvit_base_patch16_224", "neck", None),
    client("xcit_nano_12_p16_224", "blocks.1", 4, {"img_size": 64, "depth": 2}, prefix=0),
    client("tnt_s_patch16_224", "blocks.1.norm_out", 4, {"img_size": 64, "depth": 2}, prefix=1, carries=False),
    client("crossvit_tiny_240", "", 0, {"depth": ((1, 2, 0),)}, side=240, error=BESIDE),
    client("levit_128s", "stages.1", 2, {"img_size": 64}, prefix=0, block=("stages.1.blocks.2", "")),
    client("pvt_v2_b0", "stages", 2, {"depths": (1, 1, 1, 1)}),
    client("swinv2_tiny_window8_256", "norm", 2, SWIN),
    # Its tokens are sorted by windows from the first block on, until the last stage: they are no map there.
    client("hiera_tiny_224", "patch_embed", 16, {"img_size": 64, "stages": (1, 1, 1, 1), "embed_dim": 32}, prefix=0),
    client("coat_lite_tiny", "serial_blocks4.0.norm1", 2, {"img_size": 64, "serial_depths": (1, 1, 1, 1)}, prefix=1),
    client("edgenext_xx_small", "norm_pre", 2, {"depths": (1, 1, 1, 1), "dims": (16, 24, 32, 48)}),
    client("poolformer_s12", "stages", 2),
    client("mixer_s32_224", "norm", 2, {"img_size": 64}, prefix=0),
    client("resmlp_12_224", "norm", 4, {"img_size": 64}, prefix=0),
    client("gmlp_ti16_224", "norm", 4, {"img_size": 64}, prefix=0),
    client("test_nfnet", "final_act", 2),
    client("skresnet18", "layer4", 2),
    client("legacy_seresnet18", "layer4", 2),
    client("hrnet_w18_small", "final_layer", 2),
    client("inception_v3", "Mixed_6e", 4, side=96, placed=False),
    client("mobilevit_xxs", "stages.4.0", 2),
    client("mobilevitv2_050", "stages.4.0", 2),
    client("densenet121", "features", 4, {"block_config": (2, 2, 2), "growth_rate": 8}),
    client("test_convnext", "norm_pre", 2),
    client("test_efficientnet", "bn2", 2),
    client("test_byobnet", "final_conv", 2),
    client("test_mambaout", "stages", 2),
    client("ghostnet_050", "blocks", 2),
]


@pytest.mark.parametrize("one", NETWORKS, ids=lambda one: one.name)
def test_by_hand(one: Client) -> None:
    check(one)


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224"])
def test_without_classifier_there_is_no_class(name: str) -> None:
    features = timm.create_model(name, num_classes=0, **({"img_size": 64, **VIT} if "vit" in name else {})).eval()
    x = pictures(1, height=64, width=64)
    with pytest.raises(
        InvalidTarget, match=r"^The network gives an embedding of \d+ numbers and no classes: the network "
    ):
        GradCAM(features)(x)
    toward = torch.randn(features.num_features, generator=torch.Generator().manual_seed(0))
    found = Occlusion(features, window=16, stride=16).run(x, SimilarityTarget(embedding=toward))
    covered = x.clone()
    covered[:, :, :16, 16:32] = 0
    close = nn.functional.cosine_similarity
    want = close(features(x), toward[None]) - close(features(covered), toward[None])
    same(found.raw[0, 0, 3, 20], want[0].detach(), 1e-4)
