"""What the screen of tokens shows: one completion, token by token, coloured by a number that each of them has."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cohort.types import UserError
from cohort.views.cards.reading import is_number
from cohort.views.dashboard.groups import columns_of
from cohort.views.dashboard.reader import Reader

Measured = Mapping[str, Sequence[Any]]  # by name the numbers of each token, as `cohort replay --tokens` computes them
Measure = Callable[[Path, str, int, int], Mapping[int, Measured]]  # run, stage, step, group -> by member
_COLUMNS = ("step", "ticket", "member", "mask", "version", "reward", "accuracy", "advantage")
_TOKENS = ("tokens", "logprobs", "token_advantages", "teacher_logprobs")
LEVELS = 6  # of a colour; of a scale with two ends the middle is 3


@dataclass(frozen=True, slots=True)
class Token:
    """One token: its text, and every number that is known of it by the name of `BY`. What the policy did not choose has
    none of them but the advantage.
    """

    text: str
    id: int
    chosen: bool
    numbers: Mapping[str, float]
    clipped: bool
    level: int  # of the colour


@dataclass(frozen=True, slots=True)
class TokensView:
    """The tokens of a completion, coloured by one of the numbers."""

    step: int
    ticket: int
    member: int
    members: int
    by: str
    choices: tuple[str, ...]
    tokens: tuple[Token, ...]
    exact: bool  # whether the texts are those of the run's own tokenizer
    version: int | None
    reward: float | None
    accuracy: float | None
    advantage: float | None
    total: float  # of the log-probs
    most: float  # the largest number of these, without its sign
    of_the_step: tuple[tuple[str, str], ...]  # what is not written down token by token, and what is known of the step
    measured: bool


@dataclass(frozen=True, slots=True)
class By:
    """A number to colour by."""

    label: str
    meaning: str
    ends: tuple[str, str]
    two_ends: bool = True


BY = {
    "logprob": By("log-prob", "of the token under the weights that sampled it", ("sure", "surprising"), two_ends=False),
    "entropy": By("entropy", "in nats: how open the choice was before this token", ("closed", "open"), two_ends=False),
    "advantage": By("advantage", "how much the update pushes the token up or down", ("down", "up")),
    "ratio": By(
        "ratio", "of its probability after the update of this step to that when it was sampled", ("down", "up")
    ),
    "gap": By("gap", "log-prob by the learner minus that by the sampler, of the same weights", ("-", "+")),
    "teacher": By("teacher", "the teacher's log-prob minus the sampler's", ("down", "up")),
}
_BOUNDS = {  # of numbers with one end: from which on the colour is the next one
    "logprob": (-0.01, -0.05, -0.2, -0.7, -1.6, -3.0),
    "entropy": (0.01, 0.05, 0.2, 0.5, 1.0, 2.0),
}


def tokens_view(
    path: Path,
    step: int,
    ticket: int,
    member: int,
    reader: Reader,
    by: str,
    line: Mapping[str, Any],
    once: bool,
    measured: Measured | None = None,
) -> TokensView:
    """The tokens of one completion. `line` has the numbers of its step, `once` says that a batch has one update, and
    `measured` is what was computed again.
    """
    found = columns_of(path, (*_COLUMNS, *_TOKENS), ticket, member).to_pylist()
    if not found:
        raise UserError(f"group {ticket} of step {step} has no completion {member}")
    row = found[0]
    members = len(columns_of(path, ("ticket", "member"), ticket))
    ids, numbers = row["tokens"] or [], _numbers(row, measured)
    choices = tuple(name for name in BY if any(name in one for one in numbers))
    by = by if by in choices else "logprob"
    most = max((abs(_from_middle(by, one[by])) for one in numbers if by in one), default=0.0)
    clipped = (measured or {}).get("clipped") or [False] * len(ids)
    tokens = [
        Token(text, number, bool(chosen), one, bool(past), _level(by, one.get(by), most))
        for text, number, chosen, one, past in zip(
            reader.pieces(ids), ids, row["mask"] or [], numbers, clipped, strict=True
        )
    ]
    total = math.fsum(one["logprob"] for one in numbers if "logprob" in one)
    return TokensView(
        step, ticket, member, members, by, choices, tuple(tokens), reader.exact, row["version"], row["reward"],
        row["accuracy"], row["advantage"], total, most, tuple(_of_the_step(line, once)), measured is not None,
    )  # fmt: skip


def _numbers(row: Mapping[str, Any], measured: Measured | None) -> list[dict[str, float]]:
    """Of each token what is known of it, by the names of `BY`."""
    count = len(row["tokens"] or [])
    nothing = [None] * count
    again, logprobs = measured or {}, row["logprobs"] or nothing
    columns: dict[str, Sequence[Any]] = {
        "logprob": logprobs,
        "entropy": again.get("entropy") or nothing,
        "advantage": row.get("token_advantages") or [row["advantage"]] * count,
        "ratio": [_ratio(a, b) for a, b in zip(again.get("after") or nothing, logprobs, strict=True)],
        "gap": [_minus(a, b) for a, b in zip(again.get("learner") or nothing, logprobs, strict=True)],
        "teacher": [_minus(a, b) for a, b in zip(row.get("teacher_logprobs") or nothing, logprobs, strict=True)],
    }
    return [
        {name: float(values[at]) for name, values in columns.items() if own and is_number(values[at])}
        for at, own in enumerate(row["mask"] or [])
    ]


def written(value: float, name: str) -> str:
    """A number of a token, as it is read out."""
    if name == "gap":
        return f"{value:+.2e}"
    return f"{value:+.4f}" if BY[name].two_ends and name != "ratio" else f"{value:.4f}"


def _minus(a: float | None, b: float | None) -> float | None:
    return a - b if a is not None and b is not None else None


def _ratio(after: float | None, before: float | None) -> float | None:
    apart = _minus(after, before)
    return None if apart is None else math.exp(min(apart, 80.0))


def _from_middle(by: str, value: float) -> float:
    return value - 1 if by == "ratio" else value


def _level(by: str, value: float | None, most: float) -> int:
    """The colour of a token: by bounds where a scale has one end, else by its share of the largest."""
    middle = LEVELS // 2 if BY[by].two_ends else 0
    if value is None or not most:
        return middle
    if bounds := _BOUNDS.get(by):
        return sum(abs(value) > abs(bound) for bound in bounds)
    if by == "teacher":
        return middle + max(-middle, min(middle, round(1.5 * value)))
    return middle + round(middle * _from_middle(by, value) / most)


def _of_the_step(line: Mapping[str, Any], once: bool) -> list[tuple[str, str]]:
    """What is not written down token by token, and what the step says of it."""

    def known(name: str, form: str) -> str:
        value = line.get(name)
        return form.format(value) if isinstance(value, int | float) else "not measured"

    ratio = "1 for every token: a batch has one update, from the weights that sampled it" if once else ""
    clipped = "no token can be clipped" if once else "{} low and {} high".format(
        known("policy/clip_low", "{:.2%}"), known("policy/clip_high", "{:.2%}")
    )  # fmt: skip
    return [
        ("entropy", f"{known('policy/entropy', '{:.4f} nats')} a token"),
        ("sampler and learner apart", f"{known('policy/mismatch', '{:.2g} nats')} on average"),
        (
            "ratio during the update",
            ratio or f"{known('policy/ratio', '{:.4f}')} on average, at most {known('policy/ratio_max', '{:.3f}')}",
        ),
        ("clipped", clipped),
    ]
