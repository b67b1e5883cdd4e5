"""A random map and a map of the centre beside the explainers of a run: judged, in the tables, and not kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import seewhy
from seewhy.errors import UnknownName
from seewhy.explainers.random_map import RandomMap
from seewhy.runs.query.run import Run
from support import run_jobs
from support.web_pages import client, key

METRICS = ["deletion_auc(steps=4)", "pointing_game(tolerance=0)"]


def run(place: Path, **changes: Any) -> Any:
    return run_jobs.run(place, **{"n": 6, "baselines": True, "metrics": METRICS, "explainers": ["grad_cam"], **changes})


def test_baselines_are_judged_without_a_pass_to_make_them_and_their_maps_are_not_kept(tmp_path: Path) -> None:
    run(tmp_path / "a")
    found, alone = Run(tmp_path / "a"), tmp_path / "b"
    assert found.explainers == ("grad_cam", "random", "centre")
    assert found.drawn == ("grad_cam",)
    run(alone, baselines=False)
    assert found.counts().maps == Run(alone).counts().maps > 0
    costs = {cost.explainer: cost for cost in found.costs()}
    assert (costs["random"].forward, costs["random"].samples) == (0, 6)
    judged = found.judged()
    assert judged.baselines == ("random", "centre")
    assert not np.isnan(judged.values).any()
    own = [s for s in Run(alone).scores() if s.explainer == "grad_cam"]
    assert [s.mean for s in found.scores() if s.explainer == "grad_cam"] == [s.mean for s in own]


def test_the_numbers_are_those_of_the_same_explainer_by_its_name(tmp_path: Path) -> None:
    """The map is the same, whether it is made beside others without the network or kept as an explainer's."""
    run(tmp_path / "a")
    run(tmp_path / "b", explainers={"grad_cam": "grad_cam", "noise": "random_map"}, precision="float32")
    one = {s.metric: s.mean for s in Run(tmp_path / "a").scores() if s.explainer == "random"}
    other = {s.metric: s.mean for s in Run(tmp_path / "b").scores() if s.explainer == "noise"}
    assert one == other
    assert Run(tmp_path / "b").explainers == ("grad_cam", "noise", "centre")  # no second random map
    assert Run(tmp_path / "b").judged().baselines == ("noise", "centre")
    assert Run(tmp_path / "b").drawn == ("grad_cam", "noise")


def test_a_metric_that_is_added_judges_them_again(tmp_path: Path) -> None:
    run(tmp_path)
    run(tmp_path, metrics=[*METRICS, "energy_pointing_game"])
    found = {(s.explainer, s.metric): s for s in Run(tmp_path).scores()}
    assert found["centre", "energy_pointing_game"].pictures == 6
    again = run(tmp_path, metrics=[*METRICS, "energy_pointing_game"])
    assert again.computed == 0


@pytest.mark.parametrize(
    ("wanted", "names"), [(["centre"], ("grad_cam", "centre")), (False, ("grad_cam",)), ((), ("grad_cam",))]
)
def test_they_are_switched_off_by_name(tmp_path: Path, wanted: Any, names: tuple[str, ...]) -> None:
    run(tmp_path, baselines=wanted)
    assert Run(tmp_path).explainers == names


def test_without_metrics_there_is_nothing_to_compare_with(tmp_path: Path) -> None:
    run(tmp_path, metrics=())
    assert Run(tmp_path).explainers == ("grad_cam",)


def test_an_unknown_baseline_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match=r"^There is no baseline 'randm'\. Did you mean 'random'\?$"):
        run(tmp_path, baselines=["randm"])


def test_compare_takes_names_too_and_knows_a_baseline_among_the_explainers() -> None:
    data = [(x, 1) for x in run_jobs.images(2)]
    one = seewhy.compare(
        run_jobs.network(), data, ["grad_cam"], ["sparseness"], baselines=["centre"], progress=False
    )  # fmt: skip
    assert (one.explainers, one.baselines) == (("grad_cam", "centre"), ("centre",))
    two = seewhy.compare(
        run_jobs.network(), data, {"cam": "grad_cam", "noise": RandomMap}, ["sparseness"], progress=False
    )  # fmt: skip
    assert (two.explainers, two.baselines) == (("cam", "noise", "centre"), ("noise", "centre"))


def test_pages_show_their_scores_and_no_empty_maps(tmp_path: Path) -> None:
    run(tmp_path / "run")
    with client(tmp_path / "run") as asking:
        where = f"/api/runs/{key(asking)}"
        scores, saliency = asking.get(f"{where}/scores").json(), asking.get(f"{where}/saliency").json()
        classes = asking.get(f"{where}/classes", params={"by": "metric", "name": "deletion_auc(steps=4)"}).json()
    assert scores["baselines"] == ["random", "centre"]
    assert [cell["explainer"] for cell in scores["metrics"][0]["cells"]] == ["grad_cam", "random", "centre"]
    assert saliency["explainers"] == saliency["shown"] == ["grad_cam"]
    assert [column["name"] for column in classes["columns"]] == ["grad_cam", "random", "centre"]
