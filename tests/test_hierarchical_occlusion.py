"""Hierarchical occlusion: by hand on linear networks, against a slow twin, and what its trees and sheets say."""

from __future__ import annotations

import json
import math
import pickle
import re
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from torch import Tensor, nn

import networks
from networks import build, pictures
from seewhy import registry
from seewhy.counterfactuals import EditTree, HierarchicalOcclusion, Node
from seewhy.counterfactuals import _sheet as sheets
from seewhy.counterfactuals._windows import Layer, plan, within
from seewhy.errors import BadOutput, InvalidInput, InvalidTarget, InvalidType, UnknownParameter
from seewhy.models.function import FunctionModel
from seewhy.targets import BoxTarget, ClassTarget, SimilarityTarget
from seewhy.types import Outputs

close = torch.testing.assert_close
HAND: dict[str, Any] = {"activation_fn": None, "fill": 0.0, "window": (4, 2), "stride": (4, 2)}


def linear(weights: dict[tuple[int, int], float], height: int = 8, width: int = 8, channels: int = 1) -> Any:
    """Class 0's score is the sum of these weights (x, y) over the pixels of value 1; class 1's the opposite."""
    network = build(networks.Linear, channels, height, width)
    with torch.no_grad():
        network.weight.zero_()
        for (x, y), value in weights.items():
            network.weight[0, 0, y, x] = value
            network.weight[1, 0, y, x] = -value
    return network


QUARTERS = {(1, 1): 3.0, (3, 3): 1.0, (5, 3): 2.0, (6, 6): -1.0}  # windows of 4: 4, 0, 2 and -1
ONES = torch.ones(1, 1, 8, 8)


def steps(tree: EditTree) -> list[tuple[int, tuple[int, ...], float, float]]:
    return [(node.layer, node.box, round(node.probability, 4), round(node.gain, 4)) for node in tree.nodes]


# ------------------------------------------------------------------------------------------------------ by hand


def test_showing_by_hand() -> None:
    found = HierarchicalOcclusion(linear(QUARTERS), threshold=4.5, **HAND).run(ONES, 0)
    tree = found.trees[0][0]
    assert steps(tree) == [
        (0, (0, 0, 4, 4), 4.0, 4.0),
        (1, (0, 0, 2, 2), 3.0, 3.0),
        (1, (2, 2, 2, 2), 4.0, 1.0),
        (0, (4, 0, 4, 4), 6.0, 2.0),
        (1, (4, 2, 2, 2), 6.0, 2.0),  # from the whole of the first window, as its parent
    ]
    assert (tree.found, tree.reason, tree.layers, tree.probability) == (True, None, 2, 5.0)
    assert tree.root == Node(box=(0, 0, 8, 8), layer=-1, probability=0.0, gain=0.0, children=tree.root.children)
    assert [tree.layer_probability(k) for k in (0, 1)] == [6.0, 6.0]
    # untouched, empty; 4 and 3 windows; inside the first 4 and 3, inside the second 4; the replay of layer 1
    assert found.passes.forward == 1 + 1 + 4 + 3 + 4 + 3 + 4 + 1
    assert found.passes.backward == 0
    assert found.warnings == ()


def test_hiding_by_hand() -> None:
    found = HierarchicalOcclusion(linear(QUARTERS), threshold=2, mode="hide", **HAND).run(ONES, 0)
    tree = found.trees[0][0]
    assert steps(tree) == [(0, (0, 0, 4, 4), 1.0, 4.0), (1, (0, 0, 2, 2), 2.0, 3.0), (1, (2, 2, 2, 2), 1.0, 1.0)]
    assert tree.root is not None
    assert tree.root.probability == tree.probability == 5.0
    assert tree.probabilities == (1.0, 1.0)
    assert found.passes.forward == 1 + 4 + 4 + 3  # the untouched picture is where it starts
    on_it = HierarchicalOcclusion(linear(QUARTERS), threshold=1, mode="hide", **HAND)(ONES, 0)[0][0]
    assert on_it.layer_probability(0) == -1.0  # 1 is not under 1


def test_known_pictures_are_not_run_again() -> None:
    equal = {(1, 1): 1.0, (1, 3): 1.0, (3, 1): 1.0, (3, 3): 1.0}
    found = HierarchicalOcclusion(linear(equal), threshold=3.5, **HAND).run(ONES, 0)
    tree = found.trees[0][0]
    # The last window inside makes the parent's picture, and so does the replay; of equals the first, columns outer.
    assert found.passes.forward == 1 + 1 + 4 + 4 + 3 + 2
    assert [node.box[:2] for node in tree.nodes] == [(0, 0), (0, 0), (0, 2), (2, 0), (2, 2)]


def test_a_picture_that_becomes_whole_is_not_run_again() -> None:
    found = HierarchicalOcclusion(linear({(1, 1): 1.0, (6, 6): 1.0}), threshold=1.5, num_layers=1,
                                  activation_fn=None, fill=0.0, window=(8,)).run(ONES, 0)  # fmt: skip
    assert steps(found.trees[0][0]) == [(0, (0, 0, 8, 8), 2.0, 2.0)]
    assert found.passes.forward == 2


def test_windows_that_change_nothing_are_not_run() -> None:
    x = ONES.clone()
    x[..., 4:] = 0.0  # as the fill: only the windows on the left make another picture
    found = HierarchicalOcclusion(linear({(1, 1): 1.0}), threshold=0.5, **HAND).run(x, 0)
    assert steps(found.trees[0][0]) == [(0, (0, 0, 4, 4), 1.0, 1.0), (1, (0, 0, 2, 2), 1.0, 1.0)]
    assert found.passes.forward == 1 + 1 + 2 + 4


def test_steps_that_lose_are_taken_when_nothing_better_is_left_and_have_no_children() -> None:
    def together(x: Tensor) -> Tensor:
        """1 for both corners, -1 for one of them."""
        first, second = x[:, 0, 0, 0], x[:, 0, 7, 7]
        return torch.stack([2 * first * second - (first - second).abs(), torch.zeros(len(x))], 1)

    x = torch.zeros(1, 1, 8, 8)
    x[0, 0, 0, 0] = x[0, 0, 7, 7] = 1.0
    tree = HierarchicalOcclusion(together, threshold=0.5, **HAND)(x, 0)[0][0]
    assert [(n.layer, n.box, n.gain, len(n.children)) for n in tree.nodes] == [
        (0, (0, 0, 4, 4), -1.0, 0), (0, (4, 4, 4, 4), 3.0, 1), (1, (6, 6, 2, 2), 3.0, 0),
    ]  # fmt: skip
    assert [n.box for n in tree.layer_nodes(1)] == [(0, 0, 4, 4), (6, 6, 2, 2)]
    assert [float(tree.saliency()[i, i]) for i in (0, 4, 7)] == [0.0, 0.5, 1.0]


def needing(context: bool) -> Any:
    """A quarter of the first window is worth 0.3; one of the second 0.4 beside the whole first window, or always."""

    def network(x: Tensor) -> Tensor:
        first, second = x[:, 0, ::2, ::2][:, :2, :2].flatten(1), x[:, 0, ::2, ::2][:, :2, 2:].flatten(1)
        beside = first.amin(1) if context else first.amax(1)
        return torch.stack([0.3 * first.amax(1) + 0.4 * second.amax(1) * beside, torch.zeros(len(x))], 1)

    return network


def test_layers_that_miss_the_threshold_are_cut_off() -> None:
    found = HierarchicalOcclusion(needing(context=True), threshold=0.5, **HAND).run(ONES, 0)
    tree = found.trees[0][0]
    assert [node.box for node in tree.nodes] == [(0, 0, 4, 4), (4, 0, 4, 4)]
    assert (tree.layers, len(tree.cut_off)) == (1, 1)
    close(torch.tensor([*tree.probabilities, *tree.cut_off]), torch.tensor([0.7, 0.3]))
    assert found.warnings == ("Image 0: Class 0: layers after 0 were cut off, their windows alone come to 0.3.",)
    assert HierarchicalOcclusion(needing(context=False), threshold=0.5, **HAND)(ONES, 0)[0][0].layers == 2


# --------------------------------------------------------------------------------------------------- slow twin


def corners(length: int, window: int, step: int) -> list[int]:
    found, at = [], 0
    while at + window < length:
        found.append(at)
        at += step
    return [*found, length - window]


class Twin:
    """One picture at a time, nothing remembered, a list of rows for every step."""

    def __init__(self, network: Any, x: Tensor, fill: Tensor, target: int, mode: str, threshold: float, sides: Any):
        self.network, self.x, self.fill, self.target = network, x, fill, target
        self.sign, self.threshold, self.sides = (1 if mode == "show" else -1), threshold, sides

    def p(self, boxes: list[tuple[int, int, int, int]]) -> float:
        mask = torch.zeros(self.x.shape[1:], dtype=torch.bool)
        for x, y, w, h in boxes:
            mask[y : y + h, x : x + w] = True
        shown = mask if self.sign == 1 else ~mask
        with torch.no_grad():
            return float(self.network(torch.where(shown, self.x, self.fill)[None]).softmax(1)[0, self.target])

    def enough(self, p: float) -> bool:
        return p >= self.threshold if self.sign == 1 else p < self.threshold

    def covered(self, boxes: list[tuple[int, int, int, int]], box: tuple[int, int, int, int]) -> bool:
        def inside(x: int, y: int) -> bool:
            return any(a <= x < a + w and b <= y < b + h for a, b, w, h in boxes)

        return all(inside(x, y) for x in range(box[0], box[0] + box[2]) for y in range(box[1], box[1] + box[3]))

    def greedy(
        self, field: tuple[int, int, int, int], layer: int, before: list[Any], done: Any
    ) -> list[dict[str, Any]]:
        side, step = self.sides[layer]
        rows, shown, p = [], list(before), self.p(before)
        while not done(p):
            best = None
            for i in corners(field[2], side, step):
                for j in corners(field[3], side, step):
                    box = (field[0] + i, field[1] + j, side, side)
                    if not self.covered(shown, box):
                        q = self.p([*shown, box])
                        if best is None or self.sign * q > self.sign * best[1] + 1e-6 * q:
                            best = (box, q)
            if best is None:
                break
            rows.append({"box": best[0], "p": best[1], "gain": self.sign * (best[1] - p), "children": []})
            if rows[-1]["gain"] > 1e-6 and layer + 1 < len(self.sides):
                goal, start = rows[-1]["gain"], p
                rows[-1]["children"] = self.greedy(
                    best[0], layer + 1, shown, lambda q, g=goal, s=start: self.sign * (q - s) >= g - 1e-6
                )
            shown.append(best[0])
            p = best[1]
        return rows

    def layer(self, rows: list[dict[str, Any]], depth: int) -> list[Any]:
        boxes = []
        for row in rows:
            boxes += self.layer(row["children"], depth - 1) if depth and row["children"] else [row["box"]]
        return boxes

    def run(self) -> tuple[list[dict[str, Any]], list[float]]:
        rows = self.greedy((0, 0, self.x.shape[2], self.x.shape[1]), 0, [], self.enough)
        replays = [self.p(self.layer(rows, k)) for k in range(len(self.sides))]
        while not self.enough(replays[-1]):
            replays.pop()
        return rows, replays


def same(nodes: tuple[Node, ...], rows: list[dict[str, Any]], depth: int) -> None:
    assert [node.box for node in nodes] == [row["box"] for row in rows]
    for node, row in zip(nodes, rows, strict=True):
        assert node.probability == pytest.approx(row["p"], abs=1e-5)
        assert node.gain == pytest.approx(row["gain"], abs=1e-5)
        same(node.children, row["children"] if depth > 1 else [], depth - 1)


CASES = [("show", 3, 16, 20, 0), ("show", 1, 20, 16, 1), ("hide", 3, 16, 20, 2), ("hide", 1, 18, 18, 3)]


@pytest.mark.parametrize(("mode", "channels", "height", "width", "seed"), CASES)
def test_it_is_the_definition(mode: str, channels: int, height: int, width: int, seed: int) -> None:
    network = nn.Sequential(build(networks.Pooled, channels=channels, seed=seed), Times(8))
    x, fill = pictures(1, channels, height, width, seed=seed), pictures(1, channels, height, width, seed=seed + 9)
    own, none = (network(some).softmax(1).detach()[0] for some in (x, fill))
    target = int((own - none).argmax())
    own, none = float(own[target]), float(none[target])
    threshold = none + (0.8 if mode == "show" else 0.4) * (own - none)
    tree = HierarchicalOcclusion(
        network, mode=mode, threshold=threshold, fill=fill, window=(8, 4, 2), stride=(3, 2, 1)
    )(x, target)[0][0]
    rows, replays = Twin(network, x[0], fill[0], target, mode, threshold, ((8, 3), (4, 2), (2, 1))).run()
    assert tree.root is not None, tree.reason
    assert tree.layers == len(replays)
    same(tree.root.children, rows, len(replays))
    close(torch.tensor(tree.probabilities), torch.tensor(replays), atol=1e-5, rtol=0)
    assert len(tree.nodes) >= 3


class Times(nn.Module):
    """Brings scores to where probabilities move."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x


# ------------------------------------------------------------------------------------------------------ windows


def test_the_documented_windows() -> None:
    assert plan((224, 300), None, None, None) == (Layer(112, 22), Layer(56, 11), Layer(28, 5))
    assert plan((1000, 2000), None, None, None) == (Layer(500, 100), Layer(250, 50), Layer(125, 25))
    assert plan((111, 120), None, None, None) == (Layer(55, 11),)  # half of 55 would be 27
    assert plan((56, 90), None, None, None) == (Layer(28, 5),)


def test_windows_asked_for() -> None:
    assert plan((40, 50), 20, None, None) == (Layer(20, 4),)
    assert plan((120, 120), 112, 9, None) == (Layer(112, 9), Layer(56, 9), Layer(28, 9))
    assert plan((40, 50), None, None, 3) == (Layer(20, 4), Layer(10, 2), Layer(5, 1))
    assert plan((40, 50), [9, 4], (3, 4), None) == (Layer(9, 3), Layer(4, 4))
    assert plan((224, 224), None, None, 1) == (Layer(112, 22),)


def test_columns_are_outer_and_the_last_windows_end_at_the_border() -> None:
    xs, ys = (10, 14, 18, 19), (20, 24, 25)
    assert within((10, 20, 15, 11), Layer(6, 4)) == [(x, y, 6, 6) for x in xs for y in ys]
    assert within((3, 4, 6, 6), Layer(6, 4)) == [(3, 4, 6, 6)]


@pytest.mark.parametrize(("equal", "first"), [(((0, 7), (7, 0)), (0, 4)), (((7, 7), (7, 0)), (4, 0))])
def test_of_equals_the_first_wins(equal: tuple[tuple[int, int], ...], first: tuple[int, int]) -> None:
    network = linear(dict.fromkeys(equal, 1.0))
    tree = HierarchicalOcclusion(network, threshold=1.5, **HAND)(ONES, 0)[0][0]
    assert tree.nodes[0].box == (*first, 4, 4)


def test_equal_but_for_rounding_is_equal() -> None:
    network = linear({(0, 0): 1.0, (7, 7): 1.0 + 2e-7})
    assert HierarchicalOcclusion(network, threshold=1.5, **HAND)(ONES, 0)[0][0].nodes[0].box == (0, 0, 4, 4)
    network = linear({(0, 0): 1.0, (7, 7): 1.0 + 2e-5})
    assert HierarchicalOcclusion(network, threshold=1.5, **HAND)(ONES, 0)[0][0].nodes[0].box == (4, 4, 4, 4)


def test_rounding_does_not_cost_a_layer() -> None:
    little = 2.0**-21
    network = linear({(1, 1): 1.0 - little, (3, 3): little, (6, 6): 0.5})
    tree = HierarchicalOcclusion(network, threshold=1.0, **HAND)(ONES, 0)[0][0]
    assert (tree.probabilities, tree.cut_off) == ((1.0, 1.0), ())
    network = linear({(1, 1): 1.0 - little, (3, 3): little, (5, 3): 0.75})
    tree = HierarchicalOcclusion(network, threshold=1.5, **HAND)(ONES, 0)[0][0]
    assert [node.box for node in tree.nodes if node.layer] == [(0, 0, 2, 2), (4, 2, 2, 2)]  # nor add a window


def test_every_window_of_a_step_is_looked_at() -> None:
    network, x = linear({(19, 24): 1.0}, 25, 20), torch.ones(1, 1, 25, 20)
    found = HierarchicalOcclusion(network, threshold=0.5, activation_fn=None, fill=0, window=2, stride=1).run(x, 0)
    assert steps(found.trees[0][0]) == [(0, (18, 23, 2, 2), 1.0, 1.0)]  # the last of all
    assert found.passes.forward == 1 + 1 + 19 * 24


def test_the_windows_of_one_step_are_one_batch() -> None:
    network, sizes = linear(QUARTERS), []

    def watched(x: Tensor) -> Tensor:
        sizes.append(len(x))
        return network(x)

    HierarchicalOcclusion(watched, threshold=4.5, **HAND)(ONES, 0)
    assert sizes == [1, 1, 4, 3, 4, 3, 4, 1]
    sizes.clear()
    HierarchicalOcclusion(watched, threshold=4.5, perturbation_per_eval=3, **HAND)(ONES, 0)
    assert sizes == [1, 1, 3, 1, 3, 3, 1, 3, 3, 1, 1]


def test_a_picture_that_is_not_square() -> None:
    network, x = linear({(85, 12): 2.0}, 64, 96), torch.ones(1, 1, 64, 96)
    found = HierarchicalOcclusion(network, threshold=1, activation_fn=None, fill=0).run(x, 0)
    assert found.trees[0][0].nodes[0].box == (54, 0, 32, 32)  # the first that covers the pixel: 48 + 32 < 85
    assert found.passes.forward == 1 + 1 + 12 * 7
    assert found.trees[0][0].layer_mask(0).shape == (64, 96)


# ------------------------------------------------------------------------------- several targets, images, batches


def searching(**parameters: Any) -> HierarchicalOcclusion:
    network = nn.Sequential(build(networks.Linear, 3, 24, 30), Times(0.1))
    return HierarchicalOcclusion(
        network, **{"threshold": 0.6, "fill": 0.0, "window": (12, 6), "stride": (6, 3), **parameters}
    )


def told(trees: list[list[EditTree]]) -> list[list[Any]]:
    """Everything but the pixels, with probabilities rounded: batches of another size round otherwise."""

    def coarse(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: coarse(item) for key, item in value.items()}
        if isinstance(value, list):
            return [coarse(item) for item in value]
        return pytest.approx(value, abs=1e-5) if isinstance(value, float) else value

    return [[coarse(tree.as_dict() | {"reason": tree.found}) for tree in row] for row in trees]


def raw(trees: list[list[EditTree]]) -> list[list[Any]]:
    return [[tree.as_dict() | {"reason": tree.found} for tree in row] for row in trees]


def test_several_targets_are_one_by_one_and_share_what_is_known() -> None:
    x = pictures(3, height=24, width=30)
    targets = torch.tensor([[1, 4, 1], [0, 3, 0], [2, 1, 2]])
    method = searching(activation_fn="sigmoid")
    together = method.run(x, targets)
    alone = [method.run(x, targets[:, t]) for t in range(3)]
    assert sum(tree.found for row in together.trees for tree in row) >= 3
    assert raw(together.trees) == told([[one.trees[i][0] for one in alone] for i in range(3)])
    assert together.passes.forward < sum(one.passes.forward for one in alone[:2]) - 3 - 12  # the third comes for free
    assert raw(together.trees)[0][0] == raw(together.trees)[0][2]


def test_each_image_is_searched_by_itself() -> None:
    x = pictures(3, height=24, width=30)
    method = searching()
    together = method.run(x)
    alone = [method.run(x[i : i + 1]) for i in range(3)]
    assert raw(together.trees) == told([one.trees[0] for one in alone])
    assert together.passes.forward == sum(one.passes.forward for one in alone)
    assert [len(row) for row in together.trees] == [1, 1, 1]


@pytest.mark.parametrize("per_eval", [1, 7, 1000, "auto"])
def test_the_size_of_batches_does_not_matter(per_eval: int | str) -> None:
    x = pictures(2, height=24, width=30)
    want, got = searching().run(x), searching(perturbation_per_eval=per_eval).run(x)
    assert raw(got.trees) == told(want.trees)
    assert got.passes.forward == want.passes.forward


def test_all_classes() -> None:
    found = searching().run(pictures(3, height=24, width=30), "all")
    assert [len(row) for row in found.trees] == [5, 5, 5]
    for row in found.trees:
        assert [tree.target for tree in row] == [f"class {c}" for c in range(5)]
        assert all(tree.found == (tree.probability > 0.6) for tree in row)
    missing = [tree.reason for row in found.trees for tree in row if not tree.found]
    assert found.warnings[-1] == f"... and {len(missing) - 8} more."
    assert found.warnings[0] == f"Image 0: {missing[0]}"
    assert len(found.warnings) == 9


def test_targets_that_are_no_classes() -> None:
    x = torch.zeros(1, 3, 32, 32)
    x[0, 0, 16:, 16:] = 0.9
    box = BoxTarget(box=(16, 16, 32, 32), label=0)
    tree = HierarchicalOcclusion(FunctionModel(networks.detector), fill=0.0, window=16, stride=8)(x, box)[0][0]
    assert (tree.target, tree.found, tree.nodes[0].box) == ("target 0", True, (16, 16, 16, 16))
    toward = SimilarityTarget(embedding=torch.tensor([1.0, 0, 0, 0, 0]))
    tree = HierarchicalOcclusion(linear(QUARTERS), threshold=0.5, window=4, fill=0.0)(ONES, toward)[0][0]
    assert tree.probability == pytest.approx(math.sqrt(0.5))  # of the scores themselves, without a softmax
    assert HierarchicalOcclusion(linear(QUARTERS), **HAND, threshold=1)(ONES, ClassTarget(label=0))[0][0].found


# ------------------------------------------------------------------------------------------ what is not found


def test_why_there_is_no_tree() -> None:
    network = linear(QUARTERS)
    found = HierarchicalOcclusion(network, threshold=5, **HAND).run(ONES, 0)
    tree = found.trees[0][0]
    assert (tree.found, tree.root, tree.layers, tree.nodes) == (False, None, 0, ())
    assert tree.reason == "Class 0 is at 5, not above the threshold 5."
    assert found.warnings == ("Image 0: Class 0 is at 5, not above the threshold 5.",)
    assert found.passes.forward == 1
    assert float(tree.saliency().abs().max()) == 0
    assert HierarchicalOcclusion(network, threshold=4.999, **HAND)(ONES, 0)[0][0].found

    found = HierarchicalOcclusion(network, threshold=-1, **HAND).run(ONES, 0)
    said = "Class 0 is at 0 when the whole picture is filled: nothing has to be shown for -1."
    assert found.trees[0][0].reason == said
    assert found.passes.forward == 2

    found = HierarchicalOcclusion(network, threshold=-1.5, mode="hide", **HAND).run(ONES, 0)
    said = (
        "Class 0 did not fall under -1.5 while the picture was filled window by window, and is at 0 when all of it is."
    )
    assert found.trees[0][0].reason == said
    assert found.passes.forward == 1 + 4 + 3 + 2 + 1  # and nothing is searched inside of windows in vain


def test_a_fill_that_is_the_picture() -> None:
    for mode, said in (("show", "nothing has to be shown for 1."), ("hide", "and is at 5 when all of it is.")):
        found = HierarchicalOcclusion(linear(QUARTERS), threshold=1, mode=mode, **{**HAND, "fill": 1.0}).run(ONES, 0)
        assert found.trees[0][0].reason.endswith(said)
        assert found.passes.forward == 1


def test_layers_that_are_not_there() -> None:
    tree = HierarchicalOcclusion(linear(QUARTERS), threshold=4.5, **HAND)(ONES, 0)[0][0]
    for layer in (2, -1, True, "0"):
        for ask in (tree.layer_mask, tree.layer_image, tree.layer_probability):
            with pytest.raises(InvalidInput, match=f"^layer must be one of 0 to 1, got {layer!r}.$"):
                ask(layer)
    nothing = HierarchicalOcclusion(linear(QUARTERS), threshold=5, **HAND)(ONES, 0)[0][0]
    with pytest.raises(InvalidInput, match=r"^There are no layers: Class 0 is at 5, not above the threshold 5.$"):
        nothing.layer_image(0)


# ------------------------------------------------------------------------------------------------ fill, results

FILLS: list[tuple[Any, Any]] = [
    (0.25, [0.25, 0.25, 0.25]),
    (-1, [-1.0, -1.0, -1.0]),
    ((0.1, 0.2, 0.3), [0.1, 0.2, 0.3]),
    ([1, 2, 3], [1.0, 2.0, 3.0]),
    (torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64), [0.1, 0.2, 0.3]),
    (torch.tensor(0.5), [0.5, 0.5, 0.5]),
]


@pytest.mark.parametrize("mode", ["show", "hide"])
@pytest.mark.parametrize(("fill", "colours"), FILLS, ids=[str(f) for f, _ in FILLS])
def test_fills_of_one_colour(fill: Any, colours: list[float], mode: str) -> None:
    network, x = linear({(1, 1): 9.0}, channels=3), pictures(2, height=8, width=8) + 3
    for i, row in enumerate(HierarchicalOcclusion(network, mode=mode, threshold=12, **{**HAND, "fill": fill})(x, 0)):
        mask, image = row[0].layer_mask(0), row[0].layer_image(0)
        seen = mask if mode == "show" else ~mask
        assert mask.dtype == torch.bool
        assert torch.equal(image[:, seen], x[i][:, seen])
        close(image[:, ~seen], torch.tensor(colours).view(3, 1).expand(3, int((~seen).sum())))


def test_a_picture_as_fill() -> None:
    network, x, other = linear({(1, 1): 9.0}, channels=3), pictures(2, height=8, width=8) + 3, pictures(2, 3, 8, 8, 7)
    for fill in (other, other[:1], other[0]):
        trees = HierarchicalOcclusion(network, threshold=12, **{**HAND, "fill": fill})(x, 0)
        for i in (0, 1):
            hidden = ~trees[i][0].layer_mask(0)
            want = fill.expand(2, 3, 8, 8)[i]
            assert torch.equal(trees[i][0].layer_image(0)[:, hidden], want[:, hidden])


@pytest.mark.parametrize(("height", "width", "sigma"), [(60, 75, 2.4), (20, 30, 1.0)])
def test_the_blur(height: int, width: int, sigma: float) -> None:
    network, x = linear({(1, 1): 1.0}, height, width), pictures(1, 1, height, width)
    x[0, 0, 1, 1] = 9.0
    tree = HierarchicalOcclusion(network, activation_fn=None, threshold=8.9, window=8)(x, 0)[0][0]
    want = ndimage.gaussian_filter(x[0, 0].double().numpy(), sigma, mode="nearest", radius=round(4 * sigma))
    hidden = ~tree.layer_mask(0)
    close(tree.layer_image(0)[0][hidden].double(), torch.from_numpy(want)[hidden], atol=1e-5, rtol=0)
    assert tree.root is not None
    assert tree.root.probability == pytest.approx(want[1, 1], abs=1e-5)


@pytest.mark.parametrize("mode", ["show", "hide"])
def test_a_layers_probability_is_what_the_network_says_about_its_picture(mode: str) -> None:
    method, x = searching(mode=mode), pictures(6, height=24, width=30)
    trees = [row[0] for row in method(x)]
    assert sum(tree.layers for tree in trees) >= 6
    for tree in trees:
        for layer in range(tree.layers):
            with torch.no_grad():
                said = method.network(tree.layer_image(layer)[None]).softmax(1)[0, int(tree.target.split()[1])]
            assert float(said) == pytest.approx(tree.layer_probability(layer), abs=1e-5)
        if tree.found:
            last = tree.layer_probability(tree.layers - 1)
            assert last >= 0.6 if mode == "show" else last < 0.6


def test_the_map() -> None:
    tree = HierarchicalOcclusion(linear(QUARTERS), threshold=4.5, **HAND)(ONES, 0)[0][0]
    want = torch.zeros(8, 8)
    want[:4, :4], want[:4, 4:] = 4.0, 2.0
    want[:2, :2] += 3
    want[2:4, 2:4] += 1
    want[2:4, 4:6] += 2
    close(tree.saliency(), want / 7)


def test_the_dictionary_is_json() -> None:
    tree = HierarchicalOcclusion(linear(QUARTERS), threshold=4.5, **HAND)(ONES, 0)[0][0]
    read = json.loads(json.dumps(tree.as_dict()))
    child = {"box": [4, 2, 2, 2], "layer": 1, "probability": 6.0, "gain": 2.0, "children": []}
    step = {"box": [4, 0, 4, 4], "layer": 0, "probability": 6.0, "gain": 2.0, "children": [child]}
    assert read["root"]["children"][1] == step
    del read["root"]
    assert read == {
        "found": True, "reason": None, "target": "class 0", "mode": "show", "threshold": 4.5, "size": [8, 8],
        "probability": 5.0, "layers": 2, "layer_probabilities": [6.0, 6.0], "cut_off": [],
    }  # fmt: skip
    nothing = HierarchicalOcclusion(linear(QUARTERS), threshold=5, **HAND)(ONES, 0)[0][0].as_dict()
    assert (nothing["root"], nothing["layers"], json.loads(json.dumps(nothing))) == (None, 0, nothing)


def test_trees_can_be_kept() -> None:
    x = ONES.clone()
    tree = HierarchicalOcclusion(linear(QUARTERS), threshold=4.5, **HAND)(x, 0)[0][0]
    want = tree.layer_image(0).clone()
    x.zero_()
    assert torch.equal(tree.layer_image(0), want)
    assert torch.equal(pickle.loads(pickle.dumps(tree)).layer_image(0), want)
    many, one = pictures(40, height=24, width=30), pictures(1, height=24, width=30)
    sizes = [len(pickle.dumps(searching(fill="blur")(x, 1)[0][0])) for x in (many, one)]
    assert sizes[0] < 1.5 * sizes[1]  # without the rest of the batch


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype) -> None:
    network = build(networks.Pooled).to(dtype)
    tree = HierarchicalOcclusion(network, threshold=0.2)(pictures(1, height=56, width=60).to(dtype))[0][0]
    assert tree.probability > 0.2
    assert tree.found or "nothing has to be shown" in str(tree.reason)


def test_the_network_is_left_as_it_was() -> None:
    network = build(networks.Dropout).train()
    x = pictures(1, height=24, width=30)
    with torch.inference_mode():
        inside = HierarchicalOcclusion(network, threshold=0.25, window=12)(x.clone())
    again = HierarchicalOcclusion(network, threshold=0.25, window=12)(x.requires_grad_())
    assert network.training
    assert all(p.grad is None for p in network.parameters())
    assert raw(inside) == told(again)
    assert not any(t.is_inference() or t.requires_grad for t in (inside[0][0].picture, again[0][0].picture))


# ------------------------------------------------------------------------------------------------------- errors

SMALL = "The picture's short side is 55 px; windows of 28 px take 56. Enlarge the picture, or ask for smaller windows: "
WRONG: list[tuple[dict[str, Any], str]] = [
    ({}, SMALL + "window=27."),
    ({"threshold": "0.5"}, "threshold must be a number, got '0.5'."),
    ({"threshold": True}, "threshold must be a number, got True."),
    ({"threshold": float("nan")}, "threshold must be a number, got nan."),
    ({"threshold": 1.0}, "threshold must lie between 0 and 1 for probabilities, got 1.0."),
    ({"threshold": 50, "activation_fn": "sigmoid"}, "threshold must lie between 0 and 1 for probabilities, got 50."),
    ({"mode": "both"}, "mode must be 'show' or 'hide', got 'both'."),
    ({"fill": "grey"}, "fill must be 'blur', a number, one number a channel, or a tensor, got 'grey'."),
    ({"fill": None}, "fill must be 'blur', a number, one number a channel, or a tensor, got None."),
    ({"fill": ()}, "fill must be 'blur', a number, one number a channel, or a tensor, got ()."),
    ({"fill": [0.5, "a"]}, "fill must be 'blur', a number, one number a channel, or a tensor, got [0.5, 'a']."),
    ({"fill": (0, math.inf)}, "fill has NaN or infinite values."),
    ({"fill": (0, 1), "window": 9}, "fill must be a number, 3 numbers or a picture (3, 55, 60), got the shape (2,)."),
    ({"fill": torch.ones(55, 60), "window": 9},
     "fill must be a number, 3 numbers or a picture (3, 55, 60), got the shape (55, 60)."),
    ({"window": 0}, "window must be a positive integer or a tuple of them, one a layer, got 0."),
    ({"window": ()}, "window must be a positive integer or a tuple of them, one a layer, got ()."),
    ({"window": (9, True)}, "window must be a positive integer or a tuple of them, one a layer, got (9, True)."),
    ({"stride": 1.5}, "stride must be a positive integer or a tuple of them, one a layer, got 1.5."),
    ({"stride": -2}, "stride must be a positive integer or a tuple of them, one a layer, got -2."),
    ({"num_layers": 0}, "num_layers must be a positive integer, got 0."),
    ({"num_layers": "3"}, "num_layers must be a positive integer, got '3'."),
    ({"window": (9, 9)}, "window must get smaller from layer to layer, got (9, 9)."),
    ({"window": (9, 4), "num_layers": 3}, "window has 2 layers, num_layers is 3. One of them is enough."),
    ({"window": 56}, "window 56 is larger than the picture, (55, 60)."),
    ({"window": 9, "stride": 10}, "stride 10 is larger than window 9: some pixels would never be covered."),
    ({"window": (9, 4), "stride": 5}, "stride 5 is larger than window 4: some pixels would never be covered."),
    ({"window": (9, 4), "stride": (2, 2, 2)}, "stride has 3 layers, there are 2: windows (9, 4)."),
    ({"window": 9, "num_layers": 5}, "num_layers=5 halves a window of 9 px to nothing."),
    ({"activation_fn": "relu"}, "activation_fn must be 'softmax', 'sigmoid', None or a callable, got 'relu'."),
    ({"perturbation_per_eval": 0}, "perturbation_per_eval must be a positive integer or 'auto', got 0."),
]  # fmt: skip


@pytest.mark.parametrize(("parameters", "said"), WRONG, ids=[said[:60] for _, said in WRONG])
def test_wrong_parameters(parameters: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match="^" + re.escape(said) + "$"):
        HierarchicalOcclusion(build(networks.Pooled), **parameters)(pictures(height=55, width=60))


def test_unknown_keywords_name_the_nearest() -> None:
    said = "HierarchicalOcclusion has no parameter 'treshold'. Did you mean 'threshold'?"
    with pytest.raises(UnknownParameter, match="^" + re.escape(said) + "$"):
        HierarchicalOcclusion(build(networks.Pooled), treshold=0.5)
    said = (
        "HierarchicalOcclusion takes the network, and parameters by name: activation_fn, perturbation_per_eval, "
        "threshold, mode, fill, num_layers, window, stride."
    )
    with pytest.raises(UnknownParameter, match="^" + re.escape(said) + "$"):
        HierarchicalOcclusion(build(networks.Pooled), "softmax")


def test_inputs_and_targets_are_checked() -> None:
    method = HierarchicalOcclusion(build(networks.Pooled), window=12)
    for inputs, error in ((pictures()[0], InvalidInput), (pictures() * math.nan, InvalidInput), ([1], InvalidType)):
        with pytest.raises(error, match=r"^inputs "):
            method(inputs)
    with pytest.raises(InvalidTarget, match=r"^Target 5 is out of range: the network has 5 classes, 0 to 4.$"):
        method(pictures(), 5)
    with pytest.raises(
        InvalidInput, match=r"^The network is float32, the input float64. Use inputs.to\(torch.float32\)"
    ):
        method(pictures().double())
    one = nn.Sequential(nn.Flatten(), nn.Linear(12, 1))
    with pytest.raises(BadOutput, match=r"^The network has one output, and the softmax of one score is always 1"):
        HierarchicalOcclusion(one, window=1)(pictures(height=2, width=2))

    def breaking(x: Tensor) -> Outputs:
        return Outputs.of_classes(torch.where(x.mean((1, 2, 3)) < 1, torch.nan, 1.0)[:, None] * torch.ones(1, 2))

    with pytest.raises(BadOutput, match=r"^The network returned NaN or infinite scores"):
        HierarchicalOcclusion(breaking, fill=0.0, window=4, threshold=0.4)(ONES, 0)

    for seen in (ONES, -ONES):  # NaN where a picture is empty, and on the untouched one
        with pytest.raises(BadOutput, match=r"^The targets came to NaN or infinite probabilities. Check activation_fn"):
            HierarchicalOcclusion(linear(QUARTERS), **{**HAND, "activation_fn": torch.log}, threshold=1)(seen, 0)


def test_the_method_is_found_by_name_and_shows_its_parameters() -> None:
    assert registry.names("counterfactuals") == ["hierarchical_occlusion"]
    assert registry.load("counterfactuals", "hierarchical_occlusion") is HierarchicalOcclusion
    method = HierarchicalOcclusion(build(networks.Pooled), threshold=0.7, mode="hide")
    assert method.parameters["threshold"] == 0.7
    assert repr(method) == (
        "HierarchicalOcclusion(Pooled, activation_fn='softmax', perturbation_per_eval=32, threshold=0.7, mode='hide', "
        "fill='blur', num_layers=None, window=None, stride=None)"
    )


# ------------------------------------------------------------------------------------------------------- sheets


def noise(height: int, width: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(60, 256, (height, width, 3), dtype=np.uint8))


def test_what_is_hidden_is_dark_and_grey_and_windows_are_outlined() -> None:
    picture, seen = noise(80, 120), np.zeros((8, 12), dtype=bool)
    seen[2:6, 4:8] = True
    for mask, boxes in ((seen, [(4, 2, 4, 4)]), (~seen, [(4, 2, 4, 4)]), (seen, [])):
        drawn = np.asarray(sheets.panel(picture, sheets.Panel(mask, boxes, ()))).astype(int)
        line = (drawn == sheets.LINE).all(2)
        large = np.kron(mask, np.ones((10, 10), dtype=bool)) & ~line
        hidden = drawn[~large & ~line]
        assert (drawn[large] == np.asarray(picture)[large]).all()
        assert (hidden.max(1) == hidden.min(1)).all()
        assert hidden.max() < 110
        assert np.unique(hidden).size > 5  # blurred, not painted over
        ring = np.zeros_like(line)
        if boxes:
            ring[20:60, 40:80] = True
            ring[21:59, 41:79] = False
        assert (line == ring).all()


def colours(sheet: Image.Image) -> int:
    """How many pictures stand side by side: runs of columns that are not paper, in the row through their middle."""
    ink = (np.asarray(sheet.convert("RGB")) != 255).any(2)[sheet.height // 2 - 20 : sheet.height // 2].any(0)
    return int((np.diff(ink.astype(int)) == 1).sum())


def test_the_sheet_has_a_panel_for_each_layer() -> None:
    network = linear(QUARTERS)
    picture = noise(50, 50)
    shown = HierarchicalOcclusion(network, threshold=4.5, **HAND)(ONES, 0)[0][0]
    hidden = HierarchicalOcclusion(network, threshold=2, mode="hide", **HAND)(ONES, 0)[0][0]
    nothing = HierarchicalOcclusion(network, threshold=5, **HAND)(ONES, 0)[0][0]
    drawn = [tree.sheet(picture, cell=100) for tree in (shown, hidden, nothing)]
    assert [colours(sheet) for sheet in drawn] == [4, 3, 1]  # untouched, all hidden, two layers; and so on
    assert all(sheet.mode == "RGB" for sheet in drawn)
    assert drawn[0] != shown.sheet(picture, cell=100, label="tiger cat")
    assert colours(shown.sheet()) == 4  # the input itself, stretched


def test_the_words_on_the_sheet() -> None:
    network = linear(QUARTERS)
    shown = HierarchicalOcclusion(network, threshold=4.5, **HAND)(ONES, 0)[0][0]
    assert [one.caption for one in sheets.panels(shown)] == [
        ("untouched", "probability 5.000"), ("start: all hidden", "probability 0.000"),
        ("layer 0: 2 windows", "probability 6.000"), ("layer 1: 3 windows", "probability 6.000"),
    ]  # fmt: skip
    assert sheets.title(shown, "cat") == "cat: windows that suffice for 4.5"
    assert sheets.footer(shown) == "In colour: what the network saw. Dark and grey: what was hidden from it."
    hidden = HierarchicalOcclusion(network, threshold=2, mode="hide", **HAND)(ONES, 0)[0][0]
    assert [one.caption for one in sheets.panels(hidden)] == [
        ("untouched", "probability 5.000"), ("layer 0: 1 window", "probability 1.000"),
        ("layer 1: 2 windows", "probability 1.000"),
    ]  # fmt: skip
    assert sheets.title(hidden, None) == "Class 0: windows without which it falls under 2"
    assert [bool(one.seen[0, 0]) for one in sheets.panels(hidden)] == [True, False, False]
    assert [bool(one.seen[0, 0]) for one in sheets.panels(shown)] == [True, False, True, True]
    nothing = HierarchicalOcclusion(network, threshold=5, **HAND)(ONES, 0)[0][0]
    assert sheets.title(nothing, None) == "Class 0: no windows found"
    assert sheets.footer(nothing) == "Class 0 is at 5, not above the threshold 5."
    cut = HierarchicalOcclusion(needing(context=True), threshold=0.5, **HAND)(ONES, 0)[0][0]
    assert sheets.footer(cut).endswith(" Deeper layers were cut off, their windows alone come to 0.300.")


def test_sheets_that_cannot_be() -> None:
    tree = HierarchicalOcclusion(linear(QUARTERS), threshold=4.5, **HAND)(ONES, 0)[0][0]
    with pytest.raises(InvalidInput, match=r"^Expected cells of at least 32 pixels, got 31.$"):
        tree.sheet(cell=31)
    with pytest.raises(InvalidType, match=r"^Expected an RGB or grey PIL image, got mode RGBA. Pass it through"):
        tree.sheet(Image.new("RGBA", (8, 8)))
    assert tree.sheet(Image.new("L", (8, 8)), cell=32).size > (0, 0)
