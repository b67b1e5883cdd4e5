"""An exported graph as a model: what the backends for model files have in common.

A backend brings an `Engine`: it reads the file, says what goes in and comes out, and makes a function of any part of
the graph. Everything else is the same for all of them: the order of the input's dimensions, its type, the batch, the
scores among the outputs.

The batch: where the graph takes any number of images, all go in at once. Where it takes a fixed number, the images go
in groups of that number; the last group is filled up. Which of the two it is, is tried out when the file is opened.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from seewhy.errors import BadOutput, InputRefused, InvalidInput, InvalidType, SeewhyError, one_line, out_of_memory
from seewhy.models.ending import Ending, applied
from seewhy.models.exported.ending import ending
from seewhy.models.exported.threads import one_thread
from seewhy.models.graph import Graph, Size
from seewhy.models.reading import Selector, check_picture, check_size, select, to_outputs
from seewhy.models.turns import alone
from seewhy.types import Outputs, Passes

__all__ = ["Engine", "ExportedModel", "Port", "Run", "allowed_threads"]

Array = NDArray[Any]
Run = Callable[[Sequence[Array]], list[Array]]
_COLOURS = (1, 3, 4)
_EXACT, _ROUNDED = 1e-4, 2e-2  # of the largest score, between two ways to the same scores

_allowed: ContextVar[int | None] = ContextVar("_allowed", default=None)


def allowed_threads() -> int:
    """How many threads the caller lets torch have: as many the runtime may have."""
    return _allowed.get() or torch.get_num_threads()


@dataclass(frozen=True)
class Port:
    """Where a tensor enters or leaves a graph.

    Attributes:
        key: the tensor's name within the graph.
        name: what people call it.
        shape: None for each size that is left open; None as a whole where not even the rank is known.
        dtype: of numpy.
    """

    key: str
    name: str
    shape: tuple[int | None, ...] | None
    dtype: np.dtype[Any]

    def __str__(self) -> str:
        sizes = "of any shape" if self.shape is None else " x ".join("?" if s is None else str(s) for s in self.shape)
        return f"{self.name!r} ({sizes}, {self.dtype})"


class Engine(Protocol):
    """What a backend can do with one file.

    Attributes:
        inputs: what the graph takes.
        outputs: what it gives.
        graph: its operations.
        metadata: what the file says about itself.
        exact: False where numbers are rounded on the way (a reduced precision, an 8-bit network).
        digest: of the file's contents.
        settings: from which it was made.
        kept: what a model has found out about it, and parts that are ready to run.
    """

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    settings: Any
    kept: dict[Any, Any]

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What the file says of itself."""
        ...

    @property
    def exact(self) -> bool:
        """Whether it computes in float32 throughout, with nothing rounded to fewer bits."""
        ...

    @property
    def graph(self) -> Graph:
        """The graph's operations."""
        ...

    @property
    def digest(self) -> str:
        """Returns a digest of the file's contents."""
        ...

    def compile(self, feeds: Mapping[str, tuple[int | None, ...]], fetches: Sequence[str]) -> Run:
        """Returns a function of the part of the graph between two sets of tensors.

        Args:
            feeds: tensors that are given, with their shapes (None: any).
            fetches: tensors that are wanted.
        """
        ...

    def shape(self, key: str) -> tuple[int | None, ...]:
        """Returns a tensor's shape, as far as it is known without a pass; () where nothing is."""
        ...

    def sizes(self, feeds: Mapping[str, tuple[int, ...]]) -> Mapping[str, Size]:
        """Returns the shape of every tensor, where it can be found out, for inputs of these shapes."""
        ...


@dataclass(frozen=True, eq=False)
class ExportedModel:
    """A graph from a file as a model that gives scores.

    Attributes:
        source: the file, or the library's own object.
        output: where the scores are in what it returns: a name, an index, or a callable that is given all outputs by
            name; if that is not obvious.
        forward_kwargs: values of further inputs, by name.
        layout: order of the input's dimensions, where the file leaves it open.
        labels: class names.
        preprocessing: how a picture becomes its input.
        title: its name in reports; by default that of the file.
        notes: what was decided while it was loaded.
        engine: the backend's own.
    """

    source: Any
    output: Selector = field(default=None, kw_only=True)
    forward_kwargs: Mapping[str, Any] = field(default_factory=dict, kw_only=True)
    layout: Literal["NCHW", "NHWC"] | None = field(default=None, kw_only=True)
    labels: tuple[str, ...] | None = field(default=None, kw_only=True, repr=False)
    preprocessing: Any = field(default=None, kw_only=True)
    title: str | None = field(default=None, kw_only=True)
    notes: tuple[str, ...] = field(default=(), kw_only=True)
    passes: Passes = field(default_factory=Passes, kw_only=True, repr=False)
    engine: Any = field(default=None, kw_only=True, repr=False)
    _port: Port = field(init=False, repr=False)
    _kept: dict[Any, Any] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.layout not in (None, "NCHW", "NHWC"):
            raise InvalidInput(f"layout must be 'NCHW', 'NHWC' or None, got {self.layout!r}.")
        if self.engine is None or self.engine.settings != self._settings():
            object.__setattr__(self, "engine", self._open())
        object.__setattr__(self, "_kept", self.engine.kept)
        object.__setattr__(self, "_port", self._picture())
        if self.size is not None:
            self._step((self.channels, *self.size))

    def _settings(self) -> Any:
        """What the engine is made from."""
        raise NotImplementedError

    def _open(self) -> Engine:
        raise NotImplementedError

    def __getstate__(self) -> dict[str, Any]:
        """Everything but what the backend made: it is made again from the file."""
        if not isinstance(self.source, str | os.PathLike):
            raise InvalidType(
                f"{self.name} was made from an object in memory and cannot be sent to another process. Save it to a "
                "file and load that."
            )
        return {name: value for name, value in self.__dict__.items() if name not in ("engine", "_kept", "_port")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Opens the file again."""
        self.__dict__.update(state | {"engine": None})
        self.__post_init__()

    @property
    def name(self) -> str:
        """The title, or the file's name."""
        known = isinstance(self.source, str | os.PathLike)
        return self.title or (Path(self.source).name if known else type(self.source).__name__)

    @property
    def content(self) -> str:
        """A digest of the file's contents and of how it is run."""
        return f"{type(self).__name__} {self.engine.digest} {self.engine.settings[1:]} {self.layout}"

    @property
    def size(self) -> tuple[int, int] | None:
        """(height, width) of the input, where the graph takes one size only."""
        shape = self._port.shape
        if shape is None:
            return None
        height, width = shape[1:3] if self._last else shape[2:]
        return None if height is None or width is None else (height, width)

    @property
    def channels(self) -> int:
        """How many channels the input has; 3 where the graph leaves it open."""
        shape = self._port.shape
        count = None if shape is None else shape[3] if self._last else shape[1]
        return 3 if count is None else count

    def _step(self, size: tuple[int, ...]) -> int | None:
        """How many images (C, H, W) of this size go in at a time; None: any number.

        It is tried out once, whatever the file says: three different images must give together what each gives alone.
        """
        key = ("step", size)
        with alone(self.engine):
            if key not in self._kept:
                self._kept[key] = self._tried(size)
            found: int | None = self._kept[key]
            return found

    def _tried(self, size: tuple[int, ...]) -> int | None:
        fixed = None if self._port.shape is None else self._port.shape[0]
        bright = 255 if self._port.dtype == np.uint8 else 1
        images = self._encoded(bright * torch.rand((3, *size), generator=torch.Generator().manual_seed(0)))
        fetches = [port.key for port in self.engine.outputs]
        alone = [self._rows({self._port.key: image[None]}, fetches, fixed) for image in images]
        if fixed in (None, 1):
            loose = {key for i, key in enumerate(fetches) if any(not one[i].ndim or len(one[i]) != 1 for one in alone)}
            self._kept["loose"] = self._kept.get("loose", set()) | loose
        try:
            together = self._rows({self._port.key: images}, fetches, None)
        except InputRefused:
            return fixed or 1
        share = 1e-3 if self.engine.exact else 3e-2
        same = all(_alike([one[i] for one in alone], together[i], share) for i in range(len(fetches)))
        return None if same else fixed or 1

    @contextmanager
    def opened(self) -> Iterator[None]:
        """No gradients; an exported graph has nothing else that changes.

        torch works with one thread meanwhile: its idle threads would take the cores from the runtime's own (a mask of
        RISE costs 1.1 passes then, and 1.7 otherwise).
        """
        with one_thread() as threads, torch.no_grad():
            token = _allowed.set(threads if _allowed.get() is None else _allowed.get())
            try:
                yield
            finally:
                _allowed.reset(token)

    def check(self, inputs: Tensor) -> None:
        """Raises InvalidInput where the inputs' dtype, device or shape is not the graph's."""
        check_picture(inputs, self.name)
        check_size(inputs, self.output)
        if inputs.device.type != "cpu":
            raise InvalidInput(
                f"{self.name} takes its input from the CPU, got one on {inputs.device}. Use inputs.cpu()."
            )
        if inputs.dtype != torch.float32:
            got = str(inputs.dtype).removeprefix("torch.")
            raise InvalidInput(f"{self.name} takes float32, the input is {got}. Use inputs.to(torch.float32).")
        shape = self._port.shape
        wanted = (None,) * 3 if shape is None else (shape[3], *shape[1:3]) if self._last else shape[1:]
        if any(w not in (None, g) for w, g in zip(wanted, inputs.shape[1:], strict=True)):
            sizes = " x ".join("?" if w is None else str(w) for w in wanted)
            got = " x ".join(map(str, inputs.shape[1:]))
            raise InvalidInput(f"{self.name} takes images of {sizes} (channels x height x width), got {got}.")
        if self._port.dtype == np.uint8 and (float(inputs.amin()) < -0.5 or float(inputs.amax()) > 255.5):
            raise InvalidInput(
                f"{self.name} takes 8-bit pixels in 0..255, got {float(inputs.amin()):.3g} to "
                f"{float(inputs.amax()):.3g}. Use Preprocessing(mean=0, std=1, value_range=255)."
            )

    def __call__(self, inputs: Tensor) -> Outputs:
        """One forward pass."""
        ends = [port.key for port in self.engine.outputs]
        raw = self._run({self._port.key: inputs}, ends, tuple(inputs.shape[1:]))
        self.passes.forward += len(inputs)
        return self._read(raw, len(inputs))

    # ------------------------------------------------------------------------------------------------- what goes in

    def _picture(self) -> Port:
        """Returns the input that takes the pictures."""
        inputs = self.engine.inputs
        if len(inputs) != 1:
            said = ", ".join(map(str, inputs)) or "none"
            raise InvalidInput(
                f"{self.name} has {len(inputs)} inputs: {said}. Expected one, for the pictures; give the others values "
                "with forward_kwargs={NAME: VALUE}."
            )
        port: Port = inputs[0]
        if port.shape is not None and len(port.shape) != 4:
            raise InvalidInput(f"{self.name} takes {port}. Expected an input of four dimensions, for pictures.")
        if port.dtype.kind != "f" and port.dtype != np.uint8:
            raise InvalidInput(f"{self.name} takes {port}. Expected floating-point numbers or uint8.")
        return port

    @property
    def _last(self) -> bool:
        """Whether the channels come last."""
        if self.layout is not None or (shape := self._port.shape) is None:
            return self.layout == "NHWC"
        return shape[3] in _COLOURS and shape[1] not in _COLOURS

    def _encoded(self, inputs: Tensor) -> Tensor:
        """Returns the pictures in the graph's own order of dimensions and type."""
        if self._port.dtype == np.uint8:
            inputs = inputs.round().clamp(0, 255)
        return (inputs.permute(0, 2, 3, 1) if self._last else inputs).to(_kind(self._port.dtype))

    # ------------------------------------------------------------------------------------------------- the graph runs

    def _run(self, feeds: Mapping[str, Tensor], fetches: Sequence[str], size: tuple[int, ...]) -> list[Tensor]:
        """The tensors ``fetches`` when ``feeds`` (N, ...) are given; ``size`` (C, H, W) is that of the pictures."""
        own = {k: self._encoded(v) if k == self._port.key else v for k, v in feeds.items()}
        if ("step", size) not in self._kept:
            self.passes.forward += 6
        return self._rows(own, fetches, self._step(size))

    def _rows(self, own: Mapping[str, Tensor], fetches: Sequence[str], batch: int | None) -> list[Tensor]:
        """Returns the same in groups of ``batch``."""
        run = self._compiled({k: (batch, *v.shape[1:]) for k, v in own.items()}, fetches)
        n = len(next(iter(own.values())))
        step = batch or n
        parts = [self._part(run, [v[i : i + step] for v in own.values()], step) for i in range(0, n, step)]
        loose = self._kept.get("loose", ()) if batch == 1 and callable(self.output) else ()
        return [
            _filled_up(some) if key in loose else some[0] if len(some) == 1 else torch.cat(some)
            for key, some in zip(fetches, zip(*parts, strict=True), strict=True)
        ]

    def _part(self, run: Run, feeds: list[Tensor], step: int) -> list[Tensor]:
        """One run; rows that are missing to the number that the graph takes are filled up and cut off again."""
        n = len(feeds[0])
        full = feeds if n == step else [torch.cat([f, f[-1:].expand(step - n, *f.shape[1:])]) for f in feeds]
        try:
            found = run([f.contiguous().numpy() for f in full])
        except Exception as error:  # the libraries raise errors of many types
            if isinstance(error, SeewhyError) or out_of_memory(error):
                raise
            shape = " x ".join(map(str, feeds[0].shape))
            said = f"{self.name} refuses an input of {shape}. It says: {one_line(error)}"
            raise InputRefused(self._blaming(said)) from error
        tensors = [torch.from_numpy(a) for a in found]
        return [t[:n] if t.ndim and len(t) == step else t for t in tensors]

    def _compiled(self, feeds: Mapping[str, tuple[int | None, ...]], fetches: Sequence[str]) -> Run:
        key = (tuple(feeds.items()), tuple(fetches))
        with alone(self.engine):
            kept = self._kept.setdefault("runs", {})
            if key not in kept:
                while len(kept) > 12:
                    kept.pop(next(iter(kept)), None)
                kept[key] = self._ready(feeds, fetches)
            found: Run = kept[key]
            return found

    def _ready(self, feeds: Mapping[str, tuple[int | None, ...]], fetches: Sequence[str]) -> Run:
        try:
            run: Run = self.engine.compile(feeds, fetches)
            return run
        except Exception as error:
            if isinstance(error, SeewhyError) or out_of_memory(error):
                raise
            said = f"{self.name} cannot be made ready for an input of {next(iter(feeds.values()))}: {one_line(error)}"
            raise InputRefused(self._blaming(said)) from error

    def _sizes(self, shape: tuple[int, ...]) -> Mapping[str, Size]:
        """The shape of every tensor, where it can be found out, for pictures of this shape in the graph's own order."""
        try:
            found: Mapping[str, Size] = self.engine.sizes({self._port.key: shape})
            return found
        except Exception as error:
            if isinstance(error, SeewhyError) or out_of_memory(error):
                raise
            said = f"{self.name} cannot be made ready for an input of {shape}: {one_line(error)}"
            raise InputRefused(self._blaming(said)) from error

    def _blaming(self, said: str) -> str:
        """Returns the same, with what is more likely at fault where values of further inputs have several rows."""
        shapes = {name: np.shape(value) for name, value in self.forward_kwargs.items()}
        several = [f"{name!r} has {shape[0]} rows" for name, shape in shapes.items() if shape and shape[0] > 1]
        if not several:
            return said
        return (
            f"{said.rstrip('.: ')}. Of its further inputs {', '.join(several)}: a graph is given values that are the "
            "same for all images, one row of them. Explain the images one by one, each with a model that has its own "
            "row, or load the network that the file was made from."
        )

    # ------------------------------------------------------------------------------------------------ what comes out

    def same(self, again: Tensor, wanted: Tensor) -> bool:
        """Says whether two ways to the same scores gave the same, as far as the graph's precision allows."""
        tolerance = _EXACT if self.engine.exact else _ROUNDED
        return bool((again - wanted).abs().amax() <= tolerance * wanted.abs().amax().clamp_min(1e-6))

    def _read(self, raw: Sequence[Tensor], n: int) -> Outputs:
        """Returns the outputs for n pictures."""
        ports = self.engine.outputs
        for port, tensor in zip(ports, raw, strict=True):
            if not callable(self.output) and (tensor.ndim == 0 or len(tensor) != n):
                said = f"{self.name} returned {port.name!r} of shape {tuple(tensor.shape)} for {n} images."
                raise BadOutput(self._blaming(f"{said} Expected one row for each image."))
        named = {port.name: tensor for port, tensor in zip(ports, raw, strict=True)}
        many: Any = list(raw) if isinstance(self.output, int) else named
        whole = raw[0] if self.output is None and len(raw) == 1 else many
        chosen = select(whole, self.output)
        chosen = chosen.float() if isinstance(chosen, Tensor) and chosen.dtype.is_floating_point else chosen
        outputs = to_outputs(chosen, n, labels=self.labels)
        place = next(
            (i for i, t in enumerate(raw) if isinstance(chosen, Tensor) and t.data_ptr() == chosen.data_ptr()), None
        )
        if place is None:
            return outputs
        has_names = self.labels is not None and len(self.labels) == outputs.num_classes
        return applied(outputs, self._ending(ports[place], outputs), has_names)

    def _ending(self, port: Port, outputs: Outputs) -> Ending:
        """What the scores are, looked at once."""
        known = self._kept.setdefault("endings", {})
        if port.key not in known:
            known[port.key] = ending(self.engine.graph, port.key, port.name, outputs.scores[:, 0], self.engine.shape)
        found: Ending = known[port.key]
        return found


def _filled_up(found: Sequence[Tensor]) -> Tensor:
    """(N, M, ...) of N images that gave (M_i, ...) each, as many as there was to be found; rows of 0 fill them up."""
    return torch.stack(tuple(found)) if found[0].ndim == 0 else pad_sequence(list(found), batch_first=True)


def _alike(alone: list[Tensor], together: Tensor, share: float) -> bool:
    """Says whether the rows of one tensor are what each image gave, to within a share of the largest value."""
    if any(one.ndim == 0 or one.shape != (1, *alone[0].shape[1:]) for one in alone):
        return False
    want = torch.cat(alone)
    if want.shape != together.shape:
        return False
    gap = (want.double() - together.double()).abs()
    return want.numel() == 0 or bool(gap.amax() <= share * want.double().abs().amax())


def _kind(dtype: np.dtype[Any]) -> torch.dtype:
    return torch.from_numpy(np.empty(0, dtype)).dtype
