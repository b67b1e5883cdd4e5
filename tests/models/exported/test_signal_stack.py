"""Signals find their stack also after OpenVINO has compiled a network, which leaves one of its own behind."""

from __future__ import annotations

import ctypes
import signal
import sys
from pathlib import Path

import pytest
import torch

from seewhy.models.exported.openvino import OpenVINOModel
from seewhy.models.exported.signal_stack import _Stack, kept_signal_stack
from support import networks
from support.exports import to_xml
from support.networks import build, pictures

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux has sigaltstack."),
    pytest.mark.slow,
]


def stack() -> tuple[int | None, int, int]:
    found = _Stack()
    ctypes.CDLL(None).sigaltstack(None, ctypes.byref(found))
    return found.place, found.flags, found.size


def test_the_stack_is_put_back() -> None:
    before, place = stack(), ctypes.create_string_buffer(1 << 17)
    with kept_signal_stack():
        other = _Stack(ctypes.addressof(place), 0, len(place))
        assert ctypes.CDLL(None).sigaltstack(ctypes.byref(other), None) == 0
        assert stack() == (ctypes.addressof(place), 0, len(place))
    assert stack() == before


def test_a_signal_after_openvino_has_compiled(tmp_path: Path) -> None:
    before, x = stack(), pictures()
    model = OpenVINOModel(to_xml(build(networks.Pooled), tmp_path / "model.xml", x))
    model(x)
    assert stack() == before
    heard: list[int] = []
    usual = signal.signal(signal.SIGUSR1, lambda number, _frame: heard.append(number))
    signal.raise_signal(signal.SIGUSR1)
    signal.signal(signal.SIGUSR1, usual)
    assert heard == [signal.SIGUSR1]


def test_the_runtime_has_the_callers_threads_though_torch_has_one(tmp_path: Path) -> None:
    from seewhy.models.exported.model import allowed_threads

    model = OpenVINOModel(to_xml(build(networks.Pooled), tmp_path / "model.xml", pictures()))
    usual = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with model.opened(), model.opened():
            assert (torch.get_num_threads(), allowed_threads()) == (1, 2)
        assert (torch.get_num_threads(), allowed_threads()) == (2, 2)
    finally:
        torch.set_num_threads(usual)
