"""The text in a torch.export archive: which of it would be run as code, said before torch reads it.

torch calls what the graph names, evaluates the sizes with sympy, imports what the tree of arguments names, and writes
names of tensors and the checks of sizes into Python code. So each text must have the form that it has for a network.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable
from typing import Any

__all__ = ["Suspect", "check"]

_WORD = re.compile(r"[\w.\-:/+@]*", re.ASCII)  # neither quotes nor brackets: in Python code it calls nothing
_DATA = re.compile(r"[^'\"\\\n\r{}]*")
_OPERATORS = re.compile(
    r"torch\.ops\.(aten|prims|prim|quantized|quantized_decomposed|torchvision|mkldnn|onednn|sparse)\.\w+\.\w+"
    r"|torch\.ops\.higher_order\.(cond|while_loop|map_impl|scan|associative_scan|wrap_with_set_grad_enabled"
    r"|wrap_with_autocast|flex_attention|invoke_subgraph)"
    r"|_operator\.(add|sub|mul|truediv|floordiv|mod|pow|neg|pos|abs|eq|ne|lt|le|gt|ge|and_|or_|not_|getitem|index"
    r"|lshift|rshift)"
    r"|math\.(trunc|ceil|floor|sqrt|log|exp|sin|cos|tan|pow)"
    r"|torch\.(_?sym_\w+)",
    re.ASCII,
)
_FILES = re.compile(r"torch\.ops\.\w+\.(save|from_file|_print|print|Print|rpc_\w+|read_file|write_file)\.", re.ASCII)
_TREES = re.compile(r"(builtins|collections|torch\.fx\.immutable_collections)\.\w+|torch\.Size")
_SYMBOLIC = re.compile(
    "Symbol|Integer|Float|Rational|Add|Mul|Pow|Max|Min|Mod|floor|ceiling|Abs|Eq|Ne|Lt|Le|Gt|Ge|Equality|Unequality"
    "|(Strict)?(Less|Greater)Than|And|Or|Not|Piecewise|ExprCondPair|Tuple|FloorDiv|ModularIndexing|Where|PythonMod"
    "|CleanDiv|CeilToInt|FloorToInt|CeilDiv|LShift|RShift|PowByNatural|FloatPow|FloatTrueDiv|IntTrueDiv"
    "|IsNonOverlappingAndDenseIndicator|TruncToFloat|TruncToInt|RoundToInt|RoundDecimal|ToFloat|Identity"
)
_POWERS = ("Pow", "PowByNatural", "FloatPow", "LShift", "RShift")
_PLAIN_NODES = (
    ast.Expression, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.Name, ast.Load, ast.operator, ast.unaryop,
    ast.boolop, ast.cmpop, ast.keyword,
)  # fmt: skip
_LONGEST = 4000  # characters of an expression
_LARGEST = 64  # exponents and shifts


class Suspect(Exception):
    """A text that would be run; the message continues "'net.pt2' has ..."."""


def check(document: bytes) -> Any:
    """What a JSON part holds.

    Raises:
        Suspect: something in it would be run.
        ValueError: it is not JSON.
    """
    try:
        found = json.loads(document)
        _look(found, "")
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    return found


def _look(found: Any, key: str) -> None:
    if isinstance(found, dict):
        for name, value in found.items():
            _word(name)
            if name != "metadata":  # where a node comes from: kept by torch as text
                _look(value, name)
    elif isinstance(found, list):
        for value in found:
            _look(value, key)
    elif isinstance(found, str):
        _RULES.get(key, _word)(found)


def _word(text: str) -> None:
    if not _WORD.fullmatch(text):
        raise Suspect(f"a name that is none: {text[:80]!r}")


def _data(text: str) -> None:
    if not _DATA.fullmatch(text):
        raise Suspect(f"a text with quotes or brackets: {text[:80]!r}")


def _operator(text: str) -> None:
    if not _OPERATORS.fullmatch(text) or _FILES.match(text):
        raise Suspect(f"an operation that is not one of a network: {text[:80]!r}")


def _tree(text: str) -> None:
    """The structure of arguments: lists, tuples and dictionaries only."""
    found = json.loads(text)
    if not isinstance(found, list) or len(found) != 2:
        raise Suspect(f"arguments of an unknown form: {text[:80]!r}")
    _branch(found[1])


def _branch(found: Any) -> None:
    kind = found.get("type") if isinstance(found, dict) else None
    known = kind is None or (isinstance(kind, str) and _TREES.fullmatch(kind) and not kind.endswith("defaultdict"))
    if not isinstance(found, dict) or not known:
        raise Suspect(f"arguments of an unknown form: {str(kind)[:80]!r}")
    context = found.get("context")
    _context(json.loads(context) if isinstance(context, str) else context)
    for child in found.get("children_spec", ()):
        _branch(child)


def _context(found: Any) -> None:
    if isinstance(found, dict):
        raise Suspect(f"arguments of an unknown form: {str(found)[:80]!r}")
    if isinstance(found, list):
        for value in found:
            _context(value)
    elif isinstance(found, str):
        _word(found)


def _expression(text: str) -> None:
    """A size: numbers, symbols and the functions by which sizes are computed."""
    for node in _parsed(text):
        if isinstance(node, ast.Call):
            if not isinstance(node.func, ast.Name) or not _SYMBOLIC.fullmatch(node.func.id):
                raise Suspect(f"a size that calls something: {text[:80]!r}")
        elif isinstance(node, ast.Constant):
            _constant(node.value, text)
        elif not isinstance(node, _PLAIN_NODES):
            raise Suspect(f"a size that is no arithmetic: {text[:80]!r}")
        if _raises(node):
            _power(node, text)


def _constant(value: object, text: str) -> None:
    if isinstance(value, str) and not re.fullmatch(r"\w{1,60}|[-+\d.eE]{1,40}", value, re.ASCII):
        raise Suspect(f"a size that is no arithmetic: {text[:80]!r}")
    if not isinstance(value, str | int | float):
        raise Suspect(f"a size that is no arithmetic: {text[:80]!r}")


def _power(node: ast.AST, text: str) -> None:
    """A power of a power, or one with a large number in it, can take all memory."""
    inner = list(ast.walk(node))
    numbers = [one.value for one in inner if isinstance(one, ast.Constant) and isinstance(one.value, int)]
    if any(abs(number) > _LARGEST for number in numbers) or sum(map(_raises, inner)) > 1:
        raise Suspect(f"a size with a huge power: {text[:80]!r}")


def _raises(node: ast.AST) -> bool:
    if isinstance(node, ast.BinOp):
        return isinstance(node.op, ast.Pow | ast.LShift)
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _POWERS


def _guard(text: str) -> None:
    """A check of sizes, L['x'].size()[0] >= 2: it calls nothing else."""
    for node in _parsed(text):
        if isinstance(node, ast.Call):
            calls = isinstance(node.func, ast.Attribute) and node.func.attr in ("size", "stride", "storage_offset")
            if not calls and not (isinstance(node.func, ast.Name) and _SYMBOLIC.fullmatch(node.func.id)):
                raise Suspect(f"a check that calls something: {text[:80]!r}")
        elif isinstance(node, ast.Attribute):
            if node.attr.startswith("_"):
                raise Suspect(f"a check that calls something: {text[:80]!r}")
        elif isinstance(node, ast.Constant):
            _constant(node.value, text)
        elif not isinstance(node, (*_PLAIN_NODES, ast.Subscript)):
            raise Suspect(f"a check that is no comparison: {text[:80]!r}")


def _parsed(text: str) -> list[ast.AST]:
    if len(text) > _LONGEST or "\n" in text or "\r" in text:
        raise Suspect(f"an expression that is too long: {text[:80]!r}")
    try:
        return list(ast.walk(ast.parse(text, mode="eval")))
    except (SyntaxError, ValueError, MemoryError) as error:
        raise Suspect(f"an expression that is none: {text[:80]!r}") from error


_RULES: dict[str, Callable[[str], None]] = {
    "target": _operator, "as_operator": _operator, "in_spec": _tree, "out_spec": _tree, "expr_str": _expression,
    "guards_code": _guard, "as_string": _data, "as_strings": _data,
}  # fmt: skip
