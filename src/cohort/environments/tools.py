"""The environment of tools: the policy writes calls, the tools answer, and a turn without a call is its last."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cohort.environments.formats import Call, Format
from cohort.environments.tool import Tool
from cohort.types import Observation, Prompt, ToolCall, UserError

__all__ = ["Tools"]

_MOST_CALLS = 8  # calls of one turn that are run; the others are refused


class Tools:
    """Runs the calls of a turn, one after the other, and answers with a message for each.

    A call whose tool failed for the world's sake is tried `retries` more times; wrong arguments are never tried again.
    """

    def __init__(self, tools: Sequence[Tool], chosen: Format, retries: int = 2) -> None:
        self._tools = {tool.name: tool for tool in tools}
        if len(self._tools) < len(tools):
            raise UserError(f"two tools have the same name: {', '.join(tool.name for tool in tools)}")
        self._check = {tool.name: checker(tool.parameters) for tool in tools}
        self._format, self._retries = chosen, retries

    def reset(self, prompt: Prompt, seed: int) -> None:
        """Tools remember nothing between calls."""

    def step(self, state: None, reply: str) -> Observation:
        """Run the calls that the reply holds. See `Tool.call` for what it raises."""
        written = self._format.calls(reply)
        calls = [self._run(call) for call in written[:_MOST_CALLS]]
        calls += [_refused(call, f"a turn has at most {_MOST_CALLS} calls") for call in written[_MOST_CALLS:]]
        messages = tuple({"role": "tool", "name": call.name, "content": call.result} for call in calls)
        return Observation(messages, tuple(calls))

    def _run(self, call: Call) -> ToolCall:
        if call.problem is not None:
            return _refused(call, call.problem)
        tool = self._tools.get(call.name)
        if tool is None:
            return _refused(call, f"there is no tool {call.name[:50]!r}; there is {', '.join(self._tools)}")
        arguments = _by_name(call.arguments, tool)
        if arguments is None:
            names = ", ".join(tool.parameters.get("properties", {}))
            return _refused(call, f"{tool.name} takes a JSON object with {names or 'nothing in it'}")
        problem = self._check[tool.name](arguments)
        if problem is not None:
            return ToolCall(tool.name, arguments, f"error: {problem}", failed=True)
        return tool.call(arguments, self._retries)


def _by_name(given: Mapping[str, Any] | str, tool: Tool) -> Mapping[str, Any] | None:
    """The arguments by name: a text is the only one that a tool must have."""
    if not isinstance(given, str):
        return given
    properties: Mapping[str, Any] = tool.parameters.get("properties", {})
    needed: Sequence[str] = tool.parameters.get("required", ())
    if not properties and not given:
        return {}
    if len(needed) != 1:
        return None
    if properties[needed[0]].get("type") == "string":
        return {needed[0]: given}
    try:
        return {needed[0]: json.loads(given)}
    except (ValueError, RecursionError):
        return None


def _refused(call: Call, why: str) -> ToolCall:
    arguments = call.arguments if not isinstance(call.arguments, str) else {"input": call.arguments}
    return ToolCall(call.name[:50], arguments, f"error: {why}", failed=True)


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
