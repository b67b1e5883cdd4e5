"""Small networks whose last map is not the picture's, or not all of it: gates, branches, pyramids, queries."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from support.networks import CLASSES


class Trunk(nn.Module):
    """Two convolutions and a linear layer; ``map`` is what "auto" must find."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 16, 3, 2, 1)
        self.fc = nn.Linear(16, CLASSES)

    def trunk(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 16, H/4, W/4)."""
        return F.relu(self.b(F.relu(self.a(x))))

    def map(self, x: Tensor) -> Tensor:
        """The map through which all passes that the scores know of the picture."""
        return self.trunk(x)

    def forward(self, x: Tensor) -> Any:
        return self.fc(self.map(x).mean((2, 3)))


class Siamese(Trunk):
    """Compares the picture with another one that it keeps."""

    other: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("other", torch.randn(1, 3, 64, 64))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc((self.trunk(x).mean((2, 3)) - self.trunk(self.other).mean((2, 3))).abs())


class Gated(Trunk):
    """CBAM's gate: one channel that is made of the map and multiplied with it."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Conv2d(2, 1, 7, padding=3)

    def map(self, x: Tensor) -> Tensor:
        maps = self.trunk(x)
        summary = torch.cat([maps.mean(1, keepdim=True), maps.amax(1, keepdim=True)], 1)
        return maps * self.gate(summary).sigmoid()


class Auxiliary(Trunk):
    """A second head and a decoder on an earlier map, of which one is the last thing that runs."""

    def __init__(self) -> None:
        super().__init__()
        self.c, self.aux = nn.Conv2d(16, 16, 3, 2, 1), nn.Linear(16, CLASSES)
        self.decoder = nn.ConvTranspose2d(16, 3, 4, 4)

    def map(self, x: Tensor) -> Tensor:
        return F.relu(self.c(self.trunk(x)))

    def forward(self, x: Tensor) -> Any:
        middle = self.trunk(x)
        scores = self.fc(F.relu(self.c(middle)).mean((2, 3)))
        return scores, self.aux(middle.mean((2, 3))), self.decoder(middle)


class Pyramid(Trunk):
    """A head on two levels, of which the finer one takes the coarser one up."""

    def __init__(self) -> None:
        super().__init__()
        self.c = nn.Conv2d(16, 16, 3, 2, 1)
        self.heads = nn.ModuleList(nn.Conv2d(16, CLASSES, 1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        fine = self.trunk(x)
        coarse = F.relu(self.c(fine))
        fine = fine + F.interpolate(coarse, scale_factor=2.0)
        rows = [head(maps).flatten(2).amax(2) for head, maps in zip(self.heads, (fine, coarse), strict=True)]
        return torch.maximum(*rows)


class Positions(Trunk):
    """A branch of coordinates that no picture moves, with as many channels as the map that it gates."""

    places: Tensor

    def __init__(self) -> None:
        super().__init__()
        rows, columns = torch.meshgrid(torch.linspace(-1, 1, 16), torch.linspace(-1, 1, 16), indexing="ij")
        self.register_buffer("places", torch.stack([rows, columns])[None])
        self.position = nn.Conv2d(2, 16, 1)

    def map(self, x: Tensor) -> Tensor:
        return self.trunk(x) * self.position(self.places).sigmoid()


class Turned(Trunk):
    """Its last map has the picture's rows in its columns."""

    def __init__(self) -> None:
        super().__init__()
        self.c = nn.Conv2d(16, 16, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        turned = F.relu(self.c(self.trunk(x).transpose(2, 3)))
        return self.fc((turned * torch.linspace(0, 1, turned.shape[3])).mean((2, 3)))


class Mirrored(Turned):
    """Its last map is the picture's mirror image."""

    def forward(self, x: Tensor) -> Tensor:
        turned = F.relu(self.c(self.trunk(x).flip(3)))
        return self.fc((turned * torch.linspace(0, 1, turned.shape[3])).mean((2, 3)))


class Mixed(Trunk):
    """Its last tensor has the shape of a map, but each position is a sum over all places."""

    def __init__(self) -> None:
        super().__init__()
        self.mix, self.c = nn.Linear(256, 64), nn.Conv2d(16, 16, 1)

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.mix(self.trunk(x).flatten(2)).unflatten(2, (8, 8))
        return self.fc(F.relu(self.c(mixed)).mean((2, 3)))


class Asked(Trunk):
    """One query sums the map up by attention."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.attention = nn.Parameter(torch.randn(1, 1, 16)), nn.MultiheadAttention(16, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.trunk(x).flatten(2).transpose(1, 2)
        query = self.query.expand(rows.shape[0], -1, -1)
        return self.fc(self.attention(query, rows, rows, need_weights=False)[0][:, 0])


class Queries(Asked):
    """16 object queries, which happen to fit a grid of 4 x 4."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.more = nn.Parameter(torch.randn(1, 16, 16)), nn.ModuleList(nn.Linear(16, 16) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        rows = self.trunk(x).flatten(2).transpose(1, 2)
        query = self.query.expand(rows.shape[0], -1, -1)
        query = query + self.attention(query, rows, rows, need_weights=False)[0]
        for layer in self.more:
            query = query + layer(query).relu()
        return self.fc(query).amax(1)


class Two(Auxiliary):
    """Two answers; the one that is asked for stands second."""

    def forward(self, x: Tensor) -> Any:
        return self.aux(self.trunk(x).mean((2, 3))), self.fc(self.map(x).mean((2, 3)))


class Region(nn.Module):
    """The mean over a region of a segmentation's map of class scores."""

    def __init__(self, network: nn.Module, key: str) -> None:
        super().__init__()
        self.network, self.key = network, key

    def forward(self, x: Tensor) -> Tensor:
        found = self.network(x)
        maps = found[self.key] if isinstance(found, dict) else getattr(found, self.key)
        return maps[:, :, :4, :4].mean((2, 3))
