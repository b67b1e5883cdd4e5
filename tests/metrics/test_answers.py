"""Copies of an image are run once for all of its maps, and never mistaken for each other."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import seewhy
from seewhy.metrics import Case, Metric, _answers, remembering
from seewhy.metrics.deletion_auc import DeletionAUC
from seewhy.metrics.idsds import IDSDS
from seewhy.metrics.insertion import Insertion
from seewhy.metrics.insertion_auc import InsertionAUC
from seewhy.metrics.irof import IROF
from seewhy.metrics.naive_faithfulness import NaiveFaithfulness
from seewhy.models import Model
from seewhy.models.torch.model import TorchModel
from support.networks import Pooled, build, pictures
from support.run_jobs import run

METRICS: tuple[Metric, ...] = (
    DeletionAUC(steps=8), InsertionAUC(steps=8), DeletionAUC(steps=8, baseline="blur"), NaiveFaithfulness(steps=8),
    Insertion(pixels_per_step=200), IROF(), IDSDS(), DeletionAUC(steps=8, baseline=0.5), InsertionAUC(steps=5),
)  # fmt: skip


def map_of(seed: int) -> Tensor:
    return torch.rand((32, 32), generator=torch.Generator().manual_seed(seed))


def judged(model: Model, maps: list[Tensor], image: Tensor, targets: tuple[int, ...] = (1,)) -> list[float]:
    cases = [Case(model=model, image=image, target=t, saliency=one) for one in maps for t in targets]
    return [metric(case) for case in cases for metric in METRICS]


def test_numbers_are_the_same_with_fewer_passes() -> None:
    model, (image, other) = TorchModel(build(Pooled)), pictures(2)
    maps = [map_of(0), map_of(0) * 3 + 1, map_of(1), -map_of(0), torch.zeros(32, 32)]
    plain = judged(model, maps, image, (1, 3)) + judged(model, maps, other, (2,))
    made, before = model.passes.forward, model.passes.forward
    with remembering():
        quick = judged(model, maps, image, (1, 3)) + judged(model, maps, other, (2,))
    assert quick == pytest.approx(plain, abs=1e-5)
    assert model.passes.forward - before < 0.55 * made


def test_what_a_second_map_of_the_same_order_costs() -> None:
    model, (image,), metric = TorchModel(build(Pooled)), pictures(1), DeletionAUC(steps=8)
    costs = []
    with remembering():
        for one, how in (
            (map_of(0), metric), (2 * map_of(0), metric), (map_of(1), metric), (map_of(1), InsertionAUC(steps=8)),
        ):  # fmt: skip
            before = model.passes.forward
            how(Case(model=model, image=image, target=2, saliency=one))
            costs.append(model.passes.forward - before)
    assert costs == [9, 0, 7, 8]  # deletion's ends are known, of insertion's the picture (it begins with a blur)


def test_another_network_or_thread_has_answers_of_its_own() -> None:
    (image,), metric, found = pictures(1), DeletionAUC(steps=8), list[float]()
    models = [TorchModel(build(Pooled, seed=seed)) for seed in (0, 1)]
    plain = [metric(Case(model=m, image=image, target=1, saliency=map_of(0))) for m in models]

    def other() -> None:
        before = models[0].passes.forward
        metric(Case(model=models[0], image=image, target=1, saliency=map_of(0)))
        found.append(models[0].passes.forward - before)

    with remembering():
        quick = [metric(Case(model=m, image=image, target=1, saliency=map_of(0))) for m in models]
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert quick == pytest.approx(plain, abs=1e-6)
    assert found == [9]


def test_when_no_more_is_kept_all_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    model, (image,) = TorchModel(build(Pooled)), pictures(1)
    maps = [map_of(0), map_of(0), map_of(1)]
    plain = judged(model, maps, image)
    for most in (0, 12, 60):
        monkeypatch.setattr(_answers, "_MOST", most)
        with remembering():
            assert judged(model, maps, image) == pytest.approx(plain, abs=1e-5)


def test_comparisons_and_runs_ask_once(tmp_path: Path) -> None:
    about: dict[str, Any] = {"metrics": ["deletion_auc(steps=8)"], "progress": False, "baselines": False}
    cams = ["grad_cam(layer='act2')", "recipro_cam(layer='act2')", "activation_map(layer='act2')"]
    data = [(image, 1) for image in pictures(2)]
    each = [seewhy.compare(build(Pooled), data, [cam], **about) for cam in cams]
    together = seewhy.compare(build(Pooled), data, cams, **about)
    torch.testing.assert_close(torch.from_numpy(together.values)[:, 0], torch.cat([
        torch.from_numpy(one.values)[:, 0] for one in each]), atol=1e-6, rtol=1e-6)  # fmt: skip
    assert int(together.judging[0]) < int(sum(one.judging[0] for one in each))
    many = run(tmp_path / "a", n=4, explainers=["activation_map(layer='act2')"], metrics=["deletion_auc(steps=4)"])
    labels = many.maps
    assert labels > 4  # several classes of a picture, one map: its copies are run once
    assert many.forward == 4 + 4 * 5
