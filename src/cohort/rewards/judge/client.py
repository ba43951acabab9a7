"""Asks an OpenAI-compatible endpoint, politely and stubbornly: paced, cached, retried with backoff.

Nothing that goes wrong here is a score. What passes (a lost connection, 429, 5xx, a reply that is no verdict) is tried
again and then an InfrastructureError; what a person must mend (a wrong key, a wrong model) is a UserError.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cohort.rewards.judge.post import Passing, Post
from cohort.rewards.judge.prompt import Messages, NoVerdict, reminded
from cohort.rewards.judge.store import JudgeStore, default_path
from cohort.types import InfrastructureError, UserError

_LARGEST_REPLY = 1 << 20  # bytes


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
        key, timeout_s = endpoint.key(), endpoint.request_timeout_s
        self._post = Post("judge", endpoint.address, key, timeout_s, _LARGEST_REPLY, endpoint.backoff_s)
        path = Path(endpoint.cache).expanduser() if endpoint.cache else default_path()
        self._store = JudgeStore(None if endpoint.cache == "off" else path)

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
            self._post.wait(attempt)
            if pace := self._endpoint.requests_per_minute:
                time.sleep(self._store.reserve(self._endpoint.address, 60 / pace))
            try:
                reply = _content(self._post(body))
                verdict = read(reply)
            except NoVerdict as error:
                trouble = f"its reply was no verdict: {error}"
                body = self._endpoint.body(reminded(messages))
            except Passing as error:
                trouble = str(error)
            else:
                self._store.put(request, reply)
                return verdict
        raise InfrastructureError(
            f"the judge at {self._endpoint.address} gave no verdict in {self._endpoint.retries + 1} tries; {trouble}"
        )

    def close(self) -> None:
        """Close connections and the cache."""
        self._post.close()
        self._store.close()


def _content(raw: bytes) -> str:
    """The text of the first choice of a chat completion."""
    try:
        content = json.loads(raw)["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError, RecursionError):
        raise NoVerdict("it is not a chat completion") from None
    if not isinstance(content, str):
        raise NoVerdict("it has no text")
    return content.encode(errors="replace").decode()  # half a character cannot be kept in the cache
