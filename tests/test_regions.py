"""Regions and key points of networks that answer at every place: their numbers, and that they stay where they were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

import seewhy
from seewhy import KeypointTarget, Preprocessing, RegionTarget
from seewhy.datasets.arrays import Arrays
from seewhy.errors import BadOutput, InvalidTarget
from seewhy.explainers import RISE, GradCAM, Occlusion
from seewhy.metrics import Deletion
from seewhy.targets import Request
from seewhy.types import Outputs

close = torch.testing.assert_close
H, W, K = 6, 8, 4


def outputs(n: int = 1, activated: bool = False) -> Outputs:
    scores = torch.randn((n, H * W, K), generator=torch.Generator().manual_seed(n))
    return Outputs(scores=scores.softmax(-1) if activated else scores, dense=(H, W), activated=activated)


class Segmenter(nn.Module):
    """Three classes at a half of the input's resolution: red, green and blue, each where it is."""

    def __init__(self, answers: int = 3) -> None:
        super().__init__()
        self.trunk = nn.Conv2d(3, 8, 3, padding=1, stride=2, bias=False)
        self.head = nn.Conv2d(8, answers, 1, bias=False)
        nn.init.zeros_(self.trunk.weight)
        nn.init.zeros_(self.head.weight)
        with torch.no_grad():
            for c in range(3):
                self.trunk.weight[c, c, 1, 1] = 1
            for k in range(answers):
                self.head.weight[k, k] = 4

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.trunk(x).relu())


def model(answers: int = 3) -> Any:
    known = Preprocessing(size=(24, 32), mean=(0.0,) * 3, std=(1.0,) * 3, interpolation="nearest")
    return seewhy.load(Segmenter(answers).eval(), output=seewhy.heads.Segmentation(), preprocessing=known)


def scene() -> Tensor:
    """Red on the left, blue on the right, a green square within the red."""
    x = torch.zeros(1, 3, 24, 32)
    x[:, 0, :, :16], x[:, 2, :, 16:] = 1, 1
    x[:, :, 4:12, 4:12] = torch.tensor([0.0, 1.0, 0.0]).view(1, 3, 1, 1)
    return x


# ------------------------------------------------------------------------------------------------------- numbers


@pytest.mark.parametrize("activated", [False, True])
def test_a_mask_of_the_maps_own_size_is_the_mean_over_it(activated: bool) -> None:
    found, mask = outputs(3, activated), torch.zeros(H, W)
    mask[1:3, 2:6] = 1
    by_hand = found.scores.view(3, H, W, K)[:, 1:3, 2:6, 2].mean((1, 2))
    close(RegionTarget(label=2, region=mask)(found), by_hand)
    close(RegionTarget(label=2, region=mask.numpy() > 0)(found), by_hand)


def test_a_mask_of_another_size_is_laid_over_the_whole_input() -> None:
    found, mask = outputs(), torch.zeros(2 * H, 2 * W)
    mask[:, : W + 1] = 1  # half of a column of places counts half
    weights = torch.tensor([1.0] * (W // 2) + [0.5] + [0.0] * (W - W // 2 - 1)).expand(H, W)
    by_hand = (found.scores.view(H, W, K)[..., 1] * weights / weights.sum()).sum()
    close(RegionTarget(label=1, region=mask)(found), by_hand[None])


def test_boxes_and_points_are_in_pixels_of_the_input() -> None:
    found, size = outputs(2), (4 * H, 4 * W)
    grid = found.scores.view(2, H, W, K)
    close(RegionTarget(label=3, region=(8, 4, 16, 12), size=size)(found), grid[:, 1:3, 2:4, 3].mean((1, 2)))
    close(RegionTarget(label=3, region=(13, 9), size=size)(found), grid[:, 2, 3, 3])
    close(RegionTarget(label=3, region=[13, 9], size=size)(found), grid[:, 2, 3, 3])


def test_an_open_region_is_where_the_network_sees_the_class() -> None:
    found = outputs()
    there = found.scores[0].argmax(1) == 1
    close(RegionTarget(label=1).settled(found)(found), found.scores[0, there, 1].mean()[None])
    close(KeypointTarget(index=2).settled(found)(found), found.scores[0, :, 2].max()[None])


def test_one_answer_is_seen_where_it_is_above_nothing() -> None:
    one = Outputs(scores=torch.tensor([[[1.0], [-1.0], [3.0], [-2.0]]]), dense=(2, 2))
    close(RegionTarget(label=0).settled(one)(one), torch.tensor([2.0]))


def test_a_class_of_such_outputs_is_its_mean_over_the_picture() -> None:
    found = outputs(2)
    close(found.classes, found.scores.mean(1))
    close(found.activate(lambda s: s.softmax(-1)).classes.sum(1), torch.ones(2))


def test_what_is_settled_does_not_move_with_the_outputs() -> None:
    first, second = outputs(), outputs(1, activated=True)
    chosen = Request.parse(RegionTarget(label=1), 1).resolve(first)
    there = first.scores[0].argmax(1) == 1
    close(chosen.values(second)[:, 0], second.scores[0, there, 1].mean()[None])


# --------------------------------------------------------------------------------------------------- explanations


def test_a_region_is_explained_by_what_lies_in_it() -> None:
    x, network = scene(), model()
    green = torch.zeros(24, 32)
    green[4:12, 4:12] = 1
    for explainer in (Occlusion(network, window=4, stride=2), RISE(network, num_masks=400, grid=(6, 8), seed=1)):
        for target in (RegionTarget(label=1), RegionTarget(label=1, region=green)):
            raw = explainer.attribute(x, target)[0, 0]
            assert float(raw[green > 0].mean()) > 4 * float(raw[green == 0].abs().mean())


def test_grad_cam_of_a_region_by_hand() -> None:
    x, network = scene(), model()
    found = GradCAM(network, layer="trunk").run(x, RegionTarget(label=1))
    inner: Any = network.network
    maps = inner.trunk(x).detach().requires_grad_()
    logits = inner.head(maps.relu())
    there = logits[0].argmax(0) == 1
    (slope,) = torch.autograd.grad(logits[0, 1][there].mean(), maps)
    close(found.raw[0, 0], (maps * slope.mean((2, 3), keepdim=True)).sum(1)[0].relu().detach())


def test_perturbation_keeps_the_region_of_the_untouched_image() -> None:
    """Occlusion by hand: a moving region would stay as green as it was."""
    x, network = scene(), model()
    raw = Occlusion(network, window=8, stride=8, baseline=0.0, activation_fn=None).attribute(x, RegionTarget(label=1))
    there = network(x).scores[0].argmax(1) == 1

    def value(image: Tensor) -> Tensor:
        return network(image).scores[0, there, 1].mean()

    hidden = x.clone()
    hidden[:, :, 0:8, 0:8] = 0
    close(raw[0, 0, 0, 0], value(x) - value(hidden))


def test_explain_by_picture_box_point_mask_and_name() -> None:
    network = seewhy.load(model(), labels=["red", "green", "blue"])
    picture = Image.fromarray((scene()[0].permute(1, 2, 0).numpy() * 255).astype("uint8")).resize((64, 48), 0)
    for region in ((8, 8, 24, 24), (16, 16), np.pad(np.ones((16, 16)), ((8, 24), (8, 40)))):
        found = seewhy.explain(network, picture, RegionTarget(label=1, region=region, of_picture=True), "gradient")
        assert found.labels == [["green"]]
        assert float(found.probabilities) == pytest.approx(float(torch.tensor([0.0, 4, 0]).softmax(0)[1]), abs=1e-5)
    shares = seewhy.explain(network, picture, method="recipro_cam")
    assert (shares.labels, shares.quantity) == ([["blue"]], "probability")


def test_several_pictures_have_their_own_regions() -> None:
    network = model()
    pictures = [scene(), scene().flip(3)]
    images = [Image.fromarray((x[0].permute(1, 2, 0).numpy() * 255).astype("uint8")) for x in pictures]
    both = seewhy.explain(network, images, RegionTarget(label=1), "gradient")
    for i, x in enumerate(pictures):
        close(both.raw[i], seewhy.explain(network, x, RegionTarget(label=1), "gradient").raw[0])
    close(seewhy.explain(network, torch.cat(pictures), RegionTarget(label=1), "gradient").raw, both.raw)
    with pytest.raises(InvalidTarget, match="settled for one image at a time"):
        RISE(network, num_masks=4).attribute(torch.cat(pictures), RegionTarget(label=1))


def test_metrics_keep_the_region() -> None:
    x, network = scene(), model()
    explainer = Occlusion(network, window=4, stride=2)
    settled = Request.parse(RegionTarget(label=1), 1).resolve(network(x)).targets[0]
    raw = explainer.attribute(x, RegionTarget(label=1))[:, 0]
    one = Deletion(pixels_per_step=96).evaluate(explainer, x, RegionTarget(label=1), saliency=raw)
    close(one, Deletion(pixels_per_step=96).evaluate(explainer, x, settled, saliency=raw))
    assert float(one) < float(Deletion(pixels_per_step=96).evaluate(explainer, x, settled, saliency=-raw))


def test_key_points_by_their_maps() -> None:
    network = seewhy.load(Segmenter().eval(), output=seewhy.heads.Heatmaps())
    found = seewhy.explain(network, scene(), KeypointTarget(index=2), "gradient")
    assert (found.quantity, float(found.probabilities)) == ("value", 4.0)
    place = found.raw[0, 0].abs().flatten().argmax()
    assert int(place) % 32 >= 16  # blue is on the right


# -------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: RegionTarget(label=-1), "Target -1 is negative. Classes are counted from 0."),
        (lambda: RegionTarget(label=1, region=(4, 4, 2, 8)), "A region is a mask (H, W), a box (x0, y0, x1, y1) with"),
        (lambda: RegionTarget(label=1, region=(1.0, float("nan"))), "A region is a mask (H, W), a box (x0, y"),
        (lambda: RegionTarget(label=1, region="left"), "A region is a mask (H, W), a box (x0, y0, x1, y1) or a point"),
        (lambda: RegionTarget(label=1, region=torch.zeros(4, 4)), "A mask of a region is (H, W) and not empty, got"),
        (lambda: RegionTarget(label=9)(outputs()), "Target 9 is out of range: the network has 4 classes, 0 to 3."),
        (lambda: RegionTarget(label=1)(outputs(2)), "Where the network sees the class is settled for one image at a"),
        (lambda: KeypointTarget(index=1)(outputs()), "Where a key point is found is settled for one image at a time."),
        (lambda: RegionTarget(label=1, region=(1, 1))(outputs()), "Of which input the region (1, 1) is in pixels is"),
        (lambda: RegionTarget(label=1, region=(1, 1), of_picture=True)(outputs()), "Where a region of the picture"),
        (lambda: RegionTarget(label=1, region=(99, 1), size=(6, 8))(outputs()),
         "The region (99, 1) holds no place of the input of 6 x 8"),
        (lambda: RegionTarget(label=1, region=(1, 1))(Outputs.of_classes(torch.zeros(1, 4))),
         "RegionTarget needs a network that answers at every place (semantic segmentation, key points): load it with"),
    ],
)  # fmt: skip
def test_errors(made: Any, message: str) -> None:
    with pytest.raises(InvalidTarget) as error:
        made()
    assert str(error.value).startswith(message)


def test_a_class_that_is_seen_nowhere() -> None:
    found = outputs()
    found = Outputs(scores=found.scores - 9 * F.one_hot(torch.tensor(1), K), dense=(H, W))
    with pytest.raises(InvalidTarget, match="The network sees class 1 nowhere in this image; most of it is class"):
        RegionTarget(label=1).settled(found)


def test_a_map_without_a_reader_says_which() -> None:
    with pytest.raises(BadOutput, match=r"pass seewhy\.load\(network, output=seewhy\.heads\.Segmentation\(\)\)"):
        seewhy.explain(Segmenter().eval(), scene())
    reader: Any = seewhy.heads.Segmentation(scores="logits")
    with pytest.raises(BadOutput, match="The network's output has no 'logits'"):
        seewhy.explain(seewhy.load(Segmenter().eval(), output=reader), scene())


def test_a_run_explains_and_judges_a_segmenter(tmp_path: Path) -> None:
    """The classes of a run are shares of the picture; truth is by masks, as for classifiers."""
    pixels = (torch.cat([scene(), scene().flip(3)]).permute(0, 2, 3, 1).numpy() * 255).astype("uint8")
    masks = np.zeros((2, 1, 24, 32), bool)
    masks[0, 0, :, 16:] = masks[1, 0, :, :16] = True
    data = Arrays.of(pixels, np.array([[2], [2]]), masks=masks)
    network = seewhy.load(model(), labels=["red", "green", "blue"])
    runner = seewhy.ImageClassificationRunner(tmp_path / "run", network, data=data, progress=False)
    runner.register_saliency(explainers=["occlusion", "grad_cam"], benchmarkers=["relevance_mass"])
    found = runner.run()
    assert (found.failures, found.computed) == ((), 2)
    assert found.scores["grad_cam"]["relevance_mass"] == pytest.approx(1.0, abs=0.05)
