"""Takes the pictures of the review pages that README and docs show, from a run of the demonstration.

    make demo DEMO=--no-view && .venv/bin/python docs/page_pictures.py demo-out/run

Needs the extra ``test`` and Chromium.
"""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import sync_playwright

HERE = Path(__file__).parent / "images"
PORT = 8497
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
EXPLAINERS = ("grad_cam", "rise", "occlusion", "guided_backprop")
PAGES = {
    "page-saliency": ("saliency", "&".join(f"explainers={name}" for name in EXPLAINERS)),
    "page-scores": ("scores", ""),
    "page-counterfactual": ("counterfactual", ""),
}


def main() -> None:
    """Serves the run and photographs its pages."""
    with served(Path(sys.argv[1])) as home, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        page = browser.new_page(viewport={"width": 1440, "height": 1000})
        for name, (kind, query) in PAGES.items():
            page.goto(home)
            link = page.locator(f"a[href*='/{kind}']").first.get_attribute("href")
            page.goto(f"http://127.0.0.1:{PORT}{link}?{query}")
            page.wait_for_load_state("networkidle")
            page.screenshot(path=HERE / f"{name}.png")
        browser.close()


@contextmanager
def served(run: Path, *options: str) -> Iterator[str]:
    """Serves a run; gives the address of its first page."""
    command = [sys.executable, "-m", "seewhy", "view", str(run), "--port", str(PORT), "--no-browser", *options]
    server = subprocess.Popen(command)
    try:
        yield wait(f"http://127.0.0.1:{PORT}/")
    finally:
        server.terminate()
        server.wait()


def wait(address: str) -> str:
    """The address, once somebody answers there."""
    for _ in range(200):
        try:
            urllib.request.urlopen(address).close()
        except OSError:
            time.sleep(0.1)
        else:
            return address
    raise SystemExit(f"Nobody answers at {address}.")


if __name__ == "__main__":
    main()
