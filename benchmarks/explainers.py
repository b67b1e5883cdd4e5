"""What each method costs, as a ratio to what it cannot do without, beside Captum, grad-cam and torchcam.

Method and reference run in turn (A B A B ...) in one process, so a machine that slows down slows both; the ratio of
each pair is taken, and the median of the ratios is what counts. Run:

    python benchmarks/explainers.py [--rounds 9] [--threads 2] [--networks resnet50,efficientnet_lite0] [--parts cams]

The peers are optional: pip install captum grad-cam torchcam.
"""

from __future__ import annotations

import argparse
import gc
import platform
import statistics
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

import seewhy
from seewhy.explainers import Explainer

PEERS = {"captum": "captum", "grad-cam": "pytorch_grad_cam", "torchcam": "torchcam"}
WINDOW, STRIDE, CHUNK = 56, 28, 8


def network(name: str) -> tuple[nn.Module, str]:
    """A network with random weights (values do not change the cost) and the layer that the CAMs use."""
    known = {
        "resnet50": ("resnet50", "layer4"),
        "efficientnet_lite0": ("tf_efficientnet_lite0", "bn2"),
        "vit_tiny": ("vit_tiny_patch16_224", "blocks.11.norm1"),
        "vit_base": ("vit_base_patch16_224", "blocks.11.norm1"),
    }
    made, layer = known[name]
    return timm.create_model(made).eval(), layer


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


class Report:
    """Measures and prints one line a method."""

    def __init__(self, rounds: int) -> None:
        self.rounds = rounds

    def __call__(
        self, what: str, work: Callable[[], object], reference: Callable[[], object], *, images: int = 1,
        units: float = 1.0, goal: float | None = None, rounds: int | None = None,
    ) -> None:  # fmt: skip
        """``units``: how many times the reference the work has to do at least; ``goal``: for the median ratio."""
        reference()
        if rounds is None:
            work()
        seconds, ratios, result = [], [], None
        for _ in range(rounds or self.rounds):
            gc.collect()  # some libraries leave cycles that hold whole graphs
            before = timed(reference)
            began = time.perf_counter()
            result = work()
            seconds.append(time.perf_counter() - began)
            ratios.append(seconds[-1] / ((before + timed(reference)) / 2) / units)
        ratios.sort()
        spread = f"{ratios[len(ratios) // 4]:.3f}..{ratios[-1 - len(ratios) // 4]:.3f}"
        median = statistics.median(ratios)
        met = "" if goal is None else f"goal {goal:.2f} {'met' if median <= goal else 'MISSED'}"
        milliseconds = statistics.median(seconds) * 1000 / images
        print(f"  {what:<44}{milliseconds:10.1f} {median:9.3f}  {spread:<16}{spent(result):<18}{met}", flush=True)


def spent(result: object) -> str:
    passes = getattr(result, "passes", None)
    return "" if passes is None else f"{passes.forward} fwd {passes.backward} bwd"


def forward(net: nn.Module, inputs: Tensor) -> Callable[[], object]:
    def work() -> object:
        with torch.no_grad():
            return net(inputs)

    return work


def forward_and_backward(net: nn.Module, inputs: Tensor) -> Callable[[], object]:
    """The least a pixel gradient can cost: parameters frozen, gradient down to the input alone."""

    def work() -> object:
        net.requires_grad_(False)
        leaf = inputs.clone().requires_grad_()
        found = torch.autograd.grad(net(leaf)[:, 1].sum(), leaf)
        net.requires_grad_(True)
        return found

    return work


def cams(report: Report, net: nn.Module, layer: str, inputs: Tensor) -> None:
    n = len(inputs)
    plain = forward(net, inputs)
    several = torch.arange(20).repeat(n, 1)
    cam, activation = seewhy.GradCAM(net, layer=layer), seewhy.ActivationMap(net, layer=layer)
    rows: list[tuple[str, Explainer, Any, float | None]] = [
        ("GradCAM, one target", cam, 1, 1.05),
        ("GradCAM, 20 targets", cam, several, 1.4),
        ("ActivationMap", activation, 1, None),
    ]
    if isinstance(net, VisionTransformer):  # its head reads one token: a gradient has to be computed
        recipro: Explainer = seewhy.ViTReciproCAM(net)
        rows = [(title, made, targets, None) for title, made, targets, _ in rows]
        rows += [("ViTReciproCAM, one target", recipro, 1, 2.0), ("ViTReciproCAM, all 1000", recipro, "all", 2.0)]
    else:
        recipro = seewhy.ReciproCAM(net, layer=layer)
        rows += [("ReciproCAM, one target", recipro, 1, 1.08), ("ReciproCAM, all 1000", recipro, "all", 1.15)]
    for title, made, targets, goal in rows:
        report(title, partial(made.run, inputs, targets), plain, images=n, goal=goal)


def pixel_gradients(report: Report, net: nn.Module, inputs: Tensor) -> None:
    least = forward_and_backward(net, inputs)
    kinds = (seewhy.Gradient, seewhy.GuidedBackprop, seewhy.Deconvolution)
    for kind in kinds[:1] if isinstance(net, VisionTransformer) else kinds:  # a transformer has no ReLU
        goal = 1.05 if kind is not seewhy.Gradient else None
        work = partial(kind(net).run, inputs, 1)
        report(f"{kind.__name__} / (forward + backward)", work, least, images=len(inputs), goal=goal)


def perturbations(report: Report, net: nn.Module, inputs: Tensor, masks: int) -> None:
    """Against as many plain passes, in batches of the same size, as the method has to make."""
    one, chunk = inputs[:1], inputs[:1].expand(CHUNK, -1, -1, -1).contiguous()
    single = forward(net, chunk)

    def plain() -> None:
        for _ in range(10):
            single()

    rise = seewhy.RISE(net, num_masks=masks, perturbation_per_eval=CHUNK)
    for title, targets, goal in [("RISE a mask, one class", 1, 1.05), ("RISE a mask, all 1000", "all", 1.10)]:
        units = (masks + 1) / (10 * CHUNK)
        report(title, partial(rise.run, one, targets), plain, units=units, goal=goal, rounds=3)
    occlusion = seewhy.Occlusion(net, window=WINDOW, stride=STRIDE, perturbation_per_eval=CHUNK)
    windows = ((inputs.shape[2] - WINDOW) // STRIDE + 1) ** 2
    report("Occlusion a window", partial(occlusion.run, one, 1), plain, units=(windows + 1) / (10 * CHUNK), goal=1.05)


def peers(report: Report, net: nn.Module, layer: str, inputs: Tensor) -> None:
    n, plain, least = len(inputs), forward(net, inputs), forward_and_backward(net, inputs)
    where = net.get_submodule(layer)
    if find_spec("captum"):
        from captum import attr

        cam = attr.LayerGradCam(net, where)
        report("Captum LayerGradCam, one target", lambda: cam.attribute(inputs, 1), plain, images=n)
        twenty = lambda: [cam.attribute(inputs, t).detach() for t in range(20)]  # noqa: E731
        report("Captum LayerGradCam, 20 targets", twenty, plain, images=n)
        guided = attr.GuidedBackprop(net)
        report("Captum GuidedBackprop / (forward + backward)", lambda: guided.attribute(inputs, 1), least, images=n)
        occlusion = attr.Occlusion(net)
        windows = ((inputs.shape[2] - WINDOW) // STRIDE + 1) ** 2
        sides = {"sliding_window_shapes": (3, WINDOW, WINDOW), "strides": (3, STRIDE, STRIDE)}
        chunk = forward(net, inputs[:1].expand(CHUNK, -1, -1, -1).contiguous())
        run = lambda: occlusion.attribute(inputs[:1], target=1, perturbations_per_eval=CHUNK, **sides)  # noqa: E731
        report("Captum Occlusion a window", run, chunk, units=(windows + 1) / CHUNK)
    if find_spec("pytorch_grad_cam"):
        from pytorch_grad_cam import GradCAM
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

        with GradCAM(model=net, target_layers=[where]) as jacobgil:
            work = lambda: jacobgil(inputs, [ClassifierOutputTarget(1)] * n)  # noqa: E731
            report("grad-cam GradCAM, one target", work, plain, images=n)
    if find_spec("torchcam"):
        from torchcam.methods import GradCAM as TorchCAM

        with TorchCAM(net, target_layer=layer) as extractor:
            work = lambda: extractor([1] * n, net(inputs))  # noqa: E731
            report("torchcam GradCAM, one target", work, plain, images=n)


def header(arguments: argparse.Namespace) -> None:
    with open("/proc/cpuinfo") as file:
        cpu = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), platform.processor())
    print(f"{cpu}, {arguments.threads} threads, Python {platform.python_version()}, {platform.system()}")
    for package in ("torch", "seewhy", *PEERS):
        try:
            print(f"{package} {version(package)}", end="  ")
        except PackageNotFoundError:
            print(f"{package} not installed", end="  ")
    print(f"\nrounds {arguments.rounds}; RISE {arguments.masks} masks; ", end="")
    print(f"Occlusion window {WINDOW}, stride {STRIDE}; chunks of {CHUNK}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--networks", default="resnet50,efficientnet_lite0")
    parser.add_argument("--batches", default="1,8")
    parser.add_argument("--masks", type=int, default=800)
    parser.add_argument("--parts", default="cams,gradients,perturbations,peers")
    arguments = parser.parse_args()
    seewhy.keep_memory()  # else page faults are most of what is measured
    torch.set_num_threads(arguments.threads)
    header(arguments)
    report = Report(arguments.rounds)
    for name in arguments.networks.split(","):
        net, layer = network(name)
        for batch in map(int, arguments.batches.split(",")):
            inputs = torch.randn(batch, 3, 224, 224)
            milliseconds = statistics.median(timed(forward(net, inputs)) for _ in range(5)) * 1000 / batch
            print(f"\n{name}, batch {batch}: plain forward {milliseconds:.1f} ms an image")
            print(f"  {'':<44}{'ms/image':>10} {'ratio':>9}  {'quartiles':<16}passes")
            parts = arguments.parts.split(",")
            if "cams" in parts:
                cams(report, net, layer, inputs)
            if "gradients" in parts:
                pixel_gradients(report, net, inputs)
            if "perturbations" in parts and batch == 1:
                perturbations(report, net, inputs, arguments.masks)
            if "peers" in parts:
                peers(report, net, layer, inputs)


if __name__ == "__main__":
    main()
