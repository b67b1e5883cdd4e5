"""RandomMap, a baseline: uniform noise, which looks at nothing.

Every pixel is drawn from [0, 1) on its own. What is drawn follows from ``seed`` and the picture's numbers, so a
picture has the same map in every batch and on every device, and two pictures have independent ones: a mean over
pictures is then what chance gives, not the luck of one map. Any change of the picture, however small, gives another
map. What a random ranking scores is the floor of a comparison (Hooker, Erhan, Kindermans and Kim, "A Benchmark for
Interpretability Methods in Deep Neural Networks", 2019, arXiv 1806.10758).
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import ClassVar

import torch
from torch import Tensor

from seewhy.attribution import Attribution
from seewhy.explainers import Explainer
from seewhy.explainers._superpixels import check_seed
from seewhy.models import Model
from seewhy.targets import Request
from seewhy.types import Note

__all__ = ["RandomMap"]

_BASELINE = Note(
    text="RandomMap is a baseline: its map says nothing about the picture or the network.", kind="baseline"
)


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class RandomMap(Explainer):
    """A baseline for comparisons: uniform noise, another for each picture (Hooker 2019).

    Attributes:
        seed: of the noise; the global random state is neither read nor changed.
    """

    seed: int = 0

    class_agnostic: ClassVar[bool] = True
    chance: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_seed(self.seed)

    def _explain(self, model: Model, inputs: Tensor, request: Request) -> Attribution:
        outputs = model(inputs)
        targets = request.resolve(outputs)
        noise = torch.stack([self._noise(picture) for picture in inputs]).to(inputs.device)
        return Attribution(
            raw=noise.unsqueeze(1).expand(-1, targets.count, -1, -1).contiguous(),
            outputs=outputs,
            targets=targets,
            notes=(_BASELINE,),
        )

    def _noise(self, picture: Tensor) -> Tensor:
        """(C, H, W) -> (H, W), drawn on the host from a generator that the picture's numbers seed."""
        numbers = picture.float().cpu().contiguous().numpy().tobytes()
        digest = blake2b(numbers + str(self.seed).encode(), digest_size=8).digest()
        generator = torch.Generator("cpu").manual_seed(int.from_bytes(digest, "little") >> 1)
        return torch.rand(picture.shape[1:], generator=generator, dtype=torch.float32, device="cpu")
