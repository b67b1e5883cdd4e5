"""Examples in docstrings run and give what they say; every public name has one."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from functools import cache
from types import ModuleType

import pytest

import seewhy
from seewhy import registry
from support.examples import names

OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@cache
def modules() -> tuple[ModuleType, ...]:
    """All of seewhy but what runs when it is imported."""
    found = pkgutil.walk_packages(seewhy.__path__, "seewhy.")
    return tuple(importlib.import_module(m.name) for m in found if not m.name.endswith("__main__"))


def examples() -> Iterator[doctest.DocTest]:
    finder = doctest.DocTestFinder(exclude_empty=True)
    for module in modules():
        yield from (test for test in finder.find(module, module.__name__) if test.examples)


@pytest.mark.parametrize("test", examples(), ids=lambda test: test.name.removeprefix("seewhy."))
def test_an_example_gives_what_it_says(test: doctest.DocTest) -> None:
    test.globs |= names()
    said: list[str] = []
    doctest.DocTestRunner(optionflags=OPTIONS).run(test, out=said.append)
    assert not said, "".join(said)


@pytest.mark.parametrize("name", seewhy.__all__)
def test_every_public_name_has_an_example(name: str) -> None:
    assert ">>> " in (inspect.getdoc(getattr(seewhy, name)) or "")


@pytest.mark.parametrize("name", registry.names("metrics"))
def test_every_metric_has_an_example(name: str) -> None:
    assert ">>> " in (inspect.getdoc(registry.load("metrics", name)) or "")
