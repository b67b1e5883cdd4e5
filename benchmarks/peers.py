"""seewhy beside six other libraries on the same tasks, in alternating processes.

    python -m venv peers
    peers/bin/pip install torch torchvision captum grad-cam torchcam quantus dianna xaitk-saliency
    python benchmarks/peers.py --peer peers/bin/python [--rounds 5] [--libraries captum,xaitk] [--out bench-out]

A round is a process of each library, one after the other; in it each task runs in turn with the plain forward pass of
the same batch (peer_tasks.py). What a task costs is a multiple of that pass, so machines that slow down slow both. A
library that is not installed in the other environment is left out, and said. openvino-xai, which wants a version of
OpenVINO of its own, is in exported_peers.py.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

from peer_tasks import (
    BATCH,
    CELLS,
    CHUNK,
    LIBRARIES,
    MASKS,
    SAMPLES,
    STEPS,
    STRIDE,
    WINDOW,
)  # fmt: skip

Found = dict[str, list[dict[str, Any]]]  # library -> what each round printed


def rounds(asked: argparse.Namespace) -> Found:
    """What each library's process printed, by rounds; libraries that cannot be started are left out after one try."""
    found: Found = {name: [] for name in asked.libraries.split(",")}
    script = str(Path(__file__).with_name("peer_tasks.py"))
    for number in range(asked.rounds):
        for name in [n for n, known in found.items() if len(known) == number]:
            python = sys.executable if name == "seewhy" else asked.peer
            command = [python, script, name, "--network", asked.network, "--threads", str(asked.threads)]
            command += ["--only", asked.only] if asked.only else []
            done = subprocess.run(command, check=False, capture_output=True, text=True)
            if done.returncode:
                print(f"{name} is left out: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
                continue
            found[name].append(json.loads(done.stdout.splitlines()[-1]))
            print(f"round {number + 1} of {asked.rounds}: {name}", file=sys.stderr, flush=True)
    return {name: known for name, known in found.items() if known}


def spread(values: list[float]) -> tuple[float, float, float]:
    """Median and quartiles; of fewer than four values the ends."""
    ordered = sorted(values)
    low, high = (ordered[0], ordered[-1]) if len(ordered) < 4 else statistics.quantiles(ordered, n=4)[::2]
    return statistics.median(ordered), low, high


def table(found: Found) -> str:
    """Markdown: a row a task and library, the cheapest of a task in bold."""
    lines = [
        "| task | library | times the forward pass | CPU | images through the network | MB |",
        "|---|---|---|---|---|---|",
    ]
    for task in dict.fromkeys(t for known in found.values() for one in known for t in one["tasks"]):
        runs = {
            name: [one["tasks"][task] for one in known] for name, known in found.items() if task in known[0]["tasks"]
        }
        if len(runs) < 2:
            continue
        medians = {name: statistics.median(r["wall"] for r in ran) for name, ran in runs.items()}
        for name, ran in runs.items():
            wall, low, high = spread([r["wall"] for r in ran])
            cpu, images, megabytes = (statistics.median(r[key] for r in ran) for key in ("cpu", "images", "megabytes"))
            shown = f"**{wall:.2f}**" if name == min(medians, key=lambda n: medians[n]) else f"{wall:.2f}"
            lines.append(
                f"| {task} | {name} | {shown} ({low:.2f}..{high:.2f}) | {cpu:.2f} | {images:.0f} | {megabytes:.0f} |"
            )
    return "\n".join(lines)


def settings(found: Found, asked: argparse.Namespace) -> str:
    versions = {k: v for known in found.values() for k, v in known[0]["versions"].items()}
    shown = ", ".join(f"{k} {v}" for k, v in versions.items())
    return (
        f"{date.today()}: {_cpu()}, {asked.threads} threads, load {os.getloadavg()[0]:.1f} at the end, Python "
        f"{platform.python_version()}, {shown}. {asked.network}, 224 x 224, "
        f"{asked.rounds} rounds. CAMs and pixel gradients: batch {BATCH}, one target. Others: one picture; Occlusion "
        f"{WINDOW} / {STRIDE}; RISE, KernelSHAP and LIME {MASKS} masks of {CELLS} x {CELLS} cells; IntegratedGradients "
        f"{STEPS} steps; SmoothGrad and sensitivity {SAMPLES} copies; chunks of {CHUNK} where a "
        "library has such a setting."
    )


def _cpu() -> str:
    with open("/proc/cpuinfo") as file:
        return next((line.split(":")[1].strip() for line in file if line.startswith("model name")), platform.machine())


def chart(found: Found, path: Path) -> None:
    """Bars on a scale of logarithms: a group a task, a bar a library."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    tasks = [t for t in found["seewhy"][0]["tasks"] if sum(t in known[0]["tasks"] for known in found.values()) > 1]
    figure, axes = pyplot.subplots(figsize=(10, 0.42 * len(tasks) * 1.6 + 1.2), layout="constrained")
    step = 0.8 / len(found)
    for number, (name, known) in enumerate(found.items()):
        rows = [
            (i, spread([one["tasks"][t]["wall"] for one in known]))
            for i, t in enumerate(tasks)
            if t in known[0]["tasks"]
        ]
        places = [i + (number - (len(found) - 1) / 2) * step for i, _ in rows]
        ends = [[s[0] - s[1] for _, s in rows], [s[2] - s[0] for _, s in rows]]
        axes.barh(places, [s[0] for _, s in rows], step, xerr=ends, label=name, error_kw={"elinewidth": 0.8})
    axes.set(
        xscale="log", xlabel="cost, in forward passes of the same batch (less is better)", yticks=range(len(tasks))
    )
    axes.set_yticklabels(tasks)
    axes.invert_yaxis()
    axes.legend(ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)
    figure.savefig(path, dpi=90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", default=sys.executable, help="the Python of an environment with the other libraries")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--libraries", default=",".join(LIBRARIES))
    parser.add_argument("--only", default="", help="tasks, separated by commas")
    parser.add_argument("--network", default="resnet18")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("bench-out"))
    asked = parser.parse_args()
    found = rounds(asked)
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / "peers.json").write_text(json.dumps({"settings": settings(found, asked), "found": found}, indent=1))
    (asked.out / "peers.md").write_text(f"{settings(found, asked)}\n\n{table(found)}\n")
    chart(found, asked.out / "peers.png")
    print((asked.out / "peers.md").read_text())


if __name__ == "__main__":
    main()
