"""Every page under axe-core's rules, light and dark: nothing serious or critical."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.base import AXE_FILE_PATH

from support.web_pages import needs_chromium

pytestmark = [needs_chromium, pytest.mark.slow]
AXE = Path(AXE_FILE_PATH).read_text(encoding="utf-8")
PAGES = {
    "runs": ("", ""),
    "overview": ("hostile", "overview"),
    "several": ("real", "overview"),
    "queues": ("real", "queues"),
    "grid": ("hostile", "grid?flags=FN"),
    "sample": ("hostile", "sample?page=2"),
    "one": ("real", "sample?page=2"),
    "saliency": ("hostile", "saliency"),
    "real": ("real", "saliency?every=true"),
    "large": ("hostile", "saliency?open=0.0"),
    "scores": ("real", "scores"),
    "classes": ("hostile", "classes"),
    "counterfactual": ("hostile", "counterfactual"),
    "failures": ("hostile", "failures"),
}


def serious(tab: Any) -> list[str]:
    """Rule and place of what axe-core calls serious or critical."""
    tab.evaluate(AXE)
    found = tab.evaluate("axe.run(document, {resultTypes: ['violations']})")
    assert len(found["passes"]) > 10  # it did look
    return [
        f"{rule['id']}: {rule['help']} {node['target']}"
        for rule in found["violations"]
        if rule["impact"] in ("serious", "critical")
        for node in rule["nodes"]
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("page", PAGES)
def test_nothing_serious(tab: Any, served: Any, page: str, scheme: str) -> None:
    run, path = PAGES[page]
    tab.emulate_media(color_scheme=scheme)
    tab.goto(f"{served[1][run]}/{path}" if run else served[0])
    assert serious(tab) == []


def test_it_would_be_found(tab: Any, served: Any) -> None:
    tab.goto(f"{served[1]['real']}/scores")
    tab.evaluate("document.querySelector('h1').style.color = '#8886'")
    assert any(one.startswith("color-contrast") for one in serious(tab))
