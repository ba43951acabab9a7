"""From what a recipe says to tools, or to an environment of the user's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cohort.environments.calculator import calculate
from cohort.environments.functions import tool_of
from cohort.environments.guarded import broken
from cohort.environments.http import http_tool
from cohort.environments.python import python_tool
from cohort.environments.tool import Tool
from cohort.environments.verifiers import VerifiersTurns
from cohort.types import Environment, InfrastructureError, UserError
from cohort.wording import find_function

__all__ = ["BUILT_IN", "build_environment", "build_tools"]

BUILT_IN: Mapping[str, Callable[..., Tool]] = {
    "calculator": lambda: tool_of(calculate, "calculator"),
    "python": python_tool,
    "http": http_tool,
}


def build_tools(
    uses: Sequence[str | Callable[..., Any]], args: Mapping[str, Any], timeout_s: float
) -> tuple[Tool, ...]:
    """The tools of a recipe: built-in names, "module:function" or functions. `args` has the settings of built-in ones
    by their name; a call of a user's function takes at most `timeout_s`. Raises UserError for whatever is wrong.
    """
    strange = [name for name in args if name not in BUILT_IN or name not in uses]
    if strange:
        raise UserError(
            f"environment.args.{strange[0]} has no effect: it is for one of the built-in tools ({', '.join(BUILT_IN)}) "
            "that environment.tools names"
        )
    return tuple(_tool(use, args, timeout_s) for use in uses)


def _tool(use: str | Callable[..., Any], args: Mapping[str, Any], timeout_s: float) -> Tool:
    if callable(use):
        return tool_of(use, timeout_s=timeout_s)
    if ":" in use:
        return tool_of(find_function(use, "tool"), timeout_s=timeout_s)
    if use not in BUILT_IN:
        raise UserError(
            f"there is no tool '{use}'; the built-in ones are {', '.join(BUILT_IN)}, and your own is named "
            '"module:function"'
        )
    return _called(BUILT_IN[use], args.get(use, {}), f"environment.args.{use}")


def build_environment(use: str | Callable[..., Any], args: Mapping[str, Any]) -> Environment:
    """The environment that a user's function makes from `args`, or the one of "verifiers" tasks. Raises UserError where
    there is none.
    """
    if use == "verifiers":
        use = VerifiersTurns
    if isinstance(use, str) and ":" not in use:
        hint = f', such as tools = ["{use}"]' if use in BUILT_IN else ""
        raise UserError(
            f'environment.use is "verifiers" or your own "module:function", not {use!r}; built-in tools are named in '
            f"environment.tools{hint}"
        )
    function = find_function(use, "environment") if isinstance(use, str) else use
    made = _called(function, args, "environment.args")
    for method in ("reset", "step"):
        if not callable(getattr(made, method, None)):
            raise UserError(
                f"environment.use made {type(made).__name__}, which has no method {method}; it needs reset and step"
            )
    environment: Environment = made
    return environment


def _called(function: Callable[..., Any], args: Any, where: str) -> Any:
    if not isinstance(args, Mapping):
        raise UserError(f"{where} is a table of settings, not {args!r}")
    try:
        return function(**args)
    except UserError:
        raise
    except InfrastructureError as error:
        raise UserError(f"{where}: {error}") from error
    except Exception as error:
        inside = error.__traceback__ is not None and error.__traceback__.tb_next is not None
        if isinstance(error, TypeError) and not inside:  # a setting too many, or one that is missing
            raise UserError(f"{where}: {error}") from None
        raise broken(f"the function called with {where}", error, "Mend it, or what it is called with") from error
