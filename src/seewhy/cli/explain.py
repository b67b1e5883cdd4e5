"""``seewhy explain``: overlays and a JSON for each picture."""

from __future__ import annotations

import ast
import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from seewhy import registry
from seewhy.cli.flags import PictureFlags, SieveFlags, activation, emit, network, pictures, say, sieve
from seewhy.errors import InvalidInput, SeewhyError

__all__ = ["Explain", "parameter"]


@dataclass(frozen=True, kw_only=True)
class Explain(PictureFlags, SieveFlags):
    """Explain pictures: writes overlays and a JSON for each, and prints one line a picture, of a detector one a box."""

    method: str = "auto"
    """An explainer (see `seewhy list`), or auto."""
    targets: str | None = None
    """Class indices or names, separated by commas; quote a name that has a comma. Default: the predicted class, or
    every box that a detector finds."""
    set: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """A parameter of the method, NAME=VALUE. May be repeated."""
    out: Path = Path("seewhy-out")
    """Where the results are written."""
    dump: bool = False
    """Write the raw values of the maps too (.npz)."""
    strict: bool = False
    """Exit with 1 when any picture failed, not only when all did."""

    def run(self) -> int:
        """The exit code."""
        return _explain(self)


def _explain(command: Explain) -> int:
    files = pictures(command)
    parameters = dict(parameter(p) for p in command.set)
    targets = _targets(command.targets)
    model = network(command)
    _check(model, command, parameters)
    if not command.quiet:
        for note in (*model.notes, f"{model.name}: {model.preprocessing or 'preprocessing unknown'}"):
            say(note)
    failed = sum(not _one(model, p, stem, targets, command, parameters) for p, stem in _stems(files))
    if failed:
        say(f"seewhy: {failed} of {len(files)} pictures could not be explained.")
    return 1 if failed == len(files) or (failed and command.strict) else 0


def _one(model: Any, picture: Path, stem: str, targets: Any, command: Explain, parameters: dict[str, Any]) -> bool:
    from seewhy.api import detections, explain

    try:
        if targets is None and sieve(command) != sieve(SieveFlags()):
            targets = detections(model, picture, **sieve(command))
            if not targets:
                raise InvalidInput(f"The detector finds nothing with a score above {command.score_threshold:g}.")
        found = explain(
            model, picture, targets, command.method, activation_fn=activation(command),
            progress=not command.quiet, **parameters,
        )  # fmt: skip
        found = dataclasses.replace(found, names=[stem])
        files = found.save(command.out, values=command.dump)
    except (SeewhyError, OSError) as error:
        say(f"{picture}: {error}")
        return False
    for line in _lines(picture, found, files):
        emit(line)
    if not command.quiet:
        for warning in found.warnings[len(model.notes) :]:
            say(f"{picture}: {warning}")
    return True


def _lines(picture: Path, found: Any, files: list[Path]) -> list[str]:
    """One line; where boxes were explained one for each."""
    if not found.boxes:
        return [_line(picture, found, files)]
    cost = f"{found.method}\t{found.passes.forward} passes\t{found.seconds:.2f} s"
    return [
        f"{picture}\t{found.said(0, t)}\t{_corners(found.box(0, t))}\t{cost}\t{files[t]}"
        for t in range(len(found.labels[0]))
    ]


def _corners(box: Any) -> str:
    return "no box" if box is None else "box " + " ".join(f"{value:.0f}" for value in box)


def _line(picture: Path, found: Any, files: list[Path]) -> str:
    from seewhy.explanation import told

    says = found.predicted[0]
    predicted = "" if says is None else f"predicted {told(says[0], says[1], found.quantity)}\t"
    about = "; ".join(found.said(0, t) for t in range(len(found.labels[0])))
    return (
        f"{picture}\t{predicted}explained {about}\t{found.method}\t"
        f"{found.passes.forward} passes\t{found.seconds:.2f} s\t{files[0]}"
    )


def _stems(files: list[Path]) -> list[tuple[Path, str]]:
    """A name for each picture's files; pictures with one name in several folders get a number."""
    used: dict[str, int] = {}
    named = []
    for picture in files:
        number = used[picture.stem] = used.get(picture.stem, 0) + 1
        named.append((picture, picture.name if number == 1 else f"{picture.stem}-{number}{picture.suffix}"))
    return named


def _check(model: Any, command: Explain, parameters: dict[str, Any]) -> None:
    """A wrong method or parameter is one error of the command, not one for each picture."""
    if command.method == "auto":
        if parameters:
            raise InvalidInput("--set needs --method: 'auto' chooses the method itself.")
        return
    registry.load("explainers", command.method)(model, **parameters)


def parameter(text: str) -> tuple[str, Any]:
    """NAME=VALUE."""
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
