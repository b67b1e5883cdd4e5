"""``seewhy diff``, ``slices``, ``patterns``, ``neighbours`` and ``report``: what stands out over whole runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from seewhy.cli.flags import Command, NetworkFlags, PixelFlags

__all__ = ["Diff", "NeighboursCommand", "PatternsCommand", "Report", "SlicesCommand"]


@dataclass(frozen=True, kw_only=True)
class Diff(Command):
    """Compare two run folders on the same images: another model, checkpoint, explainer or preprocessing."""

    work = "diff"
    examples = ("seewhy diff runs/before runs/after --out changed.csv",)

    first: Annotated[str, tyro.conf.Positional]
    """The run folder before."""
    second: Annotated[str, tyro.conf.Positional]
    """The run folder after."""
    explainer: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Whose maps are compared, by its label in the first run. May be repeated. Default: all that both have."""
    against: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Its label in the second run, where that is another one; as many as --explainer."""
    most: int | None = None
    """Compares this many images only."""
    out: Path | None = None
    """Writes all images, what changed most first: a .csv or a .json file."""
    json: bool = False
    """Everything as JSON on stdout."""


@dataclass(frozen=True, kw_only=True)
class SlicesCommand(Command):
    """Find groups of images on which the network is worse than elsewhere: by picture, maps, certainty, metadata."""

    work = "slices"
    examples = ("seewhy slices runs/first --table metadata.csv",)

    folder: Annotated[str, tyro.conf.Positional]
    """The run folder."""
    table: Path | None = None
    """A CSV file of metadata with a column sample, name or image; its other columns are looked at, too."""
    explainer: str | None = None
    """Whose maps are looked at. Default: the first of the run."""
    least: int = 20
    """Images that a group has at least."""
    level: float = 0.05
    """Below which an adjusted p-value counts as reliable."""
    json: bool = False
    """Everything as JSON, with the keys of the images."""


@dataclass(frozen=True, kw_only=True)
class PatternsCommand(NetworkFlags):
    """Find what the network uses in some images of a class and not in the others: shortcuts above all."""

    work = "patterns"
    examples = (
        "seewhy patterns runs/first",
        "seewhy patterns runs/first --model timm:resnet50 --data photos",
    )

    folder: Annotated[str, tyro.conf.Positional]
    """The run folder; the run keeps maps and features (seewhy run --explainers grad_cam --features)."""
    data: str | None = None
    """The run's data, as seewhy run takes them. With --model and --data patterns are tried out on the network."""
    data_set: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """An option of the data, NAME=VALUE. May be repeated."""
    table: Path | None = None
    """A CSV file of metadata with a column sample, name or image: what goes with a pattern is told."""
    smallest: int = 8
    """Images that a pattern has at least."""
    most: int = 2000
    """Images of a class that are looked at."""
    seed: int = 0
    """Of all that is drawn at random."""
    json: bool = False
    """Everything as JSON."""


@dataclass(frozen=True, kw_only=True)
class NeighboursCommand(Command):
    """Find images that look the same to the network, and labels that similar images contradict."""

    work = "neighbours"
    examples = (
        "seewhy neighbours runs/first",
        "seewhy neighbours runs/first --table metadata.csv --across split",
    )

    folder: Annotated[str, tyro.conf.Positional]
    """The run folder; the run keeps features (seewhy run --features)."""
    sample: str | None = None
    """Names the most similar images of this one instead, by its key."""
    count: int = 10
    """Neighbours that are asked about a label, or named of a sample."""
    alike: float = 0.98
    """The cosine from which on two images are called duplicates."""
    table: Path | None = None
    """A CSV file of metadata with a column sample, name or image."""
    across: str | None = None
    """A column of it (split): duplicates say where its values differ."""
    json: bool = False
    """Everything as JSON."""


@dataclass(frozen=True, kw_only=True)
class Report(PixelFlags):
    """Write what a run found into one HTML file that stands alone, for a mail, a printer or an auditor."""

    work = "report"
    examples = ("seewhy report runs/first --out report.html",)

    folder: Annotated[str, tyro.conf.Positional]
    """The run folder."""
    out: Path = Path("report.html")
    """The file."""
    table: Path | None = None
    """A CSV file of metadata by which groups of images may be told, see `seewhy slices`."""
    samples: int = 8
    """Images shown of each kind."""
