"""Vectors of features that a run keeps, against the network's own maps, added later, and where they cannot be had."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import seewhy
from seewhy.errors import InvalidInput, MissingCapability, UnknownName
from seewhy.models.depth import at_depths
from seewhy.runs.query.run import Run
from seewhy.runs.runner import ImageClassificationRunner, Runner
from seewhy.runs.work.job import Job
from seewhy.runs.work.vectors import DEPTHS
from support import networks
from support.networks import build, pictures


def images() -> Tensor:
    return torch.cat([pictures(3), pictures(3).flip(3), pictures(3).flip(2)])


def data() -> list[tuple[Tensor, int]]:
    return [(one, n % 3) for n, one in enumerate(images())]


def job(place: Path, **options: Any) -> Any:
    asked: dict[str, Any] = {"model": build(networks.Deep), "data": data(), "explainers": ["gradient"], "chunk": 4}
    return Runner(job=Job(place=place, **{**asked, **options}), progress=False).run()


def test_means_are_those_of_the_layers_maps(tmp_path: Path) -> None:
    assert job(tmp_path, features={}).failed == 0
    run = Run(tmp_path)
    model: Any = seewhy.load(build(networks.Deep))
    plain = run.vectors()
    with model.opened():
        every = model.features(images(), "auto")
        middle = at_depths(model, images(), DEPTHS)
    assert plain.layer == every.layer
    assert plain.labels is None
    assert plain.samples == [record.sample for record in run.records()]
    np.testing.assert_allclose(plain.values, every.maps.mean((2, 3)).numpy(), rtol=2e-3, atol=1e-5)
    assert run.feature_layers() == list(middle)
    for layer in middle:
        found = run.vectors(layer)
        with model.opened():
            maps = model.features(images(), layer).maps
        assert found.labels is not None
        assert len(found.labels) == sum(len(record.labels) for record in run.records())
        for sample, label, values in zip(found.samples, found.labels, found.values, strict=True):
            raw = run.map(sample, label, "gradient")
            assert raw is not None
            weights = F.adaptive_avg_pool2d(torch.from_numpy(raw).clamp_min(0)[None], tuple(maps.shape[2:]))[0]
            want = (maps[int(sample)] * weights / weights.sum()).sum((1, 2)).numpy()
            np.testing.assert_allclose(values, want, rtol=2e-3, atol=1e-5)


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_what_is_added_later_is_what_is_made_at_once(tmp_path: Path, precision: str) -> None:
    job(tmp_path / "once", features={}, precision=precision)
    job(tmp_path / "later", precision=precision)
    with pytest.raises(UnknownName, match=r"keeps no features. Add them: seewhy run ... --features"):
        Run(tmp_path / "later").vectors()
    added = job(tmp_path / "later", features={}, precision=precision)
    assert (added.computed, added.maps) == (9, 0)
    once, later = Run(tmp_path / "once"), Run(tmp_path / "later")
    for layer in (None, *once.feature_layers()):
        np.testing.assert_allclose(later.vectors(layer).values, once.vectors(layer).values, rtol=1e-3, atol=1e-6)
    assert job(tmp_path / "later", features={}, precision=precision).computed == 0
    with pytest.raises(UnknownName, match=r"no features of layer 'bod'. Did you mean 'body'"):
        later.vectors("bod")


def test_a_run_goes_on_with_the_explainer_that_it_began_with(tmp_path: Path) -> None:
    job(tmp_path, features={})
    job(tmp_path, explainers=["grad_cam", "gradient"], features={})
    assert Run(tmp_path).settings["features"]["parameters"]["explainer"] == "gradient"
    with pytest.raises(InvalidInput, match="has features with"):
        job(tmp_path, explainers=["grad_cam", "gradient"], features={"explainer": "grad_cam"})
    with pytest.raises(InvalidInput, match="'rise', which is none of the explainers asked for: 'gradient'"):
        job(tmp_path / "other", features={"explainer": "rise"})
    with pytest.raises(InvalidInput, match="features has no parameter 'explainr'"):
        job(tmp_path / "other", features={"explainr": "rise"})


def test_without_explainers_there_are_plain_means(tmp_path: Path) -> None:
    runner = ImageClassificationRunner(tmp_path, build(networks.Deep), data=data(), progress=False)
    runner.register_features()
    assert runner.run().failed == 0
    assert Run(tmp_path).vectors().values.shape == (9, 8)
    assert Run(tmp_path).feature_layers() == []


def test_a_damaged_pack_is_noticed(tmp_path: Path) -> None:
    job(tmp_path, explainers=[], features={}, chunk=9)
    (pack,) = (tmp_path / "parts").glob("*.pack")
    pack.write_bytes(bytes(one ^ 1 for one in pack.read_bytes()))
    with pytest.raises(InvalidInput, match=r"not those that were written|damaged|checksum"):
        Run(tmp_path).vectors()


class Flat(torch.nn.Module):
    """Has no layer with a map."""

    def __init__(self) -> None:
        super().__init__()
        self.head = torch.nn.Linear(3 * 32 * 32, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.flatten(1))


def test_what_cannot_be_had_is_said(tmp_path: Path) -> None:
    with pytest.raises(MissingCapability, match="gives scores only, so no features can be kept"):
        job(tmp_path / "scores", model=lambda x: x.mean((2, 3)), explainers=[], features={})
    torch.manual_seed(0)
    found = job(tmp_path / "flat", model=Flat(), features={})
    assert len(found.failures) > 0
    reasons = [(one.task, one.reason) for one in Run(tmp_path / "flat").failures().items]
    assert {task for task, _ in reasons} == {"features"}
    assert all("No layer of the network has a spatial map" in reason for _, reason in reasons)
    assert Run(tmp_path / "flat").counts().maps > 0
