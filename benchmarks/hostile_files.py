"""Damaged and hostile pictures, masks, model files and checkpoints: crashes, code that ran, pictures silently changed.

    python benchmarks/hostile_files.py [--pictures 2400] [--models 400]

Each picture is a good one of a known look with some bytes changed, cut off, doubled or put elsewhere. It may fail with
an UnreadableImage or be read; read twice it must give the same. Of formats with checksums for their pixels (PNG) a
picture that is read must be the right one. Model files are good ones with one hostile part, or with bytes changed;
none may leave a mark or raise anything but a SeewhyError. Printed at the end: the counts, and the peak of memory. The
seed is fixed; the exit code is 1 where anything is wrong.
"""

from __future__ import annotations

import argparse
import io
import resource
import sys
import tempfile
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from seewhy.errors import SeewhyError, UnreadableImage
from seewhy.images.reading import read, read_mask
from seewhy.models.loading import load
from support import hostile_models as hostile

SEED = 20_240_607
FORMS = {
    "PNG": {}, "JPEG": {}, "GIF": {}, "BMP": {}, "TIFF": {}, "WEBP": {"lossless": True}, "PPM": {}, "TGA": {},
    "AVIF": {}, "JPEG2000": {}, "ICO": {}, "PCX": {},
}  # fmt: skip


def damaged(data: bytes, random: np.random.Generator) -> bytes:
    """The file with one to eight faults."""
    changed = bytearray(data)
    for _ in range(int(random.integers(1, 9))):
        at, kind = int(random.integers(len(changed))), int(random.integers(5))
        if kind == 0:
            changed[at] ^= 1 << int(random.integers(8))
        elif kind == 1:
            changed[at : at + 4] = random.bytes(4)
        elif kind == 2 and at > 16:
            del changed[at:]
        elif kind == 3:
            changed[at:at] = changed[at : at + 32]
        else:
            changed[min(at, 64) : min(at, 64) + 2] = b"\xff\xff"
    return bytes(changed)


def pictures(count: int, folder: Path, random: np.random.Generator) -> Counter[str]:
    """Counts what became of damaged pictures, read as pictures and as masks."""
    good = Image.fromarray(random.integers(0, 256, (48, 64, 3), dtype=np.uint8))
    want, found, path = np.asarray(good), Counter[str](), folder / "holiday.jpg"
    files = {}
    for form, options in FORMS.items():
        out = io.BytesIO()
        good.save(out, form, **options)
        files[form] = out.getvalue()
    for i in range(count):
        form = list(files)[i % len(files)]
        path.write_bytes(damaged(files[form], random))
        try:
            shown = np.asarray(read(path))
            found["pictures read"] += 1
            found["read differently twice"] += not np.array_equal(shown, np.asarray(read(path)))
            found["silently changed (PNG)"] += form == "PNG" and shown.shape == want.shape and (shown != want).any()
        except UnreadableImage:
            found["pictures refused"] += 1
        except Exception as error:
            found["crashes"] += 1
            sys.stderr.write(f"{form} {i}: {error!r}\n")
        try:
            read_mask(path)
        except UnreadableImage:
            pass
        except Exception as error:
            found["crashes"] += 1
            sys.stderr.write(f"mask {form} {i}: {error!r}\n")
    return found


def tried(path: Path, mark: Path, found: Counter[str]) -> None:
    """Loads and runs a model file."""
    try:
        load(path)(hostile.X)
        found["models read"] += 1
    except SeewhyError:
        found["models refused"] += 1
    except Exception as error:
        found["crashes"] += 1
        sys.stderr.write(f"{path.name}: {error!r}\n")
    if mark.exists():
        found["code ran"] += 1
        mark.unlink() if mark.is_file() else mark.rmdir()


def models(count: int, folder: Path, random: np.random.Generator) -> Counter[str]:
    """Every hostile model file, then damaged ones."""
    found, mark = Counter[str](), folder / "mark"
    parts = hostile.members(hostile.program(folder / "good.pt2"))
    for attack in hostile.PROGRAMS.values():
        changed = dict(parts)
        attack(changed, mark)
        tried(hostile.write(folder / "net.pt2", changed), mark, found)
    for bad in ("state_dict", "constants", "example_inputs"):
        tried(hostile.earlier(folder / "old.pt2", mark, bad), mark, found)
    for source in hostile.SCRIPTS.values():
        for inner in (False, True):
            tried(hostile.script(folder / "net.pt", mark, source, inner=inner), mark, found)
    graph = parts[hostile.GRAPH]
    for _ in range(count):
        changed = dict(parts)
        at = int(random.integers(len(graph)))
        text = [b'"', b"(", b"__import__", b"9", b"{", b"'", b"s0", b"torch."][int(random.integers(8))]
        changed[hostile.GRAPH] = graph[:at] + text + graph[at + int(random.integers(4)) :]
        tried(hostile.write(folder / "net.pt2", changed), mark, found)
    return found


def main() -> int:
    """Prints the counts; 1 where anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=2400)
    parser.add_argument("--models", type=int, default=400)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    random, found = np.random.default_rng(SEED), Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        found += pictures(asked.pictures, Path(folder), random)
        found += models(asked.models, Path(folder), random)
    wrong = ("crashes", "code ran", "read differently twice", "silently changed (PNG)")
    for name in (*sorted(set(found) - set(wrong)), *wrong):
        print(f"{name}: {found[name]}")
    print(f"peak of memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MB")
    return int(any(found[name] for name in wrong))


if __name__ == "__main__":
    sys.exit(main())
