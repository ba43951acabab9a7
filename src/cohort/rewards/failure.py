"""The two ways in which scoring fails: a reward function is broken, or something that it needs did not answer.

Neither is ever a score.
"""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from cohort.types import InfrastructureError, UserError
from cohort.wording import one_line


class RewardFailure(UserError):  # noqa: N818 (public name)
    """A reward function raised, or returned something that is not a score. The run stops; nothing is scored 0.

    It holds only text, so it crosses process borders whatever the function raised.
    """

    def __init__(self, reward: str, problem: str, prompt: str | None = None, completion: str | None = None) -> None:
        super().__init__(reward, problem, prompt, completion)  # all of them: pickle calls the class with `args`
        self.reward, self.problem, self.prompt, self.completion = reward, problem, prompt, completion

    def __str__(self) -> str:
        seen = [f"{label} {text}" for label, text in (("prompt", self.prompt), ("completion", self.completion)) if text]
        context = f" [{', '.join(seen)}]" if seen else ""
        return f"reward '{self.reward}' {self.problem}{context}"


class GroupLost(InfrastructureError):  # noqa: N818 (what became of the group)
    """A group that could not be scored, because a worker hung or died, or because what a reward asked (a sandbox, a
    server) did not answer. The group is dropped and counted.

    `reward` is the one that was running (None: the worker did not start), `timeout` says that it ran out of time, and
    `retries` how often each reward was tried again.
    """

    def __init__(self, sentence: str, reward: str | None, timeout: bool, retries: Mapping[str, int]) -> None:
        super().__init__(sentence)
        self.reward, self.timeout, self.retries = reward, timeout, retries

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (*self.args, self.reward, self.timeout, self.retries)  # as pickle has it


def what_was_raised(error: BaseException, function: Callable[..., Any]) -> str:
    """`ZeroDivisionError: division by zero at my_rewards.py:12`: the function's own line, then where it was raised."""
    text = one_line(error)
    said = f"{type(error).__name__}: {text}" if text else type(error).__name__
    frames = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)][1:]
    if not frames:  # the first frame is ours; without a second the call itself failed
        return said
    home = _file_of(function)
    own = next(((file, line) for file, line in reversed(frames) if file == home), frames[-1])
    place = f"{own[0]}:{own[1]}"
    if frames[-1] != own:
        place += f" (raised in {frames[-1][0]}:{frames[-1][1]})"
    return f"{said} at {place}"


def _file_of(function: Callable[..., Any]) -> str | None:
    while hasattr(function, "func"):  # functools.partial
        function = function.func
    function = inspect.unwrap(function)
    code = getattr(function, "__code__", None) or getattr(getattr(type(function), "__call__", None), "__code__", None)  # noqa: B004
    return code.co_filename if code is not None else None
