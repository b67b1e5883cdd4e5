"""Fits the mask head of NanoDet-g on scenes of photographic cut-outs, and says how good its masks are.

    OMP_NUM_THREADS=1 python benchmarks/train_masks.py --data DIR [--models DIR] [--out tests/data] [--sheet masks.png]

The detector is frozen: its feature maps are computed once for each scene. A third of the stamps is never trained on;
stamps that show the same class are on the same side. The boxes of the training are the objects' own, moved by up to a
tenth of their sides. One thread and a fixed seed: the same machine and the same versions give the same weights.
Figures are those of the weights as saved, in half precision, on unseen objects of other scenes: the mask's overlap
(intersection over union) in the object's true box, and in the candidate box that the detector likes best among those
that overlap the true one by half; beside it what the box alone would score if it were the mask.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from scenes import Scene, Thing, scenes
from seewhy.models.box_formats import paste
from seewhy.zoo.fetching import need
from seewhy.zoo.masks import FEATURES, MaskHead, NanoDetMasks
from seewhy.zoo.nanodet import HEAD, PREPROCESSING, SIZE

SEED, FRESH = 20261121, 20261122
SCENES, STEPS, BATCH, RATE = 400, 1500, 16, 3e-3
JITTER = 0.1


@dataclass(frozen=True, eq=False)
class Example:
    """An object: the scene's feature maps (1, C, h, w), its mask (416, 416) and its box."""

    maps: list[Tensor]
    mask: Tensor
    box: Tensor


def held_out(thing: Thing) -> bool:
    return min(thing.classes) % 3 == 0


def mixed(data: Path, count: int, seed: int) -> Iterator[Scene]:
    """Scenes of one and of two objects."""
    yield from scenes(data, count // 2, seed, SIZE, objects=1)
    yield from scenes(data, count - count // 2, seed + 1, SIZE, objects=2)


def pixels(scene: Scene) -> Tensor:
    return PREPROCESSING(scene.picture)[0]


def of(scene: Scene, thing: Thing, maps: list[Tensor]) -> Example:
    rows, columns = np.nonzero(thing.mask)
    box = torch.tensor([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], dtype=torch.float32)
    return Example(maps, torch.from_numpy(thing.mask).float(), box)


@torch.no_grad()
def examples(network: NanoDetMasks, found: Iterable[Scene]) -> list[Example]:
    """The objects of scenes, but for those that are held out."""
    made = []
    for scene in found:
        things = [thing for thing in scene.objects if not held_out(thing)]
        if things:
            raw = network.graph(pixels(scene))
            made += [of(scene, thing, [raw[name] for name in FEATURES]) for thing in things]
    return made


def moved(box: Tensor, generator: torch.Generator) -> Tensor:
    sides = (box[2:] - box[:2]).repeat(2)
    return box + sides * JITTER * (2 * torch.rand(4, generator=generator) - 1)


def cropped(mask: Tensor, box: Tensor) -> Tensor:
    """(28, 28): the mask in the box."""
    share = (torch.arange(28) + 0.5) / 28
    x, y = (box[i] + (box[i + 2] - box[i]) * share for i in (0, 1))
    grid = torch.stack([(2 * x / SIZE[1] - 1).expand(28, 28), (2 * y / SIZE[0] - 1)[:, None].expand(28, 28)], -1)
    return F.grid_sample(mask[None, None], grid[None], align_corners=False)[0, 0]


def train(head: MaskHead, known: list[Example]) -> None:
    generator = torch.Generator().manual_seed(SEED)
    optimizer = torch.optim.AdamW(head.parameters(), lr=RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=STEPS, pct_start=0.1)
    for _ in range(STEPS):
        chosen = [known[i] for i in torch.randint(len(known), (BATCH,), generator=generator)]
        boxes = [moved(one.box, generator) for one in chosen]
        logits = torch.cat([head(one.maps, box[None, None], SIZE)[0] for one, box in zip(chosen, boxes, strict=True)])
        wanted = torch.stack([cropped(one.mask, box) for one, box in zip(chosen, boxes, strict=True)])
        loss = F.binary_cross_entropy_with_logits(logits, wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def overlap(one: Tensor, other: Tensor) -> float:
    return float((one & other).sum() / (one | other).sum())


def area(box: Tensor) -> Tensor:
    """(416, 416): the box as a mask."""
    return paste(torch.ones(1, 1, 28, 28), box[None, None], SIZE, SIZE)[0, 0] >= 0.5


def iou(boxes: Tensor, box: Tensor) -> Tensor:
    shared = (torch.minimum(boxes[:, 2:], box[2:]) - torch.maximum(boxes[:, :2], box[:2])).clamp_min(0).prod(1)
    own = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    return shared / (own + (box[2:] - box[:2]).prod() - shared)


@torch.no_grad()
def judged(network: NanoDetMasks, found: Iterable[Scene]) -> dict[str, list[float]]:
    """Overlaps of held-out objects."""
    scores: dict[str, list[float]] = {key: [] for key in ("mask", "box", "detected mask", "detected box")}
    for scene in found:
        things = [thing for thing in scene.objects if held_out(thing)]
        if not things:
            continue
        raw = network.graph(pixels(scene))
        candidates = network.read(raw)
        for thing in things:
            one = of(scene, thing, [raw[name] for name in FEATURES])
            truth = one.mask > 0.5
            boxes = {"": one.box}
            near = iou(candidates.boxes[0], one.box) >= 0.5
            if bool(near.any()):
                best = candidates.scores[0].amax(1).where(near, torch.tensor(-1.0)).argmax()
                boxes["detected "] = candidates.boxes[0][best]
            for kind, box in boxes.items():
                mask = network.masks(one.maps, box[None, None], SIZE).sigmoid()
                scores[kind + "mask"].append(overlap(paste(mask, box[None, None], SIZE, SIZE)[0, 0] >= 0.5, truth))
                scores[kind + "box"].append(overlap(area(box), truth))
    return scores


@torch.no_grad()
def sheet(network: NanoDetMasks, found: Iterable[Scene]) -> Image.Image:
    """Scenes with held-out objects, and the masks that the head gives in their true boxes."""
    columns = []
    for scene in found:
        picture = np.array(scene.picture)
        shown = picture.copy()
        raw = network.graph(pixels(scene))
        for thing in (thing for thing in scene.objects if held_out(thing)):
            one = of(scene, thing, [raw[name] for name in FEATURES])
            mask = network.masks(one.maps, one.box[None, None], SIZE).sigmoid()
            inside = paste(mask, one.box[None, None], SIZE, SIZE)[0, 0].numpy() >= 0.5
            shown[inside] = (shown[inside] * 0.4 + np.array([255, 0, 255]) * 0.6).astype(np.uint8)
        columns.append(np.concatenate([picture, shown])[::2, ::2])
    return Image.fromarray(np.concatenate(columns, 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder for the Debian package of the stamps")
    parser.add_argument("--models", type=Path, help="folder of seewhy.zoo's files")
    parser.add_argument("--out", type=Path, default=Path("tests/data"))
    parser.add_argument("--sheet", type=Path, help="write a picture of eight scenes")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    path = asked.out / "nanodet_masks.safetensors"
    graph = need("nanodet", asked.models)[0]

    began = time.process_time()
    network = NanoDetMasks(NanoDetMasks.detector(graph, HEAD), MaskHead(), HEAD).eval()
    known = examples(network, mixed(asked.data, SCENES, SEED))
    made = time.process_time() - began
    train(network.masks, known)
    spent = time.process_time() - began
    save_file({name: value.half().contiguous() for name, value in network.masks.state_dict().items()}, path)
    count = sum(p.numel() for p in network.masks.parameters())
    print(f"{path}: {count} weights, {path.stat().st_size / 1000:.0f} kB, {len(known)} objects")
    print(f"{made:.0f} CPU-seconds for scenes and features, {spent - made:.0f} for the training")

    network = NanoDetMasks.load(graph, path, HEAD)
    scores = judged(network, mixed(asked.data, 300, FRESH))
    for kind, values in scores.items():
        print(f"{kind:14s} IoU {np.mean(values):.3f} over {len(values)} unseen objects")
    if asked.sheet:
        picked = (s for s in mixed(asked.data, 300, FRESH) if any(map(held_out, s.objects)))
        sheet(network, [scene for scene, _ in zip(picked, range(8), strict=False)]).save(asked.sheet)


if __name__ == "__main__":
    main()
