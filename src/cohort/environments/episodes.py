"""From prompts to rollouts: sample a turn, let the environment answer, go on where it says something.

Token ids in, token ids out: a turn is sampled from the very ids of everything before it, and what the environment says
is encoded once, when it is said. All rollouts take their first turn, then those that go on take their second. So which
rows share a batch never depends on how long a tool took, and a run can be repeated bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

import numpy as np

from cohort.chat import text_of
from cohort.environments.dialogue import Dialogue
from cohort.environments.foreign_code import THE_WORLD, broken, in_time
from cohort.frozen_array import FrozenArray
from cohort.seeds import derive_seed
from cohort.types import (
    Completion,
    Environment,
    Finish,
    InfrastructureError,
    Message,
    Observation,
    Prompt,
    Rollout,
    Sampler,
    SampleRequest,
    Sampling,
    Turn,
    UserError,
)
from cohort.wording import one_line

Played = tuple[Rollout, ...] | InfrastructureError  # the rollouts of a group, or why it is lost


class Player(Protocol):
    """Plays prompts to their end."""

    def __call__(
        self, requests: Sequence[SampleRequest], prompts: Mapping[int, Prompt]
    ) -> Iterator[tuple[SampleRequest, Played]]:
        """Yield each request with its `count` rollouts, or with the failure that lost them, in the order in which
        groups finish. `prompts` holds the prompt of every request by its key. The tokens of a request that is yielded
        are those that its rollouts follow.
        """
        ...


class SingleTurn:
    """The trivial environment: it says nothing, so the first reply is the last."""

    def reset(self, prompt: Prompt, seed: int) -> None:
        """There is no state."""

    def step(self, state: None, reply: str) -> Observation:
        """The rollout is over."""
        return Observation()


@dataclass(frozen=True, slots=True)
class OneTurn:
    """Rollouts of one completion each: what `Episodes` in a `SingleTurn` environment come to, at no cost. `read` gives
    a completion as text.
    """

    sampler: Sampler
    read: Callable[[Completion], str]

    def __call__(
        self, requests: Sequence[SampleRequest], prompts: Mapping[int, Prompt]
    ) -> Iterator[tuple[SampleRequest, Played]]:
        """See `Player`."""
        for request, completions in self.sampler.sample(requests):
            masks = [FrozenArray(np.ones(len(one.tokens), np.bool_)) for one in completions]  # all are the policy's
            yield (
                request,
                tuple(
                    Rollout(
                        one.tokens, mask, one.logprobs, one.version, one.finish, self.read(one), versions=one.versions
                    )
                    for one, mask in zip(completions, masks, strict=True)
                ),
            )


@dataclass(frozen=True, slots=True)
class Rules:
    """The limits of a rollout. `Sampling.max_tokens` bounds the whole of it, the environment's tokens included.

    `stop` are texts that end a turn, beside those of the sampling. `concurrency` rollouts are with the environment at
    the same time, each for at most `timeout_s`.
    """

    max_turns: int
    max_turn_tokens: int | None = None
    stop: tuple[str, ...] = ()
    concurrency: int = 16
    timeout_s: float | None = None


_NO_TOKENS, _NO_MASK, _NO_LOGPROBS = (FrozenArray((), dtype) for dtype in (np.int64, np.bool_, np.float32))


@dataclass(slots=True)
class _Episode:
    """A rollout on its way."""

    member: int
    state: Any
    tokens: FrozenArray = _NO_TOKENS
    mask: FrozenArray = _NO_MASK
    logprobs: FrozenArray = _NO_LOGPROBS
    turns: list[Turn] = field(default_factory=list)
    versions: list[tuple[int, int]] = field(default_factory=list)  # spans of tokens that the same weights drew
    finish: Finish | None = None
    asked: tuple[Completion, str, Future[Observation]] | None = None  # its newest turn, until that is answered

    def add(self, tokens: Sequence[int], logprobs: Sequence[float], own: bool) -> None:
        """Append tokens, the policy's own or not."""
        self.tokens += tokens
        self.logprobs += logprobs
        self.mask += (own,) * len(tokens)


@dataclass(slots=True)
class _Group:
    """The rollouts of a request. When the world fails one of them, `lost` says so, and none counts."""

    request: SampleRequest
    episodes: list[_Episode]
    lost: InfrastructureError | None = None
    sampling: int = 0  # rollouts whose turn has not come back yet

    @property
    def answered(self) -> bool:
        """Whether nothing is sampled any more, and the environment has answered everything."""
        return not self.sampling and all(e.asked is None or e.asked[2].done() for e in self.episodes)

    @property
    def going_on(self) -> list[_Episode]:
        """The rollouts that take another turn."""
        return [] if self.lost is not None else [e for e in self.episodes if e.finish is None]


@dataclass(frozen=True, slots=True)
class Episodes:
    """Rollouts of several turns in an environment. Implements `Player`. `read` gives a completion as text."""

    sampler: Sampler
    environment: Environment
    dialogue: Dialogue
    read: Callable[[Completion], str]
    rules: Rules

    def __call__(
        self, requests: Sequence[SampleRequest], prompts: Mapping[int, Prompt]
    ) -> Iterator[tuple[SampleRequest, Played]]:
        """See `Player`. Raises UserError when the environment's own code is broken."""
        begun = [self._begin(request, prompts[request.key]) for request in requests]
        yield from ((group.request, group.lost) for group in begun if group.lost is not None)
        # An environment may hold something for a rollout.
        end: Callable[[Any], None] = getattr(self.environment, "end", lambda _: None)
        groups = [group for group in begun if group.lost is None]
        threads = ThreadPoolExecutor(self.rules.concurrency, thread_name_prefix="environment")
        try:
            while groups:
                for group in self._take_turn(groups, threads):
                    for episode in group.episodes:
                        end(episode.state)
                    yield group.request, group.lost or tuple(map(self._rollout, group.episodes))
                groups = [group for group in groups if group.going_on]
        finally:
            for episode in (episode for group in groups for episode in group.episodes):  # where it was broken off
                end(episode.state)
            threads.shutdown(wait=False, cancel_futures=True)

    def _begin(self, request: SampleRequest, prompt: Prompt) -> _Group:
        seeds = [derive_seed(request.seed, "environment", member) for member in range(request.count)]
        reset = self.environment.reset
        try:
            states = [self._guarded("reset", partial(reset, prompt, seed)) for seed in seeds]
        except InfrastructureError as error:
            return _Group(request, [], lost=error)
        return _Group(request, [_Episode(member, state) for member, state in enumerate(states)])

    def _take_turn(self, groups: Sequence[_Group], threads: ThreadPoolExecutor) -> Iterator[_Group]:
        """One turn of all rollouts that go on. Yields every group that is then over, as soon as it is."""
        asking = [each for group in groups for each in self._requests(group)]
        requests = [replace(request, key=key) for key, (request, _, _) in enumerate(asking)]
        playing = list(groups)
        for request, completions in self.sampler.sample(requests):
            _, group, episodes = asking[request.key]
            for episode, completion in zip(episodes, completions, strict=True):
                text = self.read(completion)
                whole = completion.finish == "stop"  # what is cut off is not answered
                answer = threads.submit(self._step, episode.state, text) if whole else _nothing()
                episode.asked = completion, text, answer
            group.sampling -= len(completions)
            answered = [one for one in playing if one.answered]
            playing = [one for one in playing if not one.answered]
            yield from self._heard(answered)
        yield from self._heard(playing)

    def _requests(self, group: _Group) -> list[tuple[SampleRequest, _Group, list[_Episode]]]:
        """What must be sampled for the next turn: the whole group at once for the first, with its own seeds."""
        whole, going_on = group.request, group.going_on
        group.sampling = len(going_on)
        turn = len(going_on[0].turns)
        if not turn:
            return [(replace(whole, sampling=self._limited(whole, 0)), group, going_on)]
        return [
            (
                SampleRequest(
                    key=whole.key,
                    tokens=whole.tokens + episode.tokens,
                    count=1,
                    seed=derive_seed(whole.seed, "turn", turn, episode.member),
                    sampling=self._limited(whole, len(episode.tokens)),
                ),
                group,
                [episode],
            )
            for episode in going_on
        ]

    def _limited(self, request: SampleRequest, used: int) -> Sampling:
        left = request.sampling.max_tokens - used
        longest = left if self.rules.max_turn_tokens is None else min(left, self.rules.max_turn_tokens)
        return replace(request.sampling, max_tokens=longest, stop=(*request.sampling.stop, *self.rules.stop))

    def _heard(self, groups: Sequence[_Group]) -> Iterator[_Group]:
        """Wait for what the environment says to these groups and take it in. Yields the groups that are over."""
        for group in groups:
            try:
                for episode in group.going_on:
                    self._take_in(episode, group.request.sampling.max_tokens)
            except InfrastructureError as error:
                group.lost = error
            if not group.going_on:
                yield group

    def _take_in(self, episode: _Episode, max_tokens: int) -> None:
        assert episode.asked is not None
        completion, text, future = episode.asked
        observation, episode.asked = future.result(), None
        start = len(episode.tokens)
        episode.add(completion.tokens, completion.logprobs, own=True)
        end = len(episode.tokens)
        for at, version in completion.versions or ((0, completion.version),):
            if not episode.versions or episode.versions[-1][1] != version:
                episode.versions.append((start + at, version))
        said = self.dialogue.following(completion.tokens[-1], observation.messages) if observation.messages else []
        if not said:
            episode.finish = completion.finish
        elif len(episode.turns) + 1 == self.rules.max_turns:
            episode.finish = "tool"
        elif end + len(said) >= max_tokens:  # no room for another token
            episode.finish = "length"
        else:
            episode.add(said, [0.0] * len(said), own=False)
        unseen = episode.finish is not None
        episode.turns.append(Turn(start, end, text, replace(observation, messages=()) if unseen else observation))

    def _rollout(self, episode: _Episode) -> Rollout:
        assert episode.finish is not None
        return Rollout(
            tokens=episode.tokens,
            mask=episode.mask,
            logprobs=episode.logprobs,
            version=episode.versions[0][1],
            finish=episode.finish,
            text=self.dialogue.final(episode.turns),
            turns=tuple(episode.turns),
            versions=tuple(episode.versions) if len(episode.versions) > 1 else (),
        )

    def _step(self, state: Any, reply: str) -> Observation:
        said = self._guarded("step", partial(self.environment.step, state, reply))
        if not isinstance(said, Observation):
            raise UserError(f"the environment's step returned {type(said).__name__}; it must return an Observation")
        given = said.messages if isinstance(said.messages, (tuple, list)) else (None,)
        messages = [message for message in map(_message, given) if message is not None]
        if len(messages) < len(given):
            raise UserError(
                f"the environment's step returned Observation({said.messages!r:.200}); its messages are a tuple of "
                '{"role": ..., "content": ...}, both text'
            )
        return replace(said, messages=tuple(messages))

    def _guarded(self, method: str, run: Callable[[], Any]) -> Any:
        """What a method of the environment returns. Its failures are told apart as those of tools are."""
        try:
            return in_time(run, self.rules.timeout_s)
        except (InfrastructureError, UserError):
            raise
        except THE_WORLD as error:
            raise InfrastructureError(f"the environment failed: {one_line(error) or type(error).__name__}") from error
        except Exception as error:
            advice = "Mend it, or raise InfrastructureError for what may pass"
            raise broken(f"the environment's {method}", error, advice) from error


def _message(message: Any) -> Message | None:
    """A message whose content is text; None for what is none."""
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        return None
    try:
        return {**message, "content": text_of(message.get("content"))}
    except ValueError:
        return None


def _nothing() -> Future[Observation]:
    answer: Future[Observation] = Future()
    answer.set_result(Observation())
    return answer
