"""A torch module as a model: scores, features at any layer, gradients. The module is left exactly as it was found."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from seewhy.errors import BadOutput, InputRefused, InvalidInput, NoSpatialOutput, SeewhyError, out_of_memory
from seewhy.maps import PICTURE, VOLUME
from seewhy.models import Features, Gradients, PooledLinear, ending, paired
from seewhy.models.layout import UnlocatedTokens, check_name
from seewhy.models.reading import Selector, check_size, select, to_outputs
from seewhy.models.sharing import Signature, shared
from seewhy.models.torch import ending as endings
from seewhy.models.torch.anatomy import Look, anatomy
from seewhy.models.torch.calling import calling
from seewhy.models.torch.chance import WAVERS, random_numbers, wavers
from seewhy.models.torch.detectors import Candidates
from seewhy.models.torch.flow import overhear
from seewhy.models.torch.further_inputs import Further, arrange, plain
from seewhy.models.torch.gradients import gradients
from seewhy.models.torch.head import Head
from seewhy.models.torch.parts import like, tensors, walk
from seewhy.models.torch.passes import Block, signature
from seewhy.models.torch.pooled_head import Tape
from seewhy.models.torch.refusal import check_frames, refusal
from seewhy.models.torch.state import frozen, hooked, untouched, untouched_by_pass
from seewhy.models.torch.transformer import TorchTransformer, transformer
from seewhy.models.torch.watching import Watch, checkpointed, several
from seewhy.models.turns import alone, running, using
from seewhy.registry import instead
from seewhy.types import Outputs, Passes

__all__ = ["TorchModel"]

_SPATIAL = ("map", "tokens")  # kinds of what layers give that may lie in the picture
_ears = threading.local()  # what this thread's next pass is to be listened to for


@dataclass(frozen=True, eq=False)
class TorchModel:
    """A torch module as a model.

    Attributes:
        network: (N, C, H, W) -> (N, K); a compiled one is run uncompiled, so that its layers can be seen.
        output: where the scores are in what it returns (a name, an index, a callable), if that is not obvious.
        forward_kwargs: further arguments of its forward: tensors with one row an image or one for all, or anything
            else, which is passed as it is; see `seewhy.models.torch.further_inputs`.
        input_name: the argument of its forward that takes the pictures, or the key where it takes one dictionary; by
            default it is read from the signature.
        labels: class names.
        preprocessing: how a picture becomes its input.
        title: its name in reports; by default that of its class.
        notes: what was decided while it was loaded.

    Example:
        >>> model = TorchModel(network, labels=tuple("abcde"))
        >>> with model.opened():
        ...     model.features(inputs, "auto").layer
        'act2'
    """

    network: nn.Module
    output: Selector = field(default=None, kw_only=True)
    forward_kwargs: Mapping[str, Any] = field(default_factory=dict, kw_only=True)
    input_name: str | None = field(default=None, kw_only=True)
    labels: tuple[str, ...] | None = field(default=None, kw_only=True, repr=False)
    preprocessing: Any = field(default=None, kw_only=True)
    title: str | None = field(default=None, kw_only=True)
    notes: tuple[str, ...] = field(default=(), kw_only=True)
    passes: Passes = field(default_factory=Passes, kw_only=True, repr=False)

    @property
    def name(self) -> str:
        """The title, or the class of the network."""
        own = self.module
        return self.title or (own.title if isinstance(own, Candidates) else type(own).__name__)

    @property
    def module(self) -> nn.Module:
        """The network without torch.compile's wrapper."""
        inner = getattr(self.network, "_orig_mod", None)
        return inner if isinstance(inner, nn.Module) else self.network

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Evaluation mode, no graph, no inference mode; afterwards everything as it was.

        Several threads may be in such blocks at the same time: passes go side by side where that is right, and the last
        thread to leave puts back what the first found.

        Raises:
            InvalidInput: images of a batch see each other.
        """
        with ExitStack() as stack:
            if torch.is_inference_mode_enabled():
                stack.enter_context(torch.inference_mode(False))
            stack.enter_context(using(self.module))
            stack.enter_context(untouched(self.module))
            stack.enter_context(torch.no_grad())
            yield

    def bound(self, inputs: Tensor, total: int = 0) -> TorchModel:
        """The model for a batch (N, C, H, W), with what is known about how the further arguments go with its images.

        Args:
            inputs: the images; the first time a few passes are made where the further arguments have rows.
            total: how many images the arguments are for, where they will come one by one; ``inputs`` is one of them.

        Raises:
            InvalidInput, InputRefused: the arguments do not fit; see the message.
        """
        known = self.forward_kwargs
        if isinstance(known, Further):
            return replace(self, forward_kwargs=known.of(len(inputs)))
        if not known:
            return self

        def trial(images: Tensor, further: Further) -> Tensor:
            return replace(self, forward_kwargs=further)(images).scores

        return replace(self, forward_kwargs=arrange(self.module, known, inputs, trial, total))

    def at(self, rows: Tensor) -> TorchModel:
        """Returns the model for changed copies of a batch: row r of them belongs to row ``rows[r]`` of that batch."""
        known = self.forward_kwargs
        return replace(self, forward_kwargs=known.at(rows)) if isinstance(known, Further) and known.ways else self

    def picture_in(self, given: Mapping[str, Any]) -> str:
        """Which of the arguments in a dictionary is the pictures.

        Raises:
            InvalidInput: none is named so.
        """
        pictures = [n for n, one in given.items() if isinstance(one, Tensor) and one.ndim in (PICTURE, VOLUME)]
        if self.input_name is not None or len(pictures) != 1:
            pictures = [name for name in given if name == (self.input_name or "pixel_values")]
        if not pictures:
            raise InvalidInput(
                f"Which of the arguments {', '.join(map(repr, given))} is the pictures is not clear. Say so: "
                "seewhy.load(network, input_name=...)."
            )
        return pictures[0]

    @property
    def _loose(self) -> bool:
        """Whether it has yet to be found out how the further arguments go with the images."""
        return bool(self.forward_kwargs) and not isinstance(self.forward_kwargs, Further)

    def check(self, inputs: Tensor) -> None:
        """Raises InvalidInput where the inputs' dtype or device is not the network's."""
        check_size(inputs, self.output)
        check_frames(self.module, self.name, inputs)
        first = like(self.module)
        if first is None:
            return
        if first.device != inputs.device:
            raise InvalidInput(
                f"The network is on {first.device}, the input on {inputs.device}. Use inputs.to({str(first.device)!r})."
            )
        if torch.is_autocast_enabled(inputs.device.type):
            return
        if first.dtype != inputs.dtype:
            want, got = (str(d).removeprefix("torch.") for d in (first.dtype, inputs.dtype))
            raise InvalidInput(f"The network is {want}, the input {got}. Use inputs.to(torch.{want}).")

    def __call__(self, inputs: Tensor) -> Outputs:
        """One forward pass without gradients, in evaluation mode also where nobody has opened the model."""
        with untouched_by_pass(self.module), torch.no_grad():
            return self.read(self._run(inputs), inputs.shape[0])

    def layers(self) -> list[str]:
        """Every module's name."""
        return [name for name, _ in self.module.named_modules() if name]

    def auto_layer(self, inputs: Tensor) -> str:
        """Returns the layer that "auto" means for these inputs; the first time it costs a forward pass of one image."""
        return self._resolve(inputs, "auto")

    def stages(self, inputs: Tensor) -> list[str]:
        """Returns the layers that carry everything, first to last; the first time it costs what `auto_layer` does."""
        return list({s.value: s.name for s in self.look(inputs).seen() if s.carries and s.kind in _SPATIAL}.values())

    def features(self, inputs: Tensor, layer: str = "auto") -> Features:
        """One forward pass; see `FeatureModel`.

        Raises:
            UnknownLayer: there is no such layer, or it did not run.
            NoSpatialOutput: it has no height and width.
        """
        if self._loose:
            return self.bound(inputs).features(inputs, layer)
        name = self._resolve(inputs, layer)
        if name == "":
            return Features(maps=inputs, outputs=self(inputs), layer="", inputs=inputs)
        return shared(lambda: self._features(inputs, name), self._signature, inputs, name, self.passes)

    def _features(self, inputs: Tensor, name: str) -> Features:
        with alone(self.module), torch.no_grad():
            watch, raw = self._watched(inputs, name, Watch.keep, self._recorder(inputs, name))
        return self._seen(watch, self.read(raw, inputs.shape[0]), self._linear(watch.tape, raw))

    def _recorder(self, inputs: Tensor, name: str) -> Callable[[int | None], Any]:
        return partial(anatomy(self.module, inputs, self.output).heads.recorder, self.module, name, inputs)

    def _signature(self) -> Signature | None:
        known = self.forward_kwargs  # they go with the images
        return None if known else signature(self.module, self.output, self.labels, self.input_name)

    def _seen(self, watch: Watch, outputs: Outputs, linear: PooledLinear | None) -> Features:
        """What a pass gave, as far as it is not to be differentiated."""
        inputs, name = watch.inputs, watch.layer
        memory = anatomy(self.module, inputs, self.output).heads
        own, layout = watch.map().detach(), watch.layout
        prefix = own[:, : layout.prefix] if layout.kind == "tokens" else None
        if linear is not None:
            memory.closed.add(name)
        head = Head(
            self.module, self._cuttable(), self._rows, self.read, self._count, layout, watch.at or watch.calls,
            self.again, memory, watch.recording(), prefix,
        )  # fmt: skip
        return Features(
            maps=layout.to_maps(own), outputs=outputs, layer=name, inputs=inputs, linear=linear,
            warnings=watch.warnings, state=head, prefix=layout.prefix if layout.kind == "tokens" else None,
        )  # fmt: skip

    def from_features(self, features: Features, maps: Tensor, rows: Tensor) -> Outputs:
        """Returns the rest of the network from the layer on; see `FeatureModel`."""
        with torch.no_grad():
            return self(maps) if features.layer == "" else features.state(features, maps, rows)

    def active_layer(self, inputs: Tensor) -> str:
        """Returns the automatic layer of methods that look at activations alone: no LayerNorm's output."""
        return self._own_layer() or self.look(inputs).active_layer()

    def transformer(self, inputs: Tensor) -> TorchTransformer:
        """Returns the network's blocks and tokens; see `TransformerModel`."""
        return transformer(self.bound(inputs) if self._loose else self, inputs)

    def read(self, raw: Any, n: int) -> Outputs:
        """Returns the outputs for n pictures in what the network returned."""
        outputs = to_outputs(raw, n, self.output, self.labels)
        return ending.applied(outputs, endings.known(self.module, self.output), self._named(outputs))

    def _named(self, outputs: Outputs) -> bool:
        """Says whether each score has a class name."""
        return self.labels is not None and len(self.labels) == outputs.num_classes

    def gradients(self, inputs: Tensor, pick: Callable[[Outputs], Tensor], layer: str = "auto") -> Gradients:
        """One forward pass with a graph from ``layer`` upwards only; see `GradientModel`.

        Nothing below the layer needs a gradient, so torch keeps nothing of it and its backward pass stops there.
        """
        name = self._resolve(inputs, layer)
        self._check_quantised(inputs)
        block = Block(self.module, self._signature, self.passes, inputs, name)
        if (again := block.again(pick)) is not None:
            known, leaf, values = again
            of = self._differentiate(values, leaf, lambda found: found, known.prefix is not None, name)
            made = {n: getattr(known, n) for n in ("maps", "outputs", "layer", "linear", "warnings")}
            return Gradients(values=values, of=of, **made)
        with alone(self.module), self._differentiable(), torch.enable_grad(), frozen(self.module):
            if name == "":
                watch = Watch(inputs, name, dict)
                raw = self._run(watch.leaf(inputs))
            else:
                recorder = self._recorder(inputs, name) if block.open else None
                watch, raw = self._watched(inputs, name, Watch.branch, recorder)
            outputs = self.read(raw, inputs.shape[0])
            values = pick(outputs)
        leaf, layout, linear = watch.map(), watch.layout, self._linear(watch.tape, raw)
        if not values.requires_grad:
            raise InvalidInput(
                f"The scores do not depend on {_layer(name)} through operations that torch can differentiate "
                f"(the network may run under torch.no_grad() itself). Use {instead('features')}."
            )
        outputs = replace(outputs, scores=outputs.scores.detach())
        block.keep(lambda: self._seen(watch, outputs, linear))
        return Gradients(
            maps=layout.to_maps(leaf.detach()), outputs=outputs, values=values,
            of=self._differentiate(values, leaf, layout.to_maps, layout.kind == "tokens", name),
            layer=name, linear=linear, warnings=watch.warnings,
        )  # fmt: skip

    def _differentiate(
        self, values: Tensor, leaf: Tensor, to_maps: Callable[[Tensor], Tensor], tokens: bool, name: str
    ) -> Callable[[int], Tensor]:
        def of(t: int) -> Tensor:
            self.passes.backward += len(leaf)
            with torch.enable_grad():
                value = values[:, t].sum()  # images do not see each other, so one backward pass serves them all
            with self._differentiable():
                maps = to_maps(whole := gradients(value, [leaf], keep=t + 1 < values.shape[1])[0])
            if tokens and not bool(maps.any()) and bool(whole.any()):  # a score of exactly 0 or 1 has no slope at all
                raise NoSpatialOutput(
                    f"The scores do not depend on the picture's tokens after layer {name!r}: what follows reads other "
                    "tokens alone, such as the class token. Use layer='auto' or an earlier layer."
                )
            return maps

        return of

    def _check_quantised(self, inputs: Tensor) -> None:
        """Raises where the scores come from quantised layers, through which torch lets no gradient pass."""
        if not any("quantized" in type(m).__module__ for m in walk(self.module)):
            return
        kinds = self.look(inputs).flow().quantised
        if kinds:
            raise InvalidInput(
                f"{self.name} has quantised layers ({', '.join(kinds)}), which torch does not differentiate: a "
                f"gradient would be zero or leave them out. Use {instead('features')}, or the network before it was "
                "quantised."
            )

    @contextmanager
    def _differentiable(self) -> Iterator[None]:
        """Says so where torch refused because the network was made in inference mode, or checkpoints activations."""
        try:
            yield
        except (RuntimeError, InputRefused) as error:
            if "checkpoint" in f"{error} {error.__cause__}".lower():
                raise InvalidInput(checkpointed(self.name)) from error
            if any(t.is_inference() for t in tensors(self.module)):
                raise InvalidInput(
                    f"{self.name} was made inside torch.inference_mode(), so torch cannot differentiate it. Make or "
                    f"load it outside, or use {instead('features')}."
                ) from error
            raise

    def _linear(self, tape: Tape, raw: Any) -> PooledLinear | None:
        # A callable may pick, reorder or change the scores: then the head's own rows are not the classes.
        scores = None if callable(self.output) else select(raw, self.output)
        return paired(tape.head(scores), self.labels) if isinstance(scores, Tensor) else None

    def _resolve(self, inputs: Tensor, layer: str) -> str:
        check_name(self.module, layer)
        return (self._own_layer() or self.look(inputs).auto_layer()) if layer == "auto" else layer

    def _own_layer(self) -> str | None:
        """The layer that an adapted detector names: what runs last in a detector is a head of its coarsest level."""
        return self.module.map_layer if isinstance(self.module, Candidates) else None

    def look(self, inputs: Tensor) -> Look:
        """What is known, or can be found out, about the network for inputs of this size."""
        if self._loose:
            return self.bound(inputs).look(inputs)
        module, known = self.module, anatomy(self.module, inputs, self.output)

        def run(images: Tensor) -> Any:
            raw = self._rows(images, torch.zeros(len(images), dtype=torch.long, device="cpu"))  # copies of the first
            found = select(raw, self.output)
            known.boxes = isinstance(found, Outputs) and found.boxes is not None
            return raw

        return Look(module, inputs, run, lambda raw, n: self.read(raw, n).scores, self.passes, known)

    @contextmanager
    def listening(self, inputs: Tensor) -> Iterator[None]:
        """The first pass in this block is listened to, where nothing is known yet; see `Noticing`."""
        known = None if isinstance(self.module, Candidates) else anatomy(self.module, inputs, self.output)
        before = getattr(_ears, "known", None)
        _ears.known = None if known is None or known.flow or known.heard else (self.module, known)
        try:
            yield
        finally:
            _ears.known = before

    def noticed(self, inputs: Tensor) -> tuple[str, ...]:
        """What the network does that the reader of any map should know; see `Noticing`."""
        known, said = anatomy(self.module, inputs, self.output), list[str]()
        flow = known.flow or known.heard
        if flow is None:
            return ()
        if flow.random:
            said.append(random_numbers(self.name, flow.random))
        elif wavers(self.module, flow.drawn, known.steady, lambda: self.bound(inputs), inputs[:1]):
            said.append(WAVERS.format(name=self.name))
        if flow.strangers:
            said.append(
                f"{self.name} runs modules that are no part of it ({', '.join(flow.strangers)}), as those in a plain "
                "list are: they cannot be named as a layer. Keep them in a torch.nn.ModuleList."
            )
        return tuple(said)

    def detects(self, inputs: Tensor) -> bool:
        """Says whether its outputs have boxes; the first time it costs the pass that `auto_layer` would make."""
        if isinstance(self.module, Candidates):
            return True
        look = self.look(inputs)
        if look.known.boxes is None:
            look.seen()
        return bool(look.known.boxes)

    def _watched(self, inputs: Tensor, name: str, hook: Callable[..., Any], recorder: Any = None) -> tuple[Watch, Any]:
        """One forward pass with ``hook`` on a layer; a second one where the layer's tokens were not known before."""
        look = cache(partial(self.look, inputs))  # only for tokens, and for modules that run several times
        at: int | None = None
        while True:
            watch = Watch(inputs, name, lambda: look().known.tokens, at, recorder and recorder(at))
            try:
                with hooked(self.module, name, partial(hook, watch)), watch:
                    raw = self._run(inputs)
            except UnlocatedTokens as asked:
                self._count(inputs.shape[0])
                look().layout(asked.length)
                continue
            if at is None and watch.calls > 1:
                at = look().call(name) or watch.calls
                if at != watch.calls:
                    continue
            watch.check()
            if watch.layout.kind == "tokens":
                look().check_order(name, watch.map().shape[1])
            if watch.calls > 1:
                watch.warnings += several(name, look().calls(name), at or watch.calls)
            if isinstance(self.module, Candidates):
                watch.warnings += self.module.padding((inputs.shape[2], inputs.shape[3]))
            return watch, raw

    def run(self, inputs: Tensor) -> Any:
        """What the network returns for a batch (N, C, H, W)."""
        return self._run(inputs)

    def _rows(self, inputs: Tensor, rows: Tensor) -> Any:
        """What it returns for changed copies, row r of image ``rows[r]``."""
        return self.at(rows)._run(inputs)

    def again(self, inputs: Tensor, rows: Tensor) -> Any:
        """What it returns for such copies in a pass that is a replay: the caller sees to it that none is changed."""
        model = self.at(rows)
        further = dict(model.forward_kwargs)
        return calling(self.module, self.name, self.input_name, further)(self.module, inputs, further)

    def _cuttable(self) -> dict[str, Any] | None:
        """The further arguments with which the network can be cut; None where it cannot: they go with the images."""
        known = self.forward_kwargs
        plain = calling(self.module, self.name, self.input_name, known).name is None
        return dict(known) if plain and not (isinstance(known, Further) and known.ways) else None

    def _run(self, inputs: Tensor) -> Any:
        known = self.forward_kwargs
        if not isinstance(known, Further) and not plain(known, len(inputs)):
            return self.bound(inputs)._run(inputs)
        further = dict(known.of(len(inputs)) if isinstance(known, Further) else known)
        call = calling(self.module, self.name, self.input_name, further)
        try:
            with running(self.module):  # on a copy: a network may change its input in place
                raw = self._heard(inputs.clone(), lambda own: self._ended(lambda: call(self.module, own, further)))
        except (RuntimeError, ValueError, IndexError, AssertionError, TypeError, AttributeError, KeyError) as error:
            if isinstance(error, SeewhyError) or out_of_memory(error):
                raise
            raise InputRefused(refusal(self.module, self.name, inputs, further, error)) from error
        self._count(inputs.shape[0])
        return raw

    def _ended(self, run: Callable[[], Any]) -> Any:
        """What a pass gives; where it is not known yet what the scores are, that is noted."""
        if endings.known(self.module, self.output) is not None:
            return run()
        with endings.Recorder() as recorder:
            raw = run()
        self._note(raw, recorder)
        return raw

    def _note(self, raw: Any, recorder: endings.Recorder) -> None:
        """Remembers what the scores are, as the operations show it; what was picked by a callable is the caller's."""
        chosen = None if callable(self.output) else _chosen(raw, self.output)
        if isinstance(chosen, Tensor) and chosen.ndim == 2 and chosen.dtype.is_floating_point:
            endings.keep(self.module, self.output, recorder.ending(self.module, raw, chosen))
        else:
            endings.keep(self.module, self.output, ending.Ending("unknown"))

    def _heard(self, inputs: Tensor, call: Callable[[Tensor], Any]) -> Any:
        """What a pass gives; it is listened to where somebody waits for that."""
        module, known = getattr(_ears, "known", None) or (None, None)
        if module is not self.module or known is None or known.flow or known.heard:
            return call(inputs)
        raw, known.heard = overhear(module, inputs, lambda: call(inputs), lambda r: self.read(r, len(inputs)).scores)
        return raw

    def _count(self, n: int) -> None:
        self.passes.forward += n


def _chosen(raw: Any, selector: Selector) -> Any:
    try:
        return select(raw, selector)
    except BadOutput:  # is said when the output is read
        return None


def _layer(name: str) -> str:
    return f"layer {name!r}" if name else "the input"
