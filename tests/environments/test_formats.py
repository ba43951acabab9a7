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
        ('{"name": "\\ud800", "arguments": {}}', "not a JSON object"),
        ('{"name": "f", "arguments": {"\\udc00": 1}}', "not a JSON object"),
        ('{"name": "f", "arguments": {"x": "a\\ud83d"}}', "not a JSON object"),
        ("[" * 100_000, "nested too deeply"),
        ('{"name": "f", "arguments": {"x": ' + "9" * 5000 + "}}", "not a JSON object"),
    ],
)
def test_a_call_that_cannot_be_read_says_why(inside, says):
    (call,) = read("hermes", f"<tool_call>{inside}</tool_call>")
    assert says in call.problem


@pytest.mark.parametrize("form", ["hermes", "llama3"])
@pytest.mark.parametrize("key", ["arguments", "parameters"])
def test_arguments_under_the_other_formats_name_are_not_dropped(form, key):
    inside = f'{{"name": "f", "{key}": {{"x": "\\ud83d\\ude00"}}}}'
    (call,) = read(form, f"<tool_call>{inside}</tool_call>" if form == "hermes" else inside)
    assert (call.name, call.arguments) == ("f", {"x": "😀"})


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


def marked(value, before="", behind="</tool_call>"):
    return f"{before}<tool_call>\n{value if isinstance(value, str) else json.dumps(value)}\n{behind}"


def write(text):
    return {"name": "write", "arguments": {"text": text}}


@pytest.mark.parametrize(
    "text",
    ["see </tool_call> here", "see <tool_call> here", "<think> </think>", 'quotes " \\', "</tool_call></tool_call>"],
)
def test_marks_inside_a_string_are_text(text):
    assert read("hermes", marked(write(text)) * 2) == (Call("write", {"text": text}),) * 2
    call = json.dumps({"name": "write", "parameters": {"text": text}})
    assert read("llama3", call) == (Call("write", {"text": text}),)
    said = json.dumps({"text": text.replace("tool_call", "tool")})
    (call,) = read("tags", f"<tool>write: {said}</tool>")
    assert call.arguments == json.loads(said)


@pytest.mark.parametrize("tag", ["think", "thinking", "thought", "reasoning"])
def test_what_is_thought_is_not_called(tag):
    draft, final = marked(write("draft")), marked(write("final"))
    called = (Call("write", {"text": "final"}),)
    assert read("hermes", f"<{tag}>I could {draft} but no</{tag}>{final}") == called
    assert read("hermes", f"the prompt opened it {draft}</{tag}>{final}") == called  # <think> ends the template
    assert read("hermes", f"a mark alone, <tool_call></{tag}>{final}") == called
    assert read("hermes", f"{final}<{tag}>{draft}</{tag}>") == called
    assert read("hermes", f"{final}<{tag}> and then {draft}") == called
    assert read("hermes", f"<{tag}>{draft}") == ()
    draft, final = (json.dumps({"name": "write", "parameters": {"text": text}}) for text in ("draft", "final"))
    assert read("llama3", f"<{tag}>{draft}</{tag}>\n{final}") == called
    assert read("llama3", f"{draft} or so</{tag}> {final}") == called
    assert read("llama3", f"<{tag}>{draft}</{tag}> no call") == read("llama3", f"<{tag}>{draft}") == ()


def test_a_mark_with_more_or_less_than_one_object_says_so():
    two = json.dumps(write("a")) + json.dumps(write("b"))
    (call,) = read("hermes", marked(two))
    assert "behind it" in call.problem
    first, second = read("hermes", marked(write("a"), behind="") + marked(write("b")))
    assert "</tool_call>" in first.problem
    assert second == Call("write", {"text": "b"})
    first, second = read("hermes", marked("{'name': 'write'}") + marked(write("b")))
    assert "not a JSON object" in first.problem
    assert second == Call("write", {"text": "b"})


def test_llama3_may_call_several_tools():
    a, b = '{"name": "a", "parameters": {}}', '{"name": "b", "parameters": {"x": "; {"}}'
    both = (Call("a", {}), Call("b", {"x": "; {"}))
    for text in (f"{a}; {b}", f"{a};{b};", f"{a}\n{b}", f"<|python_tag|>{a}; {b}", f"<|python_tag|> {a} ; {b}"):
        assert read("llama3", text) == both
    first, second = read("llama3", f'{a}; {{"name": "b"')
    assert first == Call("a", {})
    assert "not a JSON object" in second.problem
    assert read("llama3", f"{a} is how I would call it") == read("llama3", f'{a}; {{"answer": 5}}') == ()


def test_a_turn_that_stopped_at_a_mark_inside_a_string_is_no_call():
    """The sampler stops at the first </tool>; half a text must not be written as if it were the whole one."""
    (call,) = read("tags", '<tool>write: {"text": "see </tool>')
    assert r"<\/tool>" in call.problem
    (call,) = read("tags", r'<tool>write: {"text": "see <\/tool> here"}</tool>')
    assert call.arguments == {"text": "see </tool> here"}


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
