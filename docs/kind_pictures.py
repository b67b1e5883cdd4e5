"""Draws the pictures of pages about other kinds of pictures and targets: docs/images/kinds.

    OMP_NUM_THREADS=1 PYTHONPATH=tests .venv/bin/python docs/kind_pictures.py

A text, a region of a segmentation and a key point on drawn shapes, by the small trained network of the tests with
heads that are fitted here; eight bands and 12 bits on a photograph, by EfficientNet-Lite0; slices of a volume, by a
network that is trained here. About a minute on one thread. Needs the extras ``demo`` and ``test``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

import seewhy
from seewhy.datasets.shapes import NAMES, Shapes
from seewhy.demo import model, photographs
from seewhy.models.torch.towers import Towers
from support.shape_networks import trained

OUT = Path(__file__).parent / "images" / "kinds"
SCENES = Shapes(seed=5, size=(96, 128))


def main() -> None:
    """Draws everything."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    OUT.mkdir(parents=True, exist_ok=True)
    segmenter = fitted()
    kept("text", text())
    kept("region", region(segmenter))
    kept("keypoint", keypoint(segmenter))
    kept("bands", bands())
    kept("depth", depth())
    kept("volume", volume())


def say(text: str) -> None:
    """What the reader of the pictures should know: how well what is trained here does."""
    sys.stderr.write(f"{text}\n")


def kept(name: str, picture: Image.Image) -> None:
    """Saves a picture at most 900 pixels wide."""
    scale = min(1.0, 900 / picture.width)
    size = (round(picture.width * scale), round(picture.height * scale))
    picture.resize(size, Image.Resampling.LANCZOS).save(OUT / f"{name}.webp", quality=80)


def scene() -> tuple[Any, Tensor]:
    """A picture of three shapes, and the input that the networks take."""
    drawn = next(one for one in (SCENES[number] for number in range(100)) if len(one.shapes) >= 3)
    return drawn, torch.from_numpy(drawn.pixels).permute(2, 0, 1).float().div(127.5).sub(1).unsqueeze(0)


# ------------------------------------------------------------------------------------------------------------- texts


class Words(Towers):
    """The shapes' network as one of images and texts: the name of a shape becomes the weights of its class."""

    def image(self, images: Tensor) -> Tensor:
        """Features of the picture: what the last layer reads."""
        network: Any = self.whole
        return network.layer3(network.stem(images)).mean((2, 3))

    def text(self, texts: list[str]) -> Tensor:
        """Weights of the class that the text names."""
        network: Any = self.whole
        return torch.stack([network.fc.weight[NAMES.index(one.removeprefix("a "))] for one in texts])


def text() -> Image.Image:
    """One picture and two texts."""
    drawn, inputs = scene()
    names = [f"a {NAMES[shape.label]}" for shape in drawn.shapes][:2]
    network = Words(trained("cnn").eval(), tokenizer=True)
    found = [seewhy.explain(network, inputs, seewhy.TextTarget(name), "grad_cam", progress=False) for name in names]
    return row([Image.fromarray(drawn.pixels), *(one.overlay() for one in found)], ["", *names])


# ------------------------------------------------------------------------------------------ segmentation, key points


class Places(nn.Module):
    """The shapes' network with a 1 x 1 convolution in place of its head: scores of each class and of "nothing"."""

    def __init__(self) -> None:
        super().__init__()
        network: Any = trained("cnn").eval()
        self.stem, self.layer3 = network.stem, network.layer3
        self.mix = nn.Sequential(nn.Conv2d(144, 96, 3, padding=1), nn.ReLU())
        self.head = nn.Conv2d(96, len(NAMES) + 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, K, H/4, W/4)."""
        fine = self.stem(x)
        deep = F.interpolate(self.layer3(fine), size=fine.shape[2:], mode="bilinear")
        return self.head(self.mix(torch.cat([fine, deep], 1)))


def fitted() -> nn.Module:
    """The head learns 150 pictures' masks."""
    network = Places()
    learned = [*network.mix.parameters(), *network.head.parameters()]
    step = torch.optim.Adam(learned, 3e-3)
    pictures = Shapes(seed=9, size=(64, 64))
    for number in range(250):
        drawn = [pictures[4 * number + k] for k in range(4)]
        x = torch.stack([torch.from_numpy(one.pixels).permute(2, 0, 1).float().div(127.5).sub(1) for one in drawn])
        wanted = torch.full((4, 64, 64), len(NAMES))
        for k, one in enumerate(drawn):
            for shape in one.shapes:
                wanted[k][torch.from_numpy(shape.mask)] = shape.label
        loss = F.cross_entropy(F.interpolate(network(x), size=(64, 64), mode="bilinear"), wanted)
        step.zero_grad()
        loss.backward()
        step.step()
    say(f"segmenter: loss {float(loss):.3f}")
    return network.eval()


def region(network: nn.Module) -> Image.Image:
    """A class as a whole, and one place where the network sees it."""
    drawn, inputs = scene()
    loaded = seewhy.load(network, output=seewhy.heads.Segmentation(), labels=[*NAMES, "nothing"])
    with torch.no_grad():
        seen = network(inputs).argmax(1)[0]
    first, second = drawn.shapes[:2]
    painted = np.array(drawn.pixels) // 3
    for shape, colour in ((first, (255, 200, 0)), (second, (0, 180, 255))):
        where = F.interpolate((seen == shape.label)[None, None].float(), size=painted.shape[:2])[0, 0].bool().numpy()
        painted[where] = colour
    targets = [seewhy.RegionTarget(label=shape.label) for shape in (first, second)]
    found = seewhy.explain(loaded, inputs, targets, "grad_cam", layer="layer3", progress=False)
    titles = ["", "what it sees", *(f"region: {NAMES[shape.label]}" for shape in (first, second))]
    maps = [found.overlay(0, t) for t in range(2)]
    return row([Image.fromarray(drawn.pixels), Image.fromarray(painted), *maps], titles)


def keypoint(network: nn.Module) -> Image.Image:
    """Where the network finds the middle of a shape, and what that depends on."""
    drawn, inputs = scene()
    loaded = seewhy.load(_Middles(network), output=seewhy.heads.Heatmaps(), labels=list(NAMES))
    shape = drawn.shapes[0]
    found = seewhy.explain(
        loaded, inputs, seewhy.KeypointTarget(index=shape.label), "occlusion", window=12, stride=4, progress=False
    )
    with torch.no_grad():
        heat = loaded.network(inputs)[0, shape.label]
    y, x = divmod(int(heat.argmax()), heat.shape[1])
    marked = np.array(drawn.pixels)
    marked[max(0, 4 * y - 1) : 4 * y + 5, max(0, 4 * x - 1) : 4 * x + 5] = (255, 0, 255)
    titles = ["key point found", f"middle of the {NAMES[shape.label]}"]
    return row([Image.fromarray(marked), found.overlay()], titles)


class _Middles(nn.Module):
    """Heat maps of the middles of shapes: the probability of the class, smoothed over the size of a shape."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        seen = self.network(x).softmax(1)[:, : len(NAMES)]
        return F.avg_pool2d(seen, 5, 1, 2, count_include_pad=False)


# --------------------------------------------------------------------------------------------- bands, depth, volumes


class Bands(nn.Module):
    """A network of eight bands: of them 3, 2 and 1 are red, green and blue, and the photograph's network sees these."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Any:
        """(N, 8, H, W) -> (N, K)."""
        return self.network(x[:, [3, 2, 1]])


def bands() -> Image.Image:
    """A TIFF file of eight bands: what people see of it, and a map."""
    photo = np.asarray(Image.open(photographs()["cat"]).convert("RGB").resize((226, 150)))
    noise = np.random.default_rng(0).integers(0, 256, photo.shape[:2], dtype=np.uint8)
    red, green, blue = photo.transpose(2, 0, 1)
    planes = np.stack([noise, blue, green, red, 255 - red, noise // 2, green // 2 + 60, 255 - blue])
    place = OUT / "eight.tif"
    tifffile.imwrite(place, planes, photometric="minisblack", planarconfig="separate")
    own = model()
    known = seewhy.Preprocessing(size=(224, 224), mean=(0.498,) * 8, std=(0.502,) * 8, channels=8, show=(3, 2, 1))
    loaded = seewhy.load(Bands(own.network), preprocessing=known, labels=own.labels)
    found = seewhy.explain(loaded, place, "tabby", "grad_cam", layer="network.conv_head", progress=False)
    place.unlink()
    return row([Image.fromarray(noise).convert("RGB"), found.pictures[0], found.overlay()],
               ["band 0", "bands 3, 2, 1", found.said()])  # fmt: skip


def depth() -> Image.Image:
    """The same 12 bits in a file of 16, with and without a window."""
    photo = np.asarray(Image.open(photographs()["camera man"]).convert("L").resize((256, 256))).astype(np.uint16)
    place = OUT / "deep.png"
    Image.fromarray(photo * 16 + 7).save(place)
    own, shown, titles = model(), [], []
    for window, title in ((None, "0 to 65535"), ((0, 4095), "window 0 to 4095")):
        known = seewhy.Preprocessing(size=(224, 224), mean=(0.498,) * 3, std=(0.502,) * 3, window=window)
        found = seewhy.explain(seewhy.load(own, preprocessing=known), place, "tripod", "grad_cam", progress=False)
        shown += [found.pictures[0], found.overlay()]
        titles += [title, found.said()]
    place.unlink()
    return row(shown, titles)


class Ball(nn.Module):
    """Says whether there is a ball in a volume."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv3d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv3d(8, 16, 3, (1, 2, 2), 1), nn.ReLU(),
            nn.Conv3d(16, 16, 3, 1, 1), nn.ReLU(),
        )  # fmt: skip
        self.fc = nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Any:
        """(N, 1, D, H, W) -> (N, 2)."""
        return self.fc(self.body(x).amax((2, 3, 4)))


def scans(count: int, seed: int) -> tuple[Tensor, Tensor, list[int]]:
    """Noise with a ball or a cube of the same size and brightness at a random place, and its slice."""
    rng, size = np.random.default_rng(seed), (12, 32, 32)
    made, labels, middles = [], [], []
    grid = np.stack(np.meshgrid(*map(np.arange, size), indexing="ij"), -1)
    for k in range(count):
        middle = [int(rng.integers(3, 9)), int(rng.integers(7, 25)), int(rng.integers(7, 25))]
        away = np.abs(grid - middle)
        inside = (away**2).sum(-1) <= 14 if k % 2 else away.max(-1) <= 2
        made.append(0.25 * rng.standard_normal(size) + 0.3 + 0.8 * inside)
        labels.append(k % 2)
        middles.append(middle[0])
    return torch.from_numpy(np.stack(made)).float().unsqueeze(1), torch.tensor(labels), middles


def volume() -> Image.Image:
    """A sheet of slices of a volume with a ball."""
    network = Ball()
    step = torch.optim.Adam(network.parameters(), 3e-3)
    for number in range(200):
        x, y, _ = scans(16, number)
        loss = F.cross_entropy(network(x), y)
        step.zero_grad()
        loss.backward()
        step.step()
    x, y, middles = scans(64, 10_000)
    with torch.no_grad():
        say(f"volumes: loss {float(loss):.3f}, right {float((network(x).argmax(1) == y).float().mean()):.2f}")
    loaded = seewhy.load(network.eval(), labels=["cube", "ball"])
    found = seewhy.explain(loaded, x[1:2], "ball", "occlusion", window=(3, 5, 5), stride=(1, 2, 2), progress=False)
    say(f"the ball's middle is slice {middles[1]}, the strongest slice is {found.strongest()}")
    return found.overlay()


def row(pictures: list[Image.Image], titles: list[str]) -> Image.Image:
    """Pictures side by side under their titles."""
    from seewhy.draw.sheet import grid

    return grid([pictures], column_titles=titles, cell=224)


if __name__ == "__main__":
    main()
