"""The search of HierarchicalOcclusion: by hand, against a slow twin, windows, targets and batches."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seewhy.counterfactuals import EditTree, HierarchicalOcclusion, Node
from seewhy.counterfactuals._windows import Layer, plan, within
from seewhy.models.function import FunctionModel
from seewhy.targets import BoxTarget, ClassTarget, SimilarityTarget
from support import networks
from support.counterfactual_cases import HAND, ONES, QUARTERS, Times, close, linear, needing, raw, searching, told
from support.networks import build, pictures


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
        rows: list[dict[str, Any]] = []
        shown, p = list(before), self.p(before)
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
    assert sizes == [1, 1, 2, 2, 3, 2, 2, 3, 2, 2, 1]


def test_a_picture_that_is_not_square() -> None:
    network, x = linear({(85, 12): 2.0}, 64, 96), torch.ones(1, 1, 64, 96)
    found = HierarchicalOcclusion(network, threshold=1, activation_fn=None, fill=0).run(x, 0)
    assert found.trees[0][0].nodes[0].box == (54, 0, 32, 32)  # the first that covers the pixel: 48 + 32 < 85
    assert found.passes.forward == 1 + 1 + 12 * 7
    assert found.trees[0][0].layer_mask(0).shape == (64, 96)


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
