"""Run folders, a real server and a real browser for the tests of the pages."""

from __future__ import annotations

import json
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import numpy as np
import pytest
import uvicorn
from PIL import Image

from seewhy.web.app import application
from seewhy.web.library import Library
from seewhy.web.security import Rules
from support import run_jobs
from support.run_folders import Folder, picture, settings, task

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed.")
HOSTILE = (
    "under_score, \"double\" and 'single'",
    "<script>window.hacked = true</script>",
    '"><img src=x onerror="window.hacked = true">',
    "snow ☃ and 🦊",
    "x" * 200,
    "=1+1",
    "turned \u202e round\x00",
)
MAP = np.linspace(-1, 1, 49).reshape(7, 7).astype(np.float32)
MAP[0, 0], MAP[0, 1], MAP[6, 2] = 2.0, -1.0, 1.5


def real(place: Path) -> Path:
    """Twelve pictures, three explainers, three metrics, uncertainty and counterfactuals of a real network."""
    run_jobs.run(
        place, 12, explainers=["grad_cam", "occlusion(window=8, stride=4)", "gradient"], uncertainty={},
        counterfactual={}, threshold=0.2,
    )  # fmt: skip
    return place


def photograph(width: int = 120, height: int = 80) -> Image.Image:
    """Stripes in colours."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    return Image.fromarray(np.stack([x * 2 % 256, y * 3 % 256, (x + y) % 256], -1).astype(np.uint8))


def one(number: int, name: str = "", **more: Any) -> Any:
    """A sample with a cropped view, one label and two maps."""
    label = number % len(HOSTILE)
    known: dict[str, Any] = {
        "labels": {label: (0.51 + number / 100, True), (label + 1) % len(HOSTILE): (0.1, False)},
        "maps": {(label, "one"): MAP, (label, "two"): MAP[::-1], ((label + 1) % len(HOSTILE), "one"): MAP.T},
        "scores": {(label, "one", "up"): number / 10, (label, "two", "up"): 0.25, (label, "one", "down"): None},
        "size": (80, 120), "input": (64, 64), "box": (24.0, 4.0, 96.0, 76.0), "small": photograph(),
        "boxes": ((label, 30.0, 10.0, 60.0, 50.0),),
    }  # fmt: skip
    return picture(f"s{number}", number, name=name or f"picture {number}.png", **{**known, **more})


def folder(place: Path, count: int = 7, **run: Any) -> Folder:
    """Pictures whose classes have hostile names; one could not be read."""
    made = Folder(place, settings(classes=HOSTILE, **{"data": {"kind": "folder", "length": count + 1}, **run}))
    made.add("a" * 8, *(one(number) for number in range(count)))
    broken = picture(
        f"s{count}", count, name="<b>broken</b>.png", failures=[("read", None, None, None, "It is <i>gone</i>.")],
        done=["predict", task("explain", "one")], failed=["predict", task("explain", "one")], size=None, input=None,
    )  # fmt: skip
    made.add("b" * 8, broken)
    return made


def tree(found: bool = True, mode: str = "show") -> str:
    """A hierarchical occlusion of an input of 64 x 64: two layers, of which the second has windows that overlap."""
    inner = [
        {"box": [0, 0, 16, 16], "layer": 1, "probability": 0.3, "gain": 0.2, "children": []},
        {"box": [8, 0, 16, 16], "layer": 1, "probability": 0.7, "gain": 0.4, "children": []},
    ]
    root = {
        "box": [0, 0, 64, 64], "layer": -1, "probability": 0.1, "gain": 0.0,
        "children": [{"box": [0, 0, 32, 32], "layer": 0, "probability": 0.8, "gain": 0.7, "children": inner}],
    }  # fmt: skip
    return json.dumps(
        {
            "found": found, "reason": None if found else "It is not enough.", "target": "class 0", "mode": mode,
            "threshold": 0.5, "size": [64, 64], "probability": 0.9, "layers": 2 if found else 0,
            "layer_probabilities": [0.8, 0.7] if found else [], "cut_off": [0.2], "root": root if found else None,
        }
    )  # fmt: skip


@contextmanager
def server(root: Path, rules: Rules | None = None, root_path: str = "") -> Iterator[str]:
    """A server in a thread; gives its address."""
    listening = socket.create_server(("127.0.0.1", 0))
    app = application(Library(root), rules or Rules(), root_path=root_path)
    running = uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False))
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not running.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        running.should_exit = True
        thread.join(10)


@contextmanager
def client(root: Path, rules: Rules | None = None, root_path: str = "") -> Iterator[Any]:
    """Asks the application without a network."""
    from starlette.testclient import TestClient

    app = application(Library(root), rules or Rules(), root_path=root_path)
    with TestClient(app, base_url="http://127.0.0.1:8484", raise_server_exceptions=False) as found:
        yield found


def key(asking: httpx.Client) -> str:
    """Of the first run."""
    found: str = asking.get("/api/runs").json()["runs"][0]["key"]
    return found


def names(tab: Any) -> list[str]:
    return tab.locator(".sample h2").all_text_contents()


def query(tab: Any) -> dict[str, list[str]]:
    return parse_qs(urlsplit(tab.url).query, keep_blank_values=True)


def settled(tab: Any, what: str) -> None:
    """Waits until something is true. Not with wait_for_function, which needs eval: the pages forbid it."""
    until = time.monotonic() + 8
    while not tab.evaluate(f"Boolean({what})"):
        assert time.monotonic() < until, f"not in 8 s: {what}"
        tab.wait_for_timeout(20)
