"""Supervised examples from a person's own rows and from the word problems."""

from __future__ import annotations

import pytest

from cohort.tasks import SupervisedExample, open_demonstrations, open_task
from cohort.types import Prompt, UserError

TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "2 + 2?"},
    {"role": "assistant", "content": "4"},
]


def refused(*args, **options) -> str:
    with pytest.raises(UserError) as caught:
        open_demonstrations(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_prompt_and_completion_columns():
    rows = [{"q": "2 + 2?", "text": "It is 4.", "answer": "4", "topic": "sums"}, {"q": "b", "text": "c"}]
    examples = open_demonstrations(rows, prompt="q", completion="text")
    assert examples.size == 2
    assert examples[0] == SupervisedExample(Prompt.make("2 + 2?", answer="4", tags={"topic": "sums"}), "It is 4.")
    assert examples[1] == SupervisedExample(Prompt.make("b"), "c")
    assert open_demonstrations(rows, prompt="q", completion="text", limit=1).size == 1


def test_conversations_end_with_the_completion():
    for rows, options in (
        ([{"messages": TURNS, "topic": "sums"}], {}),
        ([{"chat": TURNS, "topic": "sums"}], {"messages": "chat"}),
        ([{"prompt": TURNS[:2], "completion": TURNS[2:], "topic": "sums"}], {}),
    ):
        example = open_demonstrations(rows, **options)[0]  # type: ignore[arg-type]
        assert example.completion == "4"
        assert example.prompt == Prompt.make(messages=TURNS[:2], tags={"topic": "sums"})


def test_word_problems():
    examples = open_demonstrations("word_problems", levels=(1,), seed=4, careful=1.0)
    assert examples.size is None
    assert examples[7].prompt == open_task("word_problems", levels=(1,), seed=4).train[7]
    assert "=" in examples[7].completion
    assert open_demonstrations("word_problems", limit=5).size == 5


def test_examples_made_in_python():
    made = [SupervisedExample(Prompt.make("a"), "b"), SupervisedExample(Prompt.make("c"), "d")]
    examples = open_demonstrations(made)
    assert [examples[i] for i in range(examples.size)] == made


def test_what_is_refused():
    assert "has no column 'completion'; it has 'prompt', 'completions'. Did you mean 'completions'?" in refused(
        [{"prompt": "a", "completions": "b"}]
    )
    assert "has no column 'chat'" in refused([{"prompt": "a", "completion": "b"}], messages="chat")
    assert "the list, row 2 has no text in 'completion'" in refused(
        [{"prompt": "a", "completion": "b"}, {"prompt": "a", "completion": " "}]
    )
    assert "has an empty 'prompt'" in refused([{"prompt": "", "completion": "b"}])
    half = "'completion' is not valid text"
    assert f"the list, row 1: {half}" in refused([{"prompt": "a", "completion": "\ud800"}])
    assert "'messages' is not valid text" in refused([{"messages": [*TURNS, {**TURNS[2], "content": "\ud800"}]}])
    assert "the last message is the user's" in refused([{"messages": TURNS[:2]}])
    assert "has one message" in refused([{"messages": TURNS[2:]}])
    assert "has an empty 'messages'" in refused([{"messages": []}])
    assert "at least 1, not 0" in refused([{"prompt": "a", "completion": "b"}], limit=0)
