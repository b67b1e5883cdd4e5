"""The scripts beside the package, as modules: tests run a little of what they run at length."""

from __future__ import annotations

import importlib.util
from types import ModuleType

from support import ROOT

__all__ = ["benchmark"]


def benchmark(name: str) -> ModuleType:
    """A script of benchmarks/, not started."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found
