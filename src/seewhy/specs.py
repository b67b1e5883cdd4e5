"""Explainers and metrics from what people write: names with parameters, classes, objects."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, replace
from typing import Any

from seewhy import registry
from seewhy.api import build
from seewhy.errors import InvalidInput, InvalidType
from seewhy.explainers import Explainer
from seewhy.metrics import Metric
from seewhy.models import Model

__all__ = ["explainers", "metrics", "parse"]

_SPEC = re.compile(r"\s*(\w+)\s*(?:\((.*)\))?\s*", flags=re.DOTALL)


def explainers(model: Model | None, given: Any, activation_fn: Any) -> dict[str, Explainer]:
    """Label -> explainer of ``model``, from names ("rise(num_masks=500)"), classes or explainers; one, a list, a dict.

    Without a model names and parameters are looked at, and nothing can be explained.

    Raises:
        UnknownName, UnknownParameter, InvalidInput, InvalidType: see the message.
    """

    def make(one: Any) -> Explainer:
        if isinstance(one, Explainer):
            return one if model is None else replace(one, network=model)
        name, parameters = parse(one) if isinstance(one, str) else (one, {})
        return build(name, model, activation_fn, parameters)

    return _labelled(given, make)


def metrics(given: Any, activation_fn: Any) -> dict[str, Metric]:
    """Label -> metric, from the same forms; the activation goes to the metrics that have one.

    Raises:
        UnknownName, UnknownParameter, InvalidInput, InvalidType: see the message.
    """

    def make(one: Any) -> Metric:
        if isinstance(one, Metric):
            return one
        name, parameters = parse(one) if isinstance(one, str) else (one, {})
        kind = registry.load("metrics", name) if isinstance(name, str) else name
        if not (isinstance(kind, type) and issubclass(kind, Metric)):
            raise InvalidType(f"A metric is a registry name, a Metric class or a metric, got {one!r}.")
        takes = {f.name for f in fields(kind) if f.init}
        made: Metric = kind(**({"activation_fn": activation_fn} if "activation_fn" in takes else {}) | parameters)
        return made

    return _labelled(given, make)


def _labelled(given: Any, make: Callable[[Any], Any]) -> dict[str, Any]:
    """Label -> what was made of it; the same label twice gets a number."""
    if isinstance(given, str | Metric | Explainer | type):
        given = [given]
    if not isinstance(given, Iterable):
        raise InvalidType(f"explainers and metrics are names, classes or objects, one or a list, got {given!r}.")
    if isinstance(given, Mapping):
        return {str(label): make(one) for label, one in given.items()}
    made: dict[str, Any] = {}
    for one in given:
        found = make(one)
        label = one.strip() if isinstance(one, str) else registry.name_of(found)
        same = sum(known == label or known.startswith(f"{label} #") for known in made)
        made[f"{label} #{same + 1}" if same else label] = found
    return made


def parse(text: str) -> tuple[str, dict[str, Any]]:
    """Returns the name and the parameters in "rise(num_masks=500)".

    Raises:
        InvalidInput: it is something else.
    """
    match = _SPEC.fullmatch(text)
    wrong = InvalidInput(f"Expected a name or NAME(PARAMETER=VALUE, ...) with plain values, got {text!r}.")
    if match is None:
        raise wrong
    try:
        call = ast.parse(f"f({match[2] or ''})", mode="eval").body
        assert isinstance(call, ast.Call)
        if call.args or any(k.arg is None for k in call.keywords):
            raise wrong
        return match[1], {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
    except (SyntaxError, ValueError) as error:
        raise wrong from error
