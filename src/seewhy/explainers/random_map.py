"""RandomMap, a baseline: uniform noise, which looks at nothing.

Every pixel is drawn from [0, 1) on its own. What is drawn follows from ``seed`` and the image's numbers, so an
image has the same map in every batch and on every device, and two images have independent ones: a mean over
images is then what chance gives, not the luck of one map. Any change of the image, however small, gives another
map. What a random ranking scores is the floor of a comparison (Hooker, Erhan, Kindermans and Kim, "A Benchmark for
Interpretability Methods in Deep Neural Networks", 2019, arXiv 1806.10758).
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

import torch
from torch import Tensor

from seewhy.checks import check_seed
from seewhy.explainers import Baseline

__all__ = ["RandomMap"]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class RandomMap(Baseline):
    """A baseline for comparisons: uniform noise, another for each image (Hooker 2019).

    Attributes:
        seed: of the noise; the global random state is neither read nor changed.

    Example:
        >>> bool((RandomMap(network)(inputs, 1) == RandomMap(network)(inputs, 1)).all())  # the same for the same image
        True
    """

    seed: int = 0

    def __post_init__(self) -> None:
        check_seed(self.seed)

    def drawn(self, inputs: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, H, W) the maps, without a network."""
        return torch.stack([self._noise(picture) for picture in inputs]).to(inputs.device)

    def _noise(self, picture: Tensor) -> Tensor:
        """(C, H, W) -> (H, W), drawn on the host from a generator that the image's numbers seed."""
        numbers = picture.float().cpu().contiguous().numpy().tobytes()
        digest = blake2b(numbers + str(self.seed).encode(), digest_size=8).digest()
        generator = torch.Generator("cpu").manual_seed(int.from_bytes(digest, "little") >> 1)
        return torch.rand(picture.shape[1:], generator=generator, dtype=torch.float32, device="cpu")
