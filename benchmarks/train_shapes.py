"""Trains the two small networks of the tests on textured shapes, and says how well they do.

    OMP_NUM_THREADS=1 PYTHONPATH=tests python benchmarks/train_shapes.py [--out tests/data]

First the CNN, on 32x32 crops around single shapes, then on whole pictures. Then the hybrid ViT on whole pictures; its
convolutional stem is the CNN's, frozen. No picture is seen twice in one stage: the set is endless. One thread and fixed
seeds: the same machine and the same versions give the same weights. The mAP is that of the weights as saved, in half
precision, on 2000 pictures of another seed.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from seewhy.datasets.shapes import Picture, Shapes
from support.shape_networks import ShapesCNN, inputs, mean_average_precision, save, shapes_vit

SEED, FRESH = 20261121, 20261122
BATCH, CROP = 16, 32

Pair = tuple[NDArray[np.uint8], NDArray[np.bool_]]  # pixels and labels, of one picture or of a batch


def whole_pictures() -> Iterator[Pair]:
    for picture in Shapes(seed=SEED):
        yield picture.pixels, picture.labels


def around_shapes() -> Iterator[Pair]:
    for picture in Shapes(seed=SEED + 2):
        for shape in picture.shapes:
            yield crop(picture, shape.mask)


def crop(picture: Picture, mask: NDArray[np.bool_]) -> Pair:
    """The square around a shape; a class is on it when more than half of its pixels are."""
    places = np.argwhere(mask)
    middle = (places.min(0) + places.max(0)) // 2
    top, left = np.clip(middle - CROP // 2, 0, np.array(mask.shape) - CROP)
    part = np.s_[top : top + CROP, left : left + CROP]
    seen = np.stack([one[part].sum() for one in picture.masks])
    return picture.pixels[part], seen * 2 > np.maximum(picture.masks.sum((1, 2)), 1)


def batches(pairs: Iterator[Pair]) -> Iterator[Pair]:
    while True:
        pixels, labels = zip(*(next(pairs) for _ in range(BATCH)), strict=True)
        yield np.stack(pixels), np.stack(labels)


def train(network: nn.Module, pairs: Iterator[Pair], steps: int, rate: float) -> None:
    """AdamW, one cycle; parts without a parameter to learn stay in evaluation mode."""
    for module in network.modules():
        module.training = any(p.requires_grad for p in module.parameters())
    learnt = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learnt, lr=rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.2)
    for pixels, labels in (batch for batch, _ in zip(batches(pairs), range(steps), strict=False)):
        loss = F.binary_cross_entropy_with_logits(network(inputs(pixels)), torch.from_numpy(labels).float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    network.eval()


@torch.no_grad()
def precision(network: nn.Module, pictures: int = 2000) -> float:
    found = Shapes(seed=FRESH).batch(range(pictures))
    scores = torch.cat([network(inputs(part)) for part in np.split(found.pixels, pictures // 100)])
    return mean_average_precision(scores, found.labels)


def finished(network: nn.Module, path: Path, began: float) -> None:
    seconds = time.process_time() - began
    save(network, path)
    network.half().float()
    size = path.stat().st_size / 1000
    print(f"{path}: {size:.0f} kB, mAP {precision(network):.4f}, {seconds:.0f} CPU-seconds", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("tests/data"))
    out = parser.parse_args().out
    torch.set_num_threads(1)
    torch.manual_seed(SEED)

    began = time.process_time()
    cnn = ShapesCNN()
    train(cnn, around_shapes(), 2000, 1e-2)
    train(cnn, whole_pictures(), 600, 5e-3)
    finished(cnn, out / "shapes_cnn.safetensors", began)

    began = time.process_time()
    vit = shapes_vit()
    vit.patch_embed.backbone.load_state_dict(cnn.stem.state_dict())
    vit.patch_embed.backbone.requires_grad_(False)
    train(vit, whole_pictures(), 1000, 2e-3)
    finished(vit, out / "shapes_vit.safetensors", began)


if __name__ == "__main__":
    main()
