"""How the completions of a step behave: the numbers of groups that detectors read, cheap enough for every step."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import numpy as np

from cohort.monitor.metrics import mean
from cohort.rewards.combination import Combination, Scores
from cohort.rewards.verifiers.trace import trace_of
from cohort.types import RIGHT, SECOND, Group, Rollout

GRAM = 4  # tokens in a row that count as said before
ALIKE = 0.95  # of their tokens two completions share, from which they are copies
TAIL = 60  # characters at the end of a text, among which its answer is
_TAG, _WORD = re.compile(r"<[^<>]*>|\\boxed|\\text"), re.compile(r"[^\W_]+(?:[.,/:-][^\W_]+)*")
# What honest solutions do not need: to end the process, to be equal to everything, to look at who calls.
_ACTS_ON_TESTS = re.compile(
    r"\b(?:sys\.exit|os\._exit|quit|exit)\s*\(|__eq__|\bunittest\b|\bpytest\b|\binspect\.(?:stack|currentframe)|"
    r"sys\._getframe|sys\.modules|__globals__|\batexit\b|\bbuiltins\."
)
# The words that R1's authors count as reflection (2501.12948v2). A model that writes them need not do what they say.
_REFLECTS = re.compile(r"(?i)\b(?:wait|mistake|however|but|retry|error|verify|wrong|evaluate|check)\b")

Array = np.ndarray


def behaviour(groups: Iterable[Group], combination: Combination | None = None) -> dict[str, float]:
    """The numbers of a step's groups; those that could not be scored are left out. A number that none of them has is
    NaN, one that needs several rewards is not there without them. Rewards are compared as `combination` pays them,
    after its gates.
    """
    scored = [group for group in groups if group.error is None and group.rollouts and group.rewards]
    if not scored:
        return {}
    rollouts = [rollout for group in scored for rollout in group.rollouts]
    own = [np.asarray(r.tokens)[np.asarray(r.mask, bool)] if r.turns else np.asarray(r.tokens) for r in rollouts]
    lengths = np.array([len(tokens) for tokens in own], np.float64)
    accuracy = np.array([a for group in scored for a in group.accuracy or (math.nan,) * len(group.rollouts)])
    rewards = np.array([reward for group in scored for reward in group.rewards], np.float64)
    bounds = np.cumsum([0, *(len(group.rollouts) for group in scored)])
    parts = [slice(first, last) for first, last in pairwise(bounds)]
    rates = [group.pass_rate for group in scored]
    right, wrong = accuracy >= RIGHT, accuracy < RIGHT
    texts = Counter(rollout.text for rollout in rollouts)
    words: Counter[str] = Counter()
    for text, times in texts.items():
        words[final_word(text)] += times
    known = rewards[~np.isnan(rewards)]
    metrics = {
        "reward/std": float(known.std()) if known.size else math.nan,
        "groups/pass_rate": mean(np.where(right, 1.0, np.where(wrong, 0.0, math.nan))),
        "groups/partial": sum(len(v := {*g.accuracy}) == 1 and 0 < min(v) < 1 for g in scored) / len(scored),
        "groups/similar": mean([_similar(own[p]) for p, rate in zip(parts, rates) if rate is not None and rate < 1]),
        "groups/contradictions": sum(bool(contradicts(group)) for group in scored) / len(scored),
        "prompts/mean_tokens": mean([float(len(group.prompt.tokens)) for group in scored]),
        "completions/right_tokens": mean(lengths[right]),
        "completions/wrong_tokens": mean(lengths[wrong]),
        "completions/length_correlation": mean(
            [rank_correlation(lengths[part], rewards[part]) for part in parts if np.ptp(rewards[part]) > 0]
        ),
        "completions/repeated": _repeated(own),
        "completions/same_answer": max(words.values()) / len(rollouts),
        "completions/bare": sum(n for text, n in texts.items() if is_bare(text)) / len(rollouts),
        "completions/test_aware": sum(n for text, n in texts.items() if acts_on_tests(text)) / len(rollouts),
        "completions/trace_words": sum(n * trace_words(text) for text, n in texts.items()) / len(rollouts),
        "completions/reflective": sum(n for text, n in texts.items() if _REFLECTS.search(text)) / len(rollouts),
        "advantage/below_right": _below_right(scored),
    }
    if len(scored[0].scores) > 1:
        scores = [group.scores if combination is None else combination.paid(group.scores) for group in scored]
        metrics |= _components(scores, parts, rewards, accuracy)
    return metrics


def final_word(text: str) -> str:
    """The last word or number of a text, tags apart: what its answer most likely is."""
    words = _WORD.findall(_TAG.sub(" ", text[-TAIL:]))
    return words[-1].casefold() if words else ""


def trace_words(text: str) -> int:
    """How many words the trace of a text has."""
    found = trace_of(text)
    return 0 if found is None else len(text[found.start : found.end].split())


def is_bare(text: str) -> bool:
    """Whether a text is an answer alone: two words at most, tags apart."""
    return len(text.split(None, 12)) <= 12 and len(_TAG.sub(" ", text).split()) <= 2


def acts_on_tests(text: str) -> bool:
    """Whether a text has code that acts on its tests rather than solves the task."""
    return ("def " in text or "```" in text) and _ACTS_ON_TESTS.search(text) is not None


def contradicts(group: Group) -> set[str]:
    """The rewards that gave different scores to equal completions of a group: the same tokens, ended the same way; or
    to one that was scored twice.
    """
    twice = {name for name, of in group.extra.items() if any(SECOND in one for one in of)}
    texts, scores = {rollout.text for rollout in group.rollouts}, [*group.scores.values()]
    if len(texts) == len(group.rollouts) or all(len({*of}) == 1 for of in scores):
        return twice
    equal: dict[tuple[bytes, str], list[int]] = defaultdict(list)
    for member, rollout in enumerate(group.rollouts):
        equal[np.asarray(rollout.tokens).tobytes(), rollout.finish].append(member)
    return twice | {
        name
        for name, scores in group.scores.items()
        for members in equal.values()
        if len({scores[member] for member in members if not math.isnan(scores[member])}) > 1
    }


def repeats(rollout: Rollout) -> float:
    """The share of a completion's sequences of four tokens that it has had before."""
    return _repeated([np.asarray(rollout.tokens)])


def rank_correlation(x: Array, y: Array) -> float:
    """Spearman's correlation: Pearson's of average ranks, pairs with a NaN left out; NaN where one side is constant."""
    known = ~(np.isnan(x) | np.isnan(y))
    return _correlation([_ranks(x[known])], [_ranks(y[known])]) if known.sum() > 2 else math.nan


def _ranks(values: Array) -> Array:
    return (values[:, None] > values).sum(1) + (values[:, None] == values).sum(1) / 2


def _correlation(xs: Sequence[Array], ys: Sequence[Array]) -> float:
    """Pearson's correlation inside groups: each is centred at its own mean, and all are taken together."""
    x, y = (np.concatenate([np.zeros(0), *(one - one.mean() for one in of if one.size)]) for of in (xs, ys))
    scale = math.sqrt(float(x @ x) * float(y @ y))
    return float(x @ y) / scale if scale > 1e-12 else math.nan


def _similar(rows: Sequence[Array]) -> float:
    """The share of a group's completions that are copies of another: their bags of tokens are nearly the same."""
    equal = Counter(row.tobytes() for row in rows)
    alone = [index for index, row in enumerate(rows) if equal[row.tobytes()] == 1]
    if not alone or len(rows) == 1:
        return float(len(rows) > 1)
    vocabulary, place = np.unique(np.concatenate(rows), return_inverse=True)
    lengths = np.array([len(row) for row in rows])
    member = np.repeat(np.arange(len(rows)), lengths)
    counts = np.bincount(member * len(vocabulary) + place, minlength=len(rows) * len(vocabulary))
    bags = counts.reshape(len(rows), -1).astype(np.float32)
    copies = len(rows) - len(alone)
    for index in alone:  # [G, vocabulary] at a time, not [G, G, vocabulary]
        apart = np.abs(bags - bags[index]).sum(1) / np.maximum(lengths + lengths[index], 1)
        apart[index] = 1
        copies += bool(apart.min() <= 1 - ALIKE)
    return copies / len(rows)


def _repeated(rows: Sequence[Array]) -> float:
    """The mean share of sequences of `GRAM` tokens that a completion has had before; shorter ones have none."""
    rows = [row for row in rows if len(row) > GRAM]
    if not rows:
        return math.nan
    shares = []
    for chunk in (rows[i : i + 256] for i in range(0, len(rows), 256)):
        longest = max(map(len, chunk))
        table = np.full((len(chunk), longest + GRAM - 1), -1, np.int64)
        for index, row in enumerate(chunk):
            table[index, : len(row)] = row
        grams = np.zeros((len(chunk), longest), np.uint64)
        for offset in range(GRAM):  # a hash; two that are equal by chance are too few to matter
            grams = grams * np.uint64(0x9E3779B97F4A7C15) + table[:, offset : offset + longest].astype(np.uint64)
            grams ^= grams >> np.uint64(29)
        counts = np.array([len(row) - GRAM + 1 for row in chunk])
        beyond = np.arange(longest) >= counts[:, None]
        grams[beyond] = np.uint64(0)
        grams.sort(1)
        again = (grams[:, 1:] == grams[:, :-1]).sum(1) - np.maximum(beyond.sum(1) - 1, 0)
        shares.append(np.clip(again, 0, None) / counts)
    return float(np.concatenate(shares).mean())


def _below_right(groups: Sequence[Group]) -> float:
    """The share of positive advantage that went to completions that are not right; NaN without any."""
    good = bad = 0.0
    for group in groups:
        for advantage, accuracy in zip(group.advantages, group.accuracy):
            if advantage > 0 and not math.isnan(accuracy):
                good, bad = (good + advantage, bad) if accuracy >= RIGHT else (good, bad + advantage)
    return bad / (good + bad) if good + bad else math.nan


def _components(
    scores: Sequence[Scores], parts: Sequence[slice], rewards: Array, accuracy: Array
) -> Mapping[str, float]:
    """Of every reward, how it goes inside groups with what they come to, and with the accuracy."""
    found, absent = {}, [(math.nan,) * (part.stop - part.start) for part in parts]
    for name in scores[0]:
        own = np.array([score for of, none in zip(scores, absent, strict=True) for score in of.get(name, none)])
        for what, other in (("with_reward", rewards), ("with_accuracy", accuracy)):
            known = ~(np.isnan(own) | np.isnan(other))
            pairs = [(own[part][known[part]], other[part][known[part]]) for part in parts]
            found[f"reward/{name}/{what}"] = _correlation([x for x, _ in pairs], [y for _, y in pairs])
    return found
