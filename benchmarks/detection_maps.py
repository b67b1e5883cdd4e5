"""Makes the sheets of docs/detection_models.md: for each object that NanoDet-g finds, the maps of four methods.

    python benchmarks/detection_maps.py [--models DIR] [--out docs/images/detections.png] [--masks 1000] [PICTURE ...]

Without pictures: the cat and the camera man that scikit-image ships (CC0).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from PIL import Image

import seewhy
from seewhy import demo
from seewhy.api import detections
from seewhy.draw import sheet
from seewhy.zoo import nanodet

ROOT = Path(__file__).parent.parent
HEAD = ROOT / "tests" / "data" / "nanodet_masks.safetensors"
COLUMNS = [
    "RISE of the box",
    "Occlusion of the box",
    "DetClassProbabilityMap of the class",
    "InstanceMaps of the class",
]


def rows(models: Path | None, pictures: list[Path], masks: int, most: int) -> Iterator[tuple[str, list[Image.Image]]]:
    """A title and four overlays for each object."""
    boxes, segments = nanodet(models), nanodet(models, masks=HEAD)
    for picture in pictures:
        found = detections(boxes, picture, score_threshold=0.4)[:most]
        labels = [one.label for one in found]
        asked: list[tuple[Any, Any, str, dict[str, Any]]] = [
            (boxes, found, "rise", {"num_masks": masks, "perturbation_per_eval": 8}),
            (boxes, found, "occlusion", {"perturbation_per_eval": 8}),
            (boxes, [labels], "det_class_probability_map", {}),
            (segments, [labels], "instance_maps", {"score_threshold": 0.3}),
        ]
        made = [
            seewhy.explain(model, picture, targets, method, progress=False, **more)
            for model, targets, method, more in asked
        ]
        for one in (*made[0].warnings, *made[1].warnings):
            print(f"{picture.name}: {one}")
        for t, one in enumerate(found):
            box = ", ".join(f"{v:.0f}" for v in made[0].box(0, t) or ())
            print(f"{picture.name}: {boxes.labels[one.label]} {one.score:.2f} at {box}")
            yield f"{boxes.labels[one.label]} {one.score:.2f}", [explanation.overlay(0, t) for explanation in made]


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", nargs="*", type=Path)
    parser.add_argument("--models", type=Path, help="folder of seewhy.zoo's files")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images" / "detections.png")
    parser.add_argument("--masks", type=int, default=1000, help="of RISE")
    parser.add_argument("--most", type=int, default=4, help="objects of each picture")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    shipped = demo.photographs()
    pictures = asked.pictures or [shipped["cat"], shipped["camera man"]]
    made = list(rows(asked.models, pictures, asked.masks, asked.most))
    page = sheet.grid(
        [overlays for _, overlays in made],
        column_titles=COLUMNS,
        row_titles=[title for title, _ in made],
        title="Why NanoDet-g finds these objects",
        footer="Bright: speaks for the object. The box that is explained is drawn.",
    )
    page.save(asked.out)
    print(asked.out)


if __name__ == "__main__":
    main()
