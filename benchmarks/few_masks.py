"""How few passes a black box needs: RISE's maps from the first 32 to 4,000 masks, on scenes whose truth is known.

    python benchmarks/few_masks.py --data DIR --out OUT [--count 64] [--threads 2]

Each scene is seen once under 4,000 independent masks (RISE as published) and 1,000 masks in pairs; every estimate and
every budget is made of the first of these scores, so that they differ in nothing else. What was seen lies in OUT, and a
run that was ended goes on. Beside RISE's estimates stand two that were tried: *smooth*, a regression whose weights are
expected to be like their neighbours' (a Gaussian process with the length scale that the data choose), and *log odds*,
the same of the logarithm of p / (1 - p).
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import cutouts
import seewhy
from seewhy.explainers._masks import Masks
from seewhy.explainers._regression import STRENGTHS, regress
from seewhy.explainers.rise import ROUND
from seewhy.metrics import Case
from seewhy.metrics.pointing_game import PointingGame
from seewhy.metrics.relevance_mass import RelevanceMass
from seewhy.statistics import Judged

SIZE, GRID = (224, 224), (7, 7)
PLAIN, PAIRED, BATCH = 4000, 1000, 16
LENGTHS = (0.0, 0.35, 0.5, 0.75, 1.0, 1.5)  # in cells; 0 expects nothing
REFERENCE = f"plain {PLAIN}"
METRICS = ("insertion - deletion", "pointing game", "relevance mass")
Scores = dict[str, NDArray[Any]]


@cache
def masks() -> tuple[Masks, Masks]:
    """The independent ones, and those in pairs."""
    return (
        Masks.draw(PLAIN, GRID, 0.5, 0, SIZE, paired=False), Masks.draw(PAIRED, GRID, 0.5, 0, SIZE, paired=True)
    )  # fmt: skip


def seen(model: Any, sample: seewhy.Sample, path: Path) -> Scores:
    """The probabilities of a scene's class under all masks; made where they are not there yet."""
    if not path.is_file():
        inputs, _ = model.preprocessing(sample.image)
        found = {}
        for name, drawn in zip(("plain", "paired"), masks(), strict=True):
            parts = []
            for index in torch.arange(len(drawn.grids)).split(BATCH):
                with model.opened():
                    scores = model(inputs * drawn.at(index).unsqueeze(1)).classes
                parts.append(scores.softmax(1)[:, sample.target])
            found[name] = torch.cat(parts).numpy()
        partial = path.with_name(f"partial-{path.name}")
        np.savez(partial, **found)
        partial.rename(path)
    with np.load(path) as known:
        return {name: known[name] for name in ("plain", "paired")}


def estimates(scores: Scores) -> dict[str, tuple[Tensor, int]]:
    """Name -> (map, passes)."""
    independent, pairs = masks()
    plain, paired = (torch.from_numpy(scores[name]).float() for name in ("plain", "paired"))
    odds = torch.logit(paired.double(), eps=1e-6).float()
    found = {}
    for count in (500, PLAIN):
        some = independent.take(torch.arange(count))
        found[f"plain {count}"] = (some.weighted_sum(plain[None, :count])[0] / (count * 0.5), count)
    for count in (32, 48, 64, 100, 200, 500, PAIRED):
        found[f"regression {count}"] = (_regression(pairs, paired, count), count)
    for count in (32, 64, 100):
        some = pairs.take(torch.arange(count))
        centred = paired[:count] - paired[:count].mean()
        found[f"centred {count}"] = (some.weighted_sum(centred[None])[0] / count / some.variance(), count)
        found[f"smooth {count}"] = (_smooth(pairs, paired, count), count)
        found[f"log odds {count}"] = (_regression(pairs, odds, count), count)
    for tolerance in (0.1, 0.15, 0.2, 0.25, 0.3):
        count = _steady(pairs, paired, tolerance)
        found[f"regression, tolerance {tolerance}"] = (_regression(pairs, paired, count), count)
    return found


def _regression(drawn: Masks, scores: Tensor, count: int) -> Tensor:
    some = drawn.take(torch.arange(count))
    own = scores[:count]
    return some.slopes(regress(some.nodes(), (own - own.mean())[None]).weights)[0]


def _steady(drawn: Masks, scores: Tensor, tolerance: float) -> int:
    """How many masks RISE takes with a tolerance."""
    rise = seewhy.RISE(lambda x: x.mean((2, 3)), tolerance=tolerance)
    for count in range(2 * ROUND, len(scores), ROUND):
        agreed = rise._agreement(drawn.take(torch.arange(count)), scores[None, None, :count])
        if float(agreed) >= 1 - tolerance:
            return count
    return len(scores)


@cache
def _expected(length: float) -> Tensor:
    """A root of the covariance that the weights at the nodes are expected to have."""
    side = torch.arange(2 * GRID[0], dtype=torch.float64) / 2
    down, across = torch.meshgrid(side, side, indexing="ij")
    places = torch.stack([down.flatten(), across.flatten()], 1)
    if not length:
        return torch.eye(len(places), dtype=torch.float64)
    values, vectors = torch.linalg.eigh(torch.exp(-torch.cdist(places, places).square() / (2 * length**2)))
    return vectors * values.clamp_min(0).sqrt()


def _smooth(drawn: Masks, scores: Tensor, count: int) -> Tensor:
    """The likeliest strength and length scale (marginal likelihood), and the weights that go with them."""
    some = drawn.take(torch.arange(count))
    nodes, y = some.nodes().double(), scores[:count].double()
    nodes, y = nodes - nodes.mean(0), y - y.mean()
    best, weights = float("inf"), torch.zeros(nodes.shape[1], dtype=torch.float64)
    for length in LENGTHS:
        root = _expected(length)
        u, s, v = torch.linalg.svd(nodes @ root, full_matrices=False)
        along = y @ u
        outside = float((y @ y - along @ along).clamp_min(0))
        strengths = STRENGTHS[:, None] * s.square().mean()
        misfit = (along.square() * strengths / (s.square() + strengths)).sum(1) + outside
        unlikely = (count - 1) * misfit.clamp_min(1e-300).log() + torch.log1p(s.square() / strengths).sum(1)
        least = int(unlikely.argmin())
        if float(unlikely[least]) < best:
            best = float(unlikely[least])
            weights = root @ (v.T @ (along * s / (s.square() + strengths[least])))
    return some.slopes(weights[None].float())[0]


def judged(model: Any, sample: seewhy.Sample, made: Tensor) -> list[float]:
    """The three metrics of a map."""
    inputs, _ = model.preprocessing(sample.image)
    truth = torch.from_numpy(np.asarray(sample.mask)).bool()
    case = Case(model=model, image=inputs[0], target=sample.target, saliency=made, truth=truth)
    with model.opened():
        return [float(metric(case)) for metric in (cutouts.Difference(), PointingGame(tolerance=0), RelevanceMass())]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="where the stamps are kept; fetched if missing")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    asked.out.mkdir(parents=True, exist_ok=True)
    model = cutouts.network(openvino=True)
    values: dict[str, list[list[float]]] = {}
    passes: dict[str, list[int]] = {}
    for number, sample in enumerate(cutouts.samples(model, asked.data, asked.count, asked.seed)):
        path = asked.out / f"{number:03d}.npz"
        made = estimates(seen(model, sample, path))
        kept = path.with_suffix(".json")
        known = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else {}
        known |= {name: judged(model, sample, one) for name, (one, _) in made.items() if name not in known}
        kept.write_text(json.dumps(known), encoding="utf-8")
        for name, (_, count) in made.items():
            values.setdefault(name, []).append(known[name])
            passes.setdefault(name, []).append(count)
        print(f"{number + 1} of {asked.count} scenes", flush=True)
    report(values, passes, asked)


def report(values: dict[str, list[list[float]]], passes: dict[str, list[int]], asked: argparse.Namespace) -> None:
    """The table for the documentation, and what is really worse or better than RISE as published."""
    table = Judged(
        explainers=tuple(values), metrics=METRICS, better=("higher",) * 3, ends=((-1.0, 1.0), (0.0, 1.0), (0.0, 1.0)),
        values=np.array(list(values.values())).transpose(0, 2, 1),
    )  # fmt: skip
    means = {(one.explainer, one.metric): one for one in table.means}
    print(f"{datetime.now(UTC):%Y-%m-%d}: {asked.count} scenes, seed {asked.seed}, {platform.machine()}, torch "
          f"{torch.__version__}\n\n| estimate | passes | {' | '.join(METRICS)} |\n|---|---|---|---|---|")  # fmt: skip
    show: Callable[[Any], str] = lambda one: f"{one.mean:.3f} [{one.low:.3f}, {one.high:.3f}]"  # noqa: E731
    for name in values:
        cells = " | ".join(show(means[name, metric]) for metric in METRICS)
        print(f"| {name} | {np.mean(passes[name]) + 1:.0f} | {cells} |")
    print(f"\nReally different from {REFERENCE}:")
    for one in table.differences:
        if one.real and REFERENCE in (one.better, one.worse):
            print(f"  {one.metric}: {one.better} better than {one.worse} by {one.difference:.3f}")


if __name__ == "__main__":
    main()
