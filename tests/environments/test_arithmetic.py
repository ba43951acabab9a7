"""The embedded arithmetic task, and its demonstrations of tool calls."""

from __future__ import annotations

import re

import pytest

from cohort.environments import FORMATS, Tools, build_tools
from cohort.rewards.verifiers.number import exact_number
from cohort.settings import Curriculum
from cohort.tasks import open_demonstrations, open_task
from cohort.tasks.embedded.arithmetic import ARITHMETIC, LEVELS
from cohort.tasks.embedded.problems import Problems
from cohort.types import UserError


def test_answers_are_those_of_the_question():
    """Worked out again from the words of the question alone."""
    for index in range(400):
        prompt = Problems(ARITHMETIC, (1, 2, 3, 4))[index]
        first, *rest = re.split(r"(?<=[.?]) (?=Then)", prompt.text)
        a, b = map(int, re.findall(r"\d+", first))
        value = a * b
        for sentence in rest:
            (other,) = map(int, re.findall(r"\d+", sentence))
            if re.search("add|more", sentence):
                value += other
            elif re.search("subtract|less", sentence):
                value -= other
            else:
                assert re.search("multiply|times", sentence), sentence
                value *= other
        assert prompt.answer == str(value)
        assert prompt.tags["steps"] == 1 + len(rest)


def test_problems_are_the_same_every_time_and_held_out_ones_apart():
    train, held_out = (Problems(ARITHMETIC, (1, 2, 3), seed=4, split=split) for split in ("train", "held_out"))
    assert [train[i].id for i in range(50)] == [Problems(ARITHMETIC, (1, 2, 3), seed=4)[i].id for i in range(50)]
    assert {train[i].text for i in range(2000)}.isdisjoint(held_out[i].text for i in range(300))
    assert len({train[i].text for i in range(2000)}) > 1900


def test_levels_have_their_digits_and_take_turns():
    problems = Problems(ARITHMETIC, (2, 3))
    assert [problems[i].tags["level"] for i in range(4)] == [2, 3, 2, 3]
    for level in LEVELS:
        first, *_ = Problems(ARITHMETIC, (level,)).at(level, 7).tags["reasoning"].split(" * ")
        assert len(first) == LEVELS[level].digits
    with pytest.raises(UserError, match="levels of arithmetic are numbers from 1 to 4"):
        Problems(ARITHMETIC, (5,))


def test_careful_demonstrations_call_the_calculator_as_it_would_answer():
    demonstrations = open_demonstrations("arithmetic", levels=(1, 2, 3, 4), careful=1.0)
    tools = Tools(build_tools(["calculator"], {}, 1.0), FORMATS["tags"])
    for index in range(40):
        example = demonstrations[index]
        turns = re.split(r"<result>(.*?)</result>", example.completion)
        assert len(turns) == 2 * example.prompt.tags["steps"] + 1
        for call, result in zip(turns[::2], turns[1::2], strict=False):
            assert tools.step(None, call).calls[0].result == result
        assert exact_number(turns[-1], example.prompt.answer) == 1.0


def test_careless_ones_guess():
    rules = {"careful": 0.25, "sloppy_right": 0.2, "careful_first": 100}
    demonstrations = open_demonstrations("arithmetic", levels=(2,), **rules)  # type: ignore[arg-type]
    made = [demonstrations[i] for i in range(2100)]
    assert all("<tool>" in example.completion for example in made[:100])
    guesses = [example for example in made[100:] if "<tool>" not in example.completion]
    assert len(guesses) == pytest.approx(1500, abs=80)
    right = [exact_number(example.completion, example.prompt.answer) for example in guesses]
    assert sum(right) == pytest.approx(300, abs=60)
    with pytest.raises(UserError, match=r"task\.careful must be"):
        open_demonstrations("arithmetic", careful={1: 1.5})
    by_steps = open_demonstrations("arithmetic", levels=(2, 3), careful={1: 0.0, 2: 1.0})  # level 3 has two steps
    assert ["<tool>" in by_steps[i].completion for i in range(20)] == [False, True] * 10


def test_it_is_a_source_as_the_others_are():
    task = open_task("arithmetic", levels=[1, 4], seed=3)
    assert task.train.size is None
    assert {task.train[i].tags["level"] for i in range(4)} == {1, 4}
    assert task.held_out[0].tags["split"] == "held_out"
    assert {"prompt", "answer", "level", "steps"} <= set(task.columns)
    assert open_task("arithmetic", limit=10).train.size == 10
    rising = open_task("arithmetic", curriculum=Curriculum())
    assert rising.train[0].tags["level"] == 1
    assert open_demonstrations("arithmetic", careful=1.0, limit=5).size == 5
    with pytest.raises(UserError, match="levels of arithmetic are numbers from 1 to 4"):
        open_task("arithmetic", levels=[9])
