"""From the plain text of a docstring to Markdown: lead, explanation with its formulas, source, parameters."""

from __future__ import annotations

import inspect
import re
import textwrap
from dataclasses import MISSING, Field, dataclass, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

__all__ = ["Parameter", "Text", "first_sentence", "markdown", "parameters", "parse"]


WIDE = 84  # characters of a formula that fit beside the navigation


@dataclass(frozen=True, kw_only=True)
class Text:
    """A module's docstring in its parts, each as Markdown.

    Attributes:
        lead: what the first paragraph says.
        body: everything between that and the source.
        source: the paragraph that names the publication.
    """

    lead: str
    body: str
    source: str


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """A field of a dataclass as its documentation says it.

    Attributes:
        name: of the field.
        kind: its type, as it is written.
        default: the default as Python writes it, or None where the parameter must be given.
        meaning: from the class's docstring.
    """

    name: str
    kind: str
    default: str | None
    meaning: str


def parse(docstring: str) -> Text:
    """A module's docstring, whose source is what follows the word "Source:"."""
    text, _, source = inspect.cleandoc(docstring).partition("Source:")
    source, *rest = source.strip().split("\n\n", 1)
    lead, _, body = (text.rstrip() + "\n\n" + "".join(rest)).partition("\n\n")
    return Text(lead=markdown(lead), body=markdown(body), source=markdown(source))


def parameters(kind: type) -> list[Parameter]:
    """What can be set, but the network."""
    meanings, hints = _attributes(kind), get_type_hints(kind)
    return [
        Parameter(
            name=f.name,
            kind=_kind(f, hints[f.name]),
            default=None if f.default is MISSING else repr(f.default),
            meaning=markdown(meanings.get(f.name, "")),
        )
        for f in fields(kind)
        if f.init and f.name != "network"
    ]


def first_sentence(thing: Any) -> str:
    """The first paragraph of a docstring, on one line."""
    return markdown(" ".join((inspect.getdoc(thing) or "").split("\n\n")[0].split()))


def markdown(text: str) -> str:
    """Indented blocks become formulas, names in backquotes code, arXiv numbers links."""
    return "\n\n".join(_block(part) for part in re.split(r"\n\s*\n", text.strip("\n")) if part.strip())


def _kind(field: Field[Any], hint: Any) -> str:
    """The type as it is written; the values where there are only a few."""
    if get_origin(hint) is Literal:
        return " | ".join(map(repr, get_args(hint)))
    return str(field.type)


def _block(text: str) -> str:
    lines = text.split("\n")
    start = next((i for i, line in enumerate(lines) if line.startswith("    ")), len(lines))
    prose, formula = lines[:start], lines[start:]
    if any(line and not line.startswith("    ") for line in formula):
        end = next(i for i, line in enumerate(formula) if line and not line.startswith("    "))
        prose, formula, after = lines[:start], formula[:end], formula[end:]
    else:
        after = []
    parts = [_prose("\n".join(prose))] if prose else []
    if formula:
        parts.append(_formula(textwrap.dedent("\n".join(formula)).strip("\n")))
    if after:
        parts.append(_block("\n".join(after)))
    return "\n\n".join(parts)


def _formula(text: str) -> str:
    """A block that keeps its columns; with smaller letters where lines are long."""
    long = max(map(len, text.split("\n"))) > WIDE
    return f"```{'{ .text .long }' if long else 'text'}\n{text}\n```"


def _prose(text: str) -> str:
    code = re.split(r"(``[^`]+``|`[^`]+`)", text)
    return "".join(f"`{part.strip('`')}`" if part.startswith("`") else _escaped(part) for part in code)


def _escaped(text: str) -> str:
    text = re.sub(r"([*\\])", r"\\\1", text).replace("<", "&lt;").replace("|", "&#124;")
    text = re.sub(r"arXiv\s+(\d{4}\.\d{4,5})", r"[arXiv \1](https://arxiv.org/abs/\1)", text)
    return re.sub(r"\bdocs/([\w-]+)\.md\b", r"[\1](../\1.md)", text)


def _attributes(kind: type) -> dict[str, str]:
    """Name -> meaning from "Attributes:" of the class and those it extends; the class itself goes first."""
    found: dict[str, str] = {}
    for each in reversed(kind.__mro__):
        section = re.search(r"^Attributes:\n((?:[ ]+.*\n?|\n)+)", inspect.cleandoc(each.__doc__ or ""), re.MULTILINE)
        if section:
            entries = re.findall(r"^    (\w+): ((?:.*)(?:\n        .*)*)", section[1], re.MULTILINE)
            found |= {name: " ".join(meaning.split()) for name, meaning in entries}
    return found
