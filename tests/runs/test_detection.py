"""A run over a detector: one map a box, what is true of the boxes, and what is never computed again."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import seewhy
from seewhy import BoxTarget, Occlusion, cli, registry
from seewhy.attribution import Attribution
from seewhy.errors import InvalidInput
from seewhy.explainers import Explainer
from seewhy.metrics import InsertionAUC, Metric
from seewhy.runs.folder.store import Store
from seewhy.runs.query.explanations import explanation
from seewhy.runs.query.run import Run
from seewhy.runs.query.status import status
from seewhy.types import Outputs
from support.detection_runs import HALF_TRUE, OCCLUSION, QUARTERS, Quarters, data, model, run, scene, tensor
from support.networks import detector
from support.run_folders import Folder, three_pictures
from support.run_jobs import content, rows
from support.typed import present, unchecked

pytestmark = pytest.mark.slow

POINTING, INSERTION = "pointing_game(tolerance=0)", "insertion_auc(steps=8, baseline=0.0)"


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("detection") / "done"
    assert run(place).left == 0
    return place


def records(place: Path) -> list[Any]:
    return list(Run(place).records())


def flags(record: Any) -> list[tuple[str, str | None]]:
    names = ("red", "green")
    return [(names[record.class_of(n)], one.flag) for n, one in record.labels.items()]


# ----------------------------------------------------------------------------------------------- what is computed


def test_boxes_and_their_flags(done: Path) -> None:
    two, none, unknown, broken = records(done)
    assert flags(two) == [("red", "TP"), ("green", "FP"), ("red", "FP"), ("green", "FN")]
    found = list(two.detections.values())
    large = [tuple(2.0 * side for side in box) for box in (QUARTERS[0], QUARTERS[1], QUARTERS[3], HALF_TRUE)]
    assert [one.box for one in found] == [pytest.approx(box) for box in large]
    assert [one.overlap for one in found] == pytest.approx([1, 0.375, 0, 1])
    assert [one.match for one in found] == [0, None, None, 1]
    direct = seewhy.detections(model(), data()[0]["image"])
    assert [one.probability for one in two.labels.values()][:3] == pytest.approx([one.score for one in direct])
    assert two.labels[3].probability == pytest.approx(0.375 * direct[1].score)
    assert (none.labels, none.maps, none.failures) == ({}, {}, ())
    assert none.warnings == ("Nothing is found with a score above 0.5.",)
    assert flags(unknown) == [("green", None)]
    assert unknown.detections[0].overlap is None
    (failure,) = broken.failures
    assert failure.task == "read"
    assert Run(done).counts().flags == {"TP": 1, "FN": 1, "FP": 2, "TN": 0}


def test_maps_are_those_of_each_box(done: Path) -> None:
    net, read, image = model(), Run(done), data()[0]["image"]
    inputs, _ = net.preprocessing(image)
    explainer = Occlusion(net, window=8, stride=8, baseline=0.0)
    for n, (box, label) in enumerate([(QUARTERS[0], 0), (QUARTERS[1], 1), (QUARTERS[3], 0), (HALF_TRUE, 1)]):
        target = BoxTarget(box=unchecked(tuple(map(float, box))), label=label)
        want = explainer.attribute(inputs, target, native=True)[0, 0].numpy()
        np.testing.assert_allclose(present(read.map("000000", n, OCCLUSION)), want, atol=1e-6)


def test_all_boxes_come_from_the_same_passes(done: Path) -> None:
    cost = records(done)[0].costs[OCCLUSION]
    assert cost.forward == 1 + 4 * 6  # one look, and a window for each of 4 x 6 places: not that for each box


def test_what_is_told(tmp_path: Path) -> None:
    summary = run(tmp_path / "out")
    assert "In 1 pictures the detector finds nothing: see the pages, or lower score_threshold." in summary.notes
    assert [(name, one.task) for name, one in summary.failures] == [("000003", "read")]
    assert (summary.failed, summary.maps) == (1, 5)
    assert "threshold 0.5" in str(status(tmp_path / "out"))


def test_a_function_is_a_detector_too(tmp_path: Path) -> None:
    run(tmp_path / "out", model=detector, data=[{"image": tensor(q0=(0, 0.9))}], metrics=())
    (record,) = records(tmp_path / "out")
    assert record.detections[0].box == (0, 0, 24, 16)
    assert record.labels[0].probability == pytest.approx(0.9)


def test_methods_that_explain_classes_give_the_boxes_of_a_class_one_map(tmp_path: Path) -> None:
    image = tensor(q0=(0, 0.8), q3=(0, 0.6), q1=(1, 0.7))
    run(tmp_path / "out", model=Quarters(), data=[{"image": image}], explainers=["det_class_probability_map"])
    (record,), read = records(tmp_path / "out"), Run(tmp_path / "out")
    maps = [present(read.map(record.sample, n, "det_class_probability_map")) for n in range(3)]
    np.testing.assert_allclose(maps[0], [[0.8, 0], [0, 0.6]], atol=1e-6)
    np.testing.assert_allclose(maps[1], [[0.0, 0.7], [0.0, 0.0]], atol=1e-6)
    assert np.array_equal(maps[0], maps[2])
    note = "DetClassProbabilityMap explains classes: boxes of one class share a map."
    assert note in record.costs["det_class_probability_map"].sentences(str)
    assert not record.failures


# --------------------------------------------------------------------------------------------------------- matching


def test_each_true_box_is_matched_once_by_the_best(tmp_path: Path) -> None:
    """Two true boxes in one quarter, of which the only candidate takes the better; nothing matches the wrong class."""
    near, nearer = [0.0, 0.0, 24.0, 11.0], [0.0, 0.0, 24.0, 15.0]
    sample = {"image": tensor(q0=(0, 0.9), q1=(1, 0.8)), "labels": [0, 0, 0], "boxes": [near, nearer, [24, 0, 48, 16]]}
    run(tmp_path / "out", data=[sample])
    (record,) = records(tmp_path / "out")
    assert flags(record) == [("red", "TP"), ("green", "FP"), ("red", "FN"), ("red", "FN")]
    assert [one.match for one in record.detections.values()] == [1, None, 0, 2]
    assert record.detections[0].overlap == pytest.approx(15 / 16)
    assert record.labels[3].probability == 0
    assert record.costs[OCCLUSION].sentences(lambda number: f"Box {number + 1}")[-1] == (
        "Box 4: no box matched. No candidate of the network with a score for class 0 overlaps it, so the map shows "
        "nothing."
    )


def test_a_class_of_the_truth_that_the_network_does_not_have(tmp_path: Path) -> None:
    good = {"image": tensor(q0=(0, 0.9)), "labels": [0], "boxes": [[0, 0, 24, 16]]}
    bad = {"image": tensor(q1=(0, 0.9)), "labels": [7], "boxes": [[0, 0, 24, 16]]}
    run(tmp_path / "out", model=model(labels=()), data=[good, bad])
    first, second = records(tmp_path / "out")
    assert flags(first) == [("red", "TP")]
    assert [one.reason for one in second.failures] == [
        "Class 7 is said to be there, but the network has 2 classes, 0 to 1."
    ]


# ---------------------------------------------------------------------------------------------------------- metrics


@dataclass(frozen=True, eq=False, repr=False)
class FirstQuarter(Explainer):
    """Points into the first quarter, whatever is asked, and at the last one least of all."""

    def _explain(self, model: Any, inputs: Any, request: Any) -> Attribution:
        outputs = model(inputs)
        found = request.resolve(outputs)
        raw = torch.tensor([[3.0, 2.0], [1.0, 0.0]]).expand(len(inputs), found.count, 2, 2)
        return Attribution(raw=raw.clone(), outputs=outputs, targets=found)


class LastQuarter(FirstQuarter):
    """The other way round."""

    def _explain(self, model: Any, inputs: Any, request: Any) -> Attribution:
        found = super()._explain(model, inputs, request)
        return replace(found, raw=3 - found.raw)


def judged(place: Path, metric: str) -> dict[str, list[float | None]]:
    """Of the red boxes in the first and in the last quarter, both of them true."""
    image = tensor(q0=(0, 0.8), q3=(0, 0.6))
    sample = {"image": image, "labels": [0, 0], "boxes": [list(QUARTERS[0]), list(QUARTERS[3])]}
    net = Quarters()
    run(place, model=net, data=[sample], metrics=[metric], explainers=[FirstQuarter(net), LastQuarter(net)])
    (record,), read = records(place), Run(place)
    assert [one.flag for one in record.labels.values()] == ["TP", "TP"]
    return {e: [record.scores[n, e, read.metrics[0]] for n in (0, 1)] for e in read.drawn}


def test_pointing_is_at_the_own_true_box(tmp_path: Path) -> None:
    """Not at any of the class: both explainers point at a red thing, each at one of the two."""
    assert list(judged(tmp_path / "out", POINTING).values()) == [[1.0, 0.0], [0.0, 1.0]]


def test_insertion_follows_the_own_box(tmp_path: Path) -> None:
    """A quarter of the pixels brings its box from 0 to p; first it gives 7/8 of the area, last 1/8.

    A map of 2 x 2, enlarged, is highest where its quarter is, but not exactly along the quarter's sides.
    """
    first, last = judged(tmp_path / "out", INSERTION).values()
    assert first == pytest.approx([7 / 8, 1 / 8], abs=0.03)
    assert last == pytest.approx([1 / 8, 7 / 8], abs=0.03)


def test_the_score_is_that_of_the_metric_alone(done: Path) -> None:
    net, (record, *_) = model(), records(done)
    inputs, _ = net.preprocessing(data()[0]["image"])
    target = BoxTarget(box=unchecked(tuple(map(float, QUARTERS[3]))), label=0)
    want = InsertionAUC(steps=8, baseline=0.0).evaluate(
        Occlusion(net, window=8, stride=8, baseline=0.0), inputs, target
    )
    assert record.scores[2, OCCLUSION, INSERTION] == pytest.approx(float(want[0]), abs=1e-6)
    assert record.scores[1, OCCLUSION, POINTING] is None  # a false positive has no true box


@dataclass(frozen=True, kw_only=True, eq=False)
class Broken(Metric):
    """Fails at what is green."""

    def _judge(self, case: Any) -> float:
        if case.target.label == 1:
            raise InvalidInput("Not green.")
        return 0.5


def test_a_metric_that_fails_names_class_and_box(tmp_path: Path) -> None:
    run(tmp_path / "out", data=data()[:1], metrics=[Broken()], baselines=False)
    (record,) = records(tmp_path / "out")
    assert [(one.label, one.reason) for one in record.failures] == [(1, "Box 2: Not green."), (1, "Box 4: Not green.")]
    assert {n: value for (n, *_), value in record.scores.items()} == {0: 0.5, 2: 0.5}


# ----------------------------------------------------------------------------------------------- never done again


def test_resuming_and_adding(done: Path, tmp_path: Path) -> None:
    together, step = tmp_path / "together", tmp_path / "step"
    both = [OCCLUSION, "gradient"]
    run(together, explainers=both)
    run(step, metrics=())
    again = run(step, metrics=())
    assert (again.computed, again.skipped, again.maps) == (0, 4, 0)
    added = run(step, explainers=both, metrics=())
    assert (added.maps, added.left) == (5, 0)
    run(step, explainers=both)
    one, other = records(together), records(step)
    for a, b in zip(one, other, strict=True):
        assert (a.labels, a.detections, a.scores.keys()) == (b.labels, b.detections, b.scores.keys())
        for key, value in a.scores.items():
            assert b.scores[key] == (None if value is None else pytest.approx(value, abs=1e-6))
        for n, e in a.maps:
            np.testing.assert_array_equal(Run(together).map(a.sample, n, e), Run(step).map(b.sample, n, e))


def test_shards_and_batches_change_nothing(done: Path, tmp_path: Path) -> None:
    for part in (1, 2):
        run(tmp_path / "out", chunk=1, batch=1, shard=(part, 2))
    assert content(tmp_path / "out") == content(done)


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({"score_threshold": 0.65}, [("red", "TP"), ("green", "FP"), ("green", "FN")]),
        ({"max_detections": 1}, [("red", "TP"), ("green", "FN")]),
        ({"score_threshold": 0.95}, [("red", "FN"), ("green", "FN")]),
    ],
)
def test_the_sieve(tmp_path: Path, changes: Any, kept: Any) -> None:
    run(tmp_path / "out", data=data()[:1], **changes)
    (record,) = records(tmp_path / "out")
    assert flags(record) == kept
    assert Run(tmp_path / "out").settings["detection"] == {
        "score_threshold": 0.5, "nms_threshold": 0.5, "max_detections": 20, **changes
    }  # fmt: skip


def twice(x: torch.Tensor) -> Outputs:
    """Each candidate a second time, a fourth larger, with nine tenths of its score."""
    found = detector(x)
    boxes = present(found.boxes)
    larger = boxes + torch.tensor([0.0, 0.0, 0.0, 4.0])
    scores = torch.cat([found.scores, 0.9 * found.scores], 1)
    return Outputs(scores=scores, boxes=torch.cat([boxes, larger], 1), activated=True)


def test_a_second_box_of_one_thing_is_a_false_positive(tmp_path: Path) -> None:
    sample = {"image": tensor(q0=(0, 0.9)), "labels": [0], "boxes": [[0, 0, 24, 16]]}
    run(tmp_path / "out", model=twice, data=[sample], nms_threshold=None)
    (record,) = records(tmp_path / "out")
    assert [(one.flag, one.truth) for one in record.labels.values()] == [("TP", True), ("FP", False)]
    assert [(one.overlap, one.match) for one in record.detections.values()] == [(1, 0), (pytest.approx(0.8), None)]


def test_suppression(tmp_path: Path) -> None:
    one = [{"image": tensor(q0=(0, 0.9))}]
    counts = {}
    for overlap in (0.5, 0.9, None):
        run(tmp_path / str(overlap), model=twice, data=one, metrics=(), nms_threshold=overlap)
        counts[overlap] = len(records(tmp_path / str(overlap))[0].labels)
    assert counts == {0.5: 1, 0.9: 2, None: 2}


def test_another_sieve_is_another_run(done: Path) -> None:
    with pytest.raises(InvalidInput) as said:
        run(done, max_detections=3)
    assert str(said.value) == (
        f"{str(done)!r} has a run of detections by {{'score_threshold': 0.5, 'nms_threshold': 0.5, "
        "'max_detections': 20}, not {'score_threshold': 0.5, 'nms_threshold': 0.5, 'max_detections': 3}. "
        "Results are not mixed: use another folder."
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"uncertainty": {}}, "Uncertainty is about classes, and Quarters is a detector. Leave it out."),
        ({"counterfactual": {}}, "Hierarchical occlusion is about classes, and Quarters is a detector. Leave it out."),
        ({"score_threshold": 2}, "score_threshold must be a number from 0 to 1, got 2."),
        ({"max_detections": 0}, "max_detections must be a positive integer, got 0."),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, changes: Any, message: str) -> None:
    with pytest.raises(InvalidInput) as said:
        run(tmp_path / "out", **changes)
    assert str(said.value) == message


# ------------------------------------------------------------------------------------------------------- the folder


def test_formats(done: Path, tmp_path: Path) -> None:
    """A classifier's run stays as it was, so that earlier readers read it; a detector's is refused by them."""
    assert Store(done).settings()["format"] == 2
    plain = tmp_path / "plain"
    run(plain, model=lambda x: x.mean((2, 3)), data=[{"image": tensor(q0=(0, 0.9))}], metrics=())
    assert Store(plain).settings()["format"] == 1
    assert "detection" not in Store(plain).settings()
    (part,) = (plain / "parts").glob("*.parquet")
    assert "detections" not in pq.read_schema(part).names
    assert rows(plain)[0]["detections"] == []
    assert records(plain)[0].detections == {}


def test_parts_with_and_without_detections_are_read_together(tmp_path: Path) -> None:
    place = tmp_path / "out"
    run(place, data=data()[1:3], chunk=1)  # nothing is found in the first
    assert [len(one.labels) for one in records(place)] == [0, 1]
    Store(place).compact(everything=True)
    assert [len(one.labels) for one in records(place)] == [0, 1]


def test_filters_and_means_are_by_class(done: Path) -> None:
    read = Run(done)
    assert [hit.labels for hit in read.samples(labels=[0])] == [(0, 2)]
    assert [(hit.record.sample, *hit.labels) for hit in read.labels(labels=[1], sort="probability")] == [
        ("000000", 3), ("000000", 1), ("000002", 0),
    ]  # fmt: skip
    assert [hit.labels for hit in read.samples(labels=[1], flags=["FN"])] == [(3,)]
    means = {one.label: one.count for one in read.label_scores(explainer=OCCLUSION, metric=INSERTION)}
    assert means == {0: 2, 1: 3}


def test_a_stored_map_as_an_explanation(done: Path) -> None:
    found = explanation(Run(done), "000000", OCCLUSION)
    assert found.labels == [["red", "green", "red 2", "green 2"]]
    assert found.targets is None
    assert found.boxes[0][2] == pytest.approx(QUARTERS[3])
    assert found.box(0, 2) == pytest.approx(tuple(2 * side for side in QUARTERS[3]))
    assert explanation(Run(done), "000000", OCCLUSION, label=2).labels == [["red"]]


def test_exports(done: Path, tmp_path: Path) -> None:
    registry.load("exports", "csv")()(Run(done), tmp_path / "out.csv")
    lines = list(csv.DictReader((tmp_path / "out.csv").open()))
    assert [(one["class"], one["flag"], one["detection"], one["x0"]) for one in lines] == [
        ("red", "TP", "0", "0.0"), ("green", "FP", "1", "48.0"), ("red", "FP", "2", "48.0"),
        ("green", "FN", "3", "48.0"), ("green", "", "0", "0.0"),
    ]  # fmt: skip
    files = registry.load("exports", "coco")()(Run(done), tmp_path / "out.json")
    assert [file.name for file in files] == ["out.json", "out-results.json", "out-truth.json"]
    results = json.loads(files[1].read_text())
    assert [(one["category_id"], one["bbox"]) for one in results] == [
        (1, [0, 0, 48, 32]), (2, [48, 0, 48, 32]), (1, [48, 32, 48, 32]), (2, [0, 32, 48, 32]),
    ]  # fmt: skip
    first = json.loads(files[0].read_text())["annotations"][2]
    assert (first["category_id"], first["attributes"]["detection"]) == (1, 2)
    assert first["attributes"]["box"] == [48, 32, 48, 32]
    registry.load("exports", "parquet")()(Run(done), tmp_path / "out.parquet")
    registry.load("exports", "fiftyone")()(Run(done), tmp_path / "fiftyone")
    samples = json.loads((tmp_path / "fiftyone" / "samples.json").read_text())["samples"]
    assert [one["label"] for one in samples[0]["labels"]["classifications"]] == ["red", "green", "red", "green"]


# --------------------------------------------------------------------------------------------------- command line


def test_explaining_a_picture_writes_one_overlay_a_box(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scene(q0=(0, 0.8), q3=(0, 0.6)).save(tmp_path / "a.png")
    command = [
        "explain",
        str(tmp_path / "a.png"),
        "--model",
        "support.detection_runs:model",
        "--method",
        "occlusion",
        "--quiet",
    ]
    assert cli.main([*command, "--set", "window=8", "--out", str(tmp_path / "out")]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [(line[1][:5].strip(), line[2]) for line in lines] == [
        ("red 0", "box 0 0 48 32"),
        ("red 2", "box 48 32 96 64"),
    ]
    assert all(Path(line[-1]).exists() for line in lines)
    pixels = np.asarray(Image.open(lines[1][-1]))
    assert (pixels[33, 60:84] == 255).all()  # the box is drawn
    assert cli.main([*command, "--score-threshold", "0.7", "--out", str(tmp_path / "less")]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert cli.main([*command, "--score-threshold", "0.9"]) == 1
    assert "The detector finds nothing with a score above 0.9." in capsys.readouterr().err


def test_running_and_resuming(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "pictures").mkdir()
    scene(q0=(0, 0.8), q3=(0, 0.6)).save(tmp_path / "pictures" / "a.png")
    command = [
        "--model",
        "support.detection_runs:model",
        "--data",
        str(tmp_path / "pictures"),
        "--explainers",
        "gradient",
    ]
    config = tmp_path / "run.yaml"
    config.write_text("score_threshold: 0.7\nnms_threshold: null\n")
    out = str(tmp_path / "out")
    assert cli.main(["run", "--config", str(config), *command, "--out", out, "--quiet"]) == 0
    assert Run(out).settings["detection"] == {"score_threshold": 0.7, "nms_threshold": None, "max_detections": 20}
    assert [one.flag for one in records(Path(out))[0].labels.values()] == [None]
    capsys.readouterr()
    assert cli.main(["resume", out, "--quiet"]) == 0
    assert "0 pictures computed" in capsys.readouterr().out


def test_old_rows_have_no_detections(tmp_path: Path) -> None:
    folder = three_pictures(Folder(tmp_path / "old"))
    read = Run(folder.place)
    assert not read.detects
    assert present(read.sample("a")).class_of(1) == 1
