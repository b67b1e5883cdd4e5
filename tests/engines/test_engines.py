"""Engines: the same work in this process, in several, and on a real Ray cluster of this machine; workers are killed."""

from __future__ import annotations

import importlib.util
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from seewhy import registry
from seewhy.engines.local import Local
from seewhy.engines.ray import Ray
from seewhy.errors import InvalidInput
from support import SRC, TESTS
from support.run_jobs import content, images, network, rows, run
from support.typed import unchecked

pytestmark = pytest.mark.slow


class Deadly(torch.utils.data.Dataset[Any]):
    """Kills the process that reads a picture, the first so many times; never the one that made it."""

    def __init__(self, place: Path, victim: int, times: int) -> None:
        self.place, self.victim, self.times, self.home = place, victim, times, os.getpid()

    def __len__(self) -> int:
        return 24

    def __getitem__(self, index: int) -> Any:
        if index == self.victim:
            for i in range(self.times if os.getpid() != self.home else 0):
                try:
                    (self.place / f"killed-{i}").touch(exist_ok=False)
                except FileExistsError:
                    continue
                os.kill(os.getpid(), signal.SIGKILL)
        return images(24)[index], index % 5


def plain(place: Path) -> list[dict[str, Any]]:
    return [row | {"part": ""} for row in content(place)]


@pytest.fixture(scope="module")
def want(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    place = tmp_path_factory.mktemp("engines")
    run(place / "a", data=Deadly(place, -1, 0))
    return plain(place / "a")


@pytest.fixture(params=["local", pytest.param("ray", marks=pytest.mark.ray)])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Local | Ray:
    if request.param == "ray":
        if importlib.util.find_spec("ray") is None:
            pytest.skip("Ray is not installed")
        monkeypatch.setenv("PYTHONPATH", f"{TESTS}{os.pathsep}{SRC}")
    made: Local | Ray = registry.load("engines", request.param)(workers=2)
    return made


def test_a_worker_is_killed_in_the_middle(engine: Any, tmp_path: Path, want: list[dict[str, Any]]) -> None:
    before = dict(os.environ)
    found = run(tmp_path / "a", data=Deadly(tmp_path, 13, 1), engine=engine)
    assert (tmp_path / "killed-0").exists()
    assert (found.left, found.failed) == (0, 0)
    assert plain(tmp_path / "a") == want
    assert dict(os.environ) == before


def test_a_picture_that_always_kills_is_given_up(tmp_path: Path) -> None:
    found = run(tmp_path / "a", data=Deadly(tmp_path, 13, 99), engine=Local(workers=2), chunk=2)
    lost = {row["position"] for row in rows(tmp_path / "a") if row["failures"]}
    assert {12, 13} <= lost
    assert len(lost) <= 6  # its chunk, and those that were computed while it was read ahead
    assert (found.left, found.failed) == (0, len(lost))
    assert all("The worker was lost 3 times" in why.reason for _, why in found.failures)
    again = run(tmp_path / "a", data=Deadly(tmp_path, 13, 99), chunk=2, retry=True)
    assert (again.computed, again.failed) == (len(lost), 0)


def test_one_worker_works_in_this_process(tmp_path: Path) -> None:
    net = unchecked(network())
    net.marker = 0
    net.register_forward_hook(lambda module, *_: setattr(module, "marker", module.marker + 1))
    run(tmp_path / "a", model=net, engine=Local())
    assert net.marker > 0


def test_an_error_of_the_job_is_not_tried_again(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="something cannot be"):
        run(tmp_path / "a", engine=Local(workers=2), activation_fn=lambda scores: scores.softmax(-1))


@pytest.mark.parametrize("kind", [Local, Ray])
def test_number_of_workers(kind: Any) -> None:
    with pytest.raises(InvalidInput, match=r"workers must be a positive integer, got 0\."):
        kind(workers=0)
