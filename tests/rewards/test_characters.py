"""The same characters, however they are written, are the same answer in every reward that reads text."""

from __future__ import annotations

import sys
import unicodedata

import pytest
import regex

from cohort.rewards.verifiers.characters import plain, visible
from cohort.rewards.verifiers.choice import choice
from cohort.rewards.verifiers.constraints import constraints
from cohort.rewards.verifiers.format import one_answer, think_format
from cohort.rewards.verifiers.number import exact_number
from cohort.rewards.verifiers.repetition import repetition
from cohort.rewards.verifiers.text import exact_text, f1_text, fuzzy_text

SAME_AS_72 = [
    "\uff17\uff12",  # full-width digits
    "7\uff12",
    "\u0667\u0662",  # Arabic digits
    "\u096d\u0968",  # Devanagari digits
    "\U0001d7d5\U0001d7d0",  # bold digits of mathematics
    "72\uff05",  # full-width per cent
    "\uff0872\uff09",  # full-width brackets
    "(72)",
    "(72).",
    "x\uff1d72",
    "\uffe572",  # full-width yen
    "72\u3002",  # ideographic full stop
    "72\uff0e",
    "\uff0b72",
    "\u200b72",  # no width, in front, inside and behind
    "7\u200b2",
    "72\u200d",
    "\ufeff72",
    "\u206072",
    "7\u00ad2",
    "\u202e72\u202c",  # marks of direction
    "72\ufe0f",
    "72\U000e0041",
    "72\u2009",
    "72\u00a0apples",
]


@pytest.mark.parametrize("said", SAME_AS_72)
def test_a_number_in_other_characters_is_that_number(said):
    assert exact_number(f"<answer>{said}</answer>", "72") == 1
    assert exact_number("<answer>72</answer>", said) == 1
    assert exact_number(f"<answer>{said}</answer>", "73") == 0


@pytest.mark.parametrize("minus", "-\u2010\u2011\u2012\u2013\u2212\uff0d\ufe63")
def test_every_sign_for_a_minus_is_one(minus):
    assert exact_number(f"<answer>{minus}72</answer>", "-72") == 1
    assert exact_number(f"<answer>{minus}72</answer>", "72") == 0
    assert exact_text(f"<answer>{minus}72</answer>", "-72") == 1
    assert exact_text(f"<answer>{minus}72</answer>", "72") == 0


@pytest.mark.parametrize("said", ["72\u00b2", "72\u2082", "7\u00b2", "72\u00bd", "7\u2461", "72\u207b\u00b9"])
def test_a_raised_or_lowered_sign_is_no_further_digit(said):
    folded = unicodedata.normalize("NFKC", said)
    for gold in ("72", folded if folded.isdecimal() else "722", "721", "72-1"):
        assert exact_text(f"<answer>{said}</answer>", gold) == 0
    assert exact_number(f"<answer>{said}</answer>", "72") == 0
    assert exact_number(f"<answer>{said}</answer>", "722") == 0
    assert exact_number(f"it is {said}", "722", last_number=True) == 0


def test_fractions_of_one_character_are_read():
    assert exact_number("<answer>\u00bd</answer>", "1/2") == 1
    assert exact_number("<answer>\u00be</answer>", "0.75") == 1


@pytest.mark.parametrize(
    "said", ["\uff22", "\uff08\uff22\uff09", "B\uff0e", "B\u3002", "\u24b7", "\u200bB", "B\u200b. Rome", "\uff42"]
)
def test_a_letter_in_other_characters_is_that_letter(said):
    assert choice(f"<answer>{said}</answer>", "B", {}).label == "right"
    assert choice(f"The answer is\u200b {said}", "B", {}).label == "right"
    assert choice("<answer>A</answer>", "\uff21", {}).label == "right"
    assert choice("<answer>\u0412</answer>", "B", {}).label == "unparsed"  # Cyrillic: another letter


@pytest.mark.parametrize("score", [exact_text, f1_text, lambda said, gold: fuzzy_text(said, gold, threshold=1).value])
@pytest.mark.parametrize(
    ("said", "gold"),
    [
        ("Pa\u200bris", "Paris"),
        ("\uff30aris", "Paris"),
        ("Cafe\u0301", "Caf\u00e9"),
        ("\ufb01ne", "fine"),
        ("H\u2082O", "H2O"),
        ("co\u00adoperate", "cooperate"),
        ("\u0667\u0662 km", "72 km"),
    ],
)
def test_a_text_in_other_characters_is_that_text(score, said, gold):
    assert score(f"<answer>{said}</answer>", gold) == 1
    assert score(f"<answer>{gold}</answer>", said) == 1


@pytest.mark.parametrize("blank", ["\u200b", "\ufeff \u2060", "\u00ad", "\u3164", "\u034f"])
def test_an_answer_that_nobody_sees_is_blank(blank):
    assert think_format(f"<think>a</think><answer>{blank}</answer>") == 0
    assert one_answer(f"<answer>{blank}</answer>") == 0
    assert constraints(f"<think>a</think>{blank}", {}, rules=[{"words": {"max": 5}}]).label == "blank"
    assert exact_text(f"<answer>{blank}</answer>", "a") == 0
    assert think_format(f"{blank}<think>a</think><answer>b</answer>{blank}") == 1


def test_signs_of_no_width_hide_no_loop():
    marks = ("", "\u200b", "\u200c", "\u200d", "\u2060", "\ufeff", "\u00ad", "\u034f")
    loop = " ".join(f"go{mark}ing" for mark in marks)
    assert repetition(loop, n=1) == repetition("going " * 8, n=1)
    assert constraints("\u200b \u200b a", {}, rules=[{"words": 1}]).label == "kept"


def test_what_is_invisible_is_so_by_unicode():
    ignorable = regex.compile(r"\p{Default_Ignorable_Code_Point}")
    every = "".join(map(chr, [*range(0xD800), *range(0xE000, sys.maxunicode + 1)]))
    assert visible(every) == ignorable.sub("", every)
    assert plain(plain(every[:0x20000])) == plain(every[:0x20000])
