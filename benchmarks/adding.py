"""Several processes that add explainers to one run at once: what is lost, and what is there twice.

    python benchmarks/adding.py [--processes 3] [--times 50]

Each process adds so many explainers, one call after the other. Every second one wants a label that all others want,
too, for another explainer, and every fifth is the same explainer in all of them. At the end every explainer that was
asked for must stand in the run once, with a map for every label of every picture, and once in the rows.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from seewhy.runs.folder.store import Store
from seewhy.runs.query.run import Run
from support import run_jobs

PICTURES = 2


def asked(process: int, number: int, times: int) -> tuple[str, dict[str, Any]]:
    """The label that a process wants, and parameters of the explainer."""
    own = number if number % 5 == 0 else number + process * times
    return ("mine" if number % 2 else f"own {process} {number}"), {"num_masks": 4, "seed": own}


def add(place: Path, process: int, times: int, gate: int) -> None:
    """Adds the explainers of one process, when the gate is opened."""
    os.read(gate, 1)
    for number in range(times):
        label, parameters = asked(process, number, times)
        words = ", ".join(f"{name}={value}" for name, value in parameters.items())
        run_jobs.run(place, PICTURES, explainers={label: f"rise({words})"}, metrics=())


def main() -> int:
    """Prints the counts; 1 where anything was lost or is there twice."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("--times", type=int, default=50)
    chosen = parser.parse_args()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="seewhy-") as folder:
        place = Path(folder) / "run"
        children = []
        opened, gate = os.pipe()
        for process in range(chosen.processes):  # before any tensor is computed: threads would not survive the fork
            if (child := os.fork()) == 0:
                os.close(gate)
                try:
                    add(place, process, chosen.times, opened)
                    os._exit(0)
                except BaseException:
                    traceback.print_exc()
                    os._exit(1)
            children.append(child)
        os.write(gate, b"!" * chosen.processes)
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        counts = judged(place, chosen.processes, chosen.times)
    failed = sum(code != 0 for code in codes)
    print(f"{chosen.processes} processes x {chosen.times} additions in {time.perf_counter() - began:.0f} s: "
          f"{counts['wanted']} different explainers, lost {counts['lost']}, doubled {counts['doubled']}, maps missing "
          f"{counts['missing']}, parts of others {counts['parts']}, processes that failed {failed}")  # fmt: skip
    return int(failed > 0 or any(counts[name] for name in ("lost", "doubled", "missing")))


def judged(place: Path, processes: int, times: int) -> Counter[str]:
    """What is not as it must be."""
    run, found = Run(place), Counter[str]()
    wanted = {asked(process, number, times)[1]["seed"] for process in range(processes) for number in range(times)}
    there = Counter(about["parameters"].get("seed") for about in run.settings["explainers"].values())
    found["wanted"] = len(wanted)
    found["lost"] = len(wanted - there.keys())
    found["doubled"] = sum(count - 1 for count in there.values())
    records = list(run.records())
    keys = [(label, name) for record in records for label in record.labels for name in run.explainers]
    found["missing"] = len(keys) - sum(len(record.maps) for record in records) + (PICTURES - len(records))
    rows, strange = Store(place).rows(run.settings["id"], ["sample"])
    found["parts"] = strange
    assert set(rows["sample"].to_pylist()) == {record.sample for record in records}
    return found


if __name__ == "__main__":
    sys.exit(main())
