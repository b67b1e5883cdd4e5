"""What hangs, ends its process, or changes under the work: a failure with its reason, and everything else is done."""

from __future__ import annotations

import ctypes
import importlib.util
import multiprocessing
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from seewhy import GradCAM
from seewhy.engines.local import Local
from seewhy.engines.ray import Ray
from seewhy.errors import InvalidInput, TimedOut
from seewhy.metrics import Case, Metric
from seewhy.runs.runner import Runner
from seewhy.runs.work import limits
from seewhy.runs.work.limits import Limit, Readers
from support import SRC, TESTS
from support.run_jobs import content, images, job, network, rows, run

pytestmark = pytest.mark.slow

LATE = "It took longer than 1.5 s and was given up."
FAST: dict[str, Any] = {"explainers": ["recipro_cam"], "metrics": ("sparseness",)}


def here() -> bool:
    """Whether this is no worker's process."""
    return multiprocessing.parent_process() is None


def deadlock() -> None:
    """Never comes back from a call into the C library, which holds the interpreter and heeds no signal."""
    mutex = ctypes.create_string_buffer(64)
    library = ctypes.PyDLL(None)
    library.pthread_mutex_lock(mutex)
    library.pthread_mutex_lock(mutex)


def spin() -> None:
    while True:
        pass


def stubborn() -> None:
    while True:
        try:
            time.sleep(1000)
        except Exception:
            return  # whatever it was, it seems to say


def marked(inputs: Tensor) -> bool:
    """Whether one of the inputs is picture 5."""
    return bool((inputs == images(6)[5]).flatten(1).all(1).any())


@dataclass(frozen=True, eq=False, repr=False)
class Odd(GradCAM):
    """Does something else for picture 5."""

    what: Any = spin

    def _explain(self, model: Any, inputs: Tensor, request: Any) -> Any:
        if marked(inputs):
            self.what()
        return super()._explain(model, inputs, request)


@dataclass(frozen=True, eq=False, repr=False)
class Sleepy(Odd):
    what: Any = partial(time.sleep, 1000)  # noqa: RUF009 - it is called later


@dataclass(frozen=True, eq=False, repr=False)
class Frozen(GradCAM):
    """Hangs for good at picture 5, but not in the tests' own process."""

    def _explain(self, model: Any, inputs: Tensor, request: Any) -> Any:
        if marked(inputs) and not here():
            deadlock()
        return super()._explain(model, inputs, request)


@dataclass(frozen=True, kw_only=True, eq=False)
class Slow(Metric):
    def _judge(self, case: Case) -> float:
        if case.target == 2:
            time.sleep(1000)
        return 0.5


class Pictures(torch.utils.data.Dataset[Any]):
    """Twelve pictures; asked for the fifth it does what it is told."""

    def __init__(self, what: Any, home: bool = True) -> None:
        self.what, self.home = what, home

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> Any:
        limits._GRACE = 0.5  # also in a worker
        if index == 5 and (self.home or not here()):
            self.what()
        return images(12)[index], index % 5


def leave() -> None:
    raise SystemExit(3)


def interrupt() -> None:
    raise KeyboardInterrupt


def failures(place: Path) -> dict[int, list[str]]:
    return {row["position"]: [one["reason"] for one in row["failures"]] for row in rows(place) if row["failures"]}


# ----------------------------------------------------------------------------------------------------------- exit()


def test_a_data_set_that_ends_the_process(tmp_path: Path) -> None:
    found = run(tmp_path / "a", data=Pictures(leave), **FAST)
    assert (found.computed, found.failed, found.left) == (12, 1, 0)
    assert failures(tmp_path / "a") == {5: ["Sample '000005': the data set raised SystemExit: 3."]}


def test_an_explainer_a_metric_and_a_network_that_end_the_process(tmp_path: Path) -> None:
    net = network()

    @dataclass(frozen=True, kw_only=True, eq=False)
    class Ends(Metric):
        def _judge(self, case: Case) -> float:
            leave()
            return 0.0

    run(tmp_path / "a", model=net, explainers={"odd": Odd(net, what=leave), "plain": "grad_cam"}, metrics=[Ends()])
    said = failures(tmp_path / "a")
    assert "SystemExit: 3" in said[5]
    assert all(set(reasons) == {"SystemExit: 3"} for reasons in said.values())
    for row in rows(tmp_path / "a"):
        assert {one["explainer"] for one in row["maps"]} == ({"plain"} if row["position"] == 5 else {"odd", "plain"})
    net.register_forward_hook(lambda _module, inputs, _output: leave() if marked(inputs[0]) else None)
    run(tmp_path / "b", model=net, **FAST)
    assert {where: set(said) for where, said in failures(tmp_path / "b").items()} == {5: {"SystemExit: 3"}}


def test_ctrl_c_in_an_explainer_stays_what_it_is(tmp_path: Path) -> None:
    net = network()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "a", model=net, explainers=[Odd(net, what=interrupt)])


def test_workers_that_cannot_even_begin() -> None:
    todo = [SimpleNamespace(name="a")]
    with pytest.raises(InvalidInput, match=r"No worker can begin: its process ended with exit code 0\. Look at what"):
        list(Local(apart=True).map(os._exit, todo, lambda: False))  # type: ignore[arg-type]


def test_a_worker_that_asks_to_leave_does_not_end_who_asked() -> None:
    todo = [SimpleNamespace(name="a")]
    with pytest.raises(InvalidInput, match=r"A worker was asked to end its process: SystemExit: 0\."):
        list(Local(apart=True).map(sys.exit, todo, lambda: False))  # type: ignore[arg-type]


# -------------------------------------------------------------------------------------------------------- timeouts


@pytest.mark.parametrize("what", [spin, stubborn, lambda: threading.Event().wait(), lambda: time.sleep(1000)])
def test_an_explainer_that_hangs(what: Any, tmp_path: Path) -> None:
    net = network()
    hooks = [len(m._forward_hooks) for m in net.modules()]
    before = signal.getsignal(signal.SIGALRM)
    explainers = {"odd": Odd(net, what=what), "plain": "recipro_cam"}
    found = run(tmp_path / "a", model=net, explainers=explainers, metrics=("sparseness",), timeout=1.5, batch=1)
    assert (found.computed, found.failed) == (12, 0)
    if what is not stubborn:
        assert failures(tmp_path / "a") == {5: [LATE]}
    run(tmp_path / "b", model=net, explainers={"plain": "recipro_cam"}, metrics=("sparseness",), batch=1)
    maps = [[m for m in row["maps"] if m["explainer"] == "plain"] for row in content(tmp_path / "a")]
    assert maps == [row["maps"] for row in content(tmp_path / "b")]
    assert [len(m._forward_hooks) for m in net.modules()] == hooks
    assert signal.getsignal(signal.SIGALRM) == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_a_batch_has_as_much_time_as_its_pictures(tmp_path: Path) -> None:
    net = network()
    run(tmp_path / "a", model=net, explainers=[Odd(net, what=spin)], metrics=(), timeout=1.5, batch=3)
    assert failures(tmp_path / "a") == {5: [LATE]}


def test_a_metric_that_hangs(tmp_path: Path) -> None:
    run(tmp_path / "a", explainers=["recipro_cam"], metrics=[Slow(), "sparseness"], timeout=1.5, n=5)
    asked = {row["position"]: sum(one["label"] == 2 for one in row["labels"]) for row in rows(tmp_path / "a")}
    assert failures(tmp_path / "a") == {where: [LATE] for where, count in asked.items() if count}
    assert sum(asked.values()) > 0


@pytest.mark.parametrize("what", [spin, lambda: time.sleep(1000)])
def test_a_data_set_that_hangs(what: Any, tmp_path: Path) -> None:
    began = time.monotonic()
    found = run(tmp_path / "a", data=Pictures(what), timeout=6.0, **FAST)
    assert (found.computed, found.failed, found.left) == (12, 1, 0)
    assert failures(tmp_path / "a") == {5: ["It took longer than 6 s and was given up."]}
    assert time.monotonic() - began < 60


def test_in_another_thread_python_code_is_interrupted(tmp_path: Path) -> None:
    net, said = network(), []

    def work() -> None:
        said.append(run(tmp_path / "a", model=net, explainers=[Odd(net)], metrics=(), timeout=1.5, batch=1))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(60)
    assert said[0].computed == 12
    assert failures(tmp_path / "a") == {5: [LATE]}


@pytest.mark.parametrize("kind", ["local", pytest.param("ray", marks=pytest.mark.ray)])
def test_a_worker_that_hangs(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if kind == "ray" and importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed")
    monkeypatch.setenv("PYTHONPATH", f"{TESTS}{os.pathsep}{SRC}")
    engine: Any = Ray(workers=1) if kind == "ray" else Local(apart=True)
    found = run(tmp_path / "a", explainers=[Sleepy], metrics=(), engine=engine, timeout=6.0, batch=1)
    assert (found.computed, found.failed, found.left) == (12, 0, 0)
    assert failures(tmp_path / "a") == {5: ["It took longer than 6 s and was given up."]}


def test_a_call_that_never_comes_back_costs_its_chunk(tmp_path: Path) -> None:
    options: dict[str, Any] = {"explainers": [Frozen], "metrics": (), "chunk": 2, "batch": 1}
    found = run(tmp_path / "a", data=Pictures(int), engine=Local(apart=True), timeout=3.0, **options)
    assert (found.computed, found.left) == (12, 0)
    lost = failures(tmp_path / "a")
    assert {4, 5} <= set(lost)
    assert len(lost) <= 6  # its chunk, the one that was read ahead, and the one that was not written yet
    assert all("The worker was lost 3 times" in text for reasons in lost.values() for text in reasons)
    again = run(tmp_path / "a", data=Pictures(int), retry=True, **options)
    assert (again.computed, again.failed) == (len(lost), 0)


def test_limits_leave_the_alarm_of_others_alone() -> None:
    rang: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda *_: rang.append(1))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.5)
        with Limit(5.0)():
            time.sleep(0.01)
        assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= 0.5
        time.sleep(0.6)
        assert rang == [1]
    finally:
        signal.signal(signal.SIGALRM, before)


def test_a_network_is_put_back_when_something_is_interrupted() -> None:
    net = network()

    def disturb() -> None:
        with Limit(0.2, net)():
            net.register_forward_hook(lambda *_: None)
            net.train()
            next(net.parameters()).requires_grad = False
            time.sleep(1000)

    with pytest.raises(TimedOut):
        disturb()
    assert sum(len(m._forward_hooks) for m in net.modules()) == 0
    assert not net.training
    assert all(p.requires_grad for p in net.parameters())


def test_readers_go_on_without_the_one_that_hangs() -> None:
    readers = Readers(1, 0.3)
    waiting = [readers.submit(time.sleep, 1000), readers.submit(lambda: 7), readers.submit(leave)]
    with pytest.raises(TimedOut):
        waiting[0].result()
    assert waiting[1].result() == 7
    with pytest.raises(SystemExit):
        waiting[2].result()
    readers.close()


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), "3"])
def test_a_timeout_that_is_none(value: Any, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="timeout must be a positive number of seconds, got"):
        job(tmp_path, timeout=value)


# ------------------------------------------------------------------------------------- what changes under the work


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for i in range(12):
        save(tmp_path / "photos" / f"{i:02d}.png", i)
    return tmp_path / "photos"


def save(path: Path, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 255, (32, 32, 3), np.uint8)
    Image.fromarray(pixels).save(path.with_suffix(".tmp"), format="PNG")
    path.with_suffix(".tmp").replace(path)


def of_files(place: Path, photos: Path, meanwhile: Any = None, **changes: Any) -> Any:
    """A run over the files, in which something happens once the first picture is committed."""
    done: list[int] = []

    def told(pictures: int, _total: int) -> None:
        if not done and meanwhile is not None:
            meanwhile()
        done.append(pictures)

    preprocessing = {"changes": {"size": (32, 32), "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}}
    own: dict[str, Any] = {"data": str(photos), "model_options": preprocessing, "chunk": 1, **FAST, **changes}
    return Runner(job=job(place, **own), progress=told).run()


def test_a_picture_that_is_deleted_meanwhile(photos: Path, tmp_path: Path) -> None:
    found = of_files(tmp_path / "a", photos, (photos / "09.png").unlink)
    assert (found.computed, found.failed) == (12, 1)
    assert "09.png" in failures(tmp_path / "a")[9][0]
    save(photos / "09.png", 9)
    assert of_files(tmp_path / "a", photos).computed == 1


def test_a_picture_that_is_replaced_meanwhile_is_noticed(photos: Path, tmp_path: Path) -> None:
    found = of_files(tmp_path / "a", photos, lambda: save(photos / "09.png", 77))
    assert (found.computed, found.failed) == (12, 0)
    said = {row["position"]: row["warnings"] for row in rows(tmp_path / "a")}
    assert said.pop(9) == ["The picture was changed after the run had begun: this is about the new one."]
    assert not any(said.values())
    assert of_files(tmp_path / "a", photos).computed == 0
    of_files(tmp_path / "b", photos)
    assert [row["maps"] for row in content(tmp_path / "a")] == [row["maps"] for row in content(tmp_path / "b")]


def test_old_maps_are_not_judged_on_a_new_picture(photos: Path, tmp_path: Path) -> None:
    of_files(tmp_path / "a", photos)
    more = {"metrics": ("sparseness", "complexity")}
    found = of_files(tmp_path / "a", photos, lambda: save(photos / "09.png", 77), **more)
    assert [name for name, _ in found.failures] == ["09.png"]
    assert found.failures[0][1].reason.startswith("The picture is not the one that was explained before: ")
    again = of_files(tmp_path / "a", photos, **more)
    assert (again.computed, again.failed) == (1, 0)
    of_files(tmp_path / "b", photos, **more)
    newest = {row["position"]: row for row in sorted(content(tmp_path / "a"), key=lambda row: len(row["done"]))}
    want = {row["position"]: row for row in content(tmp_path / "b")}
    assert newest[9]["maps"] == want[9]["maps"]


def test_a_worker_that_is_stopped_and_goes_on(tmp_path: Path) -> None:
    place = tmp_path / "a"
    found = run(place, data=Pictures(stop_for_a_while, home=False), engine=Local(apart=True), chunk=2, **FAST)
    assert (found.computed, found.left, found.failed) == (12, 0, 0)
    run(tmp_path / "b", data=Pictures(int), chunk=2, **FAST)
    assert [row | {"part": ""} for row in content(place)] == [row | {"part": ""} for row in content(tmp_path / "b")]


def stop_for_a_while() -> None:
    """Another process lets this one go on after a second."""
    if os.fork() == 0:
        time.sleep(1)
        os.kill(os.getppid(), signal.SIGCONT)
        os._exit(0)
    os.kill(os.getpid(), signal.SIGSTOP)
