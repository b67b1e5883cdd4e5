"""What explainers and metrics of a run are called: their identities, and labels that nothing else has."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from seewhy.errors import InvalidInput
from seewhy.runs.folder.identity import identity, plain

__all__ = ["identify", "labelled", "parameters"]


def identify(one: Any) -> str:
    """Returns the identity of a class and all its parameters but the batch size, on which no result depends."""
    return identity(type(one).__name__, {n: v for n, v in parameters(one).items() if n != "perturbation_per_eval"})


def parameters(one: Any) -> dict[str, Any]:
    """Returns all that is set of it, without the network."""
    return {f.name: getattr(one, f.name) for f in dataclasses.fields(one) if f.name != "network" and f.init}


def labelled(made: dict[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """Keeps the labels that the run gave to the same things before; a label that is taken is made longer.

    Args:
        made: label -> explainer or metric.
        known: label -> what stands of it in run.json.

    Raises:
        InvalidInput: a label has a "/".
    """
    given = {about["id"]: label for label, about in known.items()}
    found: dict[str, Any] = {}
    for label, one in made.items():
        own = given.get(identify(one))
        if own is None and (label in known or label in found):
            own = _longer(one, label)
            own = f"{own} ({identify(one)})" if own in known or own in found else own
        found[own or label] = one
    if wrong := [label for label in found if "/" in label]:
        raise InvalidInput(
            f"The label of an explainer or metric has no '/', which stands between the two: {wrong[0]!r}."
        )
    return found


def _longer(one: Any, label: str) -> str:
    """Returns the label with all parameters that are not the default."""
    changed = [
        f"{f.name}={plain(getattr(one, f.name))!r}"
        for f in dataclasses.fields(one)
        if f.name != "network" and f.init and repr(getattr(one, f.name)) != repr(f.default)
    ]
    kind = label.partition(" #")[0].partition("(")[0]
    return f"{kind}({', '.join(changed)})" if changed else f"{label} ({identify(one)})"
