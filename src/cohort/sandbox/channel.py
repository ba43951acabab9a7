"""The channel between the grader and its launcher: one line of JSON at a time, with file descriptors where needed.

They take turns, so what is waiting on the socket is never more than one message; the grader's "kill" is the exception,
and names the run that it means.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Sequence
from typing import Any

__all__ = ["Channel"]

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
        for descriptor in self.descriptors:
            os.close(descriptor)
        self.descriptors = []

    def close(self) -> None:
        """Close this end."""
        self.connection.close()
