"""Whether an answer needs the trace before it: cut it, change its numbers, exchange it, and see what is answered then.

A trace that was trained is no window: a policy may write one thing and answer by another. So the trace of a greedy
completion is changed, and the policy goes on from there, greedily (Lanham et al. 2023, "Measuring Faithfulness in
Chain-of-Thought Reasoning", arXiv 2307.13702: early answering, adding mistakes). What changes the answer, the answer
needs; what changes nothing shows that the answer does not rest on it.

Token ids in, token ids out: nothing is tokenised again. A completion is its tokens before the trace, those that lie
wholly inside it, and those that lie wholly between it and the answer's first character. A token that reaches over the
beginning or the end of the trace stays as it was; one that reaches into the answer is the policy's to write again.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cohort.environments import Played, Player
from cohort.evaluate.accuracy import Accuracy, Measure, evaluate
from cohort.evaluate.answers import answer_of
from cohort.rewards import RewardPool
from cohort.rewards.verifiers.trace import trace_of
from cohort.seeds import derive_seed
from cohort.types import RIGHT, Group, InfrastructureError, Prompt, Rollout, SampleRequest, Sampling

KEPT = {"removed": 0.0, "kept_25": 0.25, "kept_50": 0.5, "kept_75": 0.75}  # shares of the trace's tokens that stay
CORRUPTED, EXCHANGED = "corrupted", "exchanged"
LABEL = "trace"  # of the rollouts that are kept: what was done to it
Tokens = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Change:
    """What became of the answers when all traces were changed in one way: which share is another one, and which is
    right; each 0 or 1 a problem.
    """

    changed: Measure
    right: Measure


@dataclass(frozen=True, slots=True)
class TraceUse:
    """What answers are without their traces, over the `traced` of the problems that were asked; `untraced` ones have no
    trace, or no answer behind it. `right` is of the answers as they were, and `followed` the share of those to another
    problem's trace that are that problem's. `groups` are what was written.
    """

    traced: int
    untraced: int
    mean_tokens: float
    right: Measure | None
    changes: Mapping[str, Change]
    followed: Measure | None
    groups: tuple[Group, ...] = ()
    failed: int = 0  # problems whose answers to changed traces could not be scored, and are left out

    def metrics(self) -> dict[str, float]:
        """Under the names of metrics.jsonl."""
        found = {"eval/traced": float(self.traced), "eval/untraced": float(self.untraced)}
        if self.right is None:
            return found
        found |= {"eval/trace_tokens": self.mean_tokens, **_named("traced_right", self.right)}
        found |= {"eval/trace_failed": float(self.failed)} if self.failed else {}
        for name, one in self.changes.items():
            found |= _named(f"trace_{name}_changed", one.changed) | _named(f"trace_{name}_right", one.right)
        return found | ({} if self.followed is None else _named("trace_followed", self.followed))


def _named(name: str, one: Measure) -> dict[str, float]:
    return {f"eval/{name}": one.mean, f"eval/{name}_low": one.low, f"eval/{name}_high": one.high}


@dataclass(frozen=True, slots=True)
class Parted:
    """A completion with a trace, in tokens: `head + trace + bridge + answer` are all of them."""

    group: Group
    said: Hashable
    head: Tokens
    trace: Tokens
    bridge: Tokens
    answer: Tokens

    def with_trace(self, trace: Tokens) -> Tokens:
        """What the policy goes on from, with another trace."""
        return self.head + trace + self.bridge


def parted(group: Group, read: Callable[[Sequence[int]], str]) -> Parted | None:
    """The one completion of a group in its parts; None where it has no trace, or no answer behind one. `read` gives
    tokens as text.
    """
    (rollout,) = group.rollouts
    found, said = trace_of(rollout.text), answer_of(rollout.text)
    if found is None or said is None or found.after >= len(rollout.text):
        return None
    tokens = tuple(map(int, rollout.tokens))
    prefixes = range(len(tokens) + 1)

    def length(count: int) -> int:
        return len(read(tokens[:count]))

    start = bisect_left(prefixes, found.start, key=length)
    end = bisect_right(prefixes, found.end, lo=start, key=length) - 1
    after = bisect_right(prefixes, found.after, lo=max(end, start), key=length) - 1
    if end <= start:
        return None
    return Parted(group, said, tokens[:start], tokens[start:end], tokens[end:after], tokens[after:])


class Numbers:
    """What the numbers of a trace are changed to: a token with digits to another one of the vocabulary that differs in
    its digits alone, each to the same one wherever it stands in a trace.
    """

    def __init__(self, tokenizer: Any):
        by_shape: dict[str, list[int]] = defaultdict(list)
        added = {*tokenizer.all_special_ids, *getattr(tokenizer, "added_tokens_decoder", {})}
        known = {number: str(token) for token, number in tokenizer.get_vocab().items() if number not in added}
        # <0x0A> is a byte, and no number.
        shapes = {n: re.sub("[0-9]", "0", t) for n, t in known.items() if re.search("[0-9]", t) and "<0x" not in t}
        for number in sorted(shapes):
            if not re.match("[^0-9]*0", known[number]):  # no number begins with 0
                by_shape[shapes[number]].append(number)
        self._alike = {number: by_shape[shape] for number, shape in shapes.items()}

    def changed(self, trace: Tokens, seed: int) -> Tokens | None:
        """The trace with other numbers; where it has none that can be another, with its tokens in another order; None
        where that is the same.
        """
        other = {
            token: choices[derive_seed(seed, token) % len(choices)]
            for token in {*trace}
            if (choices := [one for one in self._alike.get(token, ()) if one != token])
        }
        found = tuple(other.get(token, token) for token in trace)
        if found == trace:
            order = sorted(range(len(trace)), key=lambda place: derive_seed(seed, "order", place))
            found = tuple(trace[place] for place in order)
        return None if found == trace else found


def exchanged(ours: Sequence[Parted], longest: int, seed: int) -> dict[str, Parted]:
    """For each problem one whose trace it gets, by the prompt's id: the next in an order that is hashed whose answer is
    another, and whose trace leaves room for an answer as long as its own.
    """
    order = sorted(ours, key=lambda one: derive_seed(seed, "exchange", one.group.prompt.id))
    found = {}
    for place, one in enumerate(order):
        room = longest - len(one.head) - len(one.bridge) - len(one.answer)
        others = (*order[place + 1 :], *order[:place])
        other = next((o for o in others if o.said != one.said and len(o.trace) <= room), None)
        if other is not None:
            found[one.group.prompt.id] = other
    return found


@dataclass(frozen=True, slots=True)
class _GoingOn:
    """A `Player` of completions that were begun: a rollout for each beginning of the prompt, all of it its text."""

    play: Player
    read: Callable[[Sequence[int]], str]
    begun: Mapping[str, Sequence[Tokens]]  # by the prompt's id

    def __call__(
        self, requests: Sequence[SampleRequest], prompts: Mapping[int, Prompt]
    ) -> Iterator[tuple[SampleRequest, Played]]:
        """See `Player`."""
        asked = [(one, begun) for one in requests for begun in self.begun[prompts[one.key].id]]
        going_on = [
            replace(
                one,
                key=key,
                tokens=(*one.tokens, *begun),
                count=1,
                sampling=replace(one.sampling, max_tokens=one.sampling.max_tokens - len(begun)),
            )
            for key, (one, begun) in enumerate(asked)
        ]
        done: dict[int, dict[int, Rollout | InfrastructureError]] = defaultdict(dict)
        of = {key: prompts[one.key] for key, (one, _) in enumerate(asked)}
        expected = Counter(one.key for one, _ in asked)
        for request, played in self.play(going_on, of):
            one, begun = asked[request.key]
            done[one.key][request.key] = (
                played if isinstance(played, InfrastructureError) else self._whole(begun, *played)
            )
            if len(done[one.key]) == expected[one.key]:
                members = [done[one.key][key] for key in sorted(done[one.key])]
                failed = next((member for member in members if isinstance(member, InfrastructureError)), None)
                yield one, failed or tuple(member for member in members if isinstance(member, Rollout))

    def _whole(self, begun: Tokens, rest: Rollout) -> Rollout:
        """What was begun and what the policy has written then."""
        given = len(begun)
        tokens = (*begun, *map(int, rest.tokens))
        return replace(
            rest,
            tokens=tokens,
            mask=(*(False,) * given, *rest.mask),
            logprobs=(*(0.0,) * given, *rest.logprobs),
            text=self.read(tokens),
        )


def use_of_traces(
    answered: Accuracy,
    problems: int,
    play: Player,
    pool: RewardPool,
    sampling: Sampling,
    seed: int,
    read: Callable[[Sequence[int]], str],
    tokenizer: Any,
    on_group: Callable[[], None] = lambda: None,
    judges: Sequence[str] = (),
) -> TraceUse:
    """Change the traces of what was `answered` greedily, of the first so many problems that could be scored, and answer
    again; `sampling` is what they were answered by, and no text becomes longer than it allows.
    """
    asked = answered.scored[:problems]
    ours = [one for group in asked if (one := parted(group, read)) is not None]
    untraced = len(asked) - len(ours)
    if not ours:
        return TraceUse(0, untraced, math.nan, None, {}, None)
    numbers, others = Numbers(tokenizer), exchanged(ours, sampling.max_tokens, seed)
    begun: dict[str, dict[str, Tokens]] = {}
    for one in ours:
        key, size = one.group.prompt.id, len(one.trace)
        traces: dict[str, Tokens | None] = {name: one.trace[: int(size * share)] for name, share in KEPT.items()}
        traces[CORRUPTED] = numbers.changed(one.trace, derive_seed(seed, CORRUPTED, key))
        traces[EXCHANGED] = others[key].trace if key in others else None
        begun[key] = {name: one.with_trace(trace) for name, trace in traces.items() if trace is not None}
    going_on = _GoingOn(play, read, {key: [*of.values()] for key, of in begun.items()})
    prompts = [one.group.prompt for one in ours]
    again = evaluate(going_on, prompts, pool, sampling, 1, seed, on_group, judges)
    groups = tuple(
        group.with_(labels={**group.labels, LABEL: (*begun[group.prompt.id],)}) if group.error is None else group
        for group in again.groups
    )
    return _compared(ours, untraced, groups, others, answered.clusters)


def _compared(
    ours: Sequence[Parted],
    untraced: int,
    groups: Sequence[Group],
    others: Mapping[str, Parted],
    clusters: Mapping[str, Hashable] | None,
) -> TraceUse:
    """The answers to changed traces beside those to the policy's own."""
    changed: dict[str, dict[str, float]] = defaultdict(dict)  # by what was done, then by problem
    right: dict[str, dict[str, float]] = defaultdict(dict)
    followed: dict[str, float] = {}
    for one, group in zip(ours, groups, strict=True):
        if group.error is not None:
            continue
        key = group.prompt.id
        for name, rollout, score in zip(group.labels[LABEL], group.rollouts, group.accuracy, strict=True):
            said = answer_of(rollout.text)
            if name is None or math.isnan(score):
                continue
            changed[name][key], right[name][key] = float(said != one.said), float(score >= RIGHT)
            if name == EXCHANGED:
                followed[key] = float(said == others[key].said)

    def measure(of: Mapping[str, float]) -> Measure:
        return Measure.of([*of.values()], None if clusters is None else [clusters[key] for key in of])

    return TraceUse(
        traced=len(ours),
        untraced=untraced,
        mean_tokens=sum(len(one.trace) for one in ours) / len(ours),
        right=measure({one.group.prompt.id: one.group.pass_rate or 0.0 for one in ours}),
        changes={name: Change(measure(of), measure(right[name])) for name, of in changed.items()},
        followed=measure(followed) if followed else None,
        groups=tuple(groups),
        failed=sum(group.error is not None for group in groups),
    )
