"""The same tasks by several libraries, each measured in a process of its own; started by peers.py.

    python benchmarks/peer_tasks.py LIBRARY [--network resnet18] [--only GradCAM,RISE] [--pairs 3]

Prints JSON: task -> wall and CPU time as ratios to the plain forward pass of the same batch (before and after each
run), milliseconds, images that went through the network, and how much memory the task needed above what was there
before. Every library gets the same network (random weights of one seed: values do not change the cost) and the same
picture, and is asked for maps in memory: no drawing, no progress bars.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import statistics
import time
import warnings
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from torch import Tensor, nn

Work = Callable[[], object]
Tasks = dict[str, tuple[Work, int]]  # what to do, and how many images the reference pass takes

BATCH, MASKS, WINDOW, STRIDE, STEPS, SAMPLES, CELLS, CHUNK = 8, 200, 56, 28, 20, 10, 7, 16
LAYER = "layer4"
DISTRIBUTIONS = {
    "seewhy": "seewhy", "captum": "captum", "grad-cam": "grad-cam", "torchcam": "torchcam", "quantus": "quantus",
    "dianna": "dianna", "xaitk": "xaitk-saliency",
}  # fmt: skip


class Setting:
    """The network, its pictures, and a count of the images that went through it."""

    def __init__(self, name: str) -> None:
        torch.manual_seed(0)
        self.net: nn.Module = getattr(torchvision.models, name)(weights=None).eval()
        self.x = torch.randn(BATCH, 3, 224, 224)
        self.one = self.x[:1]
        self.layer = self.net.get_submodule(LAYER)
        self.images = 0
        self.net.register_forward_pre_hook(self._count)

    def _count(self, _module: nn.Module, given: tuple[Tensor, ...]) -> None:
        self.images += len(given[0])

    def forward(self, count: int) -> None:
        with torch.no_grad():
            self.net(self.x[:count])

    def probabilities(self, pictures: np.ndarray) -> np.ndarray:
        """(N, H, W, C) float -> (N, K): what a black box is for libraries that take a function."""
        inputs = torch.from_numpy(np.ascontiguousarray(np.asarray(pictures, np.float32).transpose(0, 3, 1, 2)))
        with torch.no_grad():
            return self.net(inputs).softmax(1).numpy()

    def cells(self) -> Tensor:
        """(1, 1, H, W) the number of each pixel's cell."""
        rows = torch.arange(224) * CELLS // 224
        return (rows[:, None] * CELLS + rows)[None, None]


def seewhy_(s: Setting) -> Tasks:
    import seewhy
    from seewhy.metrics import Deletion, MaxSensitivity

    seewhy.keep_memory()
    few: dict[str, Any] = {"perturbation_per_eval": CHUNK}
    cams = {
        "GradCAM": seewhy.GradCAM, "LayerCAM": seewhy.LayerCAM, "HiResCAM": seewhy.HiResCAM,
        "GradCAM++": seewhy.GradCAMPlusPlus,
    }  # fmt: skip
    found: Tasks = {n: (partial(kind(s.net, layer=LAYER).run, s.x, 1), BATCH) for n, kind in cams.items()}
    cam = seewhy.GradCAM(s.net, layer=LAYER)
    twenty = torch.arange(20).repeat(BATCH, 1)
    flips, sensitivity = Deletion(pixels_per_step=224 * 8, **few), MaxSensitivity(samples=SAMPLES, radius=0.02)
    pixels = seewhy.Gradient(s.net)
    return found | {
        "GradCAM, 20 targets": (lambda: cam.run(s.x, twenty), BATCH),
        "ScoreCAM": (lambda: seewhy.ScoreCAM(s.net, layer=LAYER, **few).run(s.one, 1), 1),
        "AblationCAM": (lambda: seewhy.AblationCAM(s.net, layer=LAYER, **few).run(s.one, 1), 1),
        "EigenCAM": (lambda: seewhy.EigenCAM(s.net, layer=LAYER).run(s.x, 1), BATCH),
        "Gradient": (lambda: pixels.run(s.x, 1), BATCH),
        "SmoothGrad": (lambda: seewhy.SmoothGrad(s.net, samples=SAMPLES).run(s.one, 1), 1),
        "IntegratedGradients": (lambda: seewhy.IntegratedGradients(s.net, steps=STEPS).run(s.one, 1), 1),
        "GuidedBackprop": (lambda: seewhy.GuidedBackprop(s.net).run(s.x, 1), BATCH),
        "Deconvolution": (lambda: seewhy.Deconvolution(s.net).run(s.x, 1), BATCH),
        "Occlusion": (lambda: seewhy.Occlusion(s.net, window=WINDOW, stride=STRIDE, **few).run(s.one, 1), 1),
        "RISE": (lambda: seewhy.RISE(s.net, num_masks=MASKS, **few).run(s.one, 1), 1),
        "KernelSHAP": (lambda: seewhy.KernelSHAP(s.net, num_masks=MASKS, **few).run(s.one, 1), 1),
        "LIME": (lambda: seewhy.LIME(s.net, num_masks=MASKS, **few).run(s.one, 1), 1),
        "deletion of a map": (lambda: flips.evaluate(cam, s.one, 1), 1),
        "sensitivity of a map": (lambda: sensitivity.evaluate(pixels, s.one, 1), 1),
    }


def captum(s: Setting) -> Tasks:
    from captum import attr
    from captum.metrics import sensitivity_max

    cam, saliency, cells = attr.LayerGradCam(s.net, s.layer), attr.Saliency(s.net), s.cells()
    smooth = attr.NoiseTunnel(attr.Saliency(s.net))
    sides = {"sliding_window_shapes": (3, WINDOW, WINDOW), "strides": (3, STRIDE, STRIDE)}
    masked: dict[str, Any] = {"feature_mask": cells, "n_samples": MASKS, "perturbations_per_eval": CHUNK}
    integrated = lambda: attr.IntegratedGradients(s.net).attribute(s.one, target=1, n_steps=STEPS)  # noqa: E731
    return {
        "GradCAM": (lambda: cam.attribute(s.x, 1), BATCH),
        "GradCAM, 20 targets": (lambda: [cam.attribute(s.x, t).detach() for t in range(20)], BATCH),
        "Gradient": (lambda: saliency.attribute(s.x, 1), BATCH),
        "SmoothGrad": (lambda: smooth.attribute(s.one, target=1, nt_samples=SAMPLES, nt_samples_batch_size=SAMPLES), 1),
        "IntegratedGradients": (integrated, 1),
        "GuidedBackprop": (lambda: attr.GuidedBackprop(s.net).attribute(s.x, 1), BATCH),
        "Deconvolution": (lambda: attr.Deconvolution(s.net).attribute(s.x, 1), BATCH),
        "Occlusion": (
            lambda: attr.Occlusion(s.net).attribute(s.one, target=1, perturbations_per_eval=CHUNK, **sides), 1),
        "KernelSHAP": (lambda: attr.KernelShap(s.net).attribute(s.one, target=1, **masked), 1),
        "LIME": (lambda: attr.Lime(s.net).attribute(s.one, target=1, **masked), 1),
        "sensitivity of a map": (
            lambda: sensitivity_max(saliency.attribute, s.one, n_perturb_samples=SAMPLES, target=1), 1),
    }  # fmt: skip


def grad_cam(s: Setting) -> Tasks:
    import pytorch_grad_cam as jacobgil
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    def by(kind: Any, x: Tensor, targets: int = 1, **options: Any) -> Work:
        def work() -> object:
            with kind(model=s.net, target_layers=[s.layer], **options) as made:
                if hasattr(made, "batch_size"):
                    made.batch_size = CHUNK
                return [made(x, [ClassifierOutputTarget(t)] * len(x)) for t in range(1, targets + 1)]

        return work

    cams = {
        "GradCAM": jacobgil.GradCAM, "LayerCAM": jacobgil.LayerCAM, "HiResCAM": jacobgil.HiResCAM,
        "GradCAM++": jacobgil.GradCAMPlusPlus, "EigenCAM": jacobgil.EigenCAM,
    }  # fmt: skip
    found: Tasks = {n: (by(kind, s.x), BATCH) for n, kind in cams.items()}
    return found | {
        "GradCAM, 20 targets": (by(jacobgil.GradCAM, s.x, 20), BATCH),
        "ScoreCAM": (by(jacobgil.ScoreCAM, s.one), 1),
        "AblationCAM": (by(jacobgil.AblationCAM, s.one, batch_size=CHUNK), 1),
    }


def torchcam(s: Setting) -> Tasks:
    from torchcam import methods

    def by(kind: Any, x: Tensor, **options: Any) -> Work:
        def work() -> object:
            with kind(s.net, target_layer=LAYER, **options) as made:
                return made([1] * len(x), s.net(x))

        return work

    return {
        "GradCAM": (by(methods.GradCAM, s.x), BATCH),
        "GradCAM++": (by(methods.GradCAMpp, s.x), BATCH),
        "LayerCAM": (by(methods.LayerCAM, s.x), BATCH),
        "ScoreCAM": (by(methods.ScoreCAM, s.one, batch_size=CHUNK), 1),
    }


def quantus(s: Setting) -> Tasks:
    import quantus as library
    from captum.attr import LayerGradCam, Saliency

    x, y = s.one.numpy(), np.array([1])
    cam = LayerGradCam(s.net, s.layer)
    saliency = Saliency(s.net)
    asked: dict[str, Any] = {"disable_warnings": True, "display_progressbar": False}

    def explained(model: nn.Module, inputs: np.ndarray, targets: np.ndarray, **_: Any) -> np.ndarray:
        found = saliency.attribute(torch.as_tensor(inputs).float(), torch.as_tensor(targets))
        return found.detach().numpy().sum(1, keepdims=True)

    def flipped() -> object:
        coarse = cam.attribute(s.one, 1).detach()
        maps = nn.functional.interpolate(coarse, (224, 224), mode="bilinear").numpy()
        measure = library.PixelFlipping(features_in_step=224 * 8, perturb_baseline="black", **asked)
        return measure(s.net, x, y, maps, channel_first=True, softmax=True)

    def sensitive() -> object:
        measure = library.MaxSensitivity(nr_samples=SAMPLES, lower_bound=0.02, **asked)
        return measure(s.net, x, y, None, channel_first=True, explain_func=explained)

    return {"deletion of a map": (flipped, 1), "sensitivity of a map": (sensitive, 1)}


def dianna(s: Setting) -> Tasks:
    from dianna.methods.lime_image import LIMEImage
    from dianna.methods.rise_image import RISEImage

    axes = {2: "channels"}
    picture = np.ascontiguousarray(s.one[0].numpy().transpose(1, 2, 0))
    rise = RISEImage(n_masks=MASKS, feature_res=CELLS, p_keep=0.5, axis_labels=axes)
    lime = LIMEImage(axis_labels=axes, random_state=0)
    return {
        "RISE": (lambda: rise.explain(s.probabilities, picture, [1], batch_size=CHUNK), 1),
        "LIME": (lambda: lime.explain(s.probabilities, picture, [1], num_samples=MASKS, batch_size=CHUNK), 1),
    }


def xaitk(s: Setting) -> Tasks:
    from smqtk_classifier.interfaces.classify_image import ClassifyImage
    from xaitk_saliency.impls.gen_image_classifier_blackbox_sal.rise import RISEStack
    from xaitk_saliency.impls.gen_image_classifier_blackbox_sal.slidingwindow import SlidingWindowStack

    class Box(ClassifyImage):
        def get_labels(self) -> list[int]:
            return list(range(1000))

        def classify_images(self, img_iter: Any) -> Any:
            waiting: list[Any] = []
            for one in img_iter:
                waiting.append(one)
                if len(waiting) == CHUNK:
                    yield from self._known(waiting)
                    waiting = []
            if waiting:
                yield from self._known(waiting)

        def _known(self, pictures: list[Any]) -> Any:
            for row in s.probabilities(np.stack(pictures)):
                yield dict(enumerate(row))

        def get_config(self) -> dict[str, Any]:
            return {}

    picture = np.ascontiguousarray(s.one[0].numpy().transpose(1, 2, 0))
    box, rise = Box(), RISEStack(n=MASKS, s=CELLS, p1=0.5, seed=0)
    slide = SlidingWindowStack(window_size=(WINDOW, WINDOW), stride=(STRIDE, STRIDE))
    return {"RISE": (lambda: rise.generate(picture, box), 1), "Occlusion": (lambda: slide.generate(picture, box), 1)}


LIBRARIES: dict[str, Callable[[Setting], Tasks]] = {
    "seewhy": seewhy_, "captum": captum, "grad-cam": grad_cam, "torchcam": torchcam, "quantus": quantus,
    "dianna": dianna, "xaitk": xaitk,
}  # fmt: skip


def peak() -> int:
    """The most memory that this process had since the last call, in bytes (Linux)."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    Path("/proc/self/clear_refs").write_text("5")
    return 1024 * int(status["VmHWM"].split()[0])


def measured(s: Setting, work: Work, count: int, pairs: int) -> dict[str, Any]:
    """One task, in turns with the pass that it is compared with."""

    def timed(one: Work) -> tuple[float, float]:
        wall, cpu = time.perf_counter(), time.process_time()
        one()
        return time.perf_counter() - wall, time.process_time() - cpu

    plain = lambda: [s.forward(count) for _ in range(3)]  # noqa: E731
    plain(), work()  # what is made once is not measured here: first_call.py does that
    s.images, found = 0, []
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    peak()
    before = peak()
    for _ in range(pairs):
        first, spent, second = timed(plain), timed(work), timed(plain)
        found.append([6 * spent[i] / (first[i] + second[i]) for i in range(2)] + [1000 * spent[0]])
    wall, cpu, milliseconds = (statistics.median(row[i] for row in found) for i in range(3))
    images = s.images / pairs - 6 * count
    return {"wall": wall, "cpu": cpu, "ms": milliseconds, "images": images, "megabytes": (peak() - before) / 2**20}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", choices=LIBRARIES)
    parser.add_argument("--network", default="resnet18")
    parser.add_argument("--only", default="")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(asked.threads)
    setting = Setting(asked.network)
    only = [name for name in asked.only.split(",") if name]
    tasks = {n: t for n, t in LIBRARIES[asked.library](setting).items() if not only or n in only}
    found = {name: measured(setting, work, count, asked.pairs) for name, (work, count) in tasks.items()}
    versions = {asked.library: version(DISTRIBUTIONS[asked.library]), "torch": str(torch.__version__)}
    print("\n" + json.dumps({"versions": versions, "tasks": found}))


if __name__ == "__main__":
    main()
