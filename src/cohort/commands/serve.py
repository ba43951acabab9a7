"""`cohort serve`: a model, or what a run has trained, behind an OpenAI-compatible endpoint."""

from __future__ import annotations

import queue
import secrets
import time
import traceback
import warnings
from collections.abc import Sequence
from concurrent.futures import InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cohort.commands.model import load_model
from cohort.commands.place import full_path
from cohort.commands.sample import stage_of
from cohort.engine.engine import Engine
from cohort.environments.endpoint.app import Call, Server
from cohort.environments.endpoint.talk import Talk
from cohort.environments.endpoint.wire import UNFORCED, ApiError, Asked, Chat
from cohort.listening import is_alone, listen
from cohort.machine import quiet_libraries
from cohort.seeds import derive_seed
from cohort.train.place import where_trained
from cohort.types import Completion, SampleRequest, Sampling
from cohort.views.console import Console

LEGACY, USUAL, CONTEXT = 16, 4096, 1 << 15  # most tokens where nothing is said: of /completions, of a chat, of a model


@dataclass(slots=True)
class Desk:
    """The one `Session` of a server, and the `Live` of its engine: takes requests in, and has them decoded together.
    A request that is not done after `timeout_s` ends as if it had reached its length; more than `most` at once are
    refused.
    """

    name: str
    engine: Engine
    talk: Talk
    sampling: Sampling  # where a request says nothing
    timeout_s: float
    most: int
    inbox: queue.SimpleQueue[tuple[SampleRequest, Call]] = field(default_factory=queue.SimpleQueue)
    calls: dict[int, tuple[Call, float]] = field(default_factory=dict)  # in the engine: each with its deadline
    number: int = 0

    def prepare(self, asked: Asked) -> Call:
        """See `Session`."""
        if asked.model != self.name:
            raise ApiError(404, f"there is no model {asked.model!r}: it is {self.name!r}", "model_not_found", "model")
        if getattr(asked, "tool_choice", None) == "required":
            warnings.warn(f"a request has tool_choice = 'required'; {UNFORCED}", stacklevel=1)
        if self.inbox.qsize() + len(self.calls) >= self.most:
            raise ApiError(429, f"{self.most} requests are under way: try again later", "overloaded")
        tokens, new = self.talk.tokens(asked)
        limit = self.engine.policy.max_context or CONTEXT
        room, usual = limit - len(tokens), self.sampling.max_tokens if isinstance(asked, Chat) else LEGACY
        longest = min(room, usual) if asked.longest is None else asked.longest
        if room < max(longest, 1):
            raise ApiError(
                400, f"the model has {limit} positions, and {len(tokens)} tokens of the prompt with {max(longest, 1)} "
                "to come are more", "context_length_exceeded", "max_tokens",
            )  # fmt: skip
        given = {name: getattr(asked, name) for name in ("temperature", "top_p", "top_k", "min_p")}
        own = {name: max(value, 0) for name, value in given.items() if value is not None}  # top_k = -1 is off, too
        stop = (*self.sampling.stop, *asked.stops)
        return Call(asked, tokens, new, replace(self.sampling, max_tokens=longest, stop=stop, **own))

    def submit(self, call: Call) -> None:
        """See `Session`."""
        self.number += 1
        seed = secrets.randbits(63) if call.asked.seed is None else derive_seed(call.asked.seed, "serve")
        self.inbox.put((SampleRequest(self.number, call.tokens, call.asked.n, seed, call.sampling), call))

    def work(self) -> None:
        """Decode whatever comes in, for ever."""
        while True:
            first = self._taken(*self.inbox.get())
            try:
                for request, completions in self.engine.sample([first], self):
                    self._finish(request, completions)
            except Exception as error:  # of one request, as far as anybody can know: the others are told, and try again
                traceback.print_exc()
                for call, _ in self.calls.values():
                    with suppress(InvalidStateError):
                        call.done.set_exception(ApiError(500, f"decoding failed: {type(error).__name__}: {error}"))
                self.calls.clear()

    def more(self) -> Sequence[SampleRequest]:
        """See `Live`."""
        found = []
        with suppress(queue.Empty):
            while True:
                found.append(self._taken(*self.inbox.get_nowait()))
        return found

    def ends(self, request: SampleRequest, member: int, tokens: Any) -> bool:
        """See `Live`."""
        call, deadline = self.calls[request.key]
        if call.watch is not None and not call.gone:
            call.watch(member, tokens.tolist())
        return call.gone or time.monotonic() > deadline

    def _taken(self, request: SampleRequest, call: Call) -> SampleRequest:
        self.calls[request.key] = call, time.monotonic() + self.timeout_s
        return request

    def _finish(self, request: SampleRequest, completions: Sequence[Completion]) -> None:
        call, _ = self.calls.pop(request.key)
        top, warm = call.asked.top, call.sampling.temperature
        replies = []
        for one in completions:
            likely = self.engine.alternatives(call.tokens, one.tokens, top, warm) if top else None
            replies.append(self.talk.reply(call.asked, call.tokens, one, likely)[0])
        with suppress(InvalidStateError):  # its client has gone
            call.done.set_result(tuple(replies))


def open_desk(model: str, name: str | None, rows: int, timeout_s: float) -> Desk:
    """A model with its tokenizer, asked as the recipe of its run samples, where it is one."""
    quiet_libraries()
    model = full_path(model)
    with where_trained(model):
        stage = stage_of(model, Path(model, "recipe.toml"), {})
        policy = load_model(model, compute=stage.policy.compute, device=stage.policy.device)
        policy.refuse_classifier()
    usual = stage.rollout.sampling() if Path(model, "recipe.toml").is_file() else Sampling(USUAL)
    talk = Talk(policy.tokenizer, policy.eos_ids, stage.task.template_args)
    return Desk(name or Path(model).name, Engine(policy, rows), talk, usual, timeout_s, 16 * rows)


def serve(model: str, host: str, port: int, name: str | None, rows: int, timeout_s: float) -> None:
    """Serve until Ctrl-C. On this machine alone anybody who has it may ask; on another address only who has the key
    that is said once. Raises `UserError` for an address or a port that cannot be had.
    """
    console, bound = Console(), listen(host, port)  # before a model is loaded, which takes longer
    key, desk = "" if is_alone(host) else f"sk-{secrets.token_urlsafe(32)}", open_desk(model, name, rows, timeout_s)

    def session(path: str, given: str) -> Desk:
        if path:
            raise ApiError(404, "the API is at /v1")
        if key and not secrets.compare_digest(given.encode(), key.encode()):
            raise ApiError(401, "this is not the key that `cohort serve` has printed", "invalid_api_key")
        return desk

    server = Server(session, host, bound)
    try:
        console.plain(f"cohort serve: {server.url}/v1  model {desk.name}\n")
        console.plain(f"key (said once): {key}\n" if key else "this machine alone, any key\n")
        console.plain("Ctrl-C ends it\n")
        with suppress(KeyboardInterrupt):
            desk.work()
    finally:
        server.close()
