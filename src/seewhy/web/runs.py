"""The page of runs, how far a run is, and the page of what could not be done."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from seewhy.runs.folder.filesystem import disk_path
from seewhy.runs.query.run import Failure
from seewhy.web.library import Library, Opened, Place
from seewhy.web.queries import FailuresQuery, RunsQuery, SuggestQuery
from seewhy.web.saliency import Choice

__all__ = ["FailureLine", "FailuresPage", "RunCard", "RunsPage", "about", "failures", "runs", "suggest"]


@dataclass(frozen=True, kw_only=True)
class RunCard:
    """What a card on the page of all runs shows of one.

    Attributes:
        key: in addresses.
        name: below the folder that is shown.
        reason: why it cannot be read, or "".
        model: that was explained.
        begun: when, as run.json says it (UTC).
        changed: when something was last written, in seconds since 1970; None for a remote run.
        size: of the folder in bytes; None for a remote run.
        version: grows when there is more to be read.
        samples: that are there.
        total: that the data have, or None.
        failed: samples of which nothing is known.
        failures: of all kinds.
        labels: of all samples.
        maps: of them.
        trees: counterfactuals that found something.
        explainers: of the run.
        metrics: of the run.
        complete: whether all samples are there; None where their number is not known.
        not_read: parts that belong to another run, or are damaged.
        damaged: why some of the damaged ones cannot be read.
    """

    key: str
    name: str
    reason: str = ""
    model: str = ""
    begun: str = ""
    changed: float | None = None
    size: int | None = None
    version: int = 0
    samples: int = 0
    total: int | None = None
    failed: int = 0
    failures: int = 0
    labels: int = 0
    maps: int = 0
    trees: int = 0
    explainers: list[str]
    metrics: list[str]
    complete: bool | None = None
    not_read: int = 0
    damaged: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class RunsPage:
    """The runs of a folder."""

    root: str
    total: int
    runs: list[RunCard]


@dataclass(frozen=True, kw_only=True)
class FailureLine:
    """What could not be done."""

    failure: Failure
    label_name: str


@dataclass(frozen=True, kw_only=True)
class FailuresPage:
    """A page of failures, and how they are tried again; ``command`` is "" where only Python can."""

    run: str
    version: int
    total: int
    page: int
    pages: int
    command: str
    failures: list[FailureLine]


def runs(library: Library, query: RunsQuery) -> RunsPage:
    """Returns the page that an address asks for."""
    cards = [_card(*one) for one in library.each()]
    wanted = query.text.casefold()
    found = [card for card in cards if wanted in card.name.casefold() or wanted in card.model.casefold()]
    keys: dict[str, Callable[[RunCard], Any]] = {
        "name": lambda card: card.name, "begun": lambda card: (card.begun, card.name),
        "changed": lambda card: (card.changed or 0.0, card.name), "samples": lambda card: (card.samples, card.name),
    }  # fmt: skip
    found.sort(key=keys[query.sort], reverse=query.descending)
    return RunsPage(root=library.root, total=len(cards), runs=found)


def about(opened: Opened) -> RunCard:
    """How far a run is."""
    return _card(opened.place, opened, "")


def _card(place: Place, opened: Opened | None, reason: str) -> RunCard:
    if opened is None:
        return RunCard(key=place.key, name=place.name, reason=reason, explainers=[], metrics=[])
    run, counts = opened.run, opened.counts()
    changed, size = opened.once("folder", lambda: _folder(place.path))
    return RunCard(
        key=place.key, name=place.name, model=str((run.settings.get("model") or {}).get("name") or ""),
        begun=str(run.settings.get("created") or ""), changed=changed, size=size, version=opened.version,
        samples=counts.samples, total=counts.total, failed=counts.failed, failures=counts.failures,
        labels=counts.labels, maps=counts.maps, trees=counts.trees, explainers=list(run.explainers),
        metrics=list(run.metrics), complete=None if counts.total is None else counts.samples >= counts.total,
        not_read=counts.foreign + counts.unread, damaged=[f"{part}: {why}" for part, why in run.damaged.items()][:5],
    )  # fmt: skip


def _folder(path: str) -> tuple[float | None, int | None]:
    """When it last changed, and its size."""
    if disk_path(path) is None:
        return None, None
    times, sizes = [0.0], [0]
    for folder in (path, os.path.join(path, "parts"), os.path.join(path, "index"), os.path.join(path, "originals")):
        try:
            for entry in os.scandir(folder):
                status = entry.stat(follow_symlinks=False)
                if entry.is_file(follow_symlinks=False):
                    times.append(status.st_mtime)
                    sizes.append(status.st_size)
        except OSError:
            continue
    return max(times) or None, sum(sizes)


def failures(opened: Opened, query: FailuresQuery) -> FailuresPage:
    """Returns the page that an address asks for."""
    version = opened.version
    found = opened.run.failures(offset=(query.page - 1) * query.limit, limit=query.limit)
    address = opened.run.address if (path := disk_path(opened.run.address)) is None else os.path.abspath(path)
    command = f"seewhy resume --retry {shlex.quote(address)}" if opened.run.settings.get("command") else ""
    lines = [
        FailureLine(failure=one, label_name="" if one.label is None else opened.run.class_name(one.label))
        for one in found
    ]
    return FailuresPage(
        run=opened.place.key, version=version, total=found.total, page=query.page,
        pages=max(1, -(-found.total // query.limit)), command=command, failures=lines,
    )  # fmt: skip


def suggest(opened: Opened, query: SuggestQuery) -> list[Choice]:
    """Classes of the run's labels with a text in their name, and on how many pictures they are.

    Names that have it as whole words come first, then those that begin with it, each the most frequent first.
    """
    wanted = query.text.strip().casefold()
    words = re.compile(rf"(?<!\w){re.escape(wanted)}(?!\w)")
    found = []
    for label, count in opened.once("label counts", opened.run.label_counts).items():
        name = opened.run.class_name(label).casefold()
        if wanted in name or wanted == str(label):
            whole = wanted == str(label) or bool(words.search(name))
            found.append((not whole, not name.startswith(wanted), -count, label))
    return [
        Choice(value=str(label), name=opened.run.class_name(label), count=-count)
        for _, _, count, label in sorted(found)[: query.limit]
    ]
