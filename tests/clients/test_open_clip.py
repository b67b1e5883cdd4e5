"""open_clip: image towers, both towers, and a classifier made of texts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seewhy.errors import InvalidTarget
from seewhy.explainers import GradCAM, ViTReciproCAM
from seewhy.targets import SimilarityTarget
from support.networks import pictures
from support.slow_twins import Client, Place, Twin, check, same

library = pytest.importorskip("open_clip.model")
TOWER = {"image_size": 64, "patch_size": 16, "width": 64, "layers": 2, "head_width": 32}
TEXT = {"context_length": 8, "vocab_size": 64, "width": 32, "heads": 2, "layers": 1}
BLOCK = ("visual.transformer.resblocks.1", "visual.transformer.resblocks.1.ln_1")


def clip(**tower: Any) -> Any:
    return library.CLIP(embed_dim=16, vision_cfg={**TOWER, **tower}, text_cfg=TEXT)


class ZeroShot(nn.Module):
    """What people make of it: a picture beside the texts of five classes."""

    def __init__(self, **tower: Any) -> None:
        super().__init__()
        self.clip = clip(**tower)
        self.register_buffer("texts", F.normalize(torch.randn(5, 16), dim=1))

    def forward(self, x: Tensor) -> Tensor:
        return self.clip.logit_scale.exp() * self.clip.encode_image(x, normalize=True) @ self.texts.T


def inside(block: tuple[str, str]) -> tuple[str, str]:
    return f"clip.{block[0]}", f"clip.{block[1]}"


NETWORKS = [
    Client(name="zero-shot, ViT", make=ZeroShot, layer=f"clip.{BLOCK[1]}", prefix=1, grid=4, carries=False,
           block=inside(BLOCK)),
    Client(name="zero-shot, ViT, mean", make=lambda: ZeroShot(pool_type="avg"), layer="clip.visual.ln_post", prefix=1,
           grid=4, block=inside(BLOCK)),
    Client(name="zero-shot, ResNet", make=lambda: ZeroShot(layers=[1, 1, 1, 1], width=8, patch_size=None),
           layer="clip.visual.layer4", grid=2),
]  # fmt: skip


@pytest.mark.parametrize("one", NETWORKS, ids=lambda one: one.name)
def test_by_hand(one: Client) -> None:
    check(one)


def test_the_image_tower_gives_an_embedding_and_its_similarity_is_explained() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tower = clip().visual.eval()
    x, toward = pictures(2, height=64, width=64), torch.randn(16, generator=torch.Generator().manual_seed(1))
    with pytest.raises(InvalidTarget, match=r"^The network gives an embedding of 16 numbers and no classes: they "):
        GradCAM(tower)(x)
    found = ViTReciproCAM(tower).run(x, SimilarityTarget(embedding=toward))
    twin = Twin(tower, lambda own, images: F.cosine_similarity(own(images), toward[None])[:, None], x, 0)
    place = Place(layer=str(found.layer), prefix=1, grid=(4, 4))
    want = twin.vit_recipro_cam(place, "transformer.resblocks.1", "transformer.resblocks.1.ln_1", [(0, 1), (3, 2)])
    same(torch.stack([found.raw[:, 0, 0, 1], found.raw[:, 0, 3, 2]], 1), want, 1e-4)
