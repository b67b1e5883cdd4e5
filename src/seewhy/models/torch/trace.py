"""What happens to a network's tokens, seen in one forward and one backward pass of one picture.

The forward pass says which modules give tokens and which of them hold one attention each: the blocks. The backward
pass says which tokens of a layer the scores depend on. After the last block of a network with a class token that is
the class token alone, and a map made from the other tokens there would be all zero.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from seewhy.models.layout import Seen, is_tokens
from seewhy.models.torch.attention import Attention, Query
from seewhy.models.torch.state import frozen, on
from seewhy.models.turns import alone

__all__ = ["Block", "Step", "Trace", "beside", "trace"]


@dataclass(frozen=True, eq=False)
class Step:
    """A module that gave tokens.

    Attributes:
        name: of the module.
        shape: (L, C) of its output.
        matters: (L,) bool, on which of its tokens the scores depend.
    """

    name: str
    shape: tuple[int, int]
    matters: Tensor


@dataclass(frozen=True)
class Block:
    """A module with tokens in, tokens out and one attention.

    Attributes:
        name: of the module.
        entered: the name of the layer whose output it takes, or None where functional code made it.
        attention: the innermost module that calls the attention.
        size: queries and keys of that attention.
        length: how many tokens the module takes and gives.
        norms: modules of the block that take its own input and cancel any factor in it.
    """

    name: str
    entered: str | None
    attention: str
    size: tuple[int, int]
    length: int
    norms: tuple[str, ...] = ()

    @property
    def mixes(self) -> bool:
        """Whether the attention is from each token to each (not among channels, in windows, or from one token)."""
        return self.size == (self.length, self.length)


@dataclass(frozen=True, eq=False)
class Trace:
    """What was seen of a network's tokens.

    Attributes:
        steps: in the order of execution, innermost first.
        blocks: in the same order.
        attentions: how many attentions ran.
        attention_modules: the innermost modules in which they ran.
    """

    steps: list[Step]
    blocks: list[Block]
    attentions: int
    attention_modules: tuple[str, ...]

    def step(self, name: str) -> Step:
        """Returns the last step of this name."""
        return next(s for s in reversed(self.steps) if s.name == name)


@dataclass(eq=False)
class _Call:
    name: str
    module: nn.Module
    given: list[Tensor]
    output: Any = None
    attentions: list[tuple[str, tuple[int, int]]] = field(default_factory=list)

    @property
    def source(self) -> Any:
        return self.given[0] if self.given else None


@dataclass(eq=False)
class _Recorder:
    """Hooks that note calls, and the attention in them."""

    open: list[_Call] = field(default_factory=list)
    done: list[_Call] = field(default_factory=list)
    attentions: int = 0
    attending: list[str] = field(default_factory=list)

    def enter(self, name: str) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
            self.open.append(_Call(name, module, [a for a in (*args, *kwargs.values()) if isinstance(a, Tensor)]))

        return hook

    def leave(self, _module: nn.Module, _args: Any, output: Any) -> Tensor | None:
        call = self.open.pop()
        if not is_tokens(output) or len(output) != 1:
            return None
        call.output = output.clone()  # what follows may change it in place
        self.done.append(call)
        given: Tensor = call.output
        return given

    def attend(self, query: Query) -> None:
        self.attentions += 1
        self.attending += [call.name for call in self.open[-1:]]
        for call in self.open:
            call.attentions.append((self.open[-1].name, query.size))


def trace(network: nn.Module, image: Tensor, run: Callable[[Tensor], Any], scores: Callable[[Any], Tensor]) -> Trace:
    """Runs one picture (1, C, H, W) forward and backward.

    Args:
        network: in evaluation mode.
        image: the picture.
        run: one forward pass of the network.
        scores: its output -> scores.
    """
    recorder = _Recorder()
    with alone(network), ExitStack() as stack:
        for name, module in network.named_modules():
            if name:
                stack.enter_context(on(module, before=recorder.enter(name), after=recorder.leave, named=True))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(frozen(network))
        stack.enter_context(Attention(recorder.attend))
        found = scores(run(image.detach().clone().requires_grad_()))
    calls = recorder.done
    steps = [
        Step(call.name, (call.output.shape[1], call.output.shape[2]), matters)
        for call, matters in zip(calls, _influence(found, [c.output for c in calls]), strict=True)
    ]
    return Trace(steps, _blocks(calls), recorder.attentions, tuple(dict.fromkeys(recorder.attending)))


def beside(
    network: nn.Module, image: Tensor, layer: Seen, run: Callable[[Tensor], Any], scores: Callable[[Any], Tensor]
) -> Tensor | None:
    """Which of the tokens (L,) that a layer is given reach the scores another way than through it; None for no tokens.

    Args:
        network: in evaluation mode.
        image: (1, C, H, W).
        layer: the module, and which call of it.
        run: one forward pass of the network.
        scores: its output -> scores.
    """
    given: list[Tensor] = []
    calls = 0

    def enter(_module: nn.Module, args: Any) -> None:
        if calls == layer.call - 1 and is_tokens(args[0]):
            given.append(args[0])

    def leave(_module: nn.Module, _args: Any, output: Tensor) -> Tensor | None:
        nonlocal calls
        calls += 1
        return output.detach() if calls == layer.call else None

    with alone(network), ExitStack() as stack:
        stack.enter_context(on(network.get_submodule(layer.name), before=enter, after=leave))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(frozen(network))
        found = scores(run(image.detach().clone().requires_grad_()))
    return _influence(found, given)[0] if given else None


def _influence(scores: Tensor, outputs: list[Tensor]) -> list[Tensor]:
    """For each output (1, L, C) the tokens (L,) on which the scores depend."""
    generator = torch.Generator().manual_seed(0)
    weights = (1 + torch.rand(scores.shape, generator=generator)).to(scores) * 1024  # kept away from underflow
    nothing = [torch.zeros(o.shape[1], dtype=torch.bool) for o in outputs]
    live = [i for i, o in enumerate(outputs) if o.requires_grad]
    if not live or not scores.requires_grad:
        return nothing
    with torch.enable_grad():
        found: Any = torch.autograd.grad((scores * weights).sum(), [outputs[i] for i in live], allow_unused=True)
    for i, gradient in zip(live, found, strict=True):
        if gradient is not None:
            nothing[i] = (gradient[0] != 0).any(1).cpu()
    return nothing


def _blocks(calls: list[_Call]) -> list[Block]:
    alike = [c for c in calls if len(c.attentions) == 1 and is_tokens(c.source) and c.source.shape == c.output.shape]
    names = {c.name for c in alike}
    outer = [c for c in alike if not any(c.name.startswith(f"{name}.") for name in names)]
    once = Counter(c.name for c in outer)
    return [
        Block(c.name, _entered(c, calls), c.attentions[0][0], c.attentions[0][1], c.output.shape[1], _norms(c, calls))
        for c in outer
        if once[c.name] == 1
    ]


def _norms(block: _Call, calls: list[_Call]) -> tuple[str, ...]:
    """Returns the outermost modules of a block that normalise its own input."""
    inner = [c for c in calls if c.source is block.source and c.name.startswith(f"{block.name}.")]
    names = [c.name for c in inner if not c.attentions and _normalises(c)]
    return tuple(name for name in names if not any(name.startswith(f"{other}.") for other in names))


def _normalises(call: _Call) -> bool:
    """Says whether four times the input gives the same output: anything linear would give four times as much."""
    if call.source.shape != call.output.shape or len(call.given) > 1:
        return False
    with torch.no_grad():
        once, more = (call.module.forward(factor * call.source.detach()) for factor in (1, 4))
        return bool((more - once).norm() < once.norm())


def _entered(block: _Call, calls: list[_Call]) -> str | None:
    return next((c.name for c in reversed(calls) if c.output is block.source), None)
