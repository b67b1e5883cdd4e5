"""A digest of a model file and the files that belong to it, without reading them into memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

__all__ = ["digest"]


def digest(files: Iterable[Path]) -> str:
    """Twelve bytes as hexadecimal digits; files that do not exist are passed over."""
    into = hashlib.blake2b(digest_size=12)
    for path in files:
        if path.is_file():
            with path.open("rb") as stream:
                while block := stream.read(1 << 20):
                    into.update(block)
    return into.hexdigest()
