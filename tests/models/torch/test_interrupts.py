"""An interrupt may come at any moment: no hook is left, no weight and no setting changed.

In a process of its own: where torch has compiled something, Python 3.11 may turn in circles under `sys.setprofile`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
import torch

from seewhy.metrics._weights import randomised
from seewhy.models import turns
from seewhy.models.torch import state as kept
from support import networks
from support.networks import build, pictures

OWN = ("state.py", "contextlib.py", "_weights.py", "turns.py", "module.py")  # the last is torch.nn.Module


def _at_every_place(work: Callable[[], None], check: Callable[[], None]) -> int:
    """Interrupts at the first place where Python looks for interrupts, at the second, ... until none is left."""
    left = place = 0

    def look(frame: FrameType, event: str, _: Any) -> None:
        nonlocal left
        own = frame.f_code.co_filename.endswith(OWN)
        if own and event in ("call", "c_return"):
            left -= 1
            if left < 0:
                sys.setprofile(None)
                raise KeyboardInterrupt

    while True:
        left = place
        sys.setprofile(look)
        try:
            work()
        except KeyboardInterrupt:
            pass
        finally:
            sys.setprofile(None)
        if left >= 0:  # not interrupted any more; what comes while an object is deleted is lost, as Python has it
            return place
        check()
        place += 1


@pytest.mark.slow
def test_interrupts_at_every_place_leave_no_hook_and_no_changed_weight() -> None:
    own = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}  # pytest's places of modules, too
    done = subprocess.run([sys.executable, __file__], check=False, capture_output=True, text=True, timeout=300, env=own)
    assert done.returncode == 0, done.stderr
    places = [int(n) for n in done.stdout.split()]
    assert len(places) == 5
    assert min(places) > 10


def _interrupted() -> list[int]:
    """How many places there were in the work of each kind."""
    network, x = build(networks.Pooled).half().train(), pictures(1)
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    floating = [network.conv1.weight, network.fc.weight]

    def hooks() -> None:
        with kept.on(network.conv1, before=lambda *_: None, after=lambda *_: None, named=True, always_call=True):
            network.act1(x)

    def grads() -> None:
        with kept.frozen(network):
            network.act1(x)

    def wide() -> None:
        with turns.alone(network), kept.widened(network):
            network.act1(x)

    def random_weights() -> None:
        with randomised(floating, 0):
            network.act1(x)

    def evaluated() -> None:
        with kept.untouched(network):
            network.act1(x)

    def check() -> None:
        assert all(m.training for m in network.modules())
        assert not any(one.groups for one in (kept._modules, kept._random, kept._stance))
        assert not any(getattr(m, name) for m in network.modules() for name in vars(m) if name.startswith("_forward_"))
        assert all(p.requires_grad and p.dtype == torch.half for p in network.parameters())
        assert all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())
        assert not turns._table.held

    return [_at_every_place(work, check) for work in (hooks, grads, wide, random_weights, evaluated)]


if __name__ == "__main__":
    sys.stdout.write(" ".join(map(str, _interrupted())))
