"""Any callable as a model."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from seewhy.errors import BadOutput, InputRefused, MissingCapability
from seewhy.explainers import RISE, GradCAM, Gradient, GuidedBackprop, Occlusion, ReciproCAM
from seewhy.models.function import FunctionModel
from support import networks
from support.networks import build, detector, pictures
from support.typed import present


def brightness(x: Tensor) -> Any:
    return x.mean((2, 3))


@pytest.mark.parametrize(
    "form", [lambda s: s, lambda s: s.numpy(), lambda s: s.numpy().astype(np.float64), lambda s: {"logits": s}]
)
def test_what_it_may_return(form: Any) -> None:
    model = FunctionModel(lambda x: form(brightness(x)))
    torch.testing.assert_close(model(pictures()).classes, brightness(pictures()))
    assert model.passes.forward == 2


def test_a_detector() -> None:
    outputs = FunctionModel(detector)(pictures())
    assert present(outputs.boxes).shape == (2, 4, 4)
    assert outputs.activated


def test_names_in_messages() -> None:
    assert FunctionModel(brightness).name == "brightness"
    assert FunctionModel(build(networks.Pooled)).name == "Pooled"


def test_a_callable_that_raises() -> None:
    def broken(x: Tensor) -> Tensor:
        raise ValueError("no such size")

    said = "broken raised on an input of shape (2, 3, 32, 32): no such size"
    with pytest.raises(InputRefused, match="^" + re.escape(said) + "$"):
        FunctionModel(broken)(pictures())


def test_its_own_errors_come_through_once() -> None:
    inner = FunctionModel(lambda x: x)

    def outer(x: Tensor) -> Any:
        return inner(x)

    with pytest.raises(BadOutput, match=r"^The network must return scores of shape \(2, K\), got \(2, 3, 32, 32\)\."):
        FunctionModel(outer)(pictures())


def test_outputs_for_another_number_of_images() -> None:
    said = "The network returned scores for 1 images, 2 went in."
    with pytest.raises(BadOutput, match="^" + re.escape(said) + "$"):
        FunctionModel(lambda x: detector(x[:1]))(pictures())


@pytest.mark.parametrize("method", [Gradient, GuidedBackprop, GradCAM, ReciproCAM])
def test_methods_that_need_more_than_scores(method: Any) -> None:
    wanted = "features" if method is ReciproCAM else "gradients"
    said = f"{method.__name__} needs {wanted}; 'brightness' gives scores only. Try RISE or Occlusion."
    with pytest.raises(MissingCapability, match="^" + re.escape(said) + "$"):
        method(brightness)(pictures())


def test_an_input_changed_in_place_stays_the_callers() -> None:
    x = pictures()
    for method in (RISE(_double, num_masks=8), Occlusion(_double, window=16)):
        method(x, 0)
        assert torch.equal(x, pictures())


def _double(x: Tensor) -> Tensor:
    return x.mul_(2).mean((2, 3))


def test_random_callables_leave_the_global_state_alone() -> None:
    before = torch.get_rng_state()
    RISE(lambda x: brightness(x) + torch.rand(1), num_masks=8)(pictures())
    assert torch.equal(before, torch.get_rng_state())


def test_the_automatic_size_backs_off_when_memory_runs_out() -> None:
    sizes: list[int] = []

    def small(x: Tensor) -> Tensor:
        sizes.append(len(x))
        if len(x) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return brightness(x)

    want = RISE(brightness, num_masks=20).attribute(pictures(), 0)
    torch.testing.assert_close(
        RISE(small, num_masks=20, perturbation_per_eval="auto").attribute(pictures(), 0), want, atol=1e-6, rtol=0
    )
    assert sizes[1] == 4  # refused
    assert set(sizes[2:]) == {2}
    with pytest.raises(torch.OutOfMemoryError):
        RISE(small, num_masks=20).attribute(pictures(), 0)
