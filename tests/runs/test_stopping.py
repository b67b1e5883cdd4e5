"""Ctrl-C is answered at once, with how long the chunk in hand will take."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor, nn

from seewhy.runs.runner import Runner
from seewhy.runs.stopping import Stop, stoppable
from support.networks import Pooled, build
from support.run_jobs import job


class Clock:
    """Seconds that the test decides."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("lanes", "asked", "now", "left"),
    [
        (1, [], 100, None), (1, [100], 104, None), (1, [100, 110], 111, 9), (1, [100, 110, 130], 131, 14),
        (1, [100, 110], 140, 1), (2, [100, 100], 104, None), (2, [100, 100, 110], 111, 9), (4, [0, 1, 2, 3, 4], 4, 4),
    ],
)  # fmt: skip
def test_how_long_it_takes(lanes: int, asked: list[float], now: float, left: float | None) -> None:
    clock = Clock()
    stop = Stop(lanes, clock)
    for clock.now in asked:
        assert not stop()
    clock.now = now
    assert stop.left == (left if left is None else pytest.approx(left))


def test_what_is_said() -> None:
    clock = Clock()
    stop = Stop(1, clock)
    assert str(stop) == (
        "Stopping after this chunk, for which there is no estimate yet. Ctrl-C again stops at once; then it is "
        "computed anew by resume."
    )
    for clock.now in (100.0, 109.2):
        stop()
    assert str(stop).startswith("Stopping after this chunk, about 9 s. Ctrl-C again")
    assert str(Stop(3)).startswith("Stopping after the chunks in hand, for which")
    stop.pressed.set()
    assert stop()


def test_another_thread_does_not_listen() -> None:
    found: list[bool] = []

    def work() -> None:
        before = signal.getsignal(signal.SIGINT)
        with stoppable(1, lambda line: None):
            found.append(signal.getsignal(signal.SIGINT) is before)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [True]


class Pressing(nn.Module):
    """Presses Ctrl-C in a pass, some time after the run has begun."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.inner, self.left = build(Pooled), after

    def forward(self, x: Tensor) -> Any:
        self.left -= 1
        if self.left == 0:
            signal.raise_signal(signal.SIGINT)
        return self.inner(x)


@pytest.fixture
def _as_in_a_terminal() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_as_in_a_terminal")
@pytest.mark.parametrize(("progress", "said"), [(True, 1), (False, 0)])
def test_a_run_says_so_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], progress: bool, said: int
) -> None:  # fmt: skip
    about: dict[str, Any] = {"explainers": ["occlusion(window=8, stride=4)"], "metrics": (), "model": Pressing(12)}
    found = Runner(job=job(tmp_path / "a", **about), progress=progress).run()
    assert found.interrupted
    assert 0 < found.computed < 12
    assert capsys.readouterr().err.count("Stopping after this chunk, ") == said
