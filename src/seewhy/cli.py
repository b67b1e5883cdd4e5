"""The command line: ``seewhy explain``, ``seewhy compare``, ``seewhy list``, ``seewhy demo``.

Results go to stdout, one line a picture; progress, notes and errors go to stderr. Exit codes: 0 done, 1 nothing could
be done (or, with --strict, not everything), 2 the command itself was wrong.
"""

from __future__ import annotations

import ast
import csv
import dataclasses
import inspect
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from seewhy import registry
from seewhy.errors import InvalidInput, SeewhyError

__all__ = ["main"]

PICTURES = {".bmp", ".gif", ".jpeg", ".jpg", ".jxl", ".png", ".ppm", ".tif", ".tiff", ".webp", ".avif"}


@dataclass(frozen=True, kw_only=True)
class _Network:
    pictures: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """Picture files."""
    data_root: Path | None = None
    """Take every picture below this folder."""
    model: str
    """timm:NAME, torchvision:NAME or package.module:factory."""
    checkpoint: Path | None = None
    """Weights (.pth, .pt, .safetensors); without it named models fetch their published weights."""
    trust: bool = False
    """Read a checkpoint that runs code. Only for files from people you trust."""
    num_classes: int | None = None
    """Number of classes of a fine-tuned head."""
    labels: Path | None = None
    """Class names, a text file with one a line."""
    activation: Literal["softmax", "sigmoid", "none"] = "softmax"
    """How scores become probabilities."""
    quiet: bool = False
    """No progress bar and no notes."""
    size: tuple[int, int] | None = None
    """Height and width of the network's input, if the model does not say."""
    mean: tuple[float, ...] | None = None
    """Mean a channel, subtracted from values in 0..1."""
    std: tuple[float, ...] | None = None
    """Deviation a channel, by which values are divided."""
    fit: Literal["crop", "squash", "letterbox"] | None = None
    """How a picture of another shape is fitted into the input."""
    channels: Literal["RGB", "BGR", "L"] | None = None
    """Order of the channels."""


@dataclass(frozen=True, kw_only=True)
class Explain(_Network):
    """Explain pictures: writes overlays and a JSON for each, and prints one line a picture."""

    method: str = "auto"
    """An explainer (see `seewhy list`), or auto."""
    targets: str | None = None
    """Class indices or names, separated by commas; quote a name that has a comma. Default: the predicted class."""
    set: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """A parameter of the method, NAME=VALUE. May be repeated."""
    out: Path = Path("seewhy-out")
    """Where the results are written."""
    dump: bool = False
    """Write the raw values of the maps too (.npz)."""
    strict: bool = False
    """Exit with 1 when any picture failed, not only when all did."""


@dataclass(frozen=True, kw_only=True)
class Compare(_Network):
    """Judge explainers by metrics on the same pictures: a table with intervals, and which differences are real."""

    explainers: str
    """Names separated by commas, with parameters if wanted: "recipro_cam,rise(num_masks=500)"."""
    metrics: str
    """Names separated by commas, with parameters if wanted: "deletion_auc,pointing_game(tolerance=0)"."""
    samples: Path | None = None
    """A CSV file with the columns image, target and mask (the last two optional; paths are relative to the file)."""
    baselines: bool = True
    """Adds a random map and a map of the centre as rows."""
    confidence: float = 0.95
    """Of the intervals; 1 - confidence is the level at which a difference is called real."""
    seed: int = 0
    """Of the bootstrap and the test."""
    out: Path = Path("seewhy-compare")
    """Where comparison.csv, .json, .png and .txt are written."""
    strict: bool = False
    """Exit with 1 when anything failed, not only when everything did."""


@dataclass(frozen=True, kw_only=True)
class List:
    """List the explainers and metrics, with one sentence and the parameters of each."""


@dataclass(frozen=True, kw_only=True)
class Demo:
    """Explain real photographs with a real ImageNet classifier and write a contact sheet."""

    out: Path = Path("demo-out")
    """Where the results are written."""
    view: bool = True
    """The contact sheet is opened when it is done; --no-view leaves it."""
    masks: int = 600
    """Masks of RISE."""


def main(arguments: list[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    commands: dict[str, Any] = {"explain": Explain, "compare": Compare, "list": List, "demo": Demo}
    command = tyro.extras.subcommand_cli_from_dict(
        commands,
        prog="seewhy",
        description="Why a vision model said what it said.",
        args=arguments,
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    sys.path.append(os.getcwd())  # package.module:factory is looked for beside the user too
    try:
        if isinstance(command, Explain):
            return _explain(command)
        if isinstance(command, Compare):
            return _compare(command)
        return _list() if isinstance(command, List) else _demo(command)
    except SeewhyError as error:
        _say(f"seewhy: {error}")
        return 2
    except BrokenPipeError:  # `seewhy list | head`: what is left cannot be written, at exit neither
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _explain(command: Explain) -> int:
    pictures = _pictures(command)
    parameters = dict(_parameter(p) for p in command.set)
    targets = _targets(command.targets)
    network = _network(command)
    _check(network, command, parameters)
    if not command.quiet:
        for note in (*network.notes, f"{network.name}: {network.preprocessing or 'preprocessing unknown'}"):
            _say(note)
    failed = sum(not _one(network, p, stem, targets, command, parameters) for p, stem in _stems(pictures))
    if failed:
        _say(f"seewhy: {failed} of {len(pictures)} pictures could not be explained.")
    return 1 if failed == len(pictures) or (failed and command.strict) else 0


def _one(network: Any, picture: Path, stem: str, targets: Any, command: Explain, parameters: dict[str, Any]) -> bool:
    from seewhy.api import explain

    try:
        found = explain(
            network, picture, targets, command.method, activation_fn=_activation(command),
            progress=not command.quiet, **parameters,
        )  # fmt: skip
        found = dataclasses.replace(found, names=[stem])
        files = found.save(command.out, values=command.dump)
    except (SeewhyError, OSError) as error:
        _say(f"{picture}: {error}")
        return False
    _print(_line(picture, found, files))
    if not command.quiet:
        for warning in found.warnings[len(network.notes) :]:
            _say(f"{picture}: {warning}")
    return True


def _line(picture: Path, found: Any, files: list[Path]) -> str:
    label, probability = found.predicted[0]
    about = "; ".join(f"{n} {p:.3f}" for n, p in zip(found.labels[0], found.probabilities[0].tolist(), strict=True))
    return (
        f"{picture}\tpredicted {label} {probability:.3f}\texplained {about}\t{found.method}\t"
        f"{found.passes.forward} passes\t{found.seconds:.2f} s\t{files[0]}"
    )


def _stems(pictures: list[Path]) -> list[tuple[Path, str]]:
    """A name for each picture's files; pictures with one name in several folders get a number."""
    used: dict[str, int] = {}
    named = []
    for picture in pictures:
        number = used[picture.stem] = used.get(picture.stem, 0) + 1
        named.append((picture, picture.name if number == 1 else f"{picture.stem}-{number}{picture.suffix}"))
    return named


def _pictures(command: _Network) -> list[Path]:
    found = list(command.pictures)
    if command.data_root is not None:
        if not command.data_root.is_dir():
            raise InvalidInput(f"--data-root must be a folder, {str(command.data_root)!r} is not one.")
        found += sorted(p for p in command.data_root.rglob("*") if p.suffix.lower() in PICTURES and p.is_file())
    if not found:
        where = f" below {str(command.data_root)!r}" if command.data_root is not None else ""
        raise InvalidInput(f"There is no picture to explain{where}. Name picture files, or a folder with --data-root.")
    return found


def _network(command: _Network) -> Any:
    from seewhy.models.loading import load

    network = load(
        command.model, checkpoint=command.checkpoint, trust=command.trust, num_classes=command.num_classes,
        labels=command.labels,
    )  # fmt: skip
    changes = {n: v for n in ("size", "mean", "std", "fit", "channels") if (v := getattr(command, n)) is not None}
    return load(network, preprocessing=_preprocessing(network, changes)) if changes else network


def _preprocessing(network: Any, changes: dict[str, Any]) -> Any:
    from seewhy.images import Preprocessing

    known = network.preprocessing
    if known is not None:
        return dataclasses.replace(known, **changes)
    if missing := [f"--{n}" for n in ("size", "mean", "std") if n not in changes]:
        raise InvalidInput(f"The preprocessing of {network.name} is not known: {', '.join(missing)} must be given too.")
    return Preprocessing(**changes)


def _check(network: Any, command: Explain, parameters: dict[str, Any]) -> None:
    """A wrong method or parameter is one error of the command, not one for each picture."""
    if command.method == "auto":
        if parameters:
            raise InvalidInput("--set needs --method: 'auto' chooses the method itself.")
        return
    registry.load("explainers", command.method)(network, **parameters)


def _activation(command: _Network) -> str | None:
    return None if command.activation == "none" else command.activation


def _parameter(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise InvalidInput(f"--set takes NAME=VALUE, got {text!r}.")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def _targets(text: str | None) -> Any:
    """281,"tiger cat" -> [281, "tiger cat"]; a comma inside quotes belongs to the name."""
    if text is None or text == "all":
        return text
    parts = [p.strip() for p in re.findall(r'(?:"[^"]*"|[^,"])+', text)]
    return [int(p) if p.isdecimal() else p.strip('"').strip() for p in parts if p]


def _list() -> int:
    for kind in ("explainers", "metrics"):
        _print(f"{kind}:")
        for name in registry.names(kind):
            _print(_described(name, registry.load(kind, name)))
    return 0


def _described(name: str, kind: Any) -> str:
    sentence = (inspect.getdoc(kind) or "").splitlines()[0]
    own = [f for f in dataclasses.fields(kind) if f.name != "network" and f.init]
    shown = ", ".join(f.name if f.default is dataclasses.MISSING else f"{f.name}={f.default!r}" for f in own)
    return f"  {name:<26} {sentence}" + (f"\n  {'':<26}   {shown}" if shown else "")


def _compare(command: Compare) -> int:
    from seewhy.comparing import compare

    samples = _samples(command)
    network = _network(command)
    found = compare(
        network, samples, _split(command.explainers), _split(command.metrics), activation_fn=_activation(command),
        baselines=command.baselines, confidence=command.confidence, seed=command.seed, progress=not command.quiet,
    )  # fmt: skip
    _print(str(found))
    for path in found.save(command.out):
        _say(f"wrote {path}")
    judged = any(m.n for m in found.means)
    return 0 if judged and not (command.strict and found.failures) else 1


def _samples(command: Compare) -> list[Any]:
    from seewhy.types import Sample

    named = command.samples is None or command.pictures or command.data_root is not None
    pictures = [Sample(image=p, name=p.name) for p in _pictures(command)] if named else []
    if command.samples is None:
        return pictures
    try:
        with command.samples.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise InvalidInput(f"--samples cannot be read: {error}.") from error
    if not rows or "image" not in rows[0]:
        raise InvalidInput(
            f"--samples must be a CSV file with a column 'image' and a row a picture: {command.samples}."
        )
    return pictures + [_row(command.samples.parent, row) for row in rows]


def _row(folder: Path, row: dict[str, str]) -> Any:
    from seewhy.types import Sample

    target: Any = (row.get("target") or "").strip() or None
    mask = (row.get("mask") or "").strip()
    return Sample(image=folder / row["image"], target=target, mask=folder / mask if mask else None, name=row["image"])


def _split(text: str) -> list[str]:
    """Commas inside brackets belong to the parameters."""
    return [p.strip() for p in re.findall(r"(?:\([^()]*(?:\([^()]*\)[^()]*)*\)|[^,(])+", text) if p.strip()]


def _demo(command: Demo) -> int:
    from seewhy.demo import run

    sheet = run(command.out, masks=command.masks, say=_print)
    if command.view:
        import webbrowser

        webbrowser.open(sheet.resolve().as_uri())
    return 0
