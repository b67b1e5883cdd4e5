"""The vocabulary: shapes, activations, passes, progress, error hints."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from seewhy import errors
from seewhy.errors import BadOutput, InvalidInput, nearest, out_of_memory
from seewhy.maps import scale, upsample
from seewhy.progress import listening, report
from seewhy.types import Outputs, Passes, activation
from support.typed import present

close = torch.testing.assert_close

SHAPES = [
    ({"scores": torch.zeros(2, 3)}, "Outputs.scores must have shape (N, Q, K), got (2, 3)."),
    ({"scores": torch.zeros(2, 3, 4), "boxes": torch.zeros(2, 3, 5)}, "Outputs.boxes must have shape (2, 3, 4), "
     "got (2, 3, 5)."),
    ({"scores": torch.zeros(2, 3, 4), "masks": torch.zeros(2, 3, 8)}, "Outputs.masks must have shape (2, 3, h, "
     "w), got (2, 3, 8)."),
    ({"scores": torch.zeros(2, 3, 4), "masks": torch.zeros(2, 1, 8, 8)}, "Outputs.masks must have shape (2, 3, "
     "h, w), got (2, 1, 8, 8)."),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "said"), SHAPES)
def test_shapes_of_outputs(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(BadOutput, match="^" + re.escape(said) + "$"):
        Outputs(**fields)


def test_a_classifier_is_a_detector_with_one_candidate() -> None:
    scores = torch.randn(2, 5, dtype=torch.float64)
    outputs = Outputs.of_classes(scores)
    assert outputs.scores.shape == (2, 1, 5)
    assert outputs.scores.dtype == torch.float32
    assert outputs.num_classes == 5
    close(outputs.classes, scores.float())
    close(Outputs(scores=torch.tensor([[[1.0, 5.0], [3.0, 2.0]]])).classes, torch.tensor([[3.0, 5.0]]))


def test_the_activation_is_put_on_once_and_on_each_candidate() -> None:
    outputs = Outputs(scores=torch.randn(2, 3, 5))
    once = outputs.activate(activation("softmax"))
    close(once.scores, outputs.scores.softmax(-1))
    assert once.activated
    assert once.activate(activation("softmax")) is once
    assert outputs.activate(None) is outputs


def test_activations_by_name() -> None:
    scores = torch.randn(4, 5)
    close(present(activation("softmax"))(scores), scores.exp() / scores.exp().sum(1, keepdim=True))
    close(present(activation("sigmoid"))(scores), 1 / (1 + (-scores).exp()))
    assert activation(None) is None
    assert activation(torch.tanh) is torch.tanh
    with pytest.raises(
        InvalidInput, match=r"^activation_fn must be 'softmax', 'sigmoid', None or a callable, got 'Softmax'\.$"
    ):
        activation("Softmax")


def test_passes_since() -> None:
    assert Passes(5, 3).since(Passes(2, 1)) == Passes(3, 2)


def test_scaling() -> None:
    raw = torch.tensor([[[[-2.0, 0.0], [1.0, 2.0]], [[3.0, 3.0], [3.0, 3.0]], [[0.0, 0.0], [0.0, 0.0]]]])
    close(scale(raw), torch.tensor([[[[0.0, 0.5], [0.75, 1.0]], [[0.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]]]))
    rounding = 100 * torch.ones(1, 1, 4, 4)
    rounding[0, 0, 0, 0] = torch.nextafter(torch.tensor(100.0), torch.tensor(101.0))
    assert float(scale(rounding).max()) == 0  # flat but for rounding
    close(scale(torch.tensor([[[[1e-30, 3e-30]]]])), torch.tensor([[[[0.0, 1.0]]]]))
    close(scale(100 + torch.tensor([[[[0.0, 0.01]]]])), torch.tensor([[[[0.0, 1.0]]]]))


def test_enlarging_is_bilinear_between_centres() -> None:
    raw = torch.tensor([[[[0.0, 1.0]]]])
    close(upsample(raw, (1, 4)), torch.tensor([[[[0.0, 0.25, 0.75, 1.0]]]]))
    assert upsample(raw, (1, 2)) is raw


def test_progress_is_reported_inside_the_block_only() -> None:
    seen: list[tuple[int, int]] = []
    report(1, 2)
    with listening(lambda done, total: seen.append((done, total))):
        report(1, 2)
        with listening(None):
            report(2, 2)
        report(2, 2)
    report(3, 3)
    assert seen == [(1, 2), (2, 2)]


def test_hints() -> None:
    assert nearest("layer5", ["layer1", "layer4", "fc"]) == "Did you mean 'layer4' or 'layer1'?"
    assert nearest("zzz", ["a", "b"]) == "Known: 'a', 'b'."
    assert nearest("zzz", [c * 9 for c in "abcdefghijkl"]).endswith(", ...")
    assert nearest("x", []) == "None is known."


def test_every_error_is_one_of_pythons_own_kinds() -> None:
    for name in errors.__all__:
        cls = getattr(errors, name)
        if isinstance(cls, type) and cls is not errors.SeewhyError:
            assert issubclass(cls, errors.SeewhyError)
            assert issubclass(cls, ValueError | TypeError | ImportError | OSError), name
            assert name in errors.__doc__, f"{name} is missing in the tree"


def test_running_out_of_memory_is_recognised() -> None:
    assert out_of_memory(MemoryError())
    assert out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert out_of_memory(RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate"))
    assert not out_of_memory(RuntimeError("shapes do not match"))
    assert not out_of_memory(ValueError("out of memory"))
