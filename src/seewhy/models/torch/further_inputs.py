"""Further arguments of a network's forward: which of them have one row for each image, and follow it everywhere.

A value (a tensor, an array, a list of numbers or words; also inside dictionaries, lists and tuples) is given to R
changed copies of N images in one of three ways:

    row         it has N rows, and copy r gets the row of its image
    one         it has one row, which every copy gets
    as it is    it is no table of images: a flag, a prompt, a matrix

How long a value is does not tell the ways apart (five prompts beside five pictures are no rows), so they are tried out
on the network: with N images, and with three or four copies of two of them, it must say the same of the same image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice, product
from typing import Any, Literal
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from seewhy.errors import BadOutput, InputRefused, InvalidInput

__all__ = ["Further", "arrange", "plain", "shapes", "tables"]

Way = Literal["row", "one", "as it is"]
Path = tuple[str | int, ...]
Trial = Callable[[Tensor, "Further"], Tensor]
"""(images (R, C, H, W), the further arguments for them) -> the scores, rows first."""

_MOST = 64  # ways that are tried
_known: WeakKeyDictionary[nn.Module, dict[Any, tuple[Any, dict[Path, Way]]]] = WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class Further(Mapping[str, Any]):
    """Further arguments for a batch: a mapping from their names to the values for the batch's own rows.

    Attributes:
        given: the values as they were given.
        ways: path -> how a value goes with the images; those that are not named are passed as they are.
        rows: (R,) which of the images the values were given for stands in each row of the batch.
    """

    given: Mapping[str, Any]
    ways: Mapping[Path, Way]
    rows: Tensor = field(repr=False)

    @property
    def varies(self) -> bool:
        """Whether some value is another one for another image."""
        return "row" in self.ways.values()

    def at(self, rows: Tensor) -> Further:
        """Returns the further inputs of a batch whose row r is row ``rows[r]`` of this one."""
        return Further(self.given, self.ways, self.rows[rows.detach().cpu()])

    def of(self, count: int) -> Further:
        """Returns the further inputs of a batch of ``count`` rows, where that follows from what is known.

        Raises:
            InvalidInput: each image has a row of its own, and which images these are is not known.
        """
        if count == len(self.rows):
            return self
        if self.varies and bool((self.rows != self.rows[0]).any()):
            raise InvalidInput(
                f"The further inputs ({', '.join(self.given)}) have a row for each of {len(self.rows)} images, and "
                f"{count} images came. Say which: model.at(rows) with the number of the image in each row."
            )
        return Further(self.given, self.ways, self.rows[:1].expand(count))

    def __getitem__(self, name: str) -> Any:
        """Returns the value for this batch; tensors are copies, which the network may change."""
        return _walk(self.given[name], self._placed, (name,))

    def __iter__(self) -> Iterator[str]:
        """Goes through the names of the further inputs."""
        return iter(self.given)

    def __len__(self) -> int:
        """How many arguments there are."""
        return len(self.given)

    def _placed(self, path: Path, value: Any) -> Any:
        way = self.ways.get(path, "as it is")
        if way == "as it is":
            return value.clone() if isinstance(value, Tensor) else value
        return _taken(value, self.rows if way == "row" else torch.zeros_like(self.rows))


def arrange(network: nn.Module, values: Mapping[str, Any], inputs: Tensor, trial: Trial, total: int = 0) -> Further:
    """Finds out how the further arguments go with the images.

    Args:
        network: remembers what was found for these very values.
        values: by name.
        inputs: (N, C, H, W) the images; with ``total`` one of them is enough.
        trial: runs the network.
        total: how many images the values are for, where they come one after the other.

    Raises:
        InvalidInput: no way of giving the values to several images leads to the same scores.
        InputRefused: the network does not take them.
    """
    count, leaves = total or len(inputs), _leaves(values)
    open_ways = {path: options for path, leaf in leaves if len(options := _options(leaf, count)) > 1}
    whole = torch.arange(count, device="cpu")
    if not open_ways and not any(isinstance(leaf, Tensor | np.ndarray) and leaf.ndim for _, leaf in leaves):
        return Further(values, {}, whole)
    key = (tuple(inputs.shape), count, tuple((id(leaf), _version(leaf)) for _, leaf in leaves))
    known = _known.setdefault(network, {})
    if key not in known:
        for old in list(known)[:-8]:
            known.pop(old, None)
        found = _tried(values, open_ways, inputs, trial, total)
        known[key] = (leaves, found)  # the values are held, so that no other ones get their ids
    return Further(values, known[key][1], whole)


def tables(values: Mapping[str, Any], n: int) -> bool:
    """Says whether a value may have one row for each of ``n`` images."""
    return any(_length(leaf) == n for _, leaf in _leaves(values))


def plain(values: Mapping[str, Any], n: int) -> bool:
    """Says whether ``n`` images can be run with the values as they are: none has one row for several images."""
    return n == 1 or all(_length(leaf) != 1 for _, leaf in _leaves(values))


def _tried(
    values: Mapping[str, Any], options: Mapping[Path, tuple[Way, ...]], inputs: Tensor, trial: Trial, total: int
) -> dict[Path, Way]:
    """Returns the first way of giving the values to the images that holds for copies of them, too."""
    refused: list[Exception] = []
    held: list[tuple[dict[Path, Way], Tensor]] = []
    tries = [dict(zip(options, chosen, strict=True)) for chosen in islice(product(*options.values()), _MOST)]
    for ways in tries:
        try:
            said = trial(inputs, Further(values, ways, torch.arange(len(inputs), device="cpu")))
        except (InputRefused, BadOutput) as error:
            refused.append(error)
            continue
        if _holds(values, ways, said, inputs, trial):
            held.append((ways, said))
        if held and not total:  # what the network says of all images together has shown which way is right
            break
    if not held:
        raise refused[0] if len(refused) == len(tries) else _astray(values, len(inputs))
    ways, said = held[0]
    if any(not _alike(other, said) for _, other in held[1:]):
        names = ", ".join(repr(_named(path)) for path in options)
        raise InvalidInput(
            f"Whether {names} has one row for each of the {total} images, or is the same for all, cannot be told: the "
            "network takes both, and says something else. Explain the images in one batch, or give it to the network "
            "by functools.partial."
        )
    return ways


def _holds(values: Mapping[str, Any], ways: Mapping[Path, Way], said: Tensor, inputs: Tensor, trial: Trial) -> bool:
    """Says whether the network says the same as ``said`` of copies of two of the images, in another number."""
    n = len(inputs)
    copies = torch.tensor([n - 1, 0, 0] + ([n // 2] if n == 3 else []), device="cpu")
    further = Further(values, ways, torch.arange(n, device="cpu")).at(copies)
    try:
        again = trial(inputs[copies.to(inputs.device)], further)
    except (InputRefused, BadOutput):
        return False
    return len(said) == n and _alike(again, said[copies.to(said.device)])


def _alike(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape:
        return False
    size = b.abs().amax().clamp_min(1e-6) if b.numel() else 1
    tolerance = 1e-3 if a.dtype in (torch.float32, torch.float64) else 2e-2
    return bool(((a - b).abs() <= tolerance * size).all())


def _astray(values: Mapping[str, Any], n: int) -> InvalidInput:
    return InvalidInput(
        f"How the further inputs go with the images is not clear: {shapes(values)}, for {n} "
        f"image{'s' if n > 1 else ''}. What the network says of an image changes with the number of its copies. Give "
        f"each a first dimension of {n} (one row an image) or of 1 (the same for all)."
    )


def shapes(values: Mapping[str, Any]) -> str:
    """Returns the further arguments in words: names and shapes."""
    said = []
    for path, leaf in _leaves(values):
        if isinstance(leaf, Tensor | np.ndarray):
            said.append(f"{_named(path)} {tuple(leaf.shape)}")
        elif _length(leaf) is not None:
            said.append(f"{_named(path)} ({_length(leaf)} values)")
        else:
            said.append(f"{_named(path)} {leaf!r}"[:80])
    return ", ".join(said)


def _named(path: Path) -> str:
    return str(path[0]) + "".join(f"[{part!r}]" for part in path[1:])


def _options(leaf: Any, count: int) -> tuple[Way, ...]:
    """How a value may go with the images, the likelier way first."""
    length = _length(leaf)
    if length == 1:
        return ("one", "as it is")
    return ("row", "as it is") if length == count else ("as it is",)


def _length(leaf: Any) -> int | None:
    """How many rows a value has; None where it is no table."""
    if isinstance(leaf, Tensor | np.ndarray):
        return leaf.shape[0] if leaf.ndim else None
    return len(leaf) if isinstance(leaf, list | tuple) else None


def _version(leaf: Any) -> int:
    """Changes when a tensor is changed in place; one made in inference mode has no such count."""
    return leaf._version if isinstance(leaf, Tensor) and not leaf.is_inference() else 0


def _taken(leaf: Any, rows: Tensor) -> Any:
    if isinstance(leaf, Tensor):
        return leaf.index_select(0, rows.to(leaf.device))
    if isinstance(leaf, np.ndarray):
        return leaf[rows.numpy()]
    return type(leaf)(leaf[row] for row in rows.tolist())


def _leaves(values: Mapping[str, Any]) -> list[tuple[Path, Any]]:
    found: list[tuple[Path, Any]] = []

    def note(path: Path, leaf: Any) -> None:
        found.append((path, leaf))

    for name in values:
        _walk(values[name], note, (name,))
    return found


def _walk(tree: Any, put: Callable[[Path, Any], Any], path: Path) -> Any:
    """Returns the same tree with ``put`` in the place of each value; a list of numbers or words is one value."""
    if isinstance(tree, Mapping):
        made = {key: _walk(part, put, (*path, key)) for key, part in tree.items()}
        return made if type(tree) is dict else _like(tree, made)
    if isinstance(tree, list | tuple) and not all(isinstance(part, str | int | float) for part in tree):
        parts = [_walk(part, put, (*path, i)) for i, part in enumerate(tree)]
        return type(tree)(*parts) if hasattr(tree, "_fields") else type(tree)(parts)
    return put(path, tree)


def _like(tree: Any, made: dict[Any, Any]) -> Any:
    """Returns the kind of mapping that the network was to be given, where it can be made."""
    try:
        return type(tree)(made)
    except TypeError:
        return made
