"""What the package offers: subpackages after a plain import, and types that checkers see."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import assert_type

import pytest
import torch

import seewhy

ROOT = Path(seewhy.__file__).parents[2]

USE = """
import torch
import seewhy

x = torch.zeros(1, 3, 8, 8)
reveal_type(seewhy.explain)
reveal_type(seewhy.RISE(None)(x))
reveal_type(seewhy.load("m"))
reveal_type(seewhy.errors.InvalidInput)
seewhy.no_such_name
"""


@pytest.mark.parametrize("name", ["metrics", "runs", "datasets", "errors", "images", "detection", "heads", "models"])
@pytest.mark.slow
def test_subpackages_are_there_after_a_plain_import(name: str) -> None:
    code = f"import seewhy; print(seewhy.{name}.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("seewhy."), done.stderr


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'seewhy' has no attribute 'metric'"):
        _ = seewhy.metric  # type: ignore[attr-defined]  # that is the fault


def test_a_plain_import_loads_no_torch() -> None:
    code = "import sys, seewhy; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_stub_names_what_the_package_has() -> None:
    spec = importlib.util.spec_from_file_location("make_stub", ROOT / "scripts" / "make_stub.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.STUB.read_text(encoding="utf-8") == module.text()


def test_types_as_mypy_sees_them() -> None:
    """`make lint` checks this file, too: a wrong type fails there, a wrong value here."""
    pooled = torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
    network = torch.nn.Sequential(*pooled, torch.nn.Linear(4, 2))
    x = torch.zeros(1, 3, 8, 8)
    assert_type(seewhy.RISE(network, num_masks=4)(x, 0), torch.Tensor)
    assert_type(seewhy.explain(network, x, 0, "grad_cam"), seewhy.Explanation)
    assert seewhy.RISE(network, num_masks=4)(x, 0).shape == (1, 1, 8, 8)
    assert isinstance(seewhy.explain(network, x, 0, "grad_cam"), seewhy.Explanation)


@pytest.mark.slow
def test_pyright_sees_the_public_names(tmp_path: Path) -> None:
    file = tmp_path / "use.py"
    file.write_text(USE)
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-m", "basedpyright", "--pythonpath", sys.executable, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    said = done.stdout
    assert "-> Explanation" in said
    assert 'Type of "seewhy.RISE(None)(x)" is "Tensor"' in said
    assert 'Type of "seewhy.load("m")" is "Model"' in said
    assert '"no_such_name" is unknown import symbol' in said or '"no_such_name" is not a known attribute' in said
    assert "1 error" in said
