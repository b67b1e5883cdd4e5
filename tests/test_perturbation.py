"""How many changed pictures go through a network at a time."""

from __future__ import annotations

import pytest

from seewhy.perturbation import chunked


def sizes(total: int, per_eval: int | str) -> list[int]:
    """The chunks' sizes, checked to follow each other without a gap."""
    edges: list[tuple[int, int]] = []
    chunked(lambda start, stop: edges.append((start, stop)), total, per_eval)
    assert [start for start, _ in edges] == [0, *[stop for _, stop in edges[:-1]]]
    assert edges[-1][1] == total
    return [stop - start for start, stop in edges]


@pytest.mark.parametrize(
    ("total", "per_eval", "want"),
    [(49, 8, [7] * 7), (48, 8, [8] * 6), (9, 8, [5, 4]), (3, 8, [3]), (3, 1, [1] * 3), (17, 8, [6, 6, 5])],
)
def test_chunks_are_equal_and_as_few_as_can_be(total: int, per_eval: int, want: list[int]) -> None:
    assert sizes(total, per_eval) == want


@pytest.mark.parametrize("total", [1, 7, 500])
def test_auto_covers_everything_and_stays_under_its_limit(total: int) -> None:
    found = sizes(total, "auto")
    assert sum(found) == total
    assert max(found) <= 128


def test_auto_gets_smaller_until_a_chunk_fits_and_stays_there() -> None:
    tried: list[int] = []

    def work(start: int, stop: int) -> None:
        tried.append(stop - start)
        if stop - start > 2:
            raise RuntimeError("CUDA out of memory.")

    chunked(work, 9, "auto")
    assert tried == [4, 2, 2, 2, 2, 1]


def test_a_fixed_size_that_does_not_fit_is_an_error() -> None:
    def work(_start: int, _stop: int) -> None:
        raise RuntimeError("CUDA out of memory.")

    with pytest.raises(RuntimeError, match="out of memory"):
        chunked(work, 9, 4)
