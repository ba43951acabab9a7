"""The OpenAI API as data: what a request may ask, and how answers, pieces of answers and errors are written.

What cannot be done is refused by name, never ignored. Fields that change nothing about an answer are taken.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from cohort.chat import text_of
from cohort.types import Message

MOST, TOP = 128, 20  # completions of a call, and likeliest tokens beside each
UNFORCED = "nothing forces the model to, so it may answer with text"  # where a request says tool_choice = "required"


class ApiError(Exception):
    """A refusal, in the shape of OpenAI's: its status, its sentence, and which parameter it is about."""

    def __init__(self, status: int, message: str, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param

    @property
    def body(self) -> dict[str, Any]:
        """The JSON of it."""
        kind = {401: "authentication_error", 404: "not_found_error", 500: "server_error", 503: "server_error"}
        said = {"message": self.message, "type": kind.get(self.status, "invalid_request_error")}
        return {"error": {**said, "param": self.param, "code": self.code}}


class _StreamOptions(BaseModel):
    include_usage: bool = False
    include_obfuscation: bool = False


class _Plain(BaseModel):
    type: Literal["text"]


class Asked(BaseModel):
    """What both routes take. `top_k` and `min_p` are extensions that vLLM has too; None: as the server's settings."""

    model_config = ConfigDict(extra="forbid")

    model: str
    n: int = Field(default=1, ge=1, le=MOST)
    max_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=-1)
    min_p: float | None = Field(default=None, ge=0, lt=1)
    stop: str | list[str] | None = Field(default=None, max_length=1000)
    seed: int | None = None
    stream: bool | None = False
    stream_options: _StreamOptions | None = None
    presence_penalty: float | None = Field(default=None, ge=0, le=0)
    frequency_penalty: float | None = Field(default=None, ge=0, le=0)
    logit_bias: dict[str, float] | None = Field(default=None, max_length=0)
    # Of these nothing depends.
    user: Any = None
    metadata: Any = None
    store: Any = None
    service_tier: Any = None
    safety_identifier: Any = None
    prompt_cache_key: Any = None

    @property
    def stops(self) -> tuple[str, ...]:
        """The texts that end a completion."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def wants_usage(self) -> bool:
        """Whether a stream ends with the counts."""
        return self.stream_options is not None and self.stream_options.include_usage

    @property
    def top(self) -> int | None:
        """How many of the likeliest tokens stand beside each token; None: no log-probs at all."""
        raise NotImplementedError

    @property
    def longest(self) -> int | None:
        """The most tokens of a completion."""
        return self.max_tokens

    @field_validator("stop")
    @classmethod
    def _some(cls, value: Any) -> Any:
        if value == "" or (isinstance(value, list) and ("" in value or len(value) > 16)):
            raise ValueError("at most 16 texts, none of them empty")
        return value


class Chat(Asked):
    """POST /chat/completions."""

    messages: list[dict[str, Any]] = Field(min_length=1)
    tools: list[dict[str, Any]] | None = None
    tool_choice: Literal["auto", "none", "required"] | None = None
    parallel_tool_calls: bool | None = None
    max_completion_tokens: int | None = Field(default=None, ge=1)
    logprobs: bool | None = False
    top_logprobs: int | None = Field(default=None, ge=0, le=TOP)
    response_format: _Plain | None = None

    @property
    def top(self) -> int | None:
        """See `Asked.top`."""
        return (self.top_logprobs or 0) if self.logprobs else None

    @property
    def longest(self) -> int | None:
        """See `Asked.longest`; the newer name comes first."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def schemas(self) -> tuple[Mapping[str, Any], ...]:
        """The tools that the model is told of."""
        return () if self.tool_choice == "none" else tuple(self.tools or ())

    @field_validator("messages")
    @classmethod
    def _told(cls, given: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The messages as chat templates take them: contents that are text."""
        found = []
        for number, message in enumerate(given):
            role, content = message.get("role"), message.get("content")
            if role not in ("system", "developer", "user", "assistant", "tool"):
                raise ValueError(f"message {number} has the role {role!r}; there are system, user, assistant and tool")
            if content is None and role != "assistant":
                raise ValueError(f"message {number} has no content")
            try:
                said = "" if content is None else text_of(content)
            except ValueError as error:
                raise ValueError(f"message {number} has a content that is no text: {error}") from None
            calls = message.get("tool_calls") or ()
            for call in calls if isinstance(calls, list | tuple) else (None,):
                inner = call.get("function") if isinstance(call, dict) else None
                if not isinstance(inner, dict) or not {"name", "arguments"} <= inner.keys():
                    raise ValueError(f"message {number} has a tool call without a function's name and arguments")
            found.append({**message, "role": "system" if role == "developer" else role, "content": said})
        return found


class Text(Asked):
    """POST /completions. A prompt is text or token ids, or a list of one such."""

    prompt: str | list[int] | list[str] | list[list[int]]
    logprobs: int | None = Field(default=None, ge=0, le=TOP)
    echo: Literal[False] | None = None
    best_of: int | None = None
    suffix: Literal[""] | None = None

    @property
    def top(self) -> int | None:
        """See `Asked.top`."""
        return self.logprobs

    @property
    def question(self) -> str | list[int]:
        """The one prompt."""
        if isinstance(self.prompt, list) and self.prompt and not isinstance(self.prompt[0], int):
            if len(self.prompt) > 1:
                raise ApiError(400, "one prompt a request, please: send several requests", param="prompt")
            return self.prompt[0]
        return self.prompt  # type: ignore[return-value]


def read(form: type[Asked], body: bytes) -> Any:
    """The request that a body holds. Raises `ApiError`, which names the parameter."""
    try:
        return form.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        param = ".".join(map(str, first["loc"]))
        if first["type"] == "json_invalid":
            raise ApiError(400, f"the body is no JSON: {first['msg']}") from None
        if first["type"] == "extra_forbidden":
            raise ApiError(400, f"Unrecognized request argument supplied: {param}", param=param) from None
        if first["type"] == "missing":
            raise ApiError(400, f"you must provide a {param} parameter", "missing_required_parameter", param) from None
        said = first["msg"].removeprefix("Value error, ")
        raise ApiError(400, f"{param} cannot be {first['input']!r:.80}: {said}", "invalid_value", param) from None


class Likely(NamedTuple):
    """A token, as text, and its log-prob; of a sampled one also those of the likeliest at its place."""

    text: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Reply:
    """One completion as it is answered: a message of the assistant, how it ended, its tokens where they are asked for,
    and how many there are.
    """

    message: Message
    finish: Literal["stop", "length", "tool_calls"]
    tokens: int
    likely: tuple[Likely, ...] | None = None


def whole(name: str, asked: Asked, replies: Sequence[Reply], prompt_tokens: int, answer: str) -> dict[str, Any]:
    """The answer to a request that does not stream; `answer` is its id."""
    kind, choices = ("chat.completion", _chat_choice) if isinstance(asked, Chat) else ("text_completion", _text_choice)
    return {
        "id": answer,
        "object": kind,
        "created": int(time.time()),
        "model": name,
        "choices": [choices(index, reply) for index, reply in enumerate(replies)],
        "usage": _usage(replies, prompt_tokens),
    }


def pieces(
    name: str, asked: Asked, replies: Sequence[Reply], prompt_tokens: int, answer: str, sent: Mapping[int, int]
) -> Iterator[dict[str, Any]]:
    """The last chunks of a stream: what of each completion was not `sent` yet, in characters, how it ended, and the
    counts.
    """
    for index, reply in enumerate(replies):
        rest = str(reply.message["content"] or "")[sent.get(index, 0) :]
        if isinstance(asked, Chat):
            calls = reply.message.get("tool_calls")
            said = {"content": rest} if rest or not calls else {}
            delta = said | ({"tool_calls": [{"index": at, **call} for at, call in enumerate(calls)]} if calls else {})
            choice = {"index": index, "delta": delta, "logprobs": _chat_logprobs(reply), "finish_reason": None}
            last = {"index": index, "delta": {}, "logprobs": None, "finish_reason": reply.finish}
            yield chunk(name, asked, answer, choice)
        else:
            last = _text_choice(index, reply) | {"text": rest}
        yield chunk(name, asked, answer, last)
    if asked.wants_usage:
        yield {**chunk(name, asked, answer), "usage": _usage(replies, prompt_tokens)}


def piece(name: str, asked: Asked, answer: str, index: int, text: str | None) -> dict[str, Any]:
    """A chunk with some text of a completion; None: with nothing but that it begins."""
    if not isinstance(asked, Chat):
        return chunk(name, asked, answer, {"index": index, "text": text or "", "logprobs": None, "finish_reason": None})
    delta = {"role": "assistant", "content": ""} if text is None else {"content": text}
    return chunk(name, asked, answer, {"index": index, "delta": delta, "logprobs": None, "finish_reason": None})


def chunk(name: str, asked: Asked, answer: str, *choices: Mapping[str, Any]) -> dict[str, Any]:
    """A chunk of a stream."""
    kind = "chat.completion.chunk" if isinstance(asked, Chat) else "text_completion"
    return {"id": answer, "object": kind, "created": int(time.time()), "model": name, "choices": list(choices)}


def _usage(replies: Sequence[Reply], prompt: int) -> dict[str, int]:
    own = sum(reply.tokens for reply in replies)
    return {"prompt_tokens": prompt, "completion_tokens": own, "total_tokens": prompt + own}


def _chat_choice(index: int, reply: Reply) -> dict[str, Any]:
    message = {"refusal": None, **reply.message}
    return {"index": index, "message": message, "logprobs": _chat_logprobs(reply), "finish_reason": reply.finish}


def _chat_logprobs(reply: Reply) -> dict[str, Any] | None:
    if reply.likely is None:
        return None

    def written(text: str, logprob: float) -> dict[str, Any]:
        return {"token": text, "logprob": logprob, "bytes": list(text.encode("utf-8", "replace"))}

    content = [
        written(one.text, one.logprob) | {"top_logprobs": [written(*other) for other in one.top]}
        for one in reply.likely
    ]
    return {"content": content, "refusal": None}


def _text_choice(index: int, reply: Reply) -> dict[str, Any]:
    found: dict[str, Any] | None = None
    if reply.likely is not None:
        texts = [one.text for one in reply.likely]
        found = {
            "tokens": texts,
            "token_logprobs": [one.logprob for one in reply.likely],
            "top_logprobs": [dict(one.top) for one in reply.likely],
            "text_offset": [sum(map(len, texts[:at])) for at in range(len(texts))],
        }
    return {"index": index, "text": reply.message["content"], "logprobs": found, "finish_reason": reply.finish}
