"""A tool: its name and its arguments, how a call is run, and what becomes of each way in which a call can fail."""

from __future__ import annotations

import inspect
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from cohort.environments.foreign_code import THE_WORLD, HangsError, broken, in_time
from cohort.types import InfrastructureError, ToolCall, UserError
from cohort.wording import one_line

__all__ = ["Tool", "ToolError", "tool_of"]

_TO_THE_MODEL = (ValueError, ArithmeticError, LookupError)  # raised where a call asks for the wrong thing
_PAUSE_S = 0.2  # before the first retry; twice as long before each next one


class ToolError(Exception):
    """The call asked for something that cannot be done. The message goes to the model, which may try again."""


@dataclass(frozen=True, slots=True)
class Tool:
    """Something the policy may call.

    `schema` is its JSON schema as chat templates take it. `run` gets the arguments by name and returns the result.
    `timeout_s` bounds a call by the clock; None for a tool that stops by itself. `close` gives back what it holds.
    """

    name: str
    schema: Mapping[str, Any]
    run: Callable[..., Any]
    timeout_s: float | None = None
    close: Callable[[], None] = field(default=lambda: None)

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The JSON schema of the arguments."""
        found: Mapping[str, Any] = self.schema["function"]["parameters"]
        return found

    def call(self, arguments: Mapping[str, Any], retries: int = 0) -> ToolCall:
        """Run one call whose arguments fit the schema.

        Raises InfrastructureError when the world failed, in `retries` further tries too (a tool that hangs is not tried
        again), and UserError when the tool's own code is broken. Everything else is an answer.
        """
        try:
            result = self._stubbornly(arguments, retries)
        except ToolError as error:
            return self._failed(arguments, str(error))
        except _TO_THE_MODEL as error:
            return self._failed(arguments, f"{type(error).__name__}: {one_line(error)}")
        except THE_WORLD as error:
            why = one_line(error) or type(error).__name__
            raise InfrastructureError(f"the tool '{self.name}' failed: {why}") from error
        except (UserError, KeyboardInterrupt):
            raise
        except BaseException as error:
            what = f"the tool '{self.name}', called with {_written(arguments)[:200]},"
            advice = (
                "Mend it; or raise ToolError or ValueError for what the model should be told, and InfrastructureError "
                "for what may pass"
            )
            raise broken(what, error, advice) from error
        return ToolCall(self.name, arguments, _text(result))

    def _stubbornly(self, arguments: Mapping[str, Any], retries: int) -> Any:
        run = partial(self.run, **arguments)
        for attempt in range(retries):
            try:
                return in_time(run, self.timeout_s)
            except HangsError:
                raise
            except THE_WORLD:
                time.sleep(_PAUSE_S * 2**attempt)
        return in_time(run, self.timeout_s)

    def _failed(self, arguments: Mapping[str, Any], why: str) -> ToolCall:
        return ToolCall(self.name, arguments, _text(f"error: {why}"), failed=True)


def tool_of(function: Callable[..., Any], name: str | None = None, timeout_s: float | None = None) -> Tool:
    """The tool that calls `function`. Its docstring says what it does and, under "Args:", what each parameter is.

    Raises UserError where the schema cannot be derived.
    """
    from transformers.utils import get_json_schema

    called = name or str(getattr(function, "__name__", type(function).__name__))
    if inspect.iscoroutinefunction(function):
        raise UserError(f"the tool '{called}' is an async function; wrap it in one that runs it, e.g. with asyncio.run")
    try:
        schema = get_json_schema(function)
    except Exception as error:  # transformers has a class for each mistake, and plain ones for others
        raise UserError(
            f"the tool '{called}' does not say what it takes: {' '.join(str(error).split())}. Give every parameter a "
            'type hint and a line under "Args:" in the docstring, whose first line says what the tool does'
        ) from None
    described = {**schema["function"], "name": called}
    described.pop("return", None)  # few chat templates know it
    return Tool(called, {"type": "function", "function": described}, function, timeout_s)


def _text(result: Any) -> str:
    """A result as text; half characters, which no tokenizer takes, are replaced."""
    text = result if isinstance(result, str) else _written(result)
    return text.encode("utf-8", "replace").decode()


def _written(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
