"""What a run costs beside the bare loop, how its memory grows, and that it survives being killed, on a large scale.

    python benchmarks/runs.py [--parts throughput,ray,memory,crash,writers] [--rounds 5]

throughput  the same pictures (JPEG files) explained by a plain loop (read, prepare, explain; nothing kept) and by the
            runner (read ahead, explain, encode, write, plan, sum up), in turn in one process; ratio of their speeds.
ray         one worker under Ray against one in this process, from the third result on, in turn.
memory      peak memory of `seewhy run` on 1,000 and 10,000 picture files, each in a process of its own.
crash       `seewhy run` killed with -9 at 20 random moments, continued each time; every row, score and byte of every
            map against an undisturbed run.
writers     eight processes with the same command and folder at once, against one.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from seewhy import registry
from seewhy.datasets.shapes import Shapes
from seewhy.inputs import prepare
from seewhy.memory import keep_memory
from seewhy.models.loading import load
from seewhy.runs.folder.store import Store
from seewhy.runs.query.run import Run
from seewhy.runs.runner import Runner
from seewhy.runs.work.job import Job

FACTORY = """
import torch
from torch import nn

def small():
    torch.manual_seed(0)
    layers = []
    for i, o in ((3, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(i, o, 3, 2, 1), nn.BatchNorm2d(o), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 6)).eval()
"""
FLAGS = ["--model", "bench_nets:small", "--size", "64", "64", "--mean", ".5", ".5", ".5", "--std", ".5", ".5", ".5"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default="throughput,ray,memory,crash,writers")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--models", default="torchvision:resnet18,timm:tf_efficientnet_lite0")
    chosen = parser.parse_args()
    keep_memory()
    torch.set_num_threads(chosen.threads)
    print(f"{platform.machine()}, {os.cpu_count()} cores, {chosen.threads} threads, Python {platform.python_version()},"
          f" torch {torch.__version__}, seewhy {version('seewhy')}, {platform.system()}", flush=True)  # fmt: skip
    parts = {"throughput": throughput, "ray": ray, "memory": memory, "crash": crash, "writers": writers}
    with tempfile.TemporaryDirectory(prefix="seewhy-") as place:
        (Path(place) / "bench_nets.py").write_text(FACTORY)
        for name in chosen.parts.split(","):
            parts[name](Path(place), chosen)


def photos(place: Path, count: int, size: tuple[int, int], ending: str) -> Path:
    """A folder of pictures, drawn once."""
    folder = place / f"pictures-{count}-{size[0]}{ending}"
    if not folder.exists():
        folder.mkdir()
        shapes = Shapes(seed=1, size=size)
        for i in range(count):
            Image.fromarray(shapes[i % 500].pixels).save(folder / f"{i:05d}{ending}", quality=92)
    return folder


def network(spec: str) -> Any:
    """A network with random weights, and the usual preprocessing."""
    import timm
    import torchvision

    kind, _, name = spec.partition(":")
    torch.manual_seed(0)
    made = timm.create_model(name) if kind == "timm" else torchvision.models.get_model(name, num_classes=1000)
    about = {"size": (224, 224), "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    return load(made.eval(), changes=about | {"crop_fraction": 0.875})


def job(place: Path, model: Any, folder: Path, threads: int) -> Job:
    return Job(place=place, model=model, data=str(folder), explainers=["grad_cam"], chunk=32, batch=16, threads=threads)


def said(what: str, ratios: list[float], goal: str) -> None:
    quarters = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else [ratios[0]] * 3
    print(f"  {what:<58} {statistics.median(ratios):6.3f}  ({quarters[0]:.3f}..{quarters[2]:.3f})  {goal}", flush=True)


def throughput(place: Path, chosen: Any) -> None:
    for spec in chosen.models.split(","):
        model, folder = network(spec), photos(place, chosen.pictures, (375, 500), ".jpg")
        files = sorted(folder.iterdir())
        loop(model, files[:16])
        reading, computing = [], []
        for _ in range(chosen.rounds):
            plain, bare, ours = one_round(place / "run", model, files, chosen.threads)
            reading.append(plain / ours)
            computing.append(bare / ours)
            shutil.rmtree(place / "run")
        print(f"{spec}, GradCAM, {len(files)} JPEG files of 500 x 375, batches of 16, chunks of 32: "
              f"{len(files) / ours:.1f} pictures/s in the last round")  # fmt: skip
        said("runner / loop that reads, prepares and explains", reading, "goal 0.95")
        said("runner / loop that only explains what is in memory", computing, "")


def one_round(place: Path, model: Any, files: list[Path], threads: int) -> tuple[float, float, float]:
    """Seconds for all files: of the loop that reads, of one that only explains (from 320 of them), of the runner."""
    ready = [prepare(model, files[i : i + 16]).inputs for i in range(0, min(len(files), 320), 16)]
    explainer = registry.load("explainers", "grad_cam")(model)
    bare = timed(lambda: [explainer.run(batch) for batch in ready]) / sum(map(len, ready)) * len(files)
    plain = timed(lambda: loop(model, files))
    runner = Runner(job=job(place, model, files[0].parent, threads), progress=False)
    return plain, bare, timed(runner.run)


def loop(model: Any, files: list[Path]) -> None:
    explainer = registry.load("explainers", "grad_cam")(model)
    for i in range(0, len(files), 16):
        explainer.run(prepare(model, files[i : i + 16]).inputs)


def timed(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def ray(place: Path, chosen: Any) -> None:
    model, folder, ratios = network("torchvision:resnet18"), photos(place, 640, (375, 500), ".jpg"), []
    for round_ in range(chosen.rounds):
        rates = {}
        for name, engine in (("local", None), ("ray", registry.load("engines", "ray")(workers=1))):
            seen: list[tuple[int, float]] = []
            out = place / f"ray-{round_}-{name}"
            Runner(
                job=job(out, model, folder, chosen.threads), engine=engine,
                progress=lambda done, _total, seen=seen: seen.append((done, time.perf_counter())),
            ).run()  # fmt: skip
            (first, began), (last, ended) = seen[2], seen[-2]
            rates[name] = (last - first) / (ended - began)
            shutil.rmtree(out)
        ratios.append(rates["ray"] / rates["local"])
    said("ResNet-18, one worker under Ray / in this process", ratios, "goal 0.95")


def command(place: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "seewhy", "run", *FLAGS, "--quiet", "--threads", "2", *arguments]


def environment(place: Path) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": f"{place}{os.pathsep}{Path(__file__).parents[1] / 'src'}"}


def memory(place: Path, chosen: Any) -> None:
    peaks = {}
    for count in (1000, 10_000):
        folder, out = photos(place, count, (64, 64), ".png"), place / f"memory-{count}"
        flags = ["--data", str(folder), "--explainers", "grad_cam,gradient,activation_map", "--metrics", "sparseness"]
        process = subprocess.Popen(
            command(place, *flags, "--out", str(out)), env=environment(place), stdout=subprocess.DEVNULL
        )
        _, status, usage = os.wait4(process.pid, 0)
        assert status == 0, f"exit status {status}"
        peaks[count] = usage.ru_maxrss / 1024
    growth = peaks[10_000] / peaks[1000] - 1
    print(f"memory: peak {peaks[1000]:.0f} MiB for 1,000 pictures, {peaks[10_000]:.0f} MiB for 10,000: {growth:+.1%}  "
          "goal +5%", flush=True)  # fmt: skip


def crash(place: Path, chosen: Any) -> None:
    folder, dice, kills, torn = photos(place, 2000, (64, 64), ".png"), random.Random(5), 0, 0
    flags = [
        "--data",
        str(folder),
        "--explainers",
        "grad_cam,occlusion(window=16, stride=8)",
        "--metrics",
        "sparseness",
    ]
    whole = command(place, *flags, "--out", str(place / "whole"))
    took = timed(lambda: subprocess.run(whole, env=environment(place), check=True, stdout=subprocess.DEVNULL))
    begun = time.perf_counter()
    while kills < 20:
        process = subprocess.Popen(
            command(place, *flags, "--out", str(place / f"torn-{torn}")),
            env=environment(place),
            stdout=subprocess.DEVNULL,
        )
        try:
            process.wait(dice.uniform(2, 2 + 0.4 * took))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            kills += 1
        code = process.wait()
        if Store(place / f"torn-{torn}").exists():
            assert Run(place / f"torn-{torn}").counts().unread == 0
        if code == 0:
            torn += 1
    last = command(place, *flags, "--out", str(place / f"torn-{torn}"))
    subprocess.run(last, env=environment(place), check=True, stdout=subprocess.DEVNULL)
    want = content(place / "whole")
    for i in range(torn + 1):
        assert content(place / f"torn-{i}") == want, f"run {i} differs"
    seconds = f"{time.perf_counter() - begun:.0f} s; undisturbed {took:.0f} s"
    print(f"crash: {kills} kills over {torn + 1} runs of 2,000 pictures ({seconds}): all equal the undisturbed run, "
          "row for row and byte for byte", flush=True)  # fmt: skip


def content(place: Path) -> list[Any]:
    """All that does not depend on when it was computed."""
    run, store, found = Run(place), Store(place), []
    for record in run.records():
        maps = {}
        for key in sorted(record.maps):
            kept = run.map_bytes(record.sample, *key)
            assert kept is not None
            maps[key] = kept[0]
        found.append((record.sample, record.digest, record.labels, record.scores, record.failures, maps))
    rows, strange = store.rows(store.settings()["id"], ["sample"])
    assert strange == 0
    assert len(rows) == len(found), "a row is there twice"
    return found


def writers(place: Path, chosen: Any) -> None:
    folder = photos(place, 2000, (64, 64), ".png")
    flags = ["--data", str(folder), "--explainers", "grad_cam", "--metrics", "sparseness"]
    subprocess.run(
        command(place, *flags, "--out", str(place / "alone")),
        env=environment(place),
        check=True,
        stdout=subprocess.DEVNULL,
    )
    arguments = command(place, *flags, "--out", str(place / "crowd"))
    crowd = [subprocess.Popen(arguments, env=environment(place), stdout=subprocess.DEVNULL) for _ in range(8)]
    codes = [process.wait() for process in crowd]
    assert codes == [0] * 8, codes
    attempts = len(list((place / "crowd" / "parts").glob("*.parquet")))
    assert content(place / "crowd") == content(place / "alone")
    print(f"writers: 8 at once on 2,000 pictures, {attempts} parts written for {-(-2000 // 32)} chunks: rows and maps "
          "equal those of one writer", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
