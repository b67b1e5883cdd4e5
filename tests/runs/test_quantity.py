"""What the numbers of a run are stands wherever they stand: probabilities, or logits."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from seewhy.exports.csv import Csv
from seewhy.runs.query.explanations import explanation
from seewhy.runs.query.run import Run
from seewhy.runs.query.status import status
from support.run_jobs import run
from support.web_pages import client, key


@pytest.mark.parametrize(("activation_fn", "quantity"), [("softmax", "probability"), (None, "logit")])
def test_the_number_is_called_what_it_is(tmp_path: Path, activation_fn: str | None, quantity: str) -> None:
    run(tmp_path / "out", 3, explainers=["activation_map"], metrics=[], activation_fn=activation_fn)
    found = Run(tmp_path / "out")
    assert found.quantity == quantity
    Csv()(found, tmp_path / "labels.csv")
    with (tmp_path / "labels.csv").open(newline="") as file:
        names = next(csv.reader(file))
    assert {"probability", "logit"} & set(names) == {quantity}
    assert ("threshold 0.5 of the logit" in str(status(tmp_path / "out"))) == (quantity == "logit")
    shown = explanation(found, next(iter(found.records())).sample, "activation_map")
    assert shown.quantity == quantity
    with client(tmp_path / "out") as asking:
        page = asking.get(f"/runs/{key(asking)}/saliency").text
    assert f'{quantity.capitalize()} of at least"' in page
    assert ('max="1" placeholder="1"' in page) == (quantity == "probability")
