"""Volumes and clips (N, C, D, H, W): maps by definition, evidence in a slice that is known, and clear refusals."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import seewhy
from seewhy import baseline, registry
from seewhy.errors import BadOutput, InputRefused, InvalidInput, NoSpatialOutput
from seewhy.explainers import Explainer
from seewhy.explainers._masks import Masks
from seewhy.models.layout import fits
from seewhy.models.reading import check_picture
from seewhy.models.torch.model import TorchModel
from support.networks import build

close = torch.testing.assert_close
PLACE = (slice(None), 0, 4, slice(8, 12), slice(2, 6))  # where the evidence lies


class Stack(nn.Module):
    """Two convolutions of three axes, a mean over positions and a linear layer."""

    def __init__(self, last: bool = False) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv3d(2, 6, 3, padding=1), nn.Conv3d(6, 8, 3, (1, 2, 2), 1)
        self.turn, self.fc, self.last = nn.Identity(), nn.Linear(8, 4), last

    def forward(self, x: Tensor) -> Any:
        maps = self.conv2(self.conv1(x).relu()).relu()
        if self.last:
            maps = self.turn(maps.movedim(1, -1)).movedim(-1, 1)
        return self.fc(F.adaptive_avg_pool3d(maps, 1).flatten(1))


class Weighted(nn.Module):
    """Two classes: a weighted sum of the voxels, and its opposite."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2, 6, 8, 8))

    def forward(self, x: Tensor) -> Tensor:
        total = (x * self.weight).sum((1, 2, 3, 4))
        return torch.stack([total, -total], 1)


class Planted(nn.Module):
    """Class 1 where there is light in a few voxels of one slice; through a convolution, so that there are maps."""

    def __init__(self) -> None:
        super().__init__()
        self.see, self.act, self.fc = nn.Conv3d(1, 2, 3, padding=1), nn.ReLU(), nn.Linear(2, 2)
        with torch.no_grad():
            self.see.weight.fill_(1 / 27)
            self.see.bias = nn.Parameter(torch.tensor([-0.2, 0.2]))
            self.fc.weight.copy_(torch.tensor([[-20.0, 0.0], [20.0, 0.0]]))
            self.fc.bias.copy_(torch.tensor([1.0, -1.0]))

    def forward(self, x: Tensor) -> Any:
        return self.fc(self.act(self.see(x)).mean((2, 3, 4)))


def volumes(n: int = 2, channels: int = 2, size: tuple[int, int, int] = (6, 8, 8)) -> Tensor:
    return torch.randn((n, channels, *size), generator=torch.Generator().manual_seed(2))


def planted() -> Tensor:
    x = torch.zeros(1, 1, 8, 16, 16)
    x[PLACE] = 1.0
    return x


CAMS = {
    "grad_cam": lambda a, g: (g.mean((2, 3, 4), keepdim=True) * a).sum(1).relu(),
    "hires_cam": lambda a, g: (g * a).sum(1),
    "layer_cam": lambda a, g: (g.relu() * a).sum(1).relu(),
    "activation_map": lambda a, g: a.mean(1),
}


@pytest.mark.parametrize("last", [False, True], ids=["channels first", "channels last"])
@pytest.mark.parametrize("name", CAMS)
def test_a_cam_is_the_sum_of_weighted_channels(name: str, last: bool) -> None:
    network, x = build(Stack, True), volumes()
    network.conv2 = nn.Sequential(network.conv2, nn.ReLU())  # what the layer gives has passed a ReLU
    maps = network.conv2(network.conv1(x).relu()).detach().requires_grad_()
    head = maps if last else maps.relu()  # the network's own ReLU comes once more
    (gradient,) = torch.autograd.grad(network.fc(head.mean((2, 3, 4)))[:, 2].sum(), maps)
    explainer = registry.load("explainers", name)(network, layer="turn" if last else "conv2")
    raw = explainer.attribute(x, 2, native=True)
    close(raw[:, 0], CAMS[name](maps.detach(), gradient))
    assert explainer(x, 2).shape == (2, 1, 6, 8, 8)


def test_a_pooled_head_needs_one_pass() -> None:
    network, x = build(Stack), volumes()
    found = seewhy.ReciproCAM(network, layer="conv2").run(x, "all")
    with torch.no_grad():
        alone = network.fc.weight @ network.conv2(network.conv1(x).relu()).relu().flatten(2) / (6 * 4 * 4)
    raw = seewhy.ReciproCAM(nn.Sequential(network.conv1, nn.ReLU(), network.conv2, nn.ReLU(), Head(network.fc)))
    one = raw.run(x, "all")
    close(one.raw, (alone + network.fc.bias.detach().view(1, -1, 1)).unflatten(2, (6, 4, 4)))
    assert (one.passes.forward, found.raw.shape) == (2 + 1, (2, 4, 6, 4, 4))  # a look at one volume, and both


class Head(nn.Module):
    """A mean over positions and a linear layer."""

    def __init__(self, fc: nn.Linear) -> None:
        super().__init__()
        self.fc = fc

    def forward(self, maps: Tensor) -> Any:
        return self.fc(maps.mean((2, 3, 4)))


def test_heads_that_are_no_closed_form_are_run_again() -> None:
    network, x = build(Stack), volumes(1, size=(3, 4, 4))
    first = network.conv1(x).detach()
    raw = seewhy.ReciproCAM(network, layer="conv1").attribute(x, "all", native=True)
    for d, i, j in itertools.product(range(3), range(4), range(4)):
        alone = torch.zeros_like(first)
        alone[:, :, d, i, j] = first[:, :, d, i, j]
        with torch.no_grad():
            want = network.fc(network.conv2(alone.relu()).relu().mean((2, 3, 4)))
        close(raw[:, :, d, i, j], want)


def test_gradients_of_a_weighted_sum_are_its_weights() -> None:
    network, x = build(Weighted), volumes()
    weight = network.weight.detach()
    close(seewhy.Gradient(network).attribute(x, 0), weight.abs().amax(0).expand(2, 1, -1, -1, -1))
    for kind in (seewhy.InputXGradient, seewhy.IntegratedGradients):
        close(kind(network).attribute(x, 1), -(x * weight).sum(1, keepdim=True))
    smooth = seewhy.SmoothGrad(network, inner="input_x_gradient", samples=400, noise=0.05).attribute(x, 0)
    close(smooth, (x * weight).sum(1, keepdim=True), atol=0.2, rtol=0)


def test_occlusion_is_the_mean_fall_over_the_windows() -> None:
    network, x = build(Weighted), volumes()
    part = (x * network.weight.detach()).sum(1)
    total, count = torch.zeros_like(part), torch.zeros(6, 8, 8)
    for d, i, j in itertools.product((0, 2, 4), (0, 3, 5), (0, 2, 4)):  # the last window ends at the border
        box = (slice(d, d + 2), slice(i, i + 3), slice(j, j + 4))
        total[(slice(None), *box)] += part[(slice(None), *box)].sum((1, 2, 3)).view(-1, 1, 1, 1)
        count[box] += 1
    explainer = seewhy.Occlusion(network, window=(2, 3, 4), stride=(2, 3, 2), activation_fn=None)
    close(explainer.attribute(x, 0)[:, 0], total / count, atol=1e-4, rtol=1e-4)


def test_masks_of_volumes_are_cells_enlarged_along_three_axes() -> None:
    size, grid = (11, 9, 7), (4, 3, 4)
    masks = Masks.draw(40, grid, 0.4, 3, size, paired=True)
    cell = [-(-length // cells) for length, cells in zip(size, grid, strict=True)]
    full = [(cells + 1) * side for cells, side in zip(grid, cell, strict=True)]
    large = F.interpolate(masks.grids.unsqueeze(1), size=full, mode="trilinear", align_corners=False)[:, 0]
    cuts = [tuple(slice(o, o + n) for o, n in zip(at, size, strict=True)) for at in masks.offsets.tolist()]
    want = torch.stack([one[cut] for one, cut in zip(large, cuts, strict=True)])
    close(masks.at(torch.arange(40)), want, atol=1e-6, rtol=0)
    weights = torch.randn(3, 40, generator=torch.Generator().manual_seed(0))
    close(masks.weighted_sum(weights), torch.einsum("rm,mdhw->rdhw", weights, want), atol=1e-4, rtol=0)
    many = Masks.draw(4000, grid, 0.4, 3, size)
    close(many.at(torch.arange(4000)).var(0), many.variance(), atol=0.02, rtol=0)


@pytest.mark.parametrize("estimator", ["regression", "centred"])
def test_rise_finds_what_a_weighted_sum_is_made_of(estimator: Any) -> None:
    """Cells of 2 voxels a side with one weight each: the masks' covariance with the score follows them."""
    cells = torch.zeros(3, 4, 4)
    cells[1, 2, 0] = 1.0
    weight = cells.repeat_interleave(2, 0).repeat_interleave(2, 1).repeat_interleave(2, 2)
    explainer = seewhy.RISE(
        lambda x: (x * weight).sum((1, 2, 3, 4), keepdim=False).unsqueeze(1), num_masks=600, grid=(3, 4, 4),
        estimator=estimator, activation_fn=None,
    )  # fmt: skip
    raw = explainer.attribute(torch.ones(1, 1, 6, 8, 8), 0)[0, 0]
    assert float(raw[weight > 0].mean()) > 4 * float(raw[weight == 0].abs().mean())
    assert torch.unravel_index(raw.argmax(), raw.shape)[0] in (2, 3)


PLANTED: list[tuple[str, dict[str, Any]]] = [
    ("grad_cam", {}), ("grad_cam_plus_plus", {}), ("hires_cam", {}), ("layer_cam", {}), ("eigen_cam", {"layer": "act"}),
    ("score_cam", {}), ("ablation_cam", {}), ("recipro_cam", {}), ("input_x_gradient", {}),
    ("integrated_gradients", {"steps": 8}), ("guided_backprop", {}), ("smooth_grad", {"inner": "input_x_gradient"}),
    ("occlusion", {"window": (2, 4, 4), "baseline": "mean"}), ("rise", {"grid": (4, 4, 4), "num_masks": 400}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "given"), PLANTED, ids=[name for name, _ in PLANTED])
def test_what_is_planted_in_a_slice_is_found_there(name: str, given: dict[str, Any]) -> None:
    raw = registry.load("explainers", name)(build(Planted), **given).attribute(planted(), 1)
    above = raw[0, 0] - raw[0, 0].amin()
    assert abs(int(above.amax((1, 2)).argmax()) - 4) <= 1
    assert float(above[3:6, 8:12, 2:6].mean()) > 3 * float(above.mean()) > 0


ELSEWHERE = {"rise_plus"}  # is of an OoDNet


@pytest.mark.parametrize("name", sorted(set(registry.names("explainers")) - ELSEWHERE))
def test_every_method_explains_volumes_or_says_that_it_does_not(name: str) -> None:
    kind: type[Explainer] = registry.load("explainers", name)
    explainer, x = kind(build(Stack)), volumes(1, size=(3, 8, 8))
    if explainer.volumes:
        assert explainer(x, 1).shape == (1, 1, 3, 8, 8)
        return
    with pytest.raises(InvalidInput) as raised:
        explainer(x, 1)
    assert str(raised.value) == (
        f"{kind.__name__} is defined for pictures (N, C, H, W), and (1, 2, 3, 8, 8) are volumes or clips "
        "(N, C, D, H, W). Use GradCAM, ReciproCAM, RISE or Occlusion."
    )


def test_scores_alone_are_explained_by_those_that_need_no_more() -> None:
    with pytest.raises(InvalidInput, match=r"Use RISE or Occlusion\.$"):
        seewhy.LIME(lambda x: x.mean((2, 3, 4)))(volumes(), 0)


def test_metrics_and_others_say_that_they_are_for_pictures() -> None:
    with pytest.raises(InvalidInput) as raised:
        seewhy.metrics.Deletion().evaluate(seewhy.Gradient(build(Stack)), volumes(), 0)
    assert str(raised.value).endswith(
        "got (2, 2, 6, 8, 8). This is defined for pictures; volumes and clips (N, C, D, H, W) are explained by "
        "seewhy.explain."
    )


def test_frames_before_the_channels_are_said() -> None:
    clips = torch.rand(1, 16, 3, 8, 8)  # as many processors give them
    notes = seewhy.RISE(lambda x: x.mean((3, 4))[:, :2, 0], num_masks=8, grid=2).run(clips, 0).warnings
    assert [one for one in notes if "frames" in one] == [
        "The input has 16 channels and 3 slices. Volumes and clips are (N, C, D, H, W); if these are 16 frames, "
        "explain a network that takes x.transpose(1, 2)."
    ]
    network = build(Stack)
    network.config = SimpleNamespace(num_frames=16, num_channels=3)
    with pytest.raises(InvalidInput, match=r"^Stack takes clips \(N, frames, C, H, W\)"):
        seewhy.Gradient(network)(clips, 0)


def test_files_of_pictures_say_so() -> None:
    with pytest.raises(InvalidInput) as raised:
        check_picture(volumes(), "net.onnx")
    assert str(raised.value) == (
        "net.onnx takes pictures (N, C, H, W), got (2, 2, 6, 8, 8). Volumes and clips are explained of torch modules "
        "and of callables."
    )


def test_what_a_network_refuses_is_said_with_all_three_axes() -> None:
    with pytest.raises(InputRefused) as raised:
        seewhy.Gradient(build(Stack))(torch.rand(1, 3, 4, 5, 6), 0)
    assert str(raised.value).startswith(
        "Stack refuses an input of 1 x 3 channels x 4 x 5 x 6 pixels. Its first convolution takes 2 channels."
    )


def test_one_volume_without_its_batch_is_said() -> None:
    with pytest.raises(InputRefused, match=r"volumes or clips \(N, C, D, H, W\); for one of them use x\.unsqueeze"):
        seewhy.explain(build(Stack), volumes(1)[0], 0, progress=False)


def test_scores_of_every_voxel_need_a_region() -> None:
    with pytest.raises(BadOutput, match=r"say of which part of the volume they are meant: seewhy\.load"):
        seewhy.GradCAM(build(nn.Conv3d, 2, 3, 1))(volumes(), 0)


@pytest.mark.parametrize(
    ("kind", "given", "words"),
    [
        (seewhy.RISE, {"grid": (3, 3)}, "grid=(3, 3) has 2 sides, and the input has 3 spatial axes."),
        (seewhy.Occlusion, {"window": (2, 2)}, "window=(2, 2) has 2 sides, and the input has 3 spatial axes."),
        (seewhy.Occlusion, {"window": 7}, "window (7, 7, 7) is larger than the volume, (6, 8, 8)."),
    ],
)
def test_sides_for_as_many_axes(kind: Any, given: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        kind(build(Stack), **given)(volumes(), 0)
    assert str(raised.value) == words


def test_three_sides_are_not_for_pictures() -> None:
    with pytest.raises(InvalidInput) as raised:
        seewhy.RISE(lambda x: x.mean((2, 3)), grid=(3, 3, 3))(torch.rand(1, 3, 8, 8), 0)
    assert str(raised.value) == "grid=(3, 3, 3) has 3 sides, and the input has 2 spatial axes."


def test_maps_with_one_position_along_the_depth_say_so() -> None:
    network = build(Stack)
    network.conv2 = nn.Conv3d(6, 8, (6, 3, 3), (1, 2, 2), (0, 1, 1))
    told = seewhy.GradCAM(network).run(volumes(), 0).warnings
    assert told[0].startswith("The maps of layer 'conv2' have one position along the depth (or time)")
    assert not [w for w in seewhy.GradCAM(network, layer="conv1").run(volumes(), 0).warnings if "one position" in w]


class Tokens(nn.Module):
    """A transformer's tokens of a volume: where each lies is not known."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.fc = nn.Conv3d(2, 16, (2, 4, 4), (2, 4, 4)), nn.Linear(16, 3)
        self.blocks = nn.ModuleList(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True) for _ in range(3))

    def forward(self, x: Tensor) -> Any:
        tokens = self.embed(x).flatten(2).transpose(1, 2)
        for block in self.blocks:
            tokens = block(tokens)
        return self.fc(tokens.mean(1))


def test_tokens_of_a_volume_are_refused_and_the_map_before_them_is_not() -> None:
    network, x = build(Tokens), volumes()
    with pytest.raises(NoSpatialOutput, match=r"where those of a volume or clip lie is not known\. Name a layer"):
        seewhy.GradCAM(network, layer="blocks.1")(x, 0)
    assert seewhy.GradCAM(network, layer="embed").run(x, 0).raw.shape == (2, 1, 3, 2, 2)


def test_what_is_shown_instead_of_a_part() -> None:
    x = volumes()
    close(baseline.make("mean", x), x.mean((2, 3, 4), keepdim=True).expand_as(x))
    same = x[:, :, :1].expand(-1, -1, 6, -1, -1)  # nothing changes along the depth
    close(baseline.blur(same), baseline.blur(x[:, :, 0]).unsqueeze(2).expand_as(same))
    turned = baseline.blur(x.movedim(2, 4), 1.0)
    close(turned, baseline.blur(x, 1.0).movedim(2, 4))


SIZES = [((4, 14, 14), (8, 56, 56), True), ((8, 7, 7), (8, 56, 56), True), ((2, 4, 5), (16, 32, 40), True),
         ((1, 3, 3), (8, 48, 48), True), ((1, 1, 1), (8, 48, 48), False), ((16, 4, 9), (8, 32, 32), False),
         ((9, 9, 4), (8, 32, 32), False), ((4, 4, 2), (32, 32, 16), True)]  # fmt: skip


@pytest.mark.parametrize(("size", "volume", "want"), SIZES)
def test_one_axis_may_have_a_factor_of_its_own(size: tuple[int, ...], volume: tuple[int, ...], want: bool) -> None:
    assert fits(size, volume) is want


def test_the_automatic_layer_is_the_last_map() -> None:
    model, x = TorchModel(build(Stack)), volumes()
    with model.opened():
        assert model.auto_layer(x) == "conv2"
