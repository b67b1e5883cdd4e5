"""What is known about a network and one size of input: its automatic layer, where its tokens lie, its blocks.

Everything is looked up once, with passes of one picture or a few, and remembered as long as the network lives.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from seewhy.errors import InvalidInput, NoSpatialOutput
from seewhy.maps import VOLUME, places
from seewhy.models.automatic import Maps, no_stream, nowhere
from seewhy.models.layout import Layout, Seen, fingerprint
from seewhy.models.tokens import locate, stay
from seewhy.models.torch.flow import Flow, Heard, follow
from seewhy.models.torch.head import Memory
from seewhy.models.torch.maps import is_answer, lies
from seewhy.models.torch.parts import tensors
from seewhy.models.torch.state import on
from seewhy.models.torch.trace import Step, Trace, beside, trace
from seewhy.models.turns import alone
from seewhy.registry import instead
from seewhy.types import Passes

__all__ = ["Anatomy", "anatomy"]

_MOST = 64  # looks that are kept of a network
_known: WeakKeyDictionary[nn.Module, dict[Any, Anatomy]] = WeakKeyDictionary()
_ENOUGH = 0.9  # share of a layer's tokens on which the scores must depend
_AGAIN = 4  # how often the places of tokens are looked for in a network that draws random numbers
_DEEP = 4  # how often a row of layers is halved where it is looked whether tokens keep their order


@dataclass(eq=False)
class Anatomy:
    """What was found out so far.

    Attributes:
        tokens: layouts by the length of the row of tokens.
        astray: why tokens of a length have no layout.
        flow: what every module gives; None before it was looked.
        heard: what was noticed in another pass; None before.
        traced: tokens and blocks; None before it was looked.
        auto: the automatic layer.
        active: the one for methods that look at activations alone.
        stream: (L, C) of the tokens of a transformer; (0, 0) for other networks; None before it was looked.
        maps: for each map (value, shape) why it is not the picture's, or "".
        stays: for each layer of tokens (module, call) whether they stand in the order of their layout.
        alone: for layers beside which something goes on, whether that is nothing of the picture's own tokens.
        boxes: whether the outputs have boxes; None before that was seen.
        steady: whether two passes of one picture differ; see `seewhy.models.torch.chance`.
        checked: results of checks that are made once, by name.
        heads: how what follows a layer is run.
    """

    tokens: dict[int, Layout] = field(default_factory=dict)
    astray: dict[int, NoSpatialOutput] = field(default_factory=dict)
    flow: Flow | None = None
    heard: Heard | None = None
    traced: Trace | None = None
    auto: str | None = None
    active: str | None = None
    stream: tuple[int, int] | None = None
    maps: dict[tuple[str, tuple[int, ...]], str] = field(default_factory=dict)
    stays: dict[tuple[str, int], bool] = field(default_factory=dict)
    alone: dict[str, bool] = field(default_factory=dict)
    boxes: bool | None = None
    steady: dict[Any, bool] = field(default_factory=dict)
    checked: dict[Any, bool] = field(default_factory=dict)
    heads: Memory = field(default_factory=Memory)


@dataclass(frozen=True, eq=False)
class Look:
    """Looks into a network.

    Attributes:
        network: in evaluation mode.
        inputs: (N, C, H, W); the first picture is used.
        run: one forward pass.
        scores: the network's output for n pictures -> scores.
        passes: counts the pictures that went through where ``run`` could not.
        known: what is known already; it grows.
    """

    network: nn.Module
    inputs: Tensor
    run: Callable[[Tensor], Any]
    scores: Callable[[Any, int], Tensor]
    passes: Passes
    known: Anatomy

    def flow(self) -> Flow:
        """What becomes of the picture."""
        with alone(self.network):
            if self.known.flow is None:
                self.known.flow = follow(self.network, self.inputs[:1], self.run, lambda raw: self.scores(raw, 1))
            return self.known.flow

    def seen(self) -> list[Seen]:
        """What every module gives."""
        return self.flow().seen

    def carries(self, name: str) -> bool:
        """Says whether everything that the scores know of the picture passes through a module's output."""
        return any(s.carries for s in self.seen() if s.name == name and s.kind != "enters")

    def through(self, step: Step) -> bool:
        """Says whether all that the scores know of the picture's tokens passes through a layer.

        Either all that they know of the picture does; or the layer is given tokens of which that is so, and those of
        the picture have no other way from there, as after the first norm of the last block before a class token is
        read.
        """
        if self.carries(step.name):
            return True
        if not any(s.carries for s in self.seen() if s.name == step.name):
            return False
        if step.name not in self.known.alone:
            self.known.alone[step.name] = self._alone(step)
        return self.known.alone[step.name]

    def _alone(self, step: Step) -> bool:
        last = self.calls(step.name)[-1]
        found = beside(self.network, self.inputs[:1], last, self.run, lambda raw: self.scores(raw, 1))
        self.passes.backward += 1
        prefix = self.layout(step.shape[0]).prefix
        return found is not None and len(found) == step.shape[0] and not bool(found[prefix:].any())

    def calls(self, name: str) -> list[Seen]:
        """What a module gave in each call."""
        return [s for s in self.seen() if s.name == name and s.kind != "enters"]

    def call(self, name: str) -> int | None:
        """Which call of a module counts: the last one that carries the picture's influence, or that has any."""
        own = self.calls(name)
        for some in ([s for s in own if s.carries], [s for s in own if s.live]):
            if some:
                return some[-1].call
        return None

    def traced(self) -> Trace:
        """Returns the network's tokens and blocks.

        Raises:
            InvalidInput: torch cannot differentiate the network.
        """
        with alone(self.network):
            if self.known.traced is None:
                self.known.traced = self._trace()
            return self.known.traced

    def _trace(self) -> Trace:
        if any(t.is_inference() for t in tensors(self.network)):
            raise InvalidInput(
                "The network was made inside torch.inference_mode(), so it cannot be found out which of its "
                f"tokens matter. Make or load it outside, or use {instead('scores')}."
            )
        found = trace(self.network, self.inputs[:1], self.run, lambda raw: self.scores(raw, 1))
        self.passes.backward += 1
        return found

    def layout(self, length: int) -> Layout:
        """Returns where tokens of this length lie.

        Raises:
            NoSpatialOutput: not in the picture row by row.
        """
        with alone(self.network):
            if length in self.known.astray:
                raise type(self.known.astray[length])(str(self.known.astray[length]))
            if length not in self.known.tokens:
                self._locate(length)
            return self.known.tokens[length]

    def _locate(self, length: int) -> None:
        if self.inputs.ndim == VOLUME:
            self.known.astray[length] = NoSpatialOutput(
                f"The network gives tokens ({length} of them), and where those of a volume or clip lie is not known. "
                f"Name a layer with an output (N, C, d, h, w), or use {instead('scores', volumes=True)}."
            )
            raise self.known.astray[length]
        tries = _AGAIN if self.flow().random else 1  # tokens in a random order may happen to stand in their places
        try:
            found = {
                locate(self.network, self.inputs, length, self.seen(), self.run, self.passes) for _ in range(tries)
            }
            if len(found) > 1:
                raise NoSpatialOutput(
                    f"The network's tokens ({length} of them) stand in another order in each pass, so a map cannot be "
                    f"read from them. Use a method that needs scores only: {instead('scores')}."
                )
            (self.known.tokens[length],) = found
        except NoSpatialOutput as error:
            self.known.astray[length] = error
            raise

    def auto_layer(self) -> str:
        """Returns the last layer through which all of the picture's influence passes; of tokens the last that matter.

        Raises:
            NoSpatialOutput: there is none.
        """
        if self.known.auto is None:
            self.known.auto = self._choose(lambda _: True)
        return self.known.auto

    def active_layer(self) -> str:
        """The same, but no LayerNorm (whose channels have the same mean everywhere) and no layer within a block."""
        if self.known.active is None:
            norms = {name for name, m in self.network.named_modules() if "LayerNorm" in type(m).__name__}
            blocks = () if self.stream() is None else tuple(f"{b.name}." for b in self.traced().blocks)
            plain = {s.name for s in self.seen() if s.carries} - norms
            chosen = self._token_layer(stream, plain.__contains__) if (stream := self.stream()) is not None else None
            self.known.active = chosen or self._choose(lambda n: n not in norms and not n.startswith(blocks))
        return self.known.active

    def stream(self) -> tuple[int, int] | None:
        """(L, C) of the tokens of a transformer, or None for a network whose last layer of the picture gives a map.

        Raises:
            NoSpatialOutput: its tokens do not lie in the picture row by row.
        """
        if self.known.stream is None:
            last = self._maps.last()
            found = self._stream_after(last) if self._tokens_follow(last) else None
            self.known.stream = found or (0, 0)
        return self.known.stream if self.known.stream[0] else None

    def _choose(self, wanted: Callable[[str], bool]) -> str:
        if (stream := self.stream()) is not None and (name := self._token_layer(stream, wanted)) is not None:
            return name
        return self.last_map(wanted)

    def last_map(self, wanted: Callable[[str], bool]) -> str:
        """Returns the last map of the picture of a wanted name, or of any.

        Raises:
            NoSpatialOutput: there is none.
        """
        last = self._maps.last(wanted) or self._maps.last()
        if last is None:
            raise NoSpatialOutput(self._none())
        return last.name

    @property
    def _maps(self) -> Maps:
        return Maps([s for s in self.seen() if s.kind == "map"], self, self.known.maps)

    def keeps_places(self, one: Seen) -> bool:
        """See `Trials`."""
        return self.flow().keeps_places(one.value)

    def moves(self, one: Seen, source: Seen | None) -> bool:
        """See `Trials`."""
        return lies(self.network, self.inputs[:1], one, source, self.run, self.passes)

    def answers(self, one: Seen, channels: int) -> bool:
        """See `Trials`; only what has as many channels as there are classes is tried."""
        as_many = channels in self.flow().classes
        return as_many and is_answer(self.network, self.inputs[:1], one, channels, self.run, self.scores)

    def passed_by(self, one: Seen) -> bool:
        """See `Trials`: two pictures have the same scores where the map of one takes the other's place."""
        calls, two = 0, torch.cat([self.inputs[:1], self.inputs[:1].flip(places(self.inputs)) * 0.5 + 0.1])

        def same(_module: nn.Module, _args: Any, output: Tensor) -> Tensor | None:
            nonlocal calls
            calls += 1
            return output[:1].expand_as(output).clone() if calls == one.call else None

        with alone(self.network), torch.no_grad(), on(self.network.get_submodule(one.name), after=same):
            scores = self.scores(self.run(two), 2).double()
        apart = (scores[0] - scores[1]).abs().max()
        return bool(apart > 1e-4 * scores.abs().max())

    def _tokens_follow(self, last: Seen | None) -> bool:
        """True where a transformer comes after the last map, not only one attention that sums it up."""
        seen = self.seen()
        start = 0 if last is None else seen.index(last) + 1
        if sum(s.kind == "tokens" and s.live for s in seen[start:]) <= 2:
            return False
        found = self.traced()
        return last is None or bool(found.blocks) or found.attentions != 1

    def _stream_after(self, last: Seen | None) -> tuple[int, int] | None:
        """(L, C) of the last residual stream whose tokens stand for places and matter to the scores."""
        found = self.traced()
        for shape in _streams(found):
            with suppress(NoSpatialOutput):  # queries, for example; the picture's own tokens or maps come before them
                self.layout(shape[0])
            if shape[0] not in self.known.tokens:
                continue
            if self._token_layer(shape, lambda _: True) is not None:
                return shape
        if last is None:
            raise NoSpatialOutput(self._no_tokens(found))
        return None

    def _token_layer(self, stream: tuple[int, int], wanted: Callable[[str], bool]) -> str | None:
        for step in reversed(self.traced().steps):
            if step.shape != stream or self._inner(step) or not wanted(step.name):
                continue
            if self._matter(step) and self.through(step) and self.stays(step.name, stream[0]):
                return step.name
        return None

    def stays(self, name: str, length: int) -> bool:
        """Whether the tokens of a layer stand in the order that was found where tokens of this length come up first.

        They may be sorted in between, as by windows. In a deep network everything may move everything; step by step,
        from one tensor through which everything passes to the next, it can still be seen.
        """
        own = [s for s in self.calls(name) if s.shape[:2] == (1, length) and s.live]
        if not own:
            return False
        one = own[-1]
        with alone(self.network):
            if (one.name, one.call) not in self.known.stays:
                seen = self.seen()
                alike = [s for s in seen[: seen.index(one)] if s.shape[:2] == (1, length) and s.kind != "map"]
                before = [s for s in alike if s.carries and s.kind != "other"]
                chain = list({s.value: s for s in reversed(before) if s.value != one.value}.values())[::-1]
                self.known.stays[one.name, one.call] = not chain or self._stay([*chain, one], _DEEP)
            return self.known.stays[one.name, one.call]

    def check_order(self, name: str, length: int) -> None:
        """Raises NoSpatialOutput where the tokens of a layer stand in another order; see `stays`."""
        if not self.stays(name, length):
            raise NoSpatialOutput(
                f"The tokens of layer {name!r} ({length} of them) do not stand in the order in which they came of the "
                "picture, as where they are sorted by windows, so a map cannot be read from them. Choose an earlier "
                f"layer, or use {instead('scores')}."
            )

    def _stay(self, chain: list[Seen], depth: int) -> bool:
        layout = self.known.tokens[chain[-1].shape[1]]
        if stay(self.network, self.inputs[:1], layout, chain[0], chain[-1], self.run, self.passes):
            return True
        middle = len(chain) // 2
        if not depth or len(chain) < 3:
            return False
        return self._stay(chain[: middle + 1], depth - 1) and self._stay(chain[middle:], depth - 1)

    def _inner(self, step: Step) -> bool:
        """Says whether a layer is a part of an attention."""
        return step.name.startswith(tuple(f"{name}." for name in self.traced().attention_modules))

    def _matter(self, step: Step) -> bool:
        """Says whether the scores depend on the tokens of the picture; their places are known."""
        length, prefix = step.shape[0], self.known.tokens[step.shape[0]].prefix
        return int(step.matters[prefix:].sum()) >= _ENOUGH * (length - prefix)

    def _no_tokens(self, found: Trace) -> str:
        if self._sides():
            return self._none()
        for length, _ in _streams(found):
            if (layout := self.known.tokens.get(length)) is not None:
                return no_stream(length, layout.prefix)
        return str(next(iter(self.known.astray.values()), self._none()))

    def _none(self) -> str:
        """Says that there is no layer, and which come into question."""
        if not self.flow().reached:
            return (
                "The scores do not come from the picture through operations of torch that could be seen, so no layer "
                f"can be chosen. Name a layer, or use {instead('scores')}."
            )
        maps = [s for s in self.seen() if (s.kind == "map" and s.live) or s in self._sides()]
        if not maps and self.flow().strangers:
            kinds = ", ".join(self.flow().strangers)
            return (
                f"The network's layers ({kinds}) are no part of it, as those in a plain list are, so none "
                f"can be named. Keep them in a torch.nn.ModuleList, or use {instead('scores')}."
            )
        return nowhere(maps, self.flow().graph, self._maps.astray())

    def _sides(self) -> list[Seen]:
        """Tokens in known places on which the scores depend, but not on these alone."""
        if self.known.traced is None:
            return []
        steps = [s for s in self.known.traced.steps if s.shape[0] in self.known.tokens and not self._inner(s)]
        matter = {s.name for s in steps if self._matter(s)}
        return [s for s in self.seen() if s.kind == "tokens" and s.live and s.name in matter]


def _streams(found: Trace) -> list[tuple[int, int]]:
    """(L, C) of residual streams, the last first: of blocks, or where there are none the most common at the end."""
    if not found.steps:
        return []
    whole = [b for b in found.blocks if b.size[0] == b.size[1]] or found.blocks  # one class token is no stream
    if whole:
        return list(dict.fromkeys(found.step(b.name).shape for b in reversed(whole)))
    return [Counter(s.shape for s in found.steps[-12:]).most_common(1)[0][0]]


def anatomy(network: nn.Module, inputs: Tensor, output: Any = None) -> Anatomy:
    """What is known about the network for inputs of this size.

    Args:
        network: the module.
        inputs: (N, C, H, W).
        output: which of its outputs has the scores; others come out of other layers.
    """
    half = torch.is_autocast_enabled(inputs.device.type)
    read = output if isinstance(output, Hashable) else id(output)
    key = (fingerprint(network), tuple(inputs.shape[1:]), inputs.dtype, inputs.device, half, read)
    known = _known.setdefault(network, {})
    found = known.setdefault(key, Anatomy())
    while len(known) > _MOST:  # sizes, or functions that are made anew for each call
        known.pop(next(iter(known)), None)
    return found
