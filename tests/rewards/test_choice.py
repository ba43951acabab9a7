"""Multiple choice: one letter pays, listing them does not."""

import itertools

import pytest
from hostile import EMPTY, LARGE

from cohort.rewards import RewardTable, ScoringItem, resolve
from cohort.rewards.verifiers.choice import check_choice, choice

CITIES = {"options": ["London", "Paris", "A city", "None of these"]}


def chosen(text, gold="B", row=None, **args):
    scored = choice(text, gold, row or {}, **args)
    return scored.value, scored.label


@pytest.mark.parametrize(
    "text",
    [
        "B",
        " b ",
        "(B)",
        "B.",
        "**B**",
        "**(B)**",
        "B) Paris",
        "B. Paris, a city",
        "B: Paris",
        "B - Paris",
        "\\boxed{B}",
        "\\boxed{\\text{B}}",
        "\\boxed{\\text{(B)}}",
        "$\\boxed{\\mathrm{B}}$",
        "<answer> B </answer>",
        "<think>A? C?</think><answer>(B)</answer>",
        "so\n#### B",
        "Long reasoning about A, C and D. The answer is (B).",
        "The answer is A? No. The correct option is: B",
        "Final answer: B",
        "ANSWER: b",
        "x" * 1000 + "\nAnswer: B. Paris",
    ],
)
def test_the_right_letter_pays(text):
    assert chosen(text) == (1, "right")


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("A", "wrong"),
        ("(B) is wrong", "unparsed"),
        ("<answer>(B) isn't the right answer</answer>", "unparsed"),
        ("The answer is (B) is incorrect", "unparsed"),
        ("The answer is (B). The answer is (A).", "wrong"),
        ("<answer>A</answer> B", "wrong"),
        ("E", "unparsed"),
        ("A or B", "unparsed"),
        ("A, B, C, D", "unparsed"),
        ("ABCD", "unparsed"),
        ("(A)(B)(C)(D)", "unparsed"),
        ("B and also A", "unparsed"),
        ("B. or A", "unparsed"),
        ("b. or a", "unparsed"),
        ("B) C) D)", "unparsed"),
        ("(b), (d)", "unparsed"),
        ("B. Paris (d)", "unparsed"),
        ("The answer is A, B, C or D", "unparsed"),
        ("<answer>A</answer><answer>B</answer>", "unparsed"),
        ("\\boxed{A,B}", "unparsed"),
        ("\u0412", "unparsed"),
        ("B" * 201, "no_answer"),
        ("I think that it may well be the second one, " * 10, "no_answer"),
        ("Which is it? A. London B. Paris C. Rome D. Bern", "unparsed"),
    ],
)
def test_other_letters_and_several_do_not(text, label):
    assert chosen(text) == (0, label)


def test_every_listing_of_several_letters_scores_nothing():
    for count in (2, 3, 4):
        for letters in itertools.permutations("ABCD", count):
            for join in (", ", " ", " or ", " and ", ") (", "/", "\n", ".", ". ", "): ", " - ", "="):
                for frame in ("{}", "({})", "\\boxed{{{}}}", "<answer>{}</answer>", "The answer is {}"):
                    if frame.startswith("The") and join == "\n":
                        continue  # the line that says "the answer is" has one letter
                    assert chosen(frame.format(join.join(letters)))[0] == 0


def test_options_with_texts():
    for text in ("B", "Paris", "paris.", "B. Paris", "(B) Paris", "<answer>Paris</answer>"):
        assert chosen(text, "B", CITIES, options="options") == (1, "right")
    assert chosen("B. London", "B", CITIES, options="options") == (0, "unparsed")
    assert chosen("C. A city", "C", CITIES, options="options") == (1, "right")
    assert chosen("London Paris", "B", CITIES, options="options") == (0, "unparsed")
    assert chosen("D", "None of these", CITIES, options="options") == (1, "right")
    assert chosen("B", "Paris", CITIES, options="options") == (1, "right")


def test_options_that_differ_in_a_minus_only():
    row = {"options": ["5", "-5", "3"]}
    assert chosen("-5", "B", row, options="options") == (1, "right")
    assert chosen("5", "B", row, options="options") == (0, "wrong")
    assert chosen("-5", "-5", row, options="options") == (1, "right")


def test_gold_answers_by_number():
    assert chosen("B", 1) == (1, "right")
    assert chosen("B", 2, first=1) == (1, "right")
    assert chosen("F", 5, letters="ABCDEFGHIJ") == (1, "right")
    assert chosen("Paris", 1, CITIES, options="options") == (1, "right")


@pytest.mark.parametrize(
    ("gold", "args", "said"),
    [
        ("E", {}, "none of the options A, B, C, D"),
        ("A, B", {}, "none of the options"),
        ("", {}, "none of the options"),
        (None, {}, "none of the options"),
        (4, {}, "not the number of an option"),
        (0, {"first": 1}, "number"),
        (True, {}, "none of the options"),
        ("A", {"letters": "abcd"}, "letters are"),
        ("A", {"letters": "AA"}, "letters are"),
        ("A", {"letters": ""}, "letters are"),
        ("A", {"options": "absent"}, "holds no list"),
    ],
)
def test_a_gold_answer_that_is_no_option_is_refused(gold, args, said):
    with pytest.raises(ValueError, match=said):
        check_choice(gold, {}, **args)
    with pytest.raises(ValueError, match=said):
        choice("B", gold, {}, **args)


@pytest.mark.parametrize("text", EMPTY)
def test_empty_shells_and_openers_do_not_pay(text):
    for gold in "ABCD":
        assert chosen(text, gold)[0] == 0
        assert chosen(text, gold, CITIES, options="options")[0] == 0


@pytest.mark.parametrize("name", LARGE)
def test_hostile_text_does_not_pay(name):
    assert chosen(LARGE[name])[0] == 0
    assert chosen(f"<answer>{LARGE[name]}</answer>")[0] == 0


def test_it_is_a_built_in_reward():
    assert resolve(RewardTable(use="choice")).score(ScoringItem("p", ("A", "B", "A, B"), answer="B")) == (0, 1, 0)


VITAMINS = {"options": ["C", "D", "A", "K"]}
SIGNS = {"options": ["=", "!=", "50%", "50"]}


@pytest.mark.parametrize(("gold", "row"), [("C", VITAMINS), ("A", VITAMINS), ("D", VITAMINS)])
def test_a_gold_answer_that_is_a_letter_and_another_options_text_is_refused(gold, row):
    with pytest.raises(ValueError, match="the letter of one option and the text of another"):
        check_choice(gold, row, options="options")


def test_a_letter_is_a_letter_where_options_are_letters_too():
    assert chosen("<answer>C</answer>", 2, VITAMINS, options="options") == (1, "right")
    assert chosen("<answer>A</answer>", 2, VITAMINS, options="options") == (0, "wrong")
    assert chosen("<answer>K</answer>", 3, VITAMINS, options="options") == (1, "right")


@pytest.mark.parametrize("at", range(4))
def test_options_that_differ_in_signs_alone_are_told_apart(at):
    for index, text in enumerate(SIGNS["options"]):
        expected = (1, "right") if index == at else (0, "wrong")
        assert chosen(f"<answer>{text}</answer>", SIGNS["options"][at], SIGNS, options="options") == expected


def test_letters_in_an_options_text_are_no_second_answer():
    assert chosen("<answer>B. f(a) = g(c)</answer>") == (1, "right")
    assert chosen("<answer>B. (a + c)</answer>") == (1, "right")
