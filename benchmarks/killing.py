"""kill -9 at random moments, with the rows put together after every chunk: what is lost, and what is there twice.

    python benchmarks/killing.py [--kills 60] [--seed 7]

A process works on a run of 40 pictures in chunks of four and is killed: every other time at any moment, else within a
few milliseconds after it began to put rows together, so that kills fall into that, too. After each kill the folder is
read and another process goes on. After every sixth kill it is left alone until it is done: then every row, score and
byte of every map must be as in a run that nobody disturbed, and the next folder is begun.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import select
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from seewhy.runs import runner
from seewhy.runs.folder import store
from seewhy.runs.query.run import Run
from support import run_jobs

PICTURES = 40
KILLS = 6  # of one folder
EXPLAINERS = ("grad_cam(layer='act2')", "occlusion(window=6, stride=2)")


class Server:
    """Makes processes that run the job. It computes nothing itself: a pool of threads would not survive a fork."""

    def __init__(self) -> None:
        asked, self.ask = os.pipe()
        self.answer, told = os.pipe()
        self.sign, sign = os.pipe()
        if os.fork() == 0:
            os.close(self.ask)
            with os.fdopen(asked) as lines, os.fdopen(told, "w") as out:
                for line in lines:
                    if (child := os.fork()) == 0:
                        _work(Path(line.rstrip("\n")), sign)
                    out.write(f"{child}\n")
                    out.flush()
                    out.write(f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n")
                    out.flush()
            os._exit(0)
        os.close(asked)
        os.close(told)
        self.lines = os.fdopen(self.answer)

    def run(self, place: Path, after: float | None = None, compaction: int = 0) -> int:
        """The exit code, minus the signal's number for one that was killed.

        Args:
            place: the run folder.
            after: seconds after which it is killed.
            compaction: counted from the beginning of this one, if not 0.
        """
        while select.select([self.sign], [], [], 0)[0]:
            os.read(self.sign, 4096)
        os.write(self.ask, f"{place}\n".encode())
        pid = int(self.lines.readline())
        if after is not None:
            self._wait(compaction)
            time.sleep(after)
            with contextlib.suppress(ProcessLookupError):  # it was done already
                os.kill(pid, signal.SIGKILL)
        return int(self.lines.readline())

    def _wait(self, compaction: int) -> None:
        for _ in range(compaction):
            if not select.select([self.sign], [], [], 3)[0]:
                return  # there are not so many any more
            os.read(self.sign, 1)


def _work(place: Path, sign: int) -> None:
    """Runs the job in this process and ends it."""
    store.LOOSE, store.INDEXES, runner.COMPACTED = 2, 1, 1
    plain = store.Store._index

    def index(*arguments: Any) -> int:
        os.write(sign, b"!")
        return plain(*arguments)

    store.Store._index = index  # type: ignore[method-assign]
    try:
        run_jobs.run(place, PICTURES, explainers=list(EXPLAINERS))
        os._exit(0)
    finally:
        os._exit(1)


def content(place: Path) -> list[dict[str, Any]]:
    """All that must not depend on when it was computed."""
    return [row | {"part": ""} for row in run_jobs.content(place)]


def main() -> int:
    """Prints the counts; 1 where anything was lost or is there twice."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=7)
    chosen = parser.parse_args()
    server, dice, found = Server(), random.Random(chosen.seed), Counter[str]()
    with tempfile.TemporaryDirectory(prefix="seewhy-") as folder:
        whole = Path(folder) / "whole"
        began = time.perf_counter()
        assert server.run(whole) == 0
        takes, want = time.perf_counter() - began, content(whole)
        assert len(want) == PICTURES
        while found["kills"] < chosen.kills:
            place = Path(folder) / f"torn-{found['finished']}"
            inside = found["tries"] % 2
            moment = dice.uniform(0, 0.02) if inside else dice.uniform(0, 0.6 * takes)
            code = server.run(place, moment, dice.randint(1, 4) if inside else 0)
            found["tries"] += 1
            found["kills"] += code == -signal.SIGKILL
            found["kills while rows were put together"] += inside and code == -signal.SIGKILL
            found["failed"] += code not in (0, -signal.SIGKILL)
            unreadable(place, found)
            rows = len(content(place)) if store.Store(place).exists() else 0
            found["kills with rows left to do"] += code == -signal.SIGKILL and rows < PICTURES
            if code == 0 or (found["kills"] % KILLS == 0 and server.run(place) == 0):
                judge(content(place), want, found)
    print(f"{dict(found)}; lost {found['lost']}, doubled {found['doubled']}, different {found['different']}, "
          f"unreadable {found['unreadable']}")  # fmt: skip
    return int(any(found[name] for name in ("lost", "doubled", "different", "unreadable", "failed")))


def unreadable(place: Path, found: Counter[str]) -> None:
    """Counts what is there and cannot be read."""
    if not store.Store(place).exists():
        return
    run = Run(place)
    found["unreadable"] += run.counts().unread
    for record in run.records():
        found["unreadable"] += sum(run.map(record.sample, *key) is None for key in record.maps)


def judge(got: list[dict[str, Any]], want: list[dict[str, Any]], found: Counter[str]) -> None:
    """Counts what is not as in the undisturbed run."""
    keys = Counter(row["sample"] for row in got)
    found["finished"] += 1
    found["lost"] += sum(row["sample"] not in keys for row in want)
    found["doubled"] += sum(count - 1 for count in keys.values())
    found["different"] += got != want


if __name__ == "__main__":
    sys.exit(main())
