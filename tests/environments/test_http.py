"""The HTTP tool: it reaches the hosts it was given; it tells the policy of its mistakes, not of a failing server."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time

import pytest

from cohort.environments import build_tools
from cohort.environments.http import _checked, _get
from cohort.environments.tools import ToolError
from cohort.types import InfrastructureError


@pytest.fixture
def fetch(web):
    """Fetch a path from the server, or a whole address."""
    host = f"127.0.0.1:{web.server_port}"

    def get(address, **args):
        (tool,) = build_tools(["http"], {"http": {"hosts": [host], **args}}, 5.0)
        return tool.call({"url": address if "//" in address else f"http://{host}/{address}"})

    return get


def test_a_page_is_fetched(fetch, web):
    assert fetch("200/hello?q=1").result == "the page /200/hello?q=1"
    assert [path for path, _ in web.seen] == ["/200/hello?q=1"]


@pytest.mark.fault("a tool that is to fetch from elsewhere", "it is refused before any request")
@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("http://127.0.0.1:1/", "'127.0.0.1:1' cannot be reached, only 127.0.0.1:"),
        ("http://localhost/", "'localhost' cannot be reached"),
        ("http://127.0.0.1.evil.example/", "cannot be reached"),
        ("http://user:pw@127.0.0.1/", "must not hold a user"),
        ("file:///etc/passwd", "must begin with https:// or http://"),
        ("//127.0.0.1/x", "must begin with https:// or http://"),
        ("http://[broken", "cannot be read"),
        ("http://127.0.0.1:99999/", "cannot be read"),
        ("ftp://127.0.0.1/", "must begin with"),
        ("http://127.0.0.1:80\\@elsewhere.example/", "must not hold a user"),
        ("http://elsewhere.example\\@127.0.0.1/", "must not hold a user"),
        ("http://elsewhere.example#@127.0.0.1/", "cannot be reached"),
        ("http://elsewhere.example?127.0.0.1/", "cannot be reached"),
        ("http://127.0.0.1\u3002evil.example/", "cannot be reached"),
        ("http://127.0.0.1\uff0f.evil.example/", "cannot be read"),
        ("http://2130706433/", "cannot be reached"),
    ],
)
def test_other_addresses_are_refused_without_a_request(fetch, web, address, says):
    done = fetch(address)
    assert done.failed
    assert says in done.result
    assert web.seen == []


@pytest.mark.parametrize(
    ("host", "reached", "refused"),
    [
        ("127.0.0.1:80", "http://127.0.0.1/", "https://127.0.0.1/"),
        ("127.0.0.1", "http://127.0.0.1:80/", "http://127.0.0.1:443/"),
        ("[::1]:8", "http://[::1]:8/", "http://[::1]/"),
        ("[::1]", "http://[::1]/", "http://[::2]/"),
    ],
)
def test_a_host_may_be_written_with_its_usual_port_or_as_an_ipv6_address(host, reached, refused):
    assert _checked(reached, frozenset({host})) == reached
    with pytest.raises(ToolError, match="cannot be reached, only"):
        _checked(refused, frozenset({host}))


@pytest.mark.parametrize(
    ("path", "says"),
    [("404/gone", "error: the server answered 404"), ("302/there", "moved to 'http://elsewhere.example/there'")],
)
def test_the_policys_mistakes_are_told_to_it(fetch, web, path, says):
    done = fetch(path)
    assert done.failed
    assert says in done.result
    assert len(web.seen) == 1  # a redirect is not followed


@pytest.mark.parametrize("path", ["500/", "503/", "429/", "408/"])
def test_a_failing_server_is_no_answer(fetch, path):
    with pytest.raises(InfrastructureError, match=f"the server answered {path[:3]}"):
        fetch(path)


def test_a_server_that_is_down_or_slow_is_no_answer(fetch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{unused.getsockname()[1]}"
        (tool,) = build_tools(["http"], {"http": {"hosts": [host]}}, 5.0)
        with pytest.raises(InfrastructureError, match="the tool 'http' failed"):
            tool.call({"url": f"http://{host}/"})
    with pytest.raises(InfrastructureError, match=r"the tool 'http' failed"):
        fetch("slow/", timeout_s=0.3)


def test_a_large_page_is_cut(fetch):
    assert fetch("large/", max_kb=3).result == "x" * 3072


def test_requests_know_nothing_of_each_other_or_of_the_user(fetch, web, monkeypatch, tmp_path):
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    for _ in range(2):
        assert not fetch("200/").failed
    for _, headers in web.seen:
        assert {"cookie", "authorization"}.isdisjoint(name.lower() for name in headers)


@pytest.fixture
def dripping():
    """Servers that send a beginning, then a piece from time to time, for ever; gives a function (beginning, piece)."""
    listeners = []

    def serve(beginning, piece):
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def answer():
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                connection.sendall(beginning)
                while True:
                    time.sleep(0.02)
                    connection.sendall(piece)

        threading.Thread(target=answer, daemon=True).start()
        return listener.getsockname()[1]

    yield serve
    for listener in listeners:
        listener.close()


HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.fault("a server that answers drop by drop", "it is given up in time")
@pytest.mark.parametrize(
    ("beginning", "piece"),
    [
        (HEAD + b"Content-Length: 1000000\r\n\r\n", b"x"),
        (HEAD + b"\r\n", b"x"),  # as long as the connection lasts
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        (HEAD, b"X"),  # a header without an end
        (HEAD + b"X: ", b"y"),
        (HEAD + b"Content-Length: 9\r\n\r\n", b""),
    ],
)
def test_a_slow_answer_has_a_deadline_as_a_whole(dripping, beginning, piece):
    port = dripping(beginning, piece)
    certificates = ssl.create_default_context()
    started = time.monotonic()
    with pytest.raises(InfrastructureError, match=r"no whole answer within 0\.4 s|ReadTimeout"):
        _get(f"http://127.0.0.1:{port}/", 0.4, 1 << 20, certificates)
    assert time.monotonic() - started < 3


def test_no_thread_is_left_behind_by_a_slow_answer(dripping):
    port = dripping(HEAD + b"\r\n", b"x")
    before = threading.active_count()
    (tool,) = build_tools(["http"], {"http": {"hosts": [f"127.0.0.1:{port}"], "timeout_s": 0.3}}, 5.0)
    with pytest.raises(InfrastructureError):
        tool.call({"url": f"http://127.0.0.1:{port}/"})
    deadline = time.monotonic() + 3
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.02)
    assert threading.active_count() <= before
