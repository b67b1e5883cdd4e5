"""What a run is: run.json, and one small file for each addition; read, looked at and put together.

    run.json              as the run began; never changed
    settings/<id>.json    an addition: an explainer, a metric, one of the single things below, or data and command

A file is made once and never changed, so that several processes may add to a run at once without losing anything. Two
rules keep labels clear, each by a file that only one can make: a label is reserved for one thing (label-<id>.json; who
comes second takes a longer one), and a thing is added once (its file's id follows from what it is; who comes second
takes the label that stands there). Of data and commands the newest counts.

A folder may come from anywhere: every value that is used later is looked at here, once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from seewhy.checks import is_count, is_number
from seewhy.errors import InvalidInput
from seewhy.runs.folder.tasks import COUNTERFACTUAL, FEATURES, UNCERTAINTY

__all__ = ["ADDED", "RESERVED", "SINGLE", "addition", "checked", "merged", "parsed", "reservation"]

ADDED = ("explainers", "metrics")  # a run may have several of each, by label
SINGLE = (UNCERTAINTY, COUNTERFACTUAL, FEATURES)  # a run has at most one of each
LATEST = ("data", "command")
RESERVED = "label-"
MOST_BYTES = 1 << 26
MOST_NAMES = 1_000_000  # of classes
MOST_LABELS = 1000  # explainers or metrics
MOST_PAIRS = 10_000  # explainers x metrics
TEXT = 10_000  # characters
DEPTH = 24


def parsed(data: bytes, name: str, depth: int = DEPTH) -> Any:
    """Returns the JSON of a file.

    Raises:
        InvalidInput: the file is no JSON, too large, nested too deep, or has text that is no Unicode.
    """
    if len(data) > MOST_BYTES:
        raise InvalidInput(f"{name} cannot be read: it has {len(data)} bytes, at most {MOST_BYTES} are read.")
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deep" if isinstance(error, RecursionError) else str(error)
        raise InvalidInput(f"{name} cannot be read: {reason}.") from error
    _check_plain(found, name, depth)
    return found


def _check_plain(value: Any, name: str, most: int) -> None:
    waiting = [(value, 0)]
    while waiting:
        one, depth = waiting.pop()
        if depth > most:
            raise InvalidInput(f"{name} cannot be read: it is nested more than {most} deep.")
        if isinstance(one, dict):
            waiting += [(inner, depth + 1) for pair in one.items() for inner in pair]
        elif isinstance(one, list):
            waiting += [(inner, depth + 1) for inner in one]
        elif isinstance(one, str) and not one.isascii():
            try:
                one.encode()
            except UnicodeEncodeError as error:
                raise InvalidInput(f"{name} cannot be read: it has text that is not valid Unicode.") from error


# ---------------------------------------------------------------------------------------------------------- values


def _text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= TEXT


def _whole(value: Any) -> bool:
    return is_count(value) and value < 1 << 53


def _count(value: Any) -> bool:
    return value is None or value == 0 or _whole(value)


def _share(value: Any) -> bool:
    return is_number(value) and 0 <= value <= 1


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


def _maybe(kind: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or kind(value)


def _record(value: Any) -> bool:
    return isinstance(value, dict)


def _names(value: Any) -> bool:
    return isinstance(value, list) and len(value) <= MOST_NAMES and all(map(_text, value))


def _range(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(end is None or (is_number(end) and abs(end) <= 1e100) for end in value)
    )


def _described(value: Any) -> bool:
    """Says whether a value has the form of the settings of uncertainty, counterfactual or features."""
    return isinstance(value, dict) and _text(value.get("id")) and isinstance(value.get("parameters"), dict)


def _made(value: Any) -> bool:
    """Returns an explainer or a metric."""
    return _described(value) and _text(value.get("name")) and _text(value.get("class", ""))


def _metric(value: Any) -> bool:
    ends = value.get("range") if isinstance(value, dict) else None
    return _made(value) and value.get("better") in ("higher", "lower") and (ends is None or _range(ends))


def _labelled(kind: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: (
        isinstance(value, dict)
        and len(value) <= MOST_LABELS
        and all(_text(label) and "/" not in label and kind(one) for label, one in value.items())
    )


def _model(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and _text(value.get("name"))
        and _text(value.get("digest"))
        and _maybe(lambda text: isinstance(text, str))(value.get("preprocessing"))
    )


def _data(value: Any) -> bool:
    return isinstance(value, dict) and _text(value.get("kind")) and _count(value.get("length"))


def _sieve(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and _share(value.get("score_threshold"))
        and _maybe(_share)(value.get("nms_threshold"))
        and _whole(value.get("max_detections"))
        and _flag(value.get("masks", False))
    )


QUANTITIES = ("probability", "logit", "value")  # what the network's numbers are
_KEYS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "id": (_text, "a text"), "created": (_text, "a text"), "format": (_whole, "a whole number"),
    "model": (_model, "an object with name and digest"), "activation": (_maybe(_text), "a text or null"),
    "exclusive": (_flag, "true or false"), "quantity": (lambda value: value in QUANTITIES, " or ".join(QUANTITIES)),
    "threshold": (_share, "a number from 0 to 1"), "classes": (_maybe(_names), "a list of names or null"),
    "explainers": (_labelled(_made), "labels with class, name, parameters and id each"),
    "metrics": (_labelled(_metric), "labels with class, name, parameters, id, better and range each"),
    "uncertainty": (_maybe(_described), "parameters and id, or null"),
    "counterfactual": (_maybe(_described), "parameters and id, or null"),
    "features": (_maybe(_described), "parameters and id, or null"),
    "data": (_data, "an object with kind and length"), "chunk": (_whole, "a whole number"),
    "batch": (_whole, "a whole number"),
    "precision": (lambda value: value in ("auto", "float32", "float16"), "'auto', 'float32' or 'float16'"),
    "command": (_maybe(_record), "an object or null"), "detection": (_maybe(_sieve), "thresholds, or null"),
}  # fmt: skip
_MAY_MISS = {"detection", "exclusive", "quantity", "classes", "uncertainty", "counterfactual", "features", "command"}


def checked(found: Any, name: str, latest: int) -> dict[str, Any]:
    """Returns the content of run.json after a check of every value.

    Args:
        found: what was read.
        name: of the file, for messages.
        latest: the newest version of the format that can be read.

    Raises:
        InvalidInput: the content is no run, comes from a later version, or has a value of the wrong kind.
    """
    if not isinstance(found, dict) or "id" not in found:
        raise InvalidInput(f"{name} does not describe a run.")
    version = found.get("format", 0)
    if _whole(version) and version > latest:
        raise InvalidInput(
            f"{name} has format {version}, this version reads up to {latest}. "
            "Use the version of seewhy that wrote it, or a later one."
        )
    if missing := [key for key in _KEYS if key not in found and key not in _MAY_MISS]:
        raise InvalidInput(f"{name} does not describe a run: it has no {missing[0]!r}.")
    _check_values(found, name)
    if len(found["explainers"]) * len(found["metrics"]) > MOST_PAIRS:
        raise InvalidInput(f"{name} has more than {MOST_PAIRS} pairs of an explainer and a metric.")
    return {**dict.fromkeys(_MAY_MISS - {"detection", "exclusive", "quantity"}), **found}


def _check_values(found: Mapping[str, Any], name: str) -> None:
    for key, (fits, expected) in _KEYS.items():
        if key in found and not fits(found[key]):
            shown = repr(found[key])
            shown = shown if len(shown) <= 80 else f"{shown[:79]}…"
            raise InvalidInput(f"{name} cannot be used: {key!r} must be {expected}, got {shown}.")


# ------------------------------------------------------------------------------------------------------- additions


def addition(kind: str, label: str, value: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Returns the name and the content of a file that adds something.

    Args:
        kind: "explainers", "metrics", "uncertainty", "counterfactual", "features", or "latest" for data and command.
        label: of the explainer or metric.
        value: what is added, with its id; of the latest anything that no other file has.
    """
    which = _digest(kind, str(value["id"]) if kind not in SINGLE else "")
    body = {kind: {label: value}} if kind in ADDED else {kind: value} if kind in SINGLE else value
    return f"settings/{kind}-{which}.json", dict(body)


def reservation(kind: str, label: str, identity: str) -> tuple[str, dict[str, Any]]:
    """Returns the name and the content of the file by which a label belongs to one thing."""
    return f"settings/{RESERVED}{_digest(kind, label)}.json", {"kind": kind, "label": label, "id": identity}


def _digest(*texts: str) -> str:
    return hashlib.blake2b("\0".join(texts).encode(), digest_size=8).hexdigest()


def merged(first: Mapping[str, Any], additions: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Returns the content of run.json together with all additions.

    Args:
        first: run.json.
        additions: (name, content) of each file, in the order of their names.

    Raises:
        InvalidInput: an addition is of the wrong kind.
    """
    found, newest = dict(first), 0.0
    for name, one in additions:
        if not isinstance(one, dict) or not is_number(one.get("written", 0.0)):
            raise InvalidInput(f"{name} does not describe an addition to a run.")
        _check_values(one, name)
        for kind in ADDED:
            found[kind] = {**one.get(kind, {}), **found[kind]}
        for kind in SINGLE:
            found[kind] = found[kind] or one.get(kind)
        if any(key in one for key in LATEST) and one.get("written", 0.0) >= newest:
            newest = one.get("written", 0.0)
            found |= {key: one[key] for key in LATEST if key in one}
    return _ordered(first, found)


def _ordered(first: Mapping[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """Puts entries in the order that is the same for every reader: first ones, additions by label, then baselines."""
    for kind in ADDED:
        added = sorted(
            (about.get("maps") is False, label) for label, about in found[kind].items() if label not in first[kind]
        )
        found[kind] = {label: found[kind][label] for label in [*first[kind], *(label for _, label in added)]}
    return found
