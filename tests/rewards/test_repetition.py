"""The repetition penalty against its formula written as a sum, and on hostile text."""

import itertools

import pytest
from hostile import LARGE
from hypothesis import given
from hypothesis import strategies as st

from cohort.rewards import RewardTable, ScoringItem, resolve
from cohort.rewards.verifiers.repetition import repeated_share, repetition


def test_a_text_without_repetition_costs_nothing():
    for text in ("", "a", "a b c", "one two three four five", "a b a b"):
        assert repetition(text) == 0


def test_the_share_of_ngrams():
    assert repetition("a b c a b c", n=3) == pytest.approx(-1 / 4)  # abc bca cab abc
    assert repetition("a a a a", n=2) == pytest.approx(-2 / 3)
    assert repetition("A a A a", n=2, penalty=-0.5) == pytest.approx(-1 / 3)
    assert repetition("word " * 1000) == pytest.approx(-(1 - 1 / 997))


def test_the_share_of_words():
    assert repetition("a b c a b c", n=3, measure="words") == pytest.approx(-3 / 6)
    assert repetition("a a a a", n=2, measure="words") == pytest.approx(-3 / 4)


def test_scripts_without_spaces_and_runs_without_breaks_have_words_too():
    assert repetition("\u6211\u4eec" * 50) < -0.9
    assert repetition("ab" * 5000) < -0.9
    assert repetition("!" * 500) < -0.9


@given(st.lists(st.sampled_from("abc"), max_size=30), st.integers(1, 5))
def test_it_is_the_formula(words, n):
    ngrams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    distinct = 1 - len(set(ngrams)) / len(ngrams) if ngrams else 0
    assert repeated_share(words, n) == pytest.approx(distinct)
    inside = {
        start + k for start, k in itertools.product(range(len(ngrams)), range(n)) if ngrams[start] in ngrams[:start]
    }
    assert repeated_share(words, n, "words") == pytest.approx(len(inside) / len(words) if words else 0)


@pytest.mark.parametrize("name", LARGE)
def test_hostile_text_is_between_the_penalty_and_nothing(name):
    assert -1 <= repetition(LARGE[name]) <= 0


@pytest.mark.parametrize(
    ("args", "said"), [({"n": 0}, "n is"), ({"penalty": 1}, "penalty"), ({"measure": "x"}, "measure")]
)
def test_arguments_out_of_range(args, said):
    with pytest.raises(ValueError, match=said):
        repetition("a", **args)


def test_it_is_a_built_in_reward():
    assert resolve(RewardTable(use="repetition", args={"n": 2})).score(ScoringItem("p", ("a b", "a a a"))) == (0, -0.5)
