"""What is computed for pictures of one input size: predictions, maps, scores, uncertainty, counterfactuals.

What the network says about a picture comes out of the first explainer's own pass where that is possible, so that a run
costs no pass more than its explainers do.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from seewhy.errors import BadOutput, InvalidTarget, SeewhyError
from seewhy.explainers import Explainer
from seewhy.maps import upsample
from seewhy.metrics import Case, Metric, explaining
from seewhy.models import FeatureModel, Model
from seewhy.perturbation import check_activation
from seewhy.runs._maps import decode
from seewhy.runs._picture import Picture, choose, exclusive, said
from seewhy.runs._reading import truth
from seewhy.runs.job import Tools
from seewhy.runs.rows import CostRow, ScoreRow, TreeRow, UncertaintyRow
from seewhy.targets import Chosen
from seewhy.types import Attribution, Outputs, activation

if TYPE_CHECKING:
    from seewhy.runs.work import Batches

__all__ = ["everything"]


def everything(tools: Tools, batches: Batches, pictures: list[Picture]) -> None:
    """Does all tasks of pictures that have one input size."""
    first = _first(tools, pictures)
    _find_layer(tools, pictures)
    _predict(tools, batches, pictures, first)
    known = [p for p in pictures if p.classes is not None]
    for label in tools.explainers:
        task = tools.explain_task(label)
        todo = [p for p in known if p.wants(task) and not (label == first and p.probabilities is not None)]
        _explain(tools, batches, label, [*todo, *_lossy(tools, label, known, task)])
    for picture in known:
        _judge_all(tools, picture)
    _uncertainty(tools, batches, known)
    for picture in known:
        _counterfactual(tools, picture)


def _find_layer(tools: Tools, pictures: list[Picture]) -> None:
    """Looks for the layer that "auto" means now, so that the first picture's cost is that of any other."""
    model = tools.model
    asked = [label for label, one in tools.explainers.items() if _automatic(one)]
    asked = [label for label in asked if any(p.wants(tools.explain_task(label)) for p in pictures)]
    if not isinstance(model, FeatureModel) or not asked:
        return
    for picture in pictures[:1]:
        assert picture.loaded is not None
        with contextlib.suppress(Exception), model.opened():  # what stands against it, the explainer will say
            model.auto_layer(picture.loaded.inputs)


def _automatic(explainer: Explainer) -> bool:
    values = explainer.parameters.values()
    return getattr(explainer, "layer", None) == "auto" or any(
        isinstance(v, Explainer) and _automatic(v) for v in values
    )


# ------------------------------------------------------------------------------------------------- predictions


def _first(tools: Tools, pictures: list[Picture]) -> str | None:
    """The explainer whose own pass can say what the network predicts; None where a plain pass is the better way.

    A perturbation method makes hundreds of passes anyway; a method with one backward pass a class would make as many
    for every picture as for the one with the most classes, unless there is one class each.
    """
    if not all(p.wants("predict") for p in pictures):
        return None
    several = any(p.loaded is not None and p.loaded.sample.labels is not None for p in pictures)
    for label, one in tools.explainers.items():
        if one.needs is Model or (one.pixelwise and several):
            continue
        if all(p.wants(tools.explain_task(label)) for p in pictures):
            return label
    return None


def _predict(tools: Tools, batches: Batches, pictures: list[Picture], first: str | None) -> None:
    fresh = [p for p in pictures if p.wants("predict")]
    for picture in pictures:
        if "predict" not in picture.item.tasks:
            picture.classes = picture.item.labels
            if picture.classes is None:
                picture.fail_all("What the network says about the picture is not known from before.", "predict")

    def work(batch: list[Picture]) -> None:
        inputs = _together(batch)
        if first is not None:
            began = time.perf_counter()
            found = tools.explainers[first].run(inputs, Chosen(choose=lambda outputs: _chosen(tools, batch, outputs)))
            _keep(tools, batch, first, found, time.perf_counter() - began)
            return
        with tools.model.opened():
            tools.model.check(inputs)
            _chosen(tools, batch, tools.model(inputs))

    def failed(picture: Picture, error: Exception) -> None:
        if first is not None and not isinstance(error, BadOutput | InvalidTarget):
            again.append(picture)
            picture.fail([tools.explain_task(first)], error, "explain", first)
        else:
            picture.classes = picture.probabilities = None
            picture.fail_all(error, "predict")

    again: list[Picture] = []
    batches.each(fresh, work, failed)
    if again:  # the explainer failed, which says nothing about the network
        _predict(tools, batches, again, None)


def _chosen(tools: Tools, batch: list[Picture], outputs: Outputs) -> Tensor:
    """(N, T) the classes that are explained, filled up with the first; notes what the network says."""
    function = tools.job.activation_fn
    check_activation(outputs, function)
    found = outputs.activate(activation(function)).classes.detach().float().cpu()
    if not bool(torch.isfinite(found).all()):
        raise BadOutput("The probabilities come to NaN or infinity. Check activation_fn.")
    alone = exclusive(found, function)
    for picture, values in zip(batch, found, strict=True):
        assert picture.loaded is not None
        picture.classes = choose(values, picture.loaded.sample.labels, tools.job.threshold, alone)
        picture.probabilities = values
    longest = max(1, *(len(p.classes or ()) for p in batch)) if batch else 1
    filled = [[*(p.classes or ()), *([(p.classes or (0,))[0]] * (longest - len(p.classes or ())))] for p in batch]
    return torch.tensor(filled)


# -------------------------------------------------------------------------------------------------------- maps


def _explain(tools: Tools, batches: Batches, label: str, pictures: Iterable[Picture]) -> None:
    alike: dict[int, list[Picture]] = defaultdict(list)
    for picture in pictures:
        alike[len(picture.classes or ())].append(picture)
    explainer = tools.explainers[label]

    def work(batch: list[Picture]) -> None:
        began = time.perf_counter()
        found = explainer.run(_together(batch), torch.tensor([p.classes for p in batch]))
        _keep(tools, batch, label, found, time.perf_counter() - began)

    def failed(picture: Picture, error: Exception) -> None:
        judged = [tools.score_task(label, metric) for metric in tools.metrics]
        picture.fail([tools.explain_task(label), *judged], error, "explain", label)

    for count, group in sorted(alike.items()):
        if count:
            batches.each(group, work, failed)


def _keep(tools: Tools, batch: Sequence[Picture], label: str, found: Attribution, seconds: float) -> None:
    """Each picture's maps, its share of the cost, and what is said about it."""
    maps, n, task = found.raw.float().cpu().numpy(), len(batch), tools.explain_task(label)
    passes = (found.passes.forward / n, found.passes.backward / n)
    for i, picture in enumerate(batch):
        for t, target in enumerate(picture.classes or ()):
            picture.maps[target, label] = np.ascontiguousarray(maps[i, t])
        if picture.wants(task):  # else it was made again to be judged, and lies in the folder already
            picture.kept.update((target, label) for target in picture.classes or ())
            picture.costs.append(CostRow(label, *passes, seconds / n, found.layer, said(found.warnings, i)))


def _lossy(tools: Tools, label: str, pictures: Iterable[Picture], task: str) -> list[Picture]:
    """Pictures whose map is there, is to be judged, and lost precision when it was kept: it is made again."""
    found = []
    for picture in pictures:
        judged = any(picture.wants(tools.score_task(label, metric)) for metric in tools.metrics)
        if not judged or task in picture.item.tasks:
            continue
        there = {row.label: (part, row) for part, row in picture.item.maps if row.explainer == label}
        if set(there) == set(picture.classes or ()):
            for target, (part, row) in there.items():
                data = tools.store.read(part, row.offset, row.size)
                shape = (row.height, row.width)
                picture.maps[target, label] = decode(data, row.encoding, shape, row.low, row.high)
        else:
            found.append(picture)
    return found


# ------------------------------------------------------------------------------------------------------ scores


def _judge_all(tools: Tools, picture: Picture) -> None:
    for e, explainer in tools.explainers.items():
        wanted = [m for m in tools.metrics if picture.wants(tools.score_task(e, m))]
        if not wanted:
            continue
        for label in picture.classes or ():
            if (label, e) not in picture.maps:
                continue
            case = _case(tools, picture, label, e, explainer, wanted)
            for m in wanted:
                _judge(tools, picture, case, (label, e, m))


def _case(
    tools: Tools, picture: Picture, label: int, e: str, explainer: Explainer, wanted: list[str]
) -> Case | Exception:
    """The map with what metrics need, or what stands against it."""
    assert picture.loaded is not None
    inputs = picture.loaded.inputs
    size = (inputs.shape[2], inputs.shape[3])
    raw = torch.from_numpy(picture.maps[label, e]).to(inputs.device)
    try:
        needed = any(tools.metrics[m].needs_truth for m in wanted)
        mask = truth(picture.loaded.sample, picture.loaded.view, label, size) if needed else None
        return Case(
            model=tools.model, image=inputs[0], target=label, saliency=upsample(raw[None, None], size)[0, 0],
            truth=None if mask is None else mask.to(inputs.device), explain=explaining(explainer),
        )  # fmt: skip
    except (SeewhyError, OSError) as error:
        return error


def _judge(tools: Tools, picture: Picture, case: Case | Exception, about: tuple[int, str, str]) -> None:
    label, e, m = about
    metric: Metric = tools.metrics[m]
    try:
        if isinstance(case, Exception):
            raise case
        value = float("nan") if metric.needs_truth and case.truth is None else metric(case)
    except Exception as error:  # the other metrics' results are not lost
        picture.fail([tools.score_task(e, m)], error, "score", e, m, label)
        return
    picture.scores.append(ScoreRow(label, e, m, value if value == value else None))


# ------------------------------------------------------------------------------- uncertainty and counterfactuals


def _uncertainty(tools: Tools, batches: Batches, pictures: list[Picture]) -> None:
    method = tools.uncertainty
    if method is None:
        return
    task = f"uncertainty:{tools.ids['uncertainty', '']}"

    def work(batch: list[Picture]) -> None:
        found = method(_together(batch))
        columns = [one.cpu() for one in (found.mean, found.std, found.interval[..., 0], found.interval[..., 1])]
        for i, picture in enumerate(batch):
            picture.uncertainty = [
                UncertaintyRow(label, *(float(column[i, label]) for column in columns))
                for label in picture.classes or ()
            ]
            picture.entropy = float(found.entropy[i])
            picture.mutual_information = float(found.mutual_information[i])

    batches.each([p for p in pictures if p.wants(task)], work, lambda p, error: p.fail([task], error, "uncertainty"))


def _counterfactual(tools: Tools, picture: Picture) -> None:
    method = tools.counterfactual
    if method is None or picture.loaded is None or not picture.classes:
        return
    task = f"counterfactual:{tools.ids['counterfactual', '']}"
    if not picture.wants(task):
        return
    try:
        found = method.run(picture.loaded.inputs, torch.tensor([picture.classes]))
    except Exception as error:  # the run goes on
        picture.fail([task], error, "counterfactual")
        return
    for label, tree in zip(picture.classes, found.trees[0], strict=True):
        picture.trees.append(TreeRow(label, json.dumps(tree.as_dict())))


def _together(batch: Sequence[Picture]) -> Tensor:
    return torch.cat([p.loaded.inputs for p in batch if p.loaded is not None])
