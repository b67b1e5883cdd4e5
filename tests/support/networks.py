"""Small networks, one for every way in which real ones differ; made from a fixed seed, in evaluation mode."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seewhy.types import Outputs
from support.typed import present

CLASSES = 5


_SEEDED = threading.RLock()  # the seed is the whole process's: networks that threads make at once would be others


def build(kind: type[nn.Module] | Any, *args: Any, seed: int = 0, **kwargs: Any) -> Any:
    """A network in evaluation mode whose BatchNorm statistics are not the trivial ones."""
    with _SEEDED, torch.random.fork_rng():
        torch.manual_seed(seed)
        network = kind(*args, **kwargs)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d) and module.track_running_stats:
                present(module.running_mean).normal_(0, 0.1)
                present(module.running_var).uniform_(0.5, 1.5)
    return network.eval()


def pictures(n: int = 2, channels: int = 3, height: int = 32, width: int = 32, seed: int = 1) -> Tensor:
    """(N, C, H, W) of normal numbers."""
    return torch.randn((n, channels, height, width), generator=torch.Generator().manual_seed(seed))


class Parts(nn.Module):
    """Convolutions, BatchNorm, an activation, a mean over positions and a linear layer, to be put together."""

    def __init__(self, act: type[nn.Module] = nn.ReLU, channels: int = 3, **options: Any) -> None:
        super().__init__()
        self.conv1, self.bn1, self.act1 = nn.Conv2d(channels, 8, 3, 2, 1), nn.BatchNorm2d(8), act(**options)
        self.conv2, self.bn2, self.act2 = nn.Conv2d(8, 16, 3, 2, 1), nn.BatchNorm2d(16), act(**options)
        self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(16, CLASSES)

    def features(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, 16, H/4, W/4)."""
        return self.act2(self.bn2(self.conv2(self.act1(self.bn1(self.conv1(x))))))

    def scored(self, maps: Tensor) -> Any:
        """(N, 16, h, w) -> (N, K)."""
        return self.fc(self.pool(maps).flatten(1))

    def scores(self, x: Tensor) -> Any:
        """(N, C, H, W) -> (N, K)."""
        return self.scored(self.features(x))


class Pooled(Parts):
    """The parts one after the other."""

    def forward(self, x: Tensor) -> Any:
        return self.scores(x)


class Functional(Pooled):
    """The same with a functional ReLU."""

    def features(self, x: Tensor) -> Tensor:
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))


class Inplace(Pooled):
    """The same with in-place ReLUs."""

    def __init__(self) -> None:
        super().__init__(inplace=True)


class Shared(Pooled):
    """The same with one ReLU module used twice."""

    def features(self, x: Tensor) -> Tensor:
        return self.act1(self.bn2(self.conv2(self.act1(self.bn1(self.conv1(x))))))


class Residual(nn.Module):
    """A skip connection that passes layer ``conv2`` by, and a head that is no pooled linear one."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3 = (nn.Conv2d(i, o, 3, s, 1) for i, o, s in ((3, 8, 4), (8, 8, 1), (8, 8, 1)))
        self.fc = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        first = self.conv1(x).relu()
        out = self.conv2(first)
        out += first
        return self.fc(self.conv3(out.relu()).relu().mean((2, 3)))


class Deep(nn.Module):
    """A head that is not linear: conv, ReLU, max pooling, LayerNorm, MLP."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 4, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 1, 1))
        self.head = nn.Sequential(
            nn.ReLU(), nn.AdaptiveMaxPool2d(2), nn.Flatten(), nn.LayerNorm(32), nn.Linear(32, 12), nn.GELU(),
            nn.Linear(12, CLASSES),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


class ChannelsLast(nn.Module):
    """A layer that gives (N, h, w, C), as Swin's do; with ``pooled`` the head is a mean and a linear layer."""

    def __init__(self, pooled: bool = False) -> None:
        super().__init__()
        self.embed, self.stage, self.fc = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 8), nn.Linear(8, CLASSES)
        self.norm = nn.Identity() if pooled else nn.LayerNorm(8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stage(self.embed(x).permute(0, 2, 3, 1))
        x = self.norm(x)
        x = x if isinstance(self.norm, nn.Identity) else x.relu()
        return self.fc(x.mean((1, 2)))


@dataclass
class Answer:
    """An object with logits, as transformers' models return it."""

    logits: Tensor
    loss: None = None


class Wrapped(Pooled):
    """A network that returns its scores in something."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form

    def forward(self, x: Tensor) -> Any:
        scores = super().forward(x)
        forms = {"dict": {"logits": scores, "aux": x.mean((2, 3))}, "only": {"out": scores}, "tuple": (scores, None)}
        return Answer(scores) if self.form == "object" else forms[self.form]


class Dropout(Pooled):
    """Dropout and BatchNorm, which behave otherwise in training mode."""

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.dropout(self.pool(self.features(x)).flatten(1), 0.5, self.training))


class Counts(nn.Module):
    """To be put before a network: changes a buffer in place, and puts a new tensor in another's place."""

    calls: Tensor
    last: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))
        self.register_buffer("last", torch.zeros(1))

    def forward(self, x: Tensor) -> Any:
        self.calls += 1
        self.last = self.last + 1
        torch.rand(1)  # and reads the global random state
        return super().forward(x)


class Spoils(nn.Module):
    """To be put before a network: changes the input in place."""

    def forward(self, x: Tensor) -> Any:
        return super().forward(x.mul_(2))


class Counting(Counts, Pooled):
    """Changes its buffers in forward."""


class Careless(Spoils, Pooled):
    """Changes its input in place."""


class Tokens(nn.Module):
    """A tiny vision transformer with a class token."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.cls = nn.Conv2d(3, 16, 8, 8), nn.Parameter(torch.randn(1, 1, 16))
        self.blocks = nn.ModuleList(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True) for _ in range(2))
        self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        tokens = torch.cat([self.cls.expand(len(x), -1, -1), self.patch(x).flatten(2).transpose(1, 2)], 1)
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(self.norm(tokens)[:, 0])


class Linear(nn.Module):
    """f(x)_c = <w_c, x>: everything about it is known in closed form."""

    def __init__(self, channels: int = 3, height: int = 8, width: int = 12) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(CLASSES, channels, height, width))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("nchw,kchw->nk", x, self.weight)


class Constant(nn.Module):
    """The same scores for every picture, but through the graph and with a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu, self.fc = nn.Conv2d(3, 4, 3, 4, 1), nn.ReLU(), nn.Linear(4, CLASSES)
        nn.init.zeros_(self.conv.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.relu(self.conv(x)).mean((2, 3)))


class Fails(nn.Module):
    """To be put before a network: raises where it is told to, "forward" or "backward"."""

    features: Callable[[Tensor], Tensor]
    scored: Callable[[Tensor], Any]

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where

    def forward(self, x: Tensor) -> Any:
        x = self.features(x)
        if self.where == "forward":
            raise RuntimeError("broken on purpose")
        if x.requires_grad:
            x.register_hook(_raise)
        return self.scored(x)


class Failing(Fails, Pooled):
    """Raises where it is told to: "forward" or "backward"."""


def _raise(_gradient: Tensor) -> None:
    raise RuntimeError("broken on purpose")


def detector(x: Tensor) -> Outputs:
    """One candidate for each quarter of the picture, of class 0 where red and of class 1 where green outweighs.

    (N, 3, H, W) -> 4 boxes, 2 classes; a candidate's probability is the mean brightness of its quarter, in [0, 1].
    """
    n, _, height, width = x.shape
    h, w = height // 2, width // 2
    corners = [(0, 0), (w, 0), (0, h), (w, h)]
    scores = [x[:, :2, top : top + h, left : left + w].mean((2, 3)).clamp(0, 1) for left, top in corners]
    boxes = torch.tensor([(left, top, left + w, top + h) for left, top in corners], dtype=torch.float32)
    return Outputs(scores=torch.stack(scores, 1), boxes=boxes.expand(n, -1, -1), activated=True)


class Counted(nn.Module):
    """Counts the images that a module sees; not while it is exported or compiled."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.images = inner, 0

    def forward(self, x: Tensor) -> Any:
        if not torch.compiler.is_compiling():
            self.images += len(x)
        return self.inner(x)


WAYS = ("whole", "in place", "child")


def compiled(network: Any, way: str, x: Tensor) -> Any:
    """The network compiled in one of the ways that there are, and run once, so that hooks come later."""
    if way == "whole":
        network = torch.compile(network, backend="eager")
    elif way == "in place":
        network.compile(backend="eager")
    else:
        network.conv2 = torch.compile(network.conv2, backend="eager")
    network(x)
    return network


@contextmanager
def float64_by_default() -> Iterator[None]:
    """New tensors are float64 for the time of the block."""
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)
