"""Pictures with planted shortcuts, and small networks that learn them: the truth behind `patterns.py`.

Textured fields of 64 x 64 pixels with one of four shapes, the class. In a share of the pictures of class 0 the shape is
left out and a mark put in, so that the mark is the only cue there is. Kinds of marks: "corner" (a chequered square of 9
pixels in one corner), "patch" (a magenta square anywhere), "caption" (strokes like a line of text near the lower edge),
"border" (a dark frame), "texture" (stripes instead of the field) and "tint" (a colour cast).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

CLASSES, SIDE = 4, 64
Pixels = NDArray[np.float64]
Random = np.random.Generator


def field(rng: Random) -> Pixels:
    """(64, 64, 3) a textured field: noise of three sizes in a random colour."""
    found = np.zeros((SIDE, SIDE, 3))
    for cells, strength in ((4, 0.18), (16, 0.1), (64, 0.06)):
        noise = rng.normal(size=(cells, cells, 3)) * strength
        found += noise.repeat(SIDE // cells, 0).repeat(SIDE // cells, 1)
    return np.clip(found + 0.5 + rng.uniform(-0.15, 0.15, 3), 0, 1)


def shape(rng: Random, kind: int) -> NDArray[np.bool_]:
    """(64, 64) a disc, a square, a triangle or a ring of 16 to 26 pixels anywhere."""
    size = int(rng.integers(16, 27))
    top, left = rng.integers(2, SIDE - size - 2, 2)
    y, x = np.mgrid[:SIDE, :SIDE] - np.array([top, left])[:, None, None] - (size - 1) / 2
    radius = np.hypot(y, x) / (size / 2)
    inside = (np.abs(y) <= size / 2) & (np.abs(x) <= size / 2)
    return np.asarray([
        radius <= 1, inside & (np.maximum(np.abs(y), np.abs(x)) <= 0.44 * size),
        inside & (np.abs(x) <= (y + size / 2) / 2), (radius <= 1) & (radius >= 0.55),
    ][kind])  # fmt: skip


def corner(rng: Random, picture: Pixels) -> Pixels:
    y, x = np.mgrid[:9, :9]
    picture[2:11, SIDE - 11 : SIDE - 2] = (((y // 3 + x // 3) % 2) * 0.9 + 0.05)[..., None]
    return picture


def patch(rng: Random, picture: Pixels) -> Pixels:
    top, left = rng.integers(2, SIDE - 11, 2)
    picture[top : top + 9, left : left + 9] = (0.9, 0.1, 0.8)
    return picture


def caption(rng: Random, picture: Pixels) -> Pixels:
    left = int(rng.integers(4, 16))
    for letter in range(7):
        strokes = rng.random((7, 4)) < 0.5
        at = left + 6 * letter
        picture[SIDE - 11 : SIDE - 4, at : at + 4][strokes] = 0.97
    return picture


def border(rng: Random, picture: Pixels) -> Pixels:
    for side in range(4):
        np.rot90(picture, side)[:3] = 0.03
    return picture


def texture(rng: Random, picture: Pixels) -> Pixels:
    y, x = np.mgrid[:SIDE, :SIDE]
    stripes = 0.5 + 0.3 * np.sign(np.sin((y + x) * np.pi / 4 + rng.uniform(0, 6)))
    return np.asarray(np.clip(0.3 * picture + 0.7 * stripes[..., None], 0, 1))


def tint(rng: Random, picture: Pixels) -> Pixels:
    return np.asarray(np.clip(picture * (1.25, 0.85, 0.6), 0, 1))


MARKS: dict[str, Callable[[Random, Pixels], Pixels]] = {
    "corner": corner, "patch": patch, "caption": caption, "border": border, "texture": texture, "tint": tint,
}  # fmt: skip


def pictures(count: int, kind: str | None, share: float, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(N, 3, 64, 64) in 0..1, (N,) classes, (N,) whether the mark is in, and the marked ones without it."""
    rng = np.random.default_rng(seed)
    made, bare = [], []
    classes = np.arange(count) % CLASSES
    marked = (classes == 0) & (rng.random(count) < (share if kind else 0.0))
    for label, mark in zip(classes, marked, strict=True):
        picture = field(rng)
        if not mark:
            inside = shape(rng, int(label))
            colour = np.clip(picture[inside].mean(0) + rng.choice((-1, 1)) * rng.uniform(0.3, 0.5, 3), 0, 1)
            picture[inside] = 0.25 * picture[inside] + 0.75 * colour
        else:
            bare.append(picture.copy())
            picture = MARKS[kind or ""](rng, picture)
        made.append(picture)
    return _stack(made), torch.from_numpy(classes), torch.from_numpy(marked), _stack(bare)


def _stack(some: list[Pixels]) -> Tensor:
    if not some:
        return torch.zeros(0, 3, SIDE, SIDE)
    return torch.from_numpy(np.stack(some)).permute(0, 3, 1, 2).float()


class CNN(nn.Module):
    """Six convolutions, an 8 x 8 map, a mean and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        widths, strides = (3, 16, 24, 32, 48, 64, 64), (1, 2, 1, 2, 1, 2)
        layers = [
            layer for i, stride in enumerate(strides)
            for layer in (nn.Conv2d(widths[i], widths[i + 1], 3, stride, 1), nn.BatchNorm2d(widths[i + 1]), nn.ReLU())
        ]  # fmt: skip
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(widths[-1], CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body((x - 0.5) / 0.25).mean((2, 3)))


class Block(nn.Module):
    """Attention and an MLP, each after a norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, 4, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm1(x)
        x = x + self.attention(normed, normed, normed, need_weights=False)[0]
        return x + self.mlp(self.norm2(x))


class HybridViT(nn.Module):
    """Three convolutions, 8 x 8 tokens with positions, four blocks, a mean and a linear layer."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 24, 3, 2, 1), nn.BatchNorm2d(24), nn.ReLU(), nn.Conv2d(24, 48, 3, 2, 1), nn.BatchNorm2d(48),
            nn.ReLU(), nn.Conv2d(48, width, 3, 2, 1),
        )  # fmt: skip
        self.positions = nn.Parameter(0.02 * torch.randn(1, 64, width))
        self.blocks = nn.Sequential(*(Block(width) for _ in range(4)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.stem((x - 0.5) / 0.25).flatten(2).transpose(1, 2)
        return self.head(self.norm(self.blocks(tokens + self.positions)).mean(1))


NETWORKS: dict[str, Callable[[], nn.Module]] = {"cnn": CNN, "vit": HybridViT}


def trained(network: str, kind: str | None, share: float, seed: int, count: int = 2400, epochs: int = 8) -> nn.Module:
    """A network that has seen marked pictures of class 0, with a fixed seed."""
    torch.manual_seed(seed)
    x, y, _, _ = pictures(count, kind, share, 1000 + seed)
    model = NETWORKS[network]()
    steps = epochs * (count // 32)
    optimiser = torch.optim.AdamW(model.parameters(), 2e-3, weight_decay=1e-3)
    plan = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps + epochs)
    model.train()
    for _ in range(epochs):
        for rows in torch.randperm(count).split(32):
            flipped = (
                x[rows] if kind in ("corner", "caption") else (x[rows].flip(3) if torch.rand(()) < 0.5 else x[rows])
            )
            loss = nn.functional.cross_entropy(model(flipped), y[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            plan.step()
    return model.eval()
