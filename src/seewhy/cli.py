"""The command line: ``seewhy explain``, ``seewhy list``, ``seewhy demo``.

Results go to stdout, one line a picture; progress, notes and errors go to stderr. Exit codes: 0 done, 1 nothing could
be done (or, with --strict, not everything), 2 the command itself was wrong.
"""

from __future__ import annotations

import ast
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
class Explain:
    """Explain pictures: writes overlays and a JSON for each, and prints one line a picture."""

    pictures: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """Picture files."""
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
    method: str = "auto"
    """An explainer (see `seewhy list`), or auto."""
    targets: str | None = None
    """Class indices or names, separated by commas; quote a name that has a comma. Default: the predicted class."""
    set: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """A parameter of the method, NAME=VALUE. May be repeated."""
    activation: Literal["softmax", "sigmoid", "none"] = "softmax"
    """How scores become probabilities."""
    out: Path = Path("seewhy-out")
    """Where the results are written."""
    data_root: Path | None = None
    """Explain every picture below this folder."""
    dump: bool = False
    """Write the raw values of the maps too (.npz)."""
    strict: bool = False
    """Exit with 1 when any picture failed, not only when all did."""
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
class List:
    """List the explainers, with one sentence and the parameters of each."""


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
    commands: dict[str, Any] = {"explain": Explain, "list": List, "demo": Demo}
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
        return _list() if isinstance(command, List) else _demo(command)
    except SeewhyError as error:
        _say(f"seewhy: {error}")
        return 2


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


def _pictures(command: Explain) -> list[Path]:
    found = list(command.pictures)
    if command.data_root is not None:
        if not command.data_root.is_dir():
            raise InvalidInput(f"--data-root must be a folder, {str(command.data_root)!r} is not one.")
        found += sorted(p for p in command.data_root.rglob("*") if p.suffix.lower() in PICTURES and p.is_file())
    if not found:
        where = f" below {str(command.data_root)!r}" if command.data_root is not None else ""
        raise InvalidInput(f"There is no picture to explain{where}. Name picture files, or a folder with --data-root.")
    return found


def _network(command: Explain) -> Any:
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


def _activation(command: Explain) -> str | None:
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
    for name in registry.names("explainers"):
        kind = registry.load("explainers", name)
        sentence = (inspect.getdoc(kind) or "").splitlines()[0]
        defaults = [f for f in dataclasses.fields(kind) if f.name != "network"]
        shown = ", ".join(f"{f.name}={f.default!r}" for f in defaults)
        _print(f"{name:<18} {sentence}\n{'':<18}   {shown}" if shown else f"{name:<18} {sentence}")
    return 0


def _demo(command: Demo) -> int:
    from seewhy.demo import run

    sheet = run(command.out, masks=command.masks, say=_print)
    if command.view:
        import webbrowser

        webbrowser.open(sheet.resolve().as_uri())
    return 0
