"""From a function to a tool: its schema from its type hints and docstring, checked by calling it by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from cohort.environments.tool import Tool
from cohort.types import UserError

__all__ = ["tool_of"]


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


def checker(parameters: Mapping[str, Any]) -> Callable[[Mapping[str, Any]], str | None]:
    """What is wrong with arguments by a JSON schema, in one line; None when nothing is."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    validator = Draft202012Validator({**_standard(parameters), "additionalProperties": False})

    def check(arguments: Mapping[str, Any]) -> str | None:
        error = best_match(validator.iter_errors(arguments))
        if error is None:
            return None
        where = "".join(f"{part}: " for part in error.absolute_path)
        return f"{where}{error.message}"[:300]

    return check


def _standard(schema: Any) -> Any:
    """`nullable`, which transformers writes for `X | None`, in the words of JSON Schema."""
    if isinstance(schema, list):
        return [_standard(part) for part in schema]
    if not isinstance(schema, Mapping):
        return schema
    plain = {key: _standard(value) for key, value in schema.items() if key != "nullable"}
    return {"anyOf": [plain, {"type": "null"}]} if schema.get("nullable") is True else plain
