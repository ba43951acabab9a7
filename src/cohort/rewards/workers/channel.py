"""A process of our own and the channel to it: how it starts, why it never outlives us, how messages go both ways.

A message is a length, then bytes, over a socket pair. Whatever happens to the process, nothing that it sends is ever
unpickled here: JSON texts come back.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from typing import Any

_HEADER = struct.Struct("!Q")
_LARGEST = 1 << 31  # bytes; more means that the channel is corrupt
_PR_SET_PDEATHSIG = 1


def start(module: str, path: Iterable[str], **options: Any) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """A fresh interpreter that runs `main(channel, parent)` of a module, and our end of the channel to it.

    `path` is its import path, which goes first: without it the process might not find cohort itself. `options` are
    those of Popen. Raises OSError where it cannot be started.
    """
    ours, theirs = socket.socketpair()
    run = f"from {module} import main; main({theirs.fileno()}, {os.getpid()})"
    command = [sys.executable, "-u", "-c", f"import sys; sys.path[:] = {[str(entry) for entry in path]!r}; {run}"]
    try:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()], **options), ours
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()


def attach(channel: int, parent: int) -> socket.socket:
    """In the new process: its end of the channel. The process ends with `parent`, and Ctrl-C is for `parent` alone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with(parent)
    connection = socket.socket(fileno=channel)
    connection.set_inheritable(False)
    return connection


def die_with(parent: int) -> None:
    """Make sure that this process ends with `parent`, however that ends and whatever this one is doing."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    else:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    if os.getppid() != parent:  # it died before we could ask
        leave()


def leave() -> None:
    """Leave at once: no thread or exit handler may keep the process."""
    with contextlib.suppress(Exception):
        sys.stdout.flush()
    os._exit(0)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    leave()


def send(connection: socket.socket, payload: bytes, deadline: float | None = None) -> None:
    """Send one message. OSError if the other side is gone, TimeoutError (a kind of it) past the deadline."""
    _limit(connection, deadline)
    connection.sendall(_HEADER.pack(len(payload)) + payload)


def receive(connection: socket.socket, deadline: float | None = None) -> bytes:
    """Receive one message. EOFError or OSError if the other side is gone, TimeoutError past the deadline."""
    (size,) = _HEADER.unpack(_exactly(connection, _HEADER.size, deadline))
    if size > _LARGEST:
        raise EOFError(f"a message of {size} bytes")
    return bytes(_exactly(connection, size, deadline))


def _exactly(connection: socket.socket, size: int, deadline: float | None) -> bytearray:
    data = bytearray()
    while len(data) < size:
        _limit(connection, deadline)
        part = connection.recv(min(size - len(data), 1 << 20))
        if not part:
            raise EOFError("the other side has closed the channel")
        data += part
    return data


def _limit(connection: socket.socket, deadline: float | None) -> None:
    """`deadline` is a time.monotonic(); a socket's own timeout would start afresh with every read."""
    left = None if deadline is None else deadline - time.monotonic()
    if left is not None and left <= 0:
        raise TimeoutError("past the deadline")
    connection.settimeout(left)
