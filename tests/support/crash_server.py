"""Imports everything once, then makes a process for every line it is told: "FOLDER PICTURES [EXPLAINERS]".

A killed process is one that had torch loaded, without paying for loading it each time. No tensor is computed before the
fork: a pool of threads would not survive it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from support import run_jobs


def main() -> None:
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        place, pictures, explainers = line.rstrip("\n").split("\t")
        pid = os.fork()
        if pid == 0:
            run_jobs.run(Path(place), int(pictures), explainers=explainers.split("|"))
            os._exit(0)
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()
        _, status = os.waitpid(pid, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


main()
