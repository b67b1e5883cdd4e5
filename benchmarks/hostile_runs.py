"""What damaged and hostile run folders do to every page, JSON twin, download and command.

    python benchmarks/hostile_runs.py [--flips 600] [--folders 300] [--requests 3000] [--seed 1]

flips      one bit of a file in parts/ turned: what is read must be what was there, or an error; never another value.
folders    a value in run.json or in the rows replaced by something hostile: no answer may be a 500. Those that Arrow
           itself does not write are not counted.
requests   hostile addresses to a good folder: no answer may be a 500.

Prints counts and the peak of memory. Exits with 1 where anything is not 0 that must be.
"""

from __future__ import annotations

import argparse
import importlib
import json
import random
import resource
import shutil
import sys
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from seewhy import cli
from seewhy.errors import SeewhyError
from seewhy.runs.folder import rows as kinds
from seewhy.runs.query.run import Run
from seewhy.web.app import application
from seewhy.web.library import Library
from seewhy.web.security import Rules

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
run_folders: Any = importlib.import_module("run_folders")
PAGES = ("saliency", "scores", "classes", "counterfactual", "failures")
FILES = ("saliency.csv", "saliency.png", "saliency.html")
VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1, 2**31 - 1, 2**31, 2**63, 10**400, 0.5, -0.0, float("nan"), float("inf"), -float("inf"), 1e308,
    "", "x", "x" * 100_000, "\ud800", "\x00", "<script>", "../../etc/passwd", "TP", "FX", [], [1], [0, 0], [1, 2, 3, 4],
    [[[]]], {}, {"a": 1}, {"id": 1},
)  # fmt: skip


def main() -> int:
    """Runs all three and says whether all is well."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flips", type=int, default=600)
    parser.add_argument("--folders", type=int, default=300)
    parser.add_argument("--requests", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    dice, wrong = random.Random(asked.seed), 0
    with tempfile.TemporaryDirectory(prefix="seewhy-") as there:
        for name, work, count in (
            ("flips", flips, asked.flips), ("folders", folders, asked.folders), ("requests", requests, asked.requests)
        ):  # fmt: skip
            found = work(Path(there) / name, count, dice)
            wrong += sum(number for kind, number in found.items() if kind.startswith(("500", "crash", "silent")))
            print(f"{name}: {dict(sorted(found.items()))}", flush=True)
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB; {wrong} wrong")
    return int(wrong > 0)


def folder(place: Path, **run: Any) -> Any:
    """A good run of three pictures."""
    return run_folders.three_pictures(run_folders.Folder(place, run_folders.settings(**run)))


# ----------------------------------------------------------------------------------------------------------- flips


def content(place: Path) -> dict[str, Any]:
    """Everything that is read, without the names of parts; what cannot be read is left out."""
    found: dict[str, Any] = {}
    try:
        run = Run(place)
        for record in run.records():
            found[record.sample] = repr(replace(record, parts=(), maps={}, trees={}, thumbnail=None))
            for label, explainer in record.maps:
                try:
                    made = run.map(record.sample, label, explainer)
                    found[f"{record.sample} {label} {explainer}"] = None if made is None else made.tobytes()
                except SeewhyError:
                    continue
    except SeewhyError:
        pass
    return found


def flips(place: Path, count: int, dice: random.Random) -> Counter[str]:
    """Turns a bit, reads all, and turns it back."""
    made = folder(place)
    made.add("q", run_folders.picture("d", 3, labels={0: (0.7, True)}))
    want, found = content(place), Counter[str]()
    for turn in range(count):
        if turn == count // 2:
            made.store.compact(everything=True)
        files = sorted(
            path for kind in ("parts", "index") for path in (place / kind).glob("*.p*") if path.stat().st_size
        )
        path = dice.choice(files)
        good = path.read_bytes()
        at, bit = dice.randrange(len(good)), 1 << dice.randrange(8)
        path.write_bytes(good[:at] + bytes([good[at] ^ bit]) + good[at + 1 :])
        try:
            got = content(place)
            silent = any(want.get(key) != value for key, value in got.items())
            found["silent change" if silent else "as it was" if got == want else "noticed"] += 1
        except Exception as error:
            found[f"crash {type(error).__name__}"] += 1
        path.write_bytes(good)
    return found


# --------------------------------------------------------------------------------------------------------- folders


def folders(place: Path, count: int, dice: random.Random) -> Counter[str]:
    """Makes a folder hostile in one place, then asks for everything."""
    found, turn = Counter[str](), 0
    while found["asked"] < count:
        turn += 1
        shutil.rmtree(place, ignore_errors=True)
        folder(place / "good")
        made = folder(place / "bad")
        try:
            told = hostile_settings(made, dice) if turn % 2 else hostile_rows(made, dice)
        except Exception:  # Arrow itself does not write it
            found["not writable"] += 1
            continue
        found["asked"] += 1
        for status in ask(place):
            found[str(status)] += 1
            if status >= 500:
                print(f"  {status}: {told}")
        bad = str(place / "bad")
        exports = [
            ["export", bad, "--to", kind, "--out", str(place / f"x.{kind}")] for kind in ("csv", "coco", "parquet")
        ]
        for words in (["status", bad], ["resume", bad], *exports):
            found[command(words, told)] += 1
    return found


def command(words: list[str], told: str) -> str:
    """What a command ends with."""
    out, err = sys.stdout, sys.stderr
    try:
        with Path("/dev/null").open("w") as nothing:
            sys.stdout = sys.stderr = nothing
            return f"exit {cli.main(words)}"
    except BaseException as error:
        out.write(f"  crash: {words[0]} {words[3:4]}: {told}: {error!r:.300}\n")
        return f"crash {words[0]} {type(error).__name__}"
    finally:
        sys.stdout, sys.stderr = out, err


def hostile_settings(made: Any, dice: random.Random) -> str:
    """Replaces one value anywhere in run.json."""
    known = run_folders.settings()
    places: list[tuple[Any, Any]] = []
    waiting: list[Any] = [known]
    while waiting:
        one = waiting.pop()
        for key in one if isinstance(one, dict) else range(len(one)):
            places.append((one, key))
            if isinstance(one[key], dict | list):
                waiting.append(one[key])
    where, key = dice.choice(places)
    where[key] = value = dice.choice(VALUES)
    made.store.files.put("run.json", [json.dumps(known).encode("utf-8", "surrogatepass")])
    return f"run.json {key} = {value!r:.40}"


def hostile_rows(made: Any, dice: random.Random) -> str:
    """Replaces one value anywhere in the rows of one part."""
    plain, told = kinds._plain, []

    def changed(row: Any) -> dict[str, Any]:
        found = plain(row)
        name, value = dice.choice(list(found)), dice.choice(VALUES)
        if isinstance(found[name], list) and found[name] and isinstance(found[name][0], dict) and dice.random() < 0.8:
            inner = dice.choice(list(found[name][0]))
            found[name][0][inner] = value
            name = f"{name}.{inner}"
        else:
            found[name] = value
        told.append(f"{name} = {value!r:.40}")
        return found

    kinds._plain = changed
    try:
        made.add("z", run_folders.picture("a", 0, labels={0: (0.9, True)}, maps={(0, "one"): [[1.0]]},
                                          scores={(0, "one", "up"): 0.5}, trees={0: "{}"}))  # fmt: skip
    finally:
        kinds._plain = plain
    return "; ".join(told)


def ask(place: Path) -> list[int]:
    """The answers to every page, twin and download of every run."""
    with TestClient(
        application(Library(place), Rules()), base_url="http://127.0.0.1:8484", raise_server_exceptions=False
    ) as asking:
        found = [asking.get("/").status_code, (listed := asking.get("/api/runs")).status_code]
        for card in listed.json()["runs"] if listed.status_code == 200 else ():
            at = f"/runs/{card['key']}/"
            found += [asking.get(f"{at}{page}").status_code for page in (*PAGES, *FILES)]
            found += [asking.get(f"/api{at}{page}").status_code for page in PAGES]
            page = asking.get(f"/api{at}saliency", params={"every": "true"})
            for sample in page.json().get("samples", ()) if page.status_code == 200 else ():
                urls = [one["url"] for label in sample["labels"] for one in label["maps"]]
                urls += [sample["picture"], sample["large"]]
                # a longer address no client sends, and no server takes
                found += [asking.get(at + url).status_code for url in urls if url and len(url) < 60_000]
        return found


# -------------------------------------------------------------------------------------------------------- requests


def requests(place: Path, count: int, dice: random.Random) -> Counter[str]:
    """Hostile queries, headers and paths."""
    folder(place)
    found = Counter[str]()
    with TestClient(
        application(Library(place), Rules()), base_url="http://127.0.0.1:8484", raise_server_exceptions=False
    ) as asking:
        key = asking.get("/api/runs").json()["runs"][0]["key"]
        names = ("labels", "flags", "text", "sort", "page", "limit", "on", "open", "sample", "label", "explainer", "v",
                 "weights", "layer", "by", "name", "descending", "least", "most", "explainers", "token")  # fmt: skip
        texts = ("", "0", "-1", "1e999", "nan", "\x00", "é", "%", "../", "a" * 300, "[]", "{}", "position", "one", "a",
                 "9" * 30, "'; DROP TABLE labels", "\U0001f98a", "1.1", "TP")  # fmt: skip
        heads = ("Origin", "Host", "Cookie", "Authorization", "Sec-Fetch-Site", "Range", "Accept-Encoding")
        values = (b"http://[::1", b"\xff", b"a=b;;=", b"bearer x", b"127.0.0.1:8484", b"bytes=0-1", b"null", b"")
        for _ in range(count):
            kind = dice.choice((*PAGES, *FILES, "map", "thumbnail", "picture", "names", ""))
            path = f"{dice.choice(('', '/api'))}/runs/{dice.choice((key, key, '0' * 8, '%00'))}/{kind}"
            asked = [(dice.choice(names), dice.choice(texts)) for _ in range(dice.randrange(4))]
            headers = {dice.choice(heads): dice.choice(values)} if dice.random() < 0.3 else {}
            found[str(asking.get(path, params=asked, headers=headers).status_code)] += 1
    return found


if __name__ == "__main__":
    raise SystemExit(main())
