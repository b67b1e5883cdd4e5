"""What the queues are called on the pages, and what they mean, in a sentence each."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["QUEUES", "QueueWords"]


class QueueWords(NamedTuple):
    """A queue's title, and what is in it."""

    title: str
    about: str


QUEUES = {
    "wrong": QueueWords(
        "Confident and wrong",
        "Wrong, and at least as sure as half of the right answers are; the surest first.",
    ),
    "elsewhere": QueueWords(
        "Right but looks elsewhere",
        "Right, but most of the map lies off the object (or its peak does), or it is strong at the border only; the "
        "farthest off first.",
    ),
    "disagree": QueueWords(
        "Explainers disagree",
        "The maps of the explainers get very different values of a metric: the tenth where they differ most.",
    ),
    "interval": QueueWords(
        "Interval excludes the prediction",
        "What the network says lies outside of its own 95 % interval: without dropout it says something that it hardly "
        "ever says with it.",
    ),
    "trust": QueueWords("Least trustworthy maps", "The trust grade is 0 or 1 of 3; the lowest first."),
}
