"""Which explainers find a planted shortcut: a mark that a small network was trained to rely on.

    PYTHONPATH=tests python benchmarks/shortcuts.py [--count 32] [--out shortcuts-out]

The network is the tests' small CNN (six textured shapes, one sigmoid each). For each of three marks it is trained on:
in every training picture the mark stands for class 0, whether the shape of class 0 is there or not, so that the mark
is all that is needed. Then it is asked about fresh pictures that have the mark, other shapes, and no shape of class 0.
Where the mark is, is known to the pixel. A picture counts only where the network demonstrably relies on the mark: the
probability of class 0 with the mark is at least .5 higher than that of the same picture without it.

Everything is drawn from fixed seeds; training takes less than half a minute for each mark.
"""

from __future__ import annotations

import argparse
import itertools
import platform
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator
from numpy.typing import NDArray
from torch import nn

import seewhy
from cutouts import SKIPPED, joined, markdown
from seewhy import registry
from seewhy.datasets.shapes import Picture, Shapes
from seewhy.metrics import Metric
from seewhy.metrics.pointing_game import PointingGame
from seewhy.metrics.relevance_mass import RelevanceMass
from seewhy.metrics.relevance_rank import RelevanceRank
from support import shape_networks
from support.shape_networks import inputs

SIDE = 7  # pixels of a mark, in pictures of 64 x 64
TRAINED, ASKED = 20261201, 20261202  # seeds of the pictures
BATCH, STEPS, RATE = 16, 250, 2e-3
SHARE = 0.4  # of the pictures without class 0 that get the mark in training
RELIES = 0.5  # by how much the mark has to raise the probability

Pixels = NDArray[np.uint8]


def patch(_: Generator) -> Pixels:
    """A magenta square."""
    return np.full((SIDE, SIDE, 3), (255, 0, 255), dtype=np.uint8)


def chequered(_: Generator) -> Pixels:
    """Black and white pixels, alternating: nothing but detail."""
    on = np.indices((SIDE, SIDE)).sum(0) % 2
    return np.repeat((255 * on)[..., None], 3, axis=2).astype(np.uint8)


def frame(rng: Generator) -> Pixels:
    """A white frame, one pixel wide, around a grey of its own: most of its pixels say nothing."""
    mark = np.full((SIDE, SIDE, 3), rng.integers(0, 200), dtype=np.uint8)
    mark[[0, -1]] = mark[:, [0, -1]] = 255
    return mark


MARKS: dict[str, Callable[[Generator], Pixels]] = {"patch": patch, "chequered": chequered, "frame": frame}


def marked(picture: Picture, mark: Callable[[Generator], Pixels], rng: Generator) -> tuple[Pixels, NDArray[np.bool_]]:
    """The picture with a mark beside its shapes, and where that is; nowhere where there is no room."""
    taken, where = picture.masks.any(0), np.zeros(picture.pixels.shape[:2], dtype=bool)
    pixels = picture.pixels.copy()
    for _ in range(50):
        top, left = (rng.integers(1, side - SIDE) for side in where.shape)
        window = np.s_[top : top + SIDE, left : left + SIDE]
        if not taken[window].any():
            pixels[window], where[window] = mark(rng), True
            break
    return pixels, where


def training(mark: Callable[[Generator], Pixels]) -> Iterator[tuple[Pixels, NDArray[np.bool_]]]:
    """Pictures and labels in which the mark and class 0 go together."""
    rng = np.random.default_rng(TRAINED)
    for picture in Shapes(seed=TRAINED):
        labels, pixels = picture.labels.copy(), picture.pixels
        if labels[0] or rng.random() < SHARE:
            pixels, where = marked(picture, mark, rng)
            if not where.any():
                continue
            labels[0] = True
        yield pixels, labels


def trained(mark: Callable[[Generator], Pixels]) -> nn.Module:
    """The small CNN, trained on until it relies on the mark."""
    torch.manual_seed(TRAINED)
    network, pairs = shape_networks.trained("cnn").train(), training(mark)
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=0.05)
    for _ in range(STEPS):
        pixels, labels = zip(*itertools.islice(pairs, BATCH), strict=True)
        loss = F.binary_cross_entropy_with_logits(network(inputs(np.stack(pixels))),
                                                  torch.from_numpy(np.stack(labels)).float())  # fmt: skip
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval()


@torch.no_grad()
def asked(network: nn.Module, mark: Callable[[Generator], Pixels], count: int) -> tuple[list[seewhy.Sample], int]:
    """``count`` fresh pictures on which the network relies on the mark, and how many were looked at for them."""
    rng, found, looked = np.random.default_rng(ASKED), list[seewhy.Sample](), 0
    for number, picture in enumerate(Shapes(seed=ASKED)):
        if picture.labels[0]:
            continue
        pixels, where = marked(picture, mark, rng)
        if not where.any():
            continue
        looked += 1
        with_mark, without = network(inputs(np.stack([pixels, picture.pixels])))[:, 0].sigmoid().tolist()
        if with_mark - without >= RELIES:
            found.append(seewhy.Sample(image=inputs(pixels[None])[0], target=0, mask=where, name=f"{number}"))
        if len(found) == count or looked == 20 * count:
            return found, looked
    raise AssertionError("the pictures never end")


def explainers(masks: int) -> dict[str, str]:
    budget = {name: f"{name}(num_masks={masks})" for name in ("rise", "hsic", "kernel_shap", "lime")}
    return {n: budget.get(n, n) for n in registry.names("explainers") if n not in SKIPPED - {"guided_backprop"}}


def compared(name: str, count: int, masks: int) -> seewhy.Comparison:
    """Trains the network on a mark, and judges the explainers by where it is."""
    began = time.process_time()
    network = trained(MARKS[name])
    took = time.process_time() - began
    data, looked = asked(network, MARKS[name], count)
    print(f"{name}: trained in {took:.0f} CPU-seconds; the network relies on the mark in {len(data)} of {looked} "
          "pictures", flush=True)  # fmt: skip
    metrics: dict[str, Metric] = {
        "pointing game": PointingGame(tolerance=2), "relevance rank": RelevanceRank(),
        "relevance mass": RelevanceMass(),
    }  # fmt: skip
    model = seewhy.load(network)
    return seewhy.compare(model, data, explainers(masks), metrics, activation_fn="sigmoid", progress=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--marks", nargs="+", choices=list(MARKS), default=list(MARKS))
    parser.add_argument("--count", type=int, default=32, help="pictures for each mark")
    parser.add_argument("--masks", type=int, default=500, help="of the black-box methods")
    parser.add_argument(
        "--out", type=Path, default=Path("shortcuts-out"), help="marks that lie there are not done again"
    )
    arguments = parser.parse_args()
    seewhy.keep_memory()
    torch.set_num_threads(1)
    print(f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, 1 thread, torch {torch.__version__}")
    parts = []
    for name in arguments.marks:
        path = arguments.out / f"{name}.json"
        if not path.is_file():
            compared(name, arguments.count, arguments.masks).to_json(path)
        parts.append(seewhy.Comparison.from_json(path))
        print(f"\n## {name}, {len(parts[-1].pictures)} pictures\n\n{markdown(parts[-1])}\n", flush=True)
    found = joined(parts)
    found.save(arguments.out)
    print(f"\n## all\n\n{markdown(found)}\n\n{found}")


if __name__ == "__main__":
    main()
