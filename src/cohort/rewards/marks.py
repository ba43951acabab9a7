"""What a reward function can say about itself: how a row is checked before the run, after how many seconds it stops,
what it loads before its first call, in which form it is written.

    def number(answer, unit="m"):                 # parameters go by name, as those of the reward do
        float(answer)                             # ValueError: this row's answer cannot be scored

    @checked_by(number)
    def metres(completion, answer, unit="m"): ...
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

CHECK = "check_answer"
GOLD = "gold"
STEPWISE = "cohort_stepwise"
TRL = "cohort_trl"
_LIMIT = "completion_limit"
_PREPARE = "cohort_prepare"  # a person's own callable may well have a method of a shorter name
Function = TypeVar("Function", bound=Callable[..., Any])


def _marked(name: str, value: Any) -> Callable[[Function], Function]:
    def mark(function: Function) -> Function:
        setattr(function, name, value)
        return function

    return mark


def checked_by(check: Callable[..., Any]) -> Callable[[Function], Function]:
    """Give a reward function its `check_answer`: before a run it is called for every row, with `answer`, `row`,
    `prompt`, any column and the reward's args by name, and raises ValueError where the reward could not score that row.
    """
    return _marked(CHECK, check)


def stops_after(argument: str) -> Callable[[Function], Function]:
    """Say that the function's argument called `argument` is its own limit: the seconds of processor time after which it
    stops working on a completion. A group may then take that much longer for each of its completions.
    """
    return _marked(_LIMIT, argument)


def own_limit_s(function: Callable[..., Any], args: Mapping[str, Any]) -> float:
    """The seconds of `stops_after`; 0 for a function that does not stop by itself."""
    return float(args.get(getattr(function, _LIMIT, ""), 0.0))


def prepared_by(load: Callable[..., Any]) -> Callable[[Function], Function]:
    """Give a reward function its `load`: it is called with the reward's args when a worker starts, under the worker's
    time to start rather than the group's time to be scored.
    """
    return _marked(_PREPARE, load)


def prepare(function: Callable[..., Any], args: Mapping[str, Any]) -> None:
    """Call the `load` that `prepared_by` gave to the function, if it has one, with the reward's args."""
    load = getattr(function, _PREPARE, None)
    if load is not None:
        load(**args)


def stated_by(state: Callable[..., str | None]) -> Callable[[Function], Function]:
    """Give a reward function its `gold`: a function that makes the text which a right completion states.

    It is called with `answer`, `row`, `prompt`, any column and the reward's args by name, and returns None where the
    answer column holds no such text (but tests of code, for example). The gate writes the text into completions that
    must be paid. For a function without this mark, the text is the answer itself.
    """
    return _marked(GOLD, state)


# Says that a call costs money or much time. The gate then asks the function for few scores, and before a run only if it
# is the one that decides what is right.
costly = _marked("costly", True)

# Says that the function scores the steps of completions rather than completions.
stepwise = _marked(STEPWISE, True)


def trl(function: Callable[..., Any]) -> Callable[..., Any]:
    """Say that the function is one for TRL: `(prompts, completions, **columns) -> list[float]`, called once a group.

    In a recipe, `style = "trl"` says the same. A bound method, which takes no mark, comes back wrapped.
    """
    try:
        setattr(function, TRL, True)
    except AttributeError:
        function = functools.partial(function)
        setattr(function, TRL, True)
    return function


def is_costly(function: Callable[..., Any]) -> bool:
    """Whether the function is marked as `costly`."""
    return has(function, "costly")


def has(function: Callable[..., Any], mark: str) -> bool:
    """Whether the function has the mark STEPWISE or TRL."""
    return bool(getattr(function, mark, False))
