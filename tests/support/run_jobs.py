"""Jobs for the tests of runs: a small network on the textured shapes, with their truth; and how folders compare."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from seewhy.datasets.shapes import Shapes
from seewhy.runs.folder.store import Store
from seewhy.runs.runner import Runner, Summary
from seewhy.runs.work.job import Job
from support.networks import Pooled, build

CHANGING = {"written", "costs", "part", "maps", "thumbnail"}


def network() -> nn.Module:
    """Five classes, 32 x 32."""
    torch.set_num_threads(1)
    return build(Pooled)


def images(n: int, size: int = 32, channels: int = 3) -> Tensor:
    """(N, C, S, S) of textured shapes, ready for the network."""
    shapes = Shapes(seed=3, size=(size, size))
    pixels = np.stack([shapes[i].pixels for i in range(n)])
    found = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div(127.5).sub(1)
    return found[:, :1] if channels == 1 else found


def job(place: Path, n: int = 12, **changes: Any) -> Job:
    """Twelve pictures with labels and boxes, two explainers, three metrics."""
    labels = np.arange(n) % 5
    boxes = np.tile(np.array([[4.0, 6.0, 16.0, 12.0]]), (n, 1, 1))
    known: dict[str, Any] = {
        "place": place,
        "model": network(),
        "data": (images(n), labels, boxes),
        "explainers": ["grad_cam", "occlusion(window=8, stride=4)"],
        "metrics": ["deletion_auc(steps=4)", "pointing_game(tolerance=0)", "sparseness"],
        "baselines": False,
        "chunk": 4,
        "batch": 3,
    }
    return Job(**known | changes)


def run(place: Path, n: int = 12, **changes: Any) -> Summary:
    """Runs the job."""
    own = {name: changes.pop(name) for name in ("engine", "shard", "retry", "progress") if name in changes}
    return Runner(job=job(place, n, **changes), **{"progress": False, **own}).run()


def rows(place: Path) -> list[dict[str, Any]]:
    """The rows of a folder, in the order of the data."""
    store = Store(place)
    found, _ = store.rows(store.settings()["id"])
    return sorted(found.to_pylist(), key=lambda row: (row["position"], row["part"]))


def content(place: Path) -> list[dict[str, Any]]:
    """What of a folder must not depend on when and how it was computed: all rows, the bytes of maps and thumbnails."""
    store, found = Store(place), []
    for row in rows(place):
        maps = [
            {n: v for n, v in one.items() if n != "offset"}
            | {"bytes": store.read(row["part"], one["offset"], one["size"])}
            for one in row["maps"]
        ]
        small = row["thumbnail"]
        picture = store.read(row["part"], small["offset"], small["size"]) if small else None
        costs = [{n: v for n, v in one.items() if n != "seconds"} for one in row["costs"]]
        own = {name: value for name, value in row.items() if name not in CHANGING}
        found.append(own | {"maps": maps, "costs": costs, "thumbnail": picture})
    return found


def table(place: Path) -> pa.Table:
    """All rows as they lie there."""
    store = Store(place)
    return store.rows(store.settings()["id"])[0]
