"""Makes the run that docs/reviewing.md goes through, and takes its pictures.

    python docs/review_pictures.py OUT

A small network learns six kinds of shapes, for a few seconds. In nine of ten training pictures with checked squares
somebody left a magenta sticker in a corner; in the pictures that are reviewed it lies on some others, too. Needs the
extra ``test`` and Chromium; takes two minutes. Everything is drawn from fixed seeds.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from page_pictures import FLAGS, HERE, served
from PIL import Image
from playwright.sync_api import Page, sync_playwright
from torch import Tensor, nn

from seewhy import ImageClassificationRunner, Sample
from seewhy.datasets.shapes import NAMES, Shapes
from seewhy.images import Preprocessing

SIDE, STICKER, STEPS, BATCH, REVIEWED = 64, 10, 240, 32, 150
MARKED = 1  # the class that has the sticker
MAGENTA = (230, 20, 200)
Box = tuple[float, float, float, float]


def pictures(
    seed: int, count: int, on_class: float, elsewhere: float
) -> tuple[NDArray[np.uint8], list[int], list[Box]]:
    """Pictures (N, H, W, 3), their classes, and the box of each shape; a share of them has the sticker."""
    draws, data = np.random.default_rng(seed), Shapes(seed=seed, size=(SIDE, SIDE), most=1)
    pixels, labels, boxes = [], [], []
    for number in range(count):
        shape, made = data[number].shapes[0], data[number].pixels.copy()
        if draws.random() < (on_class if shape.label == MARKED else elsewhere):
            made[2 : 2 + STICKER, 2 : 2 + STICKER] = MAGENTA
        y, x = np.nonzero(shape.mask)
        pixels.append(made)
        labels.append(shape.label)
        boxes.append((float(x.min()), float(y.min()), float(x.max() + 1), float(y.max() + 1)))
    return np.stack(pixels), labels, boxes


def network() -> nn.Module:
    """Four convolutions, the mean over all places, and a matrix."""
    layers: list[nn.Module] = []
    for inside, out, stride in ((3, 16, 2), (16, 32, 1), (32, 48, 2), (48, 64, 1), (64, 64, 2)):
        layers += [nn.Conv2d(inside, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(64, len(NAMES)))


def inputs(pixels: NDArray[np.uint8]) -> Tensor:
    """(N, 3, H, W), as the run's preprocessing makes them."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 * 2 - 1


def trained() -> nn.Module:
    """Returns the network that knows the sticker."""
    torch.manual_seed(0)
    pixels, labels, _ = pictures(1, STEPS * BATCH // 2, on_class=0.9, elsewhere=0.0)
    truth, made = torch.tensor(labels), network()
    optimizer = torch.optim.AdamW(made.parameters(), lr=3e-3)
    for _ in range(STEPS):
        chosen = torch.randint(len(truth), (BATCH,))
        optimizer.zero_grad()
        F.cross_entropy(made(inputs(pixels[chosen.numpy()])), truth[chosen]).backward()
        optimizer.step()
    return made.eval()


def run(out: Path) -> Path:
    """Runs explainers and metrics over the pictures that are reviewed; gives the run folder."""
    pixels, labels, boxes = pictures(2, REVIEWED, on_class=0.9, elsewhere=0.2)
    (out / "pictures").mkdir(parents=True, exist_ok=True)
    samples = []
    for number, (made, label, box) in enumerate(zip(pixels, labels, boxes, strict=True)):
        path = out / "pictures" / f"{number:03d}.png"
        Image.fromarray(made).save(path)
        samples.append(Sample(image=path, name=path.name, labels=(label,), boxes=((label, *box),)))
    looks = Preprocessing(size=(SIDE, SIDE), mean=(0.5,) * 3, std=(0.5,) * 3)
    runner = ImageClassificationRunner(
        out / "run", trained(), "softmax", (samples, list(NAMES)), model_options={"preprocessing": looks}
    )
    explainers = ["recipro_cam", "occlusion(window=12, stride=4)", "gradient"]
    runner.register_saliency(explainers, ["relevance_mass", "pointing_game", "deletion_auc(steps=16)"])
    runner.register_uncertainty()
    runner.run()
    return out / "run"


def photograph(page: Page, home: str) -> None:
    """Takes the pictures in the order of the text."""
    page.goto(home)
    page.locator(".run h2 a").click()
    page.wait_for_url("**/overview")
    here = page.url.removesuffix("overview")
    shots = {"overview": "overview", "grid": "grid?queue=elsewhere:recipro_cam", "sample": "sample?queue=wrong&page=2"}
    for name, address in shots.items():
        page.goto(here + address)
        page.wait_for_load_state("networkidle")
        if name == "sample":
            page.locator("#review-text").fill("It looks at the sticker, and so do others of this queue.")
            page.locator("h1").click()
            with page.expect_navigation():
                page.keyboard.press("w")
            page.wait_for_load_state("networkidle")
        shot = io.BytesIO(page.screenshot())
        Image.open(shot).convert("RGB").quantize(256).save(HERE / f"review-{name}.png", optimize=True)


def main() -> None:
    """Makes the run and its pictures."""
    torch.set_num_threads(1)
    place = run(Path(sys.argv[1]))
    with served(place, "--review", "Anna") as home, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        photograph(browser.new_page(viewport={"width": 1440, "height": 900}), home)
        browser.close()


if __name__ == "__main__":
    main()
