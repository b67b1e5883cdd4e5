"""What belongs to a network: its modules and tensors, and the networks that functions and hidden places lead to."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from types import CodeType, FunctionType, MethodType
from typing import Any

from torch import Tensor, nn

__all__ = ["codes", "content", "like", "modules_of", "reached", "tensors", "tensors_in", "trusted", "walk"]

_OWN = frozenset(vars(nn.Module()))  # what torch itself keeps in a module
_PLAIN = (Tensor, str, bytes, int, float, type(None))


def like(network: nn.Module) -> Tensor | None:
    """Returns a parameter that shows where a network is and in what it computes; None where it has none of numbers."""
    return next((p for p in network.parameters() if p.dtype.is_floating_point), None)


def walk(network: nn.Module) -> list[nn.Module]:
    """Every module once; `Module.modules` makes a name for each, and with small networks that is what a call costs."""
    found, known = [network], {id(network)}
    for module in found:
        for child in module._modules.values():
            if child is not None and id(child) not in known:
                known.add(id(child))
                found.append(child)
    return found


def tensors(network: nn.Module) -> list[Tensor]:
    """Every parameter and buffer; one that several modules share comes several times."""
    owned = ((*m._parameters.values(), *m._buffers.values()) for m in walk(network))
    return [t for group in owned for t in group if t is not None]


def tensors_in(*values: Any) -> list[Tensor]:
    """The tensors in an operation's arguments or results; torch's own walk through them takes ten times as long."""
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, tuple | list):
            found += tensors_in(*value)
        elif isinstance(value, dict):
            found += tensors_in(*value.values())
    return found


def modules_of(owner: Any) -> list[nn.Module]:
    """Returns the module and all its parts, or those that a callable can reach; also what a module hides in a list."""
    found: dict[int, nn.Module] = {}
    waiting = [owner]
    while waiting:
        one = waiting.pop()
        if not isinstance(one, nn.Module):
            waiting.extend(m for m in reached(one, set()) if isinstance(m, nn.Module) and id(m) not in found)
            continue
        for module in walk(one):
            if id(module) not in found:
                found[id(module)] = module
                waiting.extend(hidden(module))
    return list(found.values())


def hidden(module: nn.Module) -> list[Any]:
    """What a module keeps beside its parts, plain values and torch's own left out."""
    return [v for k, v in list(vars(module).items()) if k not in _OWN and not isinstance(v, _PLAIN)]


def trusted(function: Any) -> bool:
    """Says whether the function is of a library that keeps nothing behind its functions."""
    return (function.__module__ or "").partition(".")[0] in ("torch", "numpy", "math")


def codes(code: CodeType) -> Iterator[CodeType]:
    """Returns the code and that of the functions which it makes."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from codes(constant)


def content(cell: Any) -> Any:
    """What a variable of an outer function holds; None before it is filled."""
    try:
        return cell.cell_contents
    except ValueError:
        return None


def reached(one: Any, seen: set[int]) -> Iterator[Any]:
    """Returns the object, and what can be reached from it by way of functions, containers and seewhy's models."""
    if id(one) in seen or isinstance(one, _PLAIN):
        return
    seen.add(id(one))
    for inner in _inner(one):
        yield from reached(inner, seen)
    if not isinstance(one, partial | tuple | list | dict):
        yield one


def _inner(one: Any) -> list[Any]:
    if isinstance(one, partial):
        return [one.func, *one.args, *one.keywords.values()]
    if isinstance(one, MethodType):
        return [one.__func__, one.__self__]
    if isinstance(one, tuple | list):
        return list(one)
    if isinstance(one, dict):
        return list(one.values())
    if isinstance(one, FunctionType):
        return [] if trusted(one) else _used(one)
    if isinstance(one, nn.Module | type):
        return []
    return [m for m in (getattr(one, name, None) for name in ("network", "module", "function")) if callable(m)]


def _used(function: FunctionType) -> list[Any]:
    names = {name for code in codes(function.__code__) for name in code.co_names}
    used = [function.__globals__[name] for name in names if name in function.__globals__]
    return [*used, *map(content, function.__closure__ or ()), *(function.__defaults__ or ())]
