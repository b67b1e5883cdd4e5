"""A page for each explainer and each metric, made of what the registry, the docstrings and ``docs/_data`` say."""

from __future__ import annotations

import html
import json
import re
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from docstrings import Parameter, first_sentence, parameters, parse

from seewhy import registry
from seewhy.metrics import Cost

__all__ = ["FAMILIES", "KINDS", "about", "families", "index", "page"]

DOCS = Path(__file__).parent.parent
KINDS = {"explainers": "explainer", "metrics": "metric"}
NEEDS = {
    "Model": "scores only: any network, an exported file, or a black box",
    "FeatureModel": "a network that can be cut at a layer",
    "GradientModel": "gradients",
}
MODELS = {"transformer": "timm:vit_small_patch16_224", "detector": "my_package.models:detector"}  # for the examples
SIDE = 224  # of the picture that costs are stated for
FAMILIES = {
    "explainers": {
        "cam": "Class activation maps",
        "gradient": "Gradients of pixels",
        "transformer": "Transformers",
        "blackbox": "Black boxes",
        "detector": "Detectors and instance masks",
        "reference": "What any method must beat",
    },
    "metrics": {
        "follows": "Does the score follow the map?",
        "place": "Does the map lie on the object?",
        "stable": "Is the map stable?",
        "depends": "Does it depend on the class and the network?",
        "concise": "Is it concise?",
    },
}


@cache
def about(kind: str) -> dict[str, dict[str, Any]]:
    """What people wrote about each explainer or metric, by its name."""
    found: dict[str, dict[str, Any]] = yaml.safe_load((DOCS / "_data" / f"{kind}.yml").read_text(encoding="utf-8"))
    return found


@cache
def drawn(kind: str) -> dict[str, Any]:
    """What ``method_pictures.py`` measured while it drew, by name."""
    found: dict[str, Any] = json.loads((DOCS / "_data" / f"{kind}.json").read_text(encoding="utf-8"))
    return found


def families(kind: str) -> dict[str, list[str]]:
    """Title of a family -> names, in the order in which people wrote them down."""
    known = set(registry.names(kind))
    return {
        title: [name for name, entry in about(kind).items() if entry["family"] == family and name in known]
        for family, title in FAMILIES[kind].items()
    }


def page(kind: str, name: str) -> str:
    """The page of one explainer or metric, as Markdown."""
    cls = registry.load(kind, name)
    text = parse(sys.modules[cls.__module__].__doc__ or "")
    entry = about(kind)[name]
    parts = [
        f"# {cls.__name__}\n\n{_lead(cls.__name__, text.lead)}",
        _facts(kind, name, cls, entry),
        _picture(kind, name, entry),
        f"## What it computes\n\n{text.body}",
        f"**Source.** {text.source}" if text.source else "",
        f"## When to use it\n\n{entry['use']}",
        f"## When not\n\n{entry['avoid']}",
        f"## How to call it\n\n{_calls(kind, name, cls)}",
        f"## Parameters\n\n{_table(parameters(cls), kind)}",
        _related(kind, entry),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _lead(title: str, lead: str) -> str:
    """The first sentence, without the name that stands above it."""
    name, colon, rest = lead.partition(": ")
    same = re.sub(r"[\W_]", "", name).lower() == title.lower()
    return rest[:1].upper() + rest[1:] if colon and same else lead


def index(kind: str) -> str:
    """The overview of all explainers or metrics."""
    parts = [(DOCS / "_data" / f"{kind}-intro.md").read_text(encoding="utf-8").strip()]
    for title, names in families(kind).items():
        if names:
            parts.append(f"## {title}\n\n" + (_gallery(names) if kind == "explainers" else _list(kind, names)))
    return "\n\n".join(parts) + "\n"


def _facts(kind: str, name: str, cls: Any, entry: dict[str, Any]) -> str:
    rows = [("Name", f"`{name}`")]
    rows += _explainer_facts(cls, entry) if kind == "explainers" else _metric_facts(cls)
    return "\n".join(["| | |", "|---|---|", *(f"| **{title}** | {value} |" for title, value in rows)])


def _explainer_facts(cls: Any, entry: dict[str, Any]) -> Iterable[tuple[str, str]]:
    yield "Needs", entry.get("needs") or NEEDS[cls.needs.__name__]
    yield "Cost an image", entry["cost"]
    yield "Depends on the class", "no: the map is the same for every class" if cls.class_agnostic else "yes"
    yield "Detail", "single pixels" if cls.pixelwise else entry["detail"]


def _metric_facts(cls: Any) -> Iterable[tuple[str, str]]:
    low, high = (_end(value) for value in cls.range)
    best = cls.range[1] if cls.better == "higher" else cls.range[0]
    yield "Better", f"{cls.better}" + ("" if abs(best) == float("inf") else f"; {_end(best)} is best")
    yield "Range", f"{low} to {high}"
    yield "Needs", _metric_needs(cls)
    yield f"Cost a map ({SIDE} x {SIDE})", _cost(cls().cost(SIDE, SIDE))


def _metric_needs(cls: Any) -> str:
    needs = ["the map"]
    needs += ["a mask or box of the object"] if cls.needs_truth else []
    needs += ["the explainer, because it explains other images too"] if cls.needs_explainer else []
    return " and ".join(needs)


def _cost(cost: Cost) -> str:
    passes = _count(cost.forward, "forward pass")
    maps = f"{cost.explanations} further explanation{'s' if cost.explanations != 1 else ''}"
    said = " and ".join(([passes] if cost.forward else []) + ([maps] if cost.explanations else []))
    return said or "nothing but the map"


def _end(value: float) -> str:
    return {float("inf"): "infinity", float("-inf"): "minus infinity"}.get(value, f"{value:g}")


def _picture(kind: str, name: str, entry: dict[str, Any]) -> str:
    found = drawn(kind).get(name, {})
    if "pictures" in found:
        return _photographs(cls_name(kind, name), found, entry)
    if "picture" in entry:
        found = {**entry["picture"], **found}
    place = "" if "picture" in entry else "../images/methods/"
    parts = [f"![{found['alt']}]({place}{found['file']})"] if "file" in found else []
    parts.append(f"{found['caption']}\n{{ .caption }}" if "caption" in found else "")
    parts += [_examples(found["examples"])] if "examples" in found else []
    return "\n\n".join(part for part in parts if part)


def _photographs(title: str, found: dict[str, Any], entry: dict[str, Any]) -> str:
    """The photographs above, their maps below, with what each map is about and which values its colours stand for."""
    above = "".join(_figure(one["photo"], f"Photograph: {one['title']}", "") for one in found["pictures"])
    below = "".join(
        _figure(one["file"], f"{title}, {one['title']}", f"<b>{one['title']}</b><br>{one['range']}")
        for one in found["pictures"]
    )
    caption = _what_is_shown(found, drawn_shapes=entry["family"] == "transformer")
    warnings = "".join(f"\n\n    - {text}" for text in found["warnings"])
    said = f'\n\n!!! note "What seewhy said about these maps"{warnings}' if warnings else ""
    return f'<div class="pictures">{above}{below}</div>\n\n{caption}\n{{ .caption }}{said}'


def _what_is_shown(found: dict[str, Any], *, drawn_shapes: bool) -> str:
    """What the pictures are, what their colours mean and what they cost."""
    shown = (
        "Drawn shapes, with a small trained transformer (no package holds a trained ImageNet one), and"
        if drawn_shapes
        else "The part of each photograph that the network sees, and"
    )
    colours, key = (
        "Colours run from the map's lowest value to its strongest (of many cells, their 99.5th percentile), which",
        "key",
    )
    if any(one.get("signed") for one in found["pictures"]):
        colours, key = "White is zero, red speaks for the class, blue against it; the ends", "key signed"
    return (
        f"{shown} the map of the class below it with its probability. {colours} stand below: "
        f'<span class="{key}" role="img" aria-label="the colours, low to high"></span>. '
        f"Measured: {_count(found['forward'], 'forward pass')} and "
        f"{_count(found['backward'], 'backward pass')} a picture."
    )


def _figure(file: str, alt: str, caption: str) -> str:
    under = f"<figcaption>{caption}</figcaption>" if caption else ""
    return f'<figure><img src="../images/methods/{file}" alt="{html.escape(alt)}" loading="lazy">{under}</figure>'


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'es' if number != 1 else ''}"


def cls_name(kind: str, name: str) -> str:
    """The class's name."""
    return str(registry.load(kind, name).__name__)


def _examples(values: dict[str, float | None]) -> str:
    """One number for each of a few explainers."""
    head = " | ".join(f"[{name}](../explainers/{name}.md)" for name in values)
    cells = " | ".join("no data" if value is None else f"{value:.3f}" for value in values.values())
    return f"| {head} |\n|{'---|' * len(values)}\n| {cells} |"


def _calls(kind: str, name: str, cls: Any) -> str:
    if kind == "explainers":
        return _explainer_calls(name, cls)
    needs = ", mask=mask" if cls.needs_truth else ""
    return (
        "```python\n"
        f"from seewhy.metrics import {cls.__name__}\n\n"
        f"{cls.__name__}().evaluate(explainer, inputs, targets{needs})      # (N,) one number a map\n"
        "```\n\n"
        "```console\n"
        f"$ seewhy compare --explainers recipro_cam,rise --metrics {name} \\\n"
        "      --samples samples.csv --model timm:resnet50\n"
        "```"
    )


def _explainer_calls(name: str, cls: Any) -> str:
    first = "ood_net" if name == "rise_plus" else "network"
    spec = MODELS.get(about("explainers")[name]["family"], "timm:resnet50")
    shell = (
        f"\n\n```console\n$ seewhy explain photo.jpg --model {spec} --method {name}\n```"
        if name != "rise_plus"
        else "\n\nIt needs a trained `OoDNet`, so it is called from Python: [familiar and strange pictures](../ood.md)."
    )
    return (
        "```python\n"
        "import seewhy\n\n"
        f"explainer = seewhy.{cls.__name__}({first})\n"
        "saliency = explainer(inputs, targets)            # (N, T, H, W) in [0, 1]\n"
        "raw = explainer.attribute(inputs, targets)       # the same, signed and unscaled\n"
        "```" + shell
    )


def _table(found: list[Parameter], kind: str) -> str:
    if not found:
        return "None." if kind == "metrics" else "None but the network."
    rows = [
        f"| `{p.name}` | {_code(p.kind)} | {'must be given' if p.default is None else _code(p.default)} | {p.meaning} |"
        for p in found
    ]
    return "\n".join(["| name | type | default | meaning |", "|---|---|---|---|", *rows])


def _code(text: str) -> str:
    return "<code>" + text.replace("<", "&lt;").replace("|", "&#124;") + "</code>"


def _related(kind: str, entry: dict[str, Any]) -> str:
    names = entry.get("see", [])
    links = ", ".join(f"[{registry.load(kind, name).__name__}]({name}.md)" for name in names)
    return f"## See also\n\n{links}." if names else ""


def _gallery(names: list[str]) -> str:
    """A card for each: small picture, name, one sentence."""
    return '<div class="cards" markdown>\n\n' + "\n\n".join(map(_card, names)) + "\n\n</div>"


def _card(name: str) -> str:
    cls = registry.load("explainers", name)
    shown = drawn("explainers").get(name, {}).get("pictures", [])
    picture = f"[![](../images/methods/{shown[min(1, len(shown) - 1)]['file']})]({name}.md)\n\n" if shown else ""
    return (
        f'<div class="card" markdown>\n\n{picture}**[{cls.__name__}]({name}.md)**\n\n{first_sentence(cls)}\n\n'
        f"{about('explainers')[name]['cost']}\n{{ .cost }}\n\n</div>"
    )


def _list(kind: str, names: list[str]) -> str:
    rows = []
    for name in names:
        cls = registry.load(kind, name)
        cost = _cost(cls().cost(SIDE, SIDE))
        rows.append(f"| [{cls.__name__}]({name}.md) | {first_sentence(cls)} | {cls.better} | {cost} |")
    return "\n".join(["| metric | what it is | better | cost a map |", "|---|---|---|---|", *rows])
