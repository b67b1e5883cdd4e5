"""Draws what the pages of explainers and metrics show, and measures what stands below the pictures.

    OMP_NUM_THREADS=1 PYTHONPATH=tests .venv/bin/python docs/method_pictures.py [NAME ...]

Every explainer on three photographs of scikit-image, explained by EfficientNet-Lite0 with default parameters; the
methods for transformers on drawn shapes, explained by the small trained transformer of the tests. Every metric on the
maps of four explainers for the tripod of the camera man. Needs the extras ``demo``, ``plot`` and ``test``; about ten
minutes on one thread.
"""

from __future__ import annotations

import json
import sys
from functools import cache
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw
from torch import Tensor

import seewhy
from seewhy import registry
from seewhy.demo import model, photographs
from seewhy.draw import overlay
from seewhy.draw.scale import scale_of
from seewhy.images.reading import read
from seewhy.maps import scale, upsample
from seewhy.metrics import Case, cases
from seewhy.models.function import FunctionModel

DOCS = Path(__file__).parent
IMAGES, DATA = DOCS / "images" / "methods", DOCS / "_data"
PHOTOGRAPHS = ("cat", "cup", "camera man")
TRANSFORMERS = ("vit_recipro_cam", "le_grad", "attention_rollout", "tis")
ELSEWHERE = ("rise_plus", "det_class_probability_map", "instance_maps")  # need what this network is not
SIDE = 256
JUDGED = ("grad_cam", "gradient", "random_map", "centre_map")
TITLE, CLASS, TRUTH = "camera man", 872, (228, 180, 408, 512)  # the tripod, in pixels of the original
CURVES = ("insertion_auc", "deletion_auc", "insertion", "deletion", "road", "irof")
COLOURS = {"grad_cam": "#3b6fd4", "gradient": "#d9822b", "random_map": "#8a8a8a", "centre_map": "#2f9e6e"}


def main() -> None:
    """Draws what is asked for, or everything."""
    torch.set_num_threads(1)
    seewhy.keep_memory()
    IMAGES.mkdir(parents=True, exist_ok=True)
    asked = sys.argv[1:]
    for kind, draw in (("explainers", explainer), ("metrics", metric)):
        for name in registry.names(kind):
            if name not in ELSEWHERE and (not asked or name in asked):
                note(kind, name, draw(name))


def note(kind: str, name: str, found: dict[str, Any]) -> None:
    """Writes down what one page needs."""
    place = DATA / f"{kind}.json"
    every = json.loads(place.read_text(encoding="utf-8")) if place.exists() else {}
    text = json.dumps(dict(sorted({**every, name: found}.items())), indent=1, ensure_ascii=False)
    place.write_text(text + "\n", encoding="utf-8")


# ---------------------------------------------------------------------------------------------------- explainers


def explainer(name: str) -> dict[str, Any]:
    """The pictures of one explainer, and what it took to make them."""
    return shapes(name) if name in TRANSFORMERS else photos(name)


def photos(name: str) -> dict[str, Any]:
    """On photographs."""
    found = seewhy.explain(network(), [photographs()[title] for title in PHOTOGRAPHS], None, name, progress=False)
    alone = registry.load("explainers", name).pixelwise
    shown = []
    for i, title in enumerate(PHOTOGRAPHS):
        save(found.seen(i), f"photo-{title}")
        picture, where = found.heatmap(i) if alone else found.seen(i, found.overlay(i)), found.scale_of(i)
        label, probability = found.predicted[i]
        shown.append(
            {
                "photo": f"photo-{stem(title)}.webp",
                "file": save(picture, f"{name}-{title}"),
                "title": f"{label.split(',')[0]} {probability:.2f}",
                "range": span(where.low, where.high),
                "signed": where.signed,
            }
        )
    return {"pictures": shown, **costs(found.passes.forward, found.passes.backward), "warnings": said(found.warnings)}


def shapes(name: str) -> dict[str, Any]:
    """On drawn shapes, with two classes of one picture."""
    from seewhy.datasets.shapes import NAMES, Shapes

    drawn = [Shapes(seed=7)[k] for k in (1, 4)]
    asked = [(k, c) for k, picture in enumerate(drawn) for c, there in enumerate(picture.labels) if there][:3]
    method = registry.load("explainers", name)
    keywords = {"activation_fn": "sigmoid"} if "activation_fn" in method.__dataclass_fields__ else {}
    inputs = torch.stack([as_input(drawn[k].pixels) for k, _ in asked])
    explain = method(small_transformer(), **keywords)
    explain(inputs[:1])  # finds the tokens, once for a network: not part of what a picture costs
    run = explain.run(inputs, torch.tensor([c for _, c in asked]))
    shown = []
    for i, (k, c) in enumerate(asked):
        picture = Image.fromarray(drawn[k].pixels).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        raw = run.raw[i : i + 1]
        probability = float(run.outputs.classes[i, c].sigmoid())
        where = scale_of(raw[0, 0].numpy(), explain.values)
        lit = upsample(torch.from_numpy(where.places(raw[0, 0].numpy()))[None, None], (SIDE, SIDE))[0, 0]
        shown.append(
            {
                "photo": save(picture, f"photo-shapes-{k}"),
                "file": save(overlay.overlay(picture, lit, signed=where.signed), f"{name}-{i}"),
                "title": f"{NAMES[c]} {probability:.2f}",
                "range": span(where.low, where.high),
                "signed": where.signed,
            }
        )
    return {"pictures": shown, **costs(run.passes.forward, run.passes.backward), "warnings": said(run.warnings)}


@cache
def network() -> Any:
    """EfficientNet-Lite0, once."""
    return model()


@cache
def small_transformer() -> Any:
    """The tests' trained transformer."""
    from support.shape_networks import trained

    return trained("vit")


def as_input(pixels: Any) -> Tensor:
    """(H, W, 3) bytes -> (3, H, W) in -1..1."""
    return torch.from_numpy(pixels).permute(2, 0, 1).float().div(127.5).sub(1)


def span(low: float, high: float) -> str:
    """Two values as people read them."""
    return f"{low:.2g} to {high:.2g}"


def costs(forward: int, backward: int) -> dict[str, int]:
    """Of one of the pictures, which were explained together."""
    return {"forward": round(forward / len(PHOTOGRAPHS)), "backward": round(backward / len(PHOTOGRAPHS))}


def said(warnings: tuple[str, ...]) -> list[str]:
    """What the reader of a page should know too: not how the weights were read, and each sentence once."""
    return list(dict.fromkeys(w for w in warnings if w not in network().notes))


def save(picture: Image.Image, title: str) -> str:
    """As a small file; its name."""
    name = f"{stem(title)}.webp"
    square = picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    square.save(IMAGES / name, quality=72, method=6)
    return name


def stem(title: str) -> str:
    """A title as a file's name."""
    return title.replace(" ", "-")


# ------------------------------------------------------------------------------------------------------- metrics


def metric(name: str) -> dict[str, Any]:
    """What one metric says about four maps of the tripod, with a curve or a picture where it has one."""
    judge = registry.load("metrics", name)()
    values, curves = {}, {}
    for each in JUDGED:
        seen: list[float] = []
        value = judge(replaced(case(each), seen, judge) if name in CURVES else case(each))
        values[each] = round(value, 4) if value == value else None
        curves[each] = seen
    found: dict[str, Any] = {"examples": values}
    if name in CURVES:
        found |= plot(name, curves)
    elif registry.load("metrics", name).needs_truth:
        found |= {
            "file": placed(),
            "alt": "Four maps of the camera man, with the tripod's box and each map's highest point",
            "caption": "The four maps that are judged, with the true box (by hand) and the highest point of each.",
        }
    return found


@cache
def case(name: str) -> Case:
    """The tripod's map by one explainer."""
    inputs, view = network().preprocessing(read(photographs()[TITLE]))
    truth = torch.zeros((1, *inputs.shape[2:]), dtype=torch.bool)
    x0, y0, x1, y1 = (round(v) for v in in_input(view, *inputs.shape[2:]))
    truth[:, max(0, y0) : y1, max(0, x0) : x1] = True
    method = registry.load("explainers", name)(network())
    return cases(method, inputs, CLASS, mask=truth)[0]


def in_input(view: Any, height: int, width: int) -> tuple[float, float, float, float]:
    """The tripod's box in pixels of the network's input."""
    left, top, right, bottom = view.box
    across, down = width / (right - left), height / (bottom - top)
    x0, y0, x1, y1 = TRUTH
    return (x0 - left) * across, (y0 - top) * down, (x1 - left) * across, (y1 - top) * down


def replaced(one: Case, seen: list[float], judge: Any) -> Case:
    """The same case, of a network that writes down the probability of every image that goes through."""

    def watched(images: Tensor) -> Tensor:
        with network().opened():  # a bare call would run it in the mode that it happens to be in
            scores = network()(images).classes
        seen.extend(scores.softmax(1)[:, CLASS].tolist())
        return scores

    own = FunctionModel(watched)
    return Case(
        model=own, image=one.image, target=one.target, saliency=one.saliency, truth=one.truth, explain=one.explain
    )


def plot(name: str, curves: dict[str, list[float]]) -> dict[str, str]:
    """The probability while pixels change, as a small drawing that suits a light and a dark page."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.rcParams |= {"svg.hashsalt": "seewhy", "svg.fonttype": "none", "font.size": 10}
    figure = Figure(figsize=(6.4, 2.9), layout="constrained")
    axes = figure.subplots()
    for each, values in curves.items():
        for points, style in lines(name, values):
            across = [100 * k / (len(points) - 1) for k in range(len(points))] if name != "road" else PERCENT
            axes.plot(across, points, style, color=COLOURS[each], linewidth=1.8, label=each if style == "-" else None)
    what = {"insertion": "shown", "insertion_auc": "shown"}.get(name, "removed")
    axes.set(xlabel=f"pixels {what}, %", ylabel="probability of tripod", ylim=(0, 1), xlim=(0, 100))
    grey(axes)
    file = f"metric-{name}.svg"
    figure.savefig(IMAGES / file, transparent=True, metadata={"Date": None, "Creator": None})
    how = "Solid: the most salient first; dashed: the least salient first. " if name == "road" else ""
    return {
        "file": file,
        "alt": f"The probability of tripod while pixels are {what}, for four maps",
        "caption": f"The photograph of the camera man. {how}The number is made of the area under such curves.",
    }


PERCENT = [10, 20, 30, 40, 50, 60, 70, 80, 90]


def lines(name: str, values: list[float]) -> list[tuple[list[float], str]]:
    """The curves in what went through the network, each with its style."""
    if name != "road":
        return [(values, "-")]
    half = len(values) // 2
    return [(values[:half], "-"), (values[half:], "--")]


def grey(axes: Any) -> None:
    """Lines and letters that can be read on white and on black."""
    ink = "#808080"
    axes.tick_params(colors=ink)
    axes.xaxis.label.set_color(ink)
    axes.yaxis.label.set_color(ink)
    for side, spine in axes.spines.items():
        spine.set_color(ink)
        spine.set_visible(side in ("left", "bottom"))
    axes.legend(frameon=False, labelcolor=ink)


@cache
def placed() -> str:
    """The four maps with the true box and their highest points, side by side."""
    canvas = Image.new("RGB", (len(JUDGED) * SIDE + (len(JUDGED) - 1) * 8, SIDE), "#808080")
    for k, name in enumerate(JUDGED):
        canvas.paste(marked(case(name)), (k * (SIDE + 8), 0))
    canvas.save(IMAGES / "metric-place.webp", quality=72, method=6)
    return "metric-place.webp"


def marked(one: Case) -> Image.Image:
    """A map with the truth's outline and a cross at its maximum."""
    factor = SIDE / one.saliency.shape[1]
    tile = overlay.colourise(scale(one.saliency[None, None])[0, 0]).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(tile)
    assert one.truth is not None
    rows, columns = one.truth.nonzero(as_tuple=True)
    corners = (columns.min(), rows.min(), columns.max(), rows.max())
    draw.rectangle([float(v) * factor for v in corners], outline="#5ad1ff", width=3)
    y, x = (float(v) * factor for v in divmod(int(one.saliency.argmax()), one.saliency.shape[1]))
    for colour, width in (("black", 5), ("white", 2)):
        draw.line([(x - 9, y), (x + 9, y)], fill=colour, width=width)
        draw.line([(x, y - 9), (x, y + 9)], fill=colour, width=width)
    return tile


if __name__ == "__main__":
    main()
