"""How familiar an image is to a classifier: a network on its features that learns without strange images.

With features z of the classifier and one vector w_i for each class

    f_i(x) = h_i(x) / g(x)      h_i = cos(w_i, z)      g = sigmoid(BN(linear(z)))

is trained as a classifier. The divisor g takes up how sure the network is of an image, so that h is left to say how
near the image is to the class. What is scored is h alone: each in [-1, 1], and the largest of them, max_i h_i, is
how familiar the image is (the paper's S, DeConf-C). High is familiar; out-of-distribution images come out low.
The paper's change of the input before scoring is not made.

Source: Hsu, Shen, Jin and Kira, "Generalized ODIN: Detecting Out-of-distribution Image without Learning from
Out-of-distribution Data", 2020 (arXiv 2002.11297).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from inspect import signature
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau, StepLR

from seewhy.checks import check_count
from seewhy.errors import BadOutput, InvalidInput, InvalidType, MissingCapability, UnknownParameter, nearest
from seewhy.foreign import is_cell
from seewhy.maps import full_precision
from seewhy.models.mindspore.bridge import CellModule, differentiable
from seewhy.models.reading import select
from seewhy.models.torch.model import TorchModel
from seewhy.models.torch.parts import like
from seewhy.models.torch.state import on
from seewhy.models.turns import alone
from seewhy.ood._data import Batches, TrainingBatch, as_labels
from seewhy.progress import Bar, Listener

__all__ = ["OoDNet"]

Callback = Callable[[int, float], Any]
Result = TypeVar("Result")


class OoDNet(nn.Module):
    """Tells familiar images from strange ones by a classifier's features (Hsu et al. 2020).

    The features are what goes into the classifier's last linear layer. A classifier with the attributes
    ``num_features`` (int) and ``output_features`` (bool) is asked for them instead: while the latter is True, it must
    return features (N, num_features).

    A new one is in evaluation mode and untrained; ``fit`` trains it, ``state_dict`` saves it with its classifier.

    Attributes:
        underlying: the classifier. It is run in evaluation mode and left as found, unless it is trained, too. A cell
            of MindSpore is held by a module of torch, and never trained.
        class_vectors: (K, F), the w of the formula.
        g: the divisor, features (N, F) -> (N, 1) in (0, 1).
        asks: True where the classifier is asked for its features.
        layer: name of the linear layer whose input are the features; None where that is not known.
        train_underlying: True while the classifier is trained, too.

    Example:
        >>> ood_net = OoDNet(network, num_classes=5)
        >>> ood_net(inputs).shape  # how familiar each image is as each class
        torch.Size([2, 5])
    """

    def __init__(self, underlying: nn.Module, num_classes: int) -> None:
        """Takes a classifier and its number of classes.

        Raises:
            InvalidType, InvalidInput, MissingCapability: see the message.
        """
        super().__init__()
        if is_cell(underlying):
            underlying = CellModule(underlying)
        _check(underlying, num_classes)
        self.underlying: nn.Module = TorchModel(underlying).module
        promised = _promised(self.underlying)
        self.asks = promised is not None
        self.layer, width = _last_linear(self.underlying, num_classes, promised)
        shown = like(self.underlying)
        device = "cpu" if shown is None else shown.device
        self.class_vectors = nn.Parameter(torch.empty(num_classes, width, device=device))
        nn.init.kaiming_normal_(self.class_vectors)
        self.g = nn.Sequential(nn.Linear(width, 1), nn.BatchNorm1d(1), nn.Sigmoid()).to(device).eval()
        self.train_underlying = False
        self.training = False

    @property
    def num_classes(self) -> int:
        """K, the number of classes."""
        return len(self.class_vectors)

    def forward(self, inputs: Tensor, **further: Any) -> Tensor:
        """(N, C, H, W) -> (N, K): in evaluation mode the scores h in [-1, 1], in training mode the logits h / g.

        ``further`` are further arguments of the classifier's forward.
        """
        along = self.training and self.train_underlying
        if along:
            features = self._caught(lambda: self.underlying(inputs, **further))
        else:
            features = self.features(inputs, **further)
        scores = self.scores(features)
        return scores / self.g(features) if self.training else scores

    def features(self, inputs: Tensor, **further: Any) -> Tensor:
        """(N, C, H, W) -> (N, F): one forward pass of the classifier in evaluation mode, without a graph.

        ``further`` are further arguments of the classifier's forward.

        Raises:
            BadOutput: the features have not the promised shape.
        """
        return self.features_of(TorchModel(self.underlying, forward_kwargs=further), inputs)

    def features_of(self, model: TorchModel, inputs: Tensor) -> Tensor:
        """Returns the same; ``model`` is the classifier with its further arguments for these inputs."""
        model.check(inputs)
        asked = replace(model, output=_answer) if self.asks else model  # its features are no scores
        with alone(model.module), model.opened():
            return self._caught(lambda: asked(inputs).classes)

    def scores(self, features: Tensor) -> Tensor:
        """(N, F) -> (N, K) cosines of the features with the class vectors; 0 where a feature vector is zero."""
        with full_precision(features):
            return F.linear(F.normalize(features), F.normalize(self.class_vectors))

    def overhear(self, run: Callable[[], Result]) -> tuple[Result, Tensor]:
        """What ``run`` returns, and the features (N, F) of the forward pass that it makes with the classifier.

        Raises:
            MissingCapability: the classifier gives its features only when it is asked for them.
            BadOutput: it made none, or the features have not the promised shape.
        """
        if self.layer is None:
            raise MissingCapability(f"{type(self.underlying).__name__} gives its features only when asked for them.")
        found: list[Any] = []
        layer = self.underlying.get_submodule(self.layer)
        with alone(self.underlying), on(layer, after=lambda _m, args, _output: found.append(self._checked(args[0]))):
            result = run()
        if not found:
            raise BadOutput(f"Layer {self.layer!r} did not run in the forward pass, so there are no features.")
        return result, found[-1]

    def train(self, mode: bool = True, *others: Any, **named: Any) -> OoDNet:
        """Training mode on or off, as in torch; a data set goes to ``fit``.

        Raises:
            InvalidType: for anything but one bool.
        """
        if not isinstance(mode, bool) or others or named:
            raise InvalidType(
                "train(mode) switches training mode on or off, as every torch module's does, and takes one bool, got "
                f"{_types(mode, *others, *named.values())}. To train on a data set: fit(dataset, loss_fn)."
            )
        super().train(mode)
        return self

    def get_train_parameters(self, train_underlying: bool = False) -> list[nn.Parameter]:
        """What is trained: class vectors, linear layer and BatchNorm of g, and on demand the classifier."""
        own = [self.class_vectors, *self.g.parameters()]
        return own + ([p for p in self.underlying.parameters() if p.requires_grad] if train_underlying else [])

    def prepare_train(
        self, learning_rate: float = 0.1, momentum: float = 0.9, weight_decay: float = 1e-4,
        lr_base_factor: float = 0.1, lr_epoch_denom: int = 30, train_underlying: bool = False,
    ) -> tuple[Optimizer, StepLR]:  # fmt: skip
        """Returns the optimizer (SGD) and its scheduler for a training loop.

        Args:
            learning_rate: of the first epochs.
            momentum: of SGD.
            weight_decay: for everything but the class vectors, whose length means nothing.
            lr_base_factor: by which the learning rate is multiplied every ``lr_epoch_denom`` epochs.
            lr_epoch_denom: epochs.
            train_underlying: trains the classifier, too. Its own last layer is not, and will no longer fit.
        """
        self.train_underlying = train_underlying
        decayed = self.get_train_parameters(train_underlying)[1:]
        groups = [
            {"params": [self.class_vectors], "weight_decay": 0.0},
            {"params": decayed, "weight_decay": weight_decay},
        ]
        optimizer = SGD(groups, lr=learning_rate, momentum=momentum)
        return optimizer, StepLR(optimizer, lr_epoch_denom, lr_base_factor)

    def fit(
        self, dataset: Any, loss_fn: Callable[[Tensor, Tensor], Tensor],
        callbacks: Callback | Sequence[Callback] | None = None, epoch: int = 90, optimizer: Optimizer | None = None,
        scheduler: Any = None, *, batch_size: int = 128, seed: int = 0, progress: bool | Listener = True, **kwargs: Any,
    ) -> list[float]:  # fmt: skip
        """Trains on the images that the classifier was trained on; afterwards this is in evaluation mode.

        Args:
            dataset: batches (images (N, C, H, W), labels), such as a DataLoader, or a torch Dataset of single pairs.
                Labels are class indices (N,) or rows (N, K), one-hot or of probabilities. A batch of one image is
                left out, because BatchNorm learns nothing from it. A classifier with further inputs gets batches
                (images, {name: values}, labels).
            loss_fn: (logits, labels) -> loss: cross-entropy where the classifier has a softmax, binary cross-entropy
                with logits where it has a sigmoid. A cell of MindSpore is taken, too.
            callbacks: called as ``callback(epoch, loss)`` after each epoch, which are counted from 1.
            epoch: how often the data set is walked through.
            optimizer: by default that of ``prepare_train``.
            scheduler: its ``step()`` is called after each epoch; by default that of ``prepare_train``.
            batch_size: for a Dataset of single pairs.
            seed: of the order in which those are drawn.
            progress: a bar on the terminal, False, or a callback (batches done, batches in all).
            kwargs: arguments of ``prepare_train``.

        Returns:
            The mean loss of each epoch.

        Raises:
            InvalidInput, InvalidType, BadOutput: see the message.
        """
        batches = Batches(dataset, epoch, batch_size, seed)
        loss_fn = differentiable(loss_fn) if is_cell(loss_fn) else loss_fn
        optimizer, scheduler = self._prepared(optimizer, scheduler, kwargs)
        calls = [] if callbacks is None else [callbacks] if callable(callbacks) else list(callbacks)
        losses = []
        with alone(self), self._fitting(), torch.enable_grad(), Bar("OoDNet", progress, "batch") as bar:
            for number in range(1, epoch + 1):
                steps = [self._step(batch, loss_fn, optimizer, number) for batch in batches.walk(number, bar)]
                losses.append(sum(steps) / len(steps))
                bar.say(f"OoDNet epoch {number}/{epoch}", f"loss={losses[-1]:.4f}")
                scheduler.step(*([losses[-1]] if isinstance(scheduler, ReduceLROnPlateau) else []))
                for call in calls:
                    call(number, losses[-1])
        optimizer.zero_grad()
        return losses

    def _step(
        self, batch: TrainingBatch, loss_fn: Callable[[Tensor, Tensor], Tensor], optimizer: Optimizer, epoch: int
    ) -> float:
        logits = self(batch.images.to(self.class_vectors.device), **batch.further)
        loss = loss_fn(logits, as_labels(batch.labels, logits, loss_fn))
        if not bool(torch.isfinite(loss)):
            raise BadOutput(f"The loss became {loss.item()} in epoch {epoch}. Use a smaller learning_rate.")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    def _prepared(self, optimizer: Optimizer | None, scheduler: Any, kwargs: dict[str, Any]) -> tuple[Optimizer, Any]:
        known = list(signature(self.prepare_train).parameters)
        for name in kwargs:
            if name not in known:
                raise UnknownParameter(f"fit has no parameter {name!r}. {nearest(name, known)}")
        made, own = self.prepare_train(**kwargs)
        if self.train_underlying:
            _warn_of_training(self.underlying)
        chosen: Optimizer = getattr(scheduler, "optimizer", made) if optimizer is None else optimizer
        if scheduler is None:
            scheduler = own if chosen is made else StepLR(chosen, own.step_size, own.gamma)
        return chosen, scheduler

    @contextmanager
    def _fitting(self) -> Iterator[None]:
        """Training mode; afterwards evaluation mode, and the classifier's modules in the modes in which they were."""
        modes = [(module, module.training) for module in self.underlying.modules()]
        self.train()
        try:
            yield
        finally:
            self.eval()
            self.train_underlying = False
            for module, training in modes:
                module.training = training

    def _caught(self, run: Callable[[], Any]) -> Tensor:
        if self.asks:
            with _asking(self.underlying):
                return self._checked(run())
        return self.overhear(run)[1]

    def _checked(self, features: Any) -> Tensor:
        want = self.class_vectors.shape[1]
        if not isinstance(features, Tensor) or features.ndim != 2 or features.shape[1] != want:
            got = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise BadOutput(f"The classifier's features must have shape (N, {want}), got {got}.")
        return features.to(self.class_vectors.dtype, copy=True)  # the network may change them later

    def __repr__(self) -> str:
        """Says in one line what it is."""
        return f"OoDNet({type(self.underlying).__name__}, num_classes={self.num_classes})"


def _answer(raw: Any) -> Any:
    """What a classifier returns when it is asked for its features."""
    return select(raw, None)


def _check(underlying: Any, num_classes: Any) -> None:
    if not isinstance(underlying, nn.Module):
        hint = " Pass its module." if isinstance(underlying, TorchModel) else ""
        raise InvalidType(f"underlying must be a torch.nn.Module, got {type(underlying).__name__}.{hint}")
    check_count("num_classes", num_classes)


def _types(*values: Any) -> str:
    return ", ".join(type(value).__name__ for value in values)


def _promised(network: nn.Module) -> int | None:
    """Returns the number of features of a classifier that can be asked for them."""
    count: Any = getattr(network, "num_features", None)
    if not isinstance(getattr(network, "output_features", None), bool):
        return None
    check_count("underlying.num_features", count)
    return int(count)


def _last_linear(network: nn.Module, num_classes: int, width: int | None) -> tuple[str | None, int]:
    """Name and width of the last linear layer that gives ``num_classes`` scores; the name is None where none does."""
    linear = [(name, module) for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    fits = [(n, m.in_features) for n, m in linear if m.out_features == num_classes and width in (None, m.in_features)]
    if fits:
        return fits[-1]
    if width is not None:
        return None, width
    last = f"its last one, {linear[-1][0]!r}, gives {linear[-1][1].out_features}" if linear else "it has none"
    raise MissingCapability(
        f"{type(network).__name__} has no linear layer that gives {num_classes} scores ({last}), so where its features "
        "are is not known. Check num_classes, or give the classifier the attributes num_features and output_features."
    )


def _warn_of_training(network: nn.Module) -> None:
    if not any(p.requires_grad for p in network.parameters()):
        raise InvalidInput("train_underlying=True, but no parameter of the classifier requires a gradient.")
    warnings.warn(
        "The classifier is trained, too, but not its own last layer, which will no longer fit. Train that again "
        "before the classifier's answers are used or explained.", UserWarning, stacklevel=4,
    )  # fmt: skip


@contextmanager
def _asking(network: nn.Module) -> Iterator[None]:
    """The classifier returns features for the time of the block."""
    switch: Any = network
    before = switch.output_features
    try:
        switch.output_features = True
        yield
    finally:
        switch.output_features = before
