"""Trust grade: how far one map can be trusted, from what can be asked without knowing the truth.

    place      how many of eight copies of the map, moved elsewhere, are worth less than the map (see `_moved`)
    weights    correlation with the map after the top quarter of the layers got random weights (a step of MPRT)
    class      correlation with the map of another class: the likeliest one besides the target
    noise      correlation with the map of the image with noise of 2 % of its range on it
    sampling   correlation with the map of another seed, where the method draws anything

Each answer is compared with a threshold that was chosen on scenes whose truth is known; which answers tell a right
map from a wrong one, which do not, and how the share of right maps rises with the grade, stands in docs/trust.md. The
grade is 3, less 2 where the place does not matter, 2 where noise makes another map, 1 where the weights do not matter,
1 where another sample gives another map; at least 0. What the method says of another class does not count: one map for
all classes may still be right about the only object there is. A question that cannot be asked (a black box has no
weights, a network with one class no other class) says so and does not lower the grade. Without a positive score of the
whole image there is no grade.

Weights are random for the time of one map, during which no other thread may use the network; then they are put back
bit by bit, after errors too.

Sources: Petsiuk, Das and Saenko, "RISE", 2018 (deletion and insertion); Adebayo et al., "Sanity Checks for Saliency
Maps", 2018 (weights); Alvarez-Melis and Jaakkola, "On the Robustness of Interpretability Methods", 2018 (noise).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from seewhy.checks import check_seed
from seewhy.errors import InvalidInput, MissingCapability, SeewhyError, TimedOut
from seewhy.metrics import Case, Cost, Said
from seewhy.metrics._chance import normal
from seewhy.metrics._correlation import is_flat, pearson
from seewhy.metrics._curves import PerturbationMetric
from seewhy.metrics._moved import MOVED, PASSES, Worth, worth
from seewhy.metrics._weights import layers_of, randomised
from seewhy.models.turns import Clash, alone, network_of
from seewhy.trust import GRADES, Part, Trust

__all__ = ["TrustGrade"]

NOISE = 0.02  # deviation of the noise, as a share of the image's range
TOP = 4  # the top layers that forget are one of so many parts of all
SAME = 0.999  # from this correlation on two maps are the same


class _Limit(NamedTuple):
    """Where an answer begins to be good, whether above or below, and what an answer against the map takes away."""

    at: float
    above: bool
    weight: int


LIMITS = {
    "place": _Limit(7, above=True, weight=2), "weights": _Limit(0.8, above=False, weight=1),
    "class": _Limit(SAME, above=False, weight=0), "noise": _Limit(0.5, above=True, weight=2),
    "sampling": _Limit(0.5, above=True, weight=1),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False)
class TrustGrade(PerturbationMetric):
    """How far a map can be trusted, from 0 (none) to 3 (high), without knowing the truth (Petsiuk and Adebayo 2018).

    Attributes:
        activation_fn: scores -> probabilities: "auto", "softmax", "sigmoid", None or a callable; see `seewhy.explain`.
        perturbation_per_eval: changed copies a forward pass, or "auto".
        seed: of noise, weights and the order of equal pixels; the global random state is neither read nor changed.

    Example:
        >>> TrustGrade().evaluate(seewhy.GradCAM(network), inputs, 1).shape
        torch.Size([2])
    """

    seed: int = 0

    range: ClassVar[tuple[float, float]] = (0.0, float(len(GRADES) - 1))
    needs_explainer: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_seed(self.seed)

    def cost(self, height: int, width: int) -> Cost:
        """Passes of the map and its copies, three more to see classes, layers and random weights at work; three maps.

        A method that draws at random makes a fourth map.
        """
        return Cost(forward=PASSES + 3, explanations=3)

    def ask(self, case: Case) -> Trust:
        """Returns the grade and all answers; ``case.explain`` has to be there.

        Raises:
            InvalidInput: the case has no explainer.
        """
        if case.explain is None:
            raise InvalidInput("TrustGrade explains other images too. Pass the explainer.")
        before = replace(case.model.passes)
        with case.model.opened():
            if is_flat(case.saliency):
                parts = tuple(_unasked(name, "the map is the same everywhere") for name in LIMITS)
                return Trust(grade=0, parts=parts)
            found = worth(case, self.activation_fn, self.perturbation_per_eval, self.seed)
            scores = _scores(case)
            parts = (
                _place(found), _tried("weights", lambda: self._weights(case, scores)),
                _tried("class", lambda: _class(case, scores)),
                _tried("noise", lambda: self._noise(case)), _tried("sampling", lambda: _sampling(case)),
            )  # fmt: skip
        return Trust(grade=_grade(parts), parts=parts, passes=case.model.passes.since(before))

    def _judge(self, case: Case) -> Said:
        found = self.ask(case)
        return Said(float("nan") if found.grade is None else found.grade, found.line)

    def _weights(self, case: Case, scores: Tensor) -> Part:
        with alone(network_of(case.model)):
            layers = layers_of(case, "The question")
            top = layers[: max(1, len(layers) // TOP)]
            with randomised([weight for layer in top for weight in layer], self.seed):
                if torch.equal(_scores(case), scores):  # what runs is not what the weights belong to
                    return _unasked("weights", "the network's weights cannot be changed: what it says stays the same")
                r = _alike(_again(case, case.image, case.target), case.saliency)
        said = "hardly changes" if r >= LIMITS["weights"].at else "changes"
        return _part("weights", r, f"{said} with the network's weights (r {r:.2f})")

    def _noise(self, case: Case) -> Part:
        image = case.image
        deviation = NOISE * float(image.max() - image.min())
        noisy = image + deviation * normal([self.seed], image.shape)[0].to(image)
        r = _alike(_again(case, noisy, case.target), case.saliency)
        said = "leaves it" if r >= LIMITS["noise"].at else "changes it"
        return _part("noise", r, f"faint noise on the picture {said} (r {r:.2f})")


def _place(found: Worth | None) -> Part:
    if found is None:
        return _unasked("place", "the network gives the whole picture no positive score, so nothing can be taken away")
    only = "" if found.beaten >= LIMITS["place"].at else "only "
    return _part(
        "place", found.beaten, f"beats {only}{found.beaten} of {len(MOVED)} copies of itself that lie elsewhere"
    )


def _scores(case: Case) -> Tensor:
    """(K,) what the network says of the picture."""
    return case.model(case.image.unsqueeze(0)).classes[0]


def _class(case: Case, scores: Tensor) -> Part:
    if not isinstance(case.target, int):
        return _unasked("class", "its target is no class, so there is no other one to compare with")
    if len(scores) < 2:
        return _unasked("class", "the network has one class only")
    others = scores.clone()
    others[case.target] = -torch.inf
    other = int(others.argmax())
    r = _alike(_again(case, case.image, other), case.saliency)
    said = "the same map" if r >= SAME else "another map"
    return _part("class", r, f"the likeliest other class has {said} (r {r:.2f})")


def _sampling(case: Case) -> Part:
    if case.resample is None:
        return _unasked("sampling", "nothing is drawn at random")
    r = _alike(case.resample(case.image.unsqueeze(0), case.target)[0], case.saliency)
    said = "agrees" if r >= LIMITS["sampling"].at else "does not agree, so it needs more"
    return _part("sampling", r, f"another sample {said} (r {r:.2f})")


def _again(case: Case, image: Tensor, target: Any) -> Tensor:
    assert case.explain is not None
    return case.explain(image.unsqueeze(0), target)[0]


def _alike(other: Tensor, saliency: Tensor) -> float:
    """Correlation of the two; 0 where the other became flat."""
    r = pearson(other, saliency)
    return r if r == r else 0.0


def _tried(name: str, ask: Callable[[], Part]) -> Part:
    """Returns the answer, or why there is none; limits of time and turns of threads are the caller's."""
    try:
        return ask()
    except (TimedOut, Clash):
        raise
    except MissingCapability as error:
        return _unasked(name, "the network shows no weights" if name == "weights" else str(error).rstrip("."))
    except SeewhyError as error:
        return _unasked(name, f"{name} could not be asked ({str(error).rstrip('.')})")


def _part(name: str, value: float, sentence: str) -> Part:
    limit = LIMITS[name]
    good = value >= limit.at if limit.above else value < limit.at
    return Part(name=name, value=float(value), threshold=limit.at, good=good, weight=limit.weight, sentence=sentence)


def _unasked(name: str, why: str) -> Part:
    return Part(name=name, value=None, threshold=None, good=None, weight=LIMITS[name].weight, sentence=why)


def _grade(parts: tuple[Part, ...]) -> int | None:
    if parts[0].good is None:
        return None
    return max(0, len(GRADES) - 1 - sum(part.weight for part in parts if part.good is False))
