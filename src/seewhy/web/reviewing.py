"""The only writing there is: what a reviewer says of samples, where ``seewhy view --review NAME`` allows it.

A form brings the samples, a verdict, a text and the token of the server that made the page. `seewhy.web.security` lets
a form through only from a page of this server.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import parse_qs, urlencode

from starlette.requests import Request

from seewhy.errors import InvalidInput
from seewhy.web.library import Opened
from seewhy.web.security import Rules

__all__ = ["Refused", "back", "body", "keep"]

MOST = 64 * 1024  # bytes of a form
AT_ONCE = 500  # samples
_BACK = re.compile(r"(sample|grid)(\?[^#\s\\]*)?")


class Refused(Exception):
    """A form that is not taken.

    Attributes:
        status: of the answer.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


async def body(request: Request) -> dict[str, list[str]]:
    """Reads a form.

    Raises:
        Refused: it is too long, or none.
    """
    data = b""
    async for part in request.stream():
        data += part
        if len(data) > MOST:
            raise Refused(413, f"The form is too long: at most {MOST} bytes.")
    try:
        return parse_qs(data.decode(), keep_blank_values=True, strict_parsing=bool(data), max_num_fields=2 * AT_ONCE)
    except ValueError as error:
        raise Refused(400, "This is no form.") from error


def keep(opened: Opened, rules: Rules, form: dict[str, list[str]]) -> int:
    """Keeps what a form says of each of its samples, and says how many they are; none where they are to be shown only.

    Raises:
        Refused: the form is not from a page of this server, or names no sample.
        InvalidInput: no such sample or verdict.
        StorageError: the run folder cannot be written.
    """
    if rules.reviewer is None or not rules.made(_one(form, "token")):
        raise Refused(403, "This form is not from a page of this server. Load the page again.")
    if form.get("show"):
        return 0
    chosen = list(dict.fromkeys(_samples(opened, form)))
    if not 0 < len(chosen) <= AT_ONCE:
        raise Refused(400, f"A review is of 1 to {AT_ONCE} samples, got {len(chosen)}.")
    verdict, text = _one(form, "verdict"), _one(form, "text").replace("\r\n", "\n")
    known = [opened.run.sample(one) for one in chosen]
    if None in known:
        raise InvalidInput("The run has no such sample.")
    for one in chosen:
        opened.run.review(one, rules.reviewer, verdict, text)
    opened.renew()
    return len(chosen)


def _one(form: dict[str, list[str]], name: str) -> str:
    return form.get(name, [""])[-1]


def _samples(opened: Opened, form: dict[str, list[str]]) -> Iterator[str]:
    yield from form.get("sample", [])
    positions = [int(one) for one in form.get("picks", []) if one.isdecimal() and len(one) < 18]
    if positions:
        yield from (hit.record.sample for hit in opened.run.samples(positions=positions, limit=AT_ONCE))


def back(form: dict[str, list[str]]) -> str:
    """Returns where to go afterwards: a page of the run, never another address."""
    if form.get("show"):
        return "grid?" + urlencode([("picks", one) for one in form.get("picks", [])])
    wanted = _one(form, "back")
    return wanted if _BACK.fullmatch(wanted) and len(wanted) < 8192 else "overview"
