"""What the code of a network does besides computing: whether it keeps something from pass to pass, or draws.

Passes of two threads may go side by side only where neither writes what the other reads. The code that a forward pass
can reach is read (not run): methods of the module's class, and functions that it calls. What writes to an attribute, an
element or a global, changes in place what hangs on the module, or switches modes, *keeps*; what calls a random function
of torch, numpy or Python without a look at the mode *draws*. Torch's own modules do neither in evaluation mode. Code
that cannot be read, and hooks of others, count as keeping. To be wrong towards "keeps" costs time only.
"""

from __future__ import annotations

import dis
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise, starmap
from threading import get_ident
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from torch import Tensor, nn
from torch.jit import ScriptModule
from torch.nn.modules.lazy import LazyModuleMixin

from seewhy.models.torch.parts import codes, content, hidden, modules_of, reached, trusted

__all__ = ["Conduct", "Own", "conduct"]

_WRITES = {"STORE_ATTR", "DELETE_ATTR", "STORE_SUBSCR", "DELETE_SUBSCR", "STORE_GLOBAL", "DELETE_GLOBAL"}
_SAME = {"LOAD_METHOD": "LOAD_ATTR", "LOAD_SUPER_ATTR": "LOAD_ATTR", "BINARY_SLICE": "BINARY_SUBSCR",
         "STORE_SLICE": "STORE_SUBSCR"}  # fmt: skip
_NEW = ("CALL", "BINARY_OP", "UNARY", "BUILD", "COMPARE", "IS_OP", "CONTAINS", "LOAD_CONST", "MAKE_FUNCTION", "IMPORT",
        "FORMAT", "LIST_", "DICT_", "SET_")  # fmt: skip
_CHANGES = {"append", "extend", "insert", "pop", "popitem", "popleft", "appendleft", "setdefault", "update", "clear",
            "remove", "discard", "add", "set"}  # fmt: skip
_SWITCHES = {"train", "eval", "setattr", "delattr", "__setattr__", "__dict__", "__setstate__", "register_buffer",
             "register_parameter", "register_forward_hook", "register_forward_pre_hook", "register_module",
             "add_module", "exec", "globals"}  # fmt: skip
_DRAWS = {"rand", "randn", "randint", "randperm", "rand_like", "randn_like", "randint_like", "bernoulli", "bernoulli_",
          "multinomial", "normal", "normal_", "uniform", "uniform_", "exponential_", "geometric_", "cauchy_",
          "log_normal_", "random_", "random", "choice", "shuffle", "manual_seed", "seed", "poisson", "gumbel_softmax",
          "rrelu", "rrelu_", "dropout", "dropout_", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout",
          "feature_alpha_dropout", "feature_dropout", "rsample", "sample", "default_rng", "trunc_normal_",
          "kaiming_normal_", "xavier_uniform_", "fractional_max_pool2d", "gauss", "randrange", "getrandbits",
          "standard_normal", "integers", "permutation", "triangular"}  # fmt: skip
_SCRIPT_DRAWS = ("aten::rand", "aten::bernoulli", "aten::multinomial", "aten::normal", "aten::dropout")
_HARMLESS = (type(None), bool, int, float, complex, str, bytes, Tensor, ModuleType, type, BuiltinFunctionType)


@dataclass(frozen=True)
class Conduct:
    """What code does besides computing.

    Attributes:
        keeps: something from one pass to the next, or during one pass where another could see it.
        draws: from a global generator of random numbers.
    """

    keeps: bool = False
    draws: bool = False

    def __or__(self, other: Conduct) -> Conduct:
        return Conduct(self.keeps or other.keeps, self.draws or other.draws)


class Own:
    """A hook of seewhy's: it acts in the thread that put it there, and nobody else's pass sees it."""

    def __init__(self, hook: Any) -> None:
        self.hook, self.thread = hook, get_ident()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the hook gives; nothing in another thread."""
        return self.hook(*args, **kwargs) if get_ident() == self.thread else None


_known: WeakKeyDictionary[Any, Conduct] = WeakKeyDictionary()  # by class, and by function


def conduct(owner: Any) -> Conduct:
    """Reads the code of a module with its parts, or of a callable with all that it can reach."""
    found = Conduct()
    if not isinstance(owner, nn.Module):
        for one in reached(owner, set()):
            found |= _of_object(one)
    for module in modules_of(owner):
        found |= _of_module(module)
    return found


def _of_object(one: Any) -> Conduct:
    if isinstance(one, nn.Module):
        return Conduct()  # comes with the modules
    if isinstance(one, FunctionType):
        return Conduct() if trusted(one) else _of_function(one)
    if isinstance(one, MethodType):
        return Conduct(keeps=not isinstance(one.__self__, _HARMLESS)) | _of_object(one.__func__)
    if isinstance(one, _HARMLESS):
        return Conduct()
    called = next(_methods(type(one), "__call__"), None)
    return Conduct(keeps=True) | (_read(called, type(one), set()) if called else Conduct())


def _of_module(module: nn.Module) -> Conduct:
    if isinstance(module, ScriptModule):
        return _of_script(module)
    hooks = (*list(module._forward_hooks.values()), *list(module._forward_pre_hooks.values()))
    found = Conduct(keeps=not all(map(_ours, hooks)))
    kind = type(module)
    if kind not in _known:
        _known[kind] = _of_class(kind)
    for one in hidden(module):
        found |= _of_function(one) if isinstance(one, FunctionType) and not trusted(one) else Conduct()
    return found | _known[kind]


def _ours(hook: Any) -> bool:
    """Seewhy's own, or a plain function of a package that is known to keep nothing."""
    known = (getattr(hook, "__module__", None) or "").partition(".")[0] in ("torch", "seewhy")
    return isinstance(hook, Own) or (known and isinstance(hook, FunctionType) and not hook.__closure__)


def _of_script(module: ScriptModule) -> Conduct:
    try:
        text = str(module.inlined_graph)
    except Exception:  # a part without a forward of its own: what it does is in the graph of the whole
        return Conduct(keeps=True)
    return Conduct(keeps=True, draws=any(name in text for name in _SCRIPT_DRAWS))


def _of_class(kind: type) -> Conduct:
    if issubclass(kind, LazyModuleMixin):
        return Conduct(keeps=True)
    if kind.__module__.startswith("torch.nn."):
        return Conduct()
    found, seen = Conduct(), set[CodeType]()
    for name in ("forward", "__call__", "__getattr__"):
        for function in _methods(kind, name):
            found |= _read(function, kind, seen)
    return found


def _methods(kind: type | None, name: str) -> Iterator[FunctionType]:
    """Returns the Python functions behind an attribute of a class and of its bases, torch's left out."""
    for base in kind.__mro__ if kind else ():
        found = base.__dict__.get(name)
        found = getattr(found, "fget", None) or getattr(found, "__func__", found)
        if isinstance(found, FunctionType) and not trusted(found):
            yield found


def _of_function(function: FunctionType) -> Conduct:
    if function not in _known:
        _known[function] = _read(function, None, set())
    return _known[function]


def _read(function: FunctionType, kind: type | None, seen: set[CodeType]) -> Conduct:
    """Reads the code of a function and of what it calls; names of attributes are looked up in ``kind``."""
    if function.__code__ in seen:
        return Conduct()
    seen.add(function.__code__)
    found, names = Conduct(), set[str]()
    for code in codes(function.__code__):
        found |= _of_code(code, function.__globals__)
        names.update(code.co_names)
    called: list[Any] = [function.__globals__.get(name) for name in names]
    called += [method for name in names for method in _methods(kind, name)]
    called += map(content, function.__closure__ or ())
    for one in called:
        if isinstance(one, FunctionType) and not trusted(one):
            found |= _read(one, kind, seen)
    return found


def _of_code(code: CodeType, outside: Mapping[str, Any]) -> Conduct:
    steps = _steps(code)
    names = set(code.co_names)
    asks = "training" in names or "training" in code.co_varnames
    keeps = bool(names & _SWITCHES) or any(s.name in _WRITES for s in steps)
    keeps = keeps or any(s.name == "STORE_DEREF" and s.on in code.co_freevars for s in steps)
    return Conduct(keeps or _changes(code, steps, outside), not asks and any(starmap(_draws, pairwise(steps))))


class _Step(NamedTuple):
    """One step of the code, as every version of Python would write it: a name, and what it works on."""

    name: str
    on: Any
    in_place: bool = False
    joined: bool = False  # more than one way leads here


def _steps(code: CodeType) -> list[_Step]:
    """Returns the code's instructions; newer Pythons join two steps in one, and have a word of their own for slices."""
    found = []
    for one in dis.get_instructions(code):
        if "_FAST" in one.opname and isinstance(one.argval, tuple):
            first, second = one.argval
            found.append(_Step("STORE_FAST" if one.opname.startswith("STORE") else "LOAD_FAST", first))
            found.append(_Step("STORE_FAST" if one.opname.endswith("STORE_FAST") else "LOAD_FAST", second))
            continue
        name = "LOAD_FAST" if one.opname.startswith("LOAD_FAST") else _SAME.get(one.opname, one.opname)
        if name == "BINARY_OP" and one.argrepr == "[]":
            name = "BINARY_SUBSCR"
        in_place = name == "BINARY_OP" and one.argrepr.endswith("=")
        found.append(_Step(name, one.argval, in_place, one.is_jump_target))
    return found


def _draws(loaded: _Step, step: _Step) -> bool:
    """Says whether a random function is meant, and no module of the network that has such a name."""
    named = isinstance(step.on, str) and step.on in _DRAWS
    return named and step.name.startswith(("LOAD", "IMPORT")) and loaded.on != "self"


def _changes(code: CodeType, steps: list[_Step], outside: Mapping[str, Any]) -> bool:
    """Says whether something that hangs on an argument or a global is changed in place."""
    borrowed = _borrowed(code, steps)
    for before, step in pairwise(steps):
        if step.name == "LOAD_ATTR" and _in_place(step.on) and _hangs(before, borrowed, outside):
            return True
        if before.in_place and step.name == "STORE_FAST" and step.on in borrowed:
            return True
    return False


def _borrowed(code: CodeType, steps: list[_Step]) -> set[str]:
    """Variables that may hold what belongs to somebody else: those that are ever filled with no new object."""
    borrowed = set(code.co_freevars)
    for before, step in pairwise(steps):
        if step.name != "STORE_FAST" or (before.name.startswith(_NEW) and not step.joined):
            continue
        if step.joined or before.name not in ("LOAD_FAST", "STORE_FAST") or before.on in borrowed:
            borrowed.add(step.on)
    return borrowed


def _in_place(name: str) -> bool:
    return name in _CHANGES or (name.endswith("_") and not name.startswith("_"))


def _hangs(loaded: _Step, borrowed: set[str], outside: Mapping[str, Any]) -> bool:
    """Says whether what was loaded hangs on another object, so that others may see it."""
    if loaded.name in ("LOAD_GLOBAL", "LOAD_NAME"):
        return not isinstance(outside.get(loaded.on), ModuleType)
    if loaded.name in ("LOAD_ATTR", "BINARY_SUBSCR", "LOAD_DEREF"):
        return True
    return loaded.name == "LOAD_FAST" and loaded.on in borrowed
