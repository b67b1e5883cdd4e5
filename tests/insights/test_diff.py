"""Two runs side by side: pairing, kinds of change, maps at the same places, metrics, files, the command."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from seewhy import cli
from seewhy.errors import InvalidInput, UnknownName
from seewhy.insights.diff import diff
from seewhy.insights.places import GRID, centre, common, likeness, share, spread
from seewhy.runs.query.run import Run
from support.run_jobs import images, network, run
from support.typed import present

WHAT: dict[str, Any] = {"explainers": ["grad_cam"], "metrics": ["deletion_auc(steps=4)", "pointing_game(tolerance=0)"]}


def other() -> torch.nn.Module:
    changed = network()
    with torch.no_grad():
        for weight in changed.parameters():
            weight.add_(0.3 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(5)))
    return changed


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("diff")
    run(root / "a", 10, **WHAT)
    run(root / "b", 8, model=other(), **WHAT)
    return root / "a", root / "b"


def test_answers_and_numbers_are_those_of_the_networks(places: tuple[Path, Path]) -> None:
    found = diff(*places)
    assert (len(found.images), found.only_first, found.only_second, found.replaced) == (8, 2, 0, 0)
    assert (found.settings.keys() >= {"weights"}, "activation" in found.settings) == (True, False)
    x, nets = images(8), (network(), other().eval())
    said = [net(x).softmax(1).detach() for net in nets]
    for one in found.images:
        i = int(one.sample)
        answers = [int(p[i].argmax()) for p in said]
        assert one.predicted == tuple(f"class {a}" for a in answers)
        right = tuple(a == i % 5 for a in answers)
        assert one.right == right
        kind = (
            "same answer"
            if answers[0] == answers[1]
            else {(1, 0): "broken", (0, 1): "fixed"}.get(right, "other answer")
        )
        assert one.kind == kind
        for name, numbers in one.numbers.items():
            label = int(name.split()[1])
            assert numbers == pytest.approx([float(p[i, label]) for p in said], abs=1e-5)
        assert one.shift == max((b - a for a, b in one.numbers.values()), key=abs)
    ranks = [one.rank for one in found.images]
    assert ranks == sorted(ranks)
    assert sum(found.counts.values()) == 8
    assert found.accuracy is not None
    assert found.accuracy[0].mean == np.mean([one.right[0] for one in found.images if one.right])


def test_maps_are_compared_at_the_same_places(places: tuple[Path, Path]) -> None:
    first, second = Run(places[0]), Run(places[1])
    for one in diff(first, second).images:
        (look,) = one.looks
        labels = set.intersection(
            *({label for label, _ in present(r.sample(one.sample)).maps} for r in (first, second))
        )
        maps = [[r.map(one.sample, label, "grad_cam") for r in (first, second)] for label in labels]
        wanted = []
        for a, b in maps:
            assert a is not None
            assert b is not None
            big = [
                torch.nn.functional.interpolate(torch.from_numpy(m)[None, None], (GRID, GRID), mode="bilinear")
                for m in (a, b)
            ]
            if all(float(m.max()) > float(m.min()) for m in big):
                wanted.append(spearmanr(big[0].flatten(), big[1].flatten()).statistic)
        if wanted:
            assert look.correlation == pytest.approx(np.mean(wanted), abs=1e-4)
        else:
            assert math.isnan(look.correlation)


def test_metrics_are_paired_by_image(places: tuple[Path, Path]) -> None:
    table = diff(*places).judged
    assert table is not None
    assert table.metrics == ("grad_cam/deletion_auc(steps=4)", "grad_cam/pointing_game(tolerance=0)")
    assert table.values.shape == (2, 2, 8)
    for r, place in enumerate(places):
        for n, record in enumerate(list(Run(place).records())[:8]):
            own = [v for (_, _, m), v in record.scores.items() if m.startswith("deletion") and v is not None]
            assert table.values[r, 0, n] == pytest.approx(np.mean(own))


def test_a_run_and_itself(places: tuple[Path, Path]) -> None:
    found = diff(places[0], places[0])
    assert found.counts == {"broken": 0, "fixed": 0, "other answer": 0, "same answer": 10, "no answer": 0}
    assert found.settings == {}
    for one in found.images:
        assert one.shift == 0
        for look in one.looks:
            assert math.isnan(look.correlation) or look.correlation > 0.9999
            assert math.isnan(look.moved) or look.moved == 0
    assert "10 same answer" in str(found)


def test_networks_that_see_different_parts() -> None:
    """The map of a centre crop is compared where both look: a peak at one place of the original is at one place."""
    whole, crop = (0.0, 0.0, 100.0, 80.0), (20.0, 10.0, 80.0, 70.0)
    part = common(whole, crop)
    assert part == crop
    y, x = np.mgrid[0:80, 0:100] + 0.5
    scene = np.exp(-((x - 50) ** 2 + (y - 30) ** 2) / 200).astype(np.float32)
    a = spread(scene, whole, crop)
    b = spread(scene[10:70, 20:80], crop, crop)
    assert likeness(a, b) > 0.999
    assert centre(a) == pytest.approx(centre(b), abs=1e-3)
    assert centre(a) == pytest.approx((20 / 60, 0.5), abs=0.05)
    assert share(a, [(35.0, 15.0, 65.0, 45.0)], crop) == pytest.approx(
        share(b, [(35.0, 15.0, 65.0, 45.0)], crop), abs=1e-3
    )
    assert share(a, [(35.0, 15.0, 65.0, 45.0)], crop) > 0.75
    assert math.isnan(likeness(np.zeros((3, 3)), np.eye(3)))
    assert math.isnan(share(-a, [crop], crop))
    assert common((0, 0, 10, 10), (10, 0, 20, 10)) is None


def test_files_and_the_command(places: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = map(str, places)
    assert cli.main(["diff", first, second, "--out", str(tmp_path / "all.csv")]) == 0
    assert "8 images in both runs" in capsys.readouterr().out
    with (tmp_path / "all.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["sample"] for line in lines] == [one.sample for one in diff(*places).images]
    assert cli.main(["diff", first, second, "--explainer", "grad_cam", "--most", "3", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (len(told["images"]), told["only_first"]) == (3, 0)
    assert cli.main(["diff", first, second, "--out", "all.txt"]) == 2
    assert "--out must end with .csv or .json, got 'all.txt'." in capsys.readouterr().err
    assert cli.main(["diff", first, second, "--explainer", "grad_cam", "--against", "a", "--against", "b"]) == 2
    assert "--against must be given once for each --explainer (1), got 2." in capsys.readouterr().err


def test_what_cannot_be_compared(places: tuple[Path, Path]) -> None:
    with pytest.raises(UnknownName, match="has no explainer 'grad_kam'"):
        diff(*places, explainers=["grad_kam"])
    with pytest.raises(InvalidInput, match="most must be"):
        diff(*places, most=0)
