"""How models write tool calls: the common formats, each read from the text of a turn.

    tags     <tool>calculator: 2 + 3</tool>                                         for models without a chat template
    hermes   <tool_call>{"name": "calculator", "arguments": {...}}</tool_call>      Hermes, Qwen 2.5 and 3
    llama3   {"name": "calculator", "parameters": {...}}                            Llama 3.1 to 3.3

A text that is marked as a call but cannot be read becomes a call with a problem, and the model is told the problem.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

FormatName = Literal["tags", "hermes", "llama3"]
RESULT = ("<result>", "</result>")


@dataclass(frozen=True, slots=True)
class Call:
    """A call as it was written: its arguments by name, or one text for the only one. `problem`: why it is none."""

    name: str
    arguments: Mapping[str, Any] | str
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Format:
    """One way to write calls. `stop` ends a turn at a call where no end token does; no result may contain `marks`."""

    name: FormatName
    calls: Callable[[str], tuple[Call, ...]]
    stop: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()


def _tags(reply: str) -> tuple[Call, ...]:
    """At most one call, because the turn ends with it. A call that is not closed has ended the text: no call."""
    end = reply.find("</tool>")
    begin = reply.rfind("<tool>", 0, max(end, 0))
    if begin < 0:
        return ()
    name, colon, given = reply[begin + len("<tool>") : end].partition(":")
    if not colon:
        return (Call("", {}, "a call is written <tool>NAME: ARGUMENT</tool>"),)
    arguments = _object(given)
    return (Call(name.strip(), given.strip() if isinstance(arguments, str) else arguments),)


def _hermes(reply: str) -> tuple[Call, ...]:
    calls: list[Call] = []
    at = 0
    while (begin := reply.find("<tool_call>", at)) >= 0:
        end = reply.find("</tool_call>", begin)
        if end < 0:
            return (*calls, Call("", {}, "the call has no </tool_call>"))
        calls.append(_from_json(reply[begin + len("<tool_call>") : end], "arguments"))
        at = end
    return tuple(calls)


def _llama3(reply: str) -> tuple[Call, ...]:
    """A reply that is nothing but a call. JSON without a name is an answer."""
    text = reply.strip()
    if text.startswith("<|python_tag|>"):
        return (_from_json(text.removeprefix("<|python_tag|>"), "parameters"),)
    found = _object(text)
    named = not isinstance(found, str) and "name" in found and ("parameters" in found or "arguments" in found)
    return (_from_json(text, "parameters"),) if named else ()


def _from_json(text: str, key: str) -> Call:
    found = _object(text)
    if isinstance(found, str):
        return Call("", {}, f"the call is not a JSON object ({found})")
    name, arguments = found.get("name"), found.get(key, found.get("arguments", {}))
    if isinstance(arguments, str):  # some models write JSON in JSON
        arguments = _object(arguments)
    if not isinstance(name, str) or not isinstance(arguments, dict):
        return Call("", {}, f'a call is written {{"name": NAME, "{key}": {{...}}}}')
    return Call(name, arguments)


def _object(text: str) -> dict[str, Any] | str:
    """The JSON object that a text holds, or why it is none."""
    try:
        found = json.loads(text, parse_constant=_refuse)
    except RecursionError:
        return "nested too deeply"
    except ValueError as error:
        return str(error)[:100]
    return found if isinstance(found, dict) else f"it is a {type(found).__name__}"


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


FORMATS: Mapping[FormatName, Format] = {
    "tags": Format("tags", _tags, ("</tool>",), ("<tool>", "</tool>", *RESULT)),
    "hermes": Format("hermes", _hermes, (), ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")),
    "llama3": Format("llama3", _llama3, ()),
}
