"""What is said about maps is kept as data, and its counts do not depend on how many pictures were taken together."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import seewhy
from seewhy.runs.folder.rows import CostRow, NoteRow
from seewhy.runs.query.explanations import explanation
from seewhy.runs.query.records import NoteCount
from seewhy.runs.query.run import Run
from seewhy.runs.query.status import status
from support import networks
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


def test_sentences_name_the_class_and_keep_what_earlier_versions_wrote() -> None:
    cost = CostRow(
        "a", 1, 0, 0.1, None, ["An old sentence."], [NoteRow("k", "it is dark.", 2), NoteRow("k", "all of it.")]
    )
    assert cost.sentences(lambda label: f"no. {label}") == ["An old sentence.", "no. 2: it is dark.", "All of it."]
