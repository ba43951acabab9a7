"""Plays prompts to their end with agents: each rollout has a base URL and a key of its own, where an agent asks.

All agents go on until each of them waits for an answer or has ended; then all that they ask is sampled together, in the
order of prompts and members. So which rows share a batch never depends on how long an agent took, and with agents that
do the same again a run can be repeated bit for bit. What a call draws is derived from its rollout's seed and its own
tokens.
"""

from __future__ import annotations

import secrets
import threading
import time
import warnings
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from cohort.environments.endpoint.agents import Agent, Outcome, Task, Way, outcome_of
from cohort.environments.endpoint.app import Call, Server
from cohort.environments.endpoint.rows import Answered, rollout_of, rows_of, stem_of
from cohort.environments.endpoint.talk import Said, Talk
from cohort.environments.endpoint.wire import UNFORCED, ApiError, Asked
from cohort.environments.episodes import Played, Rules
from cohort.environments.foreign_code import HangsError
from cohort.policy.text import completion_reader
from cohort.seeds import derive_seed
from cohort.types import (
    Completion,
    Finish,
    InfrastructureError,
    Prompt,
    Rollout,
    Sampler,
    SampleRequest,
    UserError,
    content_id,
)
from cohort.wording import counted, shorten

NAME = "policy"  # of the model, whatever an agent calls it


class Endpoint:
    """The server of a world, which starts when it is first asked for, and who is behind each of its paths."""

    def __init__(self, agent: Agent, retries: int) -> None:
        self.agent, self.retries = agent, retries
        self._server: Server | None = None
        self._open: dict[str, _Episode] = {}
        self._closed: deque[str] = deque(maxlen=4096)
        self._said: set[str] = set()

    def enter(self, episode: _Episode) -> Way:
        """A base URL and a key for a rollout."""
        if self._server is None:
            self._server = Server(self._session)
        path, key = secrets.token_hex(8), f"sk-{secrets.token_hex(16)}"
        self._open[path] = episode
        episode.path, episode.key = path, key
        seed = derive_seed(episode.request.seed, "environment", episode.member)
        return Way(f"{self._server.url}/{path}/v1", key, seed, NAME)

    def leave(self, path: str) -> None:
        """The rollout is over: who still calls is told so."""
        if self._open.pop(path, None) is not None:
            self._closed.append(path)

    def warn(self, what: str) -> None:
        """Say something once."""
        if what not in self._said:
            self._said.add(what)
            warnings.warn(what, stacklevel=2)

    def close(self) -> None:
        """End the server."""
        if self._server is not None:
            self._server.close()
        self._server = None

    def _session(self, path: str, key: str) -> _Episode:
        episode = self._open.get(path)
        if episode is not None and secrets.compare_digest(key.encode(), episode.key.encode()):
            return episode
        if episode is None and path in self._closed:
            self.warn(f"the agent {self.agent.name} called after its rollout had ended: it leaves something running")
            raise ApiError(410, "this rollout has ended: nothing is answered any more", "rollout_over")
        raise ApiError(401, "this is not the key of the rollout behind this URL", "invalid_api_key")


@dataclass(eq=False, slots=True)
class _Episode:
    """A rollout on its way, and a `Session` of the server. `over` is why nothing more is answered."""

    request: SampleRequest
    prompt: Prompt
    member: int
    talk: Talk
    play: AgentPlay
    tries: int = 0
    name: str = NAME
    path: str = ""
    key: str = ""
    task: Task = field(default_factory=Task)
    calls: list[Answered] = field(default_factory=list)
    said: list[Said] = field(default_factory=list)
    pending: list[Call] = field(default_factory=list)
    asked: Counter[tuple[int, ...]] = field(default_factory=Counter)
    over: Finish | None = None
    outcome: Outcome | BaseException | None = None
    since: float = 0.0  # the agent is at work, and nobody's answer is waited for

    def prepare(self, asked: Asked) -> Call:
        """See `Session`: within what is left of the rollout's calls and tokens."""
        self.play.refuse(asked, self.request)
        tokens, new = self.talk.tokens(asked, self.said)
        rules, whole, count = self.play.rules, self.request.sampling, asked.n
        if self.over is None and len(self.calls) + count > rules.max_turns:
            self.over = "tool"
        rows = rows_of(self.calls)
        used = sum(len(row.tokens) for row in rows) - (len(self.calls[0].prompt) if rows else 0)
        on = max((len(row.tokens) for row in rows if tokens[: len(row.tokens)] == tuple(row.tokens)), default=0)
        added = len(tokens) - on if rows else 0
        left = (whole.max_tokens - used - added - (count - 1) * len(tokens)) // count
        limit = min(left, self.play.context - len(tokens), asked.longest or left, rules.max_turn_tokens or left)
        if self.over is None and limit < 1:
            self.over = "length"
        if self.over is not None:
            which = {"tool": f"calls (environment.max_turns = {rules.max_turns})"}
            why = which.get(self.over, f"tokens (rollout.max_tokens = {whole.max_tokens}, or the model's context)")
            raise ApiError(400, f"this rollout has had all its {why}", "context_length_exceeded")
        return Call(asked, tokens, new, replace(whole, max_tokens=limit, stop=(*whole.stop, *asked.stops)))

    def submit(self, call: Call) -> None:
        """See `Session`."""
        with self.play.still:
            if self.outcome is not None:
                call.done.set_exception(ApiError(410, "this rollout has ended", "rollout_over"))
                return
            self.pending.append(call)
            self.play.still.notify()

    def answer(self, call: Call, completions: Sequence[Completion]) -> None:
        """What was sampled for a call is remembered and on its way to the agent."""
        asked, replies = call.asked, []
        self.asked[call.tokens] += 1
        read = completion_reader(self.talk.tokenizer, call.sampling.stop, self.talk.eos_ids)
        for completion in completions:
            top = self.play.top(call, completion) if asked.top else None
            reply, said = self.talk.reply(asked, call.tokens, completion, top)
            replies.append(reply)
            self.calls.append(Answered(call.tokens, call.new, completion, read(completion)))
            self.said += [said] if said is not None else []
        with self.play.still:
            self.since = time.monotonic()
            self.pending.remove(call)
        with suppress(Exception):  # its client has gone
            call.done.set_result(tuple(replies))

    def end(self, outcome: Outcome | BaseException) -> None:
        """The agent has come to something, or is given up: whatever it still asks is refused."""
        with self.play.still:
            if self.outcome is not None:
                return
            self.outcome = outcome
            if isinstance(outcome, BaseException):
                self.task.end()
            for call in self.pending:
                with suppress(Exception):
                    call.done.set_exception(ApiError(410, "this rollout has ended", "rollout_over"))
            self.play.still.notify()
        self.play.endpoint.leave(self.path)


@dataclass(slots=True)
class _Group:
    """The rollouts of a request, as they end."""

    request: SampleRequest
    episodes: dict[int, _Episode] = field(default_factory=dict)  # those that have ended, by member
    lost: bool = False


@dataclass(slots=True)
class AgentPlay:
    """A `Player` whose rollouts are those of agents."""

    endpoint: Endpoint
    sampler: Sampler
    rules: Rules
    talk: Talk
    still: threading.Condition = field(default_factory=threading.Condition)

    def __call__(
        self, requests: Sequence[SampleRequest], prompts: Mapping[int, Prompt]
    ) -> Iterator[tuple[SampleRequest, Played]]:
        """See `Player`. Raises UserError where the agent's own code is broken."""
        groups = {request.key: _Group(request) for request in requests}
        waiting = deque(
            _Episode(request, prompts[request.key], member, self.talk, self)
            for request in requests
            for member in range(request.count)
        )
        running: list[_Episode] = []
        try:
            while waiting or running:
                while waiting and len(running) < self.rules.concurrency:
                    running.append(waiting.popleft())
                    self._begin(running[-1])
                self._wait(running)
                ended = [one for one in running if one.outcome is not None]
                running = [one for one in running if one.outcome is None]
                for one in ended:
                    group = groups[one.request.key]
                    if group.lost:
                        continue
                    if (failed := self._failure(one)) is None:
                        group.episodes[one.member] = one
                        if len(group.episodes) == group.request.count:
                            yield self._whole(group)
                    elif one.tries < self.endpoint.retries and not isinstance(failed, HangsError):
                        waiting.appendleft(
                            _Episode(one.request, one.prompt, one.member, self.talk, self, tries=one.tries + 1)
                        )
                    else:
                        group.lost = True
                        for other in (other for other in running if other.request is group.request):
                            other.end(failed)
                        waiting = deque(other for other in waiting if other.request is not group.request)
                        yield group.request, failed
                if not ended:  # else others begin first, so that they ask with the rest
                    self._sample(running)
        finally:
            for one in running:
                one.end(InfrastructureError("the run has stopped"))

    @property
    def context(self) -> int:
        """The most tokens that the model takes, where the sampler knows the model."""
        policy = getattr(self.sampler, "policy", None)
        return getattr(policy, "max_context", None) or 2**31

    def refuse(self, asked: Asked, request: SampleRequest) -> None:
        """Refuse what this sampler cannot do, and say what the recipe decides in place of the agent."""
        if asked.top and not hasattr(self.sampler, "alternatives"):
            raise ApiError(400, "this sampler knows the log-probs of what it draws alone", param="top_logprobs")
        if getattr(asked, "tool_choice", None) == "required":
            self.endpoint.warn(f"the agent {self.endpoint.agent.name} requires calls of tools; {UNFORCED}")
        for name in ("temperature", "top_p", "top_k", "min_p"):
            wanted, there = getattr(asked, name), getattr(request.sampling, name)
            if wanted is not None and wanted != there:
                self.endpoint.warn(
                    f"the agent {self.endpoint.agent.name} asks for {name} = {wanted:g}; what is trained on is sampled "
                    f"as the recipe says ({there:g})"
                )

    def top(self, call: Call, completion: Completion) -> Any:
        """The likeliest tokens at each place of a completion."""
        sampler: Any = self.sampler
        return sampler.alternatives(call.tokens, completion.tokens, call.asked.top, call.sampling.temperature)

    def _begin(self, episode: _Episode) -> None:
        way = self.endpoint.enter(episode)
        episode.since = time.monotonic()

        def work() -> None:
            try:
                answered = lambda: len(episode.calls)  # noqa: E731
                episode.end(outcome_of(self.endpoint.agent, episode.prompt, way, episode.task, answered))
            except BaseException as error:
                episode.end(error)

        threading.Thread(target=work, name=f"agent {episode.path}", daemon=True).start()

    def _wait(self, running: Sequence[_Episode]) -> None:
        """Until every agent waits for an answer or has ended; one that does neither in time is given up."""
        limit = self.rules.timeout_s or float("inf")
        while True:
            with self.still:
                for one in running:
                    one.pending = [call for call in one.pending if not call.gone]
                busy = [one for one in running if one.outcome is None and not one.pending]
                if not busy:
                    return
                left = min(one.since for one in busy) + limit - time.monotonic()
                if left > 0:
                    self.still.wait(min(left, 0.5))
                    continue
            for one in busy:
                if time.monotonic() - one.since >= limit:
                    why = f"the agent {self.endpoint.agent.name} neither asked nor ended within {limit:g} s"
                    one.end(HangsError(f"{why} (environment.timeout_s), asked {shorten(one.prompt.question)}"))

    def _failure(self, one: _Episode) -> InfrastructureError | None:
        """What the world did to a rollout; UserError where it is the agent's own fault."""
        over = one.over is not None and bool(one.calls)  # it had no more to ask, whatever it made of that
        if isinstance(one.outcome, BaseException) and not over:
            if isinstance(one.outcome, InfrastructureError):
                return one.outcome
            raise one.outcome
        name, question = self.endpoint.agent.name, shorten(one.prompt.question)
        if one.over is not None and not one.calls:
            raise UserError(f"the first call of the agent {name}, asked {question}, leaves no room for an answer")
        if not one.calls:
            raise UserError(
                f"the agent {name}, asked {question}, ended without a call: does it ask its base URL (OPENAI_BASE_URL)?"
            )
        return None

    def _whole(self, group: _Group) -> tuple[SampleRequest, tuple[Rollout, ...]]:
        """The request with the tokens that all calls of the group begin with, and the rollouts that follow them."""
        episodes = [group.episodes[member] for member in range(group.request.count)]
        stem = stem_of([row for one in episodes for row in rows_of(one.calls)])
        if not stem:
            raise UserError(
                f"the calls of the agent {self.endpoint.agent.name} do not begin alike, and a group is learnt behind "
                "what they share: begin every conversation with the same message, or every text with the same words"
            )
        return replace(group.request, tokens=stem), tuple(self._rollout(one, len(stem)) for one in episodes)

    def _rollout(self, one: _Episode, stem: int) -> Rollout:
        done = one.outcome if isinstance(one.outcome, Outcome) else Outcome()
        last, count, rewards = one.calls[-1].completion.finish, len(one.calls), done.rewards
        if len(rewards) not in (0, 1, count):
            said = f"{counted(len(rewards), 'reward')} for {counted(count, 'call')}"
            raise UserError(f"the agent {self.endpoint.agent.name} returned {said}: one, or one for each call")
        paid = rewards if len(rewards) == count else (*(None,) * (count - len(rewards)), *rewards)
        finish: Finish = one.over or ("error" if done.crashed else "length" if last == "length" else "stop")
        return rollout_of(one.calls, stem, finish, done.text, paid)

    def _sample(self, running: Iterable[_Episode]) -> None:
        """Answer everything that is asked."""
        asking = [(one, call) for one in running for call in sorted(one.pending, key=lambda call: call.tokens)]
        parts: list[tuple[SampleRequest, list[tuple[_Episode, Call]]]] = []
        by_prompt: dict[Any, list[tuple[_Episode, Call]]] = {}
        for one, call in asking:
            by_prompt.setdefault((one.request.key, call.tokens, one.asked[call.tokens]), []).append((one, call))
        for (key, tokens, nth), of in by_prompt.items():
            whole = of[0][0].request
            seed = derive_seed(whole.seed, "call", content_id(list(tokens)), nth)
            alike = all(call.asked.n == 1 and call.sampling == of[0][1].sampling for _, call in of)
            if alike and [one.member for one, _ in of] == list(range(whole.count)):  # the prompt is computed once
                parts.append((SampleRequest(key, tokens, whole.count, seed, of[0][1].sampling), of))
                continue
            for at, (one, call) in enumerate(of):
                own = derive_seed(seed, "member", one.member, at)
                parts.append((SampleRequest(key, tokens, call.asked.n, own, call.sampling), [(one, call)]))
        requests = [replace(request, key=number) for number, (request, _) in enumerate(parts)]
        for request, completions in self.sampler.sample(requests):
            of = parts[request.key][1]
            for index, (one, call) in enumerate(of):
                one.answer(call, completions[index : index + 1] if len(of) > 1 else completions)
