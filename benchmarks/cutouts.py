"""How good explainers are where the truth is known: photographic cut-outs on real textures, EfficientNet-Lite0.

Scenes come from `scenes.py` (deterministic from a seed, exact masks). The class asked for is the one of the object's
classes that the network finds likeliest; scenes where it is not among the five likeliest are left out, because
there is nothing to explain. Two studies:

    python benchmarks/cutouts.py table --data DIR --count 64        explainers by what the truth says
    python benchmarks/cutouts.py masks --data DIR --count 16        what quality a black box costs how many passes

Scenes are worked on in groups of four, each of which is kept as a file in `--out`: a run that was ended goes on where
it was, and more scenes may be asked for later.

Passes without gradients and hooks run through OpenVINO in float32 where it is installed (`pip install openvino`): the
same numbers to 1e-5, several times faster. `--no-openvino` switches that off.
"""

from __future__ import annotations

import argparse
import itertools
import platform
from collections.abc import Collection, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import seewhy
from scenes import Scene, scenes
from seewhy import demo, registry
from seewhy.metrics import Metric
from seewhy.metrics.adcc import ADCC
from seewhy.metrics.deletion import Deletion
from seewhy.metrics.insertion import Insertion
from seewhy.metrics.pointing_game import PointingGame
from seewhy.metrics.relevance_mass import RelevanceMass
from seewhy.metrics.relevance_rank import RelevanceRank

STEP = 1792  # pixels a step of insertion and deletion: 28 steps of a 224 x 224 input
GROUP = 4  # scenes that are kept together
DEAR = {"score_cam", "kernel_shap", "hierarchical_perturbation", "occlusion"}  # hundreds of passes each
SKIPPED = {  # baselines are rows of every comparison
    "guided_backprop", "rise_plus", "random_map", "centre_map",
    "attention_rollout", "le_grad", "tis", "vit_recipro_cam", "det_class_probability_map", "instance_maps",
}  # fmt: skip
BUDGETS = (100, 200, 500, 1000)


class Accelerated(nn.Module):
    """The same network; whole passes that nobody watches and nobody differentiates run through OpenVINO.

    While its weights are others than at first (MPRT) it is the module alone that runs.
    """

    def __init__(self, module: nn.Module, example: Tensor) -> None:
        super().__init__()
        self.module = module
        self._compiled = [_compiled(module, example)]  # in a list: it is no submodule
        self._first = [self._sign()]

    def _sign(self) -> Tensor:
        return torch.stack([weight.detach().flatten()[0] for weight in self.module.parameters()])

    def forward(self, x: Tensor) -> Tensor:
        watched = any(m._forward_hooks or m._forward_pre_hooks for m in self.module.modules())
        if torch.is_grad_enabled() or watched or torch.compiler.is_compiling() or torch.jit.is_tracing():
            return self.module(x)
        if not torch.equal(self._sign(), self._first[0]):
            return self.module(x)
        return torch.from_numpy(self._compiled[0](x.contiguous().numpy())[0].copy())


def _compiled(module: nn.Module, example: Tensor) -> Any:
    import openvino

    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads(), "NUM_STREAMS": 1}
    with torch.no_grad():
        converted = openvino.convert_model(module.eval(), example_input=example, input=[-1, *example.shape[1:]])
    return openvino.Core().compile_model(converted, "CPU", settings)


class Difference(Metric):
    """Insertion minus deletion; each alone also rewards maps that are merely small or large."""

    range = (-1.0, 1.0)

    def _judge(self, case: Any) -> float:
        insertion, deletion = (kind(pixels_per_step=STEP, perturbation_per_eval=16) for kind in (Insertion, Deletion))
        return insertion(case) - deletion(case)


def network(openvino: bool) -> Any:
    known: Any = demo.model()
    # A scene has the network's own size: its usual centre crop would cut objects off.
    model = seewhy.load(known, preprocessing=replace(known.preprocessing, crop_fraction=1.0))
    if not openvino:
        return model
    fast = Accelerated(model.module, torch.zeros(1, 3, 224, 224))
    return seewhy.load(fast, preprocessing=model.preprocessing, labels=model.labels)


def samples(model: Any, data: Path, count: int, seed: int) -> Iterator[seewhy.Sample]:
    """``count`` scenes of which the network sees the object."""
    found = (_seen(model, scene) for scene in scenes(data, 20 * count, seed))
    yield from itertools.islice((s for s in found if s is not None), count)


def _seen(model: Any, scene: Scene) -> seewhy.Sample | None:
    thing = scene.objects[0]
    inputs, _ = model.preprocessing(scene.picture)
    with model.opened():
        scores = model(inputs).classes[0]
    label = max(thing.classes, key=lambda c: float(scores[c]))
    if label not in scores.topk(5).indices.tolist():
        return None
    return seewhy.Sample(image=scene.picture, target=label, mask=thing.mask, name=thing.name)


def table(masks: int, dear: bool, follow: bool, only: Collection[str] = ()) -> tuple[dict[str, str], dict[str, Metric]]:
    """The explainers that make at most some hundred passes, and the metrics that look at the truth.

    Args:
        masks: of black-box methods.
        dear: the explainers that make hundreds of passes, too.
        follow: the metrics that ask whether the score follows the map, too; they take 61 passes a map.
        only: names of explainers, if not all are wanted.
    """
    budget = {name: f"{name}(num_masks={masks})" for name in ("rise", "hsic", "lime")}
    budget |= {"kernel_shap": f"kernel_shap(num_masks={max(masks, 200)})"}  # fewer do not determine 49 segments
    budget |= {"smooth_grad": "smooth_grad(samples=8)", "integrated_gradients": "integrated_gradients(steps=8)"}
    skipped = SKIPPED | (set() if dear else DEAR)
    names = only or [n for n in registry.names("explainers") if n not in skipped]
    explainers = {n: _fast(budget.get(n, n)) for n in names}
    metrics: dict[str, Metric] = {
        "pointing game": PointingGame(),
        "relevance rank": RelevanceRank(),
        "relevance mass": RelevanceMass(),
    }
    if follow:
        metrics |= {"insertion - deletion": Difference(), "ADCC": ADCC(perturbation_per_eval=16)}
    return explainers, metrics


def in_groups(
    model: Any, data: Iterator[seewhy.Sample], count: int, explainers: dict[str, str], metrics: dict[str, Metric],
    folder: Path,
) -> seewhy.Comparison:  # fmt: skip
    """The comparison on ``count`` samples, made group by group; groups that lie in the folder are read from there."""
    parts = []
    for at in range(0, count, GROUP):
        group = list(itertools.islice(data, min(GROUP, count - at)))
        path = folder / f"{at:04d}.json"
        if path.is_file() and tuple(s.name for s in group) == (kept := seewhy.Comparison.from_json(path)).pictures:
            parts.append(kept)
            continue
        parts.append(seewhy.compare(model, group, explainers, metrics, progress=False))
        parts[-1].to_json(path.with_suffix(".partial")).rename(path)
        print(f"{at + len(group)} of {count} scenes", flush=True)
    return joined(parts)


def joined(parts: list[seewhy.Comparison]) -> seewhy.Comparison:
    """One comparison of the pictures of several by the same explainers and metrics."""
    first = parts[0]
    if any((p.settings, p.explainers, p.metrics) != (first.settings, first.explainers, first.metrics) for p in parts):
        raise SystemExit("The groups in the folder were made with other settings. Give --out another folder.")
    return replace(
        first,
        values=np.concatenate([p.values for p in parts], axis=2),
        **{name: np.concatenate([getattr(p, name) for p in parts], axis=1) for name in
           ("forward", "backward", "seconds")},
        judging=np.sum([p.judging for p in parts], axis=0),
        pictures=tuple(name for p in parts for name in p.pictures),
        failures=tuple(one for p in parts for one in p.failures),
    )  # fmt: skip


def _fast(spec: str) -> str:
    kind = registry.load("explainers", spec.partition("(")[0])
    if "perturbation_per_eval" not in kind.__dataclass_fields__:
        return spec
    return f"{spec[:-1]}, perturbation_per_eval=16)" if spec.endswith(")") else f"{spec}(perturbation_per_eval=16)"


def efficiency() -> tuple[dict[str, str], dict[str, Metric]]:
    """RISE with few masks, HSIC and HiPe beside RISE as published with 4000."""
    fast = "perturbation_per_eval=16"
    explainers = {
        "plain 4000": f"rise(num_masks=4000, estimator='plain', {fast})",
        "plain 500": f"rise(num_masks=500, estimator='plain', {fast})",
        **{f"centred {n}": f"rise(num_masks={n}, estimator='centred', paired=False, {fast})" for n in BUDGETS},
        **{f"regression {n}": f"rise(num_masks={n}, {fast})" for n in BUDGETS},
        "regression, tolerance 0.1": f"rise(num_masks=1000, tolerance=0.1, {fast})",
        "HSIC 500": f"hsic(num_masks=500, {fast})",
        "HiPe": f"hierarchical_perturbation({fast})",
    }
    metrics: dict[str, Metric] = {
        "insertion - deletion": Difference(), "pointing game": PointingGame(tolerance=0),
        "relevance mass": RelevanceMass(),
    }  # fmt: skip
    return explainers, metrics


def markdown(found: seewhy.Comparison) -> str:
    """The table, ready for the documentation; the best mean under each metric is bold, and so is all that it does not
    really beat.
    """
    head = ["method", *(f"{m} ({b})" for m, b in zip(found.metrics, found.better, strict=True)),
            "forward", "backward", "seconds"]  # fmt: skip
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for explainer in found.explainers:
        cells = [_cell(found, explainer, metric) for metric in found.metrics]
        forward, backward, seconds = found.cost(explainer)
        lines.append(
            "| " + " | ".join([explainer, *cells, f"{forward:.0f}", f"{backward:.0f}", f"{seconds:.2f}"]) + " |"
        )
    return "\n".join(lines)


def _cell(found: seewhy.Comparison, explainer: str, metric: str) -> str:
    one = found.mean(explainer, metric)
    if not one.n:
        return "no data"
    sign = 1 if found.better[found.metrics.index(metric)] == "higher" else -1
    rows = [found.mean(e, metric) for e in found.explainers]
    best = max((r for r in rows if r.n), key=lambda r: sign * r.mean).explainer
    top = explainer == best or explainer not in found.beaten(best, metric)
    text = f"{one.mean:.3f}"
    return f"{'**' if top else ''}{text}{'**' if top else ''} [{one.low:.3f}, {one.high:.3f}]" + (
        f" n={one.n}" if one.missing else ""
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=["table", "masks"])
    parser.add_argument("--data", type=Path, required=True, help="where the stamps are kept; fetched if missing")
    parser.add_argument("--count", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--masks", type=int, default=100, help="of the black-box methods in the table")
    parser.add_argument("--dear", action="store_true", help="the explainers that make hundreds of passes, too")
    parser.add_argument("--only", nargs="+", default=[], help="these explainers alone, also those that --dear adds")
    parser.add_argument("--follow", action="store_true", help="insertion, deletion and ADCC, too")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--openvino", action=argparse.BooleanOptionalAction, default=find_spec("openvino") is not None)
    parser.add_argument("--out", type=Path, default=Path("cutouts-out"))
    arguments = parser.parse_args()
    seewhy.keep_memory()
    torch.set_num_threads(arguments.threads)
    model = network(arguments.openvino)
    data = list(samples(model, arguments.data, arguments.count, arguments.seed))
    folder = arguments.out / arguments.study
    asked = (arguments.masks, arguments.dear, arguments.follow, arguments.only)
    explainers, metrics = table(*asked) if arguments.study == "table" else efficiency()
    found = in_groups(model, iter(data), arguments.count, explainers, metrics, folder / "groups")
    found.save(folder)
    share = np.mean([np.mean(np.asarray(s.mask)) for s in data])
    print(f"{datetime.now(UTC):%Y-%m-%d}: {len(data)} scenes, seed {arguments.seed}, object {share:.0%} of the picture")
    print(f"{platform.machine()}, {arguments.threads} threads, Python {platform.python_version()}, torch "
          f"{torch.__version__}, openvino {version('openvino') if arguments.openvino else 'not used'}, "
          f"{np.nansum(found.seconds):.0f} s for all maps\n")  # fmt: skip
    print(markdown(found))
    print()
    print(found)


if __name__ == "__main__":
    main()
