"""What columns are taken for."""

from __future__ import annotations

import json

import pytest

from cohort.tasks.guess import guess, guess_source, held_out_of
from cohort.tasks.sources.rows import open_rows
from cohort.types import UserError


def rows(**columns):
    names = list(columns)
    return open_rows([dict(zip(names, values)) for values in zip(*columns.values())])


@pytest.mark.parametrize(
    ("answers", "reward"),
    [
        ([1, 2.5, "3"], {"use": "exact_number"}),
        (["$1,200", "-3", "4/5", "70%"], {"use": "exact_number"}),
        (["A", "D", "(B)"], {"use": "choice"}),
        (["A", "F"], {"use": "choice", "args": {"letters": "ABCDEF"}}),
        (["\\frac{1}{2}", "3", "x^2"], {"use": "math"}),
        (["Paris", "New York"], {"use": "exact_text"}),
        (["yes", "no"], {"use": "exact_text"}),
        ([["Paris", "paris"], ["Rome"]], {"use": "exact_text"}),
        (["assert f(1) == 2", ["assert f(2) == 3"]], {"use": "code"}),
        ([{"inputs": ["1"], "outputs": ["2"]}] * 2, {"use": "code"}),
    ],
)
def test_answers_choose_their_verifier(answers, reward):
    found = guess(rows(question=["q"] * len(answers), answer=answers))
    assert found.reward == reward
    assert found.fits
    assert found.because.startswith(reward["use"])
    assert found.task == {"prompt": "question", "answer": "answer"}


def test_answers_after_a_mark():
    found = guess(rows(question=["q", "q"], answer=["so\n#### 1,200", "#### 7"]))
    assert found.task["answer_format"] == "gsm8k"
    assert found.reward == {"use": "exact_number"}


def test_answers_that_nothing_reads_are_open():
    found = guess(rows(question=["q", "q"], answer=["Paris", None]))
    assert (found.reward, found.fits) == ({"use": "exact_text"}, False)
    found = guess(rows(question=["q", "q", "q"], answer=[1, {"inputs": ["1"], "outputs": ["2"]}, 3]))  # one of tests
    assert (found.reward, found.fits) == ({"use": "exact_text"}, False)
    found = guess(rows(question=["q"]))
    assert (found.kind, found.reward, found.fits) == ("grpo", {"use": "one_answer"}, False)


@pytest.mark.parametrize(
    ("columns", "prompt", "answer"),
    [
        (("problem", "solution"), "problem", "solution"),
        (("problem", "solution", "answer"), "problem", "answer"),
        (("id", "prompt", "question", "gold"), "prompt", "gold"),
        (("query", "ground_truth"), "query", "ground_truth"),
    ],
)
def test_names_of_columns(columns, prompt, answer):
    found = guess(rows(**{name: ["1", "2"] for name in columns}))
    assert found.task == {"prompt": prompt, "answer": answer}


def test_conversations():
    asked = [{"role": "user", "content": "q"}]
    answered = [*asked, {"role": "assistant", "content": "a"}]
    found = guess(rows(messages=[asked] * 2, answer=["1", "2"]))
    assert (found.kind, found.task["messages"]) == ("grpo", "messages")
    found = guess(rows(messages=[answered] * 2))
    assert (found.kind, found.task, found.reward) == ("sft", {"messages": "messages"}, None)
    found = guess(open_rows([{"messages": answered}, {"answer": "1"}]))  # whoever reads the second says what it lacks
    assert (found.kind, found.task["messages"]) == ("grpo", "messages")


def test_demonstrations_and_pairs():
    found = guess(rows(prompt=["q"], response=["a"]))
    assert (found.kind, found.task) == ("sft", {"prompt": "prompt", "completion": "response"})
    found = guess(rows(question=["q"], chosen=["a"], rejected=["b"]))
    assert (found.kind, found.task) == ("reward_model", {"prompt": "question"})
    both = rows(prompt=["q"], completion=["a"], answer=["1"])
    assert guess(both).kind == "grpo"
    assert "'completion' is not used" in guess(both).unsure[0]
    assert guess(both, kind="sft").task == {"prompt": "prompt", "completion": "completion"}


def test_what_is_named_stays():
    found = guess(rows(question=["q"], asked=["q"], answer=["1"], right=["x"]), {"prompt": "asked", "answer": "right"})
    assert found.task == {}
    assert found.reward == {"use": "exact_text"}


def test_no_question_is_refused():
    with pytest.raises(UserError, match=r"no column is called messages.*; there is text, answer"):
        guess(rows(text=["q"], answer=["1"]))


def test_sources_that_make_their_prompts():
    for source in ("word_problems", "arithmetic"):
        found = guess_source(source)
        assert (found.reward, found.size, found.task) == ({"use": "exact_number"}, None, {})
    with pytest.raises(UserError, match="word_problems"):
        guess_source("word_problem")


def test_what_is_held_out(tmp_path):
    def write(name, count):
        text = "".join(json.dumps({"question": f"q{i}", "answer": str(i)}) + "\n" for i in range(count))
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    few, many = write("few.jsonl", 20), write("many.jsonl", 120)
    assert "fewer than 100 rows" in held_out_of(few, "train", None, guess_source(few)).unsure[0]
    assert held_out_of(many, "train", None, guess_source(many)).task["held_out"] == 0.1
    (tmp_path / "many.jsonl").rename(tmp_path / "train.jsonl")
    (tmp_path / "few.jsonl").rename(tmp_path / "test.jsonl")
    there = str(tmp_path)
    assert held_out_of(there, "train", None, guess_source(there)).task["held_out_split"] == "test"
