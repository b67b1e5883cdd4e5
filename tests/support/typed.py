"""Says to the type checker, and checks, what a test knows: that a value is there, or of what kind it is."""

from __future__ import annotations

from typing import Any, TypeVar

import seewhy

__all__ = ["loaded", "of_kind", "present", "unchecked"]

T = TypeVar("T")


def present(value: T | None) -> T:
    """The value, which must not be None."""
    assert value is not None
    return value


def of_kind(kind: type[T], value: object) -> T:
    """The value, which must be an instance of ``kind``."""
    assert isinstance(value, kind)
    return value


def loaded(kind: type[T], *args: Any, **options: Any) -> T:
    """`seewhy.load`, of what must become a model of this kind."""
    return of_kind(kind, seewhy.load(*args, **options))


def unchecked(value: Any) -> Any:
    """A value that the signature does not take, handed over on purpose, or an object with attributes of its own."""
    return value
