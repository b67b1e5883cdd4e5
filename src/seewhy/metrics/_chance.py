"""Chance for metrics: a seed for each sample, so that what is drawn depends on no batch size and no global state."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["normal", "seeds", "uniform"]


def seeds(seed: int, count: int) -> list[int]:
    """``count`` seeds, one for each sample."""
    generator = torch.Generator("cpu").manual_seed(seed)
    return torch.randint(2**62, (count,), generator=generator, device="cpu").tolist()


def uniform(seeds: list[int], shape: torch.Size) -> Tensor:
    """(len(seeds), *shape) float32 on the host, uniform in [-1, 1)."""
    return 2 * torch.stack([torch.rand(shape, **_source(seed)) for seed in seeds]) - 1


def normal(seeds: list[int], shape: torch.Size) -> Tensor:
    """(len(seeds), *shape) float32 on the host, normal with deviation 1."""
    return torch.stack([torch.randn(shape, **_source(seed)) for seed in seeds])


def _source(seed: int) -> dict[str, Any]:
    generator = torch.Generator("cpu").manual_seed(seed)
    return {"generator": generator, "dtype": torch.float32, "device": torch.device("cpu")}
