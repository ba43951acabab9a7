"""What bench/scoring.py scores: for each reward one right answer among many that a hostile policy may write."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hostile import EMPTY, LARGE

from cohort.rewards import RewardTable, ScoringItem
from hostile_code import FUNCTION_TESTS, FUNCTIONS, PROGRAM_TESTS, PROGRAMS, Attempt, fenced

__all__ = ["MIXES", "Group", "groups", "kinds", "specs"]

CODE_ARGS = {"time_s": 0.15, "total_s": 0.3, "memory_mb": 256}
LONGEST = 20_000  # characters of the large texts
MIXES = ("mixed", "code", "honest_code", "text", "math", "exact_number")

Text = tuple[str, float, tuple[str, ...]]  # what is scored, the score that it must get, the labels it may get (any: ())


@dataclass(frozen=True)
class Kind:
    """Answers of one kind, and the reward for them."""

    reward: str
    answer: Any
    texts: Sequence[Text]
    args: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Group:
    """Completions for one prompt and its reward, and for each of them the score and the labels that it may get."""

    reward: str
    item: ScoringItem
    wanted: tuple[tuple[float, tuple[str, ...]], ...]


def kinds(mix: str) -> list[Kind]:
    """The kinds of a mix in the order in which groups of them come."""
    if mix == "mixed":
        return [kind for text in _texts() for kind in (*_code(PROGRAMS, FUNCTIONS), text)]
    if mix == "code":
        return _code(PROGRAMS, FUNCTIONS)
    if mix == "honest_code":
        return _code(*([a for a in some if a.verdicts in (("right",), ("wrong",))] for some in (PROGRAMS, FUNCTIONS)))
    return [kind for kind in _texts() if mix in ("text", kind.reward)]


def specs(mix: str) -> list[RewardTable]:
    """The rewards of a mix; each is for its own groups."""
    args = {kind.reward: kind.args for kind in kinds(mix)}
    return [RewardTable(use=reward, args=given, when={"reward": reward}) for reward, given in args.items()]


def groups(mix: str, size: int) -> Iterator[Group]:
    """Groups without end: a walk through the answers of every kind."""
    at: dict[tuple[str, str], int] = {}
    everything = kinds(mix)
    while True:
        for kind in everything:
            own = (kind.reward, str(kind.answer))
            first = at.get(own, 0)
            at[own] = first + size
            chosen = [kind.texts[(first + step) % len(kind.texts)] for step in range(size)]
            item = ScoringItem(
                "What is 20 + 22?", tuple(text for text, *_ in chosen), answer=kind.answer, row={"reward": kind.reward}
            )
            yield Group(kind.reward, item, tuple((score, labels) for _, score, labels in chosen))


def _code(programs: Iterable[Attempt], functions: Iterable[Attempt]) -> list[Kind]:
    return [
        Kind(
            "code",
            json.dumps(tests),
            [(fenced(a.code), float("right" in a.verdicts), a.verdicts) for a in some],
            CODE_ARGS,
        )
        for tests, some in ((PROGRAM_TESTS, programs), (FUNCTION_TESTS, functions))
    ]


def _texts() -> list[Kind]:
    return [
        Kind("math", "42", _one_right("The answer is \\boxed{42}.", _FORMULAS), {"timeout_s": 0.5}),
        Kind("exact_number", "42", _one_right("The answer is \\boxed{42}.", _FORMULAS)),
        Kind("json_schema", None, _one_right('{"b": "aab"}', _JSON), {"schema": _SCHEMA, "timeout_s": 0.2}),
        Kind("regex_format", None, _one_right("aab", ("a" * 60 + "c",)), {"pattern": "(a|aa)+b", "timeout_s": 0.2}),
        Kind("think_format", None, _one_right("<think>a</think><answer>b</answer>", _TAGS)),
        Kind("choice", "B", _one_right("The answer is (B).", ("A B C D", "(A) or (B)", "not (B)", "B" * 5_000))),
        Kind("exact_text", "Lyon", _one_right("<answer>Lyon</answer>", ("Lyon or Paris", "<answer>Lyon</answer"))),
        Kind("constraints", None, _one_right("Dear Ada", ("Dear", "Dear " * 5_000)), {"rules": _RULES}),
    ]  # fmt: skip


def _one_right(right: str, wrong: Sequence[str]) -> list[Text]:
    hostile = (
        *wrong,
        "<answer>43</answer>",
        "\ud800\x00\u202e41",
        *EMPTY,
        *(text[:LONGEST] for text in LARGE.values()),
    )
    return [(right, 1.0, ()), *((text, 0.0, ()) for text in hostile)]


_FORMULAS = (
    "\\boxed{9^{9^{9}}}",
    "\\boxed{" + "(" * 5_000 + "1" + ")" * 5_000 + "}",
    "\\boxed{\\sum_{n=1}^{10^{12}} n}",
    "\\boxed{" * 2_000,
    "9" * 100_000,
    "<answer>" * 10_000,
    "\\boxed{x = 42 = 43}",
    "####" * 20_000,
    "\ud800\x00\u202e42",
)
_SCHEMA = {"type": "object", "required": ["b"], "properties": {"b": {"type": "string", "pattern": "^(a|aa)+b$"}}}
_JSON = (
    '{"b": "' + "a" * 60 + 'c"}',
    '{"b": "ab", "b": "ab"}',
    '{"b": NaN}',
    '{"b": ' * 5_000,
    '{"b": "ab"' + "," * 10_000,
    "9" * 10_000,
)
_TAGS = (
    "<think></think><answer></answer>",
    "<think>a</think><answer>b</answer><answer>c</answer>",
    "<think>" * 3_000 + "</think>" * 3_000 + "<answer>b</answer>",
)
_RULES = [{"starts_with": "Dear"}, {"words": 2}]
