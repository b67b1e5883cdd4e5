"""Damaged model files and weights of every kind that is read: crashes, ends by a signal, code that ran.

    python benchmarks/hostile_formats.py [--files 300] [--kinds tflite,xml,bin,onnx,pt,pt2,pth,old.pth,safetensors]

Good files of one small network have bits, bytes and numbers changed, parts cut off or put twice, and are loaded and run
in processes of their own, so that also the end of a process is seen. A file may be read or refused with a SeewhyError.
"other network" counts archives, whose parts have checksums, that were read and gave other scores; formats without
checksums cannot know. "too long" is 60 s in a library's hands (docs/security.md). The seed is fixed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import signal
import sys
import tempfile
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import numpy as np
import torch
from safetensors.torch import save_file

from seewhy.errors import SeewhyError
from seewhy.models.loading import load
from support import hostile_models, tflite_graphs
from support.exports import to_onnx, to_xml
from support.networks import Pooled, build

X = torch.rand(1, 3, 32, 48, generator=torch.Generator().manual_seed(0))
SUMMED = ("net.pt", "net.pt2", "w.pth")  # archives, whose parts have checksums
WEIGHTS = ("w.pth", "w.old.pth", "w.safetensors")
NUMBERS = (
    "-1", "0", "1", "99999999999", "2147483648", "9223372036854775807", "18446744073709551615", "x", "", "4,4",
)  # fmt: skip
SECONDS = 60


def written(folder: Path) -> dict[str, bytes]:
    """Good files of every kind; in a process of its own, so that no library's threads are forked later."""
    if (child := os.fork()) == 0:
        to_xml(build(Pooled), folder / "net.xml", X)
        to_onnx(build(Pooled), folder / "net.onnx", X)
        torch.jit.script(build(Pooled)).save(str(folder / "net.pt"))
        hostile_models.program(folder / "net.pt2")
        os._exit(0)
    os.waitpid(child, 0)
    tflite_graphs.classifier(folder / "net.tflite")
    weights = build(Pooled).state_dict()
    torch.save(weights, folder / "w.pth")
    torch.save(weights, folder / "w.old.pth", _use_new_zipfile_serialization=False)
    save_file(weights, folder / "w.safetensors")
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def damaged(data: bytes, random: np.random.Generator) -> bytes:
    """The file with one to four faults."""
    changed = bytearray(data)
    for _ in range(int(random.integers(1, 5))):
        at, kind = int(random.integers(len(changed))), int(random.integers(7))
        if kind <= 1:
            changed[at] ^= 1 << int(random.integers(8))
        elif kind == 2:
            changed[at : at + 4] = random.bytes(4)
        elif kind == 3 and at > 16:
            del changed[at:]
        elif kind == 4:
            changed[at:at] = changed[at : at + 32]
        else:
            changed[at : at + 4] = (b"\xff" if kind == 5 else b"\x00") * 4
    return bytes(changed)


def renumbered(data: bytes, random: np.random.Generator) -> bytes:
    """An XML graph with one number or word replaced."""
    text = data.decode()
    places = list(re.finditer(r'"(-?\d+)"|<dim>(-?\d+)</dim>|"([a-z_0-9]+)"', text))
    match = places[int(random.integers(len(places)))]
    start, end = match.span(match.lastindex or 0)
    return (text[:start] + NUMBERS[int(random.integers(len(NUMBERS)))] + text[end:]).encode()


def hurt(name: str, number: int, good: dict[str, bytes], folder: Path) -> Path:
    """Writes the damaged file of a number, and what must lie beside it; gives what is to be loaded."""
    random = np.random.default_rng([sum(name.encode()), number])
    for other in ("net.xml", "net.bin") if name in ("net.xml", "net.bin") else ():
        (folder / other).write_bytes(good[other])
    change = renumbered if name == "net.xml" and number % 3 else damaged
    (folder / name).write_bytes(change(good[name], random))
    return folder / ("net.xml" if name == "net.bin" else name)


def scores(path: Path) -> torch.Tensor:
    """What the network says, loaded as its ending wants it."""
    return load(build(Pooled), checkpoint=path)(X).classes if path.name in WEIGHTS else load(path)(X).classes


def outcome(path: Path, wanted: torch.Tensor | None) -> str:
    """What becomes of a file."""
    try:
        found = scores(path)
    except SeewhyError:
        return "refused"
    except BaseException as error:
        return f"crash {type(error).__name__}: {str(error)[:120]}"
    return "other network" if wanted is not None and not torch.equal(found, wanted) else "read"


def batch(name: str, numbers: range, good: dict[str, bytes], folder: Path) -> list[str]:
    """The outcomes of some damaged files, from a process that may end."""
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        os.close(read)
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        warnings.simplefilter("ignore")
        (folder / name).write_bytes(good[name])
        wanted = scores(folder / name) if name in SUMMED else None
        for number in numbers:
            signal.alarm(SECONDS)
            os.write(write, json.dumps(outcome(hurt(name, number, good, folder), wanted)).encode() + b"\n")
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        found: list[str] = [json.loads(line) for line in pipe]
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code:
        found.append("too long" if code == -signal.SIGALRM else f"crash: ended with {code}")
    return found


def main() -> int:
    """Prints the counts of each kind; 1 where anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=300)
    parser.add_argument("--kinds", default="")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    wrong, whole = 0, Counter[str]()
    with tempfile.TemporaryDirectory(prefix="seewhy-") as place:
        good, work = written(Path(place)), Path(place) / "work"
        work.mkdir()
        chosen = [name for name in sorted(good) if not asked.kinds or name.partition(".")[2] in asked.kinds.split(",")]
        for name in chosen:
            found: list[str] = []
            while len(found) < asked.files:
                found += batch(name, range(len(found), min(len(found) + 50, asked.files)), good, work)
            counts: Any = Counter(found)
            whole.update(counts)
            bad = {kind: count for kind, count in counts.items() if kind.startswith(("crash", "other"))}
            wrong += sum(bad.values())
            print(f"{name}: {dict(sorted(counts.items()))}", flush=True)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
    print(f"{whole.total()} files, {whole['read']} read, {whole['refused']} refused, {whole['too long']} too long, "
          f"{wrong} wrong; peak of memory {peak} MB")  # fmt: skip
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
