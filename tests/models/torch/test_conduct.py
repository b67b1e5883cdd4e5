"""What code does besides computing is read from it, in every way that Python has to write the same thing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from seewhy.models.torch.conduct import conduct
from support import networks
from support.networks import build


class _Held(networks.Pooled):
    """Keeps tensors, of which the functions below change one in place."""

    buf, pair, many = torch.zeros(4), (torch.zeros(4), torch.zeros(4)), [torch.zeros(4)]


def _alias(self: _Held, x: Tensor) -> Tensor:
    y = self.buf
    return y.add_(x)


def _alias_of_alias(self: _Held, x: Tensor) -> Tensor:
    y = self.buf
    z = y
    return z.add_(x)


def _slice(self: _Held, x: Tensor) -> Tensor:
    return self.buf[0:1].add_(x)


def _slice_assigned(self: _Held, x: Tensor) -> Tensor:
    self.buf[0:1] = x
    return x


def _augmented(self: _Held, x: Tensor) -> Tensor:
    y = self.buf
    y += x
    return y


def _unpacked(self: _Held, x: Tensor) -> Tensor:
    _first, second = self.pair
    return second.mul_(x)


def _looped(self: _Held, x: Tensor) -> Tensor:
    for one in self.many:
        one.zero_()
    return x


def _comprehended(self: _Held, x: Tensor) -> list[Tensor]:
    return [one.add_(x) for one in self.many]


def _either(self: _Held, x: Tensor) -> Tensor:
    y = self.buf if x.ndim else torch.relu(x)
    return y.add_(1)


def _own(self: _Held, x: Tensor) -> Tensor:
    y = self.conv1(x)
    y += x.relu_()
    z = y * 2
    return z.add_(y[:2]).clamp_(0)


@pytest.mark.parametrize(
    "forward",
    [_alias, _alias_of_alias, _slice, _slice_assigned, _augmented, _unpacked, _looped, _comprehended, _either],
)
def test_what_is_changed_in_place_is_seen_however_it_is_written(forward: Callable[..., Any]) -> None:
    assert conduct(build(type("Net", (_Held,), {"forward": forward}))).keeps


def test_what_a_forward_pass_made_itself_may_be_changed() -> None:
    assert not conduct(build(type("Net", (_Held,), {"forward": _own}))).keeps
