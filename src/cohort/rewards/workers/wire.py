"""Messages between the pool and a worker: a length, then bytes, over a socket pair.

To the worker they are pickles, because rows hold any Python object. Back come JSON texts: whatever a reward function
does to its process, the trainer never unpickles what it sends.
"""

from __future__ import annotations

import socket
import struct
import time

__all__ = ["first_and_item", "receive", "send", "with_first"]

_HEADER = struct.Struct("!Q")
_FIRST = struct.Struct("!I")
_LARGEST = 1 << 31  # bytes; more means that the channel is corrupt


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
    if deadline is None:
        connection.settimeout(None)
        return
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("past the deadline")
    connection.settimeout(left)


def with_first(first: int, item: bytes) -> bytes:
    """The message that asks for the scores of a pickled item by all rewards from number `first` on."""
    return _FIRST.pack(first) + item


def first_and_item(message: bytes) -> tuple[int, memoryview]:
    """The two parts of such a message."""
    (first,) = _FIRST.unpack_from(message)
    return first, memoryview(message)[_FIRST.size :]
