"""How a network is called: which argument of its forward takes the pictures, and whether the others fit."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from torch import Tensor, nn

from seewhy.errors import InvalidInput, nearest

__all__ = ["Calling", "calling"]

PICTURE = ("pixel_values", "image", "images", "img", "imgs", "pixels", "picture", "pictures")  # in argument names
_VARIABLE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@dataclass(frozen=True)
class Calling:
    """How the pictures are given to a network.

    Attributes:
        name: the argument, or the key in a dictionary; None for the first argument, whatever its name.
        boxed: whether the network takes one dictionary with the pictures and everything else.
    """

    name: str | None = None
    boxed: bool = False

    def __call__(self, network: nn.Module, inputs: Tensor, further: Mapping[str, Any]) -> Any:
        """What the network returns."""
        if self.name is None:
            return network(inputs, **further)
        given = {self.name: inputs, **further}
        return network(given) if self.boxed else network(**given)


def calling(network: nn.Module, title: str, input_name: str | None, further: Iterable[str]) -> Calling:
    """How to call a network.

    Args:
        network: the module.
        title: how it is called in messages.
        input_name: the argument that takes the pictures, where the caller has said so.
        further: the names of the arguments that are given beside them.

    Raises:
        InvalidInput: an argument that it does not have, or one that it needs and does not get.
    """
    forward = getattr(_inner(network), "forward", None)
    own = _signature(getattr(forward, "__func__", forward), hasattr(forward, "__self__")) if forward else None
    if own is None:
        return Calling(input_name)
    return own.calling(title, input_name, frozenset(further))


def _inner(network: nn.Module) -> nn.Module:
    """What a wrapper for several devices hands its arguments on to."""
    inside = getattr(network, "module", None)
    return inside if isinstance(inside, nn.Module) and "Parallel" in type(network).__name__ else network


@lru_cache(maxsize=256)
def _signature(forward: Any, bound: bool) -> _Signature | None:
    try:
        parameters = list(inspect.signature(forward).parameters.values())
    except (TypeError, ValueError):
        return None
    return _Signature(tuple(parameters[1:] if bound else parameters))


@dataclass(frozen=True)
class _Signature:
    """The arguments of a forward."""

    parameters: tuple[inspect.Parameter, ...]

    @property
    def names(self) -> list[str]:
        return [p.name for p in self.parameters if p.kind not in _VARIABLE]

    @property
    def needed(self) -> list[str]:
        """The arguments without a default."""
        return [p.name for p in self.parameters if p.kind not in _VARIABLE and p.default is inspect.Parameter.empty]

    def has(self, kind: Any) -> bool:
        return any(p.kind is kind for p in self.parameters)

    def calling(self, title: str, input_name: str | None, further: frozenset[str]) -> Calling:
        """See the function of this name."""
        takes_any = self.has(inspect.Parameter.VAR_KEYWORD)
        if input_name is not None and input_name not in self.names and not takes_any:
            return self._boxed(title, input_name)
        picture = input_name or self._picture(further)
        if not takes_any and (wrong := [name for name in further if name not in self.names]):
            raise InvalidInput(
                f"The forward of {title} has no argument {sorted(wrong)[0]!r}. {nearest(sorted(wrong)[0], self.names)}"
            )
        if picture is not None and picture in further:
            raise InvalidInput(
                f"forward_kwargs has {picture!r}, the argument of {title} that takes the pictures. Leave it out, or "
                "name another one: seewhy.load(network, input_name=...)."
            )
        if missing := [name for name in self.needed if name != picture and name not in further]:
            raise InvalidInput(self._lacks(title, picture, missing))
        named_only = bool(self.parameters) and self.parameters[0].kind is inspect.Parameter.KEYWORD_ONLY
        return Calling(None if picture in self.names[:1] and not named_only else picture)

    def _picture(self, further: frozenset[str]) -> str | None:
        """Returns the argument that takes the pictures: by its name, the only one that is left, or the first."""
        left = [name for name in self.names if name not in further]
        needed = [name for name in self.needed if name not in further]
        if PICTURE[0] in left:  # Hugging Face's, whose arguments all have defaults
            return PICTURE[0]
        if len(needed) == 1:
            return needed[0]
        known = [name for name in (needed or left) if name in PICTURE]
        if known:
            return known[0]
        rest = needed or ([] if self.has(inspect.Parameter.VAR_POSITIONAL) else left)
        return rest[0] if rest else None

    def _boxed(self, title: str, input_name: str) -> Calling:
        """Returns a forward that takes a dictionary: one argument, of another name, and not declared as a tensor."""
        declared = str(self.parameters[0].annotation) if self.parameters else ""
        if len(self.needed) == 1 and "Tensor" not in declared.partition("[")[0]:
            return Calling(input_name, boxed=True)
        raise InvalidInput(
            f"The forward of {title} has no argument {input_name!r} for the pictures. {nearest(input_name, self.names)}"
        )

    def _lacks(self, title: str, picture: str | None, missing: list[str]) -> str:
        names = " and ".join(map(repr, missing))
        given = ", ".join(f"{name!r}: ..." for name in missing)
        return (
            f"The forward of {title} takes the pictures as {picture!r} and also needs {names}. Pass "
            f"seewhy.load(network, forward_kwargs={{{given}}}), each with one row an image or one for all; if the "
            "pictures are another argument, name it: input_name=..."
        )
