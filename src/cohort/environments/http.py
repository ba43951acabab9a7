"""The HTTP tool: GET from hosts that the recipe names, and from nowhere else.

The policy is told of its own mistakes (a wrong address, a page that is not there); a server that is down, slow or
failing is the world's fault. Requests carry no cookies, no credentials and no settings of the user's environment.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import SplitResult, urlsplit

from cohort.environments.tools import Tool, ToolError, tool_of
from cohort.types import InfrastructureError, UserError

_PORTS = {"http": 80, "https": 443}
_PASSING = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)


def http_tool(hosts: Sequence[str], timeout_s: float = 30.0, max_kb: int = 256) -> Tool:
    """The tool `http(url)`. `hosts` are names, with a port where it is not the usual one: "localhost:8080". Of a page
    the first `max_kb` KiB are read.
    """
    if isinstance(hosts, str) or not hosts or not all(isinstance(host, str) and host for host in hosts):
        raise UserError(
            'the tool http needs the hosts that it may reach: environment.args.http = { hosts = ["api.example.com"] }, '
            f"not {hosts!r}"
        )
    bad = [host for host in hosts if "/" in host or "@" in host or "*" in host]
    if bad:
        raise UserError(
            f'a host of the tool http is a name such as "api.example.com" or "localhost:8080", not {bad[0]!r}'
        )
    if isinstance(timeout_s, bool) or not isinstance(timeout_s, (int, float)) or not 0 < timeout_s < 1e6:
        raise UserError(f"timeout_s of the tool http is a number above 0, not {timeout_s!r}")
    if isinstance(max_kb, bool) or not isinstance(max_kb, int) or max_kb < 1:
        raise UserError(f"max_kb of the tool http is a whole number of at least 1, not {max_kb!r}")
    allowed = frozenset(host.lower() for host in hosts)
    certificates = ssl.create_default_context()  # once: reading them takes longer than most requests

    def http(url: str) -> str:
        """Fetch a web page with GET and return its text.

        Args:
            url: The address, beginning with https:// or http://.
        """
        return _get(_checked(url, allowed), timeout_s, max_kb << 10, certificates)

    return tool_of(http, timeout_s=timeout_s)


def _checked(url: str, allowed: frozenset[str]) -> str:
    try:
        parts = urlsplit(url.strip())
        names = _names(parts)
    except ValueError as error:
        raise ToolError(f"the address cannot be read: {error}") from None
    if parts.username is not None or parts.password is not None:
        raise ToolError("the address must not hold a user or a password")
    if allowed.isdisjoint(names):
        raise ToolError(f"the host {names[0]!r:.80} cannot be reached, only {', '.join(sorted(allowed))}")
    return url.strip()


def _names(parts: SplitResult) -> tuple[str, ...]:
    """What a recipe may call the host: `name:port`, and `name` where the port is the usual one."""
    if parts.scheme not in _PORTS or not parts.hostname:
        raise ValueError("it must begin with https:// or http:// and a host")
    name = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    usual = _PORTS[parts.scheme]
    port = usual if parts.port is None else parts.port
    return (name, f"{name}:{port}") if port == usual else (f"{name}:{port}",)


def _get(url: str, timeout_s: float, most: int, certificates: ssl.SSLContext) -> str:
    import httpx2  # here, because it takes a moment and few runs need it

    deadline = _Deadline(timeout_s)
    try:
        with (
            deadline,
            httpx2.Client(trust_env=False, verify=certificates, timeout=timeout_s) as client,
            client.stream("GET", url, extensions={"trace": deadline.watch}) as response,
        ):
            text = _text(response, most)
    except httpx2.InvalidURL as error:
        raise ToolError(f"the address cannot be read: {error}") from None
    except httpx2.HTTPError as error:
        why = f"no whole answer within {timeout_s:g} s" if deadline.over else f"{type(error).__name__}: {error}"
        raise InfrastructureError(why) from error
    if deadline.over:  # a body without a length may seem to end where it was cut
        raise InfrastructureError(f"no whole answer within {timeout_s:g} s")
    return text


class _Deadline:
    """Ends a request that takes longer than `timeout_s` as a whole. The timeouts of the client are for single reads, so
    a server that sends byte by byte would hold a thread for ever.
    """

    def __init__(self, timeout_s: float) -> None:
        self.over = False
        self._socket: socket.socket | None = None
        self._timer = threading.Timer(timeout_s, self._end)
        self._timer.daemon = True

    def watch(self, event: str, info: Mapping[str, Any]) -> None:
        """What the client calls at every event; a new connection is one."""
        if event in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
            self._socket = info["return_value"].get_extra_info("socket")
            if self.over:
                self._end()

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def _end(self) -> None:
        self.over = True
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)  # which wakes the thread that reads from it


def _text(response: Any, most: int) -> str:
    status = response.status_code
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in _PASSING:
        raise InfrastructureError(f"the server answered {status}")
    if response.is_redirect:
        raise ToolError(f"moved to {response.headers.get('location', 'nowhere')!r:.200}")
    if status >= HTTPStatus.BAD_REQUEST:
        raise ToolError(f"the server answered {status} {response.reason_phrase}")
    body = bytearray()
    for part in response.iter_bytes():
        body += part
        if len(body) > most:
            break
    return bytes(body[:most]).decode(response.charset_encoding or "utf-8", "replace")
