"""How far a map can be trusted: each question against maps whose answer is known, and the grade that comes of them."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import re
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy.baseline import blur
from seewhy.errors import InvalidInput, MissingCapability, TimedOut
from seewhy.explainers.activation_map import ActivationMap
from seewhy.explainers.occlusion import Occlusion
from seewhy.explainers.random_map import RandomMap
from seewhy.explainers.rise import RISE
from seewhy.metrics import cases
from seewhy.metrics._moved import EQUAL, MOVED, SHARES, Worth, worth
from seewhy.metrics.trust_grade import TrustGrade
from seewhy.trust import GRADES, Trust
from support import explainer_cases, networks
from support.explainer_cases import every, make, zoo
from support.metric_cases import Rough, blind_network
from support.networks import build, pictures

SIDE, PLACE = 24, (slice(4, 10), slice(13, 20))
SMALL: dict[str, Any] = {"window": 4, "stride": 2}


class Planted(nn.Module):
    """Class 0 is how bright the picture is at one place, class 1 how bright it is at another; nothing else matters."""

    def __init__(self) -> None:
        super().__init__()
        weight = torch.zeros(2, 3, SIDE, SIDE)
        weight[0, :, PLACE[0], PLACE[1]] = 0.05
        weight[1, :, 14:20, 2:9] = 0.05
        self.weight = nn.Parameter(weight)

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("nchw,kchw->nk", x, self.weight)


def lit(seed: int = 0) -> Tensor:
    """(1, 3, 24, 24) a noisy picture that is bright at the planted place."""
    found = 0.1 * pictures(1, height=SIDE, width=SIDE, seed=seed)
    found[..., PLACE[0], PLACE[1]] += 2
    return found


def asked(explainer: Any, x: Tensor, target: Any = 0, **changed: Any) -> Trust:
    (case,) = cases(explainer, x, target)
    return TrustGrade().ask(dataclasses.replace(case, **changed))


def test_the_true_map_of_planted_evidence_has_the_highest_grade() -> None:
    found = asked(Occlusion(Planted(), **SMALL), lit())
    assert (found.grade, found.word) == (3, "high")
    assert [part.good for part in found.parts] == [True, True, True, True, None]
    assert found.part("place").value == len(MOVED)
    assert found.part("sampling").sentence == "nothing is drawn at random"
    assert found.line.startswith(
        "trust high: beats 8 of 8 copies of itself that lie elsewhere; changes with the network's"
    )


@pytest.mark.parametrize("network", [Planted(), build(networks.Pooled), build(networks.Deep)])
def test_a_random_map_has_the_lowest_grade(network: nn.Module) -> None:
    for seed in range(6):
        found = asked(RandomMap(network, seed=seed), pictures(1, height=SIDE, width=SIDE, seed=seed))
        assert (found.grade, found.word) == (0, "none"), found.line
        assert found.part("noise").good is found.part("weights").good is found.part("sampling").good is False


def test_the_true_map_at_the_wrong_place_is_hardly_trusted() -> None:
    x, explainer = lit(), Occlusion(Planted(), **SMALL)
    right = explainer.attribute(x, 0)[0, 0]
    (case,) = cases(explainer, x, 0)
    moved = right.roll((10, -9), (0, 1))

    def explain(images: Tensor, target: Any) -> Tensor:
        return explainer.attribute(images, target)[:, 0].roll((10, -9), (1, 2))

    found = TrustGrade().ask(dataclasses.replace(case, saliency=moved, explain=explain))
    assert found.part("place").good is False
    assert found.part("place").sentence.startswith("beats only ")
    assert found.grade == 1


def test_a_flat_map_has_the_lowest_grade_without_a_pass() -> None:
    found = asked(Occlusion(Planted(), **SMALL), lit(), saliency=torch.ones(SIDE, SIDE))
    assert found.grade == 0
    assert {part.sentence for part in found.parts} == {"the map is the same everywhere"}
    assert (found.passes.forward, found.passes.backward) == (0, 0)


def test_a_method_that_is_blind_to_classes_says_so_and_loses_nothing_by_it() -> None:
    part = asked(ActivationMap(build(networks.Pooled)), pictures(1), 1).part("class")
    assert (part.good, part.weight) == (False, 0)
    assert part.sentence == "the likeliest other class has the same map (r 1.00)"
    part = asked(Occlusion(Planted(), **SMALL), lit()).part("class")
    assert part.good is True
    assert part.sentence.startswith("the likeliest other class has another map (r ")


def test_a_map_that_does_not_depend_on_the_weights() -> None:
    x, explainer = lit(), Occlusion(Planted(), **SMALL)
    (case,) = cases(explainer, x, 0)
    found = TrustGrade().ask(
        dataclasses.replace(case, explain=lambda images, _: case.saliency.expand(len(images), -1, -1))
    )
    part = found.part("weights")
    assert part.value == pytest.approx(1)
    assert (part.threshold, part.good) == (0.8, False)
    assert part.sentence == "hardly changes with the network's weights (r 1.00)"
    assert found.grade == 2


def test_few_masks_do_not_agree_and_many_do() -> None:
    x = lit()
    few, many = (asked(RISE(Planted(), num_masks=n, grid=6), x).part("sampling") for n in (6, 600))
    assert few.value is not None
    assert many.value is not None
    assert few.value < 0.5 < many.value
    assert (few.good, many.good) == (False, True)
    assert few.sentence.startswith("another sample does not agree, so it needs more (r ")
    assert many.sentence.startswith("another sample agrees (r ")


def test_a_black_box_shows_no_weights_which_lowers_nothing() -> None:
    network = Planted()
    found = asked(Occlusion(partial(network), **SMALL), lit())
    part = found.part("weights")
    assert (part.value, part.threshold, part.good) == (None, None, None)
    assert part.sentence == "the network shows no weights"
    assert found.grade == 3


def test_weights_that_do_not_run_are_not_taken_for_weights_that_do_not_matter() -> None:
    class Compiled(Planted):
        """Runs a copy that was made when it was new, as compiled networks do."""

        def __init__(self) -> None:
            super().__init__()
            self.copies = [Planted()]

        def forward(self, x: Tensor) -> Tensor:
            return self.copies[0](x)

    part = asked(Occlusion(Compiled(), **SMALL), lit()).part("weights")
    assert (part.value, part.good) == (None, None)
    assert part.sentence == "the network's weights cannot be changed: what it says stays the same"


@pytest.mark.parametrize(
    ("target", "network", "said"),
    [
        (seewhy.SimilarityTarget(embedding=torch.tensor([1.0, 0.0])), Planted(),
         "its target is no class, so there is no other one to compare with"),
        (0, lambda x: x[:, :, PLACE[0], PLACE[1]].mean((1, 2, 3))[:, None], "the network has one class only"),
    ],
)  # fmt: skip
def test_where_there_is_no_other_class(target: Any, network: Any, said: str) -> None:
    part = asked(Occlusion(network, activation_fn=None, **SMALL), lit(), target).part("class")
    assert (part.value, part.good, part.sentence) == (None, None, said)


def test_without_a_score_there_is_no_grade() -> None:
    (case,) = cases(Occlusion(lambda x: -1 - x.mean((1, 2, 3))[:, None] ** 2, activation_fn=None, **SMALL), lit(), 0)
    case = dataclasses.replace(case, saliency=pictures(1, 1, SIDE, SIDE)[0, 0])
    metric = TrustGrade(activation_fn=None)
    found = metric.ask(case)
    assert (found.grade, found.word) == (None, "cannot be told")
    assert found.parts[0].sentence.startswith("the network gives the whole picture no positive score")
    assert np.isnan(metric(case))


def test_a_network_that_sees_nothing_gives_no_place_any_worth() -> None:
    (case,) = cases(Occlusion(blind_network), lit(), 0)
    case = dataclasses.replace(case, saliency=pictures(1, 1, SIDE, SIDE)[0, 0])
    part = TrustGrade(activation_fn=None).ask(case).part("place")
    assert (part.value, part.good) == (4, False)  # as many copies as not


def test_what_pixels_are_worth_is_found_slowly_too() -> None:
    x, saliency = pictures(1, height=9, width=12)[0], pictures(1, 1, 9, 12, seed=4)[0, 0]
    (case,) = cases(Occlusion(Rough()), x[None], 2)
    found = worth(dataclasses.replace(case, saliency=saliency), "softmax", 7, seed=0)
    assert found is not None

    def score(image: Tensor) -> float:
        return float(Rough()(image[None])[0].softmax(0)[2])

    def slow(one: Tensor) -> float:
        each, flat = [], one.flatten()
        for share in SHARES:
            shown = torch.zeros(108, dtype=torch.bool)
            shown[flat.argsort(descending=True)[: max(1, round(108 * share))]] = True
            alone = torch.where(shown.view(9, 12), x, blur(x[None])[0])
            others = torch.where(shown.view(9, 12), x.mean((1, 2), keepdim=True), x)
            each.append((score(alone) - score(others)) / score(x))
        return sum(each) / len(each)

    copies = [slow(saliency.roll((3 * i, 4 * j), (0, 1))) for i in range(3) for j in range(3)]
    np.testing.assert_allclose([found.own, *found.moved], copies, rtol=1e-4, atol=1e-6)
    assert found.beaten == sum(one < copies[0] - EQUAL for one in copies[1:]) + (
        sum(abs(one - copies[0]) <= EQUAL for one in copies[1:]) // 2
    )


def test_copies_that_are_worth_as_much_count_half() -> None:
    assert Worth(0.5, (0.0,) * 8).beaten == 8
    assert Worth(0.5, (0.495,) * 8).beaten == 4  # a map on which hardly anything depends has no place
    assert Worth(0.5, (0.6,) * 5 + (0.4,) * 2 + (0.5,)).beaten == 2


def test_each_answer_lowers_the_grade_by_its_weight() -> None:
    weights = {part.name: part.weight for part in asked(Occlusion(Planted(), **SMALL), lit()).parts}
    assert weights == {"place": 2, "weights": 1, "class": 0, "noise": 2, "sampling": 1}
    for found in (asked(RandomMap(Planted()), lit()), asked(RISE(Planted(), num_masks=6, grid=6), lit())):
        lost = sum(part.weight for part in found.parts if part.good is False)
        assert found.grade == max(0, len(GRADES) - 1 - lost)


def test_the_network_is_as_it_was_also_after_an_error() -> None:
    network = build(networks.Pooled).train()
    before, (case,) = copy.deepcopy(network.state_dict()), cases(Occlusion(network), pictures(1), 1)
    changed: list[bool] = []

    def failing(_images: Tensor, _target: Any) -> Tensor:
        changed.append(any(not torch.equal(v, before[k]) for k, v in network.state_dict().items()))
        raise TimedOut("late") if changed[-1] else RuntimeError("not the weights")

    with pytest.raises(TimedOut, match=r"^late$"):  # a limit of time is nothing that could not be asked
        TrustGrade().ask(dataclasses.replace(case, explain=failing))
    assert changed == [True]
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert network.training


def test_what_cannot_be_asked_says_why_and_the_others_are_asked() -> None:
    explainer = Occlusion(Planted(), **SMALL)
    (case,) = cases(explainer, lit(), 0)

    def explain(images: Tensor, target: Any) -> Tensor:
        if target == 1:
            raise InvalidInput("Class 1 cannot be had.")
        return explainer.attribute(images, target)[:, 0]

    found = TrustGrade().ask(dataclasses.replace(case, explain=explain))
    assert found.part("class").sentence == "class could not be asked (Class 1 cannot be had)"
    assert found.part("noise").good is True
    with pytest.raises(InvalidInput, match=r"^TrustGrade explains other images too\. Pass the explainer\.$"):
        TrustGrade().ask(dataclasses.replace(case, explain=None))


# ------------------------------------------------------------------------------------------------ every explainer


@every
def test_every_map_gets_a_grade_or_a_sentence(name: str) -> None:
    network, x = build(zoo(name).Pooled), pictures(1)
    before = copy.deepcopy(network.state_dict())
    found = asked(make(name, network), x, 1)
    assert found.grade in (None, 0, 1, 2, 3)
    assert [part.name for part in found.parts] == ["place", "weights", "class", "noise", "sampling"]
    assert all(part.sentence and (part.good is None) == (part.value is None) for part in found.parts)
    blind = getattr(make(name, network), "class_agnostic", False)
    assert not blind or found.part("class").good is not True
    drawn = isinstance(getattr(make(name, network), "seed", None), int)
    assert drawn or found.part("sampling").value is None
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


# ---------------------------------------------------------------------------------------------- of an explanation


def explained(**more: Any) -> seewhy.Explanation:
    return seewhy.explain(Planted(), torch.cat([lit(), lit(1)]), [[0, 1], [1, 0]], "occlusion", progress=False,
                          **(SMALL | more))  # fmt: skip


def test_an_explanation_is_asked_once_for_each_map() -> None:
    found = explained()
    first = found.trust(1, 1)
    assert first is found.trust(1, 1) is found.trust(-1, -1)
    assert first.grade == 3
    assert found.trust(0, 0).grade == 3
    summary = found.summary()["images"]
    assert summary[1]["targets"][1]["trust"] == first.as_dict()
    assert "trust" not in summary[0]["targets"][1]
    assert dataclasses.replace(found)._trust == {}
    assert "\ntrust high" in found._told(1, 1)  # what stands beside the maps in a notebook
    assert found.sheet().height > dataclasses.replace(found).sheet().height  # and the reasons below them
    with pytest.raises(IndexError):
        found.trust(2)


def test_the_cost_is_counted_and_what_is_written() -> None:
    network, x = Planted(), lit()
    seen = []
    network.register_forward_hook(lambda _m, args, _o: seen.append(len(args[0])))
    found = seewhy.explain(network, x, 0, "occlusion", progress=False, **SMALL)
    one = found.passes.forward
    seen.clear()
    trust = found.trust()
    assert trust.passes.forward == sum(seen)
    assert trust.passes.forward == TrustGrade().cost(SIDE, SIDE).forward + 3 * one
    assert "54 changed copies of the image" in re.sub(r"\s+", " ", str(seewhy.Explanation.trust.__doc__))
    assert TrustGrade().cost(SIDE, SIDE) == (58, 3)


def test_without_the_network_nothing_can_be_asked() -> None:
    again = pickle.loads(pickle.dumps(explained()))
    assert again.asker is None
    with pytest.raises(MissingCapability, match=r"^How far a map can be trusted is asked of the network, which is not"):
        again.trust()


def test_pictures_of_several_sizes_are_asked_each_in_its_own() -> None:
    network = seewhy.load(build(networks.Pooled), preprocessing=seewhy.Preprocessing(
        size=(48, 64), mean=(0.5,) * 3, std=(0.5,) * 3, fit="keep"))  # fmt: skip
    noise = np.random.default_rng(0)
    images = [noise.integers(0, 255, (*size, 3), dtype=np.uint8) for size in ((32, 40), (48, 32))]
    both = seewhy.explain(network, images, 1, "recipro_cam", progress=False)
    alone = seewhy.explain(network, images[1], 1, "recipro_cam", progress=False)
    assert both.trust(1).line == alone.trust().line


def test_threads_ask_one_network_and_get_what_they_get_alone() -> None:
    network = build(networks.Pooled)
    before = copy.deepcopy(network.state_dict())

    def line(method: str) -> str:
        return seewhy.explain(network, pictures(1), 1, method, progress=False).trust().line

    asking = [partial(line, method) for method in ("grad_cam", "recipro_cam", "gradient", "activation_map")]
    alone = [ask() for ask in asking]
    with ThreadPoolExecutor(4) as pool:
        assert [one.result() for one in [pool.submit(ask) for ask in asking]] == alone
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_the_cases_cover_every_explainer() -> None:
    assert set(explainer_cases.NAMES) == set(seewhy.registry.names("explainers"))
