"""What is said about maps is kept as data, and its counts do not depend on how many pictures were taken together."""

from __future__ import annotations

import csv
import html
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

import seewhy
from seewhy.exports.csv import Csv
from seewhy.exports.parquet import Parquet
from seewhy.runs.folder.rows import CostRow, NoteRow
from seewhy.runs.folder.store import Store
from seewhy.runs.query.explanations import explanation
from seewhy.runs.query.records import NoteCount
from seewhy.runs.query.run import Run
from seewhy.runs.query.status import status
from seewhy.trust import GRADES
from support import networks, run_jobs
from support.networks import build


@pytest.mark.parametrize("batch", [16, 4])
def test_sixteen_flat_maps_are_sixteen(tmp_path: Path, batch: int) -> None:
    network = build(networks.Constant)
    pictures = [(torch.full((3, 32, 32), i / 16), [0]) for i in range(16)]
    runner = seewhy.ImageClassificationRunner(
        summary_dir=str(tmp_path / "run"), network=network, data=pictures, batch=batch, progress=False
    )
    runner.register_saliency(explainers=[seewhy.Occlusion(network, window=8, stride=8)])
    runner.run()
    run = Run(tmp_path / "run")
    counts = run.notes()
    labels = {len(record.labels) for record in run.records()}
    assert labels == {len(next(iter(run.records())).labels)}
    each = labels.pop()
    assert NoteCount("occlusion", "constant map", 16, 16 * each) in counts
    assert NoteCount("occlusion", "score that did not change", 16, 16 * each) in counts
    found = status(tmp_path / "run")
    assert "occlusion: 16 of 16 pictures have the note 'constant map'" in str(found)
    assert {"explainer": "occlusion", "kind": "constant map", "pictures": 16, "notes": 16 * each} in json.loads(
        json.dumps(found.as_dict())
    )["notes"]
    record = next(iter(run.records()))
    shown = explanation(run, record.sample, "occlusion", 0)
    assert "Image 0, class 0: the map is constant, nothing stands out." in shown.warnings


def test_what_a_metric_says_beside_its_value_is_kept_and_shown(tmp_path: Path) -> None:
    explainers, said = ["occlusion(window=16, stride=16)", "rise(num_masks=8)"], tmp_path / "said"
    run_jobs.run(said, 3, explainers=explainers, metrics=["trust_grade", "sparseness"], chunk=2)
    record = next(Run(said).records())
    graded = {key: value for key, value in record.scores.items() if key[2] == "trust_grade"}
    assert len(graded) == 2 * len(record.labels)
    assert record.said.keys() == graded.keys()
    for key, value in graded.items():
        assert record.said[key].startswith(f"trust {GRADES[round(value or 0)]}: beats ")
    assert "nothing is drawn at random" in record.said[next(iter(record.labels)), explainers[0], "trust_grade"]
    before = {one.sample: one.said for one in Run(said).records()}
    Store(said).compact(everything=True)
    assert {one.sample: one.said for one in Run(said).records()} == before
    page = html.unescape(seewhy.show(said, record.sample).page)
    likeliest = max(record.labels, key=lambda label: record.labels[label].probability)
    assert all(f'<p class="said">{record.said[likeliest, e, "trust_grade"]}</p>' in page for e in explainers)


def test_a_run_whose_metrics_say_nothing_has_no_such_column(tmp_path: Path) -> None:
    run_jobs.run(tmp_path, 2, explainers=["occlusion(window=16, stride=16)"], metrics=["sparseness"])
    (part,) = (tmp_path / "parts").glob("*.parquet")
    assert "said" not in pq.read_schema(part).names
    assert [one.said for one in Run(tmp_path).records()] == [{}, {}]


def test_sentences_name_the_class_and_keep_what_earlier_versions_wrote() -> None:
    cost = CostRow(
        "a", 1, 0, 0.1, None, ["An old sentence."], [NoteRow("k", "it is dark.", 2), NoteRow("k", "all of it.")]
    )
    assert cost.sentences(lambda label: f"no. {label}") == ["An old sentence.", "no. 2: it is dark.", "All of it."]


def test_warnings_about_pictures_are_counted_everywhere(tmp_path: Path) -> None:
    usual = seewhy.Preprocessing(size=(32, 32), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    network = seewhy.load(build(networks.Deep), preprocessing=usual)
    pictures = [(torch.rand(3, 32, 32).clamp(0.02, 0.98) if i else torch.randn(3, 32, 32), [0]) for i in range(6)]
    runner = seewhy.ImageClassificationRunner(
        summary_dir=str(tmp_path / "run"), network=network, data=pictures, batch=4, progress=False
    )
    runner.register_saliency(explainers=["occlusion(window=8, stride=8)"])
    done = runner.run()
    assert "5 of 6 pictures: The input looks like values of 0..1" in done.remarks
    assert "\n  5 of 6 pictures: The input looks like values of 0..1\n" in f"{done}\n"
    found = status(tmp_path / "run")
    assert "\n  5 of 6 pictures: The input looks like values of 0..1" in str(found)
    assert found.as_dict()["warnings"] == [
        {"kind": "The input looks like values of 0..1", "pictures": 5},
        {"kind": "The input lies outside the range of pictures", "pictures": 1},
    ]
    Csv()(Run(tmp_path / "run"), tmp_path / "all.csv")
    Parquet()(Run(tmp_path / "run"), tmp_path / "all.parquet")
    with open(tmp_path / "all.csv", encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    table = pq.read_table(tmp_path / "all.parquet").to_pylist()
    assert [line["warnings"] or None for line in lines] == [line["warnings"] for line in table]
    warned = {line["position"] for line in table if "looks like values of 0..1: its values" in (line["warnings"] or "")}
    assert warned == {1, 2, 3, 4, 5}
