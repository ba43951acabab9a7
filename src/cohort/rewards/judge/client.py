"""Asks an OpenAI-compatible endpoint, politely and stubbornly: paced, cached, retried with backoff.

Nothing that goes wrong here is a score. What passes (a lost connection, 429, 5xx, a reply that is no verdict) is tried
again and then an InfrastructureError; what a person must mend (a wrong key, a wrong model) is a UserError.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import httpx2

from cohort.rewards.judge.prompt import Messages, NoVerdict, reminded
from cohort.rewards.judge.store import JudgeStore, default_path
from cohort.types import InfrastructureError, UserError

_PASSING = {408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529}
_TO_MEND = {401, 402, 403, 404, 405}
_LARGEST_REPLY = 1 << 20  # bytes
_LONGEST_WAIT_S = 120.0  # of one backoff, whatever the server asks for


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the judge is and how it is asked. It holds the name of the key's environment variable, never the key."""

    url: str
    model: str
    api_key_env: str | None = None
    temperature: float | str = 0.0  # "default": the server's own
    max_tokens: int = 512  # 0: not sent
    extra: Mapping[str, Any] | None = None  # further fields of every request
    response_format: str = "json_object"  # or "off", for servers that do not know it
    request_timeout_s: float = 60.0
    retries: int = 5
    backoff_s: float = 0.5
    requests_per_minute: float = 0.0  # 0: no limit
    cache: str = ""  # a file; "": the default one; "off": none

    def __post_init__(self) -> None:
        if not re.fullmatch(r"https?://[^\s@]+", self.url):
            raise UserError(
                "the judge's url is an address such as http://localhost:8000/v1, without a user or password in it"
            )
        if self.api_key_env is not None and not re.fullmatch(r"[A-Za-z_]\w*", self.api_key_env):
            # The value is not shown: it may be the key itself.
            raise UserError("the judge's api_key_env is the name of an environment variable that holds the key")
        if self.response_format not in ("json_object", "off"):
            raise UserError(f'the judge\'s response_format is "json_object" or "off", not {self.response_format!r}')
        for name, least in (("max_tokens", 0), ("request_timeout_s", 0.001), ("retries", 0), ("backoff_s", 0.0)):
            if not getattr(self, name) >= least:
                raise UserError(f"the judge's {name} is a number of at least {least:g}, not {getattr(self, name)!r}")
        if not self.requests_per_minute >= 0:
            raise UserError(f"the judge's requests_per_minute is 0 (no limit) or more, not {self.requests_per_minute}")

    @property
    def address(self) -> str:
        """The URL that chat completions are posted to."""
        base = self.url.rstrip("/")
        return base if base.endswith("/chat/completions") else f"{base}/chat/completions"

    def key(self) -> str | None:
        """The API key, from the environment. It stays in this process's memory."""
        if self.api_key_env is None:
            return None
        key = os.environ.get(self.api_key_env, "").strip()
        if not key:
            raise UserError(f"the judge's key is missing: set the environment variable {self.api_key_env}")
        return key

    def body(self, messages: Messages) -> dict[str, Any]:
        """The request."""
        body: dict[str, Any] = {"model": self.model, "messages": messages}
        if self.temperature != "default":
            body["temperature"] = self.temperature
        if self.max_tokens:
            body["max_tokens"] = self.max_tokens
        if self.response_format != "off":
            body["response_format"] = {"type": self.response_format}
        return body | dict(self.extra or {})


class JudgeClient:
    """Verdicts of one endpoint. Threads may share it."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._key = endpoint.key()
        headers = {"Content-Type": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        self._http = httpx2.Client(headers=headers, timeout=endpoint.request_timeout_s)
        path = Path(endpoint.cache).expanduser() if endpoint.cache else default_path()
        self._store = JudgeStore(None if endpoint.cache == "off" else path)
        self._resume_at = 0.0  # time.monotonic(); a server that says "too many" says it to all threads
        self._jitter = random.Random()
        self._lock = threading.Lock()

    def ask(self, messages: Messages, read: Callable[[str], float]) -> float:
        """The verdict on `messages`, as `read` understands it: from the cache, or from the judge."""
        body = self._endpoint.body(messages)
        request = hashlib.sha256(json.dumps([self._endpoint.address, body], sort_keys=True).encode()).hexdigest()
        kept = self._store.get(request)
        if kept is not None:
            try:
                return read(kept)
            except NoVerdict:  # somebody wrote into the file
                raise UserError("the judge's cache holds a reply that is no verdict; delete the file") from None
        trouble = ""
        for attempt in range(self._endpoint.retries + 1):
            self._wait(attempt)
            try:
                reply = self._post(body)
                verdict = read(reply)
            except NoVerdict as error:
                trouble = f"its reply was no verdict: {error}"
                body = self._endpoint.body(reminded(messages))
            except _Passing as error:
                trouble = str(error)
                with self._lock:
                    self._resume_at = max(self._resume_at, time.monotonic() + min(error.retry_after_s, _LONGEST_WAIT_S))
            else:
                self._store.put(request, reply)
                return verdict
        raise InfrastructureError(
            f"the judge at {self._endpoint.address} gave no verdict in {self._endpoint.retries + 1} tries; {trouble}"
        )

    def close(self) -> None:
        """Close connections and the cache."""
        self._http.close()
        self._store.close()

    def _post(self, body: dict[str, Any]) -> str:
        """The content of the reply. Raises _Passing, NoVerdict, UserError or InfrastructureError."""
        deadline = time.monotonic() + self._endpoint.request_timeout_s
        raw = json.dumps(body).encode()  # plain ASCII: half a character in a text must not break the request
        try:
            with self._http.stream("POST", self._endpoint.address, content=raw) as response:
                content = _read(response, deadline)
        except httpx2.InvalidURL as error:
            raise UserError(f"the judge's url {self._endpoint.url} is not an address ({error})") from None
        except httpx2.HTTPError as error:
            raise _Passing(self._hidden(f"{type(error).__name__} {error}".strip())) from None
        if response.status_code == 200:
            return _content(content)
        said = self._hidden(f"HTTP {response.status_code}: {' '.join(content.decode('utf-8', 'replace').split())}")
        if response.status_code in _PASSING:
            raise _Passing(said, _retry_after(response.headers.get("Retry-After")))
        if response.status_code in _TO_MEND or response.is_redirect:
            raise UserError(
                f"the judge at {self._endpoint.address} refuses every request ({said}); check url, model and the key"
            )
        # E.g. an answer that is too long for the judge. Asking the same again would not help.
        raise InfrastructureError(f"the judge at {self._endpoint.address} refused a request ({said})")

    def _wait(self, attempt: int) -> None:
        """Backoff before a further attempt, then the server's own wish, then the pace that the recipe allows."""
        if attempt:
            longest = min(self._endpoint.backoff_s * 2 ** (attempt - 1), _LONGEST_WAIT_S)
            time.sleep(longest * self._jitter.uniform(0.75, 1.25))
        if (pause := self._resume_at - time.monotonic()) > 0:
            time.sleep(pause)
        if self._endpoint.requests_per_minute:
            time.sleep(self._store.reserve(self._endpoint.address, 60 / self._endpoint.requests_per_minute))

    def _hidden(self, text: str) -> str:
        """A text of the server's for a message, cut, and without the key, should it have repeated it."""
        if self._key:
            text = text.replace(self._key, "***")
        return text if len(text) <= 300 else text[:297] + "..."


class _Passing(Exception):  # noqa: N818 (an event, handled by the client)
    """Something that may be over at the next attempt."""

    def __init__(self, what: str, retry_after_s: float = 0.0) -> None:
        super().__init__(what)
        self.retry_after_s = retry_after_s


def _read(response: httpx2.Response, deadline: float) -> bytes:
    """The body. A server that sends byte by byte, or without end, is cut off: httpx's timeouts are for single reads."""
    content = bytearray()
    for part in response.iter_bytes():
        content += part
        if len(content) > _LARGEST_REPLY:
            raise _Passing(f"a reply of more than {_LARGEST_REPLY} bytes")
        if time.monotonic() > deadline:
            raise _Passing("a reply that did not end in time")
    return bytes(content)


def _content(raw: bytes) -> str:
    """The text of the first choice of a chat completion."""
    try:
        content = json.loads(raw)["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError, RecursionError):
        raise NoVerdict("it is not a chat completion") from None
    if not isinstance(content, str):
        raise NoVerdict("it has no text")
    return content.encode(errors="replace").decode()  # half a character cannot be kept in the cache


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
