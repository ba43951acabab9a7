"""A port of this machine: who reaches it, and by which address."""

from __future__ import annotations

import socket

from cohort.types import UserError


def is_alone(host: str) -> bool:
    """Whether nobody but this machine reaches a server that listens at `host`."""
    return host in ("127.0.0.1", "localhost", "::1")


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens on a port, or with 0 on a free one. Raises `UserError` where it cannot be had."""
    found = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
        found.listen(128)
    except (OSError, OverflowError) as error:
        found.close()
        raise UserError(
            f"cannot listen on {host}:{port} ({error}): another --port may be free, and 0 takes one"
        ) from None
    return found


def base_url(host: str, bound: socket.socket) -> str:
    """`http://NAME:PORT` of a socket that listens at `host`."""
    name = socket.gethostname() if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    return f"http://{name}:{bound.getsockname()[1]}"
