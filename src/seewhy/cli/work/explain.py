"""Explains pictures one by one, writes what came of it and says it in one line."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

from seewhy.api import build, detections, explain
from seewhy.checks import check_folder
from seewhy.cli.explain import Explain
from seewhy.cli.flags import SieveFlags, activation, emit, parameter, say, sieve
from seewhy.cli.work.inputs import network, pictures
from seewhy.detection import check_sieve
from seewhy.errors import InvalidInput, InvalidTarget, SeewhyError
from seewhy.explanation import told
from seewhy.images.reading import read
from seewhy.inputs import preprocessing_of
from seewhy.progress import Bar, aside
from seewhy.targets import Request

__all__ = ["run"]


def run(command: Explain) -> int:
    """Explains each picture, and gives the exit code."""
    files = pictures(command)
    parameters = dict(parameter(p) for p in command.set)
    targets = _targets(command.targets)
    _check(command, parameters, targets)
    there = [(p, stem) for p, stem in _stems(files) if _readable(p)]
    if failed := len(files) - (_explained(there, targets, command, parameters) if there else 0):
        say(f"seewhy: {failed} of {len(files)} pictures could not be explained.")
    return 1 if failed == len(files) or (failed and command.strict) else 0


def _explained(files: list[tuple[Path, str]], targets: Any, command: Explain, parameters: dict[str, Any]) -> int:
    """How many of the pictures could be explained."""
    model = network(command)
    _check_model(model, targets, command)
    if not command.quiet:
        known = getattr(model, "preprocessing", None) or "preprocessing unknown"
        for note in (*_notes(model), f"{model.name}: {known}"):
            say(note)
    done = 0
    wanted = not command.quiet and len(files) > 1
    with Bar("explain", wanted, "picture", total=len(files)) as bar:
        for number, (picture, stem) in enumerate(files, 1):
            done += _one(model, picture, stem, targets, command, parameters)
            bar(number, len(files))
    return done


def _check_model(model: Any, targets: Any, command: Explain) -> None:
    """Refuses what no picture changes: unknown preprocessing, names that no class has."""
    preprocessing_of(model)
    Request.named(targets, getattr(model, "labels", None), 1)


def _one(model: Any, picture: Path, stem: str, targets: Any, command: Explain, parameters: dict[str, Any]) -> bool:
    try:
        if targets is None and sieve(command) != sieve(SieveFlags()):
            targets = detections(model, picture, **sieve(command))
            if not targets:
                raise InvalidInput(f"The detector finds nothing with a score above {command.score_threshold:g}.")
        found = explain(
            model, picture, targets, command.method, activation_fn=activation(command),
            progress=not command.quiet, accelerate="auto" if command.accelerate else None, **parameters,
        )  # fmt: skip
        found = dataclasses.replace(found, names=[stem])
        trusts = [found.trust(0, t) for t in range(len(found.labels[0]))] if command.trust_grade else []
        files = found.save(command.out, values=command.dump)
    except (SeewhyError, OSError) as error:
        if isinstance(error, InvalidTarget) and command.targets is not None:
            raise  # a class that the network does not have is wrong for every picture
        with aside():
            say(f"{picture}: {error}")
        return False
    with aside():
        _say(model, picture, found, trusts, files, command.quiet)
    return True


def _say(model: Any, picture: Path, found: Any, trusts: list[Any], files: list[Path], quiet: bool) -> None:
    for line in _lines(picture, found, files):
        emit(line)
    for name, trust in zip(found.labels[0], trusts, strict=False):
        emit(f"{picture}\t{name}\t{trust.line}")
    if not quiet:
        for warning in found.warnings[len(_notes(model)) :]:
            say(f"{picture}: {warning}")


def _notes(model: Any) -> tuple[str, ...]:
    return tuple(getattr(model, "notes", ()))


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
    says = found.predicted[0]
    predicted = "" if says is None else f"predicted {told(says[0], says[1], found.quantity)}\t"
    about = "; ".join(found.said(0, t) for t in range(len(found.labels[0])))
    return (
        f"{picture}\t{predicted}explained {about}\t{found.method}\t"
        f"{found.passes.forward} passes\t{found.seconds:.2f} s\t{files[0]}"
    )


def _stems(files: list[Path]) -> list[tuple[Path, str]]:
    """Returns a name for each picture's files; pictures with one name in several folders get a number."""
    used: dict[str, int] = {}
    named = []
    for picture in files:
        number = used[picture.stem] = used.get(picture.stem, 0) + 1
        named.append((picture, picture.name if number == 1 else f"{picture.stem}-{number}{picture.suffix}"))
    return named


def _check(command: Explain, parameters: dict[str, Any], targets: Any) -> None:
    """Refuses what is wrong for every picture, once, and before a model is waited for."""
    Request.check(targets, 1)
    check_sieve(**sieve(command))
    check_folder(command.out)
    if command.method != "auto":
        build(command.method, None, activation(command), parameters)
    elif parameters:
        raise InvalidInput("--set needs --method: 'auto' chooses the method itself.")


def _readable(picture: Path) -> bool:
    """Says whether the file is there; says so where it is not, before a model is waited for."""
    try:
        if not picture.is_file():
            read(picture)
    except SeewhyError as error:
        say(f"{picture}: {error}")
        return False
    return True


def _targets(text: str | None) -> Any:
    """281,"tiger cat" -> [281, "tiger cat"]; a comma inside quotes belongs to the name."""
    if text is None or text == "all":
        return text
    parts = [p.strip() for p in re.findall(r'(?:"[^"]*"|[^,"])+', text)]
    return [int(p) if p.isdecimal() else p.strip('"').strip() for p in parts if p]
