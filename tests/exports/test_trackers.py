"""MLflow, Weights & Biases and TensorBoard read what is written for them, each where it is installed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seewhy import cli, registry
from seewhy.errors import InvalidInput, MissingDependency, UnknownName
from seewhy.runs.query.explanations import explanation
from seewhy.runs.query.run import Run
from support import run_jobs

TRACKERS = {"mlflow": "MLflow", "wandb": "Weights & Biases", "tensorboard": "TensorBoard"}
EXPLAINERS = ["recipro_cam", "occlusion(window=16, stride=16)"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    place = tmp_path_factory.mktemp("run") / "run"
    run_jobs.run(place, 3, explainers=EXPLAINERS, metrics=["sparseness"])
    return Run(place)


def maps(run: Run) -> dict[tuple[str, str, int], Any]:
    return {
        (record.sample, explainer, label): explanation(run, record.sample, explainer, label)
        for record in run.records()
        for label, explainer in record.maps
    }


def wanted(run: Run) -> dict[str, float]:
    return {f"mean/{one.explainer}/{one.metric}": one.mean for one in run.scores() if one.mean is not None}


def test_tensorboard_has_scores_and_maps(run: Run, tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    (folder,) = registry.load("exports", "tensorboard")()(run, tmp_path / "tb")
    found = events.EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0, "tensors": 0})
    found.Reload()
    tags = found.Tags()
    scalars = {tag: found.Scalars(tag)[0].value for tag in tags["scalars"] if tag.startswith("mean/")}
    assert scalars == pytest.approx(wanted(run))
    assert sum(len(found.Images(tag)) for tag in tags["images"]) == len(maps(run))
    assert any(tag.startswith("run/text_summary") for tag in tags["tensors"])


def test_mlflow_has_scores_and_maps(run: Run, tmp_path: Path) -> None:
    client = pytest.importorskip("mlflow.tracking").MlflowClient
    (folder,) = registry.load("exports", "mlflow")()(run, tmp_path / "ml")
    store = client(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    (place,) = [one for one in store.search_experiments() if one.name == "seewhy"]
    (one,) = store.search_runs([place.experiment_id])
    found = {name: value for name, value in one.data.metrics.items() if name.startswith("mean/")}
    clean = {name.translate(dict.fromkeys(map(ord, "(),="), "_")): value for name, value in wanted(run).items()}
    assert found == pytest.approx(clean)
    assert one.data.params["model"] == run.settings["model"]["name"]
    about = json.loads((folder / "artifacts" / one.info.run_id / "artifacts" / "maps.json").read_text())["maps"]
    assert len(about) == len(maps(run))
    assert all((folder / "artifacts" / one.info.run_id / "artifacts" / entry["file"]).is_file() for entry in about)


def test_wandb_has_scores_and_maps_and_says_nothing_of_the_machine(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    (folder,) = registry.load("exports", "wandb")()(run, tmp_path / "wb")
    (table,) = folder.rglob("*.table.json")
    found = json.loads(table.read_text())
    assert found["columns"] == ["picture", "explainer", "class", "map", "caption", "sparseness"]
    assert len(found["data"]) == len(maps(run))
    scores = sorted(row[-1] for row in found["data"])
    known = [v for record in run.records() for (_, e, _m), v in record.scores.items() if e in run.explainers]
    assert scores == pytest.approx(sorted(v for v in known if v is not None)[-len(scores) :], abs=1e-6)
    assert not any(path.name in ("requirements.txt", "wandb-metadata.json") for path in folder.rglob("*"))


@pytest.mark.parametrize("name", TRACKERS)
def test_a_missing_library_is_told(name: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [m for m in sys.modules if m.split(".")[0] == name or m.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependency, match=rf"Writing for {name} needs {name}\. Install it: pip install {name}\."):
        registry.load("exports", name)()(run, tmp_path / "out")


@pytest.mark.parametrize("name", TRACKERS)
def test_what_is_written_is_chosen(name: str, run: Run, tmp_path: Path) -> None:
    pytest.importorskip(name)
    kind = registry.load("exports", name)
    with pytest.raises(UnknownName, match=r"There is no explainer 'rize'"):
        kind(explainers=("rize",))(run, tmp_path / "a")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("x")
    with pytest.raises(InvalidInput, match=rf"The folder for {TRACKERS[name]} must be new or empty"):
        kind()(run, tmp_path / "full")
    with pytest.raises(InvalidInput, match="pictures must be a positive integer or None"):
        kind(pictures=0)
    some = list(kind(explainers=("recipro_cam",), pictures=2).shown(run))
    assert {(one.explainer, one.record.position) for one in some} == {("recipro_cam", 0), ("recipro_cam", 1)}
    first = explanation(run, some[0].record.sample, "recipro_cam", some[0].label)
    assert np.array_equal(np.asarray(some[0].image), np.asarray(first.overlay()))


def test_the_command_writes_it(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    words = ["export", run.address, "--to", "tensorboard", "--out", str(tmp_path / "tb"), "--set", "pictures=1"]
    words += ["--set", "explainers=recipro_cam"]
    assert cli.main(words) == 0
    assert list((tmp_path / "tb").glob("events.out.tfevents.*"))
