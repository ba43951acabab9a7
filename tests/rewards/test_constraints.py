"""Formal constraints: every rule kept and broken, rules of rows, predicates, hostile text."""

import sys

import pytest
from hostile import EMPTY, LARGE

from cohort.rewards import RewardTable, ScoringItem, resolve
from cohort.rewards.verifiers.constraints import RULES, check_rules, constraints
from cohort.types import UserError


def kept(text, **rules):
    scored = constraints(text, {}, [rules])
    assert scored.label == ("kept" if scored.value else "broken")
    return bool(scored.value)


CASES = {
    "contains": [
        ("sun", "The Sun rises", True),
        ("sun", "Sunday", False),
        (["sun", "moon"], "moon, then sun", True),
        (["sun", "moon"], "moon", False),
        ("c++", "I like C++.", True),
        ("full moon", "a full moon", True),
    ],
    "contains_any": [(["sun", "moon"], "moon", True), (["sun", "moon"], "stars", False)],
    "avoids": [("art", "a start", True), ("art", "Art is long", False), (",", "a, b", False), (",", "a b", True)],
    "times": [
        ({"of": "very", "min": 2}, "Very, very good", True),
        ({"of": "very", "max": 1}, "Very, very good", False),
        ({"of": "!", "min": 1, "max": 1}, "Hi!", True),
    ],
    "characters": [({"max": 3}, "abc", True), ({"max": 3}, "abcd", False)],
    "words": [(3, "one two three", True), (3, "one two", False), ({"min": 2}, "one", False), ({"max": 2}, "a b", True)],
    "sentences": [
        (2, "It rains. Is it 3.5 cm?", True),
        (1, "It rains... Yes!", False),
        (2, "\u4e0b\u96e8\u3002\u662f\u7684\uff01", True),
    ],
    "lines": [(2, "a\n\nb", True), (1, "a\nb", False)],
    "paragraphs": [(2, "a\nb\n \nc", True), (2, "a\nb", False)],
    "bullets": [(3, "- a\n* b\n\u2022 c", True), (2, "1. a\n2) b\ntext", True), (1, "-a\n--", False)],
    "starts_with": [("Dear Ada", "  Dear Ada, hello", True), ("Dear Ada", "dear Ada", False)],
    "ends_with": [("Yours, B.", "Hello. Yours, B.\n", True), ("Yours, B.", "Yours, B. PS", False)],
    "case": [
        ("lower", "all is small, 3", True),
        ("lower", "Not", False),
        ("upper", "LOUD!", True),
        ("upper", "123", False),
        ("title", "Every Word", True),
    ],
    "quoted": [(True, '"a b"', True), (True, '"', False), (True, "a", False), (False, "a", True)],
    "json": [(True, '{"a": 1}', True), (True, "{", False), (False, "{", True), (False, "{}", False)],
    "pattern": [(r"\d{4}", "in 1984", True), (r"^\d{4}$", "in 1984", False)],
    "predicate": [
        ("test_constraints:is_short", "a", True),
        ("test_constraints:is_short", "a" * 20, False),
    ],
}


def is_short(text):
    return len(text) < 10


def says_one(text):
    return 1


def test_every_rule_has_its_cases():
    assert set(CASES) == set(RULES)


@pytest.mark.parametrize(("name", "value", "text", "holds"), [(name, *case) for name in CASES for case in CASES[name]])  # type: ignore[attr-defined]
def test_a_rule_is_kept_or_broken(name, value, text, holds):
    assert kept(text, **{name: value}) == holds
    check_rules({}, [{name: value}])


RULED = [{"contains": "sun", "words": {"max": 5}}, {"ends_with": "."}, {"case": "lower"}]


def test_all_rules_or_a_share_of_them():
    assert constraints("the sun is up.", {}, RULED).value == 1
    assert constraints("The sun is up.", {}, RULED).value == 0
    assert constraints("The sun is up.", {}, RULED, partial=True).value == 0.75
    assert constraints("The sun is up.", {}, RULED, partial=True).label == "broken"


def test_rules_of_rows():
    rules = [{"words": 1, "ends_with": None}, {"case": "upper"}]  # as Parquet fills them up
    for column in (rules, {"words": 1, "case": "upper"}, '[{"words": 1}, {"case": "upper"}]'):
        assert constraints("YES", {"rules": column}, column="rules").value == 1
        assert constraints("yes", {"rules": column}, column="rules").value == 0


def test_the_answer_is_what_counts():
    text = "<think>A long, long thought.</think>\nyes"
    assert constraints(text, {}, [{"words": 1}]).value == 1
    assert constraints(text, {}, [{"words": 1}], part="all").value == 0
    assert constraints("<think>yes", {}, [{"words": 1}]).value == 1
    with pytest.raises(ValueError, match="part"):
        constraints(text, {}, [{"words": 1}], part="thought")


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ([{"wrods": 3}], "no rule 'wrods' .did you mean 'words'"),
        ([{"words": "3"}], "rule 'words': a number"),
        ([{"words": -1}], "rule 'words'"),
        ([{"words": True}], "rule 'words'"),
        ([{"words": {"least": 3}}], "rule 'words'"),
        ([{"words": {}}], "rule 'words'"),
        ([{"words": {"min": 3, "max": 2}}], "min is above max"),
        ([{"contains": []}], "rule 'contains'"),
        ([{"contains": [""]}], "rule 'contains'"),
        ([{"times": {"min": 3}}], "rule 'times'"),
        ([{"case": "small"}], "lower, upper, title"),
        ([{"case": ["lower"]}], "lower, upper, title"),
        ([{"json": "yes"}], "true or false"),
        ([{"starts_with": " "}], "a text"),
        ([{"pattern": "("}], "no regular expression"),
        ([], "no rule"),
        ([{}], "no rule"),
        ([{"words": None}], "no rule"),
        (["words"], "list of tables"),
        (3, "list of tables"),
        ("{", "not JSON"),
    ],
)
def test_unusable_rules_are_refused(rules, said):
    with pytest.raises(ValueError, match=said):
        check_rules({}, rules)


def test_predicates():
    with pytest.raises(UserError, match=r"no function 'is_shot' \(did you mean 'is_short'"):
        check_rules({}, [{"predicate": "test_constraints:is_shot"}])
    with pytest.raises(TypeError, match="returned 1; it returns True or False"):
        constraints("a", {}, [{"predicate": "test_constraints:says_one"}])
    assert "test_constraints" in sys.modules


def test_a_pattern_that_never_ends_does_not_pay():
    scored = constraints("a" * 60 + "!", {}, [{"pattern": r"^(a|aa)+$"}])
    assert (scored.value, scored.label) == (0, "timeout")


@pytest.mark.parametrize("text", ["", " \n\t ", "<think>a</think>", "<think>a</think> \n"])
def test_a_blank_text_keeps_nothing(text):
    scored = constraints(text, {}, [{"words": {"max": 10}}, {"avoids": "x"}], partial=True)
    assert (scored.value, scored.label) == (0, "blank")


STRICT = [{"contains": "sun"}, {"starts_with": "Dear"}, {"pattern": r"sun.{1,50}moon"}]


@pytest.mark.parametrize("text", EMPTY)
def test_openers_do_not_keep_the_rules(text):
    assert constraints(text, {}, STRICT, partial=True).value == 0


@pytest.mark.parametrize("name", LARGE)
def test_hostile_text_costs_little(name):
    everything = [{rule: value} for rule, cases in CASES.items() for value in [cases[0][0]]]  # type: ignore[index]
    assert constraints(LARGE[name], {}, everything, part="all").value == 0
    assert constraints(LARGE[name], {}, STRICT, partial=True).value == 0


def test_it_is_a_built_in_reward():
    reward = resolve(RewardTable(use="constraints", args={"rules": RULED}))
    assert reward.score(ScoringItem("p", ("the sun is up.", "no"))) == (1, 0)
