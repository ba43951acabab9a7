"""From what a recipe names to tools, or to an environment of the user's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cohort.environments.foreign_code import broken
from cohort.environments.tool import Tool, tool_of
from cohort.types import Environment, InfrastructureError, UserError
from cohort.wording import find_function

__all__ = ["ENVIRONMENTS", "TOOLS", "build_environment", "build_tools"]

# The built-in tools, and where the function is that makes one from its settings, as "module:function".
TOOLS: Mapping[str, str] = {
    "calculator": "cohort.environments.calculator:calculator_tool",
    "python": "cohort.environments.python:python_tool",
    "http": "cohort.environments.http:http_tool",
}
# Environments of other libraries, and where each is.
ENVIRONMENTS: Mapping[str, str] = {"verifiers": "cohort.integrations.verifiers.environment:VerifiersTurns"}


def build_tools(
    uses: Sequence[str | Callable[..., Any]], args: Mapping[str, Any], timeout_s: float
) -> tuple[Tool, ...]:
    """The tools of a recipe: built-in names, "module:function" or functions. `args` has the settings of built-in ones
    by their name; a call of a user's function takes at most `timeout_s`. Raises UserError for whatever is wrong.
    """
    strange = [name for name in args if name not in TOOLS or name not in uses]
    if strange:
        raise UserError(
            f"environment.args.{strange[0]} has no effect: it is for one of the built-in tools ({', '.join(TOOLS)}) "
            "that environment.tools names"
        )
    return tuple(_tool(use, args, timeout_s) for use in uses)


def _tool(use: str | Callable[..., Any], args: Mapping[str, Any], timeout_s: float) -> Tool:
    if isinstance(use, str) and use in TOOLS:
        made: Tool = _called(find_function(TOOLS[use], "tool"), args.get(use, {}), f"environment.args.{use}")
        return made
    if isinstance(use, str) and ":" not in use:
        raise UserError(
            f"there is no tool '{use}'; the built-in ones are {', '.join(TOOLS)}, and your own is named "
            '"module:function"'
        )
    return tool_of(find_function(use, "tool") if isinstance(use, str) else use, timeout_s=timeout_s)


def build_environment(use: str | Callable[..., Any], args: Mapping[str, Any]) -> Environment:
    """The environment that a function makes from `args`: a user's function, or the one that `ENVIRONMENTS` names.
    Raises UserError where there is none.
    """
    if isinstance(use, str) and ":" not in use and use not in ENVIRONMENTS:
        hint = f', such as tools = ["{use}"]' if use in TOOLS else ""
        raise UserError(
            f'environment.use is "{", ".join(ENVIRONMENTS)}" or your own "module:function", not {use!r}; built-in '
            f"tools are named in environment.tools{hint}"
        )
    function = find_function(ENVIRONMENTS.get(use, use), "environment") if isinstance(use, str) else use
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
