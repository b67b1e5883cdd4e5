"""`seewhy.compare` on a network of which the right answer is known, and its tables, files and errors."""

from __future__ import annotations

import csv
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import seewhy
from seewhy.comparison import Comparison
from seewhy.draw import chart
from seewhy.errors import InvalidInput, InvalidType, UnknownName, UnknownParameter
from seewhy.explainers import Explainer
from seewhy.explainers.occlusion import Occlusion
from seewhy.metrics import Case, Metric
from seewhy.metrics.relevance_mass import RelevanceMass
from seewhy.runs.query.run import Run
from seewhy.runs.runner import Runner
from seewhy.runs.work.job import Job

OBJECT = (slice(4, 12), slice(16, 24))


class Bright(nn.Module):
    """Class 1 is as likely as the patch at rows 4 to 12, columns 16 to 24 is bright."""

    def forward(self, x: Tensor) -> Tensor:
        score = x[(..., *OBJECT)].mean((1, 2, 3))
        return torch.stack([torch.zeros_like(score), 4 * score], 1)


def inputs(n: int = 6) -> Tensor:
    x = torch.rand((n, 3, 24, 32), generator=torch.Generator().manual_seed(0)) * 0.3
    x[(..., *OBJECT)] += 0.6
    return x


def mask() -> np.ndarray[Any, Any]:
    found = np.zeros((24, 32), dtype=bool)
    found[OBJECT] = True
    return found


@pytest.fixture(scope="module")
def found() -> Comparison:
    data = [(x, 1, mask()) for x in inputs(8)]
    methods = ["occlusion(window=8, stride=4)", "rise(num_masks=8, seed=1)"]
    return seewhy.compare(Bright(), data, methods, ["relevance_mass"], progress=False)


def test_the_right_map_beats_the_random_one_and_that_is_called_real(found: Comparison) -> None:
    right, chance = (found.mean(e, "relevance_mass") for e in ("occlusion(window=8, stride=4)", "random"))
    assert right.mean > 0.3
    assert chance.mean == pytest.approx(64 / (24 * 32), abs=0.02)
    assert (right.n, right.missing) == (8, 0)
    assert right.low <= right.mean <= right.high
    assert "random" in found.beaten("occlusion(window=8, stride=4)", "relevance_mass")
    assert found.beaten("random", "relevance_mass") == []
    assert found.baselines == ("random", "centre")


def test_a_difference_has_the_sign_of_the_metrics_better_end(found: Comparison) -> None:
    one = next(d for d in found.differences if {d.better, d.worse} == {"occlusion(window=8, stride=4)", "random"})
    a, b = (found.values[found.explainers.index(e), 0] for e in (one.better, one.worse))
    assert one.difference == pytest.approx((a - b).mean())
    assert 0 < one.low < one.difference < one.high
    lower = Comparison(**{**vars_of(found), "better": ("lower",)})
    turned = next(d for d in lower.differences if {d.better, d.worse} == {one.better, one.worse})
    assert (turned.better, turned.worse) == (one.worse, one.better)
    assert turned.difference == pytest.approx(-one.difference)
    assert turned.low == pytest.approx(-one.high)


def vars_of(found: Comparison) -> dict[str, Any]:
    return {name: getattr(found, name) for name in Comparison.__dataclass_fields__}


def test_costs_are_those_of_one_map(found: Comparison) -> None:
    forward, backward, seconds = found.cost("rise(num_masks=8, seed=1)")
    assert (forward, backward) == (9, 0)
    assert 0 < seconds < 10
    assert found.judging.tolist() == [0]


def test_the_text_has_every_number_and_every_verdict(found: Comparison) -> None:
    text = str(found)
    for e in found.explainers:
        mean = found.mean(e, "relevance_mass")
        interval = "" if mean.why else f" [{mean.low:.3f}, {mean.high:.3f}]"
        assert f"{mean.mean:.3f}{interval} n=8" in text
    assert found.mean("centre", "relevance_mass").why  # the same map and the same mask on every picture
    assert "relevance_mass (^)" in text
    assert "Means over 8 pictures with 95% intervals" in text
    verdict = re.search(r"relevance_mass: (.*)", text)
    assert verdict is not None
    assert "occlusion(window=8, stride=4) beats" in verdict[1]


def test_what_cannot_be_told_is_said() -> None:
    data = [(x, 1, mask()) for x in inputs(2)]
    few = seewhy.compare(Bright(), data, ["occlusion"], ["relevance_mass"], progress=False)
    assert str(few).endswith("relevance_mass: none (no pair can be told: 2 pictures are too few, 6 are needed)")
    same = seewhy.compare(
        Bright(), [(x, 1, mask()) for x in inputs(8)], {"a": "random_map", "b": "random_map"}, ["relevance_mass"],
        baselines=False, progress=False,
    )  # fmt: skip
    assert str(same).endswith(
        "relevance_mass: none (no pair can be told: The two differ on 0 of 8 pictures, 6 are needed)"
    )
    twice = {"a": "random_map", "b": "random_map(seed=1)"}
    noise = seewhy.compare(
        Bright(), [(x, 1, mask()) for x in inputs(8)], twice, ["relevance_mass"], progress=False
    )  # fmt: skip
    assert noise.baselines == ("a", "b", "centre")  # "a" is the random map that would be added
    assert "centre beats a, b" in str(noise)
    assert noise.best("relevance_mass").explainer is None


def test_the_files_hold_the_same_numbers(found: Comparison, tmp_path: Path) -> None:
    paths = {p.suffix: p for p in found.save(tmp_path / "new")}
    with paths[".csv"].open() as file:
        rows = list(csv.DictReader(file))
    held = json.loads(paths[".json"].read_text())
    for row, mean, kept in zip(rows, found.means, held["means"], strict=True):
        assert (row["explainer"], row["metric"]) == (mean.explainer, mean.metric) == (kept["explainer"], kept["metric"])
        assert float(row["mean"]) == mean.mean == kept["mean"]
    assert held["values"]["random"]["relevance_mass"] == found.values[2, 0].tolist()
    assert held["settings"]["explainers"]["rise(num_masks=8, seed=1)"].startswith("RISE(activation_fn='auto'")
    with Image.open(paths[".png"]) as picture:
        assert picture.width > 400
        assert picture.height > 100
    assert paths[".txt"].read_text() == str(found) + "\n"


def test_the_same_call_gives_the_same_table() -> None:
    data = [(x, 1, mask()) for x in inputs(3)]
    first, second = (seewhy.compare(Bright(), data, "occlusion", "relevance_mass", progress=False) for _ in range(2))
    assert np.array_equal(first.values, second.values)
    assert repr(first.means) == repr(second.means)  # NaN is not equal to itself


def test_a_picture_that_fails_is_recorded_and_the_others_are_done(tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    network = seewhy.load(Bright(), preprocessing=seewhy.Preprocessing(size=(24, 32), mean=(0,) * 3, std=(1,) * 3))
    good = Image.fromarray((inputs(1)[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8))
    data = [(good, 1, mask()), str(broken), (good, 7, mask()), (good, 1, mask()[:5])]
    found = seewhy.compare(network, data, ["occlusion"], ["relevance_mass"], progress=False)
    assert found.mean("occlusion", "relevance_mass").n == 1
    assert found.mean("occlusion", "relevance_mass").missing == 3
    reasons = [f.reason for f in found.failures]
    assert "it is not a picture in a format that seewhy opens" in reasons[0]
    assert reasons[1] == "Target 7 is out of range: the network has 2 classes, 0 to 1."
    bad = [f for f in found.failures if f.reason == "The mask must have the picture's size, (24, 32), got (5, 32)."]
    assert [(f.explainer, f.metric) for f in bad] == [(e, "relevance_mass") for e in ("occlusion", "random", "centre")]
    assert "Failures (5):" in str(found)
    assert found.failed("occlusion", "relevance_mass") == 3
    assert re.search(r"occlusion +\d\.\d{3} n=1, 3 failed", str(found))


@dataclass(frozen=True, kw_only=True)
class Breaking(Metric):
    """Somebody's metric with a bug, which shows on the map of one class."""

    def _judge(self, case: Case) -> float:
        if case.target == 1:
            raise ZeroDivisionError("division by zero")
        return 0.5


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Falling(Explainer):
    """Somebody's explainer that calls exit() where a picture is dark."""

    def _explain(self, model: Any, inputs: Tensor, request: Any) -> Any:
        raise SystemExit("no map today")


def test_what_breaks_is_a_row_with_its_reason_in_a_comparison_and_in_a_run(tmp_path: Path) -> None:
    """Whatever it raises, not our own errors alone; the reasons are the same in both."""
    methods = {"gradient": "gradient", "falls": Falling}
    data = [(x, label, mask()) for x, label in zip(inputs(3), (0, 1, 0), strict=True)]
    found = seewhy.compare(Bright(), data, methods, [Breaking(), "relevance_mass"], baselines=False, progress=False)
    assert found.mean("gradient", "Breaking").n == 2
    assert (found.mean("falls", "Breaking").n, found.failed("falls", "Breaking")) == (0, 3)
    assert found.failed("gradient", "relevance_mass") == 0  # of class 0 the map is flat: nothing to judge
    told = [(f.explainer, f.metric, f.reason) for f in found.failures]
    assert told == [
        ("falls", None, "SystemExit: no map today"),
        ("gradient", "Breaking", "ZeroDivisionError: division by zero"),
        ("falls", None, "SystemExit: no map today"), ("falls", None, "SystemExit: no map today"),
    ]  # fmt: skip
    job = Job(place=tmp_path, model=Bright(), data=(inputs(3), [0, 1, 0]), explainers=methods,
              metrics=[Breaking()], threshold=0.99)  # fmt: skip
    Runner(job=job, progress=False).run()
    rows = {(f.explainer, f.metric, f.reason) for f in Run(tmp_path).failures(limit=99)}
    assert ("falls", None, "SystemExit: no map today") in rows
    assert ("gradient", "Breaking", "ZeroDivisionError: division by zero") in rows


def test_without_a_mask_there_is_no_data_and_no_failure() -> None:
    found = seewhy.compare(Bright(), list(inputs(2)), ["occlusion"], ["relevance_mass"], progress=False)
    mean = found.mean("occlusion", "relevance_mass")
    assert math.isnan(mean.mean)
    assert (mean.n, mean.missing) == (0, 2)
    assert found.failures == ()
    assert "no data" in str(found)
    assert found.differences == []
    found.picture()


@dataclass(frozen=True, kw_only=True)
class Moving(Metric):
    """How much of the map is left on an image of zeros."""

    range: ClassVar[tuple[float, float]] = (0.0, math.inf)

    def _judge(self, case: Case) -> float:
        assert case.explain is not None
        return float(case.explain(torch.zeros_like(case.image[None]), case.target).abs().sum())


def test_a_metric_can_explain_other_pictures_with_the_same_method() -> None:
    found = seewhy.compare(Bright(), list(inputs(2)), ["occlusion"], [Moving()], baselines=False, progress=False)
    assert found.values[0, 0].tolist() == [0, 0]
    assert found.judging[0] > 0


def test_labels_come_from_a_dict_and_the_same_name_twice_gets_a_number() -> None:
    data = [(inputs(1)[0], 1, mask())]
    methods = {"small": "occlusion(window=4, stride=4)", "large": Occlusion(nn.Identity(), window=12)}
    judges = [RelevanceMass(), RelevanceMass]
    found = seewhy.compare(Bright(), data, methods, judges, progress=False)
    assert found.explainers == ("small", "large", "random", "centre")
    assert found.metrics == ("relevance_mass", "relevance_mass #2")


def test_progress_counts_pictures() -> None:
    told: list[tuple[int, int]] = []
    seewhy.compare(
        Bright(),
        list(inputs(3)),
        "occlusion",
        "relevance_mass",
        progress=lambda done, total: told.append((done, total)),
    )
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_a_mask_is_seen_as_the_network_sees_the_picture() -> None:
    """The object fills the middle half of a picture that is cropped to its middle: the truth covers the whole input."""
    network = seewhy.load(Bright(), preprocessing=seewhy.Preprocessing(size=(24, 32), mean=(0,) * 3, std=(1,) * 3))
    picture = Image.new("RGB", (64, 24), "grey")  # twice as wide as the input
    truth = np.zeros((24, 64), dtype=bool)
    truth[:, 16:48] = True
    found = seewhy.compare(network, [(picture, 1, truth)], {}, ["relevance_mass"], progress=False)
    assert found.mean("random", "relevance_mass").mean == 1


@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [
        ({"data": []}, InvalidInput, "There is no picture to compare on: the data are empty."),
        ({"metrics": []}, InvalidInput, "There is no metric to compare: the list is empty."),
        ({"explainers": "rise(4)"}, InvalidInput,
         "Expected a name or NAME(PARAMETER=VALUE, ...) with plain values, got 'rise(4)'."),
        ({"explainers": "rise(num_masks=open('x'))"}, InvalidInput,
         "Expected a name or NAME(PARAMETER=VALUE, ...) with plain values, got \"rise(num_masks=open('x'))\"."),
        ({"explainers": "occlusoin"}, UnknownName, "There is no explainer 'occlusoin'. Did you mean 'occlusion'?"),
        ({"explainers": "occlusion(windw=3)"}, UnknownParameter,
         "Occlusion has no parameter 'windw'. Did you mean 'window'?"),
        ({"metrics": 3}, InvalidType, "explainers and metrics are names, classes or objects, one or a list, got 3."),
        ({"metrics": [int]}, InvalidType,
         "A metric is a registry name, a Metric class or a metric, got <class 'int'>."),
        ({"confidence": 1.0}, InvalidInput, "confidence must lie between 0 and 1, both excluded, got 1.0."),
        ({"resamples": 5}, InvalidInput, "resamples must be an integer of at least 100, got 5."),
        ({"data": [(1, 2, 3, 4)]}, InvalidType,
         "A sample is (image, target, mask), the last two optional, got 4 values."),
    ],
)  # fmt: skip
def test_errors(change: dict[str, Any], kind: type[Exception], said: str) -> None:
    call = {"data": list(inputs(1)), "explainers": ["occlusion"], "metrics": ["relevance_mass"], **change}
    with pytest.raises(kind, match="^" + re.escape(said) + "$"):
        seewhy.compare(Bright(), progress=False, **call)


def test_an_unknown_cell_is_an_error(found: Comparison) -> None:
    with pytest.raises(InvalidInput, match=r"^The comparison has no 'x' under 'relevance_mass'\. Explainers: occ"):
        found.mean("x", "relevance_mass")


def test_the_chart_sorts_by_the_better_end_and_draws_points_in_their_order() -> None:
    bars = tuple(chart.Bar(label=n, value=v, low=v - 0.1, high=v + 0.1) for n, v in [("a", 0.2), ("b", 0.8)])
    nothing = chart.Bar(label="c", value=math.nan, low=math.nan, high=math.nan)
    panel = chart.Panel(title="m", bars=(nothing, *bars))
    assert [b.label for b in panel.sorted()] == ["b", "a", "c"]
    assert [b.label for b in chart.Panel(title="m", bars=bars, descending=False).sorted()] == ["a", "b"]
    drawn = np.asarray(chart.draw([panel])).astype(int)
    points = np.abs(drawn - np.array(chart.POINT)).sum(2) == 0
    rows = [np.flatnonzero(points[top : top + chart.ROW].any(0)).mean() for top in (chart.GAP + 34, chart.GAP + 60)]
    assert rows[0] > rows[1] + 100
    with pytest.raises(InvalidInput, match=r"^Expected at least one panel with one average each, got none\.$"):
        chart.draw([])
