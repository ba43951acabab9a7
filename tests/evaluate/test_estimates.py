"""pass@k, the vote of k and the best of k against published numbers and against counting every choice."""

from __future__ import annotations

import random
from collections import Counter
from itertools import combinations
from math import comb

import pytest

from cohort.evaluate import best_of_k, majority_at_k, pass_at_k
from cohort.evaluate.answers import answer_of


@pytest.mark.parametrize(
    ("n", "c", "k", "value"),
    [(10, 3, 1, 0.3), (10, 3, 5, 0.9166666667), (16, 4, 8, 0.9615384615), (8, 2, 4, 0.7857142857)],
)
def test_pass_at_k_as_published(n, c, k, value):
    assert pass_at_k(n, c, k) == pytest.approx(value, abs=1e-10)


@pytest.mark.parametrize("n", range(1, 8))
def test_pass_at_k_is_the_share_of_subsets_with_a_right_answer(n):
    for c in range(n + 1):
        for k in range(1, n + 1):
            hits = sum(min(subset) < c for subset in combinations(range(n), k))
            assert pass_at_k(n, c, k) == pytest.approx(hits / comb(n, k), abs=1e-12)


@pytest.mark.parametrize("bad", [(3, 4, 1), (3, -1, 1), (3, 1, 0), (3, 1, 4)])
def test_pass_at_k_refuses_nonsense(bad):
    with pytest.raises(ValueError, match="pass@k needs"):
        pass_at_k(*bad)


def voted(answers, right, subset):
    """The accuracy of one vote, ties shared, in the plainest words."""
    votes = Counter(answers[i] for i in subset if answers[i] is not None)
    winners = [a for a in votes if votes[a] == max(votes.values())]
    shares = [[r for b, r in zip(answers, right) if b == a] for a in winners]
    return sum(sum(share) / len(share) for share in shares) / len(winners) if winners else 0.0


@pytest.mark.parametrize("seed", range(12))
def test_the_vote_of_k_is_that_of_all_choices(seed):
    draw = random.Random(seed)
    n = draw.randint(1, 9)
    answers = [draw.choice(["a", "b", "c", "d", None]) for _ in range(n)]
    right = [float(a == "a" or (a == "b" and draw.random() < 0.5)) for a in answers]
    for k in range(1, n + 1):
        expected = [voted(answers, right, subset) for subset in combinations(range(n), k)]
        assert majority_at_k(answers, right, k) == pytest.approx(sum(expected) / len(expected), abs=1e-12)


def test_a_vote_of_two_is_one_sample_and_a_large_one_is_quick():
    answers, right = [i % 7 for i in range(64)], [float(i % 7 == 0) for i in range(64)]
    assert majority_at_k(answers, right, 2) == pytest.approx(sum(right) / 64)
    assert majority_at_k(answers, right, 64) == pytest.approx(1.0)  # 0 has 10 votes, the others 9
    assert 0.1 < majority_at_k(list(range(64)), [1.0] * 8 + [0.0] * 56, 32) < 0.13  # nobody agrees: a lot is drawn


@pytest.mark.parametrize("seed", range(6))
def test_the_best_of_k_is_that_of_all_choices(seed):
    draw = random.Random(seed)
    n = draw.randint(1, 8)
    rewards, right = [draw.choice([0.0, 0.5, 1.0]) for _ in range(n)], [float(draw.random() < 0.5) for _ in range(n)]
    for k in range(1, n + 1):
        expected = 0.0
        for subset in combinations(range(n), k):
            top = [i for i in subset if rewards[i] == max(rewards[j] for j in subset)]
            expected += sum(right[i] for i in top) / len(top) / comb(n, k)
        # Of equals each is as likely, so what counts is the mean of all that have the reward.
        assert best_of_k(rewards, right, k) == pytest.approx(expected, abs=1e-12)
    assert best_of_k(right, right, n) == max(right)


@pytest.mark.parametrize("call", [majority_at_k, best_of_k])
@pytest.mark.parametrize("k", [0, 3])
def test_more_than_there_is_is_refused(call, k):
    with pytest.raises(ValueError, match="needs 1 <= k <= n, not n=2"):
        call(["a", "b"], [1.0, 0.0], k)


def test_equal_answers_are_one():
    assert answer_of("so <answer>1,234.50</answer>") == answer_of("#### 1234.5")
    assert answer_of("\\boxed{Paris }") == answer_of("x <answer>paris</answer>")
    assert answer_of("<think>perhaps 7</think> no") == "no"
    assert answer_of("  ") is None
