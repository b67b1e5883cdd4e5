"""Small vision transformers under the names of those in `networks`, for the methods that look at tokens."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from support import networks
from support.networks import CLASSES


class SelfAttention(nn.Module):
    """Each token looks at each, in two heads."""

    def __init__(self, width: int, fused: bool = True) -> None:
        super().__init__()
        self.qkv, self.proj, self.fused = nn.Linear(width, 3 * width), nn.Linear(width, width), fused

    def forward(self, x: Tensor) -> Tensor:
        n, length, width = x.shape
        q, k, v = self.qkv(x).reshape(n, length, 3, 2, width // 2).permute(2, 0, 3, 1, 4)
        if self.fused:
            out = F.scaled_dot_product_attention(q, k, v)
        else:
            out = (q @ k.transpose(2, 3) / q.shape[-1] ** 0.5).softmax(-1) @ v
        return self.proj(out.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention and an MLP with LayerScale, each on a residual stream."""

    def __init__(self, width: int, fused: bool = True) -> None:
        super().__init__()
        self.norm1, self.attn, self.norm2 = nn.LayerNorm(width), SelfAttention(width, fused), nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.scale = nn.Parameter(0.5 + torch.rand(width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.scale * self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Pooled(nn.Module):
    """Two convolutions, ``prefix`` tokens, two blocks and a head on the first token (or on the mean of the others)."""

    def __init__(self, channels: int = 3, prefix: int = 1, mean: bool = False, fused: bool = True) -> None:
        super().__init__()
        self.conv1, self.bn1, self.act1 = nn.Conv2d(channels, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU()
        self.conv2, self.first = nn.Conv2d(8, 16, 3, 2, 1), nn.Parameter(torch.randn(1, prefix, 16))
        self.blocks = nn.ModuleList(Block(16, fused) for _ in range(2))
        self.norm, self.fc, self.mean = nn.LayerNorm(16), nn.Linear(16, CLASSES), mean

    def features(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, prefix + H W / 16, 16)."""
        maps = 2 * self.conv2(self.act1(self.bn1(self.conv1(x))))
        tokens = torch.cat([self.first.expand(len(x), -1, -1), maps.flatten(2).transpose(1, 2)], 1)
        for block in self.blocks:
            tokens = block(tokens)
        return tokens

    def pool(self, tokens: Tensor) -> Tensor:
        """(N, L, 16) -> (N, 16)."""
        return self.norm(tokens)[:, self.first.shape[1] :].mean(1) if self.mean else self.norm(tokens)[:, 0]

    def scored(self, tokens: Tensor) -> Any:
        """(N, L, 16) -> (N, K)."""
        return self.fc(self.pool(tokens))

    def forward(self, x: Tensor) -> Any:
        return self.scored(self.features(x))


class Deep(Pooled):
    """A head on the mean of the picture's tokens: the last block must be run for every change."""

    def __init__(self) -> None:
        super().__init__(prefix=2, mean=True)


class Dropout(Pooled):
    """Dropout, which behaves otherwise in training mode."""

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.dropout(self.pool(self.features(x)), 0.5, self.training))


class Counting(networks.Counts, Pooled):
    """Changes its buffers in forward."""


class Careless(networks.Spoils, Pooled):
    """Changes its input in place."""


class Failing(networks.Fails, Pooled):
    """Raises where it is told to: "forward" or "backward"."""
