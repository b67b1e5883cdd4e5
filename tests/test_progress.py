"""One bar, one way of calling callbacks, whoever works."""

from __future__ import annotations

import sys
import time

import pytest

import seewhy
from seewhy.errors import InvalidInput, InvalidType
from seewhy.progress import Bar, aside, listening, part_of, report


class Terminal:
    """Keeps what is written to it, and says that it is a terminal."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return True


def test_a_callback_gets_everything_that_is_reported_and_no_bar_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, int]] = []
    monkeypatch.setattr(sys, "stderr", screen := Terminal())
    with Bar("work", lambda done, total: told.append((done, total)), total=4) as bar, listening(bar):
        report(1, 4)
        with part_of(1, 4):
            report(2, 2)
    assert told == [(1, 4), (3, 4)]
    assert screen.text == ""


def test_a_bar_on_a_terminal_counts_and_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", screen := Terminal())
    with Bar("work", True, "picture", before=10, total=20) as bar:
        assert "work:  50%" in screen.text
        bar(20, 20)
        bar.say("more", "loss=1")
        assert "more: 100%" in screen.text
        assert "loss=1" in screen.text
    assert screen.text.endswith("\r")


def test_without_a_terminal_and_where_none_is_wanted_nothing_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    for wanted in (True, False, None):
        with Bar("work", wanted, total=2) as bar:
            bar(1, 2)
            bar.say("other")
    assert capsys.readouterr().err == ""


def test_a_log_gets_a_line_a_minute(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with Bar("run", True, "picture", before=10, total=40) as bar:
        for second, done in ((30.0, 15), (61.0, 20), (90.0, 30), (125.0, 35)):
            now[0] = 100.0 + second
            bar(done, 40)
        bar.say("other", "loss=1")
    assert capsys.readouterr().err.splitlines() == [
        "run: 20 of 40 (picture), 50 %, 01:01 gone, 02:02 left",
        "run: 35 of 40 (picture), 88 %, 02:05 gone, 00:25 left",
    ]
    with Bar("read", True, "byte") as bar:
        bar(1, None)
        now[0] += 75
        bar(7, None)
    assert capsys.readouterr().err == "read: 7 (byte), 01:15 gone\n"


def test_lines_are_written_beside_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", screen := Terminal())
    with Bar("work", True, "picture", total=20) as bar:
        bar(3, 20)
        with aside():
            sys.stderr.write("a line\n")
    before, after = screen.text.split("a line\n")
    assert before.endswith("\r")
    assert "work:" in after


def test_what_a_callback_raises_is_told_as_the_callbacks() -> None:
    def wrong(done: int, total: int) -> None:
        raise RuntimeError("no room")

    with (
        pytest.raises(InvalidInput, match=r"The progress callback raised RuntimeError: no room. Correct it"),
        Bar("work", wrong) as bar,
        listening(bar),
    ):
        report(1, 2)


def test_progress_of_another_kind_is_refused() -> None:
    with pytest.raises(InvalidType, match=r"progress must be True, False or a callback \(done, total\), got 'yes'."):
        Bar("work", "yes")  # type: ignore[arg-type]  # that is the point
    with pytest.raises(InvalidType, match=r"progress must be True, False or a callback"):
        seewhy.compare(lambda x: x, [], "rise", "sparseness", progress=3)  # type: ignore[arg-type]
