"""The types that cross borders, in the order in which data flows.

prompt -> group of rollouts -> rewards -> advantages -> batch -> update -> record. Everything here is frozen: a stage
makes a new value rather than changing one. Nothing here imports torch, so reward workers start in milliseconds.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    import torch

Message = Mapping[str, Any]  # {"role": ..., "content": ...}, as chat templates take it
Finish = Literal["stop", "length", "tool", "error"]
Disposition = Literal["trained", "zero_std", "truncated", "quarantined", "stale", "error"]
Spans = tuple[tuple[int, int], ...]  # (index of the first token, version of the weights) of each, where they differ
SECOND = "second_score"  # in `extra` of a completion that was scored twice: what differed from the first
RIGHT = 0.5  # a score of at least this counts as a right answer


class UserError(Exception):
    """Something the person can mend. The message says what happened and what to do; it is shown without a traceback."""


class PausedError(UserError):
    """A detector has paused the run, as its recipe asks: it is saved, and may go on. Exit code 3."""


class UnreadableError(UserError):
    """What a command was told to read is not there or cannot be read: exit code 2, as for a wrong option."""


class InfrastructureError(Exception):
    """The world failed (a server, a sandbox, a timeout). Never a reward: retried, then the group is dropped."""


def content_id(*parts: Any) -> str:
    """16 hex digits that depend on the content alone (JSON with sorted keys, BLAKE2b)."""
    canonical = json.dumps(parts, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.blake2b(canonical.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def inside(row: Mapping[str, Any], name: str) -> Any:
    """What a row has under a name: a column, or with dots what lies inside of one, as "reward_model.ground_truth" and
    "answers.text.0" do. Raises LookupError where there is no such thing.
    """
    if name in row:
        return row[name]
    found: Any = row
    for part in name.split("."):
        if isinstance(found, (list, tuple)) and part.isdecimal():
            found = found[int(part)]
        elif isinstance(found, Mapping):
            found = found[part]
        else:
            raise LookupError(name)
    return found


@dataclass(frozen=True, slots=True)
class Prompt:
    """One thing to answer: plain `text` or chat `messages`, its gold `answer`, and the other columns as `tags`.

    `tokens` is empty until a renderer (chat template and tokenizer) has filled it, and so is `begun`, what their end
    begins of the completion already, such as `<think>`. `id` is a content hash, so the same question has the same id in
    every run.
    """

    id: str
    text: str | None = None
    messages: tuple[Message, ...] | None = None
    tokens: Sequence[int] = ()
    answer: Any = None
    tags: Mapping[str, Any] = field(default_factory=dict)
    begun: str = ""

    @staticmethod
    def make(
        text: str | None = None,
        messages: Sequence[Message] | None = None,
        answer: Any = None,
        tags: Mapping[str, Any] | None = None,
    ) -> Prompt:
        """A prompt whose id is derived from its question and answer. Give exactly one of `text` and `messages`."""
        if (text is None) == (messages is None):
            raise ValueError("a prompt has either text or messages")
        chat = tuple(messages) if messages is not None else None
        return Prompt(id=content_id(text, chat, answer), text=text, messages=chat, answer=answer, tags=dict(tags or {}))

    @property
    def question(self) -> str:
        """What a person would call the question: the text, or the content of the last message that is not what the
        assistant has begun to answer.
        """
        if self.text is not None:
            return self.text
        assert self.messages is not None
        begun = len(self.messages) > 1 and self.messages[-1].get("role") == "assistant"
        return str(self.messages[-2 if begun else -1].get("content", "")) if self.messages else ""


@dataclass(frozen=True, slots=True)
class Beams:
    """How to search for completions in place of drawing them. The beams of a prompt are `parts` of equal size, each of
    which has its tokens taken into account by the next ones: `penalty` nats a beam. A completion of n tokens scores its
    log-prob divided by n ** `length_penalty`.
    """

    parts: int
    penalty: float
    length_penalty: float


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to sample. `temperature` 0 is greedy; `top_k` 0, `top_p` 1 and `min_p` 0 are off. With `greedy_first` the
    first member of a group is greedy; with `beams` nothing is drawn.
    """

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    stop: tuple[str, ...] = ()
    greedy_first: bool = False
    beams: Beams | None = None


@dataclass(frozen=True, slots=True)
class SampleRequest:
    """`count` completions of one prompt. Member i draws from `derive_seed(seed, i)`; `key` comes back as it went. With
    `keep` so many come back: the shortest, of equal ones the first.
    """

    key: int
    tokens: Sequence[int]
    count: int
    seed: int
    sampling: Sampling
    keep: int | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """One reply of a sampler. `logprobs[t]` is the float32 log-probability of `tokens[t]` under the distribution it
    was drawn from (temperature and truncation included); `version` names the weights that drew it. Where several did,
    it is the oldest, and `versions` are (index of the first token, version) of each span; else they are empty.
    """

    tokens: Sequence[int]
    logprobs: Sequence[float]
    finish: Finish
    version: int
    versions: Spans = ()


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that the policy wrote, and the tool's answer to it. `failed`: the answer says what was wrong with it.
    `malformed`: it was no call that a tool takes, and these characters of the turn's text are what stands for it.
    """

    name: str
    arguments: Mapping[str, Any]
    result: str
    failed: bool = False
    malformed: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Observation:
    """What an environment says after a turn: messages to go on from, or none when the rollout is over."""

    messages: tuple[Message, ...] = ()
    calls: tuple[ToolCall, ...] = ()


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of the policy: `tokens[start:end]` of its rollout, the same as text, and what the environment said.

    `row` is where a row begins with this turn: the history before it was written anew, and what of it follows the
    prompt stands in `tokens[row:start]`. None: it goes on in a row that is there. `reward` is what an agent paid.
    """

    start: int
    end: int
    text: str
    observation: Observation = Observation()
    row: int | None = None
    reward: float | None = None


@dataclass(frozen=True, slots=True)
class Rollout:
    """What the policy did for one prompt: one completion, or several turns with what the environment said between them.

    `mask[t]` is True where the policy chose token t; elsewhere `logprobs[t]` is 0. Token ids are the record; `text` is
    a view of the policy's own, those of its last message. `turns` is empty where there is no environment. Where an
    agent wrote its history anew, the tokens are several rows end to end, each of which follows the prompt by itself.
    `version` and `versions` are as in `Completion`; what the environment said belongs to the span before it.
    """

    tokens: Sequence[int]
    mask: Sequence[bool]
    logprobs: Sequence[float]
    version: int
    finish: Finish  # tool: it asked for another turn and got none
    text: str
    turns: tuple[Turn, ...] = ()
    versions: Spans = ()

    @property
    def spans(self) -> Iterator[tuple[int, int, int]]:
        """(version, first token, end) of each span of tokens that the same weights drew."""
        drawn = self.versions or ((0, self.version),)
        ends = [*(start for start, _ in drawn[1:]), len(self.tokens)]
        return ((version, start, end) for (start, version), end in zip(drawn, ends, strict=True))

    @property
    def rows(self) -> tuple[int, ...]:
        """The lengths of the rows that the tokens are."""
        starts = sorted({0, *(turn.row for turn in self.turns if turn.row is not None)})
        return tuple(end - start for start, end in zip(starts, [*starts[1:], len(self.tokens)], strict=True))

    @property
    def transcript(self) -> tuple[Message, ...]:
        """The conversation that follows the prompt, the environment's messages included; with what an agent paid."""
        found: list[Message] = []
        for turn in self.turns or (Turn(0, len(self.tokens), self.text),):
            paid = {} if turn.reward is None else {"reward": turn.reward}
            found += ({"role": "assistant", "content": turn.text, **paid}, *turn.observation.messages)
        return tuple(found)


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a rollout, as a reward of steps sees it: the index of its last token, and its score."""

    end: int
    score: float


@dataclass(frozen=True, slots=True)
class Group:
    """All rollouts of one prompt with everything known about them, so that no parallel lists can fall out of step.

    `scores[name][g]` is reward `name` of rollout g as it was scored (NaN: does not apply). `rewards[g]` is what they
    come to after gates and weights. `accuracy[g]` is the score that decides whether the group carries signal.
    `labels[name][g]` is why that score is what it is (None: no label), of rewards that say so, and `extra[name][g]`
    what a reward in TRL's style has logged beside it, by column.
    `teacher_logprobs[g][t]` is what a teacher gives token t of rollout g (NaN: nothing), in stages that have teachers.
    `token_advantages[g][t]` is there only where tokens of a rollout differ (a critic, process supervision);
    `advantages[g]` is then their mean. `steps[name][g]` are the steps of rollout g as reward `name` scored them.
    """

    ticket: int
    prompt: Prompt
    rollouts: tuple[Rollout, ...]
    scores: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    rewards: tuple[float, ...] = ()
    accuracy: tuple[float, ...] = ()
    advantages: tuple[float, ...] = ()
    token_advantages: tuple[Sequence[float], ...] = ()
    steps: Mapping[str, tuple[tuple[Step, ...], ...]] = field(default_factory=dict)
    disposition: Disposition | None = None
    error: str | None = None
    labels: Mapping[str, tuple[str | None, ...]] = field(default_factory=dict)
    extra: Mapping[str, tuple[Mapping[str, Any], ...]] = field(default_factory=dict)
    teacher_logprobs: tuple[Sequence[float], ...] = ()

    @property
    def pass_rate(self) -> float | None:
        """The share of rollouts that were right, as evaluations count (`RIGHT` or more); None: no score applies."""
        known = [a for a in self.accuracy if not math.isnan(a)]
        return sum(a >= RIGHT for a in known) / len(known) if known else None

    @property
    def has_signal(self) -> bool:
        """Whether the accuracy differs inside the group (scores that do not apply are left out)."""
        known = [a for a in self.accuracy if not math.isnan(a)]
        return len(known) > 1 and max(known) != min(known)

    def with_(self, **changes: Any) -> Group:
        """A copy with some fields replaced."""
        return replace(self, **changes)


@dataclass(frozen=True, slots=True)
class Batch:
    """One optimizer batch, on the CPU: B rollouts of P prompts, their N tokens end to end. Nothing is padded.

    `token_weight` is computed once from the whole batch, before it is split: the loss is always
    `(per_token * token_weight).sum()`, so the gradient cannot depend on micro-batching.
    """

    prompts: tuple[Sequence[int], ...]  # P ragged rows of prompt tokens
    group: torch.Tensor  # [B] long: which prompt each rollout belongs to
    tokens: torch.Tensor  # [N] long: rollout tokens
    lengths: torch.Tensor  # [B] long: how many of them each rollout has
    mask: torch.Tensor  # [N] bool: tokens the policy chose
    sampler_logprobs: torch.Tensor  # [N] float32
    advantages: torch.Tensor  # [N] float32
    token_weight: torch.Tensor  # [N] float32
    rows: tuple[tuple[int, ...], ...] = ()  # lengths of the rows of each rollout, as `Rollout.rows`; empty: one each
    old_logprobs: torch.Tensor | None = None  # [N] float32; None: the first pass stands in (one update a batch)
    ref_logprobs: torch.Tensor | None = None  # [N] float32
    values: torch.Tensor | None = None  # [N] float32, of a critic: what was expected before each token
    teacher_logprobs: torch.Tensor | None = None  # [N] float32; NaN where no teacher speaks
    lesson: Lesson | None = None
    versions: torch.Tensor | None = None  # [B] long: the weights that drew each rollout
    version: int = 0  # the number that the weights will have after this update
    rewards: torch.Tensor | None = None  # [B] float64; NaN where there is none
    observed: torch.Tensor | None = None  # [N] bool: what the environment wrote, where the loss has a term of it
    whole: Any = None  # `objectives.Batchwide` of tensors [N]: what is decided over the whole batch
    energy: torch.Tensor | None = None  # [N] float32: |grad log pi|^2 in logits, for an optimal token baseline
    entropy: torch.Tensor | None = None  # [N] float32, before the first update, where the objective asks
    expert: Batch | None = None  # demonstrations, where the loss has a term of them


@dataclass(frozen=True, slots=True)
class Lesson:
    """How teachers see the B rollouts of a batch: what each of them follows there, and who speaks of it.

    `states`, of a divergence over the vocabulary, are each teacher's final states of its tokens, in their order.
    """

    prompts: tuple[Sequence[int], ...]  # ragged rows of prompt tokens
    group: torch.Tensor  # [B] long: which of them each rollout follows
    teacher: torch.Tensor  # [B] long: which teacher speaks of it; -1: none
    first: torch.Tensor | None = None  # [N] bool: tokens that are their teacher's likeliest
    states: tuple[torch.Tensor, ...] = ()  # [tokens of the teacher, width] each


@dataclass(frozen=True, slots=True)
class StepReport:
    """What the updates on one batch did: metric names and values, ready for metrics.jsonl."""

    metrics: Mapping[str, float]


class Sampler(Protocol):
    """Makes completions. Replies come in the order in which groups finish, so scoring overlaps with sampling. One whose
    weights stay what they are until `publish`, whatever the learner does, may say so with `apart = True`: with
    rollout.max_staleness > 0 it then draws, in a thread, while the learner updates. docs/engine.md shows one.
    """

    @property
    def version(self) -> int:
        """The number of the weights that the next token will be drawn from."""
        ...

    def sample(self, requests: Iterable[SampleRequest]) -> Iterator[tuple[SampleRequest, tuple[Completion, ...]]]:
        """Yield each request with its `count` completions, whole groups at a time."""
        ...

    def publish(self, version: int) -> None:
        """The weights have changed, and bear this number from now on."""
        ...


class ProvingSampler(Sampler, Protocol):
    """A sampler that can show which weights it holds. One of your own should, where it keeps a copy of them."""

    def fingerprint(self) -> str:
        """`policy.weights.fingerprint` of the weights that the next token will be drawn from."""
        ...

    def canary(self, prompt: Sequence[int], tokens: Sequence[int]) -> Sequence[float]:
        """The log-probs that these weights give `tokens` behind `prompt`, at temperature 1."""
        ...


class Environment(Protocol):
    """What the policy acts in, turn by turn. Threads share one, so all that belongs to a rollout is in its state."""

    def reset(self, prompt: Prompt, seed: int) -> Any:
        """The state in which a rollout of `prompt` begins. `seed` is the rollout's own."""
        ...

    def step(self, state: Any, reply: str) -> Observation:
        """Answer one turn of the policy. Raises InfrastructureError when the world failed: the group is then lost."""
        ...
