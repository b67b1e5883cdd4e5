"""What the navigation offers is there, as a page and as its JSON twin; a line more is a tab more."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from seewhy.web import rendering
from seewhy.web.app import application
from seewhy.web.library import Library
from seewhy.web.navigation import PAGES, RunPage
from seewhy.web.security import Rules
from support.web_pages import folder, one


@pytest.fixture
def client(tmp_path: Path) -> tuple[TestClient, str]:
    folder(tmp_path / "run").add("c" * 8, one(3))
    library = Library(tmp_path)
    return TestClient(application(library, Rules(names=frozenset({"testserver"})))), next(iter(library.places()))


def tabs(text: str) -> list[str]:
    found = re.search(r'<nav class="tabs".*?</nav>', text, re.S)
    return re.findall(r'<a href="[^"]*/([a-z]+)"', found[0]) if found else []


def test_every_tab_leads_to_a_page_that_marks_it_and_to_a_twin(client: tuple[TestClient, str]) -> None:
    asked, run = client
    for page in PAGES:
        answer = asked.get(f"/runs/{run}/{page.name}")
        assert answer.status_code == 200
        assert tabs(answer.text) == [each.name for each in PAGES]
        assert re.findall(r'/([a-z]+)" aria-current="page"', answer.text) == [page.name]
        assert asked.get(f"/api/runs/{run}/{page.name}").status_code == 200


def test_a_further_line_is_a_further_tab(client: tuple[TestClient, str], monkeypatch: pytest.MonkeyPatch) -> None:
    asked, run = client
    further = RunPage(name="patterns", title="Pat<terns", count="samples")
    monkeypatch.setitem(rendering._environment().globals, "navigation", (*PAGES, further))
    text = asked.get(f"/runs/{run}/saliency").text
    assert tabs(text)[-1] == "patterns"
    samples = asked.get(f"/api/runs/{run}").json()["samples"]
    assert f'>Pat&lt;terns <span class="count">{samples}</span></a>' in text
