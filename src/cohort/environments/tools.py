"""A tool: its name and its arguments, how a call is run, and what becomes of each way in which a call can fail. And the
environment of tools: the policy writes calls, the tools answer, and a turn without a call is its last.
"""

from __future__ import annotations

import inspect
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial, wraps
from typing import Any

from cohort.chat import text_of
from cohort.environments.foreign_code import THE_WORLD, BrokenCodeError, HangsError, broken, in_time
from cohort.environments.formats import Call, Format, json_at
from cohort.patience import awaited
from cohort.types import InfrastructureError, Observation, Prompt, ToolCall, UserError
from cohort.wording import one_line

_TO_THE_MODEL = (ValueError, ArithmeticError, LookupError)  # raised where a call asks for the wrong thing
_OF_CODE = (TypeError, NameError, AssertionError, ImportError, NotImplementedError, SystemExit)
_MOST_CRASHES = 16  # calls of a tool that never answered, before it counts as broken
_MOST_CALLS = 8  # calls of one turn that are run; the others are refused
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
            return ToolCall(self.name, arguments, _text(self._stubbornly(arguments, retries)))
        except ToolError as error:
            return self._failed(arguments, str(error))
        except _TO_THE_MODEL as error:
            return self._failed(arguments, _said(error))
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
    """The tool that calls `function`, which may be async, a partial, or an object that is called. Its docstring says
    what it does and, under "Args:", what each parameter is. What a partial has filled in, nobody is told of.

    Raises UserError where the schema cannot be derived.
    """
    from transformers.utils import get_json_schema

    whole, filled = _inside(function)
    called = name or str(getattr(whole, "__name__", type(whole).__name__))
    routine = inspect.isroutine(whole) or inspect.isclass(whole) or hasattr(whole, "__wrapped__")
    try:
        schema = get_json_schema(whole if routine else _call_of(whole))
    except Exception as error:  # transformers has a class for each mistake, and plain ones for others
        raise UserError(
            f"the tool '{called}' does not say what it takes: {' '.join(str(error).split())}. Give every parameter a "
            'type hint and a line under "Args:" in the docstring, whose first line says what the tool does'
        ) from None
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise UserError(
                f"the tool '{called}' cannot be called by name: its parameter is written {parameter}. Tools are called "
                "by name, so give it parameters with names, such as a list in place of *args, and no / or **"
            )
    described = {**schema["function"], "name": called}
    described.pop("return", None)  # few chat templates know it
    takes = dict(described["parameters"])
    takes["properties"] = {name: of for name, of in takes.get("properties", {}).items() if name not in filled}
    if "required" in takes:
        takes["required"] = [name for name in takes["required"] if name not in filled]
    described["parameters"] = takes

    def run(**arguments: Any) -> Any:
        result = function(**arguments)
        return awaited(result) if inspect.isawaitable(result) else result

    return Tool(called, {"type": "function", "function": described}, run, timeout_s)


def _call_of(called: Any) -> Callable[..., Any]:
    """What calls an object, with the docstring of its class where it has none of its own."""
    if type(called).__call__.__doc__ is not None:
        return called.__call__

    @wraps(called.__call__)
    def call(*given: Any, **named: Any) -> Any:
        return called(*given, **named)

    call.__doc__ = inspect.getdoc(type(called))
    return call


def _inside(function: Callable[..., Any]) -> tuple[Callable[..., Any], set[str]]:
    """What a partial calls in the end, and the parameters that it has filled in."""
    filled: set[str] = set()
    while isinstance(function, partial):
        names = list(inspect.signature(function.func).parameters)
        filled |= {*names[: len(function.args)], *function.keywords}
        function = function.func
    return function, filled


class Tools:
    """Runs the calls of a turn, one after the other, and answers with a message for each.

    A call whose tool failed for the world's sake is tried `retries` more times; wrong arguments are never tried again.
    """

    def __init__(self, tools: Sequence[Tool], chosen: Format, retries: int = 2) -> None:
        self._tools = {tool.name: tool for tool in tools}
        if len(self._tools) < len(tools):
            raise UserError(f"two tools have the same name: {', '.join(tool.name for tool in tools)}")
        self._check = {tool.name: _checker(tool.parameters) for tool in tools}
        self._format, self._retries = chosen, retries
        self._worked: set[str] = set()  # tools that have answered
        self._crashed: Counter[str] = Counter()  # calls of a tool that never answered

    def reset(self, prompt: Prompt, seed: int) -> None:
        """Tools remember nothing between calls."""

    def step(self, state: None, reply: str) -> Observation:
        """Run the calls that the reply holds. See `Tool.call` for what it raises."""
        written = self._format.calls(reply)
        calls = [self._run(call) for call in written[:_MOST_CALLS]]
        calls += [_too_many(call) for call in written[_MOST_CALLS:]]
        messages = tuple({"role": "tool", "name": call.name, "content": call.result} for call in calls)
        return Observation(messages, tuple(calls))

    def _run(self, call: Call) -> ToolCall:
        if call.problem is not None:
            return _refused(call, call.problem)
        tool = self._tools.get(call.name)
        if tool is None:
            return _refused(call, f"there is no tool {call.name[:50]!r}; there is {', '.join(self._tools)}")
        arguments = _by_name(call, tool)
        if arguments is None:
            names = ", ".join(tool.parameters.get("properties", {}))
            return _refused(call, f"{tool.name} takes a JSON object with {names or 'nothing in it'}")
        problem = self._check[tool.name](arguments)
        if problem is not None:
            return ToolCall(tool.name, arguments, f"error: {problem}", failed=True, malformed=call.at)
        arguments = _converted(arguments, tool.parameters)
        try:
            done = tool.call(arguments, self._retries)
        except BrokenCodeError as error:
            if error.__cause__ is None or not self._may_be_the_policys(tool.name, arguments, error.__cause__):
                raise
            return ToolCall(tool.name, arguments, _text(f"error: {_said(error.__cause__)}"), failed=True)
        self._worked.add(tool.name)
        return done

    def _may_be_the_policys(self, name: str, arguments: Mapping[str, Any], error: BaseException) -> bool:
        """Whether a crash may come from what the policy asked for, rather than from a tool that is broken: no policy
        ends a run. A tool that has answered works. One that never has is broken where its error is one of code, unless
        a list or an object, whose inside no type hint describes, led to it; and where it crashed often.
        """
        if name in self._worked:
            return True
        if isinstance(error, _OF_CODE) and not any(isinstance(value, (dict, list)) for value in arguments.values()):
            return False
        self._crashed[name] += 1
        return self._crashed[name] < _MOST_CRASHES


def _by_name(call: Call, tool: Tool) -> Mapping[str, Any] | None:
    """The arguments by name: a text is the only one that a tool must have, or that it takes at all. A text that could
    be read as a JSON object is arguments by name only where it has the names that the tool takes.
    """
    given = call.arguments
    properties: Mapping[str, Any] = tool.parameters.get("properties", {})
    needed: Sequence[str] = tool.parameters.get("required", ())
    only = needed[0] if len(needed) == 1 else next(iter(properties)) if len(properties) == 1 else None
    if not isinstance(given, str):
        fits = given.keys() <= properties.keys() and bool(given or not needed)
        if call.text is None or fits or only is None:
            return given
    if not properties and not call.arguments:
        return {}
    if only is None:
        return None
    text = str(call.text if call.text is not None else given)
    types = properties[only].get("type", ())
    if types == "string":
        return {only: text}
    try:
        value, end = json_at(text)
    except ValueError:
        end = -1
    if end == len(text):
        return {only: value}
    return {only: text} if "string" in types else None


def _refused(call: Call, why: str) -> ToolCall:
    arguments = call.arguments if not isinstance(call.arguments, str) else {"input": call.arguments}
    return ToolCall(call.name[:50], arguments, f"error: {why}", failed=True, malformed=call.at)


def _too_many(call: Call) -> ToolCall:
    return replace(_refused(call, f"a turn has at most {_MOST_CALLS} calls"), malformed=None)


def _checker(parameters: Mapping[str, Any]) -> Callable[[Mapping[str, Any]], str | None]:
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


def _converted(value: Any, schema: Mapping[str, Any]) -> Any:
    """A value that fits its schema, as the type hint has it: JSON has one kind of number, so 3.0 is the int 3."""
    for form in schema.get("anyOf", ()):
        value = _converted(value, form)
    types = schema.get("type", ())
    if isinstance(value, float):
        return int(value) if "integer" in types and "number" not in types and value.is_integer() else value
    if isinstance(value, list):
        first: Sequence[Any] = schema.get("prefixItems", ())
        rest = schema.get("items") or {}
        return [_converted(one, first[at] if at < len(first) else rest) for at, one in enumerate(value)]
    if isinstance(value, dict):
        known, others = schema.get("properties", {}), schema.get("additionalProperties") or {}
        others = others if isinstance(others, Mapping) else {}
        return {name: _converted(one, known.get(name, others)) for name, one in value.items()}
    return value


def _standard(schema: Any) -> Any:
    """`nullable`, which transformers writes for `X | None`, in the words of JSON Schema."""
    if isinstance(schema, list):
        return [_standard(part) for part in schema]
    if not isinstance(schema, Mapping):
        return schema
    plain = {key: _standard(value) for key, value in schema.items() if key != "nullable"}
    return {"anyOf": [plain, {"type": "null"}]} if schema.get("nullable") is True else plain


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {one_line(error)}"


def _text(result: Any) -> str:
    """A result as text, which may come in parts; half characters, which no tokenizer takes, are replaced."""
    if inspect.isawaitable(result) or inspect.isgenerator(result) or inspect.isasyncgen(result):
        raise UserError(f"the tool returned {result!r:.80}, which is no answer; return what it gives")
    try:
        text = text_of(result) if isinstance(result, (str, list)) and result != [] else _written(result)
    except ValueError:  # a list of something else
        text = _written(result)
    return text.encode("utf-8", "replace").decode()


def _written(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
