"""Explainers that share a pass give what they give alone, to rounding; what differs in anything is not shared."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import seewhy
from seewhy import AblationCAM, ActivationMap, EigenCAM, GradCAM, GradCAMPlusPlus, LayerCAM, ReciproCAM
from seewhy.attribution import Attribution
from seewhy.explainers import Explainer
from seewhy.models.sharing import sharing
from seewhy.runs.query.run import Run
from support.networks import CLASSES, Inplace, Pooled, build, pictures
from support.run_jobs import rows, run
from support.typed import present

FOUR = (GradCAM, ReciproCAM, ActivationMap, LayerCAM)


class Deep(Pooled):
    """What follows the mean is no matrix, so that maps are changed and gradients are taken through it."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.last = nn.Linear(16, 12), nn.Linear(12, CLASSES)

    def scored(self, maps: Tensor) -> Any:
        return self.last(F.gelu(self.hidden(self.pool(maps).flatten(1))))


class Skipping(Pooled):
    """Something passes by the layer, and is needed after it."""

    def __init__(self) -> None:
        super().__init__()
        self.around = nn.Conv2d(3, 16, 4, 4)

    def scores(self, x: Tensor) -> Any:
        return self.scored((self.features(x) + self.around(x)).tanh())


def found(kinds: Sequence[type[Explainer]], network: Any, inputs: Tensor, **about: Any) -> list[Attribution]:
    return [kind(network, **about).run(inputs, [[0, 3]] * len(inputs)) for kind in kinds]


@pytest.mark.parametrize("kind", [Pooled, Inplace, Deep, Skipping])
@pytest.mark.parametrize("layer", ["act1", "act2"])
def test_maps_are_those_that_each_makes_alone(kind: type[nn.Module], layer: str) -> None:
    network, inputs = build(kind), pictures(3)
    kinds = (*FOUR, AblationCAM, EigenCAM, GradCAMPlusPlus)
    alone = found(kinds, network, inputs, layer=layer)
    with sharing():
        together = found(kinds, network, inputs, layer=layer)
    for one, other in zip(alone, together, strict=True):
        torch.testing.assert_close(other.raw, one.raw, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(other.outputs.scores, together[0].outputs.scores, rtol=0, atol=0)
        assert [note.text for note in one.notes] == [note.text for note in other.notes]
        assert (other.passes.backward, one.layer) == (one.passes.backward, other.layer)


@pytest.mark.parametrize("kind", [Pooled, Deep, Skipping])
def test_one_pass_serves_four_in_any_order(kind: type[nn.Module]) -> None:
    network, inputs = build(kind), pictures(2)
    found(FOUR, network, inputs, layer="act2")  # how it is replayed is known from here on
    for order in permutations(FOUR):
        with sharing():
            costs = [one.passes for one in found(order, network, inputs, layer="act2")]
        assert [cost.forward for cost in costs] == [2, 0, 0, 0], order
        assert [cost.shared for cost in costs] == [0, 2, 2, 2], order


def test_gradients_of_many_targets_come_from_a_pass_without_a_graph() -> None:
    network, inputs = build(Pooled), pictures(2)
    alone = LayerCAM(network, layer="act1").run(inputs, "all")
    ReciproCAM(network, layer="act1").run(inputs)
    with sharing():
        ActivationMap(network, layer="act1").run(inputs)
        shared = LayerCAM(network, layer="act1").run(inputs, "all")
    assert (shared.passes.shared, shared.passes.backward) == (2, 2 * CLASSES)
    torch.testing.assert_close(shared.raw, alone.raw, rtol=1e-5, atol=1e-7)


def _other_images(network: nn.Module) -> Callable[[], Attribution]:
    return lambda: ActivationMap(network, layer="act2").run(pictures(2, seed=9))


def _other_layer(network: nn.Module) -> Callable[[], Attribution]:
    return lambda: ActivationMap(network, layer="act1").run(pictures(2))


def _trained(network: nn.Module) -> Callable[[], Attribution]:
    with torch.no_grad():
        next(iter(network.parameters())).mul_(2)
    return lambda: ActivationMap(network, layer="act2").run(pictures(2))


def _other_output(network: nn.Module) -> Callable[[], Attribution]:
    model = seewhy.load(network, output=lambda scores: scores[:, :2])
    return lambda: ActivationMap(model, layer="act2").run(pictures(2))


def _same_weights(network: nn.Module) -> Callable[[], Attribution]:
    return lambda: ActivationMap(build(Pooled), layer="act2").run(pictures(2))


@pytest.mark.parametrize("change", [_other_images, _other_layer, _trained, _other_output, _same_weights])
def test_what_differs_in_anything_is_not_shared(change: Callable[[nn.Module], Callable[[], Attribution]]) -> None:
    network = build(Pooled)
    with sharing():
        ActivationMap(network, layer="act2").run(pictures(2))
        one = change(network)()
    assert (one.passes.forward, one.passes.shared) == (2, 0)
    torch.testing.assert_close(one.raw, change(network)().raw) if change is not _trained else None


def test_nothing_is_shared_outside_of_a_block_and_with_other_threads() -> None:
    network, inputs, costs = build(Pooled), pictures(2), list[int]()

    def other() -> None:
        costs.append(ActivationMap(network).run(inputs).passes.forward)

    with sharing():
        GradCAM(network).run(inputs)
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        with sharing():
            costs.append(ActivationMap(network).run(inputs).passes.forward)
        costs.append(ActivationMap(network).run(inputs).passes.forward)
    costs.append(ActivationMap(network).run(inputs).passes.forward)
    assert costs == [2, 2, 0, 2]


def test_a_graph_in_a_file_is_run_once(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    path = tmp_path / "net.onnx"
    torch.onnx.export(build(Deep), (pictures(1),), str(path), dynamo=False, dynamic_axes={"input": {0: "n"}},
                      input_names=["input"])  # fmt: skip
    model, inputs = seewhy.load(path), pictures(2)
    alone = found([ActivationMap, ReciproCAM], model, inputs)
    with sharing():
        together = found([ActivationMap, ReciproCAM], model, inputs)
    assert together[1].passes.shared == 2
    assert together[1].passes.forward == alone[1].passes.forward - 2
    for one, other in zip(alone, together, strict=True):
        torch.testing.assert_close(other.raw, one.raw, rtol=0, atol=0)


CAMS = {name: f"{name}(layer='act2')" for name in ("grad_cam", "recipro_cam", "activation_map", "layer_cam")}


def test_a_run_with_four_explainers_of_a_layer_makes_one_pass_a_picture(tmp_path: Path) -> None:
    first = run(tmp_path / "four", explainers=CAMS, metrics=(), precision="float32")
    assert (first.forward, first.failures) == (12, ())
    assert {cost["forward"] for row in rows(tmp_path / "four") for cost in row["costs"]} == {1.0}
    for name, cam in CAMS.items():
        run(tmp_path / "one by one", explainers={name: cam}, metrics=(), precision="float32")
    together, apart = (Run(tmp_path / name) for name in ("four", "one by one"))
    for row in rows(tmp_path / "four"):
        for one in row["labels"]:
            for name in ("grad_cam", "recipro_cam", "activation_map", "layer_cam"):
                maps = [present(r.map(row["sample"], one["label"], name)) for r in (together, apart)]
                torch.testing.assert_close(*map(torch.from_numpy, maps), rtol=1e-5, atol=1e-6)
