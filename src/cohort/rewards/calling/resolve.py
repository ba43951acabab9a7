"""From a `[[reward]]` table, which names a built-in, a "module:function" or a callable, to a reward that can score.

All that can be checked before the function is called is checked here, in one sentence for whatever is wrong.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from cohort.rewards.built_in import BUILT_IN
from cohort.rewards.calling.parameters import COMPLETION_NAMES, NATIVE_NAMES, TRL_NAMES, Parameters
from cohort.rewards.calling.reward import Reward, Style, check_names
from cohort.rewards.calling.steps import splitter
from cohort.rewards.combination import Gate
from cohort.rewards.marks import STEPWISE, TRL, has, own_limit_s
from cohort.types import UserError
from cohort.wording import did_you_mean, find_function

if TYPE_CHECKING:
    from cohort.settings.reward import Reward as RewardTable


def resolve(table: RewardTable, columns: Collection[str] | None = None, has_answer: bool = True) -> Reward:
    """Find the function of a table and check it against the table and the task. Raises UserError.

    With the task's `columns`, parameters that nothing can fill are refused here; without, at the first scoring.
    `has_answer` says whether the task has gold answers.
    """
    name = table.name
    built_in = isinstance(table.use, str) and ":" not in table.use
    function = _find(table.use) if isinstance(table.use, str) else table.use
    if table.style == "trl" and built_in:
        raise UserError(f"reward '{name}' is built in and knows its own style; leave style out")
    if not re.fullmatch(r"[\w.\-<>]+", name):
        raise UserError(f"a reward cannot be called {name!r}; use letters, digits, '_', '-' and '.'")
    style: Style = "trl" if has(function, TRL) else table.style
    split = _split_of(table, function, built_in)
    parameters = Parameters.of(function, name)
    given = _given(style, split)
    args = _args(function, parameters, table.args, given, built_in, name)
    if not has_answer and "answer" in parameters.required:
        raise UserError(
            f"reward '{name}' needs the gold answer, but the task has none: name its column with task.answer"
        )
    if columns is not None and not built_in:
        parameters.check([*given, *args, *(column for column in columns if column not in given)], name)
    differing = COMPLETION_NAMES if split is None else (*COMPLETION_NAMES, "steps")
    if table.weight and not any(parameters.takes(known) for known in differing):
        theirs = "completion, tokens, finish or seed" if style == "cohort" else "completions"
        raise UserError(
            f"reward '{name}' would pay every completion of a prompt alike, because it takes no {theirs}; give it such "
            "a parameter, or weight 0 to only measure it"
        )
    for column in table.when:
        if columns is not None and column not in columns and column.partition(".")[0] not in columns:
            raise UserError(
                f"reward '{name}' asks for the column '{column}' in `when`{did_you_mean(column, columns)}, which the "
                f"task does not have; it has {', '.join(columns) or 'none besides the question and the answer'}"
            )
    return Reward(
        name,
        function,
        parameters,
        style,
        float(table.weight),
        args,
        timeout_s=float(table.timeout_s),
        completion_timeout_s=own_limit_s(function, args),
        gate=None if table.gate is None else Gate(table.gate, table.gate_at, table.gate_else),
        when=dict(table.when),
        split=split,
        fold=table.fold,
    )


def resolve_all(
    tables: Iterable[RewardTable], columns: Collection[str] | None = None, has_answer: bool = True
) -> tuple[Reward, ...]:
    """Resolve every reward of a recipe, and refuse two of one name."""
    rewards = tuple(resolve(table, columns, has_answer) for table in tables)
    check_names(rewards)
    return rewards


def reward_called(use: str, args: Mapping[str, Any]) -> Reward:
    """A reward with nothing but its args, as another reward asks it; it needs no table, and so no pydantic in a worker.

    Raises UserError where there is no such reward, or the args do not fit it.
    """
    function = _find(use)
    style: Style = "trl" if has(function, TRL) else "cohort"
    split = splitter("blank_lines", use) if has(function, STEPWISE) else None
    parameters = Parameters.of(function, use)
    filled = _args(function, parameters, args, _given(style, split), ":" not in use, use)
    return Reward(use, function, parameters, style, 1.0, filled, math.inf, split=split)


def _split_of(table: RewardTable, function: Callable[..., Any], built_in: bool) -> re.Pattern[str] | None:
    """What separates the steps that a reward scores; None for one that scores whole completions."""
    name, split, fold = table.name, table.split, table.fold
    if built_in and not has(function, STEPWISE):
        if split is not None or fold is not None:
            raise UserError(f"reward '{name}' is built in and scores whole completions; leave split and fold out")
        return None
    if split is None and not has(function, STEPWISE):
        if fold is not None:
            raise UserError(f"reward '{name}': fold makes one score of several steps; say with split what steps are")
        return None
    return splitter(split or "blank_lines", name)


def _given(style: Style, split: re.Pattern[str] | None) -> tuple[str, ...]:
    """The parameters that are filled from a completion and its prompt."""
    names = NATIVE_NAMES if style == "cohort" else TRL_NAMES
    return names if split is None else (*names, "steps")


def _args(
    function: Callable[..., Any],
    parameters: Parameters,
    args: Mapping[str, Any],
    given: Collection[str],
    built_in: bool,
    name: str,
) -> dict[str, Any]:
    """The args of a reward, checked; those of a built-in one are spelt out, so that no column of that name gets in."""
    parameters.check_args(args, given, name)
    if not built_in:
        return dict(args)
    signature = inspect.signature(function).parameters
    filled = {known: signature[known].default for known in parameters.optional if known not in given} | dict(args)
    missing = [known for known in parameters.required if known not in given and known not in filled]
    if missing:
        example = ", ".join(f"{known} = ..." for known in missing)
        raise UserError(f"reward '{name}' needs {' and '.join(missing)}; write args = {{ {example} }}")
    return filled


def _find(use: str) -> Callable[..., Any]:
    if ":" not in use and use not in BUILT_IN:
        hint = did_you_mean(use, BUILT_IN)
        raise UserError(
            f"there is no built-in reward '{use}'{hint}; built in are {', '.join(BUILT_IN)}, and your own function is "
            'written "module:function"'
        )
    found: Callable[..., Any] = find_function(use if ":" in use else BUILT_IN[use].function, "reward")
    return found
