"""Posts JSON to a server, politely and stubbornly: with a deadline for the whole reply, and with backoff.

What passes (a lost connection, 429, 5xx, a reply without end) is `Passing`, to be tried again; what a person must mend
(a wrong key, a wrong address) a UserError, and a request that is refused for itself an InfrastructureError.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2

from cohort.types import InfrastructureError, UserError

_PASSING = {408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529}
_TO_MEND = {401, 402, 403, 404, 405}
_LONGEST_WAIT_S = 120.0  # of one backoff, whatever the server asks for


class Passing(Exception):  # noqa: N818 (an event, handled by who asks)
    """Something that may be over at the next attempt."""


class Post:
    """Posts to one address. Threads may share it. `who` is what messages call the server, `key` is never shown."""

    def __init__(
        self, who: str, address: str, key: str | None, timeout_s: float, largest: int, backoff_s: float = 0.5
    ) -> None:
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        self.address, self._who, self._key, self._largest = address, who, key, largest
        self._timeout_s, self._backoff_s = timeout_s, backoff_s
        self._http = httpx2.Client(headers=headers, timeout=timeout_s)
        self._resume_at = 0.0  # time.monotonic(); a server that says "too many" says it to all threads
        self._jitter = random.Random()
        self._lock = threading.Lock()

    def __call__(self, body: Mapping[str, Any]) -> bytes:
        """The body of the reply. Raises Passing, UserError or InfrastructureError."""
        deadline = time.monotonic() + self._timeout_s
        raw = json.dumps(body).encode()  # plain ASCII: half a character in a text must not break the request
        try:
            with self._http.stream("POST", self.address, content=raw) as response:
                content = self._read(response, deadline)
        except httpx2.InvalidURL as error:
            raise UserError(f"the url of the {self._who}, {self.address}, is not an address ({error})") from None
        except httpx2.HTTPError as error:
            raise Passing(self._hidden(f"{type(error).__name__} {error}".strip())) from None
        if response.status_code == 200:
            return content
        said = self._hidden(f"HTTP {response.status_code}: {' '.join(content.decode('utf-8', 'replace').split())}")
        if response.status_code in _PASSING:
            self._heed(_retry_after(response.headers.get("Retry-After")))
            raise Passing(said)
        if response.status_code in _TO_MEND or response.is_redirect:
            raise UserError(
                f"the {self._who} at {self.address} refuses every request ({said}); check url, model and the key"
            )
        # E.g. a text that is too long for the model. Asking the same again would not help.
        raise InfrastructureError(f"the {self._who} at {self.address} refused a request ({said})")

    def wait(self, attempt: int) -> None:
        """Backoff before a further attempt, then the server's own wish."""
        if attempt:
            longest = min(self._backoff_s * 2 ** (attempt - 1), _LONGEST_WAIT_S)
            time.sleep(longest * self._jitter.uniform(0.75, 1.25))
        if (pause := self._resume_at - time.monotonic()) > 0:
            time.sleep(pause)

    def close(self) -> None:
        """Close connections."""
        self._http.close()

    def _heed(self, seconds: float) -> None:
        """Let all threads wait as long as the server has asked."""
        with self._lock:
            self._resume_at = max(self._resume_at, time.monotonic() + min(seconds, _LONGEST_WAIT_S))

    def _read(self, response: httpx2.Response, deadline: float) -> bytes:
        """The body. A server that sends byte by byte, or without end, is cut off: httpx's timeouts are for single
        reads.
        """
        content = bytearray()
        for part in response.iter_bytes():
            content += part
            if len(content) > self._largest:
                raise Passing(f"a reply of more than {self._largest} bytes")
            if time.monotonic() > deadline:
                raise Passing("a reply that did not end in time")
        return bytes(content)

    def _hidden(self, text: str) -> str:
        """A text of the server's for a message, cut, and without the key, should it have repeated it."""
        if self._key:
            text = text.replace(self._key, "***")
        return text if len(text) <= 300 else text[:297] + "..."


def _retry_after(header: str | None) -> float:
    """Seconds that the server asks to wait, in either form of the header; 0 for none or nonsense."""
    if header is None:
        return 0.0
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(header).timestamp() - time.time()
        except ValueError:
            return 0.0
    return max(seconds, 0.0) if seconds == seconds else 0.0  # not a number
