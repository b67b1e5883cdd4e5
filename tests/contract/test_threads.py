"""One network, many threads: each gets, bit for bit, what it would get alone, and the network is left as found."""

from __future__ import annotations

import ctypes
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy.counterfactuals.hierarchical_occlusion import HierarchicalOcclusion
from seewhy.errors import InputRefused
from seewhy.explainers.grad_cam import GradCAM
from seewhy.explainers.occlusion import Occlusion
from seewhy.explainers.rise import RISE
from seewhy.metrics.insertion_auc import InsertionAUC
from seewhy.metrics.mprt import MPRT
from seewhy.models import turns
from seewhy.models.torch import state as kept
from seewhy.models.torch.conduct import conduct
from seewhy.models.torch.model import TorchModel
from seewhy.uncertainty.epistemic_uncertainty import EpistemicUncertainty
from support import networks
from support.explainer_cases import NAMES, SMALL, familiar, make, zoo
from support.networks import build, pictures
from support.threads import many_switches, raised, together

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _many_switches() -> Iterator[None]:
    with many_switches():
        yield
    assert not turns._table.held
    assert not turns._table.waiting
    assert not kept._modules.inside()


def same(found: list[Any], wanted: Any) -> None:
    for one in raised(found):
        assert one == wanted if isinstance(one, str) else torch.equal(one, wanted)


def explained(model: Any, name: str, x: Tensor) -> Tensor:
    raw: Tensor = seewhy.explain(model, x, method=name, progress=False, **SMALL.get(name, {})).raw
    return raw


@pytest.mark.parametrize("name", NAMES)
def test_every_explainer(name: str) -> None:
    x = pictures(1)
    network, fresh = (build(zoo(name).Pooled) for _ in range(2))
    wanted = make(name, network).attribute(x)
    explainer, loaded = make(name, network), seewhy.load(network)
    native = wanted if name == "rise_plus" else explained(loaded, name, x)  # that one begins with another network
    familiar(fresh)
    fresh.train()
    network.train()
    same(together(*[lambda: make(name, fresh).attribute(x)] * 8), wanted)  # whatever is looked up, is so by many
    same(together(*[lambda: make(name, network).attribute(x), lambda: explainer.attribute(x)] * 2), wanted)
    if name != "rise_plus":
        same(together(*[lambda: explained(loaded, name, x)] * 2), native)
    assert all(m.training for m in network.modules())
    assert all(m.training for m in fresh.modules())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())
    assert all(p.requires_grad and p.grad is None for p in network.parameters())


def test_all_kinds_of_calls_at_once() -> None:
    network, x = build(networks.Dropout), pictures(2)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    ood_net, cam = familiar(network), GradCAM(network)
    calls: list[Callable[[], Any]] = [
        lambda: cam.attribute(x, 1),
        lambda: RISE(network, num_masks=16).attribute(x, 1),
        lambda: Occlusion(network, window=8, stride=8).attribute(x, 1),
        lambda: MPRT(steps=2).evaluate(cam, x, 1),
        lambda: InsertionAUC().evaluate(cam, x, 1),
        lambda: EpistemicUncertainty(network, samples=4)(x).std,
        lambda: ood_net(x).detach(),
        lambda: str(HierarchicalOcclusion(network, window=16, num_layers=1)(x, 1)),
        lambda: TorchModel(network)(x).scores,
    ]
    wanted = [call() for call in calls]
    network.train()
    for first in (0, 3, 6):
        for found, want in zip(together(*calls[first:], *calls[:first]), wanted[first:] + wanted[:first], strict=True):
            same([found], want)
    assert all(m.training for m in network.modules())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


class _Waiting(networks.Pooled):
    """A pass ends only when another one runs at the same time; then it says so."""

    def __init__(self) -> None:
        super().__init__()
        self.meeting = threading.Barrier(2)
        self.met: Any = met.append

    def forward(self, x: Tensor) -> Tensor:
        try:
            self.met(self.meeting.wait(0.4))
        except threading.BrokenBarrierError:
            self.meeting.reset()
        return super().forward(x)


met: list[int] = []


def test_pixel_methods_run_side_by_side_and_methods_with_hooks_do_not() -> None:
    x = pictures(1)
    for explain, meets in ((lambda n: Occlusion(n, window=32, stride=32).attribute(x, 1), True),
                           (lambda n: GradCAM(n, layer="act2").attribute(x, 1), False)):  # fmt: skip
        met.clear()
        network = build(_Waiting)
        together(*[lambda e=explain, n=network: e(n)] * 2)
        assert bool(met) == meets


class _Storing(networks.Pooled):
    """Hands its features on by way of an attribute."""

    def forward(self, x: Tensor) -> Tensor:
        self.found = self.features(x)
        return self.fc(self.pool(self.found).flatten(1))


class _CountingPasses(networks.Pooled):
    """Each pass changes what the next one gives."""

    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.count.add_(1)
        return super().forward(x) * self.count


class _Random(networks.Pooled):
    """Draws from the global generator."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + 0.1 * torch.randn_like(x))


class _Remembering(networks.Pooled):
    """Keeps a table in a list that it shares with its class."""

    tables: list[Tensor] = []  # noqa: RUF012 (that is the fault)

    def forward(self, x: Tensor) -> Tensor:
        self.tables.append(x.mean())
        time.sleep(0)
        return super().forward(x) + self.tables.pop()


@pytest.mark.parametrize("kind", [_Storing, _CountingPasses, _Random, _Remembering])
def test_networks_that_keep_something_or_draw(kind: type[nn.Module]) -> None:
    network, x = build(kind), pictures(1)
    calls = [
        lambda: RISE(network, num_masks=24, perturbation_per_eval=5).attribute(x, 1),
        lambda: Occlusion(network, window=8, stride=8, perturbation_per_eval=3).attribute(x, 1),
        lambda: GradCAM(network, layer="act2").attribute(x, 1),
    ]
    wanted = [call() for call in calls]
    torch.manual_seed(3)
    wanted = [call() for call in calls]
    state = torch.get_rng_state()
    for found, want in zip(together(*calls * 3), wanted * 3, strict=True):
        same([found], want)
    assert torch.equal(torch.get_rng_state(), state)
    assert float(getattr(network, "count", 0)) == 0


class _Hiding(nn.Module):
    """A wrapper that does not own what it wraps."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.networks = [network]

    def forward(self, x: Tensor) -> Tensor:
        return self.networks[0](x)


@pytest.mark.compile
def test_a_network_a_part_of_it_and_wrappers_around_it_exclude_each_other() -> None:
    network, x = build(networks.Pooled), pictures(2)
    head = nn.Sequential(network.conv1, network.bn1, network.act1)
    models: list[Any] = [
        network,
        nn.Sequential(network, nn.Identity()),
        nn.DataParallel(network),
        torch.compile(network, backend="eager"),
        head,
        _Hiding(network),
        lambda images: network(images),  # noqa: PLW0108 (it is not the network)
    ]
    layers = ["act2", "0.act2", "module.act2", "act2", "2", "", None]
    calls: list[Callable[[], Tensor]] = [
        partial(GradCAM(m, layer=layer).attribute if layer else Occlusion(m, window=16, stride=16).attribute, x, 1)
        for m, layer in zip(models, layers, strict=True)
        if m is not head
    ]
    wanted = [call() for call in calls]
    for _ in range(3):
        for found, want in zip(together(*calls), wanted, strict=True):
            same([found], want)
    owners = [getattr(m, "_orig_mod", m) for m in models]
    for one in owners:
        for other in owners:
            first, second = turns.alone(one).turn, turns.alone(other).turn
            first.thread, second.thread = 1, 2
            assert first.excludes(second)


def test_parameters_that_two_networks_share() -> None:
    one, other = build(networks.Pooled), build(networks.Pooled)
    other.conv2.weight = one.conv2.weight
    first, second = turns.alone(one).turn, turns.alone(other).turn
    first.thread, second.thread = 1, 2
    assert first.excludes(second)
    third = turns.alone(build(networks.Pooled)).turn
    third.thread = 3
    assert not first.excludes(third)


class _Answer:
    """Explains a network, and hides which from whoever looks."""

    def __init__(self, network: nn.Module) -> None:
        answers[id(self)] = network

    def __call__(self, x: Tensor) -> Tensor:
        return GradCAM(answers[id(self)], layer="act2").attribute(x, 1)


answers: dict[int, nn.Module] = {}


class _Both(nn.Module):
    """Owns one network, and explains another one in the middle of its pass."""

    def __init__(self, own: nn.Module, asked: nn.Module) -> None:
        super().__init__()
        self.own = own
        self.ask: Any = _Answer(asked)

    def forward(self, x: Tensor) -> Tensor:
        found = self.own(x)
        time.sleep(0.02)  # so that the other thread is as far
        return found + float(self.ask(x.detach()).mean())


def test_networks_that_explain_each_other_from_two_threads() -> None:
    inner, x = [build(networks.Pooled), build(networks.Pooled, seed=1)], pictures(1)
    outer = [_Both(*inner).eval(), _Both(*reversed(inner)).eval()]
    calls = [lambda n=n: GradCAM(n, layer="own.act2").attribute(x, 1) for n in outer]
    wanted = [call() for call in calls]
    for one, want in zip(together(*calls * 2, seconds=20), wanted * 2, strict=True):
        same([one], want)


def test_who_takes_networks_in_different_orders_is_told() -> None:
    inner, x = [build(networks.Pooled), build(networks.Pooled, seed=1)], pictures(1)

    def call(first: int) -> Tensor:
        with turns.alone(inner[first]):
            time.sleep(0.05)
            return GradCAM(inner[1 - first], layer="act2").attribute(x, 1)

    found = together(lambda: call(0), lambda: call(1), seconds=20)
    assert sum(isinstance(f, Tensor) for f in found) == 1
    (clash,) = [f for f in found if isinstance(f, turns.Clash)]
    assert str(clash) == (
        "Two threads wait for each other: one needs Pooled in the middle of a call for another network, which the "
        "other thread holds in the same way. Explain the networks one after the other."
    )


def test_an_error_in_one_thread_does_not_hurt_another() -> None:
    network, x = build(networks.Pooled).train(), pictures(2)
    wanted = GradCAM(network).attribute(x, 1)
    bad = pictures(2, channels=4)
    found = together(*[lambda: GradCAM(network).attribute(x, 1), lambda: GradCAM(network).attribute(bad, 1)] * 3)
    same(found[::2], wanted)
    assert all(isinstance(one, InputRefused) for one in found[1::2])
    assert all(m.training for m in network.modules())


def _interrupt(thread: threading.Thread) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(KeyboardInterrupt))


def test_interrupts_at_any_moment_leave_the_network_free_and_as_it_was() -> None:
    network, x = build(networks.Pooled).train(), pictures(1)
    wanted = GradCAM(network).attribute(x, 1)
    chance, stopped = random.Random(0), []

    def endless(make_one: Callable[[], Any]) -> None:
        try:
            while True:
                make_one()
        except KeyboardInterrupt:
            stopped.append(1)

    calls = [lambda: GradCAM(network).attribute(x, 1), lambda: RISE(network, num_masks=8).attribute(x, 1)]
    for number in range(40):
        thread = threading.Thread(target=endless, args=(calls[number % 2],), daemon=True)
        thread.start()
        time.sleep(chance.uniform(0.001, 0.02))
        _interrupt(thread)
        same([calls[0]()], wanted)
        thread.join(20)
        assert not thread.is_alive()
        assert not turns._table.held, number
        assert all(m.training for m in network.modules()), number
        assert not any(m._forward_hooks for m in network.modules()), number
    assert len(stopped) == 40


@pytest.mark.skipif(not hasattr(os, "fork"), reason="only where processes fork")
def test_a_forked_child_does_not_wait_for_threads_that_it_does_not_have() -> None:
    network, x = build(networks.Pooled), pictures(1)
    with turns.alone(network):
        held = threading.Event()
        done = threading.Event()

        def hold() -> None:
            with turns.process():
                held.set()
                done.wait(20)

        other = threading.Thread(target=hold)
        other.start()
        held.wait(20)
        child = os.fork()
        if not child:
            os._exit(0 if GradCAM(network).attribute(x, 1).shape == (1, 1, 32, 32) else 1)
        deadline = time.monotonic() + 20
        while (ended := os.waitpid(child, os.WNOHANG))[0] == 0 and time.monotonic() < deadline:
            time.sleep(0.05)
        done.set()
        other.join()
    assert ended[0] == child, "the child waits for ever"
    assert os.waitstatus_to_exitcode(ended[1]) == 0


def test_each_thread_counts_its_own_passes() -> None:
    model, x = TorchModel(build(networks.Pooled)), pictures(1)
    calls = [lambda n=n: RISE(model, num_masks=n).run(x, 1).passes.forward for n in (8, 16, 24, 32)]
    assert together(*calls) == [call() for call in calls]


def test_what_code_does_besides_computing_is_read_from_it() -> None:
    kept = {k.__name__: conduct(build(k)).keeps for k in (_Storing, _CountingPasses, _Random, _Remembering)}
    assert kept == {"_Storing": True, "_CountingPasses": True, "_Random": False, "_Remembering": True}
    assert conduct(build(_Random)).draws
    plain = build(networks.Pooled)
    assert not conduct(plain).keeps
    assert not conduct(lambda x: plain(x) + 1).keeps
    assert not conduct(lambda x: plain(torch.relu(x))).keeps

    def remembering(x: Tensor) -> Tensor:
        met.append(1)
        return plain(x)

    assert conduct(remembering).keeps
    plain.fc.register_forward_hook(lambda _m, _a, _o: None)
    assert conduct(plain).keeps


def test_exported_models_from_many_threads(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    pytest.importorskip("onnxruntime")
    network, x = build(networks.Pooled), pictures(2)
    axes = {"x": {0: "n"}}
    torch.onnx.export(network, (x,), str(tmp_path / "a.onnx"), dynamo=False, dynamic_axes=axes, input_names=["x"])
    program = torch.export.export(network, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.export.save(program, tmp_path / "a.pt2")
    number = torch.get_num_threads()
    for name, backend in (("a.onnx", {"backend": "openvino"}), ("a.onnx", {}), ("a.pt2", {})):
        _check_exported(tmp_path / name, backend, x)
    assert torch.get_num_threads() == number
    assert together(torch.get_num_threads) == [number]


def _check_exported(path: Path, backend: dict[str, Any], x: Tensor) -> None:
    loads = together(*[lambda: seewhy.load(path, **backend)] * 4)
    fresh = seewhy.load(path, **backend)
    ways: list[tuple[str, dict[str, Any]]] = [("rise", {"num_masks": 16}), ("recipro_cam", {}), ("activation_map", {})]

    def call(model: Any, number: int) -> Tensor:
        method, own = ways[number]
        raw: Tensor = seewhy.explain(model, x, 1, method=method, progress=False, **own).raw
        return raw

    assert [type(model) for model in loads] == [type(fresh)] * 4
    wanted = [call(loads[0], n) for n in range(3)]
    for one, want in zip(together(*[partial(call, fresh, n) for n in range(3)] * 2), wanted * 2, strict=True):
        same([one], want)


def test_the_first_use_of_names_from_many_threads() -> None:
    code = """
import sys, threading
sys.setswitchinterval(1e-5)
import seewhy
names, errors, start = seewhy.__all__, [], threading.Barrier(8)
def use(first):
    start.wait()
    for name in names[first:] + names[:first]:
        try:
            getattr(seewhy, name)
        except BaseException as error:
            errors.append(repr(error))
threads = [threading.Thread(target=use, args=(i * len(names) // 8,)) for i in range(8)]
[t.start() for t in threads]
[t.join() for t in threads]
sys.exit("\\n".join(errors) or 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
