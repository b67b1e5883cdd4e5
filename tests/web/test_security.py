"""Who may ask, from where, and how much; and that no address reaches a file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from seewhy.errors import InvalidInput
from seewhy.web.library import Library
from seewhy.web.security import Rules
from seewhy.web.serving import _listening, serve
from support.web_pages import client, folder, key

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("runs")
    folder(made / "run")
    (made / "secret.txt").write_text("do not tell")
    return made


@pytest.fixture
def asking(place: Path) -> Any:
    with client(place) as found:
        found.run = key(found)
        yield found


@pytest.mark.parametrize("host", ["127.0.0.1:8484", "localhost", "LOCALHOST:1", "[::1]:8484", "127.9.9.9"])
def test_this_machine_may_ask(asking: Any, host: str) -> None:
    assert asking.get("/", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "192.168.1.5", "evil@127.0.0.1", "a/b",
     "127.0.0.1:x", "[::1", "", "127.0.0.1#.evil.example"],
)  # fmt: skip
def test_a_foreign_host_is_refused(asking: Any, host: str) -> None:
    answer = asking.get("/", headers={"Host": host})
    assert answer.status_code == 400
    assert answer.text == "This server does not go by that name. Allow it with --allow-host NAME.\n"


def test_names_can_be_allowed(place: Path) -> None:
    with client(place, Rules.of("127.0.0.1", ["Review.example"])) as asking:
        assert asking.get("/", headers={"Host": "review.example:80"}).status_code == 200
        assert asking.get("/", headers={"Host": "other.example"}).status_code == 400


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://127.0.0.1:8484"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://127.0.0.1:9999"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://[::1"}, 403),
        ({"Origin": "http://[v1.x]]"}, 403),
        ({"Origin": "//"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 403),
        ({"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 200),
        ({"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"}, 200),
    ],
)
def test_other_pages_may_not_read(asking: Any, headers: dict[str, str], status: int) -> None:
    assert asking.get("/api/runs", headers=headers).status_code == status


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
def test_nothing_can_be_written(asking: Any, method: str) -> None:
    for path in ("/", "/api/runs", f"/runs/{asking.run}/saliency"):
        assert asking.request(method, path).status_code == 405


def test_every_answer_has_the_headers(asking: Any) -> None:
    for path in ("/", "/nothing", "/api/runs", f"/runs/{asking.run}/saliency", f"/runs/{asking.run}/map"):
        headers = asking.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize(
    "bad", ["../secret.txt", "..%2fsecret.txt", "/etc/passwd", "....//secret.txt", "%00", "\\..\\x"]
)
def test_no_address_is_a_path(asking: Any, bad: str) -> None:
    run = asking.run
    page = asking.get(f"/api/runs/{run}/saliency").json()["samples"][0]
    version = page["labels"][0]["maps"][0]["url"].rpartition("v=")[2].partition("&")[0]
    known = {"sample": "s0", "label": "0", "explainer": "one", "v": version}
    tries = [asking.get(f"/runs/{run}/map", params=known | {name: bad}) for name in known]
    tries += [asking.get(f"/runs/{run}/{kind}", params={"sample": bad, "v": bad}) for kind in ("thumbnail", "picture")]
    tries += [asking.get(f"/runs/{bad}/saliency"), asking.get(f"/api/runs/{bad}/saliency")]
    tries += [asking.get(f"/static/{bad}/app.css"), asking.get(f"/static/x/{bad}"), asking.get(f"/{bad}")]
    names = ("labels", "explainers", "text", "sort", "on", "open", "flags")
    tries += [asking.get(f"/runs/{run}/saliency", params={name: bad}) for name in names]
    for answer in tries:
        assert answer.status_code in (200, 400, 404, 422), answer.url
        assert "do not tell" not in answer.text
        assert "root:" not in answer.text
    assert all(answer.status_code != 200 for answer in tries[:4])


def test_a_run_that_names_a_file_shows_pictures_only(tmp_path: Path) -> None:
    from support.run_folders import Folder, picture, settings

    secret = tmp_path / "secret.txt"
    secret.write_text("do not tell")
    made = Folder(tmp_path / "run", settings())
    made.add("a" * 8, *(picture(f"s{n}", n, source=name, stamp="") for n, name in enumerate(
        [str(secret), "/dev/zero", "originals/../secret.txt", "../secret.txt", "file:///etc/passwd", "\x00"]
    )))  # fmt: skip
    with client(tmp_path / "run") as asking:
        for number in range(6):
            assert asking.get(f"/runs/{key(asking)}/picture", params={"sample": f"s{number}"}).status_code == 404


def test_limits(asking: Any) -> None:
    page = f"/runs/{asking.run}/saliency"
    assert asking.get(page, params={"limit": 97}).status_code == 422
    assert asking.get(page, params={"page": 10**7}).status_code == 422
    assert asking.get(page, params={"text": "x" * 201}).status_code == 422
    assert asking.get(page, params={"labels": list(range(101))}).status_code == 422
    assert asking.get(page, params={"text": "x" * 9000}).status_code == 414
    assert asking.get(page, params={"wrong": 1}).status_code == 422
    assert "wrong: Extra inputs are not permitted" in asking.get(page, params={"wrong": 1}).text


def test_other_machines_need_the_token(place: Path) -> None:
    rules = Rules.of("0.0.0.0")
    assert rules.token is not None
    assert len(rules.token) >= 43
    with client(place, rules) as asking:
        for given in ({}, {"token": "wrong"}, {"token": ""}, {"token": "é"}):
            answer = asking.get("/api/runs", params=given)
            assert (answer.status_code, "set-cookie" in answer.headers) == (401, False)
        assert asking.get("/api/runs", headers={"Cookie": "seewhy=wrong"}).status_code == 401
        assert asking.get("/api/runs", headers={"Authorization": f"Bearer {rules.token}"}).status_code == 200
        welcome = asking.get("/", params={"token": rules.token, "text": '"><b>'})
        cookie = welcome.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        assert rules.token not in welcome.text
        assert 'content="0;url=/?text=%22%3E%3Cb%3E"' in welcome.text
        assert asking.get("/api/runs").status_code == 200


@pytest.mark.parametrize("kind", ["Bearer", "bearer", "BEARER", "bEaReR "])
def test_bearer_in_any_case(place: Path, kind: str) -> None:
    rules = Rules.of("0.0.0.0")
    with client(place, rules) as asking:
        assert asking.get("/api/runs", headers={"Authorization": f"{kind} {rules.token}"}).status_code == 200
        assert asking.get("/api/runs", headers={"Authorization": f"Basic {rules.token}"}).status_code == 401
        assert asking.get("/api/runs", headers={"Authorization": f"{kind} {rules.token}x"}).status_code == 401


@pytest.mark.parametrize(
    "others",
    ["a b=c", 'x="', "=;==;", 'json={"a":[1,2]}', "k\u00e9y=1", "a=1,b=2", "seewhy-8484-x=1", ";;;"],
)
def test_the_token_is_found_beside_any_other_cookie(place: Path, others: str) -> None:
    rules = Rules.of("0.0.0.0")
    with client(place, rules) as asking:
        asking.get("/", params={"token": rules.token})
        ((name, value),) = asking.cookies.items()
        asking.cookies.clear()
        for text in (f"{others}; {name}={value}", f"{name}={value}; {others}", f"{name}=old; {others};{name}={value}"):
            assert asking.get("/api/runs", headers={"Cookie": text.encode("latin-1")}).status_code == 200
        assert asking.get("/api/runs", headers={"Cookie": f"{others}; {name}=x".encode("latin-1")}).status_code == 401
        assert asking.get("/api/runs", headers={"Cookie": f"x{name}={value}"}).status_code == 401


def test_two_servers_of_one_host_do_not_lock_each_other_out(place: Path) -> None:
    """Cookies belong to a host, not to its port: one for each port and root path."""
    names = set()
    for port, root in ((8484, ""), (8485, ""), (8484, "/a"), (8484, "/b")):
        rules = Rules.of("0.0.0.0")
        with client(place, rules, root_path=root) as asking:
            there = f"http://127.0.0.1:{port}{root}/"
            cookie = asking.get(there, params={"token": rules.token}).headers["set-cookie"]
            names.add(cookie.partition("=")[0])
            assert f"Path={root or '/'};" in cookie
            assert asking.get(f"{there}api/runs").status_code == 200
    assert len(names) == 4


def test_who_is_welcome_stays_on_this_server(place: Path) -> None:
    rules = Rules.of("0.0.0.0")
    with client(place, rules) as asking:
        for path in ("//evil.example/", "/\\evil.example"):
            text = asking.get(f"http://127.0.0.1:8484{path}", params={"token": rules.token}).text
            there = re.search(r'url=([^"]*)"', text)
            assert there is not None
            assert re.match(r"/[^/\\]", there[1])


def test_this_machine_needs_no_token() -> None:
    assert all(Rules.of(host).token is None for host in ("127.0.0.1", "localhost", "::1"))
    assert all(Rules.of(host).token for host in ("0.0.0.0", "::", "192.168.1.2", "machine.example", ""))


def test_links_out_of_the_folder_are_not_followed(tmp_path: Path) -> None:
    folder(tmp_path / "outside" / "run")
    (tmp_path / "shown").mkdir()
    (tmp_path / "shown" / "link").symlink_to(tmp_path / "outside")
    assert Library(tmp_path / "shown").places() == {}


def test_what_cannot_be_served(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"^There is no folder '.*nowhere'. Give a run folder, or a folder with run"):
        serve(tmp_path / "nowhere")
    with pytest.raises(InvalidInput, match=r"^root_path must begin with one slash, as in '/why', got 'why'.$"):
        serve(tmp_path, root_path="why")
    taken = _listening("127.0.0.1", 0)
    taken.listen()
    with pytest.raises(InvalidInput, match=r"^Cannot listen to 127.0.0.1 port \d+: .*Try another --port.$"):
        _listening("127.0.0.1", taken.getsockname()[1])
    taken.close()
