"""Writes src/seewhy/__init__.pyi: what type checkers know of the public names, which are loaded on first use.

python scripts/make_stub.py            # writes the file
python scripts/make_stub.py --check    # exits with 1 where it is out of date
"""

from __future__ import annotations

import sys
from pathlib import Path

import seewhy

STUB = Path(seewhy.__file__).with_name("__init__.pyi")
HEAD = '''"""Public names and their types. Made by scripts/make_stub.py; do not edit."""

'''


def _place(name: str) -> tuple[int, str]:
    """Capitals, classes, functions: the order that the linter asks of ``__all__``."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


def text() -> str:
    """The stub's text: one line a subpackage, one a name, and what else the package has."""
    names = [f"from seewhy.{place} import {name} as {name}" for name, place in seewhy.public_names().items()]
    packages = [f"from . import {name} as {name}" for name in seewhy.subpackages()]
    public = ["__all__ = [", *(f'    "{name}",' for name in sorted(seewhy.public_names(), key=_place)), "]"]
    heads = "from seewhy.models import heads as heads"
    return HEAD + "\n".join([*sorted([*names, heads]), "", *packages, "", *public]) + "\n\n__version__: str\n"


def main(arguments: list[str]) -> int:
    """The exit code."""
    if "--check" not in arguments:
        STUB.write_text(text(), encoding="utf-8")
        return 0
    if STUB.is_file() and STUB.read_text(encoding="utf-8") == text():
        return 0
    sys.stderr.write(f"{STUB} is out of date. Run: python scripts/make_stub.py\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
