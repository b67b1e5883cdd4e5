"""How fast the pages are, in a real browser: 48 samples with 4 maps each, and filters on a run of a million labels.

Writes a synthetic folder through the store (rows, maps and thumbnails are made up, the files are real), serves it, and
drives Chromium: the time to the first painted picture and until all of the first screen and all of the page are there,
with nothing in the browser's cache; the time from a change of a filter until the results are in the page and painted;
and how long the browser needs for a frame while the opacity is moved. Run:

    python benchmarks/web.py [--folder DIR] [--parts 500] [--pictures 1000] [--labels 2] [--rounds 9]

A folder that is there already is read, not written again. Medians and quartiles in milliseconds.
"""

from __future__ import annotations

import argparse
import multiprocessing
import platform
import shutil
import socket
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from seewhy.runs.folder.codec import encode, thumbnail
from seewhy.runs.folder.rows import LabelRow, MapRow, Row, ScoreRow, ThumbnailRow, UncertaintyRow
from seewhy.runs.folder.store import Store
from seewhy.runs.query.run import Run

EXPLAINERS, METRICS, CLASSES, LOOKS = ("grad_cam", "recipro_cam", "rise", "occlusion"), ("insertion_auc",), 1000, 64
DONE = ["predict", "uncertainty:u0", *(f"explain:{e}" for e in EXPLAINERS)]
DONE += [f"score:{e}:{m}" for e in EXPLAINERS for m in METRICS]
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
PAINTED = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"


# ------------------------------------------------------------------------------------------------------ the folder


def settings(length: int) -> dict[str, object]:
    return {
        "format": 1, "id": "0123456789ab", "created": "2026-01-01T00:00:00+00:00", "seewhy": "0", "torch": "2",
        "classes": [f"class {n}" for n in range(CLASSES)], "activation": "softmax", "threshold": 0.5,
        "explainers": {e: {"id": e, "name": e, "parameters": {}} for e in EXPLAINERS},
        "metrics": {
            m: {"id": m, "name": m, "parameters": {}, "better": "higher", "range": [0.0, 1.0]} for m in METRICS
        },
        "uncertainty": {"id": "u0", "parameters": {}}, "counterfactual": None,
        "data": {"kind": "folder", "length": length}, "model": {"name": "synthetic", "digest": "0"},
        "chunk": 32, "batch": 16, "precision": "auto", "command": None,
    }  # fmt: skip


def pack(random: np.random.Generator) -> tuple[list[bytes], list[ThumbnailRow], list[tuple[int, int, float, float]]]:
    """Photographs and maps that the pictures of a part share: their bytes, and where they lie."""
    pieces: list[bytes] = []
    size, photographs, maps = 0, [], []
    for _ in range(LOOKS):
        coarse = Image.fromarray(random.integers(0, 256, (9, 12, 3), dtype=np.uint8))
        data, kind, (height, width) = thumbnail(coarse.resize((500, 375), Image.Resampling.BICUBIC))
        photographs.append(ThumbnailRow(size, len(data), kind, height, width))
        pieces.append(data)
        size += len(data)
    for _ in range(LOOKS * len(EXPLAINERS)):
        made = encode(random.random((7, 7)).astype(np.float32))
        maps.append((size, len(made.data), made.low, made.high))
        pieces.append(made.data)
        size += len(made.data)
    return pieces, photographs, maps


def row(position: int, labels: int, random: np.random.Generator, photographs: Any, maps: Any) -> Row:
    classes = random.choice(CLASSES, labels, replace=False).tolist()
    numbers = random.random((labels, 4 + len(EXPLAINERS))).round(4).tolist()
    flags = random.choice(["TP", "FN", "FP"], labels, p=[0.7, 0.15, 0.15]).tolist()
    cells = [(c, e) for c in classes for e in EXPLAINERS]
    places = [maps[(position * len(cells) + at) % len(maps)] for at in range(len(cells))]
    return Row(
        sample=f"{position:07d}", position=position, stamp="1", name=f"picture {position}.jpg", size=(375, 500),
        input=(224, 224), box=(62.5, 0.0, 437.5, 375.0), truth=tuple(classes[:1]), predicted=classes[position % 5 == 0],
        probability=numbers[0][0], entropy=numbers[0][1], mutual_information=numbers[0][2],
        thumbnail=photographs[position % len(photographs)],
        labels=[LabelRow(c, n[0], f != "FP", f) for c, n, f in zip(classes, numbers, flags, strict=True)],
        uncertainty=[UncertaintyRow(c, n[0], n[1] / 10, n[2], n[3]) for c, n in zip(classes, numbers, strict=True)],
        maps=[
            MapRow(c, e, place[0], place[1], "f4", 7, 7, place[2], place[3])
            for (c, e), place in zip(cells, places, strict=True)
        ],
        scores=[
            ScoreRow(c, e, m, n[4 + at])
            for c, n in zip(classes, numbers, strict=True)
            for at, e in enumerate(EXPLAINERS)
            for m in METRICS
        ],
        done=DONE, written=1.7e9,
    )  # fmt: skip


def write(place: Path, parts: int, pictures: int, labels: int) -> None:
    store, random = Store(place), np.random.default_rng(0)
    store.create(settings(parts * pictures))
    pieces, photographs, maps = pack(random)
    began = time.perf_counter()
    for part in range(parts):
        rows = [row(part * pictures + n, labels, random, photographs, maps) for n in range(pictures)]
        store.write("0123456789ab", f"{part:08x}", rows, pieces)
    print(f"written: {parts} parts, {parts * pictures} pictures in {time.perf_counter() - began:.0f} s", flush=True)


# ------------------------------------------------------------------------------------------------------- measuring


def told(what: str, values: list[float]) -> None:
    low, middle, high = statistics.quantiles(values, n=4)
    print(f"{what:66} {middle:8.0f}  ({low:.0f} to {high:.0f}, {len(values)} rounds)", flush=True)


def first_paint(browser: Any, address: str, rounds: int, what: str, image: str = ".sample .view image") -> None:
    """A new context each time: nothing is in the cache."""
    first, screen, every = [], [], []
    for _ in range(rounds):
        context = browser.new_context(viewport={"width": 1440, "height": 1000})
        tab = context.new_page()
        began = time.perf_counter()
        tab.goto(address, wait_until="commit")
        tab.wait_for_selector(image, state="attached")
        tab.evaluate(
            f"() => new Promise((done) => {{ const image = document.querySelector('{image}');"
            f" const there = () => {PAINTED}.then(done);"
            " const probe = new Image(); probe.onload = there; probe.src = image.href.baseVal; })"
        )
        first.append(1000 * (time.perf_counter() - began))
        tab.wait_for_load_state("load")
        tab.evaluate(f"() => {PAINTED}")
        screen.append(1000 * (time.perf_counter() - began))
        tab.wait_for_load_state("networkidle")
        every.append(1000 * (time.perf_counter() - began) - 500)  # idle is half a second without a request
        context.close()
    told(f"{what}: first picture painted", first)
    told(f"{what}: load event and painted", screen)
    told(f"{what}: last request answered", every)


def loaded(browser: Any, address: str, rounds: int, what: str, there: str) -> None:
    """Until the load event, with something in the page."""
    spent = []
    for _ in range(rounds):
        context = browser.new_context(viewport={"width": 1440, "height": 900})
        tab = context.new_page()
        began = time.perf_counter()
        tab.goto(address, wait_until="load", timeout=60_000)
        tab.wait_for_selector(there, state="attached")
        tab.evaluate(f"() => {PAINTED}")
        spent.append(1000 * (time.perf_counter() - began))
        context.close()
    told(f"{what}: load event and painted", spent)


GRID = {
    "another queue and back": "(() => { const s = document.querySelector('#queue');"
    " s.value = s.value === '' ? 'wrong' : ''; s.dispatchEvent(new Event('change', {bubbles: true})); })()",
    "sort by a metric and back": "(() => { const s = document.querySelector('#sort');"
    " s.value = s.value === 'position' ? 'score:rise:insertion_auc' : 'position';"
    " s.dispatchEvent(new Event('change', {bubbles: true})); })()",
    "next page": "document.querySelector('.pager [rel=next]').click()",
}


def filters(browser: Any, address: str, rounds: int, what: str = "12 samples", changes: Any = None) -> None:
    """From the change of a control until the new results are painted; pictures are asked for after that."""
    tab = browser.new_context(viewport={"width": 1440, "height": 1000}).new_page()
    changes = changes or {
        "flag FN on and off": "document.querySelector('[name=flags][value=FN]').click()",
        "sort by probability and back": "(() => { const s = document.querySelector('#sort');"
        " s.value = s.value === 'position' ? 'probability' : 'position';"
        " s.dispatchEvent(new Event('change', {bubbles: true})); })()",
        "sort by a metric and back": "(() => { const s = document.querySelector('#sort');"
        " s.value = s.value === 'position' ? 'score:rise:insertion_auc' : 'position';"
        " s.dispatchEvent(new Event('change', {bubbles: true})); })()",
        "next page": "document.querySelector('.pager [rel=next]').click()",
    }
    for name, change in changes.items():
        tab.goto(address)
        tab.wait_for_load_state("networkidle")
        seconds = []
        for _ in range(rounds):
            spent = tab.evaluate(
                "() => new Promise((done) => { const old = document.querySelector('#results');"
                f" const began = performance.now(); {change};"
                " const look = () => document.querySelector('#results') === old ? requestAnimationFrame(look)"
                f" : {PAINTED}.then(() => done(performance.now() - began)); look(); }})"
            )
            seconds.append(spent)
            tab.wait_for_timeout(700)
        told(f"{what}, {name}", seconds)


def frames(browser: Any, address: str) -> None:
    """How long a frame takes while the opacity moves from 0 to 100."""
    tab = browser.new_context(viewport={"width": 1440, "height": 1000}).new_page()
    tab.goto(address)
    tab.wait_for_load_state("networkidle")
    for name in ("opacity", "threshold"):
        spent = tab.evaluate(
            f"async () => {{ const one = document.querySelector('#{name}'), spent = []; let before = performance.now();"
            " for (let at = 0; at <= 100; at += 2) { one.value = at;"
            " one.dispatchEvent(new Event('input', {bubbles: true}));"
            " await new Promise((done) => requestAnimationFrame(done));"
            " const now = performance.now(); spent.push(now - before); before = now; } return spent; }"
        )
        told(f"48 samples x 4 maps, a frame while {name} is moved", spent[1:])


def server(place: str, listening: socket.socket) -> None:
    import uvicorn

    from seewhy.web.app import application
    from seewhy.web.library import Library
    from seewhy.web.security import Rules

    app = application(Library(place), Rules())
    uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False)).run(sockets=[listening])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path)
    for name, value in (("parts", 500), ("pictures", 1000), ("labels", 2), ("rounds", 9)):
        parser.add_argument(f"--{name}", type=int, default=value)
    asked = parser.parse_args()
    folder = asked.folder or Path(tempfile.mkdtemp()) / "run"
    if not Store(folder).exists():
        write(folder, asked.parts, asked.pictures, asked.labels)
    began = time.perf_counter()
    counts = Run(folder).counts()
    print(f"{counts.labels} labels of {counts.samples} pictures, opened in {time.perf_counter() - began:.1f} s")
    listening = socket.create_server(("127.0.0.1", 0))
    process = multiprocessing.get_context("fork").Process(target=server, args=(str(folder), listening), daemon=True)
    process.start()
    measure(f"http://127.0.0.1:{listening.getsockname()[1]}", asked.rounds)
    process.kill()
    if asked.folder is None:
        shutil.rmtree(folder.parent)


def measure(address: str, rounds: int) -> None:
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        print(f"Chromium {browser.version}, Python {platform.python_version()}; median (quartiles) in milliseconds")
        tab = browser.new_page()
        tab.goto(address, timeout=300_000)
        page = tab.locator(".run h2 a").get_attribute("href", timeout=300_000)
        tab.close()
        run, tile = f"{address}{page.rpartition('/')[0]}", ".tile svg image"
        saliency = f"{run}/saliency"
        first_paint(browser, f"{saliency}?limit=48", rounds, "48 samples x 4 maps")
        first_paint(browser, saliency, rounds, "12 samples x 4 maps")
        filters(browser, saliency, rounds)
        frames(browser, f"{saliency}?limit=48")
        for name, image in (("overview", ".histogram rect"), ("queues", tile)):
            loaded(browser, f"{run}/{name}", rounds, name, image)
        for limit in (48, 200):
            first_paint(browser, f"{run}/grid?limit={limit}", rounds, f"grid of {limit}", tile)
        filters(browser, f"{run}/grid", rounds, "grid of 48", GRID)
        deep = f"{run}/sample?queue=wrong&page=1000"
        loaded(browser, deep, rounds, "one sample, the 1000th of a queue", ".stage-view")
        browser.close()


if __name__ == "__main__":
    main()
