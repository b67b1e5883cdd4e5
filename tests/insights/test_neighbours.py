"""Similar images, duplicates and wrong labels: planted ones are found, and where there is none nothing is said."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from seewhy import cli
from seewhy.errors import UnknownName
from seewhy.insights.neighbours import neighbours
from seewhy.runs.query.run import Run
from support.run_jobs import run

WRONG = (3, 17, 40)  # labelled as the next class
CLASSES = 4


class Colours(torch.nn.Module):
    """The class is the mean colour; features are the means of four mixtures of the channels."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.mix = torch.nn.Conv2d(3, 8, 1)
        self.act = torch.nn.ReLU()
        self.head = torch.nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.act(self.mix(x)).mean((2, 3)))


def coloured(n: int) -> tuple[Tensor, Tensor]:
    """Four colours with noise, and which of them each is."""
    generator = torch.Generator().manual_seed(1)
    colours = torch.tensor([[3.0, 0, 0], [0, 3.0, 0], [0, 0, 3.0], [2.0, 2.0, -1.0]])
    which = torch.arange(n) % CLASSES
    noise = torch.randn((n, 3, 8, 8), generator=generator) + 0.4 * torch.randn((n, 3, 1, 1), generator=generator)
    return colours[which][:, :, None, None] + noise, which


def trained(x: Tensor, y: Tensor) -> Colours:
    network = Colours()
    optimiser = torch.optim.Adam(network.parameters(), 0.05)
    for _ in range(80):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(network(x), y).backward()
        optimiser.step()
    return network.eval()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 images, of which three have a wrong label; image 50 is image 10 again, and 51 is 12 with another label."""
    place = tmp_path_factory.mktemp("neighbours") / "run"
    x, y = coloured(60)
    network = trained(x, y)
    x[50], x[51] = x[10], x[12] + 0.001
    said = network(x).argmax(1)
    truth = said.clone()
    truth[list(WRONG)] = (truth[list(WRONG)] + 1) % CLASSES
    truth[51] = (truth[12] + 1) % CLASSES
    run(place, 60, model=network, data=(x, truth.numpy()), explainers=["grad_cam"], metrics=[], features={})
    return place


def test_wrong_labels_are_found_and_no_others(place: Path) -> None:
    found = neighbours(place)
    assert {*WRONG} <= {int(one.sample) for one in found.doubted} <= {*WRONG, 51}
    assert all(one.share > 0.5 > one.own for one in found.doubted)
    assert [one.share - one.own for one in found.doubted] == sorted(one.share - one.own for one in found.doubted)[::-1]
    assert "labelled class" in str(found)


def test_duplicates_are_found_those_with_two_labels_first(place: Path) -> None:
    found = neighbours(place, alike=0.9999)
    assert [one.samples for one in found.duplicates] == [("000012", "000051"), ("000010", "000050")]
    first, second = found.duplicates
    assert (first.disagree, second.disagree) == (True, False)
    assert first.classes[0] != first.classes[1]
    assert second.likeness == pytest.approx(1, abs=1e-5)


def test_the_most_similar_images_are_those_of_the_cosine(place: Path) -> None:
    """Against all pairs, written out."""
    found, kept = neighbours(place), Run(place).vectors()
    values = kept.values.astype(float)
    live = values.std(0) > 0
    scaled = (values[:, live] - values[:, live].mean(0)) / values[:, live].std(0, ddof=1)
    scaled /= np.linalg.norm(scaled, axis=1, keepdims=True)
    every = scaled @ scaled.T
    np.fill_diagonal(every, -2)
    for number, key in enumerate(kept.samples):
        near = found.of(key, 5)
        said = [every[number, kept.samples.index(other)] for other, _ in near]
        np.testing.assert_allclose(said, np.sort(every[number])[::-1][:5], atol=1e-5)  # equal ones in any order
        np.testing.assert_allclose([c for _, c in near], np.sort(every[number])[::-1][:5], atol=1e-5)
    with pytest.raises(UnknownName, match="No features are kept of '000099'"):
        found.of("000099")


def test_many_features_give_the_same_by_their_main_directions(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    monkeypatch.setattr("seewhy.insights.neighbours.COMPONENTS", 6)
    short = neighbours(place)
    monkeypatch.undo()
    whole = neighbours(place)
    assert short.doubted == whole.doubted
    same = [short.of(key, 1)[0][0] == whole.of(key, 1)[0][0] for key in whole.nearest]
    assert np.mean(same) > 0.95


def test_where_every_label_is_right_nothing_is_doubted(tmp_path: Path) -> None:
    x, y = coloured(40)
    network = trained(x, y)
    run(tmp_path, 40, model=network, data=(x, network(x).argmax(1).numpy()), explainers=[], metrics=[], features={})
    assert neighbours(tmp_path).doubted == ()


def test_duplicates_across_splits_and_the_command(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [f"{i:06d},{'test' if i >= 50 else 'train'}" for i in range(60)]
    (tmp_path / "meta.csv").write_text("\n".join(["sample,split", *rows]), encoding="utf-8")
    asked = ["neighbours", str(place), "--alike", "0.9999", "--table", str(tmp_path / "meta.csv"), "--across", "split"]
    assert cli.main(asked) == 0
    said = capsys.readouterr().out
    assert "000012, 000051 (likeness 1.000); labelled differently; in test and train" in said
    assert cli.main([*asked, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["duplicates"][1]["across"] == ["test", "train"]
    assert cli.main(["neighbours", str(place), "--sample", "000010", "--count", "1"]) == 0
    assert capsys.readouterr().out == "000050  1.000\n"
    with pytest.raises(UnknownName, match=r"has no column 'splot'. Did you mean 'split'"):
        neighbours(place, table=tmp_path / "meta.csv", across="splot")


def test_few_images_are_no_error(tmp_path: Path) -> None:
    x, y = coloured(2)
    for n in (1, 2):
        run(tmp_path / str(n), n, model=Colours(), data=(x[:n], y[:n].numpy()), explainers=[], metrics=[], features={})
        assert neighbours(tmp_path / str(n)).images == n
    run(tmp_path / "none", 2, model=Colours(), data=(x, y.numpy()), explainers=["grad_cam"], metrics=[])
    with pytest.raises(UnknownName, match="keeps no features"):
        neighbours(tmp_path / "none")
