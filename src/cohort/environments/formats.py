"""How models write tool calls: the common formats, each read from the text of a turn.

    tags     <tool>calculator: 2 + 3</tool>                                         for models without a chat template
    hermes   <tool_call>{"name": "calculator", "arguments": {...}}</tool_call>      Hermes, Qwen 2.5 and 3
    llama3   {"name": "calculator", "parameters": {...}}                            Llama 3.1 to 3.3

A text that is marked as a call but cannot be read becomes a call with a problem, and the model is told the problem.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

FormatName = Literal["tags", "hermes", "llama3"]
RESULT = ("<result>", "</result>")
_DEEPEST = 64  # lists and objects inside each other: what is deeper could not be written down


@dataclass(frozen=True, slots=True)
class Call:
    """A call as it was written: its arguments by name, or one text for the only one. `problem`: why it is none.
    `text` is what stood where a text may stand, also where it can be read as arguments by name; `at` are the characters
    of the turn that are the call.
    """

    name: str
    arguments: Mapping[str, Any] | str
    problem: str | None = None
    text: str | None = field(default=None, compare=False)
    at: tuple[int, int] = field(default=(0, 0), compare=False)


@dataclass(frozen=True, slots=True)
class Format:
    """One way to write calls. `stop` ends a turn at a call where no end token does; no result may contain `marks`."""

    name: FormatName
    calls: Callable[[str], tuple[Call, ...]]
    stop: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()


_THOUGHTS = "think|thinking|thought|reasoning"  # what stands between two such tags calls nothing
_HERMES = re.compile(rf"<(?P<close>/?)(?:{_THOUGHTS})>|(?P<call><tool_call>)\s*")
_HERMES_END = re.compile(rf"</tool_call>|(?=</?(?:{_THOUGHTS})>)")
_LLAMA3_THOUGHTS = re.compile(rf".*?</(?:{_THOUGHTS})>\s*(?:<(?:{_THOUGHTS})>.*?</(?:{_THOUGHTS})>\s*)*", re.DOTALL)
_PYTHON_TAG = "<|python_tag|>"
_TAGS = re.compile(r"<tool>([^<>:{}\n]*):\s*(?=\{)")
_SPACE = re.compile(r"\s*")


def _tags(reply: str) -> tuple[Call, ...]:
    """At most one call, because the turn ends with it. A call that is not closed has ended the text: no call. The turn
    is one piece of a message, thoughts included, so it may call where it thinks.
    """
    end = reply.find("</tool>")
    for begun in _TAGS.finditer(reply, 0, max(end, 0)):
        found = _decoded(reply, begun.end())
        if isinstance(found, _Json) and reply.startswith("</tool>", found.end):
            at = begun.start(), found.end + len("</tool>")
            return (Call(begun[1].strip(), found.value, text=reply[begun.end() : found.end].rstrip(), at=at),)
    begin = reply.rfind("<tool>", 0, max(end, 0))
    if begin < 0:
        return ()
    at = begin, end + len("</tool>")
    name, colon, given = reply[begin + len("<tool>") : end].partition(":")
    if not colon:
        return (Call("", {}, "a call is written <tool>NAME: ARGUMENT</tool>", at=at),)
    given = given.strip()
    why = _decoded(given, 0) if given.startswith("{") else None
    if isinstance(why, str) and why.startswith("Unterminated string"):  # the turn was stopped in the middle of it
        why = r"</tool> ends a call inside a string, too; in JSON write it as <\/tool>"
        return (Call(name.strip(), {}, why, at=at),)
    return (Call(name.strip(), given, text=given, at=at),)


def _hermes(reply: str) -> tuple[Call, ...]:
    calls: list[Call] = []
    at, thinking = 0, False
    while (mark := _HERMES.search(reply, at)) is not None:
        at = mark.end()
        if mark["call"] is None:
            if mark["close"] and not thinking:  # the prompt began these thoughts, so what was read is none
                calls.clear()
            thinking = not mark["close"]
        elif not thinking:
            call, at = _marked(reply, at)
            close = len("</tool_call>") if reply.startswith("</tool_call>", at) else 0
            calls.append(replace(call, at=(mark.start(), at + close)))
    return tuple(calls)


def _marked(reply: str, at: int) -> tuple[Call, int]:
    """The call behind a <tool_call>, and where to read on."""
    found = _decoded(reply, at)
    if isinstance(found, _Json):
        at = found.end
        if reply.startswith("</tool_call>", at):
            return _from_json(found.value, "arguments"), at
    end = None if reply.startswith("<tool_call>", at) else _HERMES_END.search(reply, at)
    if end is None:
        return Call("", {}, "the call has no </tool_call>"), at if isinstance(found, _Json) else len(reply)
    why = found if isinstance(found, str) else "something stands behind it"
    return Call("", {}, f"the call is not a JSON object ({why})"), end.end()


def _llama3(reply: str) -> tuple[Call, ...]:
    """A reply that is nothing but calls, several with a semicolon or a space between. JSON without a name is an
    answer.
    """
    calls, begin = _only_calls(reply.strip()), 0
    if not calls and (thoughts := _LLAMA3_THOUGHTS.match(reply)) is not None:
        calls, begin = _only_calls(reply[thoughts.end() :].strip()), thoughts.end()
    return tuple(replace(call, at=(begin, len(reply))) for call in calls)


def _only_calls(text: str) -> tuple[Call, ...]:
    marked = text.startswith(_PYTHON_TAG)
    text = text.removeprefix(_PYTHON_TAG).lstrip()
    calls: list[Call] = []
    at = 0
    while at < len(text) or not calls:
        found = _decoded(text, at)
        if isinstance(found, str):
            broken = Call("", {}, f"the call is not a JSON object ({found})")
            return (*calls, broken) if marked or (calls and text[at] == "{") else ()
        if not marked and not ("name" in found.value and ("parameters" in found.value or "arguments" in found.value)):
            return ()
        calls.append(_from_json(found.value, "parameters"))
        at = _after(text, found.end + text.startswith(";", found.end))
    return tuple(calls)


def _from_json(found: Mapping[str, Any], key: str) -> Call:
    name = found.get("name")
    arguments: Any = next((found[one] for one in (key, "arguments", "parameters") if one in found), {})
    if isinstance(arguments, str):  # some models write JSON in JSON
        inner = _decoded(arguments.strip(), 0)
        arguments = inner.value if isinstance(inner, _Json) and inner.end == len(arguments.strip()) else None
    if not isinstance(name, str) or not isinstance(arguments, dict):
        return Call("", {}, f'a call is written {{"name": NAME, "{key}": {{...}}}}')
    return Call(name, arguments)


class _Json(NamedTuple):
    """A JSON object, and where the text goes on behind it."""

    value: dict[str, Any]
    end: int


def _decoded(text: str, at: int) -> _Json | str:
    """The JSON object that begins at a place of a text, or why there is none."""
    try:
        found, end = json_at(text, at)
    except ValueError as error:
        return str(error)[:100]
    if not isinstance(found, dict):
        return f"it is a {type(found).__name__}"
    return _Json(found, _after(text, end))


def json_at(text: str, at: int = 0) -> tuple[Any, int]:
    """The JSON value that begins at a place of a text, and where it ends. Raises ValueError where there is none, and
    for halves of characters (\\ud800), which no tokenizer takes.
    """
    try:
        found, end = _DECODER.raw_decode(text, at)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    inside = [found]
    for _ in range(_DEEPEST):
        inside = [one for value in inside if isinstance(value, (dict, list)) for one in _members(value)]
    if inside:
        raise ValueError("nested too deeply")
    json.dumps(found, ensure_ascii=False).encode()
    return found, end


def _members(value: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value


def _after(text: str, at: int) -> int:
    """Where the spaces at a place of a text end."""
    spaces = _SPACE.match(text, at)
    return at if spaces is None else spaces.end()


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse)

FORMATS: Mapping[FormatName, Format] = {
    "tags": Format("tags", _tags, ("</tool>",), ("<tool>", "</tool>", *RESULT)),
    "hermes": Format("hermes", _hermes, (), ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")),
    "llama3": Format("llama3", _llama3, ()),
}
