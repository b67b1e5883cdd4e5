"""``seewhy run``, ``status`` and ``export``: whole data sets."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
import yaml

from seewhy.cli.flags import Command, NetworkFlags, PixelFlags, SieveFlags
from seewhy.errors import InvalidInput, UnknownParameter, nearest

__all__ = ["Export", "How", "RunCommand", "Status", "flags", "with_config"]


@dataclass(frozen=True, kw_only=True)
class How(Command):
    """How a run is carried out; nothing of this changes a result."""

    engine: str = "local"
    """Where it is computed: local, ray, or an engine of another package."""
    workers: int = 1
    """How many processes (local) or actors (ray) compute."""
    address: str | None = None
    """Of a running Ray cluster; without it, ray starts a private one on this machine."""
    shard: str = "1/1"
    """i/n: does the i-th of n parts of the work, so that n machines can share it without an engine."""
    retry: bool = False
    """Does again what failed before."""
    strict: bool = False
    """Exit with 1 when anything failed, not only when everything did."""
    threads: int | None = None
    """Threads of each worker's network on the CPU."""
    timeout: float | None = None
    """Seconds that a picture may take in being read, in one explainer, one metric; what takes longer is a failure."""
    accelerate: bool = False
    """Runs what needs scores alone with the form of the network that is measured to be the quickest here; scores are
    the same to rounding."""


@dataclass(frozen=True, kw_only=True)
class RunCommand(NetworkFlags, SieveFlags, How):
    """Explain and judge a whole data set into a run folder; what is there already is not computed again."""

    work = "run"
    examples = (
        "seewhy run --data photos --model timm:resnet50 --explainers grad_cam --metrics deletion_auc --out runs/first",
        "seewhy run --config run.toml --data photos --out runs/second --workers 4",
    )

    config: Path | None = None
    """A TOML or YAML file with any of these flags; the command line goes before it."""
    data: str
    """A folder of pictures, voc:ROOT, voc:ROOT?SET, coco:FILE.json, csv:FILE.csv, npz:FILE.npz, tar:FILE.tar."""
    data_set: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """An option of the data, NAME=VALUE. May be repeated."""
    explainers: str = ""
    """Names separated by commas, with parameters if wanted: "grad_cam,rise(num_masks=500)"."""
    metrics: str = ""
    """Names separated by commas, with parameters if wanted: "insertion_auc,pointing_game(tolerance=0)"."""
    trust_grade: bool = False
    """Grades how far each map can be trusted: the metric of this name, 58 passes and three or four maps each."""
    baselines: Annotated[bool, tyro.conf.arg(help_behavior_hint="(without it, they are, and not kept)")] = True
    """A random map and a map of the centre are not judged."""
    uncertainty: bool = False
    """How sure the network is of each probability (Monte-Carlo dropout)."""
    counterfactual: bool = False
    """Which few regions suffice for each label (hierarchical occlusion)."""
    features: bool = False
    """Keeps vectors of layers' features, for `seewhy neighbours`."""
    out: str
    """The run folder, or an address that fsspec knows (s3://...)."""
    threshold: float = 0.5
    """Classes above this probability are explained, with those that truly are there."""
    instances: Literal["boxes", "masks"] = "boxes"
    """Of a detector: explain its boxes, or the instance masks of what it finds."""
    chunk: int = 32
    """Pictures that are committed together."""
    batch: int = 16
    """Pictures that go through the network together."""
    precision: Literal["auto", "float32", "float16"] = "auto"
    """Of the maps that are kept; auto: float32 up to 32 x 32, larger ones in 256 levels with their range."""
    copy_originals: bool = False
    """Keeps copies of the pictures in the run folder."""
    device: str | None = None
    """Where the network runs: cpu, cuda, cuda:1."""
    fail_under: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """METRIC=NUMBER: exit with 1 where an explainer's mean is worse or was not measured. May be repeated."""


@dataclass(frozen=True, kw_only=True)
class Status(Command):
    """What a run folder has: counts, scores, failures. Works while it is being written, too."""

    work = "status"
    examples = (
        "seewhy status runs/first",
        "seewhy status runs/first --json",
    )

    folder: Annotated[str, tyro.conf.Positional]
    """The run folder."""
    failures: int = 20
    """How many failures are listed."""
    json: bool = False
    """All of it as JSON."""


@dataclass(frozen=True, kw_only=True)
class Export(PixelFlags):
    """Write a run folder in another form: CSV, Parquet, COCO, FiftyOne, TensorBoard, MLflow, Weights & Biases."""

    work = "export"
    examples = ("seewhy export runs/first --to csv --out scores.csv",)

    folder: Annotated[str, tyro.conf.Positional]
    """The run folder."""
    to: str
    """A format, see `seewhy list`."""
    out: Path
    """The file or folder that is written."""
    set: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """A parameter of the format, NAME=VALUE. May be repeated."""


# -------------------------------------------------------------------------------------------------- config files


def with_config(arguments: list[str]) -> list[str]:
    """Returns the arguments with those of ``run --config FILE`` put before them.

    Raises:
        InvalidInput: the file cannot be read.
        UnknownParameter: it has a flag that the command does not have.
    """
    where = next((i for i, text in enumerate(arguments) if text == "--config" or text.startswith("--config=")), None)
    if where is None or arguments[:1] != ["run"]:
        return arguments
    _, equals, value = arguments[where].partition("=")
    if not equals and where + 1 == len(arguments):
        return arguments
    path = Path(value if equals else arguments[where + 1])
    return ["run", *flags(_table(path), path), *arguments[1:]]


def _table(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        found = tomllib.loads(text) if path.suffix.lower() == ".toml" else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise InvalidInput(f"The configuration {str(path)!r} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise InvalidInput(f'The configuration {str(path)!r} must have names and values, as in: data = "photos".')
    return found


def flags(table: Mapping[str, Any], path: Path) -> list[str]:
    """Returns a table as the words of a command line."""
    known = {f.name for f in dataclasses.fields(RunCommand)} - {"config"}
    found: list[str] = []
    for key, value in table.items():
        name = str(key).replace("-", "_")
        if name not in known:
            raise UnknownParameter(f"{str(path)!r}: seewhy run has no {str(key)!r}. {nearest(name, sorted(known))}")
        found += _flag(f"--{name.replace('_', '-')}", name, value)
    return found


def _flag(flag: str, name: str, value: Any) -> list[str]:
    if value is None and name == "nms_threshold":
        return [flag, "None"]
    if value is None or value is False:
        return []
    if value is True:
        return [flag]
    if name in ("explainers", "metrics") and isinstance(value, list):
        return [flag, ",".join(map(str, value))]
    if name == "data_set":
        pairs = value.items() if isinstance(value, Mapping) else [str(one).partition("=")[::2] for one in value]
        return [text for key, one in pairs for text in (flag, f"{key}={one}")]
    if isinstance(value, list):
        return [flag, *map(str, value)]
    return [flag, str(value)]
