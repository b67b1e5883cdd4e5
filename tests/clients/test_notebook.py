"""In a real kernel: an explanation is shown as HTML, a comparison as a table, and the bar is a widget."""

from __future__ import annotations

import pytest

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("ipykernel")
pytest.importorskip("ipywidgets")

pytestmark = pytest.mark.slow

CODE = """
import torch
import seewhy
from support import networks
network = networks.build(networks.Deep)
found = seewhy.explain(network, torch.rand(1, 3, 32, 32), 0, "rise", num_masks=64)
"""


def test_a_kernel_shows_everything() -> None:
    cells = [nbformat.v4.new_code_cell(source) for source in (CODE, "found")]
    book = nbformat.v4.new_notebook(cells=cells)
    nbclient.NotebookClient(book, timeout=120, kernel_name="python3").execute()
    first = [output for output in cells[0].outputs if "data" in output]
    assert any("application/vnd.jupyter.widget-view+json" in output["data"] for output in first)
    assert not any("IProgress not found" in output.get("text", "") for output in cells[0].outputs)
    shown = cells[1].outputs[-1]["data"]
    assert "rise of Deep" in shown["text/html"]
    assert shown["text/html"].count("<img ") == 1
    assert "Parameters" in shown["text/html"]
