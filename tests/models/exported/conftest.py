"""The network that is exported."""

from __future__ import annotations

import pytest

from support.networks import Pooled, build


@pytest.fixture
def network() -> Pooled:
    found: Pooled = build(Pooled)
    return found
