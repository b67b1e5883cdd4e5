"""Two small networks trained on the textured shapes of seewhy.datasets.shapes; see data/README.md."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from timm.layers import HybridEmbed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from seewhy.datasets.shapes import NAMES
from support import DATA

WIDTHS = (16, 24, 48, 96)


class Block(nn.Module):
    """Two convolutions with BatchNorm, and a shortcut."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out)
        self.conv2, self.bn2 = nn.Conv2d(out, out, 3, 1, 1, bias=False), nn.BatchNorm2d(out)
        self.act1, self.act2 = nn.ReLU(), nn.ReLU()
        self.downsample = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(self.act1(self.bn1(self.conv1(x)))))
        return self.act2(out + self.downsample(x))


class Stem(nn.Module):
    """(N, 3, H, W) -> (N, 48, H/4, W/4)."""

    def __init__(self) -> None:
        super().__init__()
        first, second, third, _ = WIDTHS
        self.conv1, self.bn1, self.act1 = nn.Conv2d(3, first, 3, 2, 1, bias=False), nn.BatchNorm2d(first), nn.ReLU()
        self.layer1, self.layer2 = Block(first, second, 1), Block(second, third, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer2(self.layer1(self.act1(self.bn1(self.conv1(x)))))


class ShapesCNN(nn.Module):
    """A small ResNet with a pooled linear head: (N, 3, H, W) -> (N, 6) logits, one sigmoid a class."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.layer3 = Stem(), Block(*WIDTHS[2:], 2)
        self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(WIDTHS[3], len(NAMES))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.pool(self.layer3(self.stem(x))).flatten(1))


def shapes_vit() -> VisionTransformer:
    """timm's hybrid ViT on the CNN's stem: a class token and 8x8 tokens of 8x8 pixels, any size of picture."""
    embed = partial(HybridEmbed, backbone=Stem())
    return VisionTransformer(
        img_size=64, patch_size=2, num_classes=len(NAMES), embed_dim=64, depth=4, num_heads=4, mlp_ratio=2.0,
        embed_layer=embed, dynamic_img_size=True,
    )  # fmt: skip


def save(network: nn.Module, path: Path) -> None:
    """In half precision; integers as they are."""
    state = {k: v.half() if v.is_floating_point() else v for k, v in network.state_dict().items()}
    save_file({k: v.contiguous() for k, v in state.items()}, path)


def trained(name: str) -> nn.Module:
    """The network "cnn" or "vit" with its weights, in float32 and evaluation mode."""
    network = {"cnn": ShapesCNN, "vit": shapes_vit}[name]()
    network.load_state_dict(load_file(DATA / f"shapes_{name}.safetensors"))
    return network.eval()


def inputs(pixels: NDArray[np.uint8]) -> Tensor:
    """(N, H, W, 3) pixels -> (N, 3, H, W) in -1..1, as both networks take them."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div(127.5).sub(1).contiguous()


def mean_average_precision(scores: Tensor, labels: NDArray[np.bool_]) -> float:
    """The mean over classes of the precision at each true picture, in the order of falling scores."""
    order = scores.argsort(0, descending=True).numpy()
    hits = np.take_along_axis(labels, order, 0)
    precision = hits.cumsum(0) / np.arange(1, len(hits) + 1)[:, None]
    return float(((precision * hits).sum(0) / hits.sum(0)).mean())
