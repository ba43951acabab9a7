"""What the fields with several parts hold, read and checked: a wrong part is named, with what to write instead."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from cohort.algorithms.kinds import nearest

OFF = (None, "off")

# What a filter measures of old policy / sampler, and what is left out by it.
MEASURES: Mapping[str, str] = {
    "token": "tokens by their own ratio",
    "sequence": "completions by the product of their tokens' ratios",
    "geometric": "completions by the geometric mean of their tokens' ratios",
    "outlier": "completions with any token's ratio outside",
    "k3_mean": "completions by the mean of w - 1 - ln w",
    "second_moment": "the tokens furthest apart, until the mean of the others' squared log-ratios is below the bound",
}

Filter = tuple[str, float | None, float | None]


def filters(name: str, value: Any) -> tuple[Filter, ...]:
    """(measure, low, high) each; a bound may be "off" or None, not both."""
    return tuple(_filter(f"{name}[{at}]", part) for at, part in enumerate(_parts(name, value, "(measure, low, high)")))


def _filter(name: str, part: Any) -> Filter:
    measure, *given = _sized(name, part, (3,), "(measure, low, high)")
    if measure not in tuple(MEASURES):
        raise ValueError(f"{name}: {measure!r} is no measure{nearest(measure, MEASURES)}")
    low, high = (None if bound in OFF else number(name, bound) for bound in given)
    if low is None and high is None:
        raise ValueError(f"{name} has no bound, so {measure!r} leaves nothing out: set one, or remove it")
    if measure in ("k3_mean", "second_moment"):
        if low is not None or high is None or high <= 0:
            raise ValueError(f"{name}: {measure!r} is never negative: low must be off, and high greater than 0")
    elif not (low or 0.0) <= 1 <= (math.inf if high is None else high):
        raise ValueError(
            f"{name}: bounds {low} and {high} exclude 1: what sampler and learner agree on would be left out; choose "
            "bounds on old policy / sampler with low <= 1 <= high"
        )
    return measure, low, high


def number(name: str, value: Any) -> float:
    """A finite number as a float."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{name}: {value!r} must be a finite number")
    return float(value) + 0.0


def _parts(name: str, value: Any, form: str) -> tuple[Any, ...]:
    if value in OFF:
        return ()
    if not isinstance(value, list | tuple):
        raise ValueError(f"{name}={value!r} must be a list of {form}, or () for none")
    return tuple(value)


def _sized(name: str, part: Any, sizes: tuple[int, ...], form: str) -> tuple[Any, ...]:
    if not isinstance(part, list | tuple) or len(part) not in sizes:
        raise ValueError(f"{name}={part!r} must be {form}")
    return tuple(part)
