"""``seewhy compare``: a table of explainers and metrics."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from seewhy.cli.flags import PictureFlags

__all__ = ["Compare"]


@dataclass(frozen=True, kw_only=True)
class Compare(PictureFlags):
    """Judge explainers by metrics on the same pictures: a table with intervals, and which differences are real."""

    work = "compare"
    examples = (
        "seewhy compare --data-root photos --model timm:resnet50 --explainers grad_cam,rise --metrics deletion_auc",
        "seewhy compare --again seewhy-compare/comparison.json --how",
    )

    explainers: str = ""
    """Names separated by commas, with parameters if wanted: "recipro_cam,rise(num_masks=500)"."""
    metrics: str = ""
    """Names separated by commas, with parameters if wanted: "deletion_auc,pointing_game(tolerance=0)"."""
    samples: Path | None = None
    """A CSV file with the columns image, target and mask (the last two optional; paths are relative to the file)."""
    baselines: Annotated[bool, tyro.conf.arg(help_behavior_hint="(without it, they are)")] = True
    """A random map and a map of the centre are not added as rows."""
    confidence: float = 0.95
    """Of the intervals; 1 - confidence is the level at which a difference is called real."""
    seed: int = 0
    """Of the test."""
    out: Path = Path("seewhy-compare")
    """Where comparison.csv, .json, .png and .txt are written."""
    again: Path | None = None
    """A comparison.json: makes its table, files and picture again, the same to the last bit, without any network."""
    how: bool = False
    """Prints what every number was made with: all parameters of each explainer and metric."""
    strict: bool = False
    """Exit with 1 when anything failed, not only when everything did."""
    fail_under: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """METRIC=NUMBER: exit with 1 where an explainer's mean is worse or was not measured. May be repeated."""
