"""How calls are read from what a model wrote."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cohort.environments import FORMATS
from cohort.environments.formats import Call


def read(name, text):
    return FORMATS[name].calls(text)


CALL = {"name": "calculator", "arguments": {"expression": "2+3"}}


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ("<think> so <tool>calculator: 2+3</tool>", [("calculator", "2+3")]),
        ('<tool>search: {"query": "x", "k": 3}</tool>', [("search", {"query": "x", "k": 3})]),
        ("<tool> calculator :  2+3 </tool>.", [("calculator", "2+3")]),
        ("<tool>a<tool>b: 1</tool>", [("b", "1")]),
        ("<tool>python: x = {1: 2}\nprint(x)</tool>", [("python", "x = {1: 2}\nprint(x)")]),
        ("<tool>calculator: 2+3", []),
        ("no call </tool>", []),
        ("the answer is 5", []),
    ],
)
def test_tags(text, calls):
    assert read("tags", text) == tuple(Call(*call) for call in calls)


def test_a_tag_without_a_name_is_a_call_that_cannot_be_read():
    (call,) = read("tags", "<tool>2+3</tool>")
    assert "NAME: ARGUMENT" in call.problem


def test_hermes_reads_every_call_of_a_turn():
    text = f"Let me see.\n<tool_call>\n{json.dumps(CALL)}\n</tool_call>\n<tool_call>{json.dumps(CALL)}</tool_call>"
    assert read("hermes", text) == (Call("calculator", {"expression": "2+3"}),) * 2
    nested = {"name": "f", "arguments": json.dumps({"x": 1})}
    assert read("hermes", f"<tool_call>{json.dumps(nested)}</tool_call>") == (Call("f", {"x": 1}),)
    assert read("hermes", "<think>2+3</think> 5") == ()


@pytest.mark.parametrize(
    ("inside", "says"),
    [
        ("not json", "not a JSON object"),
        ("[1]", "it is a list"),
        ('{"arguments": {}}', "a call is written"),
        ('{"name": 3, "arguments": {}}', "a call is written"),
        ('{"name": "f", "arguments": [1]}', "a call is written"),
        ('{"name": "f", "arguments": {"x": NaN}}', "NaN is no JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{"name": "f", "arguments": {"x": ' + "9" * 5000 + "}}", "not a JSON object"),
    ],
)
def test_a_call_that_cannot_be_read_says_why(inside, says):
    (call,) = read("hermes", f"<tool_call>{inside}</tool_call>")
    assert says in call.problem


def test_a_call_without_its_end_says_so():
    (call,) = read("hermes", '<tool_call>{"name": "f", "arguments": {}}')
    assert "</tool_call>" in call.problem


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ('{"name": "f", "parameters": {"x": 1}}', [("f", {"x": 1})]),
        (' {"name": "f", "arguments": {"x": 1}}\n', [("f", {"x": 1})]),
        ('<|python_tag|>{"name": "f", "parameters": {}}', [("f", {})]),
        ('{"answer": 5}', []),
        ('{"name": "Ada"}', []),
        ("f(x=1)", []),
    ],
)
def test_llama3(text, calls):
    assert read("llama3", text) == tuple(Call(*call) for call in calls)


PIECES = st.sampled_from(
    [
        "<tool>",
        "</tool>",
        "<tool_call>",
        "</tool_call>",
        "<|python_tag|>",
        "{",
        "}",
        '"',
        ":",
        "\\",
        "name",
        "1e999",
        "\0",
    ]
)


@given(st.sampled_from(sorted(FORMATS)), st.lists(PIECES | st.text(max_size=5), max_size=30).map("".join))
def test_any_text_is_read(name, text):
    for call in read(name, text):
        assert isinstance(call.name, str)


def test_reading_takes_time_in_proportion_to_the_text():
    for name, piece in (("hermes", "<tool_call>"), ("tags", "<tool>"), ("tags", "</tool>"), ("hermes", "</tool_call>")):
        assert len(read(name, piece * 200_000)) <= 1  # quadratic, this would take minutes
