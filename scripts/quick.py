"""Prints the tests that `make quick` runs: the contracts, and those of the files that differ from the main branch.

A source file's tests are the file of the same place and name below tests/; where there is none (what several files of a
folder share, or one test file for several methods), all tests of that folder.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ALWAYS = "tests/contract"


def changed() -> list[str]:
    """Files changed since the branch left main, committed or not, and new ones; nothing where there is no git."""
    since = _git("merge-base", "main", "HEAD") or ["HEAD"]
    return sorted({*_git("diff", "--name-only", since[0]), *_git("ls-files", "--others", "--exclude-standard")})


def _git(*words: str) -> list[str]:
    asked = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    return asked.stdout.splitlines() if asked.returncode == 0 else []


def mirrored(file: str, root: Path = ROOT) -> str | None:
    """The test file or folder for a changed file; None where it has none of its own.

    >>> mirrored("src/seewhy/explainers/rise.py")
    'tests/explainers/test_rise.py'
    """
    path = Path(file)
    if path.suffix != ".py":
        return None
    if path.parts[0] == "tests":
        return file if path.name.startswith("test_") and (root / path).is_file() else None
    if path.parts[:2] != ("src", "seewhy"):
        return None
    folder = Path("tests", *path.parts[2:-1])
    own = folder / f"test_{path.stem.lstrip('_')}.py"
    if (root / own).is_file():
        return str(own)
    return str(folder) if folder != Path("tests") and (root / folder).is_dir() else None


def selected(files: list[str], root: Path = ROOT) -> list[str]:
    """The contracts and the tests of ``files``; what lies in a folder that is there already is left out."""
    found = sorted({ALWAYS, *(test for file in files if (test := mirrored(file, root)))})
    return [one for one in found if not any(str(parent) in found for parent in Path(one).parents)]


if __name__ == "__main__":
    sys.stdout.write("\n".join(selected(changed())) + "\n")
