"""What a reward function can say about itself: how a row is checked before the run, when it stops by itself, what it
loads before its first call, in which form it is written.

    def number(answer, unit="m"):                 # parameters go by name, as those of the reward do
        float(answer)                             # ValueError: this row's answer cannot be scored

    @checked_by(number)
    def metres(completion, answer, unit="m"): ...
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

__all__ = [
    "CHECK",
    "GOLD",
    "checked_by",
    "costly",
    "is_costly",
    "is_stepwise",
    "is_trl",
    "own_limit_s",
    "prepare",
    "prepared_by",
    "stated_by",
    "stepwise",
    "stops_after",
    "trl",
]

CHECK = "check_answer"
GOLD = "gold"
_LIMIT = "completion_limit"
_PREPARE = "cohort_prepare"  # a person's own callable may well have a method of a shorter name
_STEPWISE = "cohort_stepwise"
_TRL = "cohort_trl"
Function = TypeVar("Function", bound=Callable[..., Any])


def checked_by(check: Callable[..., Any]) -> Callable[[Function], Function]:
    """Give a reward function its `check_answer`: before a run it is called for every row, with `answer`, `row`,
    `prompt`, any column and the reward's args by name, and raises ValueError where the reward could not score that row.
    """

    def mark(function: Function) -> Function:
        setattr(function, CHECK, check)
        return function

    return mark


def stops_after(argument: str) -> Callable[[Function], Function]:
    """Say that the function stops working on a completion after so many seconds of processor time as its argument
    called `argument` tells, so that a group may take that much longer for each of its completions.
    """

    def mark(function: Function) -> Function:
        setattr(function, _LIMIT, argument)
        return function

    return mark


def own_limit_s(function: Callable[..., Any], args: Mapping[str, Any]) -> float:
    """The seconds of `stops_after`; 0 for a function that does not stop by itself."""
    return float(args.get(getattr(function, _LIMIT, ""), 0.0))


def prepared_by(load: Callable[..., Any]) -> Callable[[Function], Function]:
    """Give a reward function its `load`: it is called with the reward's args when a worker starts, under the worker's
    time to start rather than the group's time to be scored.
    """

    def mark(function: Function) -> Function:
        setattr(function, _PREPARE, load)
        return function

    return mark


def prepare(function: Callable[..., Any], args: Mapping[str, Any]) -> None:
    """Do what `prepared_by` says; nothing for a function that has nothing to load."""
    load = getattr(function, _PREPARE, None)
    if load is not None:
        load(**args)


def stated_by(state: Callable[..., str | None]) -> Callable[[Function], Function]:
    """Give a reward function its `gold`: what a right completion states, as text, made of `answer`, `row`, `prompt`,
    any column and the reward's args by name; None where the answer column holds no such thing (but tests, say). The
    gate writes it into completions that must pay. Without the mark that is the answer itself.
    """

    def mark(function: Function) -> Function:
        setattr(function, GOLD, state)
        return function

    return mark


def costly(function: Function) -> Function:
    """Say that the function costs money or much time: the gate asks it little, and before a run only if it decides."""
    function.costly = True  # type: ignore[attr-defined]
    return function


def is_costly(function: Callable[..., Any]) -> bool:
    """Whether the function is marked as `costly`."""
    return bool(getattr(function, "costly", False))


def stepwise(function: Function) -> Function:
    """Say that the function scores the steps of completions rather than completions."""
    setattr(function, _STEPWISE, True)
    return function


def is_stepwise(function: Callable[..., Any]) -> bool:
    """Whether the function is marked as `stepwise`."""
    return bool(getattr(function, _STEPWISE, False))


def trl(function: Callable[..., Any]) -> Callable[..., Any]:
    """Say that the function is one for TRL: `(prompts, completions, **columns) -> list[float]`, called once a group.

    In a recipe, `style = "trl"` says the same. A bound method, which takes no mark, comes back wrapped.
    """
    try:
        setattr(function, _TRL, True)
    except AttributeError:
        function = functools.partial(function)
        setattr(function, _TRL, True)
    return function


def is_trl(function: Callable[..., Any]) -> bool:
    """Whether the function is marked with `trl`."""
    return bool(getattr(function, _TRL, False))
