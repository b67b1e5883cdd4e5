"""How the memory of `seewhy run` grows with the number of pictures: tiny ones, and a tiny network, so it is minutes.

    python benchmarks/runs_memory.py [--counts 1000,10000,50000,100000] [--workers 1] [--again]

Each count is a run in a process of its own. Printed are the memory that the process had in hand when its first 1,000
pictures were done (VmRSS), the most it ever had (the kernel's ru_maxrss), and how much that is above the peak of the
smallest run. ``--again`` adds a metric to each finished folder in another process, which reads the old rows and maps.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from PIL import Image

FACTORY = """
import torch
from torch import nn

def tiny():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 6)).eval()
"""
FLAGS = ["--model", "tiny_nets:tiny", "--size", "16", "16", "--mean", ".5", ".5", ".5", "--std", ".5", ".5", ".5"]
WATCHED = """
import sys, threading, time

def rss():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS")) / 1024

from seewhy.runs import runner
seen = {}
said = runner.Bar.__call__

def told(self, done, total):
    said(self, done, total)
    for mark in (1000, 5000, 20000, 50000, 100000):
        if done >= mark and mark not in seen:
            seen[mark] = rss()

runner.Bar.__call__ = told
from seewhy.cli import main
code = main(sys.argv[1:])
sys.stderr.write(" ".join(f"{mark}:{value:.0f}" for mark, value in seen.items()) + f" end:{rss():.0f}\\n")
sys.exit(code)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", default="1000,10000,50000,100000")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--again", action="store_true")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="seewhy-") as place:
        (Path(place) / "tiny_nets.py").write_text(FACTORY)
        first: dict[str, float] = {}
        for count in map(int, chosen.counts.split(",")):
            folder = pictures(Path(place), count)
            out = Path(place) / f"run-{count}"
            for what, metrics in (("run", "sparseness"), ("again", "sparseness,complexity")):
                if what == "run" or chosen.again:
                    said(what, count, measure(Path(place), folder, out, metrics, chosen.workers), first)


def pictures(place: Path, count: int) -> Path:
    """A folder of so many files; a few different pictures again and again."""
    folder, kinds = place / f"pictures-{count}", []
    folder.mkdir()
    for i in range(50):
        Image.new("RGB", (16, 16), (5 * i, 255 - 5 * i, 128)).save(place / "one.png")
        kinds.append((place / "one.png").read_bytes())
    for i in range(count):
        (folder / f"{i:06d}.png").write_bytes(kinds[i % 50])
    return folder


def measure(place: Path, folder: Path, out: Path, metrics: str, workers: int) -> dict[str, Any]:
    """One command in a process of its own."""
    arguments = ["run", *FLAGS, "--quiet", "--threads", "1", "--workers", str(workers), "--data", str(folder)]
    arguments += ["--explainers", "grad_cam,activation_map", "--metrics", metrics, "--out", str(out)]
    environment = os.environ | {"PYTHONPATH": f"{place}{os.pathsep}{Path(__file__).parents[1] / 'src'}"}
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", WATCHED, *arguments], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    assert process.stderr is not None
    marks = process.stderr.read().strip()
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, marks
    return {"peak": usage.ru_maxrss / 1024, "marks": marks, "seconds": time.perf_counter() - began}


def said(what: str, count: int, found: dict[str, Any], first: dict[str, float]) -> None:
    smallest = first.setdefault(what, found["peak"])
    print(f"{what:<6}{count:>8} pictures: peak {found['peak']:6.0f} MiB  {found['peak'] / smallest - 1:+6.1%}   "
          f"{found['seconds']:5.0f} s   in hand: {found['marks']}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
