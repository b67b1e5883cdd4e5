"""What several tests share: networks, images, run folders, browsers; and where things lie."""

from pathlib import Path

TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent
SRC = ROOT / "src"
DATA = TESTS / "data"
