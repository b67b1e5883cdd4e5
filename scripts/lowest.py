"""Prints the lowest version of each dependency that pyproject.toml allows, as a pip constraints file.

python scripts/lowest.py > lowest.txt
pip install -c lowest.txt -e '.[all]'
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path
from typing import Any

PYPROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"


def lowest(project: dict[str, Any]) -> list[str]:
    """One ``name==version`` for each requirement that has a lower bound; the highest of them where it has several."""
    groups = [project["dependencies"], *project.get("optional-dependencies", {}).values()]
    found: dict[str, list[int]] = {}
    for text in (line for group in groups for line in group):
        match = re.match(r"([\w.-]+)(?:\[[^]]*\])?\s*[>=]=\s*([\d.]+)", text)
        if match:
            version = [int(part) for part in match[2].split(".")]
            found[match[1]] = max(version, found.get(match[1], []))
    return [f"{name}=={'.'.join(map(str, version))}" for name, version in sorted(found.items())]


if __name__ == "__main__":
    sys.stdout.write("\n".join(lowest(tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"])) + "\n")
