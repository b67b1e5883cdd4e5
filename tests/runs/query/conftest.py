"""An empty run folder, and a run of three pictures."""

from __future__ import annotations

from pathlib import Path

import pytest

from seewhy.runs.query.run import Run
from support.run_folders import Folder, three_pictures


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


@pytest.fixture
def several(folder: Folder) -> Run:
    return Run(three_pictures(folder).place)
