"""What is written for FiftyOne, read by FiftyOne's own documents and checked by its own fields. No database is needed.

Loading it with ``Dataset.from_dir`` puts the same documents into MongoDB, which is not there.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seewhy.exports.fiftyone import FiftyOne
from seewhy.runs.query.run import Run
from support import run_jobs

os.environ.setdefault("FIFTYONE_DO_NOT_TRACK", "true")
fo: Any = pytest.importorskip("fiftyone")
odm: Any = pytest.importorskip("fiftyone.core.odm")
json_util: Any = pytest.importorskip("bson.json_util")

EXPLAINERS = ["recipro_cam", "occlusion(window=16, stride=16)"]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path]:
    place = tmp_path_factory.mktemp("fiftyone")
    run_jobs.run(place / "run", 3, explainers=EXPLAINERS, metrics=["sparseness"])
    (folder,) = FiftyOne()(Run(place / "run"), place / "out")
    return Run(place / "run"), folder


def samples(folder: Path) -> list[Any]:
    return [fo.Sample.from_dict(one) for one in json_util.loads((folder / "samples.json").read_text())["samples"]]


def test_its_fields_take_every_value(written: tuple[Run, Path]) -> None:
    about = odm.DatasetDocument.from_dict(json_util.loads((written[1] / "metadata.json").read_text()))
    known = {field.name: field.to_field() for field in about.sample_fields}
    found = samples(written[1])
    assert len(found) == 3
    for sample in found:
        for name in sample.field_names:
            if sample[name] is not None:
                known[name].validate(sample[name])
    wrong = json.loads((written[1] / "samples.json").read_text())["samples"][0]
    wrong["entropy"] = "much"
    with pytest.raises(Exception, match="could not be converted to float"):
        known["entropy"].validate(wrong["entropy"])


def test_labels_and_heat_maps_are_those_of_the_run(written: tuple[Run, Path]) -> None:
    run, folder = written
    for sample, record in zip(samples(folder), run.records(), strict=True):
        assert record.predicted is not None
        assert record.size is not None
        assert sample["prediction"].label == run.class_name(record.predicted)
        own = {run.class_name(label): row.probability for label, row in record.labels.items()}
        assert {one.label: one.confidence for one in sample["labels"].classifications} == pytest.approx(own)
        heat = sample["recipro_cam"]
        assert isinstance(heat, fo.Heatmap)
        heat.map_path = str(folder / heat.map_path)
        assert heat.get_map().shape == record.size
        own_map = run.map(record.sample, heat.class_index, "recipro_cam")
        assert own_map is not None
        high, low = np.unravel_index(heat.get_map().argmax(), record.size), own_map.shape
        place = (high[0] * low[0] // record.size[0], high[1] * low[1] // record.size[1])
        assert own_map[place] > np.quantile(own_map, 0.9)
