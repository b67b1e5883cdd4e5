"""What the grades of `Explanation.trust` are worth: maps of scenes whose truth is known, by good and bad methods.

    python benchmarks/trust.py --data DIR [--count 32] [--out trust-out]

Scenes and network are those of `cutouts.py`. On every scene maps are made by methods that are known to be good and by
some that are known to be bad: too few masks, too early a layer, pixel gradients, methods that show edges, noise, the
middle of the picture. Each map is graded without looking at the truth; then the truth is looked at: a map is right when
at least half of its strongest pixels, as many as the object has, lie on the object.

Thresholds were chosen on the first eight scenes alone; the table shows those and the others apart. Each scene is kept
as a line of a file in `--out`: a run that was ended goes on where it was. Intervals are over scenes: a scene's number
is the share of its maps of that grade that are right.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

import seewhy
from cutouts import network, samples
from seewhy import judging, specs
from seewhy.explainers import Explainer
from seewhy.inputs import prepare
from seewhy.metrics import Case
from seewhy.metrics.pointing_game import PointingGame
from seewhy.metrics.relevance_rank import RelevanceRank
from seewhy.metrics.trust_grade import TrustGrade
from seewhy.statistics import Judged, interval
from seewhy.trust import GRADES

CHOSEN_ON = 8  # scenes on which the thresholds were chosen
RIGHT = 0.5  # of the strongest pixels have to lie on the object
METHODS = {
    "recipro_cam": "recipro_cam", "grad_cam, early layer": "grad_cam(layer='module.blocks.3')",
    "activation_map": "activation_map", "gradient": "gradient", "input_x_gradient": "input_x_gradient",
    "smooth_grad, 4 samples": "smooth_grad(samples=4)", "deconvolution": "deconvolution",
    "occlusion": "occlusion(window=64, stride=32, perturbation_per_eval=16)",
    "rise, 40 masks": "rise(num_masks=40, perturbation_per_eval=16)", "random": "random_map", "centre": "centre_map",
}  # fmt: skip

Row = dict[str, Any]


def graded(model: Any, sample: seewhy.Sample) -> Iterator[Row]:
    """Each method's map of a scene: its grade, and how right it is."""
    batch = prepare(model, sample.image)
    inputs, view = batch.inputs, batch.views[0]
    for label, explainer in specs.explainers(model, METHODS, "softmax").items():
        assert isinstance(explainer, Explainer)
        found, _ = judging.explain(explainer, inputs, sample.target)
        case = judging.case(
            model, explainer, inputs, sample.target, found.raw[0, 0],
            lambda: judging.truth_of_target(sample, view, sample.target, (inputs.shape[2], inputs.shape[3])),
        )  # fmt: skip
        assert isinstance(case, Case)
        trust = TrustGrade(activation_fn="softmax", perturbation_per_eval=16).ask(case)
        yield {
            "method": label, "rank": RelevanceRank()(case), "pointing": PointingGame(tolerance=0)(case),
            **trust.as_dict(),
        }  # fmt: skip


def rows(model: Any, data: Path, count: int, seed: int, file: Path) -> list[list[Row]]:
    """The maps of each scene, the first scenes first; made where the file does not have them, the others before."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    known: dict[int, list[Row]] = {one["scene"]: one["maps"] for one in map(json.loads, lines)}
    scenes = list(enumerate(samples(model, data, count, seed)))
    file.parent.mkdir(parents=True, exist_ok=True)
    for number, sample in scenes[CHOSEN_ON:] + scenes[:CHOSEN_ON]:
        if number in known:
            continue
        known[number] = list(graded(model, sample))
        with file.open("a", encoding="utf-8") as out:
            out.write(json.dumps({"scene": number, "maps": known[number]}) + "\n")
        print(f"scene {number}", flush=True)
    return [known[number] for number in sorted(known)]


def per_scene(found: list[list[Row]], chosen: Any, value: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    """(scenes,) the mean value of the chosen maps of each scene; NaN where it has none."""
    each = [[float(value(row)) for row in scene if chosen(row)] for scene in found]
    return np.array([np.mean(some) if some else np.nan for some in each])


VALUES = {
    "right": lambda row: row["rank"] >= RIGHT, "strongest pixel on the object": lambda row: row["pointing"],
    "share of the strongest pixels": lambda row: row["rank"],
}  # fmt: skip


def by_grade(found: list[list[Row]]) -> str:
    """The table of the grades."""
    lines = [f"| grade | maps | scenes | {' | '.join(VALUES)} |", "|" + "---|" * (3 + len(VALUES))]
    for grade, word in enumerate(GRADES):
        maps = sum(row["grade"] == grade for scene in found for row in scene)
        each = [per_scene(found, lambda row, g=grade: row["grade"] == g, value) for value in VALUES.values()]
        lines.append(
            f"| {grade} ({word}) | {maps} | {int((~np.isnan(each[0])).sum())} | {' | '.join(map(cell, each))} |"
        )
    table = Judged(
        explainers=GRADES, metrics=tuple(VALUES), better=("higher",) * len(VALUES), ends=((0.0, 1.0),) * len(VALUES),
        values=np.array([[per_scene(found, lambda row, g=g: row["grade"] == g, v) for v in VALUES.values()]
                         for g in range(len(GRADES))]),
    )  # fmt: skip
    real = [f"{d.metric}: {d.better} over {d.worse}" for d in table.differences if d.real]
    return "\n".join([*lines, "", f"Real differences (paired by scene, adjusted): {'; '.join(real) or 'none'}."])


def by_part(found: list[list[Row]]) -> str:
    """The table of the questions: how often maps are right where the answer is for them, and where it is against."""
    lines = [
        "| question | right where the answer is for the map | right where it is against | maps |",
        "|---|---|---|---|",
    ]
    for name in (part["name"] for part in found[0][0]["parts"]):

        def answered(row: Row, good: bool, name: str = name) -> bool:
            return any(part["name"] == name and part["good"] is good for part in row["parts"])

        each = [per_scene(found, lambda row, g=good: answered(row, g), VALUES["right"]) for good in (True, False)]
        maps = [sum(answered(row, good) for scene in found for row in scene) for good in (True, False)]
        lines.append(f"| {name} | {' | '.join(map(cell, each))} | {maps[0]} and {maps[1]} |")
    return "\n".join(lines)


def by_method(found: list[list[Row]]) -> str:
    """The table of the methods: how often each grade, and how often right."""
    lines = [f"| method | {' | '.join(GRADES)} | right |", "|" + "---|" * (2 + len(GRADES))]
    for method in METHODS:
        own = [row for scene in found for row in scene if row["method"] == method]
        counts = [str(sum(row["grade"] == grade for row in own)) for grade in range(len(GRADES))]
        lines.append(f"| {method} | {' | '.join(counts)} | {np.mean([row['rank'] >= RIGHT for row in own]):.2f} |")
    return "\n".join(lines)


def cell(values: np.ndarray[Any, np.dtype[np.float64]]) -> str:
    known = values[~np.isnan(values)]
    if not len(known):
        return "no map"
    found = interval(known, ends=(0.0, 1.0))
    return f"{found.mean:.2f}" + ("" if found.why else f" [{found.low:.2f}, {found.high:.2f}]")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="where the stamps are kept; fetched if missing")
    parser.add_argument("--count", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--openvino", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--out", type=Path, default=Path("trust-out"))
    arguments = parser.parse_args()
    seewhy.keep_memory()
    torch.set_num_threads(1)
    model = network(arguments.openvino)
    found = rows(model, arguments.data, arguments.count, arguments.seed, arguments.out / "trust.jsonl")
    print(f"{datetime.now(UTC):%Y-%m-%d}: {len(found)} scenes, seed {arguments.seed}, {len(METHODS)} maps each; "
          f"{platform.machine()}, torch {torch.__version__}")  # fmt: skip
    for title, some in (("Other scenes", found[CHOSEN_ON:]), ("Scenes of the thresholds", found[:CHOSEN_ON])):
        if some:
            print(f"\n## {title}\n\n{by_grade(some)}\n\n{by_part(some)}\n\n{by_method(some)}")


if __name__ == "__main__":
    main()
