"""Pairs of a gold answer and an answer, kind by kind; half of them are wrong and look right. See math_pairs.txt."""

import importlib.util
from pathlib import Path

import pytest

from cohort.rewards.guarded import end_guards
from cohort.rewards.verifiers.math.answer import check_math, math_answer

ROOT = Path(__file__).parent.parent.parent


def pairs():
    """(kind, whether it is paid, gold, answer) of every line of math_pairs.txt."""
    kind = ""
    for line in (Path(__file__).parent / "math_pairs.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("# "):
            kind = line[2:]
        elif line:
            gold, answer = line[2:].split(" :: ")
            yield kind, line[0] == "+", gold, answer


PAIRS = list(pairs())


@pytest.fixture(autouse=True, scope="module")
def no_process_is_left():
    yield
    end_guards()


@pytest.mark.parametrize(("kind", "paid", "gold", "answer"), PAIRS)
def test_a_pair_is_judged_as_mathematics_says(kind, paid, gold, answer):
    check_math(gold)
    assert math_answer(f"so \\boxed{{{answer}}}", gold).value == paid
    assert math_answer(f"<answer>{gold}</answer>", gold).value == 1


@pytest.mark.parametrize("kind", dict.fromkeys(kind for kind, *_ in PAIRS))
def test_every_kind_has_right_answers_and_wrong_ones_that_look_right(kind):
    paid = [paid for found, paid, *_ in PAIRS if found == kind]
    assert len(paid) >= 10
    assert 4 <= sum(paid) <= len(paid) / 2


def test_the_table_of_kinds_is_up_to_date():
    spec = importlib.util.spec_from_file_location("math_table", ROOT / "tools" / "math_table.py")
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    assert program.PAGE.read_text(encoding="utf-8") == program.math_page(), "run: python tools/math_table.py"
