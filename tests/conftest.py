"""Settings that hold for every test, and the browser with run folders behind a server for the tests of the pages."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

torch.set_num_threads(1)
SHOTS = os.environ.get("SEEWHY_SCREENSHOTS")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what needs a browser, so that no test of a page can be forgotten."""
    for item in items:
        if "browser" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.browser)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _trusted_graphs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs for OpenVINO are not read in a process of their own first: that is 0.4 s for each of hundreds of files."""
    if request.node.path.name not in ("test_damaged_files.py", "test_explain.py"):
        monkeypatch.setattr("seewhy.models.backends.openvino._try_apart", lambda path: None)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from support.web_pages import folder, one, real, tree

    made = tmp_path_factory.mktemp("runs")
    real(made / "real")
    hostile = folder(made / "hostile", 30)
    hostile.add("c" * 8, one(40, trees={5: tree(), 6: tree(found=False)}))
    return made


@pytest.fixture(scope="module")
def served(place: Path) -> Iterator[tuple[str, dict[str, str]]]:
    from seewhy.web.library import Library
    from support.web_pages import server

    keys = {found.name: found.key for found in Library(place).places().values()}
    with server(place) as address:
        yield address, {name: f"{address}/runs/{key}" for name, key in keys.items()}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    from support.web_pages import CHROMIUM, FLAGS

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield found
        found.close()


@pytest.fixture
def tab(browser: Any, served: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1440, "height": 1000})
    found, wrong = context.new_page(), []
    found.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
    found.on("pageerror", lambda error: wrong.append(str(error)))
    asked: list[str] = []
    found.on("request", lambda sent: asked.append(sent.url))
    found.asked = asked
    yield found
    if SHOTS:
        found.screenshot(path=Path(SHOTS) / f"{request.node.name}.png")
    assert found.evaluate("window.hacked") is None
    context.close()
    assert not wrong
    assert not [url for url in asked if not url.startswith((served[0], "data:", "blob:", "file:"))]
