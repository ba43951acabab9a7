"""From what a recipe says to a reward that can score: built-in name, `module:function`, or a callable."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cohort.rewards.built_in import BUILT_IN, FUNCTIONS
from cohort.rewards.combination import Gate
from cohort.rewards.marks import is_stepwise, own_limit_s
from cohort.rewards.parameters import COMPLETION_NAMES, NATIVE_NAMES, TRL_NAMES, Parameters
from cohort.rewards.reward import Reward, Style, check_names
from cohort.rewards.routing import check_when
from cohort.rewards.steps import FOLDS, Fold, splitter
from cohort.rewards.trl_style import TrlStyle
from cohort.types import UserError
from cohort.wording import did_you_mean, find_function

__all__ = ["RewardSpec", "resolve", "resolve_all"]


@dataclass(frozen=True, slots=True)
class RewardSpec:
    """One `[[reward]]` of a recipe.

    `use` is a built-in name, "module:function", or a callable. `name` is what metrics call it (the function's name if
    not given). `args` are further keyword arguments of the function. `timeout_s` bounds the scoring of one group.
    `gate` and `when` are those of `Reward`. `split` says what separates the steps that the function scores ("lines",
    "blank_lines" or a regular expression); `fold` makes one score of theirs.
    """

    use: str | Callable[..., Any]
    weight: float = 1.0
    name: str | None = None
    style: Style = "cohort"
    args: Mapping[str, Any] = field(default_factory=dict)
    timeout_s: float = 60.0
    gate: Gate | None = None
    when: Mapping[str, Any] = field(default_factory=dict)
    split: str | None = None
    fold: Fold | None = None


def resolve(spec: RewardSpec, columns: Collection[str] | None = None, has_answer: bool = True) -> Reward:
    """Find the function and check everything that can be checked before it is called.

    With the task's `columns`, parameters that nothing can fill are refused here; without, at the first scoring.
    `has_answer` says whether the task has gold answers.
    """
    built_in = isinstance(spec.use, str) and ":" not in spec.use
    function = _find(spec.use) if isinstance(spec.use, str) else spec.use
    style = spec.style
    if isinstance(function, TrlStyle):
        function, style = function.function, "trl"
    if not callable(function):
        raise UserError(f'a reward is a name, "module:function" or a function, not {function!r}')
    name = spec.name if spec.name is not None else (str(spec.use) if built_in else _name_of(function))
    _check_values(spec, name, style, built_in)

    split = _split_of(spec, function, name, built_in)
    parameters = Parameters.of(function, name)
    given = NATIVE_NAMES if style == "cohort" else TRL_NAMES
    given = given if split is None else (*given, "steps")
    parameters.check_args(spec.args, given, name)
    if not has_answer and "answer" in parameters.required:
        raise UserError(
            f"reward '{name}' needs the gold answer, but the task has none: name its column with task.answer"
        )
    args = dict(spec.args)
    if built_in:
        args = {**_defaults(function, parameters, given), **args}  # spelt out, so that no column of that name gets in
        _check_built_in(parameters, args, given, name)
    elif columns is not None:
        parameters.check([*given, *spec.args, *(column for column in columns if column not in given)], name)
    differing = COMPLETION_NAMES if split is None else (*COMPLETION_NAMES, "steps")
    if spec.weight and not any(parameters.takes(known) for known in differing):
        theirs = "completion, tokens, finish or seed" if style == "cohort" else "completions"
        raise UserError(
            f"reward '{name}' would pay every completion of a prompt alike, because it takes no {theirs}; give it such "
            "a parameter, or weight 0 to only measure it"
        )
    check_when(spec.when, columns, name)
    return Reward(
        name,
        function,
        parameters,
        style,
        float(spec.weight),
        args,
        timeout_s=float(spec.timeout_s),
        completion_timeout_s=own_limit_s(function, args),
        gate=spec.gate,
        when=dict(spec.when),
        split=split,
        fold=spec.fold,
    )


def _split_of(spec: RewardSpec, function: Callable[..., Any], name: str, built_in: bool) -> re.Pattern[str] | None:
    """What separates the steps that a reward scores; None for one that scores whole completions."""
    if built_in and not is_stepwise(function):
        if spec.split is not None or spec.fold is not None:
            raise UserError(f"reward '{name}' is built in and scores whole completions; leave split and fold out")
        return None
    if spec.fold is not None and spec.fold not in FOLDS:
        raise UserError(f"reward '{name}': fold is one of {', '.join(FOLDS)}, not {spec.fold!r}")
    if spec.split is None and not is_stepwise(function):
        if spec.fold is not None:
            raise UserError(f"reward '{name}': fold makes one score of several steps; say with split what steps are")
        return None
    return splitter(spec.split or "blank_lines", name)


def resolve_all(
    specs: Iterable[RewardSpec], columns: Collection[str] | None = None, has_answer: bool = True
) -> tuple[Reward, ...]:
    """Resolve every reward of a recipe, and refuse two of one name."""
    rewards = tuple(resolve(spec, columns, has_answer) for spec in specs)
    check_names(rewards)
    return rewards


def _check_values(spec: RewardSpec, name: str, style: str, built_in: bool) -> None:
    if style not in ("cohort", "trl"):
        raise UserError(f'reward \'{name}\': style is "cohort" or "trl", not {style!r}')
    if spec.style == "trl" and built_in:
        raise UserError(f"reward '{name}' is built in and knows its own style; leave style out")
    if not re.fullmatch(r"[\w.\-<>]+", name):
        raise UserError(f"a reward cannot be called {name!r}; use letters, digits, '_', '-' and '.'")
    if isinstance(spec.weight, bool) or not isinstance(spec.weight, (int, float)) or not math.isfinite(spec.weight):
        raise UserError(f"reward '{name}': weight is a finite number, not {spec.weight!r}")
    if isinstance(spec.timeout_s, bool) or not isinstance(spec.timeout_s, (int, float)) or not 0 < spec.timeout_s < 1e6:
        raise UserError(f"reward '{name}': timeout_s is a number of seconds above 0, not {spec.timeout_s!r}")


def _check_built_in(parameters: Parameters, args: Mapping[str, Any], given: Collection[str], name: str) -> None:
    missing = [known for known in parameters.required if known not in given and known not in args]
    if missing:
        example = ", ".join(f"{known} = ..." for known in missing)
        raise UserError(f"reward '{name}' needs {' and '.join(missing)}; write args = {{ {example} }}")


def _defaults(function: Callable[..., Any], parameters: Parameters, given: Collection[str]) -> dict[str, Any]:
    signature = inspect.signature(function).parameters
    return {known: signature[known].default for known in parameters.optional if known not in given}


def _name_of(function: Callable[..., Any]) -> str:
    while hasattr(function, "func"):  # functools.partial
        function = function.func
    name = getattr(function, "__name__", type(function).__name__)
    return "lambda" if name == "<lambda>" else name


def _find(use: str) -> Callable[..., Any]:
    if ":" not in use:
        if use in FUNCTIONS:
            return FUNCTIONS[use]
        hint = did_you_mean(use, BUILT_IN)
        raise UserError(
            f"there is no built-in reward '{use}'{hint}; built in are {', '.join(BUILT_IN)}, and your own function is "
            'written "module:function"'
        )
    return find_function(use, "reward")
