"""From what a recipe says to a reward that can score: built-in name, `module:function`, or a callable."""

from __future__ import annotations

import importlib
import inspect
import math
import os
import re
import sys
import traceback
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from cohort.rewards.built_in import BUILT_IN, FUNCTIONS
from cohort.rewards.failure import one_line
from cohort.rewards.parameters import COMPLETION_NAMES, NATIVE_NAMES, TRL_NAMES, Parameters, did_you_mean
from cohort.rewards.reward import Reward, Style, check_names
from cohort.rewards.trl_style import TrlStyle
from cohort.types import UserError

__all__ = ["RewardSpec", "resolve", "resolve_all"]


@dataclass(frozen=True, slots=True)
class RewardSpec:
    """One `[[reward]]` of a recipe.

    `use` is a built-in name, "module:function", or a callable. `name` is what metrics call it (the function's name if
    not given). `args` are further keyword arguments of the function. `timeout_s` bounds the scoring of one group.
    """

    use: str | Callable[..., Any]
    weight: float = 1.0
    name: str | None = None
    style: Style = "cohort"
    args: Mapping[str, Any] = field(default_factory=dict)
    timeout_s: float = 60.0


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
    if inspect.iscoroutinefunction(function):
        raise UserError(f"reward '{name}' is an async function; wrap it in one that runs it, e.g. with asyncio.run")

    parameters = Parameters.of(function, name)
    given = NATIVE_NAMES if style == "cohort" else TRL_NAMES
    parameters.check_args(spec.args, given, name)
    if not has_answer and "answer" in parameters.required:
        raise UserError(
            f"reward '{name}' needs the gold answer, but the task has none: name its column with task.answer"
        )
    args = dict(spec.args)
    if built_in:
        args = {**_defaults(function, parameters), **args}  # spelt out, so that no column of that name gets in
        _check_built_in(parameters, args, name)
    elif columns is not None:
        parameters.check([*given, *spec.args, *(column for column in columns if column not in given)], name)
    if spec.weight and not any(parameters.takes(known) for known in COMPLETION_NAMES):
        theirs = "completion, tokens, finish or seed" if style == "cohort" else "completions"
        raise UserError(
            f"reward '{name}' would pay every completion of a prompt alike, because it takes no {theirs}; give it such "
            "a parameter, or weight 0 to only measure it"
        )
    return Reward(name, function, parameters, style, float(spec.weight), args, float(spec.timeout_s))


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
    if style == "trl" and built_in:
        raise UserError(f"reward '{name}' is built in and scores one completion at a time; leave style out")
    if not re.fullmatch(r"[\w.\-<>]+", name):
        raise UserError(f"a reward cannot be called {name!r}; use letters, digits, '_', '-' and '.'")
    if isinstance(spec.weight, bool) or not isinstance(spec.weight, (int, float)) or not math.isfinite(spec.weight):
        raise UserError(f"reward '{name}': weight is a finite number, not {spec.weight!r}")
    if isinstance(spec.timeout_s, bool) or not isinstance(spec.timeout_s, (int, float)) or not 0 < spec.timeout_s < 1e6:
        raise UserError(f"reward '{name}': timeout_s is a number of seconds above 0, not {spec.timeout_s!r}")


def _check_built_in(parameters: Parameters, args: Mapping[str, Any], name: str) -> None:
    missing = [known for known in parameters.required if known not in NATIVE_NAMES and known not in args]
    if missing:
        example = ", ".join(f"{known} = ..." for known in missing)
        raise UserError(f"reward '{name}' needs {' and '.join(missing)}; write args = {{ {example} }}")


def _defaults(function: Callable[..., Any], parameters: Parameters) -> dict[str, Any]:
    signature = inspect.signature(function).parameters
    return {known: signature[known].default for known in parameters.optional if known not in NATIVE_NAMES}


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
    module_name, _, attribute = use.partition(":")
    if not re.fullmatch(r"\w+(\.\w+)*", module_name) or module_name.endswith(".py") or not attribute:
        stem = re.sub(r"[\\/]+", ".", re.sub(r"\.py$", "", module_name)).strip(".")
        raise UserError(
            f'reward \'{use}\' is not of the form "module:function"; try "{stem}:{attribute or "function"}"'
        )
    found: Any = _import(module_name, use)
    for part in attribute.split("."):
        if not hasattr(found, part):
            functions = [key for key, value in vars(found).items() if callable(value) and not key.startswith("_")]
            where = getattr(found, "__file__", None) or module_name
            raise UserError(f"reward '{use}': {where} has no function '{part}'{did_you_mean(part, functions)}")
        found = getattr(found, part)
    if not callable(found):
        raise UserError(f"reward '{use}' is {type(found).__name__}, not a function")
    return found


def _import(name: str, use: str) -> ModuleType:
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)  # as `python -m` has it; the `cohort` command has only its own directory
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
            near = did_you_mean(name, (path.stem for path in Path(here).glob("*.py")))
            problem = f"there is no module '{name}'{near} in {here} or among the installed packages"
        else:
            problem = f"module '{name}' needs the package '{error.name}', which is not installed"
    except KeyboardInterrupt:  # Ctrl-C
        raise
    except BaseException as error:
        problem = f"module '{name}' cannot be imported: {type(error).__name__}: {one_line(error)}{_place(error)}"
    raise UserError(f"reward '{use}': {problem}")


def _place(error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        return ""  # its message names the file and the line
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    return f" at {frames[-1].filename}:{frames[-1].lineno}" if len(frames) > 1 else ""
