"""The pytest plug-in: the fixture ``assert_looks_at``, found by pytest where seewhy is installed.

def test_looks_at_the_bird(assert_looks_at):
    assert_looks_at(model, samples, metric="pointing_game", at_least=0.8)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

__all__ = ["assert_looks_at"]


@pytest.fixture(scope="session")
def assert_looks_at() -> Callable[..., None]:
    """`seewhy.gates.assert_looks_at`, loaded when a test asks for it."""

    def asserts(*args: Any, **options: Any) -> None:
        from seewhy.gates import assert_looks_at as check

        check(*args, **options)

    return asserts
