"""What is computed for pictures of one input size: predictions, maps, scores, uncertainty, counterfactuals.

What the network says about a picture comes out of the first explainer's own pass where that is possible, so that a run
costs no pass more than its explainers do. Explainers that look at the same layer share one pass.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from seewhy import judging
from seewhy.attribution import Attribution
from seewhy.errors import FAILURES, BadOutput, InvalidTarget
from seewhy.explainers import Baseline, Explainer
from seewhy.judging import Judgement
from seewhy.metrics import Case, Metric
from seewhy.models import FeatureModel, GradientModel, Model, at, varies
from seewhy.models.sharing import sharing
from seewhy.perturbation import exclusive
from seewhy.plain import readable
from seewhy.runs.folder.codec import decode
from seewhy.runs.folder.rows import CostRow, NoteRow, SaidRow, ScoreRow, TreeRow, UncertaintyRow
from seewhy.runs.folder.tasks import COUNTERFACTUAL, EXPLAIN, FEATURES, PREDICT, UNCERTAINTY
from seewhy.runs.work import matching as detecting
from seewhy.runs.work import vectors
from seewhy.runs.work.batches import Batches
from seewhy.runs.work.job import Tools
from seewhy.runs.work.picture import Picture, choose
from seewhy.targets import BoxTarget, Chosen, MaskTarget
from seewhy.types import Note, Outputs, activation

__all__ = ["everything"]


def everything(tools: Tools, batches: Batches, pictures: list[Picture]) -> None:
    """Does all tasks of pictures that have one input size."""
    first, together = _first(tools, pictures), _together_with(tools)
    _find_layer(tools, batches, pictures)
    for part in batches.parts(pictures, 1 if tools.sieve is not None else None) if together else [pictures]:
        with sharing() if together else contextlib.nullcontext():
            _predict(tools, batches, part, first)
            for label in together:
                _maps(tools, batches, label, part, first, filled=True)
    known = [p for p in pictures if p.classes is not None]
    for label in tools.explainers:
        if label in tools.unkept:
            _draw(tools, batches, label, known)
        elif label not in together:
            _maps(tools, batches, label, known, first)
    _features(tools, batches, known)
    for picture in known:
        with judging.remembering():
            _judge_all(tools, batches, picture)
    _uncertainty(tools, batches, known)
    for picture in known:
        _counterfactual(tools, batches, picture)


def _together_with(tools: Tools) -> list[str]:
    """Returns the explainers that look at a layer; where there are several, their passes are shared."""
    found = [
        label for label, one in tools.explainers.items()
        if one.needs in (FeatureModel, GradientModel) and getattr(one, "layer", "") != "" and not one.pixelwise
    ]  # fmt: skip
    return found if len(found) > 1 else []


def _maps(
    tools: Tools, batches: Batches, label: str, pictures: Sequence[Picture], first: str | None, filled: bool = False
) -> None:
    """Makes one explainer's maps for all pictures that want them, or whose stored maps are too inexact to be judged."""
    known, task = [p for p in pictures if p.classes is not None], tools.explain_task(label)
    todo = [p for p in known if p.wants(task) and not (label == first and p.probabilities is not None)]
    _explain(tools, batches, label, [*todo, *_lossy(tools, label, known, task)], filled)


def _find_layer(tools: Tools, batches: Batches, pictures: list[Picture]) -> None:
    """Looks for the layer that "auto" means before the first picture, whose cost would else be larger than others'."""
    model = tools.model
    asked = [label for label, one in tools.explainers.items() if _automatic(one)]
    asked = [label for label in asked if any(p.wants(tools.explain_task(label)) for p in pictures)]
    if not isinstance(model, FeatureModel) or not asked:
        return
    for picture in pictures[:1]:
        assert picture.loaded is not None
        # the explainer itself will raise the error
        with contextlib.suppress(*FAILURES), batches.limit(), model.opened():
            at(model, torch.tensor([picture.item.index])).auto_layer(picture.loaded.inputs)


def _automatic(explainer: Explainer) -> bool:
    values = explainer.parameters.values()
    return getattr(explainer, "layer", None) == "auto" or any(
        isinstance(v, Explainer) and _automatic(v) for v in values
    )


# ------------------------------------------------------------------------------------------------- predictions


def _first(tools: Tools, pictures: list[Picture]) -> str | None:
    """Returns the explainer whose own pass can say what the network predicts; None where a plain pass is better.

    A perturbation method makes hundreds of passes anyway; a method with one backward pass a class would make as many
    for every picture as for the one with the most classes, unless there is one class each.
    """
    if tools.sieve is not None or not all(p.wants(PREDICT) for p in pictures):
        return None
    several = any(p.loaded is not None and p.loaded.sample.labels is not None for p in pictures)
    for label, one in tools.explainers.items():
        if one.needs is Model or (one.pixelwise and several):
            continue
        if all(p.wants(tools.explain_task(label)) for p in pictures):
            return label
    return None


def _predict(tools: Tools, batches: Batches, pictures: list[Picture], first: str | None) -> None:
    fresh = [p for p in pictures if p.wants(PREDICT)]
    for picture in pictures:
        if PREDICT not in picture.item.tasks:
            picture.classes = picture.item.labels
            picture.detections = None if tools.sieve is None else list(picture.item.detections)
            if picture.classes is None:
                picture.fail_all("What the network says about the picture is not known from before.", PREDICT)
    if tools.sieve is not None and tools.sieve.masks:  # they are not kept, and seen again where they are needed
        before = [p for p in pictures if PREDICT not in p.item.tasks and p.detections and p.loaded is not None]
        batches.each(before, lambda batch: _seen_again(tools, batch), lambda p, error: p.fail_all(error, PREDICT))

    def work(batch: list[Picture]) -> None:
        inputs = _together(batch)
        if first is not None:
            chosen = Chosen(choose=lambda outputs: _chosen(tools, batch, outputs))
            _keep(tools, batch, first, *judging.explain(_maker(tools, first, batch), inputs, chosen))
            return
        with tools.model.opened():
            tools.model.check(inputs)
            said_so = _chosen if tools.sieve is None else _detected
            said_so(tools, batch, _model(tools, batch)(inputs))

    def failed(picture: Picture, error: BaseException) -> None:
        if first is not None and not isinstance(error, BadOutput | InvalidTarget):
            again.append(picture)
            picture.fail([tools.explain_task(first)], error, EXPLAIN, first)
        else:
            picture.classes = picture.probabilities = picture.detections = None
            picture.fail_all(error, PREDICT)

    again: list[Picture] = []
    batches.each(fresh, work, failed)
    if again:  # the explainer failed, which says nothing about the network
        _predict(tools, batches, again, None)


def _seen_again(tools: Tools, batch: list[Picture]) -> None:
    """Finds the instance masks of boxes that are known from before.

    Raises:
        BadOutput: the network finds something else now.
    """
    assert tools.sieve is not None
    with tools.model.opened():
        outputs = _probable(tools, _model(tools, batch)(_together(batch)))
    for i, picture in enumerate(batch):
        one = picture.loaded
        assert one is not None
        size = (one.inputs.shape[2], one.inputs.shape[3])
        found = detecting.found(outputs, i, one.sample, one.view, size, tools.sieve)
        if not detecting.alike(picture.detections or [], found.rows):
            raise BadOutput("The network finds other boxes than before, so it is not known whose masks these are.")
        picture.masks = found.masks


def _chosen(tools: Tools, batch: list[Picture], outputs: Outputs) -> Tensor:
    """Returns the classes (N, T) to explain, each row filled up with its first; keeps what the network predicts."""
    function = tools.job.activation_fn
    found = _probable(tools, outputs).classes.detach().float().cpu()
    alone = outputs.pair or exclusive(found, function)
    for picture, values in zip(batch, found, strict=True):
        assert picture.loaded is not None
        picture.classes = choose(values, picture.loaded.sample.labels, tools.job.threshold, alone)
        picture.probabilities = values
    return _filled(batch)


def _filled(batch: Sequence[Picture]) -> Tensor:
    """Returns the classes (N, T) of each picture; a row with fewer than T is filled up with its first class."""
    longest = max((1, *(len(p.classes or ()) for p in batch)))
    filled = [[*(p.classes or ()), *([(p.classes or (0,))[0]] * (longest - len(p.classes or ())))] for p in batch]
    return torch.tensor(filled)


def _detected(tools: Tools, batch: list[Picture], outputs: Outputs) -> None:
    """Keeps what a detector finds in each picture."""
    outputs = _probable(tools, outputs)
    if outputs.boxes is None or tools.sieve is None:
        raise BadOutput("The run began with a network that gives boxes, and now it gives none.")
    for i, picture in enumerate(batch):
        one = picture.loaded
        assert one is not None
        size = (one.inputs.shape[2], one.inputs.shape[3])
        found = detecting.found(outputs, i, one.sample, one.view, size, tools.sieve)
        picture.detections, picture.flagged, picture.masks = found.rows, found.labels, found.masks
        picture.notes += [
            f"Box {n + 1} lies on a crowd or on a difficult object: it counts neither as right nor as wrong."
            for n in found.ignored
        ]
        picture.classes = tuple(row.number for row in picture.detections)
        picture.probabilities = outputs.classes[i].detach().float().cpu()
        if picture.unfound:
            picture.notes.append(f"Nothing is found with a score above {tools.sieve.score_threshold:g}.")
        if outputs.dropped is not None and (count := int(outputs.dropped[i])):
            picture.notes.append(f"{count} boxes are NaN or infinite and were left out.")


def _probable(tools: Tools, outputs: Outputs) -> Outputs:
    """Returns the outputs as probabilities, all of them finite."""
    if outputs.meaning == "embedding":
        raise InvalidTarget(f"The network gives an embedding, which has no classes to explain: {outputs.how}.")
    function = tools.job.activation_fn
    if function == "auto":  # no picture could be read when the run began
        function = "softmax" if outputs.scores.shape[2] > 1 else "sigmoid"
    found = outputs.activate(activation(function))
    if not bool(torch.isfinite(found.classes).all()):
        raise BadOutput("The probabilities come to NaN or infinity. Check activation_fn.")
    return found


# -------------------------------------------------------------------------------------------------------- maps


def _explain(tools: Tools, batches: Batches, label: str, pictures: Iterable[Picture], filled: bool = False) -> None:
    """Makes maps of pictures with as many classes together; ``filled``: of all, in the order in which they come."""
    alike: dict[int, list[Picture]] = defaultdict(list)
    for picture in pictures:
        count = len(picture.classes or ())
        alike[min(count, 1) if filled else count].append(picture)

    def work(batch: list[Picture]) -> None:
        asked = _filled(batch)
        _keep(tools, batch, label, *judging.explain(_maker(tools, label, batch), _together(batch), asked))

    def failed(picture: Picture, error: BaseException) -> None:
        judged = [tools.score_task(label, metric) for metric in tools.metrics]
        picture.fail([tools.explain_task(label), *judged], error, EXPLAIN, label)

    def boxes(batch: list[Picture]) -> None:
        for picture in batch:
            _keep(tools, [picture], label, *_of_boxes(picture, _maker(tools, label, [picture])))

    if tools.sieve is not None:  # each picture has boxes of its own
        replace(batches, size=1).each([p for n in alike if n for p in alike[n]], boxes, failed)
        return
    for count, group in sorted(alike.items()):
        if count:
            batches.each(group, work, failed)


def _draw(tools: Tools, batches: Batches, label: str, pictures: Iterable[Picture]) -> None:
    """Makes the maps of a baseline, which needs no network, for metrics to judge; they are not kept."""
    explainer, task = tools.explainers[label], tools.explain_task(label)
    assert isinstance(explainer, Baseline)
    tasks = [task, *(tools.score_task(label, metric) for metric in tools.metrics)]

    def work(batch: list[Picture]) -> None:
        for picture in batch:
            began = time.perf_counter()
            drawn = np.ascontiguousarray(explainer.drawn(_together([picture]))[0].float().cpu().numpy())
            picture.maps.update({(target, label): drawn for target in picture.classes or ()})
            if picture.wants(task):
                picture.costs.append(CostRow(label, 0.0, 0.0, time.perf_counter() - began, None, []))

    batches.each(
        [picture for picture in pictures if any(picture.wants(one) for one in tasks)], work,
        lambda picture, error: picture.fail(tasks, error, EXPLAIN, label),
    )  # fmt: skip


def _of_boxes(picture: Picture, explainer: Explainer) -> tuple[Attribution, float]:
    """One map for each of a detector's boxes, all from the same passes; of its class, where a method knows no boxes."""
    inputs, found = _together([picture]), picture.detections or []
    if not explainer.classes_only:
        return judging.explain(explainer, inputs, _targets(picture))
    labels = sorted({row.class_index for row in found})
    of_classes, seconds = judging.explain(explainer, inputs, torch.tensor([labels]))
    rows = [labels.index(row.class_index) for row in found]
    note = f"{type(explainer).__name__} explains classes: boxes of one class share a map."
    shared = Note(text=note, kind="boxes that share a map")
    notes = [
        replace(one, target=at) if one.target is not None else one
        for one in of_classes.notes
        for at in ([None] if one.target is None else [n for n, row in enumerate(rows) if row == one.target])
    ]
    error = None if of_classes.error is None else of_classes.error[:, rows]
    return replace(of_classes, raw=of_classes.raw[:, rows], error=error, notes=(*notes, shared)), seconds


def _targets(picture: Picture) -> list[BoxTarget | MaskTarget]:
    assert picture.loaded is not None
    size = (picture.loaded.inputs.shape[2], picture.loaded.inputs.shape[3])
    return detecting.targets(picture.detections or [], picture.masks, picture.loaded.view, size)


def _keep(tools: Tools, batch: Sequence[Picture], label: str, found: Attribution, seconds: float) -> None:
    """Keeps for each picture its maps, its share of the cost, and the notes about it."""
    maps, n, task = found.raw.float().cpu().numpy(), len(batch), tools.explain_task(label)
    # What it needs, also where the pass was another's: a method's cost does not depend on those beside it.
    passes = ((found.passes.forward + found.passes.shared) / n, found.passes.backward / n)
    for i, picture in enumerate(batch):
        for t, target in enumerate(picture.classes or ()):
            picture.maps[target, label] = np.ascontiguousarray(maps[i, t])
        if picture.wants(task):  # else it was made again to be judged, and lies in the folder already
            picture.kept.update((target, label) for target in picture.classes or ())
            picture.costs.append(CostRow(label, *passes, seconds / n, found.layer, notes=_notes(picture, found, i)))


def _notes(picture: Picture, found: Attribution, image: int) -> list[NoteRow]:
    """Returns the notes about one picture's maps; notes without a class are about the whole picture.

    A picture with fewer classes than its neighbours in the batch has its first class again instead.
    """
    labels = picture.classes or ()
    return [
        NoteRow(note.kind, note.text, None if note.target is None else labels[note.target])
        for note in found.notes
        if note.image in (None, image) and (note.target is None or note.target < len(labels))
    ]


def _lossy(tools: Tools, label: str, pictures: Iterable[Picture], task: str) -> list[Picture]:
    """Returns the pictures whose stored map is to be judged but lost precision when it was kept: it is made again."""
    found = []
    for picture in pictures:
        judged = any(picture.wants(tools.score_task(label, metric)) for metric in tools.metrics)
        if not (judged or _weighs(tools, label, picture)) or task in picture.item.tasks:
            continue
        there = {row.label: (part, row) for part, row in picture.item.maps if row.explainer == label}
        if set(there) == set(picture.classes or ()):
            for target, (part, row) in there.items():
                data = tools.store.read(part, row.offset, row.size, row.checksum)
                shape = (row.height, row.width)
                picture.maps[target, label] = decode(data, row.encoding, shape, row.low, row.high)
        else:
            found.append(picture)
    return found


def _weighs(tools: Tools, label: str, picture: Picture) -> bool:
    """Says whether the maps of an explainer are wanted as the weights of features."""
    if tools.features is None or tools.features.explainer != label:
        return False
    return picture.wants(tools.single_task(FEATURES))


def _features(tools: Tools, batches: Batches, pictures: list[Picture]) -> None:
    if tools.features is None:
        return
    task, kept, seen = tools.single_task(FEATURES), tools.features, list[vectors.Layers]()

    def work(batch: list[Picture]) -> None:
        model, inputs = _model(tools, batch), _together(batch)
        assert isinstance(model, FeatureModel)
        if not seen:
            seen.append(vectors.layers(model, kept, inputs))
        maps = [{t: own for (t, label), own in p.maps.items() if label == kept.explainer} for p in batch]
        for picture, found in zip(batch, vectors.of(model, seen[0], inputs, maps), strict=True):
            picture.vectors = found

    batches.each([p for p in pictures if p.wants(task)], work, lambda p, error: p.fail([task], error, FEATURES))


# ------------------------------------------------------------------------------------------------------ scores


def _judge_all(tools: Tools, batches: Batches, picture: Picture) -> None:
    for e in tools.explainers:
        wanted = {m: metric for m, metric in tools.metrics.items() if picture.wants(tools.score_task(e, m))}
        for label in picture.classes or ():
            if wanted and (label, e) in picture.maps:
                for one in judging.judge(_case(tools, picture, (label, e), wanted), wanted, batches.limit, tools.quick):
                    _judged(tools, picture, one, (label, e, one.metric))


def _judged(tools: Tools, picture: Picture, one: Judgement, about: tuple[int, str, str]) -> None:
    label, e, m = about
    if one.error is not None:
        picture.fail_judging([tools.score_task(e, m)], one.error, about)
        return
    picture.scores.append(ScoreRow(label, e, m, one.value if one.value == one.value else None))
    if one.said:
        picture.said.append(SaidRow(label, e, m, readable(one.said)))


def _case(tools: Tools, picture: Picture, about: tuple[int, str], wanted: Mapping[str, Metric]) -> Case | BaseException:
    """Returns the map of a class by an explainer with what metrics need, or what stands against it."""
    assert picture.loaded is not None
    label, e = about
    inputs, needed = picture.loaded.inputs, any(one.needs_truth for one in wanted.values())
    size = (inputs.shape[2], inputs.shape[3])
    return judging.case(
        _model(tools, [picture]), _explainer(tools, e, [picture]), inputs,
        label if picture.detections is None else _targets(picture)[label],
        torch.from_numpy(picture.maps[label, e]).to(inputs.device),
        lambda: _truth(picture, label, size) if needed else None,
    )  # fmt: skip


def _truth(picture: Picture, label: int, size: tuple[int, int]) -> Tensor | None:
    """Returns a mask (H, W), bool: where a class is in the image, or the true box that a detector's box matches."""
    assert picture.loaded is not None
    sample, view = picture.loaded.sample, picture.loaded.view
    if picture.detections is None:
        return judging.truth(sample, view, label, size)
    box = detecting.true_box(picture.detections[label], sample)
    found = None if box is None else judging.truth_of_boxes([box], view, size)
    own = picture.detections[label].class_index
    if found is not None and label in picture.masks and own in sample.masks:  # the class's mask, within the true box
        known = judging.truth(sample, view, own, size)
        found = found if known is None else found & known
    return found if found is not None and bool(found.any()) else None


# ------------------------------------------------------------------------------- uncertainty and counterfactuals


def _uncertainty(tools: Tools, batches: Batches, pictures: list[Picture]) -> None:
    method = tools.uncertainty
    if method is None:
        return
    task = tools.single_task(UNCERTAINTY)

    def work(batch: list[Picture]) -> None:
        found = replace(method, network=_model(tools, batch))(_together(batch))
        columns = [one.cpu() for one in (found.mean, found.std, found.interval[..., 0], found.interval[..., 1])]
        for i, picture in enumerate(batch):
            picture.uncertainty = [
                UncertaintyRow(label, *(float(column[i, label]) for column in columns))
                for label in picture.classes or ()
            ]
            picture.entropy = float(found.entropy[i])
            picture.mutual_information = float(found.mutual_information[i])

    batches.each([p for p in pictures if p.wants(task)], work, lambda p, error: p.fail([task], error, UNCERTAINTY))


def _counterfactual(tools: Tools, batches: Batches, picture: Picture) -> None:
    method = tools.counterfactual
    if method is None or picture.loaded is None or not picture.classes:
        return
    task = tools.single_task(COUNTERFACTUAL)
    if not picture.wants(task):
        return
    try:
        asked = replace(method, network=_model(tools, [picture]) if tools.quick is None else tools.quick)
        with batches.limit():
            found = asked.run(picture.loaded.inputs, torch.tensor([picture.classes]))
    except FAILURES as error:  # the run goes on
        picture.fail([task], error, COUNTERFACTUAL)
        return
    for label, tree in zip(picture.classes, found.trees[0], strict=True):
        picture.trees.append(TreeRow(label, json.dumps(tree.as_dict())))


def _model(tools: Tools, batch: Sequence[Picture]) -> Model:
    """Returns the network for some pictures, whose further inputs may go with their places in the data."""
    return at(tools.model, torch.tensor([picture.item.index for picture in batch]))


def _explainer(tools: Tools, label: str, batch: Sequence[Picture]) -> Explainer:
    own = tools.explainers[label]
    return replace(own, network=_model(tools, batch)) if varies(tools.model) else own


def _maker(tools: Tools, label: str, batch: Sequence[Picture]) -> Explainer:
    """Returns what makes the maps: with the quicker form of the network, where it asks for scores alone."""
    return judging.quickly(_explainer(tools, label, batch), tools.quick)


def _together(batch: Sequence[Picture]) -> Tensor:
    return torch.cat([p.loaded.inputs for p in batch if p.loaded is not None])
