"""Groups of images with more errors than elsewhere: planted ones are found, and where there is none nothing is."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from seewhy import cli
from seewhy.errors import InvalidInput, UnknownName
from seewhy.insights import slices as module
from seewhy.insights.properties import metadata, properties, wrong
from seewhy.insights.slices import slices
from seewhy.runs.query.run import Run
from support.run_jobs import images, network, run


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 images, of which every third has another truth than the network says, and one more."""
    place = tmp_path_factory.mktemp("slices") / "run"
    x = images(120)
    truth = network()(x).argmax(1).numpy()
    truth[::3] = (truth[::3] + 1) % 5
    truth[1] = (truth[1] + 1) % 5
    run(place, 120, data=(x, truth), explainers=["grad_cam"], metrics=[])
    return place


def test_a_planted_group_is_found_first(place: Path) -> None:
    found = slices(place)
    assert (found.images, found.errors) == (120, 41)
    first = found.found[0]
    assert (first.parts, first.errors, first.images) == ({"true class": "= class 1"}, 41, 41)
    assert set(first.samples) == {"000001"} | {f"{i:06d}" for i in range(0, 120, 3)}
    assert first.low > 0.8
    assert "41 of 41 wrong (100.0%), elsewhere 0.0%" in str(found)


def test_numbers_are_those_of_fisher_and_newcombe(place: Path) -> None:
    for one in slices(place).found:
        table = [[one.errors, one.images - one.errors], [41 - one.errors, 120 - one.images - 41 + one.errors]]
        assert stats.fisher_exact(table, alternative="greater").pvalue <= one.p + 1e-12
        assert one.rise == pytest.approx(one.errors / one.images - (41 - one.errors) / (120 - one.images))
        inside, outside = (stats.binomtest(k, n).proportion_ci(method="wilson") for k, n in
                           ((one.errors, one.images), (41 - one.errors, 120 - one.images)))  # fmt: skip
        low = one.rise - math.hypot(one.rate - inside.low, outside.high - one.elsewhere)
        assert one.low == pytest.approx(low, abs=1e-9)
        assert len(one.samples) == one.images


def test_where_errors_fall_by_chance_nothing_stands_out(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = 0
    for seed in range(20):
        drawn = np.random.default_rng(seed).random(120) < 0.3
        errors = {f"{i:06d}": bool(bad) for i, bad in enumerate(drawn)}
        monkeypatch.setattr(module, "wrong", lambda _run, record, errors=errors: errors[record.sample])
        named += bool(slices(place).found)
    assert named <= 3  # one is promised
    assert str(slices(place)).endswith("nothing stands out") or named


def test_a_table_of_metadata_is_looked_at(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = ["name,camera,height"] + [f"{i:06d},{'old' if i % 3 == 0 else 'new'},{i % 40}" for i in range(120)]
    (tmp_path / "meta.csv").write_text("\n".join(lines))
    found = slices(place, table=tmp_path / "meta.csv")
    assert any(one.parts == {"camera": "= old"} and one.errors == one.images == 40 for one in found.found)
    assert cli.main(["slices", str(place), "--table", str(tmp_path / "meta.csv"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["looked"] == found.looked
    known = metadata(tmp_path / "meta.csv")
    assert known["000003"] == {"camera": "old", "height": 3.0}
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InvalidInput, match="need a column sample, name or image, got a, b"):
        slices(place, table=tmp_path / "bad.csv")
    with pytest.raises(InvalidInput, match="cannot be read"):
        slices(place, table=tmp_path / "none.csv")
    with pytest.raises(UnknownName, match="has no explainer 'lime'"):
        slices(place, explainer="lime")


def test_properties_of_an_image(place: Path) -> None:
    read = Run(place)
    for record in list(read.records())[:6]:
        found = properties(read, record, "grad_cam")
        assert {"width to height", "pixels", "contrast", "sharpness", "brightness", "true class"} <= found.keys()
        assert (found["width to height"], found["pixels"]) == (1.0, 32.0 * 32)
        assert all(0 <= float(found.get(name, 0.0)) <= 1 for name in ("map entropy", "map at the border", "brightness"))


def test_a_run_without_truth_is_refused(tmp_path: Path) -> None:
    run(tmp_path / "run", 3, data=(images(3),), explainers=[], metrics=[])
    with pytest.raises(InvalidInput, match=r"Of no image .* it is known what is truly there"):
        slices(tmp_path / "run")
    record: Any = next(iter(Run(tmp_path / "run").records()))
    assert wrong(Run(tmp_path / "run"), record) is None
