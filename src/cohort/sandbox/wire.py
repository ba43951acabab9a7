"""What travels between the processes of a sandbox, all of it trusted only as far as its sender.

Between the grader and its launcher: one line of JSON at a time, with file descriptors where needed. They take turns, so
what is waiting on the socket is never more than one message; the grader's "kill" is the exception, and names the run
that it means. Between the grader and a candidate's process: frames on pipes (a kind, a length, the content).
"""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Sequence
from typing import Any

HEADER = struct.Struct("!cI")
JOB = b"J"  # to the process: the code, and the function to call
FAILED = b"X"  # the sandbox could not be set up; only before READY
READY = b"R"  # the process is confined and waits for the code
VALUE = b"V"  # what a function returned
ERROR = b"E"  # the candidate's own exception
MEMORY = b"M"  # the candidate ran out of memory

_LONGEST = 1 << 16
_MOST_DESCRIPTORS = 8


class Channel:
    """One end. `receive` gives None once the other end is closed."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.descriptors: list[int] = []  # that have come and are not closed yet
        self._data = b""

    def send(self, descriptors: Sequence[int] = (), **message: Any) -> None:
        """Send a message. OSError if the other end is gone."""
        line = json.dumps(message).encode() + b"\n"
        if descriptors:
            socket.send_fds(self.connection, [line], list(descriptors))
        else:
            self.connection.sendall(line)

    def receive(self) -> dict[str, Any] | None:
        """The next message."""
        while b"\n" not in self._data:
            if len(self._data) > _LONGEST:
                raise OSError("a message without an end")
            try:
                part, descriptors, _, _ = socket.recv_fds(self.connection, _LONGEST, _MOST_DESCRIPTORS)
            except ConnectionResetError:
                return None
            self.descriptors += descriptors
            if not part:
                return None
            self._data += part
        line, _, self._data = self._data.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message

    def waiting(self) -> bool:
        """Whether `receive` has a whole message already."""
        return b"\n" in self._data

    def close_descriptors(self) -> None:
        """Close those that have come."""
        while self.descriptors:
            os.close(self.descriptors.pop())

    def close(self) -> None:
        """Close this end."""
        self.connection.close()


def pack(kind: bytes, content: bytes = b"") -> bytes:
    """A frame."""
    return HEADER.pack(kind, len(content)) + content


def write_frame(descriptor: int, kind: bytes, content: bytes = b"") -> None:
    """Write a whole frame to a blocking pipe."""
    data = memoryview(pack(kind, content))
    while data:
        data = data[os.write(descriptor, data) :]


def read_frame(descriptor: int) -> tuple[bytes, bytes] | None:
    """Read a whole frame from a blocking pipe; None at its end."""
    header = _exactly(descriptor, HEADER.size)
    if header is None:
        return None
    kind, size = HEADER.unpack(header)
    content = _exactly(descriptor, size)
    return None if content is None else (kind, content)


def _exactly(descriptor: int, size: int) -> bytes | None:
    data = bytearray()
    while len(data) < size:
        part = os.read(descriptor, min(size - len(data), 1 << 20))
        if not part:
            return None
        data += part
    return bytes(data)
