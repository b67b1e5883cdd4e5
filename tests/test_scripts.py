"""The scripts beside the sources: which tests are quick, and which versions are the lowest."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"


def script(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("file", "want"),
    [
        ("src/seewhy/explainers/rise.py", "tests/explainers/test_rise.py"),
        ("src/seewhy/explainers/_cam.py", "tests/explainers"),  # what several methods share
        ("src/seewhy/runs/folder/store.py", "tests/runs/folder/test_store.py"),
        ("src/seewhy/types.py", "tests/test_types.py"),
        ("src/seewhy/errors.py", None),  # the contracts ask about errors
        ("tests/draw/test_sheet.py", "tests/draw/test_sheet.py"),
        ("tests/draw/test_that_is_gone.py", None),
        ("tests/support/networks.py", None),
        ("docs/index.md", None),
        ("README.md", None),
    ],
)
def test_the_mirrored_a_changed_file(file: str, want: str | None) -> None:
    assert script("quick").mirrored(file) == want


def test_a_folder_stands_for_its_files_and_the_contracts_are_always_there() -> None:
    files = ["src/seewhy/explainers/_cam.py", "src/seewhy/explainers/rise.py", "tests/contract/test_metrics.py"]
    assert script("quick").selected(files) == ["tests/contract", "tests/explainers"]
    assert script("quick").selected([]) == ["tests/contract"]


def test_the_lowest_versions_are_those_of_the_file() -> None:
    project = {
        "dependencies": ["numpy>=2.0", "pinned==1.2", "free", "two>=1.9", "moto[server]>=5.0", "both>=1,<2"],
        "optional-dependencies": {"more": ["two>=1.10", "seewhy[all]"]},
    }
    assert script("lowest").lowest(project) == ["both==1", "moto==5.0", "numpy==2.0", "pinned==1.2", "two==1.10"]
