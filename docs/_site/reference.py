"""The command line and the public names, as pages."""

from __future__ import annotations

import ast
import inspect
import sys
from dataclasses import MISSING, Field, fields
from functools import cache
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import tyro
from docstrings import first_sentence, markdown

import seewhy
from seewhy import cli, registry

__all__ = ["command_line", "flags", "public_names"]

CODES = {
    0: "done",
    1: "nothing could be done, or with `--strict` not everything",
    2: "the command itself was wrong; the message says what was expected",
    130: "interrupted",
}


def command_line() -> str:
    """Every command with its flags."""
    codes = "\n".join(f"| {code} | {meaning} |" for code, meaning in CODES.items())
    parts = [
        "# Command line\n\n"
        "Results go to the standard output; progress, notes and errors to the standard error. "
        "`seewhy COMMAND --help` says the same as this page.",
        f"| exit code | meaning |\n|---|---|\n{codes}",
    ]
    for name, command in cli.COMMANDS.items():
        parts.append(f"## seewhy {name}\n\n{first_sentence(command)}")
        parts.append(_table(flags(command)))
    return "\n\n".join(part for part in parts if part) + "\n"


def flags(command: type) -> list[tuple[str, str, str, str]]:
    """(flag, what it takes, default, meaning) of each; what stands without a flag in angle brackets."""
    hints = get_type_hints(command, include_extras=True)
    return [
        (_flag(f, hints[f.name]), _takes(f, hints[f.name]), _default(f), _help(command, f)) for f in fields(command)
    ]


def public_names() -> str:
    """What `import seewhy` offers."""
    explainers = registry.class_names("explainers")
    others = [name for name in seewhy.__all__ if name not in explainers]
    parts = [
        "# Public names\n\nEverything here is loaded on first use. `help(seewhy.explain)` says the rest.",
        "## Explainers\n\n" + _linked("explainers"),
        "## Metrics\n\nIn `seewhy.metrics`. " + _linked("metrics"),
        "## Everything else",
        *map(_public, others),
    ]
    return "\n\n".join(parts) + "\n"


def _linked(kind: str) -> str:
    """Class names with links to their pages."""
    named = sorted((registry.load(kind, name).__name__, name) for name in registry.names(kind))
    return ", ".join(f"[{cls}](../{kind}/{name}.md)" for cls, name in named) + "."


def _public(name: str) -> str:
    thing = getattr(seewhy, name)
    return f"### {name}\n\n```text\n{_signature(name, thing)}\n```\n\n{first_sentence(thing)}"


def _signature(name: str, thing: Any) -> str:
    """As it stands in the source, one parameter a line where they do not fit in one."""
    every = inspect.signature(thing.__init__ if isinstance(thing, type) else thing).parameters
    taken = [p for p in every.values() if p.name != "self" and not p.name.startswith("_")]
    shown = [str(p.replace(annotation=_Written(p.annotation))).replace("<factory>", "...") for p in taken]
    first = next((i for i, p in enumerate(taken) if p.kind is inspect.Parameter.KEYWORD_ONLY), None)
    if first is not None:
        shown.insert(first, "*")
    line = f"{name}({', '.join(shown)})"
    return line if len(line) <= 90 else f"{name}(\n" + "".join(f"    {each},\n" for each in shown) + ")"


class _Written:
    """A type that is shown as it was written, without quotes."""

    def __init__(self, text: Any) -> None:
        self.text = text if isinstance(text, str) else getattr(text, "__name__", str(text))

    def __repr__(self) -> str:
        return self.text


def _table(rows: list[tuple[str, str, str, str]]) -> str:
    if not rows:
        return ""
    lines = [f"| `{flag}`{f' {takes}' if takes else ''} | {default} | {said} |" for flag, takes, default, said in rows]
    return "\n".join(["| flag | default | meaning |", "|---|---|---|", *lines])


def _flag(field: Field[Any], hint: Any) -> str:
    if tyro.conf.Positional in get_args(hint)[1:]:
        return field.name.upper()
    return f"--{'no-' if field.default is True else ''}{field.name.replace('_', '-')}"


def _takes(field: Field[Any], hint: Any) -> str:
    """What has to be written behind the flag."""
    inner, *marks = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    if tyro.conf.UseAppendAction in marks:
        return _kind(get_args(inner)[0])
    return "" if isinstance(field.default, bool) or tyro.conf.Positional in marks else _kind(inner)


def _kind(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return "&#124;".join(str(value) for value in get_args(hint))
    options = [option for option in get_args(hint) if option is not type(None)]
    if hint is None or (options and len(options) < len(get_args(hint))):
        return " ".join(map(_kind, options))
    if get_origin(hint) is tuple:
        inner = [_kind(option) for option in options if option is not Ellipsis]
        return " ".join(inner) + (" ..." if Ellipsis in options else "")
    return str(getattr(hint, "__name__", hint)).upper()


def _default(field: Field[Any]) -> str:
    if field.default is MISSING:
        return "must be given"
    if isinstance(field.default, bool) or field.default in (None, (), ""):
        return ""
    return f"`{' '.join(map(str, field.default)) if isinstance(field.default, tuple) else field.default}`"


def _help(command: type, field: Field[Any]) -> str:
    """The sentence below the field, in the class or in one that it extends."""
    for each in command.__mro__:
        if field.name in (said := _sentences(each)):
            return markdown(" ".join(said[field.name].split()))
    return ""


@cache
def _sentences(cls: type) -> dict[str, str]:
    """Field -> the string literal that follows it in the class."""
    if cls.__module__ not in sys.modules or not cls.__module__.startswith("seewhy"):
        return {}
    (node,) = ast.parse(inspect.cleandoc("\n" + inspect.getsource(cls))).body
    assert isinstance(node, ast.ClassDef)
    found = {}
    for field, after in zip(node.body, node.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            assert isinstance(field.target, ast.Name)
            found[field.target.id] = str(after.value.value)
    return found
