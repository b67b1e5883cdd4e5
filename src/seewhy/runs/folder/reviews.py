"""What reviewers say of pictures of a run: one small file each time that somebody says something.

    reviews/<time>-<author>-<sign>.json     sample, verdict, text, author, written

A file is made once and never changed, so that any number of reviewers may write at once. Of what one author said of
one picture the last counts; an empty verdict without text takes back what was said before. A folder may come from
anywhere: a file that is none of these is left out, with the reason.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from seewhy.checks import is_number
from seewhy.errors import InvalidInput, StorageError
from seewhy.runs.folder.settings import parsed
from seewhy.runs.folder.store import Store

__all__ = ["LONGEST", "VERDICTS", "Review", "latest", "names", "read_all", "save"]

VERDICTS = ("looks right", "wrong evidence", "bad label", "look again")
LONGEST = 2000  # characters of a text
_FOLDER = "reviews"
_AUTHOR, _SAMPLE = 100, 10_000  # characters
_MOST = 64 * 1024  # bytes of a file
_LATEST = 1e11  # seconds since 1970


@dataclass(frozen=True, kw_only=True)
class Review:
    """What somebody said of a picture.

    Attributes:
        sample: the picture's key.
        verdict: one of `VERDICTS`, or "".
        text: a remark, or "".
        author: who said it.
        written: when, in seconds since 1970.

    Raises:
        InvalidInput: there is no such verdict, the text is too long, or there is no author.
    """

    sample: str
    verdict: str = ""
    text: str = ""
    author: str
    written: float

    def __post_init__(self) -> None:
        if self.verdict and self.verdict not in VERDICTS:
            known = ", ".join(repr(one) for one in VERDICTS)
            raise InvalidInput(f"A verdict must be one of {known}, or '' for none, got {self.verdict!r}.")
        for name, value, most in (
            ("text", self.text, LONGEST), ("author", self.author, _AUTHOR), ("sample", self.sample, _SAMPLE)
        ):  # fmt: skip
            if len(value) > most:
                raise InvalidInput(f"The {name} of a review must have at most {most} characters, got {len(value)}.")
        if not self.author.strip() or not self.sample:
            raise InvalidInput("A review needs an author and a sample.")

    @property
    def says(self) -> bool:
        """Whether the review says anything; an empty one takes back what its author said before."""
        return bool(self.verdict or self.text)

    @property
    def line(self) -> str:
        """The review as one line of a table: "anna: wrong evidence, it looks at the sky"."""
        return f"{self.author}: {', '.join(filter(None, (self.verdict, self.text)))}"


def save(store: Store, review: Review) -> str:
    """Writes a review into the run folder; gives the file's name.

    Raises:
        StorageError: it cannot be written.
    """
    store.check_there()
    data = (json.dumps(asdict(review), ensure_ascii=False, indent=2) + "\n").encode()
    moment = datetime.fromtimestamp(review.written, UTC).strftime("%Y%m%dT%H%M%S%fZ")
    who = re.sub(r"[^a-z0-9]+", "-", review.author.lower()).strip("-")[:24] or "somebody"
    name = f"{moment}-{who}-{hashlib.blake2b(data, digest_size=4).hexdigest()}.json"
    store.files.put(f"{_FOLDER}/{name}", [data], replace=False)
    return name


def names(store: Store) -> list[str]:
    """Returns the names of the files of reviews, the oldest first."""
    return sorted(name for name in store.files.names(_FOLDER) if name.endswith(".json"))


def read_all(store: Store, wanted: Sequence[str]) -> dict[str, Review | str]:
    """Returns for each file's name its review, or the reason why it cannot be read."""
    with ThreadPoolExecutor(4) as pool:
        return dict(zip(wanted, pool.map(lambda name: _read(store, name), wanted), strict=True))


def _read(store: Store, name: str) -> Review | str:
    about = f"{_FOLDER}/{name} in {store.address!r}"
    try:
        data = store.files.get(f"{_FOLDER}/{name}")
        if len(data) > _MOST:
            return f"{about} cannot be read: it has {len(data)} bytes, at most {_MOST} are read."
        return _made(parsed(data, about), about)
    except (InvalidInput, StorageError) as error:
        return str(error)
    except OSError as error:
        return f"{about} cannot be read: {error}."


def _made(found: Any, about: str) -> Review:
    texts = ("sample", "verdict", "text", "author")
    good = isinstance(found, dict) and all(isinstance(found.get(name), str) for name in texts)
    if not good or not is_number(found.get("written")) or not 0 <= found["written"] < _LATEST:
        raise InvalidInput(f"{about} is no review: it must have sample, verdict, text, author and written.")
    try:
        return Review(**{name: found[name] for name in texts}, written=float(found["written"]))
    except InvalidInput as error:
        raise InvalidInput(f"{about} is no review: {error}") from error


def latest(reviews: Iterable[Review]) -> list[Review]:
    """Returns the last review by each author of each image, in the order of time, without those taken back."""
    last: dict[tuple[str, str], Review] = {}
    for one in sorted(reviews, key=lambda one: one.written):
        last[one.sample, one.author] = one
    return sorted((one for one in last.values() if one.says), key=lambda one: (one.written, one.author))
