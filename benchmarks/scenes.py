"""Scenes of photographic cut-outs on real textures, with the exact mask of each object: real pictures, known truth.

The cut-outs are the stamps of the Debian package tuxpaint-stamps-default (GPL-2), fetched into a folder of the caller's
and used from there. stamps.csv says which of them show which classes of ImageNet-1k. It lists every photograph of at
least 60 pixels whose species, genus or kind of thing is a class; where classes differ in breed alone, all of them.
Backgrounds are textures that scikit-image and scikit-learn ship: brick, grass and gravel (grey, tinted), a wooden
table, leaves out of focus, a lake. A scene depends on seed, number, size and number of objects alone.

    python benchmarks/scenes.py --data DIR [--out sheet.png --count 24] [--objects 2] [--score 300]

A picture of the network's own size is to be normalised only: a centre crop would cut objects off. `--score` does so.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import skimage
import sklearn
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw

PACKAGE = "tuxpaint-stamps-default"
STAMPS = Path("usr/share/tuxpaint/stamps")
TABLE = Path(__file__).parent / "stamps.csv"
SIZE = (224, 224)
SHARE = (0.6, 0.95)  # of the room that an object has, along the side where it is tightest
LARGEST = 3.0  # how far a stamp may be enlarged
LEAST = 64  # pixels a side of a scene

_SKIMAGE, _SKLEARN = Path(skimage.__file__).parent / "data", Path(sklearn.__file__).parent / "datasets" / "images"

Box = tuple[int, int, int, int]  # left, top, right, bottom


@dataclass(frozen=True, kw_only=True)
class Texture:
    """A background: the part of a photograph that shows no object, and the tint of a grey one."""

    file: Path
    box: Box | None = None
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)


TEXTURES = (
    Texture(file=_SKIMAGE / "brick.png", tint=(1.45, 1.0, 0.85)),
    Texture(file=_SKIMAGE / "grass.png", tint=(0.85, 1.15, 0.5)),
    Texture(file=_SKIMAGE / "gravel.png", tint=(1.1, 1.03, 0.94)),
    Texture(file=_SKIMAGE / "coffee.png", box=(455, 0, 600, 150)),
    Texture(file=_SKLEARN / "flower.jpg", box=(450, 0, 640, 340)),
    Texture(file=_SKLEARN / "china.jpg", box=(360, 0, 640, 427)),
)


@dataclass(frozen=True, kw_only=True)
class Stamp:
    """One cut-out: its file below the stamps' folder, and the classes of ImageNet-1k that it shows."""

    name: str
    classes: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Thing:
    """An object of a scene.

    Attributes:
        classes: of ImageNet-1k; any of them is right.
        mask: (H, W), true where the object covers at least half of the pixel.
        name: the stamp's.
    """

    classes: tuple[int, ...]
    mask: NDArray[np.bool_]
    name: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """An RGB picture and its objects, which do not overlap."""

    picture: Image.Image
    objects: tuple[Thing, ...]


def fetch(data: Path) -> Path:
    """The folder of the stamps; the package is fetched and unpacked into ``data`` when it is not there."""
    unpacked = data / PACKAGE
    if not unpacked.is_dir():
        data.mkdir(parents=True, exist_ok=True)
        partial = data / f"{PACKAGE}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        subprocess.run(["apt-get", "download", PACKAGE], cwd=partial, check=True)
        (archive,) = partial.glob("*.deb")
        subprocess.run(["dpkg-deb", "-x", archive.name, "."], cwd=partial, check=True)
        archive.unlink()
        partial.rename(unpacked)
    return unpacked / STAMPS


def table() -> tuple[Stamp, ...]:
    """The stamps that show a class."""
    with TABLE.open(encoding="utf-8", newline="") as file:
        return tuple(
            Stamp(name=row["path"].removesuffix(".png"), classes=tuple(map(int, row["classes"].split())))
            for row in csv.DictReader(file)
        )


def scenes(data: Path, count: int, seed: int, size: tuple[int, int] = SIZE, objects: int = 1) -> Iterator[Scene]:
    """Scenes 0 to ``count`` - 1.

    Args:
        data: where the package is, or shall be fetched to.
        count: how many scenes.
        seed: of the scenes, not negative.
        size: height and width in pixels.
        objects: 1, or 2 that show different classes.
    """
    if objects not in (1, 2):
        raise ValueError(f"A scene has 1 or 2 objects, got {objects}.")
    if min(size) < LEAST:
        raise ValueError(f"A scene has at least {LEAST} pixels a side, got {size}.")
    folder, known = fetch(data), table()
    for number in range(count):
        yield _scene(folder, known, np.random.default_rng([seed, number]), size, objects)


def _scene(folder: Path, known: tuple[Stamp, ...], rng: Generator, size: tuple[int, int], objects: int) -> Scene:
    canvas = _background(rng, size).convert("RGBA")
    rooms = _rooms(rng, size, objects)
    found: list[Thing] = []
    for room in rooms:
        taken = {c for thing in found for c in thing.classes}
        free = [stamp for stamp in known if taken.isdisjoint(stamp.classes)]
        stamp = free[rng.integers(len(free))]
        layer = _laid(rng, _cut_out(folder / f"{stamp.name}.png"), room, size)
        canvas.alpha_composite(layer)
        mask = np.asarray(layer.getchannel("A")) >= 128
        found.append(Thing(classes=stamp.classes, mask=mask, name=stamp.name))
    return Scene(picture=canvas.convert("RGB"), objects=tuple(found))


def _rooms(rng: Generator, size: tuple[int, int], objects: int) -> list[Box]:
    """Where each object may lie: the picture, or its halves along the longer side, in random order."""
    height, width = size
    if objects == 1:
        return [(0, 0, width, height)]
    beside = width > height or (width == height and rng.random() < 0.5)
    x, y = (width // 2, height) if beside else (width, height // 2)
    halves = [(0, 0, x, y), (width - x, height - y, width, height)]
    return halves if rng.random() < 0.5 else halves[::-1]


def _laid(rng: Generator, stamp: Image.Image, room: Box, size: tuple[int, int]) -> Image.Image:
    """A clear layer of the picture's size with the stamp somewhere in its room, perhaps mirrored."""
    left, top, right, bottom = room
    wide, high = right - left, bottom - top
    scale = min(rng.uniform(*SHARE) * min(wide / stamp.width, high / stamp.height), LARGEST)
    small = stamp.resize([max(1, int(side * scale)) for side in stamp.size], Image.Resampling.LANCZOS)
    x, y = rng.uniform(left, right - small.width), rng.uniform(top, bottom - small.height)
    layer = Image.new("RGBA", size[::-1])
    layer.paste(_mirrored(rng, small), (int(x), int(y)))
    return layer


def _mirrored(rng: Generator, picture: Image.Image) -> Image.Image:
    """In half of the cases."""
    return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else picture


@cache
def _cut_out(path: Path) -> Image.Image:
    """The stamp without its clear margins."""
    with Image.open(path) as image:
        stamp = image.convert("RGBA")
    return stamp.crop(stamp.getchannel("A").point(lambda alpha: 255 * (alpha >= 128)).getbbox())


@cache
def _texture(texture: Texture) -> Image.Image:
    with Image.open(texture.file) as image:
        picture = image.convert("RGB").crop(texture.box)
    values = np.asarray(picture, dtype=np.float64) * texture.tint
    return Image.fromarray(np.round(values.clip(0, 255)).astype(np.uint8))


def _background(rng: Generator, size: tuple[int, int]) -> Image.Image:
    """A window of a texture, of the picture's proportions, perhaps mirrored."""
    picture = _texture(TEXTURES[rng.integers(len(TEXTURES))])
    height, width = size
    scale = rng.uniform(0.6, 1.0) * min(picture.width / width, picture.height / height)
    left, top = (rng.uniform(0, side - scale * own) for side, own in ((picture.width, width), (picture.height, height)))
    box = (left, top, min(left + scale * width, picture.width), min(top + scale * height, picture.height))
    return _mirrored(rng, picture.resize((width, height), Image.Resampling.BICUBIC, box=box))


# ------------------------------------------------------------------------------------------ to look and to measure


def outlined(scene: Scene) -> Image.Image:
    """The picture with each mask's outline, drawn outside of the mask."""
    values = np.array(scene.picture)
    for thing, colour in zip(scene.objects, ((255, 0, 255), (0, 255, 255)), strict=False):
        mask = np.pad(thing.mask, 1)
        near = mask[:-2, 1:-1] | mask[2:, 1:-1] | mask[1:-1, :-2] | mask[1:-1, 2:]
        values[near & ~thing.mask] = colour
    return Image.fromarray(values)


def sheet(found: list[Scene], columns: int = 6) -> Image.Image:
    """Each scene beside the same with outlines, and the names of its objects."""
    width, height = found[0].picture.size
    rows = -(-len(found) // columns)
    page = Image.new("RGB", (columns * (2 * width + 8), rows * (height + 18)), "white")
    draw = ImageDraw.Draw(page)
    for i, scene in enumerate(found):
        x, y = i % columns * (2 * width + 8), i // columns * (height + 18)
        page.paste(scene.picture, (x, y))
        page.paste(outlined(scene), (x + width, y))
        names = ", ".join(f"{Path(t.name).name} {' '.join(map(str, t.classes))}" for t in scene.objects)
        draw.text((x + 2, y + height + 3), names, fill="black")
    return page


def score(found: list[Scene]) -> str:
    """How often EfficientNet-Lite0 names an object of the scene first, and among the first five."""
    import torch

    from seewhy import demo

    torch.set_num_threads(1)
    model = demo.model()
    hits = []
    for scene in found:
        pixels = torch.from_numpy(np.array(scene.picture)).permute(2, 0, 1)
        with model.opened():
            best = model(pixels[None].float().div(127.5).sub(1)).classes[0].topk(5).indices.tolist()
        right = {c for thing in scene.objects for c in thing.classes}
        hits.append((best[0] in right, not right.isdisjoint(best)))
    first, five = np.mean(hits, axis=0)
    return f"{len(found)} scenes: top-1 {first:.3f}, top-5 {five:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder for the Debian package")
    parser.add_argument("--out", type=Path, help="write a contact sheet")
    parser.add_argument("--count", type=int, default=24, help="scenes on the sheet")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--objects", type=int, default=1, choices=(1, 2))
    parser.add_argument("--size", type=int, nargs=2, default=SIZE, metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--score", type=int, help="measure EfficientNet-Lite0 on so many scenes")
    asked = parser.parse_args()
    size = (asked.size[0], asked.size[1])
    if asked.out:
        sheet(list(scenes(asked.data, asked.count, asked.seed, size, asked.objects))).save(asked.out)
        print(asked.out)
    if asked.score:
        print(score(list(scenes(asked.data, asked.score, asked.seed, size, asked.objects))))


if __name__ == "__main__":
    main()
