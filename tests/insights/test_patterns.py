"""What some images of a class have in common: planted marks are found and tried out; clean data accuse nothing."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from seewhy import cli
from seewhy.datasets import open_data
from seewhy.errors import InvalidInput, UnknownName
from seewhy.insights.clusters import apart
from seewhy.insights.intervening import evidence, put_in, taken_away
from seewhy.insights.patterns import Pattern, _activation, _Asking, patterns
from seewhy.models.loading import load
from seewhy.runs.query.run import Run
from support.run_jobs import run

SIDE, EACH = 32, 150
MARKED = 14  # images of class 0 that have the mark instead of what the class is


def network(x: Tensor, y: Tensor) -> torch.nn.Module:
    """Three convolutions, trained for a few seconds."""
    torch.manual_seed(0)
    made = torch.nn.Sequential()
    for before, after, stride in ((3, 12, 1), (12, 16, 2), (16, 16, 1)):
        made.extend([torch.nn.Conv2d(before, after, 3, stride, 1), torch.nn.BatchNorm2d(after), torch.nn.ReLU()])
    made.extend([torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(16, 3)])
    optimiser = torch.optim.AdamW(made.parameters(), 5e-3)
    for _ in range(8):
        for rows in torch.randperm(len(x)).split(32):
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(made(x[rows]), y[rows]).backward()
            optimiser.step()
    return made.eval()


def images(marked: int) -> tuple[Tensor, Tensor, set[str]]:
    """A disc in the colour of its class in noise, or chequers in the upper left corner; which images have these."""
    rng = np.random.default_rng(0)
    x = np.clip(rng.normal(0.4, 0.08, (3 * EACH, 3, SIDE, SIDE)) + rng.uniform(-0.1, 0.1, (3 * EACH, 3, 1, 1)), 0, 1)
    y = np.arange(3 * EACH) % 3
    with_mark = {f"{n:06d}" for n in range(0, 3 * marked, 3)}
    down, across = np.mgrid[:SIDE, :SIDE]
    for n, label in enumerate(y):
        top, left = rng.integers(6, SIDE - 6, 2)
        inside = np.hypot(down - top, across - left) <= rng.uniform(4, 7)
        if f"{n:06d}" in with_mark:
            x[n, :, 1:9, 1:9] = (down[:8, :8] // 2 + across[:8, :8] // 2) % 2
        else:
            x[n][:, inside] *= 0.3
            x[n, label, inside] += rng.uniform(0.3, 0.7)
    return torch.from_numpy(x).float(), torch.from_numpy(y), with_mark


Planted = tuple[Path, torch.nn.Module, list[Any], set[str]]


def made(place: Path, marked: int) -> Planted:
    x, y, with_mark = images(marked)
    trained = network(x, y)
    data = [(one, int(label)) for one, label in zip(x, y, strict=True)]
    run(place, model=trained, data=data, explainers=["grad_cam"], metrics=[], features={}, chunk=64, batch=32)
    return place, trained, data, with_mark


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    return made(tmp_path_factory.mktemp("patterns") / "run", MARKED)


def mostly(one: Pattern, with_mark: set[str]) -> bool:
    """Whether it has nearly all marked images and no others; training differs a little from machine to machine."""
    return set(one.samples) <= with_mark and len(one.samples) >= len(with_mark) - 3


def first(planted: Planted) -> Pattern:
    place, model, data, _ = planted
    return patterns(place, model, data).found[0]


def test_the_planted_mark_is_found_first_and_shown(planted: Planted) -> None:
    one = first(planted)
    assert mostly(one, planted[3])
    assert (one.class_index, one.grade) == (0, "shown")
    assert EACH - 10 <= one.of <= EACH + 10
    assert len(one.views) >= 2
    assert one.removal is not None
    assert one.insertion is not None
    assert one.removal.low > 0.3  # nothing else in these images says the class
    assert one.insertion.low > 0.05
    assert max(one.errors, one.elsewhere) < 0.2
    assert one.border > 0.3
    upper_left = np.array(one.place)[:10, :10].sum()
    assert upper_left > 0.8


def test_the_same_seed_gives_the_same_and_it_is_kept(planted: Planted) -> None:
    place, model, data, _ = planted
    once = patterns(place, model, data, seed=3)
    kept = json.loads((place / "insights" / "patterns.json").read_text(encoding="utf-8"))
    assert kept == once.as_dict()
    assert kept["found"][0]["off_object"] is None  # no boxes are known
    again = patterns(place, model, data, seed=3, keep=False)
    assert str(once) == str(again)


def test_without_the_network_it_is_a_suspicion(planted: Planted) -> None:
    place, model, data, with_mark = planted
    found = patterns(place, keep=False)
    assert mostly(found.found[0], with_mark)
    assert found.found[0].grade == "suspicion"
    assert found.shown == ()
    assert "pass model and data" in str(found)
    with pytest.raises(InvalidInput, match="pass both"):
        patterns(place, model)
    with pytest.raises(InvalidInput, match="pass both"):
        patterns(place, data=data)


def test_clean_data_accuse_nothing(tmp_path: Path) -> None:
    place, model, data, _ = made(tmp_path, 0)
    found = patterns(place, model, data)
    assert found.found == ()
    assert "nothing stands out" in str(found)
    assert (found.images, found.classes) == (3 * EACH, 3)


def test_what_goes_with_a_pattern_is_told(planted: Planted, tmp_path: Path) -> None:
    place, _, _, with_mark = planted
    rows = [f"{n:06d},{'north' if f'{n:06d}' in with_mark else 'south'},{n % 7}" for n in range(3 * EACH)]
    (tmp_path / "meta.csv").write_text("\n".join(["sample,clinic,day", *rows]), encoding="utf-8")
    one = patterns(place, table=tmp_path / "meta.csv", keep=False).found[0]
    own = len(one.samples)
    assert len(one.goes_with) == 1
    assert one.goes_with[0].startswith(f"clinic = north: {own} of {own}, of the others ")


def test_a_run_without_what_is_needed_says_so(tmp_path: Path) -> None:
    x, y, _ = images(0)
    model = network(x[:8], y[:8])
    data = [(one, int(label)) for one, label in zip(x[:8], y[:8], strict=True)]
    run(tmp_path / "maps", model=model, data=data, explainers=["grad_cam"], metrics=[])
    with pytest.raises(UnknownName, match="keeps no features"):
        patterns(tmp_path / "maps")
    run(tmp_path / "features", model=model, data=data, explainers=[], metrics=[], features={})
    with pytest.raises(InvalidInput, match="keeps no features under maps"):
        patterns(tmp_path / "features")


def test_the_command(planted: Planted, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["patterns", str(planted[0])]) == 0
    assert re.search(r"class 0: 1\d of 1\d\d images, seen in ", capsys.readouterr().out)
    assert cli.main(["patterns", str(planted[0]), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["found"][0]["grade"] == "suspicion"
    assert cli.main(["patterns", str(planted[0]), "--model", "timm:resnet18"]) == 2
    assert "name both: --model and --data" in capsys.readouterr().err


def test_another_network_and_other_data_are_refused(planted: Planted) -> None:
    place, model, data, _ = planted
    with pytest.raises(InvalidInput, match="Pass the network of the run"):
        patterns(place, network(*images(0)[:2]).apply(_shuffled), data, keep=False)
    with pytest.raises(InvalidInput, match="Pass the data of the run"):
        patterns(place, model, data[:1], keep=False)


def _shuffled(part: torch.nn.Module) -> None:
    if isinstance(part, torch.nn.Linear):
        with torch.no_grad():
            part.weight.copy_(part.weight.flip(0))


def test_scores_are_those_that_the_run_has(planted: Planted, tmp_path: Path) -> None:
    """Whatever is put on scores: a sigmoid, nothing, or nothing because the network gives probabilities."""
    _, model, data, _ = planted
    some = data[:48]
    forms = ((model, "sigmoid"), (model, None), (torch.nn.Sequential(model, torch.nn.Softmax(1)), "auto"))
    for number, (form, function) in enumerate(forms):
        place = tmp_path / str(number)
        run(place, model=form, data=some, explainers=["grad_cam"], metrics=[], features={}, activation_fn=function)
        opened = Run(place)
        records = {record.sample: record for record in opened.records()}
        ask = _Asking(load(form), open_data(some), records, 0)
        for label in range(3):
            names = [name for name, record in records.items() if label in record.labels]
            told = ask.scores(opened, label)(ask.inputs(names)[1])
            assert told == pytest.approx([records[name].labels[label].probability for name in names], abs=1e-5)


def test_an_activation_of_ones_own_is_not_guessed(planted: Planted, tmp_path: Path) -> None:
    _, model, data, _ = planted
    run(tmp_path, model=model, data=data[:4], explainers=["grad_cam"], metrics=[], activation_fn=torch.nn.Softplus())
    with pytest.raises(InvalidInput, match="activation of its own"):
        _activation(Run(tmp_path))


def test_images_of_another_size_do_not_shift_the_evidence(planted: Planted) -> None:
    """Those of the commonest size stay, each with its own name."""
    _, model, _, _ = planted
    sizes = (40, 32, 32, 40, 32)
    data = [(torch.full((3, side, side), n / 10), 0) for n, side in enumerate(sizes)]
    records = {f"{n:06d}": SimpleNamespace(position=n) for n in range(5)}
    ask = _Asking(load(model), open_data(data), cast("Any", records), 0)
    names, inputs = ask.inputs(list(records))
    assert names == ["000001", "000002", "000004"]
    assert inputs[:, 0, 0, 0].tolist() == pytest.approx([0.1, 0.2, 0.4])
    assert ask.inputs(list(records), (40, 40))[0] == ["000000", "000003"]
    assert len(ask.inputs(list(records), (50, 50))[1]) == 0


# ---------------------------------------------------------------------------------------------- parts of it


def test_a_small_cluster_beside_a_large_one_is_told_and_others_are_not() -> None:
    rng = np.random.default_rng(0)
    body, few = rng.normal(size=(200, 5)), rng.normal(size=(12, 5)) * 0.1 + 9
    (found,) = apart(np.concatenate([body, few]).astype(np.float32))
    assert found.tolist() == list(range(200, 212))
    assert apart(body.astype(np.float32)) == []
    halves = np.concatenate([body, body + 9])
    assert apart(halves.astype(np.float32)) == []  # neither is small beside the other
    for flat in (np.zeros((50, 4)), np.zeros((0, 4)), np.zeros((50, 0))):
        assert apart(flat.astype(np.float32)) == []


def test_effects_are_those_of_the_closed_form() -> None:
    """The score is the mean of a patch: filling or copying it changes the score by what is known."""
    where = np.zeros((20, 20), dtype=bool)
    where[4:8, 4:8] = True

    def scores(x: Tensor) -> Any:
        return x[:, :, 4:8, 4:8].mean((1, 2, 3)).double().numpy()

    dark = torch.zeros(16, 3, 20, 20)
    bright = dark.clone()
    bright[:, :, 4:8, 4:8] = 1.0
    removed = taken_away(scores, bright, [where] * 16)
    assert removed.alone == pytest.approx(1.0)
    assert 0.5 < removed.low <= removed.change <= 1.0  # a random place may overlap the patch
    put = put_in(scores, bright, [where] * 16, dark)
    assert put.alone == pytest.approx(1.0)
    assert put.change > 0.5
    nothing = taken_away(scores, dark, [where] * 16)
    assert (nothing.change, nothing.low, nothing.high, nothing.alone) == (0, 0, 0, 0)


def test_evidence_is_what_is_near_the_largest_value() -> None:
    raw = np.array([[1.0, 0.2], [-3.0, 0.31]], np.float32)
    assert evidence(raw, (2, 2)).tolist() == [[True, False], [False, True]]
    assert not evidence(-np.abs(raw), (2, 2)).any()
    assert not evidence(np.zeros((2, 2), np.float32), (4, 4)).any()
