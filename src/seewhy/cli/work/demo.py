"""Runs the demo, then shows its pages."""

from __future__ import annotations

from seewhy import demo
from seewhy.cli.flags import emit
from seewhy.cli.list_ import Demo
from seewhy.cli.view import View

__all__ = ["run"]


def run(command: Demo) -> int:
    """Runs and shows it, and gives the exit code."""
    demo.run(command.out, masks=command.masks, say=emit)
    return View(folder=str(command.out / "run"), port=command.port).run() if command.view else 0
