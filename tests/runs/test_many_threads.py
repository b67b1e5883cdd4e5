"""Runs, their readers and their pages from several threads of one process at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seewhy.engines.local import Local
from seewhy.runs.query.run import Run
from support import run_jobs
from support.run_folders import Folder, picture, settings
from support.threads import many_switches, raised, together
from support.web_pages import client, key

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _many_switches() -> Iterator[None]:
    with many_switches():
        yield


def one(number: int, *explainers: str) -> Any:
    """A picture whose every value follows from its number, so that what belongs together can be told."""
    value = number / 1000
    maps = {(0, name): np.full((2, 3), number + 0.5, np.float32) for name in explainers}
    scores = {(0, name, "up"): value for name in explainers}
    return picture(f"s{number:03d}", number, labels={0: (value, True), 1: (0.9, False)}, maps=maps, scores=scores)


def everything(run: Run) -> list[Any]:
    """What a run answers to every question."""
    hits = [run.labels(sort="position", limit=1000), run.samples(sort="position", limit=1000), run.labels(flags=["FN"])]
    return [
        *((page.total, [(hit.record, hit.labels) for hit in page.items]) for page in hits),
        run.counts(), run.scores(), run.label_scores(explainer="one"), run.costs(), run.notes(), run.failures(),
        list(run.records()), [batch.to_pylist() for batch in run.batches()],
        [run.map(record.sample, *which).tolist() for record in run.records() for which in record.maps],  # type: ignore[union-attr]
    ]  # fmt: skip


def test_every_question_from_eight_threads_has_the_answer_of_one(tmp_path: Path) -> None:
    folder = Folder(tmp_path, settings())
    for number in range(0, 30, 3):
        folder.add(f"chunk{number}", *(one(n, "one", "two") for n in range(number, number + 3)))
    wanted, run = repr(everything(Run(tmp_path))), Run(tmp_path)
    assert set(raised(together(*[lambda: repr(everything(run))] * 8))) == {wanted}


def test_answers_are_of_one_moment_while_parts_and_explainers_are_added(tmp_path: Path) -> None:
    """The flat tables are made anew whenever an explainer comes, under the hands of those who ask."""
    folder = Folder(tmp_path, settings(explainers=("one",), metrics=("up",)))
    folder.add("chunk0", one(0, "one"))
    run, done = Run(tmp_path), threading.Event()

    def write() -> int:
        try:
            for number in range(1, 16):
                names = ["one", *(f"more{n}" for n in range(number // 5))]
                if number % 5 == 0:
                    about = settings(explainers=names[-1:])["explainers"]
                    assert folder.store.add("explainers", names[-1], about[names[-1]]) is None
                folder.add(f"chunk{number}", one(number, *names))
                run.refresh()
        finally:
            done.set()
        return 0

    def read() -> int:
        seen = 0
        while not done.is_set():
            page = run.samples(sort="position", limit=1000)
            assert page.total == len(page.items) >= seen  # nothing that was there is gone
            seen = page.total
            for place, hit in enumerate(page.items):
                record = hit.record
                assert (record.sample, record.position) == (f"s{place:03d}", place)
                assert record.labels[0].probability == pytest.approx(place / 1000)
                assert {score for (label, *_), score in record.scores.items() if label == 0} <= {place / 1000}
            last = page.items[-1].record
            for which in last.maps:
                found = run.map(last.sample, *which)
                assert found is not None
                assert (found == last.position + 0.5).all()
            rows = [row for batch in run.batches() for row in batch.to_pylist()]
            assert len(rows) % 2 == 0
            assert {row["position"] for row in rows} == set(range(len(rows) // 2))
            run.judged(), run.scores(), run.counts()
        return seen

    raised(together(write, *[read] * 6, seconds=240))
    assert len(run.explainers) == 4
    assert run.samples(limit=1).total == 16
    assert repr(everything(run)) == repr(everything(Run(tmp_path)))


def test_pages_from_eight_threads_while_the_run_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seewhy.web.library.FRESH", 0.0)
    folder = Folder(tmp_path / "run", settings())
    folder.add("chunk0", one(0, "one", "two"))
    with client(tmp_path) as asking:
        at, done = f"/runs/{key(asking)}/", threading.Event()

        def write() -> list[int]:
            try:
                for number in range(1, 15):
                    folder.add(f"chunk{number}", one(number, "one", "two"))
                    if number == 7:
                        folder.store.compact(everything=True)
            finally:
                done.set()
            return []

        def read(name: str) -> list[int]:
            found: list[int] = []
            while not done.is_set() or len(found) < 6:
                found.append(asking.get(at + name).status_code)
                page = asking.get(f"/api{at}saliency").json()
                labels = [label for sample in page["samples"] for label in sample["labels"]]
                urls = [one["url"] for label in labels for one in label["maps"]]
                found += [asking.get(at + url).status_code for url in urls[-2:] if url]
            return found

        names = ("saliency", "scores", "classes", "failures", "saliency.csv", "saliency.png", "counterfactual")
        each = raised(together(write, *(partial(read, name) for name in names), seconds=240))
    answers = [status for found in each for status in found]
    assert len(answers) > 40
    assert set(answers) == {200}


@pytest.mark.parametrize("same", [False, True])
def test_runs_in_several_threads_are_as_in_one(tmp_path: Path, same: bool) -> None:
    """One network for all, in folders of their own or in one."""
    network = run_jobs.network().train()
    alone = run_jobs.run(tmp_path / "alone", 8)
    assert alone.computed == 8
    places = [tmp_path / ("together" if same else f"run{number}") for number in range(4)]
    found = raised(together(*(partial(run_jobs.run, place, 8, model=network) for place in places), seconds=240))
    assert all(summary.left == 0 and not summary.failures for summary in found)
    want = [row | {"part": ""} for row in run_jobs.content(tmp_path / "alone")]
    for place in dict.fromkeys(places):
        assert [row | {"part": ""} for row in run_jobs.content(place)] == want
    assert all(m.training for m in network.modules())


def test_engines_in_several_threads(tmp_path: Path) -> None:
    """Two threads, each with a worker in a process of its own."""
    alone = run_jobs.run(tmp_path / "alone", 8, metrics=())
    engine = Local(workers=1, apart=True)
    calls = [partial(run_jobs.run, tmp_path / f"run{n}", 8, metrics=(), engine=engine) for n in range(2)]
    found = raised(together(*calls, seconds=240))
    assert [summary.computed for summary in found] == [alone.computed] * 2
    want = [row | {"part": ""} for row in run_jobs.content(tmp_path / "alone")]
    for number in range(2):
        assert [row | {"part": ""} for row in run_jobs.content(tmp_path / f"run{number}")] == want
