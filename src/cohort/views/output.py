"""Where words go: a stream that never ends what is said on it."""

from __future__ import annotations

import os
import sys
from typing import IO, Any


class Output:
    """Standard output as it is at each moment, or `file`, for rich to write to. What it cannot show becomes a question
    mark; when nobody reads it any more, or its disk is full, the words are lost and the run goes on.
    """

    def __init__(self, file: IO[str] | None = None):
        self._file = file

    @property
    def stream(self) -> Any:
        """Where it goes now; None in a process that has no standard output."""
        # While a live line is shown, rich's stand-in for standard output leads back to here.
        return self._file or getattr(sys.stdout, "rich_proxied_file", sys.stdout)

    def write(self, text: str) -> int:
        """Write what can be written."""
        try:
            self.stream.write(text)
        except UnicodeEncodeError:
            encoding = getattr(self.stream, "encoding", None) or "ascii"
            self.write(text.encode(encoding, "replace").decode(encoding))
        except (OSError, ValueError, AttributeError) as error:
            self._lost(error)
        return len(text)

    def flush(self) -> None:
        """Hand on what was written, if it can be."""
        try:
            self.stream.flush()
        except (OSError, ValueError, AttributeError) as error:
            self._lost(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)  # isatty, fileno, encoding

    def _lost(self, error: Exception) -> None:
        if isinstance(error, BrokenPipeError) and self.stream is sys.stdout:
            silence(sys.stdout)


def silence(stream: IO[str]) -> None:
    """Nobody reads the stream any more. Without this Python would complain, and fail, when it empties it at exit."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)
