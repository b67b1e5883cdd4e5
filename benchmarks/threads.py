"""Every explainer and metric from several threads on one network: how many results differ from the sequential ones.

    python benchmarks/threads.py                  # the table, and what methods gain from threads
    python benchmarks/threads.py --threads 2 4 8 --calls 4 --seed 0

Four ways of use: one network for all, one explainer object for all, one loaded model for all, and `seewhy.explain`.
The network is in training mode. "wrong" counts maps that are not bit for bit those of one thread, "errors" what was
raised. The second table has the calls a second of pixel methods and of GradCAM on a larger network.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import torch
from torch import Tensor, nn

import seewhy
from seewhy import registry
from seewhy.explainers.grad_cam import GradCAM
from seewhy.explainers.occlusion import Occlusion
from seewhy.explainers.rise import RISE
from support import networks
from support.explainer_cases import NAMES, SMALL, familiar, make, zoo
from support.networks import build, pictures


def together(call: Callable[[], Any], threads: int, calls: int) -> tuple[list[Any], list[BaseException], float]:
    """Results, errors and seconds of ``calls`` calls in each thread."""
    found: list[Any] = []
    errors: list[BaseException] = []
    start = threading.Barrier(threads + 1)

    def work() -> None:
        start.wait()
        for _ in range(calls):
            try:
                found.append(call())
            except Exception as error:
                errors.append(error)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    start.wait()
    started = time.perf_counter()
    for worker in workers:
        worker.join()
    return found, errors, time.perf_counter() - started


def ways(name: str, x: Tensor) -> dict[str, tuple[nn.Module, Callable[[], Tensor]]]:
    """The calls of a method, each with the network that it is about."""
    shared, owned, held, passed = (build(zoo(name).Pooled) for _ in range(4))
    explainer, model = make(name, owned), seewhy.load(held)
    found = {
        "network": (shared, lambda: make(name, shared).attribute(x, 1)),
        "explainer": (owned, lambda: explainer.attribute(x, 1)),
    }
    if name != "rise_plus":  # it begins with an out-of-distribution network, so that `explain` cannot make it
        own = SMALL.get(name, {})
        kind = registry.load("explainers", name)
        found["loaded"] = (held, lambda: kind(model, **own).attribute(x, 1))
        found["explain"] = (passed, lambda: seewhy.explain(passed, x, 1, method=name, progress=False, **own).raw)
    else:
        familiar(shared)
    return found


def table(threads: list[int], calls: int) -> tuple[int, int]:
    """Prints method x threads; gives the sums."""
    print(f"{'method':28s}" + "".join(f"{n:>4d} threads: wrong errors" for n in threads))
    wrong_sum = error_sum = 0
    for name in NAMES:
        x, line = pictures(1), f"{name:28s}"
        cases = ways(name, x)
        wanted = {way: call() for way, (_, call) in cases.items()}
        for n in threads:
            wrong = errors = 0
            for way, (network, call) in cases.items():
                network.train()
                found, raised, _ = together(call, n, calls)
                wrong += sum(not torch.equal(one, wanted[way]) for one in found)
                wrong += sum(not m.training for m in network.modules())
                errors += len(raised)
            line += f"{wrong:>18d} {errors:>6d}"
            wrong_sum, error_sum = wrong_sum + wrong, error_sum + errors
        print(line, flush=True)
    return wrong_sum, error_sum


def gains(threads: list[int], calls: int) -> None:
    """Prints calls a second by threads, as a share of those of one thread."""
    network, x = build(networks.Pooled), pictures(1, height=224, width=224)
    methods: dict[str, Callable[[], Tensor]] = {
        "rise (64 masks)": lambda: RISE(network, num_masks=64).attribute(x, 1),
        "occlusion (49 windows)": lambda: Occlusion(network, window=32, stride=32).attribute(x, 1),
        "grad_cam": lambda: GradCAM(network, layer="act2").attribute(x, 1),
    }
    print(f"\n{'calls a second, 1 thread = 1':28s}" + "".join(f"{n:>10d}" for n in threads))
    for title, call in methods.items():
        call()
        alone = 1 / min(together(call, 1, calls)[2] for _ in range(3)) * calls
        rates = [n * calls / min(together(call, n, calls)[2] for _ in range(3)) / alone for n in threads]
        print(f"{title:28s}" + "".join(f"{rate:>10.2f}" for rate in rates), flush=True)


def main() -> int:
    """Prints both tables; 1 where anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--calls", type=int, default=3, help="in each thread")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    torch.manual_seed(asked.seed)
    torch.set_num_threads(1)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    wrong, errors = table(asked.threads, asked.calls)
    sys.setswitchinterval(before)
    print(f"wrong {wrong}, errors {errors}")
    gains(asked.threads, 8)
    return int(wrong + errors > 0)


if __name__ == "__main__":
    sys.exit(main())
