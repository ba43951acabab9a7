"""Scoring reasoning-gym answers: gold pays, nothing else does, and no text of a policy is ever executed."""

from __future__ import annotations

import builtins
import importlib.util
import re
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("reasoning_gym")

from cohort.integrations.reasoning_gym.reward import EXECUTES, reasoning_gym, same
from cohort.integrations.reasoning_gym.source import GymProblems, admitted_tasks, refused_tasks
from cohort.integrations.reasoning_gym.verify import arithmetic, verify
from cohort.rewards import RewardPool, RewardTable, ScoringItem, resolve
from cohort.types import Prompt

ROOT = Path(__file__).parent.parent.parent


def load_gate():
    spec = importlib.util.spec_from_file_location("reasoning_gym_gate", ROOT / "tools" / "reasoning_gym_gate.py")
    gate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(gate)
    return gate


GATE = load_gate()


def pays(prompt: Prompt, answer: str) -> bool:
    scored = reasoning_gym(f"<answer>{answer}</answer>", prompt.answer, prompt.question, prompt.tags)
    assert scored.value in (0.0, 1.0)
    return bool(scored.value)


@pytest.mark.parametrize("task", sorted(admitted_tasks()))
def test_every_admitted_task_survives_the_gate(task):
    """Two problems of each here; the gate itself looked at more, and at every level."""
    problems = GymProblems(task, seed=11)
    GATE.examine([problems[0], problems[1]])


def test_the_page_shows_what_the_gate_found():
    page = GATE.PAGE.read_text()
    assert GATE.page(page) == page, "run: python tools/reasoning_gym_gate.py"
    for name in (*admitted_tasks(), *refused_tasks()):
        assert f"| `{name}` |" in page


def test_no_scorer_that_executes_its_answer_is_ever_called():
    for task in EXECUTES & set(admitted_tasks()):
        assert admitted_tasks()[task].scoring != "verifier"
    for task in EXECUTES:
        row = {"gym": {"task": task, "scoring": "verifier", "config": {}, "seed": 1}}
        with pytest.raises(ValueError, match=f"scorer of {task} executes the answer"):
            reasoning_gym("<answer>1</answer>", "1", "?", row)
    with pytest.raises(ValueError, match="has the scoring 'eval'"):
        reasoning_gym("<answer>1</answer>", "1", "?", {"gym": {"task": "gcd", "scoring": "eval"}})
    with pytest.raises(ValueError, match="has the scoring None"):
        reasoning_gym("<answer>1</answer>", "1", "?", {"gym": "a column of somebody's own"})


def test_the_librarys_scorers_do_execute(monkeypatch):
    """Why there is a gate: this is what would happen."""
    from reasoning_gym.factory import create_dataset

    ran = []
    monkeypatch.setattr(builtins, "canary", lambda: ran.append(1) or "x", raising=False)
    dataset = create_dataset("string_insertion", seed=1, size=1)
    dataset.score_answer("[canary()]", dataset[0])
    assert ran
    prompt = GymProblems("string_insertion")[0]
    assert not pays(prompt, "[canary()]")
    assert ran == [1]


def test_a_prompt_of_another_source_gets_no_score():
    assert reasoning_gym("<answer>1</answer>", "1", "1?", {"level": 1}) is None


# --- the traps of the library's own scoring


def test_no_credit_for_substrings():
    prompt = GymProblems("gcd")[0]
    assert pays(prompt, prompt.answer)
    for text in (f"{prompt.answer} is it", f"is it {prompt.answer}", " ".join(map(str, range(100)))):
        assert not pays(prompt, text)


def test_halting_does_not_pay_for_any_text():
    problems = GymProblems("game_of_life_halting")
    prompts = [problems[index] for index in range(30)]
    assert {prompt.answer for prompt in prompts} == {"True", "False"}
    for prompt in prompts:
        assert pays(prompt, prompt.answer)
        assert not pays(prompt, "anything")
        assert not pays(prompt, "True" if prompt.answer == "False" else "False")


def test_a_number_near_the_right_one_does_not_pay():
    prompt = next(p for p in (GymProblems("calendar_arithmetic")[i] for i in range(50)) if p.answer.isdigit())
    assert not pays(prompt, str(int(prompt.answer) + 1))


def test_only_one_answer_may_be_given():
    prompt = GymProblems("gcd")[0]
    both = f"<answer>{prompt.answer}</answer><answer>{prompt.answer}</answer>"
    assert reasoning_gym(both, prompt.answer, prompt.question, prompt.tags).value == 0.0
    none = reasoning_gym(f"It is {prompt.answer}.", prompt.answer, prompt.question, prompt.tags)
    assert (none.value, none.label) == (0.0, "no_answer")
    long = reasoning_gym(f"<answer>{'1' * 30_000}</answer>", prompt.answer, prompt.question, prompt.tags)
    assert (long.value, long.label) == (0.0, "too_long")
    boxed = reasoning_gym(f"So \\boxed{{{prompt.answer}}}", prompt.answer, prompt.question, prompt.tags)
    assert boxed.value == 1.0


# --- the ways of comparing


@pytest.mark.parametrize(
    ("found", "gold", "right"),
    [
        ("7", "7", True),
        (" 7.0\n", "7", True),
        ("+07", "7", True),
        ("7e0", "7", False),
        ("7", "-7", False),
        ("77", "7", False),
        ("1 2  3\n 4 5 6 \n", "1 2 3\n4 5 6", True),
        ("1 2 3 4 5 6", "1 2 3\n4 5 6", False),
        ("[[1,2],[3]]", "[[1, 2], [3]]", True),
        ('["97.0","95.0"]', "['97.0', '95.0']", True),
        ("['97.0','95.0']", "['97.0', '95.0']", True),
        ('["95.0","97.0"]', "['97.0', '95.0']", False),
        ("[97.0, 95.0]", "['97.0', '95.0']", False),
        ("[[1,2],[3],[]]", "[[1, 2], [3]]", False),
        ("[true]", "[1]", False),
        ("['a', 'b']", "['a', 'b']", True),
        ("[" * 5000, "[1]", False),
        ("Yes", "yes", False),
        ("", "", False),
        ("nan", "nan", True),  # equal texts; no number is compared
        ("9" * 500, "9" * 500 + "0", False),
    ],
)
def test_same(found, gold, right):
    assert same(found, gold) is right


@settings(max_examples=200)
@given(st.text(max_size=30), st.text(max_size=30))
def test_same_is_symmetric_and_reflexive_on_texts_that_hold_something(a, b):
    assert same(a, b) == same(b, a) or not (a.split() and b.split())
    assert same(a, a) == bool(a.split())


def test_words_forgive_case_and_a_full_stop():
    prompt = GymProblems("knights_knaves")[0]
    assert prompt.answer.endswith(".")
    assert pays(prompt, prompt.answer.rstrip(".").lower())
    assert not pays(prompt, prompt.answer + " Probably.")


EXPRESSIONS = st.recursive(
    st.integers(0, 99).map(str),
    lambda inner: st.tuples(inner, st.sampled_from("+-*/"), inner).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
    max_leaves=8,
)


@settings(max_examples=200)
@given(EXPRESSIONS)
def test_arithmetic_is_that_of_python(text):
    try:
        exact = "".join(f"Fraction({part})" if part.isdigit() else part for part in tokens(text))
        expected = eval(exact, {"Fraction": Fraction})
    except ZeroDivisionError:
        assert arithmetic(text) is None
        return
    value, numbers = arithmetic(text)
    assert value == expected
    assert numbers == [int(part) for part in tokens(text) if part.isdigit()]


def tokens(text):
    return re.findall(r"\d+|\D", text)


@pytest.mark.parametrize(
    "text",
    [
        *("9**9**9**9", "1//2", "f(1)", "1 if 1 else 2", "1,2", "(1)(2)", "2 3", "", "1/0", "(" * 200, "0x1", "+1"),
        *("1.5", "07", "9" * 301, "__import__('os')", "1\n+1", "1<2", "~1"),
    ],
)
def test_arithmetic_is_nothing_else(text):
    assert arithmetic(text) is None


def test_countdown_uses_every_number_once_and_meets_the_target():
    prompt = GymProblems("countdown", seed=2)[0]
    assert pays(prompt, prompt.answer)
    assert pays(prompt, f"({prompt.answer})")
    assert not pays(prompt, f"{prompt.answer} + 0")
    assert not pays(prompt, str(metadata_of(prompt)["target"]))


def metadata_of(prompt):
    from reasoning_gym.factory import create_dataset

    gym = prompt.tags["gym"]
    return create_dataset(gym["task"], **gym["config"], seed=gym["seed"], size=1)[0]["metadata"]


def test_twenty_four_must_be_made_of_the_given_numbers():
    """The library's scorer takes any four numbers, and 24.9."""
    prompt = GymProblems("puzzle24")[0]
    assert pays(prompt, prompt.answer)
    assert sorted(metadata_of(prompt)["numbers"]) != [1, 1, 4, 6]
    assert not pays(prompt, "6 * 4 * 1 * 1")


def test_any_valid_board_of_queens_pays():
    problems = GymProblems("n_queens")
    prompt = next(p for p in (problems[i] for i in range(40)) if len(metadata_of(p)["valid_answers"]) > 1)
    for board in metadata_of(prompt)["valid_answers"]:
        assert pays(prompt, board)
    assert not pays(prompt, prompt.question)


def test_another_path_of_the_same_length_pays():
    problems = GymProblems("shortest_path")
    prompt = next(p for p in (problems[i] for i in range(40)) if p.answer != "infeasible")
    assert pays(prompt, prompt.answer)
    assert not pays(prompt, prompt.answer + " up down")


# --- in the workers


def test_scored_in_a_worker_with_other_rewards():
    problems = GymProblems("shortest_path", (1,))
    reward = resolve(RewardTable(use="reasoning_gym"), columns=["task", "level", "gym"])
    with RewardPool([reward], workers=1) as pool:
        for index in range(3):
            prompt = problems[index]
            item = ScoringItem(
                prompt=prompt.question,
                completions=(f"<answer>{prompt.answer}</answer>", "<answer>up sideways</answer>", ""),
                answer=prompt.answer,
                row=prompt.tags,
            )
            assert pool.submit(item).result().scores["reasoning_gym"] == (1.0, 0.0, 0.0)


def test_a_problem_that_comes_out_otherwise_stops_the_run():
    """Another version of the library would judge answers to a question that was never asked."""
    prompt = GymProblems("shortest_path")[0]
    with pytest.raises(RuntimeError, match="makes another problem of the task shortest_path"):
        verify(prompt.tags["gym"], "Another question?", prompt.answer)
