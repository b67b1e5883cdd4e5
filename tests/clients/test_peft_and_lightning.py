"""Wrappers around networks: PEFT's adapters, Lightning's modules, torch.compile."""

from __future__ import annotations

from typing import Any

import pytest
from torch import Tensor, nn

from support.slow_twins import Client, check, say_pixels

lightning: Any = pytest.importorskip("pytorch_lightning")
peft, hf, timm = (pytest.importorskip(name) for name in ("peft", "transformers", "timm"))
VIT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}


def vit() -> Any:
    return hf.ViTForImageClassification(hf.ViTConfig(**VIT, image_size=64, patch_size=16, num_labels=5))


def small_vit() -> Any:
    return timm.create_model("vit_tiny_patch16_224", num_classes=5, img_size=64, depth=2, embed_dim=48, num_heads=3)


def resnet() -> Any:
    return timm.create_model("test_resnet", num_classes=5)


def adapted(network: nn.Module, **more: Any) -> Any:
    """With LoRA whose second matrix is not zero, as after training."""
    found = peft.get_peft_model(network, peft.LoraConfig(r=2, **more))
    for name, parameter in found.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, 0, 0.1)
    return found


class Module(lightning.LightningModule):
    """A training module as people write it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Any:
        return self.network(x)

    def training_step(self, batch: tuple[Tensor, Tensor], _index: int) -> Tensor:
        return nn.functional.cross_entropy(self(batch[0]), batch[1])


QUERIES = ["q_proj", "v_proj"]
NETWORKS = [
    Client(name="LoRA, Hugging Face", make=lambda: adapted(vit(), target_modules=QUERIES),
           say=say_pixels, layer="base_model.model.vit.layers.1.layernorm_before", prefix=1, grid=4, carries=False),
    Client(name="LoRA, timm", make=lambda: adapted(small_vit(), target_modules=["qkv"]), prefix=1, grid=4,
           layer="base_model.model.blocks.1.norm1", carries=False,
           block=("base_model.model.blocks.1", "base_model.model.blocks.1.norm1")),
    Client(name="LoRA, convolutions", make=lambda: adapted(resnet(), target_modules=r".*layer\d\.\d\.conv\d$"), grid=2,
           layer="base_model.model.layer4"),
    Client(name="DoRA", make=lambda: adapted(vit(), target_modules=QUERIES, use_dora=True), say=say_pixels, prefix=1,
           grid=4, layer="base_model.model.vit.layers.1.layernorm_before", carries=False),
    Client(name="LoRA, merged", make=lambda: adapted(vit(), target_modules=QUERIES).merge_and_unload(), say=say_pixels,
           layer="vit.layers.1.layernorm_before", prefix=1, grid=4, carries=False),
    Client(name="Lightning, ResNet", make=lambda: Module(resnet()), layer="network.layer4", grid=2),
    Client(name="Lightning, ViT", make=lambda: Module(small_vit()), layer="network.blocks.1.norm1", prefix=1, grid=4,
           carries=False, block=("network.blocks.1", "network.blocks.1.norm1")),
]  # fmt: skip


@pytest.mark.parametrize("one", NETWORKS, ids=lambda one: one.name)
def test_by_hand(one: Client) -> None:
    check(one)
