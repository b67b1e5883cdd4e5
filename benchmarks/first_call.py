"""What `seewhy.explain` costs from the first call on, in forward passes of the network itself, on 38 popular networks.

For each network, with batches of one picture and random weights (BatchNorm's statistics are those of noise):

    first      the first call of all: nothing is known of the network
    new size   the next call, with a picture of another size (where the network takes one)
    again      the same picture again
    all        ViTReciproCAM or ReciproCAM for every class at once
    ablation   AblationCAM, again

Each is divided by forward passes that are made before and after it (A B A), in CPU time of the process, so that neither
other programs nor the threads' waiting count. A first call is measured on ``--copies`` fresh copies of the network.
With ``--exact`` the maps of the default method are compared with the whole network, run without any shortcut on a few
positions. Run:

    python benchmarks/first_call.py [--networks resnet50,vgg11] [--copies 3] [--rounds 7] [--exact] [--csv FILE]
"""

from __future__ import annotations

import argparse
import copy
import csv
import gc
import platform
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
from torch import Tensor, nn

import seewhy


@dataclass(frozen=True)
class Case:
    """A network, and the sizes of its pictures; ``other`` is 0 where it takes one size only."""

    name: str
    size: int = 224
    other: int = 256
    maker: str = "timm"

    def make(self) -> nn.Module:
        """The network with random weights."""
        torch.manual_seed(0)
        if self.maker == "torchvision":
            further = {"init_weights": False} if self.name in ("googlenet", "inception_v3") else {}
            made = getattr(torchvision.models, self.name)(**further)
        else:
            made = timm.create_model(self.name, num_classes=1000)
        return settled(made, self.size)


TORCHVISION = [
    Case(name, maker="torchvision")
    for name in ("resnet18", "resnet50", "resnext50_32x4d", "densenet121", "mobilenet_v2", "mobilenet_v3_small",
                 "efficientnet_b0", "regnet_y_400mf", "mnasnet1_0", "shufflenet_v2_x1_0", "squeezenet1_1", "googlenet",
                 "alexnet", "vgg11", "vgg16_bn", "convnext_tiny", "swin_t")
]  # fmt: skip
CASES = [
    *TORCHVISION,
    Case("inception_v3", 299, 331, "torchvision"),
    Case("mobilenetv3_large_100"),
    Case("mobilenetv4_conv_small"),
    Case("tf_efficientnetv2_b0"),
    Case("convnext_atto"),
    Case("convnextv2_atto"),
    Case("edgenext_xx_small", 256, 288),
    Case("ghostnetv2_100"),
    Case("repvgg_a0"),
    Case("fastvit_t8", 256, 288),
    Case("mobilevit_xxs", 256, 288),
    Case("maxvit_pico_rw_256", 256, 0),
    Case("swin_tiny_patch4_window7_224", other=0),
    Case("vit_small_patch16_224", other=0),
    Case("vit_small_patch16_dinov3", 256, 224),
    Case("beitv2_base_patch16_224", other=0),
    Case("eva02_tiny_patch14_224", other=0),
    Case("vit_base_patch16_siglip_224", other=0),
    Case("cait_xxs24_224", other=0),
    Case("xcit_nano_12_p16_224"),
    Case("pvt_v2_b0"),
]


def settled(network: nn.Module, size: int) -> nn.Module:
    """The network in evaluation mode, with BatchNorm's statistics of noise, so that no layer dies or explodes."""
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d | nn.BatchNorm1d)]
    for norm in norms:
        norm.momentum = None
    if norms:
        network.train()
        with torch.no_grad():
            network(torch.randn(4, 3, size, size))
    return network.eval()


def cpu(work: Callable[[], object]) -> float:
    """Seconds of CPU that the process takes for it."""
    began = time.process_time()
    work()
    return time.process_time() - began


@dataclass
class Ratio:
    """Costs in forward passes, and the milliseconds beyond a number of them."""

    ratios: list[float]
    seconds: list[float]
    forward: list[float]

    def __str__(self) -> str:
        if not self.ratios:
            return "-"
        low, middle, high = quartiles(self.ratios)
        return f"{middle:.2f} ({low:.2f}..{high:.2f})"

    def beyond(self, forwards: float) -> float:
        """Milliseconds beyond so many forward passes, at the median."""
        return 1000 * statistics.median(s - forwards * f for s, f in zip(self.seconds, self.forward, strict=True))


def quartiles(values: list[float]) -> tuple[float, float, float]:
    """Lower quartile, median, upper quartile."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    return low, middle, high


def beside(work: Callable[[], object], forward: Callable[[], object], rounds: int) -> Ratio:
    """Measures ``work`` between forward passes."""
    found = Ratio([], [], [])
    for _ in range(rounds):
        gc.collect()
        before, seconds, after = cpu(forward), cpu(work), cpu(forward)
        passes = (before + after) / 2
        found.ratios.append(seconds / passes)
        found.seconds.append(seconds)
        found.forward.append(passes)
    return found


def joined(parts: list[Ratio]) -> Ratio:
    """All measurements together."""
    return Ratio(*([v for p in parts for v in getattr(p, f)] for f in ("ratios", "seconds", "forward")))


def row(case: Case, copies: int, rounds: int, exact: bool) -> dict[str, Any]:
    """All figures of one network."""
    made = case.make()
    inputs = torch.randn(1, 3, case.size, case.size)
    further = torch.randn(1, 3, case.other, case.other) if case.other else None
    first, new, method = [], [], ""
    for _ in range(copies):
        fresh = copy.deepcopy(made)
        with torch.no_grad():
            fresh(inputs)
            first.append(beside(lambda n=fresh: seewhy.explain(n, inputs), lambda n=fresh: plain(n, inputs), 1))
            if further is not None:
                fresh(further)
                new.append(beside(lambda n=fresh: seewhy.explain(n, further), lambda n=fresh: plain(n, further), 1))
    network = fresh
    found = seewhy.explain(network, inputs)
    method = found.method
    result: dict[str, Any] = {
        "network": case.name, "method": method, "layer": found.layer,
        "forward": beside(lambda: None, lambda: plain(network, inputs), 3).forward,
        "first": joined(first), "new size": joined(new),
        "again": beside(lambda: seewhy.explain(network, inputs), lambda: plain(network, inputs), rounds),
        "notes": "; ".join(note.text for note in found.notes if "cut" in note.text),
    }  # fmt: skip
    few = max(2, rounds // 3)
    if method.endswith("recipro_cam"):
        result["all"] = beside(
            lambda: seewhy.explain(network, inputs, targets="all", method=method), lambda: plain(network, inputs), few
        )
    result["ablation"] = measured(
        lambda: seewhy.explain(network, inputs, method="ablation_cam"), lambda: plain(network, inputs), few
    )
    if exact:
        result["exact"] = difference(network, inputs, found)
    return result


def measured(work: Callable[[], object], forward: Callable[[], object], rounds: int) -> Ratio | str:
    """The same after one run; in words where the method says that it cannot."""
    try:
        work()
    except seewhy.SeewhyError as error:
        return type(error).__name__
    return beside(work, forward, rounds)


def plain(network: nn.Module, inputs: Tensor) -> Any:
    """The network's own forward pass."""
    with torch.no_grad():
        return network(inputs)


@contextmanager
def shown(network: nn.Module, layer: str, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """The layer's output is changed in every pass."""
    handle = network.get_submodule(layer).register_forward_hook(lambda _m, _a, output: change(output))
    try:
        yield
    finally:
        handle.remove()


def difference(network: nn.Module, inputs: Tensor, found: Any) -> float | None:
    """ReciproCAM's map at a few positions against the whole network, in parts of the largest score."""
    if found.method != "recipro_cam":
        return None
    raw, target = found.raw[0, 0], int(found.targets[0, 0])
    h, w = raw.shape
    worst, largest = 0.0, float(plain(network, inputs).abs().amax())
    for i, j in ((0, 0), (h // 2, w // 2), (h - 1, w - 1), (0, w - 1)):

        def alone(output: Tensor, i: int = i, j: int = j) -> Tensor:
            kept = torch.zeros_like(output)
            if tuple(output.shape[2:]) == (h, w):
                kept[:, :, i, j] = output[:, :, i, j]
            else:
                kept[:, i, j] = output[:, i, j]
            return kept

        with shown(network, found.layer, alone):
            score = float(plain(network, inputs)[0, target])
        worst = max(worst, abs(score - float(raw[i, j])) / largest)
    return worst


def hardware() -> str:
    """The processor, threads and versions."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = {line.partition(":")[2].strip() for line in lines if line.startswith("model name")}
    chip = ", ".join(sorted(names)) or platform.processor()
    return (
        f"{chip}, {torch.get_num_threads()} threads; Python {platform.python_version()}, torch {torch.__version__}, "
        f"torchvision {torchvision.__version__}, timm {timm.__version__}, seewhy {seewhy.__version__}"
    )


COLUMNS = ("first", "new size", "again", "all", "ablation")


def line(found: dict[str, Any]) -> str:
    """One row of the table."""
    cells = [str(found.get(c, "-")) for c in COLUMNS]
    beyond = [f"{found[c].beyond(f):+.0f} ms" if found[c].ratios else "" for c, f in (("first", 3), ("again", 1.3))]
    cells[0] += f" {beyond[0]}"
    cells[2] += f" {beyond[1]}"
    exact = found.get("exact")
    forward = 1000 * statistics.median(found["forward"])
    shown = "" if exact is None else f"{exact:.1e}"
    return (
        f"| {found['network']} | {forward:.0f} | {found['method']} | {' | '.join(cells)} | {shown} | {found['notes']} |"
    )


def main() -> None:
    """Prints the table."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--networks", default="", help="names, by comma")
    options.add_argument("--copies", type=int, default=3)
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--exact", action="store_true")
    options.add_argument("--csv", type=Path)
    asked = options.parse_args()
    torch.set_num_threads(asked.threads)
    warnings.simplefilter("ignore")
    wanted = [name for name in asked.networks.split(",") if name]
    cases = [c for c in CASES if not wanted or c.name in wanted]
    print(hardware())
    warm = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)).eval()
    seewhy.explain(warm, torch.randn(1, 3, 32, 32))  # imports are not the network's
    print("| network | forward, ms | method | first | new size | again | all classes | AblationCAM | exact | notes |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    rows = []
    for case in cases:
        try:
            found = row(case, asked.copies, asked.rounds, asked.exact)
        except Exception as error:  # the other networks are still measured
            print(f"| {case.name} | {type(error).__name__}: {str(error)[:300]} |", flush=True)
            continue
        rows.append(found)
        print(line(found), flush=True)
    if asked.csv:
        with asked.csv.open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["network", "what", "ratio", "seconds", "forward"])
            for found in rows:
                for what in COLUMNS:
                    if isinstance(ratio := found.get(what), Ratio):
                        table.writerows(
                            [found["network"], what, *v]
                            for v in zip(ratio.ratios, ratio.seconds, ratio.forward, strict=True)
                        )


if __name__ == "__main__":
    main()
