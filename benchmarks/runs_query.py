"""How fast a run folder of a million labels is opened, filtered, sorted and resumed.

Writes a synthetic folder through the store (the rows are made up, the files are real), then measures opening it,
pages of labels and pictures under typical filters, and the scan that resuming needs, with and without the index. Run:

    python benchmarks/runs_query.py [--folder DIR] [--parts 5000] [--pictures 100] [--labels 2] [--rounds 15]

A folder that is there already is read, not written again. Medians and quartiles in milliseconds.
"""

from __future__ import annotations

import argparse
import platform
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np

from seewhy.runs.folder.rows import CostRow, LabelRow, MapRow, Row, ScoreRow, UncertaintyRow
from seewhy.runs.folder.store import Store
from seewhy.runs.query.run import Run

EXPLAINERS, METRICS = ("grad_cam", "rise", "occlusion"), ("insertion_auc", "deletion_auc", "pointing_game")
CLASSES = 1000
DONE = ["predict", "uncertainty:u0"]
DONE += [f"explain:{e}" for e in EXPLAINERS] + [f"score:{e}:{m}" for e in EXPLAINERS for m in METRICS]
SCAN = ["sample", "position", "stamp", "done", "failed"]


def settings(length: int) -> dict[str, object]:
    return {
        "format": 1, "id": "0123456789ab", "created": "2026-01-01T00:00:00+00:00", "seewhy": "0", "torch": "2",
        "model": {"name": "made up", "digest": "0", "preprocessing": None, "notes": []},
        "activation": "softmax", "threshold": 0.5, "classes": [f"class {n}" for n in range(CLASSES)],
        "explainers": {e: {"id": e, "name": e, "parameters": {}} for e in EXPLAINERS},
        "metrics": {
            m: {"id": m, "name": m, "parameters": {}, "better": "higher", "range": [0.0, 1.0]} for m in METRICS
        },
        "uncertainty": {"id": "u0", "parameters": {}}, "counterfactual": None,
        "data": {"kind": "folder", "length": length}, "chunk": 32, "batch": 16, "precision": "auto", "command": None,
    }  # fmt: skip


def row(position: int, labels: int, random: np.random.Generator) -> Row:
    classes = random.choice(CLASSES, labels, replace=False).tolist()
    numbers = random.random((labels, 4 + len(EXPLAINERS) * len(METRICS))).round(4).tolist()
    flags = random.choice(["TP", "FN", "FP"], labels, p=[0.7, 0.15, 0.15]).tolist()
    pairs = [(e, m) for e in EXPLAINERS for m in METRICS]
    cells = [(c, e) for c in classes for e in EXPLAINERS]
    return Row(
        sample=f"{position:07d}-{random.integers(1 << 40):010x}", position=position, stamp="1700000000:123456",
        name=f"folder/{position % 97:02d}/picture {position}.jpg", source=f"/data/pictures/{position}.jpg",
        size=(375, 500), input=(224, 224), box=(62.5, 0.0, 437.5, 375.0), truth=tuple(classes[:1]),
        predicted=classes[position % 5 == 0], probability=numbers[0][0],
        entropy=numbers[0][1], mutual_information=numbers[0][2],
        labels=[
            LabelRow(c, n[0], f != "FP", f) for c, n, f in zip(classes, numbers, flags, strict=True)
        ],
        uncertainty=[UncertaintyRow(c, n[0], n[1] / 10, n[2], n[3]) for c, n in zip(classes, numbers, strict=True)],
        maps=[MapRow(c, e, 196 * n, 196, "f4", 7, 7, 0.0, 1.0) for n, (c, e) in enumerate(cells)],
        costs=[CostRow(e, 100.0, 1.0, 0.01, "layer4", []) for e in EXPLAINERS],
        scores=[
            ScoreRow(c, e, m, n[4 + at] if n[4 + at] > 0.02 else None)
            for c, n in zip(classes, numbers, strict=True)
            for at, (e, m) in enumerate(pairs)
        ],
        done=DONE, written=1.7e9,
    )  # fmt: skip


def write(place: Path, parts: int, pictures: int, labels: int) -> None:
    store, random = Store(place), np.random.default_rng(0)
    store.create(settings(parts * pictures))
    pack = [np.zeros(49 * labels * len(EXPLAINERS), np.float32).tobytes()]
    began = time.perf_counter()
    for part in range(parts):
        rows = [row(part * pictures + n, labels, random) for n in range(pictures)]
        store.write("0123456789ab", f"{part:08x}", rows, pack)
    print(f"written: {parts} parts, {parts * pictures} pictures in {time.perf_counter() - began:.0f} s")


def timed(what: str, work: Callable[[], object], rounds: int) -> None:
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        seconds.append(1000 * (time.perf_counter() - began))
    low, middle, high = statistics.quantiles(seconds, n=4) if rounds > 1 else [seconds[0]] * 3
    print(f"{what:62} {middle:9.1f}  ({low:.1f} to {high:.1f}, {rounds} rounds)", flush=True)


def pages(run: Run, rounds: int) -> None:
    score = "score:rise:insertion_auc"
    asked = {
        "first page": {},
        "last page": {"offset": run.counts().labels - 12},
        "page 20,000": {"offset": 240_000},
        "one label": {"labels": [7]},
        "flags FN, FP": {"flags": ["FN", "FP"]},
        "flag FN + sort by probability": {"flags": ["FN"], "sort": "probability", "descending": True},
        "label + flag + sort by probability": {"labels": [7], "flags": ["FN"], "sort": "probability"},
        "label + flag + sort by metric": {"labels": [7], "flags": ["TP"], "sort": score, "descending": True},
        "all, sort by metric": {"sort": score},
        "all, sort by metric, page 20,000": {"sort": score, "offset": 240_000},
        "probability >= .5 + sort by uncertainty": {"min_probability": 0.5, "sort": "uncertainty", "descending": True},
        "all, sort by disagreement": {"sort": "disagreement:insertion_auc", "descending": True},
        "text in the name": {"text": "picture 4999"},
        "text in the name + flag + sort by metric": {"text": "PICTURE 49", "flags": ["FP"], "sort": score},
    }
    asked |= {
        "wrong": {"right": False}, "wrong + sort by probability": {"right": False, "sort": "probability"},
        "missed one class": {"missed": 7}, "one confusion": {"missed": 7, "mistaken": 8},
        **{f"queue {name}": {"queue": name, "sort": "queue", "limit": 200} for name in run.queues},
    }  # fmt: skip
    for what, query in asked.items():
        for kind in ("labels", "samples"):
            timed(f"{kind}, {what}", lambda kind=kind, query=query: getattr(run, kind)(**query), rounds)
    timed("labels, 48 a page, flag + sort by metric", lambda: run.labels(flags=["FN"], sort=score, limit=48), rounds)
    timed("one picture, nothing remembered", lambda: (run._base._remembered.clear(), run.sample(key)), rounds) if (
        key := run.labels(limit=1).items[0].record.sample
    ) else None
    for name in ("counts", "scores", "label_scores", "costs", "failures", "overview", "queue_counts", "refresh"):
        timed(f"{name}()", getattr(run, name), rounds)


def growing(place: Path, run: Run, labels: int, pictures: int, rounds: int) -> None:
    """Reading one new part, and one that tells more of pictures that are known."""
    store, random = Store(place), np.random.default_rng(1)
    for what, first in (("new pictures", 10_000_000), ("known pictures", 0)):
        seconds, parts = [], []
        for n in range(rounds):
            rows = [row(first + n * pictures + at, labels, random) for at in range(pictures)]
            parts.append(store.write("0123456789ab", f"f{first:08x}{n:04x}", rows, [b""]))
            began = time.perf_counter()
            run.refresh()
            seconds.append(1000 * (time.perf_counter() - began))
        print(f"{f'refresh: one part more, {what}':62} {statistics.median(seconds):9.1f}  ({rounds} rounds)")
        store.files.remove(f"parts/{part}.{ending}" for part in parts for ending in ("parquet", "pack"))
        run.refresh()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=None)
    for name, value in (("parts", 5000), ("pictures", 100), ("labels", 2), ("rounds", 15), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=value)
    asked = parser.parse_args()
    place = asked.folder or Path(tempfile.mkdtemp(prefix="runs-query-"))
    packages = ", ".join(f"{name} {version(name)}" for name in ("duckdb", "pyarrow", "numpy"))
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, {packages}")
    print(f"{asked.parts} parts x {asked.pictures} pictures x {asked.labels} labels, {asked.threads} database threads")
    store = Store(place)
    if not store.exists():
        write(place, asked.parts, asked.pictures, asked.labels)
    store.files.remove(f"index/{name}" for name in store.files.names("index"))
    timed("resume scan, no index", lambda: store.rows("0123456789ab", SCAN), 3)
    timed("open, no index", lambda: Run(place, threads=asked.threads), 1)
    timed("compact", store.compact, 1)
    timed("resume scan, index", lambda: store.rows("0123456789ab", SCAN), 5)
    timed("open, index", lambda: Run(place, threads=asked.threads), 3)
    run = Run(place, threads=asked.threads)
    print(run.counts())
    pages(run, asked.rounds)
    growing(place, run, asked.labels, asked.pictures, 5)
    print(f"memory at most {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")
    if asked.folder is None:
        shutil.rmtree(place)


if __name__ == "__main__":
    main()
