"""Calls that go well, calls that are wrong, tools that are broken, and a world that fails."""

from __future__ import annotations

import asyncio
import functools
import json
import re
import threading
from typing import Any, Literal

import pytest

from cohort.environments import ENVIRONMENTS, FORMATS, TOOLS, ToolError, Tools, build_environment, build_tools
from cohort.environments.tools import tool_of
from cohort.types import InfrastructureError, Prompt, UserError
from cohort.wording import find_function


def divide(top: float, bottom: float, places: int | None = None) -> str:
    """Divide one number by another.

    Args:
        top: What is divided.
        bottom: What it is divided by.
        places: Decimal places.
    """
    value = top / bottom
    return str(value if places is None else round(value, places))


def square(x: int) -> int:
    """Square a number.

    Args:
        x: The number.
    """
    return x * x


def environment(*functions, name="hermes", retries=0, timeout_s=5.0):
    return Tools(build_tools(functions, {}, timeout_s), FORMATS[name], retries)


def call(env, name, /, **arguments):
    text = f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"
    (done,) = env.step(env.reset(Prompt.make("?"), 0), text).calls
    return done


def test_the_schema_comes_from_type_hints_and_docstring():
    function = tool_of(divide).schema["function"]
    assert function["name"] == "divide"
    assert function["description"] == "Divide one number by another."
    assert function["parameters"]["properties"]["top"] == {"type": "number", "description": "What is divided."}
    assert function["parameters"]["required"] == ["top", "bottom"]
    assert "return" not in function


def test_every_name_leads_to_a_function():
    for use in (*TOOLS.values(), *ENVIRONMENTS.values()):
        find_function(use, "part")


def test_calls_are_answered_in_order_with_a_message_each():
    env = environment(divide, "calculator")
    text = "".join(
        f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"
        for name, arguments in (("divide", {"top": 1, "bottom": 4}), ("calculator", {"expression": "6*7"}))
    )
    said = env.step(None, text)
    assert said.messages == (
        {"role": "tool", "name": "divide", "content": "0.25"},
        {"role": "tool", "name": "calculator", "content": "42"},
    )
    assert [one.failed for one in said.calls] == [False, False]
    assert env.step(None, "The answer is 42.").messages == ()


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("divide", {"top": 1, "bottom": 0}, "error: ZeroDivisionError: division by zero"),
        ("divide", {"top": 1}, "'bottom' is a required property"),
        ("divide", {"top": "1", "bottom": 2}, "top: '1' is not of type 'number'"),
        ("divide", {"top": 1, "bottom": 2, "extra": 3}, "'extra' was unexpected"),
        ("multiply", {}, "there is no tool 'multiply'; there is divide"),
    ],
)
def test_a_wrong_call_is_answered_with_what_is_wrong(name, arguments, says):
    done = call(environment(divide), name, **arguments)
    assert done.failed
    assert says in done.result


def test_null_is_taken_where_the_type_hint_says_so():
    assert call(environment(divide), "divide", top=1, bottom=3, places=None).result.startswith("0.333")
    assert call(environment(divide), "divide", top=1, bottom=3, places=2).result == "0.33"


def test_a_single_argument_needs_no_name_in_tags():
    env = environment(square, divide, "calculator", name="tags")

    def result(text):
        return env.step(None, text).calls[0].result

    assert result("<tool>calculator: 2+3</tool>") == "5"
    assert result("<tool>square: 7</tool>") == "49"
    assert result('<tool>divide: {"top": 1, "bottom": 2}</tool>') == "0.5"
    assert "takes a JSON object with top, bottom, places" in result("<tool>divide: 1 2</tool>")
    assert "takes a JSON object with x" in result("<tool>square: seven</tool>")


def count_keys(document: str) -> int:
    """Count the keys of a JSON document.

    Args:
        document: The document.
    """
    return len(json.loads(document))


def keys(data: dict, sort: bool = False) -> list:
    """The keys.

    Args:
        data: The data.
        sort: In order.
    """
    return sorted(data) if sort else list(data)


def optional(text: str = "nothing") -> str:
    """Say it.

    Args:
        text: The text.
    """
    return text


def either(value: int | str) -> str:
    """Say its kind.

    Args:
        value: The value.
    """
    return type(value).__name__


@pytest.mark.parametrize(
    ("call", "result"),
    [
        ('count_keys: {"a": 1, "b": 2}', "2"),
        ("count_keys: {}", "0"),
        ('count_keys: {"document": "{}"}', "0"),
        ("count_keys: [1, 2]", "2"),
        ('keys: {"b": 1, "a": 2}', '["b", "a"]'),
        ('keys: {"data": {"b": 1, "a": 2}, "sort": true}', '["a", "b"]'),
        ('keys: {"sort": true}', "error: 'data' is a required property"),
        ('optional: {"a":  1}', '{"a":  1}'),  # as it was written
        ("optional: hello", "hello"),
        ("optional: {}", "nothing"),
        ("either: 5", "int"),
        ("either: five", "str"),
        ('divide: {"top": 1, "down": 2}', "error: "),
    ],
)
def test_a_text_that_is_json_is_the_argument_of_a_tool_with_one(call, result):
    env = environment(count_keys, keys, optional, either, divide, name="tags")
    (done,) = env.step(None, f"<tool>{call}</tool>").calls
    assert done.result.startswith(result)


def typed(hint, answer=repr):
    def tool(x):
        return answer(x)

    tool.__annotations__ = {"x": hint, "return": str}
    tool.__doc__ = "Do it.\n\n    Args:\n        x: The thing.\n    "
    return tool


@pytest.mark.parametrize(
    ("hint", "given", "taken"),
    [
        (int, "3.0", "3"),
        (int, "-0.0", "0"),
        (int, "1e2", "100"),
        (int | None, "3.0", "3"),
        (list[int], "[1, 2.0]", "[1, 2]"),
        (dict[str, int], '{"a": 1.0}', "{'a': 1}"),
        (list[list[int]], "[[1.0]]", "[[1]]"),
        (tuple[int, float], "[1.0, 2.0]", "[1, 2.0]"),
        (list[int] | str, "[2.0]", "[2]"),
        (Literal[1, 2], "2.0", "2"),
        (int | str, "2.0", "2"),
        (float, "3.0", "3.0"),
        (int | float, "3.0", "3.0"),
        (Any, "3.0", "3.0"),
        (int, "3.5", "error: x: 3.5 is not of type 'integer'"),
        (int, '"3"', "error: x: '3' is not of type 'integer'"),
        (int, "true", "error: x: True is not of type 'integer'"),
        (int, "1e400", "error: x: inf is not of type 'integer'"),
        (bool, "1", "error: x: 1 is not of type 'boolean'"),
        (str, "3", "error: x: 3 is not of type 'string'"),
    ],
)
def test_a_whole_number_is_an_int_however_it_is_written(hint, given, taken):
    text = f'<tool_call>{{"name": "tool", "arguments": {{"x": {given}}}}}</tool_call>'
    (done,) = environment(typed(hint)).step(None, text).calls
    assert done.result == taken


def crashing(x):
    """Work for 1; ask for trouble and get it."""
    if x == 1:
        return "fine"
    raise (TypeError, NameError, RuntimeError, re.error, OSError, MemoryError, SystemExit)[x - 2]("qqq")


@pytest.mark.parametrize("x", range(2, 9))
def test_a_policy_cannot_crash_a_tool_that_works(x):
    env = environment(typed(int, crashing))
    assert call(env, "tool", x=1).result == "fine"
    for _ in range(30):
        done = call(env, "tool", x=x)
        assert done.failed
        assert "qqq" in done.result


@pytest.mark.parametrize(
    ("tool", "x"),
    [
        (typed(dict, lambda x: x["a"] + 1), {"a": "x"}),
        (typed(list, lambda x: "".join(x)), [1]),
        (typed(str, lambda x: re.match("a", x).group()), "b"),
        (typed(str, lambda x: re.search(x, "")), "("),
        (typed(str, lambda x: open("/" + x).close()), "x" * 5000),
        (typed(int, lambda x: x * x), 10**4000),
    ],
)
def test_what_types_do_not_say_is_told_to_the_policy(tool, x):
    env = environment(tool)
    done = call(env, "tool", x=x)
    assert done.failed
    assert done.result.startswith("error: ")


def test_a_tool_that_always_crashes_stops_the_run():
    env = environment(failing(FileNotFoundError("no table")))
    assert all(call(env, "tool", x=x).failed for x in range(15))
    with pytest.raises(UserError, match="raised FileNotFoundError: no table"):
        call(env, "tool", x=15)


def test_a_call_nested_too_deeply_is_told_and_cannot_break_the_record():
    deep = "[" * 200 + "]" * 200
    text = f'<tool_call>{{"name": "tool", "arguments": {{"x": {deep}}}}}</tool_call>'
    (done,) = environment(typed(list)).step(None, text).calls
    assert "nested too deeply" in done.result
    (done,) = environment(typed(list), name="tags").step(None, f"<tool>tool: {deep}</tool>").calls
    assert done.failed


def star(*xs: int) -> int:
    """Add.

    Args:
        xs: Numbers.
    """
    return sum(xs)


def by_position(x: int, /) -> int:
    """Take it.

    Args:
        x: A number.
    """
    return x


def keywords(x: int, **more: int) -> int:
    """Take them.

    Args:
        x: A number.
        more: Numbers.
    """
    return x


@pytest.mark.parametrize(("tool", "written"), [(star, "xs"), (by_position, "x"), (keywords, "more")])
def test_a_tool_that_cannot_be_called_by_name_is_refused(tool, written):
    with pytest.raises(UserError, match=f"cannot be called by name: its parameter is written .*{written}"):
        environment(tool)


def test_a_result_that_no_json_can_hold_stops_the_run_with_a_sentence():
    with pytest.raises(UserError, match=r"the tool 'tool', called with .* raised TypeError: keys must be"):
        call(environment(typed(int, lambda x: {(1, 2): x})), "tool", x=1)


def test_a_generator_is_no_answer_and_a_coroutine_is_awaited():
    async def later(x):
        return x

    async def several(x):
        yield x

    assert call(environment(typed(int, later)), "tool", x=1).result == "1"
    for answer in (several, lambda x: (one for one in [x])):
        with pytest.raises(UserError, match="which is no answer"):
            call(environment(typed(int, answer)), "tool", x=1)


def test_results_that_are_no_text_are_written_as_json():
    def found(n: int) -> dict:
        """Find.

        Args:
            n: How many.
        """
        return {"rows": list(range(n)), "name": "é", "half": "\ud800"}

    assert call(environment(found), "found", n=2).result == '{"rows": [0, 1], "name": "é", "half": "?"}'


def test_no_more_calls_than_a_turn_may_have():
    text = f"<tool_call>{json.dumps({'name': 'square', 'arguments': {'x': 3}})}</tool_call>" * 20
    calls = environment(square).step(None, text).calls
    assert [one.result for one in calls[:8]] == ["9"] * 8
    assert all("at most 8 calls" in one.result for one in calls[8:])
    assert len(calls) == 20


def failing(error):
    def tool(x: int) -> int:
        """Fail.

        Args:
            x: A number.
        """
        raise error

    return tool


@pytest.mark.parametrize("error", [ToolError("no such page"), ValueError("no such page"), KeyError("no such page")])
def test_what_the_policy_got_wrong_is_told_to_it(error):
    done = call(environment(failing(error)), "tool", x=1)
    assert done.failed
    assert "no such page" in done.result


@pytest.mark.parametrize("error", [InfrastructureError("down"), ConnectionError("down"), TimeoutError("down")])
def test_what_the_world_did_is_no_answer(error):
    with pytest.raises(InfrastructureError, match="'tool' failed: down"):
        call(environment(failing(error)), "tool", x=1)


@pytest.mark.parametrize("error", [NameError("qqq"), TypeError("qqq"), AssertionError("qqq"), SystemExit("qqq")])
def test_broken_code_stops_the_run_and_says_where(error):
    with pytest.raises(UserError, match=r"tool 'tool', called with .*\"x\": 1.* raised .*qqq at .*test_tools\.py:\d+"):
        call(environment(failing(error)), "tool", x=1)


def test_the_world_is_tried_again():
    tries = []

    def flaky(x: int) -> int:
        """Fail twice.

        Args:
            x: A number.
        """
        tries.append(x)
        if len(tries) < 3:
            raise ConnectionError("reset")
        return x

    assert call(environment(flaky, retries=2), "flaky", x=5).result == "5"
    assert len(tries) == 3
    tries.clear()
    with pytest.raises(InfrastructureError):
        call(environment(flaky, retries=1), "flaky", x=5)


def test_a_tool_that_hangs_is_a_failure_of_the_world():
    """It is not tried again: it would hang again, for as long."""
    release, calls = threading.Event(), []

    def hangs(x: int) -> int:
        """Hang.

        Args:
            x: A number.
        """
        calls.append(x)
        release.wait(60)
        return x

    with pytest.raises(InfrastructureError, match=r"no answer within 0\.2 s"):
        call(environment(hangs, timeout_s=0.2, retries=3), "hangs", x=1)
    assert len(calls) == 1
    release.set()


def undocumented(x: int) -> int:
    return x


def untyped(x) -> int:
    """Do it.

    Args:
        x: A number.
    """
    return x


async def asynchronous(x: int, y: int = 2) -> int:
    """Do it.

    Args:
        x: A number.
        y: Another.
    """
    await asyncio.sleep(0)
    return x + y


class Box:
    def __call__(self, x: int) -> list:
        """Keep one.

        Args:
            x: A number.
        """
        return [x]


class Later:
    async def __call__(self, x: int) -> list:
        """Keep one, later.

        Args:
            x: A number.
        """
        await asyncio.sleep(0)
        return [x]


FORMS: dict[str, tuple[Any, str, list[str], str]] = {
    "an async function": (asynchronous, "asynchronous", ["x", "y"], "3"),
    "a partial of one": (functools.partial(asynchronous, y=5), "asynchronous", ["x"], "6"),
    "a partial by position": (functools.partial(asynchronous, 4), "asynchronous", ["y"], "5"),
    "a partial of a partial": (
        functools.partial(functools.partial(asynchronous, y=1), y=7),
        "asynchronous",
        ["x"],
        "8",
    ),
    "an object": (Box(), "Box", ["x"], "[1]"),
    "an async object": (Later(), "Later", ["x"], "[1]"),
    "a partial of an object": (functools.partial(Box()), "Box", ["x"], "[1]"),
    "a method": (Box().__call__, "__call__", ["x"], "[1]"),
    "a cached function": (functools.lru_cache(square), "square", ["x"], "1"),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("timeout_s", [None, 5.0])
def test_whatever_is_called_is_a_tool(form, timeout_s):
    function, name, parameters, result = FORMS[form]
    made = tool_of(function, timeout_s=timeout_s)
    assert (made.name, list(made.parameters["properties"])) == (name, parameters)
    assert made.call({parameters[0]: 1}).result == result
    tools = Tools([made], FORMATS["hermes"])
    assert "Additional properties" in call(tools, name, **{parameters[0]: 1, "z": 2}).result

    async def in_a_notebook():
        return made.call({parameters[0]: 1}).failed

    assert not asyncio.run(in_a_notebook())


def test_an_async_tool_that_hangs_or_raises_is_one_as_any_other():
    async def slow(x: int) -> int:
        """Wait.

        Args:
            x: For so long.
        """
        if x < 0:
            raise ValueError("too short")
        await asyncio.sleep(x)
        return x

    tool = tool_of(slow, timeout_s=0.2)
    assert tool.call({"x": 0}).result == "0"
    assert tool.call({"x": -1}).result == "error: ValueError: too short"
    with pytest.raises(InfrastructureError, match=r"no answer within 0\.2 s"):
        tool.call({"x": 30})


@pytest.mark.parametrize(
    ("uses", "args", "says"),
    [
        ([undocumented], {}, "the tool 'undocumented' does not say what it takes"),
        ([untyped], {}, "the tool 'untyped' does not say what it takes"),
        (["calculater"], {}, "there is no tool 'calculater'; the built-in ones are calculator, python, http"),
        (["nowhere:tool"], {}, "tool 'nowhere:tool': there is no module 'nowhere'"),
        (["json:nothing"], {}, "tool 'json:nothing': .* has no function 'nothing'"),
        (["math:pi"], {}, "is float, not a function"),
        (["calculator"], {"calculator": {"x": 1}}, r"environment.args.calculator: .*unexpected keyword argument 'x'"),
        (["calculator"], {"python": {}}, "environment.args.python has no effect"),
        (["calculator"], {"calculator": 3}, "is a table of settings, not 3"),
        (["http"], {}, r"environment.args.http: .*missing 1 required positional argument: 'hosts'"),
        (["http"], {"http": {"hosts": []}}, "needs the hosts that it may reach"),
        (["http"], {"http": {"hosts": ["https://x.org/"]}}, "a host of the tool http is a name"),
        (["http"], {"http": {"hosts": ["x.org"], "max_kb": 0}}, "max_kb of the tool http"),
        (["http"], {"http": {"hosts": ["x.org"], "timeout_s": "3"}}, "timeout_s of the tool http is a number above 0"),
        (["python"], {"python": {"isolation": "remote"}}, "isolation of the tool python is one of"),
        (["python"], {"python": {"time_s": 0}}, "time_s of the tool python is a number above 0"),
    ],
)
def test_what_makes_no_tool_is_refused_before_the_run(uses, args, says):
    with pytest.raises(UserError, match=says):
        build_tools(uses, args, 5.0)


def test_two_tools_of_one_name_are_refused():
    with pytest.raises(UserError, match="same name: square, square"):
        environment(square, square)


def test_a_module_in_the_current_directory_is_found(tmp_path, monkeypatch):
    code = 'def tool_here(x: int) -> int:\n    """Do.\n\n    Args:\n        x: It.\n    """\n    return x\n'
    (tmp_path / "tools_of_this_test.py").write_text(code)
    (tmp_path / "broken_tools_of_this_test.py").write_text("raise SystemExit('bye')")
    monkeypatch.chdir(tmp_path)
    (tool,) = build_tools(["tools_of_this_test:tool_here"], {}, 5.0)
    assert tool.call({"x": 3}).result == "3"
    with pytest.raises(UserError, match=r"cannot be imported: SystemExit: bye"):
        build_tools(["broken_tools_of_this_test:f"], {}, 5.0)


def test_an_environment_of_the_users_own_needs_both_methods():
    class Half:
        def reset(self, prompt, seed):
            return None

    with pytest.raises(UserError, match="made Half, which has no method step"):
        build_environment(Half, {})
    with pytest.raises(UserError, match=r"environment\.args: Half\(\) takes no arguments"):
        build_environment(Half, {"level": 3})


def test_a_tool_is_no_environment():
    with pytest.raises(UserError, match=r"not 'python'; .* such as tools = \[\"python\"\]"):
        build_environment("python", {})
    with pytest.raises(UserError, match=r'"module:function", not .my_games.'):
        build_environment("my_games", {})


def test_an_environment_that_cannot_be_made_says_why():
    def opens(path):
        return open(path)

    with pytest.raises(UserError, match=r"FileNotFoundError: .*no_such_file.* at .*test_tools\.py:\d+"):
        build_environment(opens, {"path": "no_such_file"})


def test_an_object_may_have_the_docstring_of_its_class():
    class Look:
        """Look something up.

        Args:
            word: What to look up.
        """

        def __call__(self, word: str) -> str:
            return word[::-1]

    tool = tool_of(Look())
    assert tool.schema["function"]["description"] == "Look something up."
    assert list(tool.parameters["properties"]) == ["word"]
    assert tool.call({"word": "abc"}).result == "cba"
