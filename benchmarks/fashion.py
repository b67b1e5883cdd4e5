"""A real run from start to end: the 10,000 test pictures of Fashion-MNIST, a CNN, three explainers, three metrics.

    python benchmarks/fashion.py --data DIR [--count 10000] [--out DIR]

The pictures come from the Debian package dataset-fashion-mnist (MIT), fetched with apt-get and unpacked into DIR. The
network is trained here (two epochs, about a minute). Prints what the run cost, what it found, and how large the folder
is, in all and for each map.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import torch

import seewhy
from ood import LABELS, Network, clothes, fetch, train
from seewhy.runs.query.run import Run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    seewhy.keep_memory()
    torch.set_num_threads(1)  # a picture of 28 x 28 is not worth sharing
    torch.manual_seed(0)
    fetch(chosen.data)
    network = Network()
    train(network, clothes(chosen.data, "train"), 2)
    test = torch.utils.data.Subset(clothes(chosen.data, "t10k"), range(chosen.count))
    with tempfile.TemporaryDirectory() as temporary:
        report(chosen.out or Path(temporary) / "run", network, test)


def report(place: Path, network: torch.nn.Module, test: torch.utils.data.Dataset) -> None:
    runner = seewhy.ImageClassificationRunner(
        place, network.eval(), "softmax", (test, list(LABELS)), batch=64, chunk=128
    )
    runner.register_saliency(
        ["grad_cam", "gradient", "occlusion(window=7, stride=3)"],
        ["deletion_auc(steps=14)", "insertion_auc(steps=14)", "sparseness"],
    )
    began = time.perf_counter()
    print(runner.run(), flush=True)
    print(f"{platform.machine()}, 1 thread, Python {platform.python_version()}, torch {torch.__version__}, seewhy "
          f"{version('seewhy')}; {time.perf_counter() - began:.0f} s in all")  # fmt: skip
    run = Run(place)
    counts = run.counts()
    right = sum(record.predicted in (record.truth or ()) for record in run.records())
    print(f"{counts.samples} pictures, {right / counts.samples:.3f} of them right; {counts.flags}")
    sizes = {kind: sum(p.stat().st_size for p in place.glob(f"parts/*.{kind}")) for kind in ("pack", "parquet")}
    index = sum(p.stat().st_size for p in place.glob("index/*"))
    print(f"{counts.maps} maps; packs {sizes['pack']}, rows {sizes['parquet']}, index {index} bytes: "
          f"{(sum(sizes.values()) + index) / counts.maps:.0f} bytes a map with everything; alone:")  # fmt: skip
    for name in run.explainers:
        each = [one.row.size for record in run.records() for (_, by), one in record.maps.items() if by == name]
        print(f"  {name}: {sum(each) / len(each):.0f} bytes")
    again = runner.run()
    print(f"the same again: {again.forward} forward passes, {again.seconds:.1f} s")


if __name__ == "__main__":
    main()
