"""Dropout drawn from a generator of one's own, and the part of a network before it that need not run again.

A network stays in evaluation mode. Calls of torch's dropout functions, which is what dropout modules consist of, are
caught on their way and drop what they are told to here, so nothing else of training mode is switched on. One sample is
one thinned network: the same units are dropped for every image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.jit import ScriptModule
from torch.nn.modules.dropout import _DropoutNd
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from seewhy.errors import MissingCapability
from seewhy.models.torch.parts import walk

__all__ = ["Dropouts", "Trunk", "idle"]

_UNITS = {F.dropout, torch.dropout}
_CHANNELS = {F.dropout1d, F.dropout2d, F.dropout3d, torch.feature_dropout}
_REFUSED = {F.alpha_dropout, F.feature_alpha_dropout, torch.alpha_dropout, torch.feature_alpha_dropout}


class Dropouts(TorchFunctionMode):
    """Inside the block every dropout function is caught; it drops nothing but while ``drawing``.

    Args:
        seeds: of each sample.

    Attributes:
        shapes: of the inputs of the dropouts that were caught since ``watch``, those with a rate of 0 left out.
        mixed: shapes that do not begin with the images, so that images share one draw.
    """

    def __init__(self, seeds: list[int]) -> None:
        super().__init__()
        self.seeds = seeds
        self.shapes: list[tuple[int, ...]] = []
        self.mixed: set[tuple[int, ...]] = set()
        self._first: Callable[[], None] = lambda: None
        self._samples: Tensor | None = None
        self._generators: dict[int, torch.Generator] = {}

    def watch(self, first: Callable[[], None]) -> None:
        """Forgets the shapes; ``first`` is called before the next dropout."""
        self.shapes, self._first = [], first

    @contextmanager
    def drawing(self, samples: Tensor) -> Iterator[None]:
        """Draws masks for one forward pass, whose row r belongs to sample ``samples[r]``."""
        self._samples = samples
        host = torch.device("cpu")
        self._generators = {s: torch.Generator(host).manual_seed(self.seeds[s]) for s in samples.unique().tolist()}
        try:
            yield
        finally:
            self._samples = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Puts ``drop`` in the place of torch's dropout functions."""
        if func in _REFUSED and _rate(*args, **(kwargs or {})) > 0:
            raise MissingCapability("The network has alpha dropout, which is not supported. Use nn.Dropout.")
        if func not in _UNITS and func not in _CHANNELS:
            return func(*args, **(kwargs or {}))
        features, *others = args or (kwargs["input"],)
        inplace = (kwargs or {}).get("inplace", len(others) > 2 and others[2])
        return self.drop(features, _rate(*args, **(kwargs or {})), channels=func in _CHANNELS, inplace=inplace)

    def drop(self, features: Tensor, p: float, *, channels: bool = False, inplace: bool = False) -> Tensor:
        """The features with units, or whole channels (N, C, ...), put to zero at rate ``p`` and the rest enlarged."""
        if p == 0:
            return features
        self._first()
        self.shapes.append(tuple(features.shape))
        if self._samples is None:
            return features
        shape = (*features.shape[:2], *(1 for _ in features.shape[2:])) if channels else tuple(features.shape)
        factor = self._kept(shape, p).to(features.device, features.dtype) / max(1 - p, 1e-12)
        return features.mul_(factor) if inplace else features * factor

    def _kept(self, shape: tuple[int, ...], p: float) -> Tensor:
        """1 where a unit stays. Each row has its sample's draw, if the first dimension is that of the rows."""
        assert self._samples is not None
        rows = len(self._samples)
        samples, each = self._samples.unique(return_inverse=True)
        sequence_first = len(shape) == 3 and shape[:2] == (rows, rows) and rows > 1  # cannot be told, so not relied on
        if shape[0] != rows or sequence_first:
            self.mixed.add(shape)
            return self._rand(int(samples[0]), shape) >= p
        return torch.stack([self._rand(s, shape[1:]) for s in samples.tolist()])[each.cpu()] >= p

    def _rand(self, sample: int, shape: tuple[int, ...]) -> Tensor:
        generator = self._generators[sample]
        return torch.rand(shape, generator=generator, dtype=torch.float32, device=generator.device)


def _rate(*args: Any, p: float = 0.5, **_others: Any) -> float:
    return args[1] if len(args) > 1 else p


class Trunk:
    """The results of the modules that end before the first dropout: kept in one pass, put in place in later ones.

    Only the outermost modules are kept. Code between modules runs again, on copies of the results.

    Attributes:
        ran: the modules that ran while results were kept, or after.
    """

    def __init__(self, network: nn.Module) -> None:
        self.ran: set[nn.Module] = set()
        self._open = False
        self._replaying = False
        self._kept: dict[nn.Module, list[Any]] = {}
        self._order: list[nn.Module] = []
        self._calls: dict[nn.Module, int] = {}
        self._modules = [m for m in walk(network)[1:] if not isinstance(m, ScriptModule) and _patchable(m)]

    @property
    def empty(self) -> bool:
        """True when nothing was kept."""
        return not self._order

    @contextmanager
    def keeping(self) -> Iterator[None]:
        """Keeps the results of one forward pass until ``close`` is called."""
        self._kept, self._order, self._open = {}, [], True
        try:
            with self._patched():
                yield
        finally:
            self._open = False

    def close(self) -> None:
        """What ends from here on is not kept."""
        self._open = False

    @contextmanager
    def replaying(self) -> Iterator[None]:
        """Uses what was kept in one forward pass of the same inputs, instead of computing it again."""
        self._calls, self._replaying = {}, True
        try:
            with self._patched():
                yield
        finally:
            self._replaying = False

    @contextmanager
    def _patched(self) -> Iterator[None]:
        with ExitStack() as stack:
            for module in self._modules:
                own = vars(module).get("forward")
                stack.callback(_put_back, module, own)
                module.forward = self._wrapped(module, module.forward)
            yield

    def _wrapped(self, module: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            self.ran.add(module)
            if self._replaying:
                call = self._calls[module] = self._calls.get(module, -1) + 1
                kept = self._kept.get(module, [])
                return _copied(kept[call]) if call < len(kept) else forward(*args, **kwargs)
            before = len(self._order)
            result = forward(*args, **kwargs)
            if self._open:
                self._keep(module, result, before)
            return result

        return run

    def _keep(self, module: nn.Module, result: Any, before: int) -> None:
        """Keeps a result in place of those of the modules inside, which came last."""
        while len(self._order) > before:
            self._kept[self._order.pop()].pop()
        self._order.append(module)
        self._kept.setdefault(module, []).append(_copied(result))


def _patchable(module: nn.Module) -> bool:
    return type(module).__name__ != "OptimizedModule"  # hands its attributes on; what is inside is patched


def _put_back(module: nn.Module, own: Any) -> None:
    if own is None:
        del module.forward
    else:
        module.forward = own


def _copied(result: Any) -> Any:
    return pytree.tree_map(lambda part: part.clone() if isinstance(part, Tensor) else part, result)


def idle(network: nn.Module, ran: set[nn.Module]) -> list[str]:
    """Names of the modules with dropout that did not act: inside attention that is one function, or not run at all."""
    found = []
    for name, module in network.named_modules():
        attention = isinstance(module, nn.MultiheadAttention) and module.dropout > 0
        if attention or (isinstance(module, _DropoutNd) and module.p > 0 and module not in ran):
            found.append(name)
    return found
