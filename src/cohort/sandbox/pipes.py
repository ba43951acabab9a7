"""Frames on the pipes between the grader and a candidate's process: a kind, a length, the content."""

from __future__ import annotations

import os
import struct

__all__ = ["ERROR", "FAILED", "HEADER", "JOB", "MEMORY", "READY", "VALUE", "pack", "read_frame", "write_frame"]

HEADER = struct.Struct("!cI")

JOB = b"J"  # to the process: the code, and the function to call
FAILED = b"X"  # the sandbox could not be set up; only before READY
READY = b"R"  # the process is confined and waits for the code
VALUE = b"V"  # what a function returned
ERROR = b"E"  # the candidate's own exception
MEMORY = b"M"  # the candidate ran out of memory


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
