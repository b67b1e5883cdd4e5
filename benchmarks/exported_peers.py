"""Exported models side by side with openvino-xai: what each method costs as a ratio to the library's own forward pass.

The two want different versions of OpenVINO, so each runs in an environment of its own, in turn, on the same IR files:

    python -m venv peer && peer/bin/pip install openvino-xai
    python benchmarks/openvino_xai.py --peer peer/bin/python [--rounds 5]

A round is a process of each library; in it method and forward pass run in turn. Both libraries start from an array in
memory and give maps in memory: openvino-xai is asked for no overlay, no colours and no enlarging. It computes in what
its OpenVINO chooses (bfloat16 where the CPU has it), seewhy in float32; the forward pass is of the same precision.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

MASKS, PAIRS, BLOCK = 64, 9, 8
Work = Callable[[], object]
NETWORKS = {"tf_efficientnet_lite0": "ReciproCAM", "vit_tiny_patch16_224": "ViTReciproCAM"}


def ratios(work: Work, forward: Work, units: int = 1, pairs: int = PAIRS, block: int = BLOCK) -> list[float]:
    """Milliseconds of the pass, and the ratio of the two, passes before and after.

    Each runs several times in a row: the two are different compiled graphs, whose weights drive each other out of the
    processor's cache when they take turns.
    """

    def timed(one: Work) -> float:
        began = time.perf_counter()
        for _ in range(block):
            one()
        return (time.perf_counter() - began) / block

    work(), forward()
    found, passes = [], []
    for _ in range(pairs):
        before = timed(forward)
        spent = timed(work)
        passes += [before, timed(forward)]
        found.append(2 * spent / (passes[-2] + passes[-1]) / units)
    return [1000 * statistics.median(passes), statistics.median(found)]


def ours(path: Path, method: str, image: np.ndarray) -> dict[str, list[float]]:
    import torch

    import seewhy

    seewhy.keep_memory()
    model, inputs = seewhy.load(path), torch.from_numpy(image)
    forward = lambda: model(inputs)  # noqa: E731
    cam, rise = getattr(seewhy, method)(model), seewhy.RISE(model, num_masks=MASKS, perturbation_per_eval=1)
    return {
        "ActivationMap": ratios(lambda: seewhy.ActivationMap(model).run(inputs), forward),
        f"{method}, one class": ratios(lambda: cam.run(inputs, 1), forward),
        f"{method}, all 1000": ratios(lambda: cam.run(inputs, "all"), forward),
        "RISE a mask, one class": ratios(lambda: rise.run(inputs, 1), forward, MASKS + 1, 3, 1),
        "RISE a mask, all 1000": ratios(lambda: rise.run(inputs, "all"), forward, MASKS + 1, 3, 1),
    }


def theirs(path: Path, method: str, image: np.ndarray) -> dict[str, list[float]]:
    import openvino as ov
    from openvino_xai import Task
    from openvino_xai.explainer import Explainer, ExplainMode
    from openvino_xai.methods.factory import Method

    plain = ov.Core().compile_model(ov.Core().read_model(path), "CPU")
    forward = lambda: plain(image)  # noqa: E731
    quiet: dict[str, Any] = {"resize": False, "colormap": False, "overlay": False}

    def white(name: str) -> Callable[[Any], Callable[[], object]]:
        made = Explainer(
            str(path), Task.CLASSIFICATION, explain_mode=ExplainMode.WHITEBOX, explain_method=Method(name.lower())
        )
        return lambda targets: lambda: made(image, targets=targets, **quiet)

    black = Explainer(
        str(path), Task.CLASSIFICATION, postprocess_fn=lambda found: next(iter(found.values())),
        explain_mode=ExplainMode.BLACKBOX, explain_method=Method.RISE,
    )  # fmt: skip
    rise = lambda targets: lambda: black(image, targets=targets, num_masks=MASKS, **quiet)  # noqa: E731
    cam = white(method)
    return {
        "ActivationMap": ratios(white("ActivationMap")(-1), forward),
        f"{method}, one class": ratios(cam([1]), forward),
        f"{method}, all 1000": ratios(cam(-1), forward),
        "RISE a mask, one class": ratios(rise([1]), forward, MASKS + 1, 3, 1),
        "RISE a mask, all 1000": ratios(rise(-1), forward, MASKS + 1, 3, 1),
    }


def child(library: str, folder: Path) -> None:
    image = np.random.default_rng(0).standard_normal((1, 3, 224, 224), dtype=np.float32)
    measure = ours if library == "seewhy" else theirs
    print(json.dumps({name: measure(folder / f"{name}.xml", method, image) for name, method in NETWORKS.items()}))


def export(folder: Path) -> None:
    """Through ONNX, with normalisations spelled out: openvino-xai does not know them as one operation."""
    import openvino as ov
    import timm
    import torch

    for name in NETWORKS:
        network = timm.create_model(name, exportable=True).eval()
        for norm in (m for m in network.modules() if isinstance(m, torch.nn.LayerNorm)):
            torch.nn.init.uniform_(norm.weight, 0.9, 1.1)  # ones and zeros would be folded away
            torch.nn.init.uniform_(norm.bias, -0.1, 0.1)
        torch.onnx.export(
            network, (torch.zeros(1, 3, 224, 224),), folder / f"{name}.onnx",
            dynamo=False, opset_version=14, input_names=["x"], output_names=["scores"],
            dynamic_axes={"x": {0: "n"}, "scores": {0: "n"}},
        )  # fmt: skip
        ov.save_model(ov.convert_model(folder / f"{name}.onnx"), folder / f"{name}.xml", compress_to_fp16=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", help="the Python of an environment with openvino-xai")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--child", choices=["seewhy", "openvino_xai"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        child(asked.child, asked.folder)
        return
    found: dict[str, list[Any]] = {"seewhy": [], "openvino_xai": []}
    with tempfile.TemporaryDirectory() as folder:
        export(Path(folder))
        for _ in range(asked.rounds):
            for library, python in (("seewhy", sys.executable), ("openvino_xai", asked.peer)):
                if python:
                    command = [python, __file__, "--child", library, "--folder", folder]
                    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                    found[library].append(json.loads(done.stdout.splitlines()[-1]))
    report(found, asked.rounds)


def report(found: dict[str, list[Any]], rounds: int) -> None:
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}; {rounds} rounds of each")
    print(f"{'':24}{'':26}{'seewhy':>24}{'openvino-xai':>26}   (ratio to the pass, least..most of the rounds)")
    for name in NETWORKS:
        for what in found["seewhy"][0][name]:
            cells = []
            for runs in found.values():
                values = sorted(run[name][what][1] for run in runs)
                cells.append(f"{statistics.median(values):.3f} ({values[0]:.3f}..{values[-1]:.3f})" if values else "")
            print(f"{name:24}{what:26}{cells[0]:>24}{cells[1]:>26}")
        passes = [
            f"{statistics.median(r[name]['ActivationMap'][0] for r in runs):.1f} ms" if runs else ""
            for runs in found.values()
        ]
        print(f"{name:24}{'the pass itself':26}{passes[0]:>24}{passes[1]:>26}")


if __name__ == "__main__":
    main()
