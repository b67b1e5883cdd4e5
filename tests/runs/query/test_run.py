import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from seewhy.errors import InvalidInput
from seewhy.runs.query.run import Run
from support.run_folders import (
    EYE,
    TREES,
    UNCERTAINTY,
    Folder,
    overwrite,
    picture,
    settings,
    task,
    tasks_of,
)
from support.typed import present

# ----------------------------------------------------------------------------------------------- which rows count


def test_an_explainer_that_came_later_adds_to_the_picture(folder):
    folder.add("p", picture("a", labels={0: (0.9, True)}, maps={(0, "one"): EYE}, scores={(0, "one", "up"): 0.5}))
    later: dict[str, Any] = {"done": ["predict", task("explain", "two"), task("score", "two", "up")]}
    more = picture("a", labels={0: (0.9, True)}, maps={(0, "two"): EYE}, scores={(0, "two", "up"): 0.7}, **later)
    folder.add("q", more)
    run = Run(folder.place)
    record = present(run.sample("a"))
    assert set(record.maps) == {(0, "one"), (0, "two")}
    assert record.scores == {(0, "one", "up"): 0.5, (0, "two", "up"): 0.7}
    assert len(run.labels()) == 1
    assert [(s.explainer, s.mean) for s in run.scores() if s.metric == "up"] == [("one", 0.5), ("two", 0.7)]


@pytest.mark.parametrize(("first", "second"), [("0-0", "1-0"), ("1-0", "0-0")])
def test_rows_about_an_older_picture_do_not_count(folder, first, second):
    old: dict[str, Any] = {"stamp": "old", "written": 5.0}
    folder.add_as(first, picture("a", labels={0: (0.9, True)}, maps={(0, "one"): EYE, (0, "two"): EYE}, **old))
    folder.add_as(second, picture("a", labels={1: (0.8, None)}, maps={(1, "one"): EYE}, stamp="new", written=6.0))
    record = present(Run(folder.place).sample("a"))
    assert (list(record.labels), list(record.maps), record.parts) == ([1], [(1, "one")], (second,))


def test_of_rows_written_at_the_same_time_the_last_part_is_the_newest(folder):
    folder.add_as("0-0", picture("a", labels={0: (0.9, None)}, stamp="x"))
    folder.add_as("1-0", picture("a", labels={1: (0.9, None)}, stamp="y"))
    assert list(present(Run(folder.place).sample("a")).labels) == [1]


def test_success_beats_failure_whatever_came_first(folder):
    failure = [("explain", "one", None, None, "out of memory")]
    bad: dict[str, Any] = {"done": tasks_of("one"), "failed": [task("explain", "one")], "failures": failure}
    folder.add_as("0-0", picture("a", labels={0: (0.9, None)}, **bad))
    run = Run(folder.place)
    assert [f.reason for f in run.failures()] == ["out of memory"]
    folder.add_as("1-0", picture("a", labels={0: (0.9, None)}, maps={(0, "one"): EYE}))
    assert run.refresh() == 1
    assert run.failures().items == []
    assert list(present(run.sample("a")).maps) == [(0, "one")]
    assert present(run.sample("a")).failures == ()
    folder.add_as("2-0", picture("a", labels={0: (0.9, None)}, **bad))
    run.refresh()
    assert run.counts().failures == 0


def test_a_failed_prediction_gives_way_to_a_good_one(folder):
    read = [("read", None, None, None, "truncated")]
    folder.add_as("0-0", picture("a", name="bad", failures=read, done=tasks_of("one"), failed=tasks_of("one")))
    run = Run(folder.place)
    assert (run.counts().failed, run.counts().failures, present(run.sample("a")).name) == (1, 1, "bad")
    folder.add_as("1-0", picture("a", name="good", labels={0: (0.9, True)}, maps={(0, "one"): EYE}))
    run.refresh()
    assert (run.counts().failed, run.counts().failures, present(run.sample("a")).name) == (0, 0, "good")


def test_a_failed_reading_is_shown_while_anything_it_cost_is_missing(folder):
    folder.add_as("0-0", picture("a", labels={0: (0.9, None)}))
    read = [("read", None, None, None, "gone")]
    bad: dict[str, Any] = {"done": tasks_of("one"), "failed": tasks_of("one"), "failures": read}
    folder.add_as("1-0", picture("a", **bad))
    assert [(f.task, f.reason) for f in Run(folder.place).failures()] == [("read", "gone")]


def test_of_equal_rows_the_first_part_counts_and_nothing_is_there_twice(folder):
    for part, value in (("1-0", 0.2), ("0-0", 0.1), ("2-0", 0.3)):
        scores = {(0, "one", "up"): value}
        cost: list[tuple[Any, ...]] = [("one", 100 * value, 0, 1, None, [])]
        one = picture("a", labels={0: (value, True)}, maps={(0, "one"): value * EYE}, scores=scores, costs=cost)
        folder.add_as(part, one)
    run = Run(folder.place)
    counts = run.counts()
    assert (counts.samples, counts.labels, counts.maps, counts.parts) == (1, 1, 1, 3)
    assert present(run.sample("a")).labels[0].probability == pytest.approx(0.1)
    assert present(run.map("a", 0, "one")).max() == pytest.approx(0.1)
    assert [s.count for s in run.scores() if (s.explainer, s.metric) == ("one", "up")] == [1]
    assert run.label_scores(explainer="one", metric="up")[0].mean == 0.1
    assert run.costs()[0].forward == pytest.approx(10)


@pytest.mark.parametrize("tasks", [("predict", "predict"), ("predict", task("explain", "one"))])
def test_failures_of_two_tries_are_shown_once(folder, tasks):
    for part, tried in zip(("0-0", "1-0"), tasks, strict=True):
        read = [("read", None, None, None, "x")]
        folder.add_as(part, picture("a", done=[tried], failed=[tried], failures=read))
    assert Run(folder.place).failures().total == 1


def test_maps_of_an_explainer_with_other_parameters_do_not_count(folder):
    old: dict[str, Any] = {"done": ["predict", "explain:older"]}
    folder.add("p", picture("a", labels={0: (0.9, None)}, maps={(0, "one"): EYE}, **old))
    run = Run(folder.place)
    assert present(run.sample("a")).maps == {}
    assert (run.counts().maps, run.map("a", 0, "one")) == (0, None)


def test_parts_of_another_run_are_counted_and_not_read(folder):
    folder.add("p", picture("a", labels={0: (0.9, None)}))
    folder.add("q", picture("b", labels={0: (0.9, None)}), run="another")
    run = Run(folder.place)
    assert (run.counts().samples, run.counts().parts, run.counts().foreign, run.sample("b")) == (1, 1, 1, None)
    folder.add("r", picture("c", labels={0: (0.9, None)}), run="another")
    assert run.refresh() == 1
    assert (run.counts().foreign, run.refresh()) == (2, 0)


def test_any_order_of_arrival_gives_the_same_as_reading_all_at_once(tmp_path):
    random = np.random.default_rng(0)
    parts = {f"{n}-0": _random_picture(random) for n in range(7)}
    whole = Folder(tmp_path / "whole")
    for name, one in parts.items():
        whole.add_as(name, one)
    expected = _everything(Run(whole.place))
    for trial in range(6):
        order = random.permutation(list(parts))
        grown = Folder(tmp_path / str(trial))
        run = Run(grown.place)
        for name in order:
            grown.add_as(name, parts[name])
            run.refresh()
        assert _everything(run) == expected


def _random_picture(random):
    sample = f"s{random.integers(3)}"
    value = int(random.integers(1, 64)) / 64  # sums of these are exact in any order
    done = [t for t in tasks_of("one", "two", metrics=["up"]) if random.random() < 0.7]
    failed = [t for t in done if random.random() < 0.4]
    scores = {(label, e, "up"): value if random.random() < 0.7 else None for label in (0, 2) for e in ("one", "two")}
    failures = [("explain", "one", None, 0, "x"), ("score", "two", "up", 2, "y"), ("read", None, None, None, "z")]
    return picture(
        sample, int(sample[1]), labels={0: (value, True), 2: (value / 2, False)}, scores=scores, done=done,
        maps={(label, e): value * EYE for label in (0, 2) for e in ("one", "two")}, failed=failed,
        failures=failures, stamp=str(random.integers(2)), written=float(random.integers(3)),
        costs=[("one", value, 0, 0, None, [])],
    )  # fmt: skip


def _everything(run):
    batches = [batch.to_pydict() for batch in run.batches()]
    plain = [{**record.__dict__, "maps": [(k, m.part) for k, m in record.maps.items()]} for record in run.records()]
    scores = [replace(score, std=score.std and round(score.std, 9)) for score in run.scores()]
    return repr([batches, plain, scores, run.label_scores(), run.costs(), run.failures(limit=99), run.counts()])


def test_one_picture_and_the_tables_agree(tmp_path):
    """The pages are found in the flat tables, the pictures come from the rows: two ways to the same answer."""
    random = np.random.default_rng(1)
    folder = Folder(tmp_path)
    for n in range(12):
        folder.add_as(f"{n}-0", _random_picture(random))
    run = Run(folder.place)
    lines = [line for batch in run.batches() for line in batch.to_pylist()]
    records = {record.sample: record for record in run.records()}
    assert len(lines) == sum(len(record.labels) for record in records.values()) > 0
    for line in lines:
        record, label = records[line["sample"]], line["label"]
        assert line["probability"] == record.labels[label].probability
        for e in ("one", "two"):
            assert line[f"{e}/up"] == record.scores.get((label, e, "up"))
    assert run.counts().maps == sum(len(record.maps) for record in records.values())
    assert run.failures(limit=99).total == sum(len(record.failures) for record in records.values())
    missing = [value for record in records.values() for value in record.scores.values() if value is None]
    assert sum(score.no_data for score in run.scores()) == len(missing) > 0


# -------------------------------------------------------------------------------------------------- one picture


def test_everything_of_a_picture(several, folder):
    record = several.sample("a")
    assert (record.name, record.source, record.position) == ("a.png", "/x/100%_A.jpg", 0)
    assert (record.size, record.input, record.entropy) == ((8, 12), (8, 8), pytest.approx(0.3))
    assert record.uncertainty[1].std == pytest.approx(0.2)
    assert record.scores[1, "two", "up"] is None
    assert (2, "one", "up") not in record.scores
    assert {label: tree.found for label, tree in record.trees.items()} == {0: True, 1: False}
    assert several.tree("a", 0) == {"found": True, "root": 1}
    assert several.tree("a", 2) is None
    assert several.sample("nobody") is None


def test_each_picture_of_a_part_has_its_own_tree(folder):
    folder.add(
        "p",
        *(picture(name, n, labels={0: (0.9, None)}, trees={0: f'{{"of": "{name}"}}'}) for n, name in enumerate("ab")),
    )
    run = Run(folder.place)
    assert (run.tree("a", 0), run.tree("b", 0)) == ({"of": "a"}, {"of": "b"})


def test_maps_and_thumbnails_come_from_the_pack(folder):
    from PIL import Image

    maps = {(0, "one"): np.arange(49).reshape(7, 7) - 20.0, (0, "two"): np.random.default_rng(0).random((40, 50))}
    folder.add("p", picture("a", labels={0: (0.9, None)}, maps=maps, small=Image.new("RGB", (600, 300), "red")))
    run = Run(folder.place)
    np.testing.assert_array_equal(run.map("a", 0, "one"), maps[0, "one"])
    assert np.abs(present(run.map("a", 0, "two")) - maps[0, "two"]).max() <= 0.5 / 255 + 1e-6
    data, row = present(run.map_bytes("a", 0, "two"))
    assert (row.encoding, row.height, row.width, len(data)) == ("png", 40, 50, row.size)
    data, kind = present(run.thumbnail("a"))
    assert (kind, data[:2]) == ("jpeg", b"\xff\xd8")
    assert run.map("a", 1, "one") is None
    assert run.map("b", 0, "one") is None
    assert run.thumbnail("b") is None


def test_a_damaged_pack_is_an_error_that_names_it(folder):
    part = folder.add("p", picture("a", labels={0: (0.9, None)}, maps={(0, "one"): EYE}))
    (folder.place / "parts" / f"{part}.pack").write_bytes(b"short")
    with pytest.raises(InvalidInput, match=rf"{part}\.pack in .* is damaged: it ends before byte 196\.$"):
        Run(folder.place).map("a", 0, "one")


def test_an_older_thumbnail_serves_while_the_first_row_has_none(folder):
    from PIL import Image

    folder.add_as("0-0", picture("a", labels={0: (0.9, None)}))
    folder.add_as("1-0", picture("a", labels={0: (0.9, None)}, small=Image.new("RGB", (9, 9))))
    assert present(Run(folder.place).thumbnail("a"))[1] == "png"


# -------------------------------------------------------------------------------------------------------- growing


def test_refresh_reads_new_parts_only_and_run_json_again(folder):
    folder.add("p", picture("a", labels={0: (0.9, None)}, maps={(0, "three"): EYE}))
    run = Run(folder.place)
    assert (run.refresh(), run.explainers, present(run.sample("a")).maps) == (0, ("one", "two"), {})
    overwrite(folder, settings(explainers=("one", "two", "three")))
    assert run.refresh() == 0
    assert (run.explainers, list(present(run.sample("a")).maps)) == (("one", "two", "three"), [(0, "three")])
    assert run.counts().maps == 1
    overwrite(folder, settings(explainers=("one", "two", "three"), classes=["newt"]))
    run.refresh()
    assert run.class_name(0) == "newt"


def test_another_run_in_the_same_folder_is_read_from_the_start(folder):
    folder.add("p", picture("a", labels={0: (0.9, None)}))
    run = Run(folder.place)
    overwrite(folder, settings(id="other"))
    folder.add("q", picture("b", labels={0: (0.9, None)}), run="other")
    run.refresh()
    assert (run.sample("a"), run.counts().samples, run.counts().foreign) == (None, 1, 1)


def test_parts_that_vanish_are_forgotten(folder):
    parts = [folder.add(str(n), picture(f"s{n}", n, labels={0: (0.9, None)})) for n in range(3)]
    run = Run(folder.place)
    for ending in ("pack", "parquet"):
        (folder.place / "parts" / f"{parts[1]}.{ending}").unlink()
    run.refresh()
    assert [record.sample for record in run.records()] == ["s0", "s2"]


def test_damaged_parts_are_counted_and_tried_again(folder):
    part = folder.add("p", picture("a", labels={0: (0.9, None)}))
    folder.add("q", picture("b", labels={0: (0.9, None)}))
    folder.add("r", picture("c", labels={0: (0.9, None)}), run="another")
    rows = folder.place / "parts" / f"{part}.parquet"
    whole = rows.read_bytes()
    rows.write_bytes(whole[:-9])
    run = Run(folder.place)
    assert (run.counts().unread, run.counts().foreign, [r.sample for r in run.records()]) == (1, 1, ["b"])
    rows.write_bytes(whole)
    run.refresh()
    assert (run.counts().unread, run.counts().foreign, [r.sample for r in run.records()]) == (0, 1, ["a", "b"])


def test_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(InvalidInput, match=r" is not a run folder: it has no run\.json\.$"):
        Run(tmp_path)
    Folder(tmp_path)
    with pytest.raises(InvalidInput, match=r"^threads must be a positive integer, got 0\.$"):
        Run(tmp_path, threads=0)


def test_readers_see_whole_parts_while_another_thread_reads_on(folder):
    """Each part brings one picture with three labels: no reader may ever see one label of it without the others."""
    labels = dict.fromkeys(range(3), (0.5, None))
    run, stop, seen, errors = Run(folder.place), threading.Event(), [], []

    def look():
        mine: list[int] = []
        seen.append(mine)
        try:
            while not stop.is_set():
                page = run.labels(limit=200, sort="probability")
                assert page.total == len(page) == 3 * len({hit.record.sample for hit in page})
                assert all(len(hit.record.labels) == 3 for hit in page)
                mine.append(page.total)
        except Exception as error:
            errors.append(error)

    readers = [threading.Thread(target=look) for _ in range(3)]
    for reader in readers:
        reader.start()
    for n in range(25):
        folder.add(str(n), picture(f"s{n % 20}", n % 20, labels=labels))
        run.refresh()
        if n == 12:
            overwrite(folder, settings(explainers=("one",)))
    stop.set()
    for reader in readers:
        reader.join()
    assert errors == []
    assert all(mine == sorted(mine) for mine in seen)
    assert run.labels(limit=1).total == 60


def test_the_database_reaches_neither_files_nor_the_network(several):
    import duckdb

    with several._base.moment() as now:
        for sql in ("SELECT * FROM read_csv('/etc/passwd')", "INSTALL httpfs", "SET enable_external_access = true"):
            with pytest.raises(duckdb.Error):
                now.cursor.execute(sql)


def test_tasks_of_the_plan_are_told_apart():
    from seewhy.runs.query.choosing import Plan

    plan = Plan.of(settings())
    assert plan.tasks["predict"] == 0
    assert len(set(plan.tasks.values())) == len(plan.tasks) == 1 + 2 + 4 + 2
    assert plan.task_of("score", "one", "up") == plan.tasks[task("score", "one", "up")]
    assert plan.tasks[f"uncertainty:{UNCERTAINTY}"] == plan.task_of("uncertainty", None, None)
    assert plan.tasks[f"counterfactual:{TREES}"] == plan.task_of("counterfactual", None, None)
    assert plan.task_of("explain", "nobody", None) == -1
    assert plan.task_of("read", None, None) is None
