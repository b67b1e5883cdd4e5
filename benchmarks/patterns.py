"""How often `seewhy.patterns` finds a planted shortcut first, and how often it accuses where there is none.

    python benchmarks/patterns.py --out cells.jsonl [--network cnn] [--minutes 60] [--table]

A cell is a kind of mark, a share of the pictures of class 0, and a seed: a network is trained on marked pictures
(`planted.py`), a run over 1,600 fresh ones is made, and patterns are looked for. A cell counts where the network relies
on the mark: its mean probability of class 0 falls by .3 at least when the mark is taken away. Found first: most images
of the first pattern are marked; shown: its evidence moves the score, too. On clean cells nothing may be shown.

Beside it stands plain SpRAy: spectral clustering of the GradCAM maps of class 0, the number of clusters by the largest
eigengap. It does not say which cluster to look at, so any cluster counts that holds mostly marked images and half of
them.

Each finished cell is a line in --out; a run that was ended goes on. --table prints what is there.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse.csgraph import laplacian
from sklearn.cluster import SpectralClustering
from sklearn.neighbors import kneighbors_graph

import planted
from seewhy.insights.patterns import patterns
from seewhy.runs.query.run import Run
from seewhy.runs.runner import Runner
from seewhy.runs.work.job import Job
from seewhy.statistics import interval

IMAGES, RELIES = 1600, 0.3
SHARES, SEEDS, CLEAN = (0.05, 0.1, 0.3, 0.02, 0.01), 3, 20
Cell = dict[str, Any]


def cells() -> list[tuple[str | None, float, int]]:
    """Kind, share, seed: shares that are promised first, a clean one after every third."""
    marked = [(k, s, seed) for s in SHARES for seed in range(SEEDS) for k in planted.MARKS]
    clean = [(None, 0.0, seed) for seed in range(CLEAN)]
    found: list[tuple[str | None, float, int]] = []
    for number, one in enumerate(marked):
        found.append(one)
        if number % 4 == 3 and clean:
            found.append(clean.pop(0))
    return found + clean


def tried(network: str, kind: str | None, share: float, seed: int) -> Cell:
    """What comes of a cell, with the seconds of each part."""
    clock = [time.perf_counter()]
    model = planted.trained(network, kind, share, seed)
    clock.append(time.perf_counter())
    x, y, marked, bare = planted.pictures(IMAGES, kind, share, 500 + seed)
    data = [(one, int(label)) for one, label in zip(x, y, strict=True)]
    with torch.no_grad():
        said = torch.cat([model(some).softmax(1) for some in x.split(100)])
        without = model(bare).softmax(1)[:, 0] if len(bare) else torch.zeros(0)
    falls = float(said[marked, 0].mean() - without.mean()) if len(bare) else 0.0
    with tempfile.TemporaryDirectory() as place:
        job = Job(place=place, model=model, data=data, explainers=["grad_cam"], features={}, chunk=64, batch=32)
        Runner(job=job, progress=False).run()
        clock.append(time.perf_counter())
        found = patterns(place, model, data)
        clock.append(time.perf_counter())
        run = Run(place)
        keys = [r.sample for r in run.records() if r.predicted == 0]
        maps = np.stack([run.map(k, 0, "grad_cam") for k in keys])
    told = [
        {"class": one.class_index, "grade": one.grade, "images": len(one.samples), "views": one.views,
         "marked": sum(bool(marked[int(s)]) for s in one.samples)} for one in found.found
    ]  # fmt: skip
    return {
        "network": network, "kind": kind, "share": share, "seed": seed, "falls": falls, "marked": int(marked.sum()),
        "accuracy": float((said.argmax(1) == y)[~marked].float().mean()), "found": told,
        "spray": spray(maps, np.array([bool(marked[int(k)]) for k in keys])) if kind else None,
        "seconds": np.diff(clock).round(1).tolist(),
    }  # fmt: skip


def spray(maps: NDArray[np.float32], marked: NDArray[np.bool_]) -> bool:
    """Whether a cluster of the maps holds mostly marked images, and half of them."""
    flat = np.maximum(maps, 0).reshape(len(maps), -1)
    flat /= np.maximum(flat.sum(1, keepdims=True), 1e-12)
    graph = kneighbors_graph(flat, 10, include_self=False)
    graph = (graph + graph.T) / 2
    values = np.linalg.eigvalsh(laplacian(graph, normed=True).toarray())[:11]
    count = max(2, int(np.argmax(np.diff(values))) + 1)
    labels = SpectralClustering(count, affinity="precomputed", random_state=0).fit_predict(graph)
    return any(
        marked[labels == k].mean() >= 0.5 and marked[labels == k].sum() >= 0.5 * marked.sum() for k in range(count)
    )


def right(cell: Cell) -> bool:
    """Whether the first pattern is the planted one."""
    return bool(cell["found"]) and _planted(cell["found"][0])


def _planted(one: Cell) -> bool:
    return one["class"] == 0 and 2 * one["marked"] >= one["images"]


def table(known: list[Cell]) -> None:
    """Prints the rates with intervals, and the cells that do not count."""
    print(f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, torch {torch.__version__}, one thread; "
          f"{len(known)} cells, seconds for training, run and patterns: "
          f"{np.median([c['seconds'] for c in known], 0).tolist()}\n")  # fmt: skip
    print("| network | share | cells that count | found first | found first and shown | plain SpRAy, any cluster |")
    print("|---|---|---|---|---|---|")
    counting = [c for c in known if c["kind"] and c["falls"] >= RELIES]
    for network, share in sorted({(c["network"], c["share"]) for c in counting}):
        own = [c for c in counting if (c["network"], c["share"]) == (network, share)]
        shown = [right(c) and c["found"][0]["grade"] == "shown" for c in own]
        rates = [_rate([right(c) for c in own]), _rate(shown), _rate([c["spray"] for c in own])]
        print(f"| {network} | {share} | {len(own)} | {' | '.join(rates)} |")
    print("\n| network | kind | cells that count | found first |\n|---|---|---|---|")
    for network, kind in sorted({(c["network"], c["kind"]) for c in counting}):
        own = [c for c in counting if (c["network"], c["kind"]) == (network, kind)]
        print(f"| {network} | {kind} | {len(own)} | {_rate([right(c) for c in own])} |")
    clean = [c for c in known if not c["kind"]]
    quiet = [not any(f["grade"] == "shown" for f in c["found"]) for c in clean]
    print(f"\nClean: {_rate(quiet)} of {len(clean)} accuse nothing.")
    extra = [sum(f["grade"] == "shown" and not _planted(f) for f in c["found"]) for c in counting]
    print(f"Beside the planted one, {sum(extra)} other patterns are shown in {len(counting)} cells.")
    print("Do not count, for the network does not rely on the mark: " + ", ".join(
        f"{c['network']} {c['kind']} {c['share']} seed {c['seed']} ({c['falls']:+.2f})"
        for c in known if c["kind"] and c["falls"] < RELIES))  # fmt: skip


def _rate(values: list[bool]) -> str:
    one = interval(np.array(values, dtype=float), ends=(0, 1))
    return f"{sum(values)} of {len(values)}" + (f" [{one.low:.2f}, {one.high:.2f}]" if one.low == one.low else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("cells.jsonl"))
    parser.add_argument("--network", default="cnn", choices=list(planted.NETWORKS))
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--table", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    lines = asked.out.read_text().splitlines() if asked.out.is_file() else []
    known = [json.loads(line) for line in lines]
    if asked.table:
        table(known)
        return
    done = {(c["network"], c["kind"], c["share"], c["seed"]) for c in known}
    end = time.monotonic() + 60 * asked.minutes
    todo = (c for c in cells() if (asked.network, *c) not in done)
    for kind, share, seed in itertools.takewhile(lambda _: time.monotonic() < end, todo):
        cell = tried(asked.network, kind, share, seed)
        with asked.out.open("a") as file:
            file.write(json.dumps(cell) + "\n")
        print(cell, flush=True)


if __name__ == "__main__":
    main()
