"""A run survives kill -9 at any moment: it is readable, it goes on, and it ends as if nothing had happened."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from seewhy.runs.folder.store import Store
from seewhy.runs.query.run import Run
from support import SRC, TESTS
from support.run_jobs import content, rows, run

pytestmark = pytest.mark.slow

PICTURES = 40
EXPLAINERS = "grad_cam(layer='act2')|occlusion(window=6, stride=2)"


class Server:
    """Makes processes that run the job, and kills them."""

    def __init__(self) -> None:
        environment = os.environ | {"PYTHONPATH": f"{TESTS}:{SRC}", "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, str(TESTS / "support" / "crash_server.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True, env=environment,
        )  # fmt: skip
        assert self._line() == "ready"

    def run(self, place: Path, kill_after: float | None = None, explainers: str = EXPLAINERS) -> int:
        """The exit code; minus the signal's number for one that was killed."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{place}\t{PICTURES}\t{explainers}\n")
        self.process.stdin.flush()
        pid = int(self._line())
        if kill_after is not None:
            time.sleep(kill_after)
            with contextlib.suppress(ProcessLookupError):  # it was done already
                os.kill(pid, signal.SIGKILL)
        return int(self._line())

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    one = Server()
    yield one
    one.process.kill()
    one.process.wait()


def test_killed_at_twenty_moments(server: Server, tmp_path: Path) -> None:
    began = time.perf_counter()
    assert server.run(tmp_path / "whole") == 0
    takes = time.perf_counter() - began
    want = [row | {"part": ""} for row in content(tmp_path / "whole")]
    assert len(want) == PICTURES
    dice, kills, folder, finished = random.Random(7), 0, 0, 0
    while kills < 20:
        place = tmp_path / f"torn-{folder}"
        code = server.run(place, kill_after=dice.uniform(0, 0.6 * takes))
        kills += code == -signal.SIGKILL
        assert code in (0, -signal.SIGKILL)
        _readable(place)
        if code == 0 or (kills == 20 and server.run(place) == 0):
            assert [row | {"part": ""} for row in content(place)] == want
            finished += 1
            folder += 1
    assert finished >= 1
    for place in tmp_path.iterdir():
        assert not list(place.glob("**/.*.tmp")) or place.name != f"torn-{folder - 1}"


def _readable(place: Path) -> None:
    """Whatever is there is whole."""
    if not Store(place).exists():
        return
    found = Run(place)
    counts = found.counts()
    assert counts.unread == 0
    for row in rows(place):
        for one in row["maps"]:
            made = found.map(row["sample"], one["label"], one["explainer"])
            assert made is not None
            assert made.shape == (one["height"], one["width"])


def test_a_part_without_rows_is_not_there(tmp_path: Path) -> None:
    run(tmp_path / "a", metrics=())
    want = content(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    victim = sorted((tmp_path / "b" / "parts").glob("*.parquet"))[1]
    victim.unlink()  # killed after the pack, before the rows
    shutil.rmtree(tmp_path / "b" / "index", ignore_errors=True)
    found = run(tmp_path / "b", metrics=())
    assert found.computed == 4
    assert _without_part(content(tmp_path / "b")) == _without_part(want)


def test_several_processes_at_the_same_work_do_it_as_one_would(tmp_path: Path) -> None:
    servers = [Server() for _ in range(3)]
    for one in servers:
        assert one.process.stdin is not None
        one.process.stdin.write(f"{tmp_path / 'together'}\t{PICTURES}\t{EXPLAINERS}\n")
        one.process.stdin.flush()
    codes = [(one._line(), one._line())[1] for one in servers]
    for one in servers:
        one.process.kill()
        one.process.wait()
    assert codes == ["0", "0", "0"]
    assert len(list((tmp_path / "together" / "parts").glob("*.parquet"))) > PICTURES / 4  # some chunks twice
    alone = run(tmp_path / "alone", PICTURES, explainers=EXPLAINERS.split("|"))
    assert alone.forward > 0
    assert _without_part(content(tmp_path / "together")) == _without_part(content(tmp_path / "alone"))
    assert run(tmp_path / "together", PICTURES, explainers=EXPLAINERS.split("|")).forward == 0


def _without_part(found: list[dict[str, object]]) -> list[dict[str, object]]:
    return [row | {"part": ""} for row in found]
