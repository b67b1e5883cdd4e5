"""One answer to what a count, a number, a seed and a choice are, and what a wrong one is told."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seewhy import checks
from seewhy.errors import InvalidInput, StorageError

WRONG: list[tuple[Callable[..., Any], list[Any], str]] = [
    (lambda v: checks.check_count("n", v), [0, -1, 1.0, True, None, "3", np.int64(3)], "n must be a positive integer"),
    (lambda v: checks.check_count("n", v, 2), [1, False], "n must be an integer of at least 2"),
    (lambda v: checks.check_count("n", v, optional=True), [0, "x"], "n must be a positive integer or None"),
    (checks.check_seed, [1.5, True, None], "seed must be an integer"),
    (lambda v: checks.check_flag("f", v), [0, 1, None], "f must be True or False"),
    (lambda v: checks.check_flag("f", v, optional=True), [0, "yes"], "f must be True, False or None"),
    (lambda v: checks.check_number("x", v), [0, -1.5, math.inf, math.nan, True], "x must be a positive number"),
    (lambda v: checks.check_inside("p", v), [0, 1, math.nan, None], "p must lie between 0 and 1, both excluded"),
    (partial(checks.check_inside, "p", optional=True), [0], "p must lie between 0 and 1, both excluded, or be None"),
    (lambda v: checks.check_below_one("t", v), [-0.1, 1, False], "t must be at least 0 and below 1"),
    (lambda v: checks.check_fraction("t", v), [-0.1, 1.01, None], "t must be a number from 0 to 1"),
    (lambda v: checks.check_distance("d", v), [-1, math.inf, "2"], "d must be a number of pixels, at least 0"),
    (lambda v: checks.check_choice("c", v, ("a", "b", None)), ["x", 0, False], "c must be 'a', 'b' or None"),
    (
        lambda v: checks.sides("g", v), [0, (1,), (1, 2, 3), (2, 1.5), True],
        "g must be a positive integer or a pair (down, across) of them",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("check", "values", "said"), WRONG)
def test_what_is_wrong_is_told_with_what_came(check: Callable[..., Any], values: list[Any], said: str) -> None:
    for value in values:
        with pytest.raises(InvalidInput) as caught:
            check(value)
        assert str(caught.value) == f"{said}, got {value!r}."


def test_what_is_right_passes() -> None:
    for value in (1, 10**9):
        checks.check_count("n", value)
    checks.check_count("n", None, optional=True)
    checks.check_seed(-3)
    checks.check_flag("f", None, optional=True)
    checks.check_number("x", 1e-300)
    checks.check_inside("p", 0.5)
    checks.check_below_one("t", 0)
    checks.check_fraction("t", 1)
    checks.check_distance("d", 0)
    checks.check_choice("c", None, ("a", None))
    assert checks.sides("g", 3) == (3, 3)
    assert checks.sides("g", [2, 4]) == (2, 4)


def test_a_folder_that_can_be_written_may_have_to_be_made(tmp_path: Path) -> None:
    checks.check_folder(tmp_path)
    checks.check_folder(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("x")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StorageError, match=r"cannot be written: Not a directory. A file stands where a folder is"):
            checks.check_folder(place)
