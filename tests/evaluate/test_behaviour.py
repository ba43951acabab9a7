"""Behaviour beside accuracy, on groups small enough to count by hand."""

from __future__ import annotations

import math

import pytest

from cohort.evaluate.behaviour import behaviour, calibration_error, distinct, majority, refuses, self_bleu
from cohort.monitor.names import BEHAVIOUR
from cohort.types import Group, Observation, Prompt, Rollout, ToolCall, Turn


def group(*texts, accuracy=None, tokens=None, finish="stop", turns=()):
    sizes = tokens or [1] * len(texts)
    rollouts = [Rollout([0] * n, [True] * n, [0.0] * n, 0, finish, text, turns) for text, n in zip(texts, sizes)]
    return Group(0, Prompt.make(text="?"), tuple(rollouts), accuracy=tuple(accuracy or [0.0] * len(texts)))


def test_lengths_of_right_and_wrong():
    found = behaviour([group("a", "b", "c", accuracy=[1, 0, 0], tokens=[2, 4, 9]), group("d", tokens=[5])])
    assert (found["mean_tokens"], found["mean_tokens_right"], found["mean_tokens_wrong"]) == (5, 2, 6)
    assert math.isnan(behaviour([group("a", accuracy=[1])])["mean_tokens_wrong"])


def test_variety():
    words = [["a", "b", "a"], ["a", "b", "c"]]
    assert distinct(words, 1) == 3 / 6
    assert distinct(words, 2) == 3 / 4  # ab ba ab bc
    assert self_bleu([["a", "b", "c", "d", "e"]] * 3) == pytest.approx(1.0)
    assert self_bleu([list("abcde"), list("fghij")]) < 0.2
    assert self_bleu([list("abcde"), list("abcdx"), list("fghij")]) > self_bleu([list("abcde"), list("vwxyz")])
    assert math.isnan(self_bleu([["a"], []]))


def test_self_bleu_as_the_formula_has_it():
    one, two = list("abca"), list("abcd")
    # of `one`: 3 of 4 words, 2 of 3 pairs, 1 of 2 triples, 0.5 of 1; of equal lengths there is no penalty
    expected = (3 / 4 * 2 / 3 * 1 / 2 * 1 / 2) ** 0.25
    assert self_bleu([one, two]) == pytest.approx(expected)


def test_agreement_of_samples():
    agree = group("#### 4", "#### 4.0", "so 4\n#### 4", "#### 5", accuracy=[1, 1, 1, 0])
    assert majority(agree) == (0.75, 1.0)
    found = behaviour([agree])
    assert found["unique_answers"] == 0.5
    assert found["vote_calibration_error"] == pytest.approx(0.25)
    assert found["answered"] == 1.0
    assert majority(group("", " ")) is None


def test_a_majority_that_is_as_often_right_as_it_is_large_is_calibrated():
    assert calibration_error([(0.75, 1.0)] * 3 + [(0.75, 0.0)]) == 0
    assert calibration_error([(1.0, 0.0)] * 2 + [(0.5, 1.0)] * 2) == pytest.approx(0.75)
    assert math.isnan(calibration_error([]))


def test_what_is_cut_off_or_repeats_itself():
    loop = group("go on " * 40, "one two three four five six", finish="length")
    found = behaviour([loop])
    assert found["truncated"] == 1.0
    assert 0.4 < found["repetition"] < 0.5  # nearly all of one, nothing of the other


def test_language():
    english, german = (
        "The train was late, so we walked to the old town.",
        "Der Zug war zu spät, also gingen wir zu Fuß.",
    )
    assert behaviour([group(english)], "en")["language"] == 1.0
    assert behaviour([group(english), group(german)], "en")["language"] < 0.7
    assert "language" not in behaviour([group(english)])


def test_tool_calls():
    add = ToolCall("calculator", {"expression": "2+3"}, "5")
    bad = ToolCall("calculator", {"expression": "2+"}, "error: ...", failed=True)
    turns = (
        Turn(0, 1, "first", Observation(calls=(add,))),
        Turn(1, 2, "it is 5, once more", Observation(calls=(add, bad))),
        Turn(2, 3, "done"),
    )
    found = behaviour([group("done", turns=turns)])
    assert found["tools/calls"] == 3
    assert (found["tools/valid"], found["tools/needed"], found["tools/wasted"]) == (2 / 3, 1 / 3, 2 / 3)


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("I'm sorry, but I can't help with that.", True),
        ("I can\u2019t do this", True),
        ("<think>I cannot do 17 x 3 at once</think>It is 51.", False),
        ("Sorry for the wait: 51", False),
        ("x" * 400 + " I can't", False),
    ],
)
def test_refusals_in_the_usual_words(text, refused):
    assert refuses(text) is refused


def test_every_number_is_in_the_glossary():
    turn = Turn(0, 1, "x", Observation(calls=(ToolCall("calculator", {}, "5"),)))
    assert behaviour([group("a", "b", turns=(turn,))], "en").keys() == BEHAVIOUR.keys()


def test_nothing_to_measure():
    failed = Group(0, Prompt.make(text="?"), (), disposition="error", error="lost")
    found = behaviour([failed])
    assert all(math.isnan(value) for value in found.values())
