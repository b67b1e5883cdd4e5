"""A torch.export archive as a model.

With a free batch dimension its modules are put together again as they were, so that it has layers and gradients like
any torch module. With a fixed one it gives scores only, in groups of that many images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from seewhy.errors import InvalidInput, NoSpatialOutput, one_line
from seewhy.models import Model
from seewhy.models.digest import digest
from seewhy.models.exported.model import Engine, ExportedModel, Port, Run
from seewhy.models.exported.program_file import read
from seewhy.models.graph import Graph, Size
from seewhy.models.torch.model import TorchModel
from seewhy.models.turns import process

__all__ = ["ProgramScores", "as_network"]


def as_network(program: Any, path: Path, trust: bool = False) -> Model:
    """Returns the model in a loaded archive, which was read with ``trust``.

    Raises:
        InvalidInput: it was exported in training mode.
    """
    _check_evaluation(program, path)
    shape = _input(program, path)
    if isinstance(shape[0], int):
        note = (
            f"{path.name} was exported for {shape[0]} image{'s' if shape[0] > 1 else ''} at a time: it gives scores "
            "only. For other methods export it with dynamic_shapes=({0: torch.export.Dim('batch')},)."
        )
        return ProgramScores(path, notes=(note,), trust=trust)
    notes: tuple[str, ...] = ()
    try:
        with process():
            network: nn.Module = torch.export.unflatten(program)
    except Exception as error:  # not every program can be taken apart into its modules
        network = program.module()
        notes = (f"The modules of {path.name} could not be put together again ({one_line(error)}): it has no layers.",)
    return ProgramModel(network, title=path.name, notes=notes)


@dataclass(frozen=True, eq=False)
class ProgramModel(TorchModel):
    """The modules of an archive, which are no longer of the classes that they were."""

    def active_layer(self, inputs: Tensor) -> str:
        """The last map that no LayerNorm gives; raises NoSpatialOutput for transformers, whose blocks are not known."""
        look = self.look(inputs)
        if look.stream() is not None:
            raise NoSpatialOutput(
                f"{self.name} does not say which of its modules are a transformer's blocks. Name the layer (the last "
                "block whose tokens matter to the scores), or load the network that it was made from."
            )
        kinds = {name: str(getattr(m, "type_name", str)()) for name, m in self.module.named_modules()}
        return look.last_map(lambda name: "LayerNorm" not in kinds[name])


def _check_evaluation(program: Any, path: Path) -> None:
    for node in program.graph.nodes:
        training = {"batch_norm.default": 5, "dropout.default": 2, "feature_dropout.default": 2}
        place = training.get(getattr(node.target, "__name__", ""))
        if place is not None and len(node.args) > place and node.args[place] is True:
            raise InvalidInput(
                f"{path.name} was exported in training mode ({node.target}), so that its scores are not those of the "
                "network in use. Call network.eval() before torch.export.export."
            )


def _input(program: Any, path: Path) -> tuple[int | None, ...]:
    """Returns the shape of the one input; None for sizes that are left open."""
    names = program.graph_signature.user_inputs
    found = [n.meta["val"] for n in program.graph.nodes if n.op == "placeholder" and n.name in names]
    if len(found) != 1 or not isinstance(found[0], Tensor) or found[0].ndim != 4:
        said = ", ".join(f"{name} {tuple(getattr(v, 'shape', ()))}" for name, v in zip(names, found, strict=False))
        raise InvalidInput(f"{path.name} takes {said or 'nothing'}. Expected one input (N, C, H, W), for the pictures.")
    return tuple(size if isinstance(size, int) else None for size in found[0].shape)


@dataclass(frozen=True, eq=False)
class ProgramScores(ExportedModel):
    """A torch.export archive for a fixed number of images: scores only.

    Attributes:
        source: the file (.pt2).
        trust: read archives that run code.
    """

    trust: bool = field(default=False, kw_only=True)

    def _settings(self) -> Any:
        return (self.source,)

    def _open(self) -> Engine:
        return _Engine(Path(self.source), self._settings(), self.trust)


class _Engine:
    """An archive that torch runs as a whole."""

    exact = True

    def __init__(self, path: Path, settings: Any, trust: bool) -> None:
        """Raises CheckpointError where the file cannot be read."""
        self.path, self.settings = path, settings
        self.kept: dict[Any, Any] = {}
        self.metadata: Mapping[str, Any] = {}
        program = read(path, trust)
        self.inputs: tuple[Port, ...] = (Port("input", "input", _input(program, path), np.dtype(np.float32)),)
        with process():
            self.module = program.module()
        shapes = [n.meta["val"] for n in program.graph.output_node().args[0]]
        self.outputs = tuple(
            Port(f"output {i}", f"output {i}", tuple(s.shape), np.dtype(np.float32)) for i, s in enumerate(shapes)
        )

    @property
    def digest(self) -> str:
        """Returns a digest of the file."""
        return digest([self.path])

    @property
    def graph(self) -> Graph:
        """Nothing is known of the operations."""
        return Graph([], ("input",), tuple(p.key for p in self.outputs), lambda _: None)

    def compile(self, feeds: Mapping[str, tuple[int | None, ...]], fetches: Sequence[str]) -> Run:
        """See `Engine`: only from the input to outputs."""

        def run(arrays: Sequence[Any]) -> list[Any]:
            raw = torch.utils._pytree.tree_leaves(self.module(torch.from_numpy(arrays[0])))
            return [tensor.detach().numpy() for tensor in raw]

        return run

    def shape(self, key: str) -> tuple[int | None, ...]:
        """Nothing is known of the operations."""
        return ()

    def sizes(self, feeds: Mapping[str, tuple[int, ...]]) -> Mapping[str, Size]:
        """Nothing is known of the operations."""
        return {}
