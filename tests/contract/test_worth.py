"""What explainers say of their values holds: a unit is that of the score, and maps that show nothing say so."""

from __future__ import annotations

import copy
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy import registry
from seewhy.attribution import faint
from seewhy.explainers import Explainer
from seewhy.explainers._worth import worth
from seewhy.explainers.occlusion import Occlusion
from seewhy.plain import Meaning
from support.explainer_cases import DETECTIONS, every, make, zoo
from support.networks import build, pictures

WITH_UNIT = ("change", "part", "level", "alone")


def scaled(network: nn.Module, factor: float) -> nn.Module:
    """The network with all of its scores times a factor."""
    made = copy.deepcopy(network)
    head = [one for one in made.modules() if isinstance(one, nn.Linear)][-1]
    with torch.no_grad():
        for values in head.parameters():
            values.mul_(factor)
    return made


def logits(name: str, network: nn.Module) -> Explainer:
    kind = registry.load("explainers", name)
    plain: dict[str, Any] = {"activation_fn": None} if "activation_fn" in kind.__dataclass_fields__ else {}
    return make(name, network, **plain)


@every
def test_a_unit_is_that_of_the_score(name: str) -> None:
    values = registry.load("explainers", name).values
    assert values in get_args(Meaning)
    assert values != "unknown"  # that is for methods of others
    if values not in WITH_UNIT or name in DETECTIONS:
        return
    network = build(zoo(name).Pooled)
    one, ten = (worth(logits(name, n).run(pictures(), [1, 2]).raw, values) for n in (network, scaled(network, 10)))
    assert one is not None
    assert ten is not None
    torch.testing.assert_close(ten, 10 * one, rtol=2e-2, atol=1e-5)


@every
def test_where_the_score_hardly_moves_the_map_shows_nothing_and_says_so(name: str) -> None:
    if name in DETECTIONS:
        return
    network = build(zoo(name).Pooled)
    loud, quiet = (logits(name, scaled(network, f)) for f in (1e3, 1e-5))
    assert not faint(loud.run(pictures(), [1, 2]).notes)
    run = quiet.run(pictures(), [1, 2])
    found, something = faint(run.notes), run.raw.flatten(2).std(2) > 0  # of flat maps other notes tell
    if quiet.values in WITH_UNIT:
        assert [[note.image, note.target] for note in found] == something.nonzero().tolist() != []
        assert all("below 0.01 a map shows nothing, so it is drawn faint." in note.text for note in found)
    else:
        assert found == []


class Sure(nn.Module):
    """Probability of class 0 next to 1, whatever is covered."""

    def forward(self, x: Tensor) -> Tensor:
        score = 8 + 5 * (x * torch.linspace(0, 1, x.shape[3])).mean((1, 2, 3))
        return torch.stack([score, torch.zeros_like(score)], 1)


def test_occlusion_of_what_a_network_is_sure_of_is_drawn_faint_and_says_why() -> None:
    inputs = torch.rand(1, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    found = seewhy.explain(Sure(), inputs, 0, method="occlusion")
    (told,) = [text for text in found.warnings if "shows nothing" in text]
    assert told.startswith("Image 0, class 0: the strongest value of its map is a change of the probability by 5.5")
    assert told.endswith(
        "e-06; below 0.001 a map shows nothing, so it is drawn faint. With activation_fn=None the map is about the "
        "logit."
    )
    assert found.shows_nothing()
    where = found.scale_of()
    assert float(torch.from_numpy(where.places(found.raw[0, 0].numpy())).max()) == pytest.approx(0.25, abs=0.01)
    assert "(faint: shows nothing)" in found._told(0, 0)
    about_logit = seewhy.explain(Sure(), inputs, 0, method="occlusion", activation_fn=None)
    assert not about_logit.shows_nothing()
    assert about_logit.scale_of().high == pytest.approx(float(about_logit.raw.max()))


def test_a_value_without_a_unit_is_measured_by_itself() -> None:
    class Regression(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 300 + self.size * x.mean((1, 2, 3)).unsqueeze(1)

        size = 1e-2

    network, inputs = Regression(), torch.linspace(0, 1, 28).expand(1, 3, 28, 28)
    quiet = Occlusion(network, activation_fn=None).run(inputs)
    assert [note.text.split(";")[1] for note in faint(quiet.notes)] == [
        " below 0.03 a map shows nothing, so it is drawn faint."
    ]
    network.size = 100
    assert not faint(Occlusion(network, activation_fn=None).run(inputs).notes)


def test_parameters_may_change_what_values_are() -> None:
    network = build(zoo("rise").Pooled)
    assert make("rise", network).values == "change"
    assert make("rise", network, estimator="plain").values == "level"
    assert make("smooth_grad", network).values == "slope"
    assert make("smooth_grad", network, inner="integrated_gradients").values == "part"
    assert make("smooth_grad", network, variant="square").values == "size"
    assert copy.copy(make("rise", network, estimator="plain")).values == "level"
