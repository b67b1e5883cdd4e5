"""What works with which family of networks: a map must move with the evidence, on small variants with random weights.

Each network gets a head that answers one question: is the texture there? (The difference of its features with and
without it, so that class 0 has the logit 1 with the texture and 0 without.) The texture is put in one of three places
of a faint random picture. Then two things are asked of the map of class 0, from which its mean is taken first:

    falls    with the texture taken away the map falls where it was
    moves    what changes in the map lies there, more than elsewhere

The networks are not trained, so a map need not be good; but one that is read in the wrong order of positions, from the
wrong tokens, or from a layer that does not matter cannot move with the texture.

    python benchmarks/families.py --rows ROWS.jsonl [--only vit,swin] [--part 0/2] [--out docs/families.md]

Families that the file of rows holds already are not tried again; the page is written from all of them.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
from torch import Tensor, nn

from seewhy import registry
from seewhy.errors import SeewhyError
from seewhy.models.torch.model import TorchModel

METHODS = {
    "grad_cam": {}, "layer_cam": {}, "activation_map": {}, "recipro_cam": {}, "vit_recipro_cam": {}, "le_grad": {},
    "attention_rollout": {}, "tis": {"num_masks": 48, "activation_fn": None},
}  # fmt: skip
CLASSES, SIDE = 7, 128
SHALLOW = {"depth": 4, "embed_dim": 192, "num_heads": 3}
MEAN, TOKEN = {"global_pool": "avg"}, {"global_pool": "token"}
# (family, network, what is made smaller)
FAMILIES: list[tuple[str, str, dict[str, Any]]] = [
    ("ResNet", "resnet18", {}), ("ResNet v2", "resnetv2_18", {}), ("ResNeSt", "resnest14d", {}),
    ("ResNet, CLIP (attention pooling)", "resnet50_clip", {}), ("SENet", "legacy_seresnet18", {}),
    ("SKNet", "skresnet18", {}), ("Res2Net", "res2net50_14w_8s", {}), ("NFNet", "test_nfnet", {}),
    ("RegNet", "regnetx_002", {}), ("VGG", "vgg11", {}), ("DenseNet", "densenet121", {}), ("DLA", "dla46_c", {}),
    ("DPN", "dpn48b", {}), ("HRNet", "hrnet_w18_small", {}), ("CSPNet", "cs3darknet_focus_s", {}),
    ("CSPNeXt", "cspnext_tiny", {}), ("VoVNet", "ese_vovnet19b_slim_dw", {}), ("SelecSLS", "selecsls42", {}),
    ("Inception v3", "inception_v3", {}), ("Xception", "legacy_xception", {}), ("HGNet", "hgnetv2_b0", {}),
    ("EfficientNet", "efficientnet_b0", {}), ("MobileNet v3", "mobilenetv3_small_050", {}),
    ("MobileOne (BYOB)", "mobileone_s0", {}), ("GhostNet", "ghostnet_050", {}), ("RepGhost", "repghostnet_050", {}),
    ("ReXNet", "rexnet_100", {}), ("HardCoRe-NAS", "hardcorenas_a", {}), ("FasterNet", "fasternet_t0", {}),
    ("StarNet", "starnet_s050", {}), ("RepViT", "repvit_m1_0", {}), ("SHViT", "shvit_s1", {}),
    ("BoTNet (BYOA)", "botnet26t_256", {}), ("HaloNet (BYOA)", "halonet26t", {}),
    ("ConvNeXt", "convnext_atto", {}), ("ConvMixer", "convmixer_768_32", {}),
    ("InceptionNeXt", "inception_next_atto", {}), ("EdgeNeXt", "edgenext_xx_small", {}),
    ("PoolFormer", "poolformer_s12", {}), ("CAFormer", "caformer_s18", {}), ("MambaOut", "mambaout_femto", {}),
    ("FocalNet", "focalnet_tiny_srf", {}), ("FastViT", "fastvit_t8", {}), ("NextViT", "nextvit_small", {}),
    ("MobileViT", "mobilevit_xxs", {}), ("MobileViT v2", "mobilevitv2_050", {}),
    ("EfficientViT (MIT)", "efficientvit_b0", {}), ("EfficientViT (MSRA)", "efficientvit_m0", {}),
    ("EfficientFormer", "efficientformer_l1", {}), ("EfficientFormer v2", "efficientformerv2_s0", {}),
    ("SwiftFormer", "swiftformer_xs", {}), ("Visformer", "visformer_tiny", {}), ("TinyViT", "tiny_vit_5m_224", {}),
    ("CoAtNet", "coatnet_pico_rw_224", {}), ("MaxViT", "maxvit_pico_rw_256", {}), ("GC ViT", "gcvit_xxtiny", {}),
    ("DaViT", "davit_tiny", {}), ("NesT", "nest_tiny", {}), ("PVT v2", "pvt_v2_b0", {}),
    ("Twins-PCPVT", "twins_pcpvt_small", {}), ("Twins-SVT", "twins_svt_small", {}), ("CoaT", "coat_lite_tiny", {}),
    ("Swin", "swin_tiny_patch4_window7_224", {"depths": (1, 1, 2, 1)}),
    ("Swin v2", "swinv2_tiny_window8_256", {"depths": (1, 1, 2, 1)}),
    ("Swin v2 CR", "swinv2_cr_tiny_224", {"depths": (1, 1, 2, 1)}),
    ("Sequencer", "sequencer2d_s", {}), ("MViT v2", "mvitv2_tiny", {}), ("Hiera", "hiera_tiny_224", {}),
    ("Hiera, SAM 2", "sam2_hiera_tiny", {}), ("LeViT", "levit_128s", {}), ("PiT", "pit_ti_224", {}),
    ("ViT", "vit_tiny_patch16_224", {"depth": 4}), ("ViT, mean pooling", "vit_tiny_patch16_224", {"depth": 4, **MEAN}),
    ("ViT, attention pooling", "vit_base_patch16_siglip_224", SHALLOW),
    ("ViT, relative position", "vit_relpos_small_patch16_224", {"depth": 4}),
    ("ViT, parallel blocks", "vit_small_patch16_18x2_224", {"depth": 4}),
    ("ViT, hybrid", "vit_tiny_r_s16_p8_224", {"depth": 4}),
    ("ViT, SAM", "samvit_base_patch16_224", SHALLOW),
    ("FlexiViT", "flexivit_small", {"depth": 4}), ("NaFlexViT", "naflexvit_base_patch16_gap", SHALLOW),
    ("DeiT", "deit_tiny_patch16_224", {"depth": 4}),
    ("DeiT, distilled", "deit_tiny_distilled_patch16_224", {"depth": 4}),
    ("DeiT III", "deit3_small_patch16_224", {"depth": 4}),
    ("DINOv2", "vit_small_patch14_dinov2", {"depth": 4}),
    ("DINOv2, registers", "vit_small_patch14_reg4_dinov2", {"depth": 4}),
    ("DINOv3", "vit_small_patch16_dinov3", {"depth": 4}), ("BEiT", "beit_base_patch16_224", SHALLOW),
    ("BEiT, class token", "beit_base_patch16_224", {**SHALLOW, **TOKEN}),
    ("EVA-02", "eva02_tiny_patch14_224", {"depth": 4}),
    ("EVA-02, class token", "eva02_tiny_patch14_224", {"depth": 4, **TOKEN}), ("CaiT", "cait_xxs24_224", {"depth": 4}),
    ("XCiT", "xcit_nano_12_p16_224", {}), ("ConViT", "convit_tiny", {}), ("CrossViT", "crossvit_tiny_240", {}),
    ("TNT", "tnt_s_patch16_224", {"depth": 4}), ("VOLO", "volo_d1_224", {}), ("ViTamin", "vitamin_small_224", {}),
    ("MLP-Mixer", "mixer_s16_224", {}), ("ResMLP", "resmlp_12_224", {}),
    ("gMLP", "gmlp_ti16_224", {}), ("torchvision ViT", "tv:vit", {}), ("torchvision Swin", "tv:swin_t", {}),
    ("torchvision MaxViT", "tv:maxvit_t", {}), ("torch TransformerEncoder", "torch:encoder", {}),
]  # fmt: skip
BOXES = [(5 / 8, 1 / 8), (1 / 8, 5 / 8), (1 / 2, 1 / 2)]  # top and left corners; a quarter of the side long


@dataclass
class Row:
    """One family's line."""

    family: str
    network: str
    size: int = 0
    layer: str = ""
    grid: str = ""
    cells: dict[str, str] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    numbers: dict[str, list[tuple[float, float]]] = field(default_factory=dict)


class Encoder(nn.Module):
    """A vision transformer of torch's own layers, class token first, normalised after each step."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.token = nn.Conv2d(3, 64, 16, 16), nn.Parameter(torch.randn(1, 1, 64))
        layer = nn.TransformerEncoderLayer(64, 4, 128, batch_first=True)
        self.encoder, self.head = nn.TransformerEncoder(layer, 3), nn.Linear(64, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patch(x).flatten(2).transpose(1, 2)
        return self.head(self.encoder(torch.cat([self.token.expand(len(x), -1, -1), tokens], 1))[:, 0])


def make(name: str, options: dict[str, Any]) -> tuple[nn.Module, int]:
    """The network and the side of the pictures that it takes."""
    torch.manual_seed(0)
    if name == "torch:encoder":
        return Encoder().eval(), SIDE
    if name == "tv:vit":
        return torchvision.models.VisionTransformer(128, 16, 4, 3, 192, 384, num_classes=CLASSES).eval(), SIDE
    if name.startswith("tv:"):
        return torchvision.models.get_model(name[3:], num_classes=CLASSES).eval(), 224
    native = timm.get_pretrained_cfg(name).input_size[-1]
    side = 126 if "patch14" in name else SIDE
    for own, kept in (({"img_size": side}, side), ({}, side), ({}, native)):
        try:
            network = timm.create_model(name, num_classes=CLASSES, **own, **options).eval()
            with torch.no_grad():
                network(torch.zeros(2, 3, kept, kept))
            return network, kept
        except Exception as error:  # a size that the network does not take shows itself in many ways
            failed = error
    raise failed


def scenes(side: int) -> tuple[Tensor, list[tuple[slice, slice]]]:
    """Three pictures with the texture, and the same picture without it."""
    generator = torch.Generator().manual_seed(1)
    ground = 0.2 * torch.randn((3, side, side), generator=generator)
    length = side // 4
    texture = 2.5 * torch.randn((3, length, length), generator=generator).sign()
    pictures, boxes = [], []
    for top, left in BOXES:
        box = (slice(int(top * side), int(top * side) + length), slice(int(left * side), int(left * side) + length))
        picture = ground.clone()
        picture[:, box[0], box[1]] = texture
        pictures.append(picture)
        boxes.append(box)
    return torch.stack([*pictures, ground]), boxes


@torch.no_grad()
def ask(network: nn.Module, x: Tensor) -> None:
    """Gives every last layer the question: is the texture there?"""
    lasts = [m for m in network.modules() if _classes(m) == CLASSES]
    seen: dict[nn.Module, Tensor] = {}
    handles = [m.register_forward_pre_hook(lambda m, args: seen.__setitem__(m, args[0].detach())) for m in lasts]
    network(x)
    for handle in handles:
        handle.remove()
    for module in lasts:
        if module not in seen:
            continue
        features = seen[module]
        features = (
            features.mean((2, 3)) if features.ndim == 4 and features.shape[1] == module.weight.shape[1] else features
        )
        features = features.flatten(1, -2).mean(1) if features.ndim > 2 else features
        gap = features[:-1].mean(0) - features[-1]
        module.weight[:] = 0.02 * torch.randn(module.weight.shape, generator=torch.Generator().manual_seed(2))
        module.weight[0] = (gap / gap.square().sum().clamp_min(1e-12)).view(module.weight[0].shape)
        if module.bias is not None:
            module.bias.zero_()
            module.bias[0] = -(features[-1] @ module.weight[0].flatten())


def _classes(module: nn.Module) -> int:
    if isinstance(module, nn.Linear):
        return module.out_features
    return module.out_channels if isinstance(module, nn.Conv2d) else 0


def judge(raw: Tensor, boxes: list[tuple[slice, slice]]) -> list[tuple[float, float]]:
    """For each place (by how much the map falls there in units of its spread, change inside over change outside)."""
    found = []
    for i, (rows, columns) in enumerate(boxes):
        change = raw[i, 0] - raw[-1, 0]
        if float(change.abs().max()) <= 1e-6 * float(raw[i].abs().max()):
            found.append((0.0, 0.0))
            continue
        change = change - change.mean()  # what rises everywhere is no place
        inside = change[rows, columns]
        outside = (change.abs().sum() - inside.abs().sum()) / (change.numel() - inside.numel())
        found.append((float(inside.mean() / raw[i, 0].std().clamp_min(1e-12)), float(inside.abs().mean() / outside)))
    return found


def cell(numbers: list[tuple[float, float]], said: bool) -> str:
    """In how many places the map falls and moves; "empty" where it is and says so."""
    live = [(f, m) for f, m in numbers if (f, m) != (0, 0)]
    if len(live) < 2:
        return "empty" if said else "flat"
    good, moves = (sum(m > 1 and f > (0 if falls else -9) for f, m in live) for falls in (True, False))
    if good == len(live):
        return "yes"
    return "moves" if moves == len(live) else f"{good}/{len(live)}"


def look(family: str, name: str, options: dict[str, Any]) -> Row:
    """Tries all methods on one network."""
    row = Row(family, name)
    network, row.size = make(name, options)
    x, boxes = scenes(row.size)
    ask(network, x)
    model = TorchModel(network)
    try:
        with model.opened():
            row.layer = model.auto_layer(x)
            found = model.features(x, row.layer)
        before = "" if found.prefix is None else f"{found.prefix} + "
        row.grid = f"{before}{found.maps.shape[2]} x {found.maps.shape[3]}"
    except SeewhyError as error:
        row.layer, row.errors["layer"] = "-", str(error)
    for method, parameters in METHODS.items():
        try:
            found_map = registry.load("explainers", method)(model, **parameters).run(x, 0)
            flat = [w for w in found_map.warnings if "constant" in w or "negative everywhere" in w]
            raw = nn.functional.interpolate(found_map.raw, x.shape[2:], mode="bilinear")
            row.numbers[method] = judge(raw, boxes)
            row.cells[method] = cell(row.numbers[method], bool(flat))
        except SeewhyError as error:
            row.cells[method], row.errors[method] = "error", str(error)
    return row


def table(rows: list[Row]) -> str:
    """The page."""
    titles = [registry.load("explainers", m).__name__ for m in METHODS]
    lines = [
        "| family | network | layer chosen | positions | " + " | ".join(titles) + " |",
        "|---" * (4 + len(titles)) + "|",
    ]
    for row in rows:
        cells = " | ".join(row.cells[m] for m in METHODS)
        lines.append(f"| {row.family} | `{row.network}` {row.size} | `{row.layer}` | {row.grid} | {cells} |")
    return "\n".join(lines)


def main() -> None:
    """Tries the families and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=Path, required=True, help="where the results are kept")
    parser.add_argument("--only", default="", help="networks whose name holds one of these, separated by commas")
    parser.add_argument("--part", default="0/1", help="0/2 and 1/2 are the two halves")
    parser.add_argument("--out", type=Path, help="the page")
    options = parser.parse_args()
    torch.set_num_threads(1)
    part, parts = map(int, options.part.split("/"))
    done = _kept(options.rows)
    for family, name, smaller in FAMILIES[part::parts]:
        if family in done or not any(piece in name for piece in options.only.split(",")):
            continue
        started = time.perf_counter()
        try:
            row = look(family, name, smaller)
        except Exception as error:  # one broken network must not lose the others
            print(f"{family}: {type(error).__name__}: {str(error)[:300]}", flush=True)
            continue
        with options.rows.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(row)) + "\n")
        print(family, row.layer, row.grid, row.cells, f"{time.perf_counter() - started:.1f} s", flush=True)
        gc.collect()
    if options.out:
        kept = _kept(options.rows)
        options.out.write_text(page([kept[f] for f, _, _ in FAMILIES if f in kept]), encoding="utf-8")


def _kept(path: Path) -> dict[str, Row]:
    if not path.exists():
        return {}
    rows = [Row(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
    return {row.family: row for row in rows}


def page(rows: list[Row]) -> str:
    """The whole page."""
    errors: dict[str, list[tuple[str, str]]] = {}
    for row in rows:
        for method, said in row.errors.items():
            if not said.startswith(("No block with an attention", "ReciproCAM is defined")):
                errors.setdefault(said, []).append((row.family, method))
    listed = "\n".join(f"- {_short(who)}: {said}" for said, who in errors.items())
    return PAGE.format(count=len(rows), transformers=_transformers(rows), table=table(rows), errors=listed)


def _short(who: list[tuple[str, str]]) -> str:
    families = dict.fromkeys(family for family, _ in who)
    methods = {family: [registry.load("explainers", m).__name__ for f, m in who if f == family and m in METHODS]
               for family in families}  # fmt: skip
    return "; ".join(f if len(m) == len(METHODS) else f"{f} ({', '.join(m)})" for f, m in methods.items())


def _transformers(rows: list[Row]) -> int:
    return sum("+" in row.grid for row in rows)


PAGE = """# Families of networks

What works with which family: {count} small variants, {transformers} of them with tokens, none trained. Made by
`benchmarks/families.py`; layers and tokens are found automatically, and no reshape function is written by anyone.

Every network gets a head that asks whether a texture is in the picture. The texture is put in three places, one after
the other, and the map of that class is looked at, its own mean taken away:

- **yes**: in each place the map falls when the texture is taken away, and changes there more than elsewhere.
- **moves**: it changes there more than elsewhere, but falls in some of the places only.
- **2/3** and so on: in so many places it does both.
- **empty**: the map is zero or constant in two places or more, and a warning says so.
- **flat**: what the network answers is the same with and without the texture in two places or more.
- **error**: refused, and the message says why and what to use instead.

How to read it: ActivationMap asks nothing about the class, so it may move without falling. A network that was never
trained may spread a change over the whole picture (deep ones with attention and BatchNorm do); then there is nothing to
see for any method. Where the head reads the mean of the picture's tokens, LeGrad and AttentionRollout see only what
goes through attention, which is little in a network that was not trained; a warning says so. ReciproCAM refuses tokens
that speak to each other, and the four methods for transformers refuse networks without an attention among tokens: both
name the method to use. Positions are "prefix + height x width": class tokens and registers stand before the picture's
own tokens.

{table}

## Other refusals

{errors}
"""

if __name__ == "__main__":
    main()
