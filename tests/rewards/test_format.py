"""Patterns of one's own, and exactly one answer."""

import pytest
from hostile import EMPTY, LARGE

from cohort.rewards import RewardTable, ScoringItem, resolve
from cohort.rewards.verifiers.format import check_pattern, one_answer, regex_format

R1 = r"(?s)<think>.+</think>\s*<answer>.+</answer>"


@pytest.mark.parametrize(
    ("text", "pattern", "whole", "paid"),
    [
        ("<think>a</think>\n<answer>1</answer>", R1, True, 1),
        ("so <think>a</think>\n<answer>1</answer>", R1, True, 0),
        ("so <think>a</think>\n<answer>1</answer>", R1, False, 1),
        ("<think>a</think>", R1, False, 0),
        ("Answer: 12", r"Answer: \d+", True, 1),
        ("Answer: 12\n", r"Answer: \d+", True, 0),
        ("", r"Answer: \d+", False, 0),
        ("", r"", True, 1),
    ],
)
def test_a_pattern_pays_where_it_matches(text, pattern, whole, paid):
    scored = regex_format(text, pattern, whole)
    assert (scored.value, scored.label) == (paid, None)


@pytest.mark.parametrize("pattern", [r"(a|aa)+$", r"(x+x+)+y", r"(?:a|a|aa)*b"])
def test_a_catastrophic_pattern_ends(pattern):
    scored = regex_format("a" * 5000 + "x" * 5000 + "!", pattern, whole=False, timeout_s=0.2)
    assert scored.value == 0
    assert scored.label in (None, "timeout")
    assert regex_format("a" * 200 + "!", r"(a|aa)+$", timeout_s=0.2).label == "timeout"


@pytest.mark.parametrize("pattern", ["(", "[a", "(?P<n>a)(?P<n", "*", 3, None, "(?<=a{1,2}", "\\"])
def test_what_is_no_pattern_is_refused(pattern):
    with pytest.raises(ValueError, match="pattern"):
        check_pattern(pattern)


@pytest.mark.parametrize("name", LARGE)
def test_hostile_text_does_not_match(name):
    assert regex_format(LARGE[name], R1).value == 0
    assert one_answer(LARGE[name]) == (name in ("in one pair of tags", "in one box"))


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("so <answer> 72 </answer>.", "tags"),
        ("<answer>\\boxed{72}</answer>", "tags"),
        ("so \\boxed{72}.", "boxed"),
        ("so \\boxed{\\frac{1}{2}}.", "boxed"),
        ("so\n#### 72", "hashes"),
        ("####72\n", "hashes"),
    ],
)
def test_one_answer_pays(text, form):
    assert one_answer(text) == one_answer(text, form) == 1
    for other in {"tags", "boxed", "hashes"} - {form}:
        assert one_answer(text, other) == 0


@pytest.mark.parametrize(
    "text",
    [
        *EMPTY[:-15],
        "72",
        "<answer>71</answer><answer>72</answer>",
        "<answer>72</answer></answer>",
        "<answer>72</answer> \\boxed{72}",
        "<answer>\\boxed{71} \\boxed{72}</answer>",
        "<answer>72</answer>\n#### 72",
        "\\boxed{71} \\boxed{72}",
        "\\boxed{72}\n#### 72",
        "\\boxed{72",
        "#### 71\n#### 72",
        "##### 72",
        "<ANSWER>72</ANSWER>",
    ],
)
def test_no_answer_and_several_do_not_pay(text):
    assert one_answer(text) == 0


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("72", "no_answer"),
        ("72 </answer>", "unpaired"),
        ("<answer> 72", "unpaired"),
        ("</answer> 72 <answer>", "unpaired"),
        ("<answer>71</answer><answer>72</answer>", "several"),
        ("<answer>72</answer></answer>", "several"),
        ("<answer> </answer>", "blank"),
        ("\\boxed{72}", "other_form"),
        ("<answer>72</answer>", "kept"),
    ],
)
def test_the_label_says_what_is_wrong_with_the_marks(text, label):
    assert one_answer(text, "tags").label == label


def test_no_such_form():
    with pytest.raises(ValueError, match="form is one of any, tags, boxed, hashes, not 'box'"):
        one_answer("72", form="box")


def test_they_are_built_in_rewards():
    item = ScoringItem("p", ("Answer: 12", "12"))
    assert resolve(RewardTable(use="regex_format", args={"pattern": r"Answer: \d+"})).score(item) == (1, 0)
    assert resolve(RewardTable(use="one_answer")).score(item) == (0, 0)
